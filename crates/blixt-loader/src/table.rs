//! A map of the kernel, with the types of its keys and values.

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};

use crate::Error;
use crate::plain::Plain;
use crate::sys;

/// Entries that one system call reads at most.
const READ_AT_ONCE: usize = 4096;

/// A map with keys and values of known types.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    name: &'static str,
    fd: OwnedFd,
    max_entries: u32,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Plain + Debug, V: Plain> Table<K, V> {
    /// Checks that the map's keys and values have the sizes of the types: all that follows relies on it.
    pub(crate) fn new(name: &'static str, fd: OwnedFd) -> Result<Self, Error> {
        let info = sys::map_info(fd.as_fd()).map_err(Error::map("read the shape of", name))?;
        if (info.key_size as usize, info.value_size as usize) != (size_of::<K>(), size_of::<V>()) {
            return Err(Error::ObjectMismatch { map: name });
        }
        Ok(Self { name, fd, max_entries: info.max_entries, types: PhantomData })
    }

    /// The same map, for another thread.
    pub(crate) fn try_clone(&self) -> Result<Self, Error> {
        let fd = self.fd.try_clone().map_err(Error::map("duplicate", self.name))?;
        Ok(Self { name: self.name, fd, max_entries: self.max_entries, types: PhantomData })
    }

    pub(crate) fn max_entries(&self) -> u32 {
        self.max_entries
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let mut value = V::default();
        // SAFETY: `new` checked the sizes, and V takes any bytes.
        let found =
            unsafe { sys::lookup(self.fd.as_fd(), std::ptr::from_ref(key).cast(), (&raw mut value).cast()) };
        Ok(found.map_err(|source| self.error("read", key, source))?.then_some(value))
    }

    /// Writes an entry unless there is one of that key; answers whether there was none.
    pub(crate) fn add(&self, key: &K, value: &V) -> Result<bool, Error> {
        // SAFETY: `new` checked the sizes.
        let added = unsafe {
            sys::add(self.fd.as_fd(), std::ptr::from_ref(key).cast(), std::ptr::from_ref(value).cast())
        };
        added.map_err(|source| self.error("write", key, source))
    }

    /// Writes entries in order.
    pub(crate) fn set(&self, entries: &[(K, V)]) -> Result<(), Error> {
        let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
        // SAFETY: `new` checked the sizes, and both hold as many.
        unsafe {
            sys::update_batch(self.fd.as_fd(), keys.as_ptr().cast(), values.as_ptr().cast(), keys.len())
        }
        .map_err(|(done, source)| match source.raw_os_error() {
            // An array is asked for an element past its end, a hash takes no more.
            Some(libc::E2BIG | libc::ENOSPC) => Error::Full { map: self.name, max_entries: self.max_entries },
            _ => self.error("write", &keys[done], source),
        })
    }

    /// Removes entries in order; those that are not there stay so.
    pub(crate) fn remove(&self, keys: &[K]) -> Result<(), Error> {
        let mut keys = keys;
        while !keys.is_empty() {
            // SAFETY: `new` checked the size.
            let result = unsafe { sys::delete_batch(self.fd.as_fd(), keys.as_ptr().cast(), keys.len()) };
            match result {
                Ok(()) => break,
                Err((done, source)) if source.raw_os_error() == Some(libc::ENOENT) => {
                    keys = &keys[done + 1..]
                }
                Err((done, source)) => return Err(self.error("remove", &keys[done], source)),
            }
        }
        Ok(())
    }

    /// All entries.
    pub(crate) fn all(&self) -> Result<Vec<(K, V)>, Error> {
        let mut entries = Vec::new();
        self.walk(|some| {
            entries.extend(some);
            true
        })?;
        Ok(entries)
    }

    /// The entries in portions, as long as `take` says so. Returns where the walk ended: in a hash, how many buckets
    /// it has seen.
    pub(crate) fn walk(&self, mut take: impl FnMut(Vec<(K, V)>) -> bool) -> Result<u32, Error> {
        let mut cursor = sys::Cursor::default();
        let mut room = READ_AT_ONCE.min(self.max_entries as usize);
        loop {
            let mut keys = vec![K::default(); room];
            let mut values = vec![V::default(); room];
            // SAFETY: `new` checked the sizes, both have that much room, and any bytes are a value of theirs.
            let read = unsafe {
                sys::lookup_batch(
                    self.fd.as_fd(),
                    &mut cursor,
                    keys.as_mut_ptr().cast(),
                    values.as_mut_ptr().cast(),
                    room,
                )
            };
            match read {
                Ok((count, more)) => {
                    let some = keys.into_iter().zip(values).take(count).collect();
                    if !take(some) || !more {
                        return Ok(cursor.at);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => room *= 2,
                Err(error) => return Err(Error::map("read", self.name)(error)),
            }
        }
    }

    fn error(&self, op: &'static str, key: &K, source: io::Error) -> Error {
        Error::Entry { op, map: self.name, key: format!("{key:?}"), source }
    }
}
