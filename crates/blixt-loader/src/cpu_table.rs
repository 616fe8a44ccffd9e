//! An array of the kernel that exists once for each CPU: counters.

use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};

use crate::Error;
use crate::plain::Plain;
use crate::sys;

/// Elements that one system call reads or writes at most, times the number of CPUs.
const AT_ONCE: usize = 1024;

/// A per-CPU array.
#[derive(Debug)]
pub(crate) struct CpuTable<V> {
    name: &'static str,
    fd: OwnedFd,
    max_entries: u32,
    cpus: usize,
    types: PhantomData<fn() -> V>,
}

impl<V: Plain> CpuTable<V> {
    /// Checks the sizes, see [`Table::new`](crate::table::Table::new).
    pub(crate) fn new(name: &'static str, fd: OwnedFd, cpus: usize) -> Result<Self, Error> {
        let info = sys::map_info(fd.as_fd()).map_err(Error::map("read the shape of", name))?;
        // The kernel rounds values of per-CPU maps up to 8 bytes; ours are so already, which `sum` relies on.
        if info.key_size != 4
            || info.value_size as usize != size_of::<V>()
            || !size_of::<V>().is_multiple_of(8)
        {
            return Err(Error::ObjectMismatch { map: name });
        }
        Ok(Self { name, fd, max_entries: info.max_entries, cpus, types: PhantomData })
    }

    /// The same map, for another thread.
    pub(crate) fn try_clone(&self) -> Result<Self, Error> {
        let fd = self.fd.try_clone().map_err(Error::map("duplicate", self.name))?;
        let Self { name, max_entries, cpus, .. } = *self;
        Ok(Self { name, fd, max_entries, cpus, types: PhantomData })
    }

    /// The first elements, up to `end`, each summed over all CPUs.
    pub(crate) fn sums(&self, end: u32, add: impl Fn(V, V) -> V) -> Result<Vec<V>, Error> {
        let end = end.min(self.max_entries) as usize;
        let mut sums = Vec::with_capacity(end);
        let mut cursor = sys::Cursor::default();
        while sums.len() < end {
            let room = AT_ONCE.min(end - sums.len());
            let mut keys = vec![0u32; room];
            let mut values = vec![V::default(); room * self.cpus];
            // SAFETY: `new` checked the sizes; an element has a value for each possible CPU.
            let read = unsafe {
                sys::lookup_batch(
                    self.fd.as_fd(),
                    &mut cursor,
                    keys.as_mut_ptr().cast(),
                    values.as_mut_ptr().cast(),
                    room,
                )
            };
            let (count, more) = read.map_err(Error::map("read", self.name))?;
            sums.extend(
                values
                    .chunks_exact(self.cpus)
                    .take(count)
                    .map(|cpus| cpus.iter().copied().fold(V::default(), &add)),
            );
            if !more {
                break;
            }
        }
        Ok(sums)
    }

    /// Sets elements back to 0 on all CPUs.
    pub(crate) fn clear(&self, keys: &[u32]) -> Result<(), Error> {
        for keys in keys.chunks(AT_ONCE) {
            self.write("clear", keys, &vec![V::default(); keys.len() * self.cpus])?;
        }
        Ok(())
    }

    /// Sets an element that only user space writes: all of the value is the first CPU's.
    pub(crate) fn set(&self, key: u32, value: V) -> Result<(), Error> {
        let mut values = vec![V::default(); self.cpus];
        values[..1].fill(value);
        self.write("write", &[key], &values)
    }

    /// Each key has a value for each CPU.
    fn write(&self, op: &'static str, keys: &[u32], values: &[V]) -> Result<(), Error> {
        assert_eq!(values.len(), keys.len() * self.cpus);
        // SAFETY: as in `sums`.
        unsafe {
            sys::update_batch(self.fd.as_fd(), keys.as_ptr().cast(), values.as_ptr().cast(), keys.len())
        }
        .map_err(|(_, source)| match source.raw_os_error() {
            Some(libc::E2BIG) => Error::Full { map: self.name, max_entries: self.max_entries },
            _ => Error::map(op, self.name)(source),
        })
    }
}
