//! The `bpf` system call, for what aya does not wrap: batches, inner maps by id, links that live by their pin alone.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const MAP_DELETE_BATCH: libc::c_long = 27;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// `BPF_MAP_TYPE_ARRAY`.
pub(crate) const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`.
pub(crate) const MMAPABLE: u32 = 1 << 10;
/// `BPF_F_INNER_MAP`: inner maps may differ in size.
pub(crate) const INNER_MAP: u32 = 1 << 12;

/// What kind of hook a link holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum AttachType {
    Xdp = 37,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// What the kernel says of a map.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct MapInfo {
    pub(crate) map_type: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) map_flags: u32,
}

/// What the kernel says of a link of TCX or XDP.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct LinkInfo {
    pub(crate) link_type: u32,
    pub(crate) id: u32,
    pub(crate) program: u32,
    reserved: u32,
    /// 0 when the device is gone.
    pub(crate) ifindex: u32,
    pub(crate) attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct MapShape {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Pin {
    pathname: u64,
    fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Info {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    program_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

/// An inner array: mappable, and free to differ in size from its template.
pub(crate) fn create_array(
    name: &str,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = MapShape {
        map_type: MAP_TYPE_ARRAY,
        key_size: 4,
        value_size,
        max_entries,
        map_flags,
        ..Default::default()
    };
    for (to, from) in attr.name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the attribute holds no pointer.
    unsafe { bpf_fd(MAP_CREATE, &mut attr) }
}

pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    // SAFETY: MapInfo is the front part of the kernel's bpf_map_info, plain words.
    unsafe { object_info(fd, &mut info)? };
    Ok(info)
}

pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    // SAFETY: LinkInfo is the front part of the kernel's bpf_link_info, plain words.
    unsafe { object_info(fd, &mut info)? };
    Ok(info)
}

/// The map with an id; needs CAP_SYS_ADMIN.
pub(crate) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: the attribute holds no pointer.
    unsafe { bpf_fd(MAP_GET_FD_BY_ID, &mut attr) }
}

pub(crate) fn object_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Pin { pathname: path.as_ptr() as u64, fd: raw(fd), file_flags: 0 };
    // SAFETY: the path outlives the call.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

pub(crate) fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Pin { pathname: path.as_ptr() as u64, ..Default::default() };
    // SAFETY: the path outlives the call.
    unsafe { bpf_fd(OBJ_GET, &mut attr) }
}

/// Attaches a program to a device; `flags` are the hook's own.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: AttachType,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkAttr { program_fd: raw(program), ifindex, attach_type: attach_type as u32, flags };
    // SAFETY: the attribute holds no pointer.
    unsafe { bpf_fd(LINK_CREATE, &mut attr) }
}

/// Puts another program in the place of the link's, without a gap.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate { link_fd: raw(link), program_fd: raw(program), ..Default::default() };
    // SAFETY: the attribute holds no pointer.
    unsafe { bpf(LINK_UPDATE, &mut attr) }.map(drop)
}

/// Detaches at once: closing the last reference would do so only later.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(link);
    // SAFETY: the attribute holds no pointer.
    unsafe { bpf(LINK_DETACH, &mut attr) }.map(drop)
}

/// # Safety
///
/// `key` and `value` must be as large as the map's keys and values.
pub(crate) unsafe fn lookup(map: BorrowedFd<'_>, key: *const u8, value: *mut u8) -> io::Result<bool> {
    let mut attr = Element { map_fd: raw(map), key: key as u64, value: value as u64, ..Default::default() };
    // SAFETY: the caller vouches for the sizes.
    match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes an entry unless there is one of that key; answers whether there was none.
///
/// # Safety
///
/// `key` and `value` must be as large as the map's keys and values.
pub(crate) unsafe fn add(map: BorrowedFd<'_>, key: *const u8, value: *const u8) -> io::Result<bool> {
    const NOEXIST: u64 = 1;
    let mut attr = Element {
        map_fd: raw(map),
        key: key as u64,
        value: value as u64,
        flags: NOEXIST,
        ..Default::default()
    };
    // SAFETY: the caller vouches for the sizes.
    match unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes entries in order; an error comes with the number of those that were written before it.
///
/// # Safety
///
/// `keys` and `values` must hold `count` keys and values of the map's sizes.
pub(crate) unsafe fn update_batch(
    map: BorrowedFd<'_>,
    keys: *const u8,
    values: *const u8,
    count: usize,
) -> Result<(), (usize, io::Error)> {
    // SAFETY: the caller vouches for the sizes.
    unsafe { batch(MAP_UPDATE_BATCH, map, keys, values, count) }
}

/// Removes entries in order; an error comes with the number of those that were removed before it.
///
/// # Safety
///
/// `keys` must hold `count` keys of the map's size.
pub(crate) unsafe fn delete_batch(
    map: BorrowedFd<'_>,
    keys: *const u8,
    count: usize,
) -> Result<(), (usize, io::Error)> {
    // SAFETY: the caller vouches for the sizes.
    unsafe { batch(MAP_DELETE_BATCH, map, keys, std::ptr::null(), count) }
}

/// Where a walk over a map stands: a key of an array, a bucket of a hash.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cursor {
    pub(crate) at: u32,
    started: bool,
}

/// Reads up to `room` entries; returns how many, and whether there are more. ENOSPC: the next bucket alone holds more.
///
/// # Safety
///
/// `keys` and `values` must have room for `room` keys and values of the map's sizes.
pub(crate) unsafe fn lookup_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: *mut u8,
    values: *mut u8,
    room: usize,
) -> io::Result<(usize, bool)> {
    let from = cursor.at;
    let mut attr = Batch {
        in_batch: if cursor.started { &raw const from as u64 } else { 0 },
        out_batch: &raw mut cursor.at as u64,
        keys: keys as u64,
        values: values as u64,
        count: u32::try_from(room).unwrap_or(u32::MAX),
        map_fd: raw(map),
        ..Default::default()
    };
    // SAFETY: the caller vouches for the sizes; both batch positions are one u32 for the kinds of maps here (an array's
    // is its key).
    match unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) } {
        Ok(_) => {
            cursor.started = true;
            Ok((attr.count as usize, true))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((attr.count as usize, false)),
        Err(error) => Err(error),
    }
}

unsafe fn batch(
    command: libc::c_long,
    map: BorrowedFd<'_>,
    keys: *const u8,
    values: *const u8,
    count: usize,
) -> Result<(), (usize, io::Error)> {
    let mut attr = Batch {
        keys: keys as u64,
        values: values as u64,
        count: u32::try_from(count).map_err(|_| (0, io::ErrorKind::InvalidInput.into()))?,
        map_fd: raw(map),
        ..Default::default()
    };
    if count == 0 {
        return Ok(());
    }
    // SAFETY: the caller vouches for the sizes.
    unsafe { bpf(command, &mut attr) }.map(drop).map_err(|error| {
        // Where the call itself is refused (EPERM, an unknown command), the count is still what was asked for.
        let done = attr.count as usize;
        (if done < count { done } else { 0 }, error)
    })
}

unsafe fn object_info<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = Info { fd: raw(fd), len: size_of::<T>() as u32, info: std::ptr::from_mut(info) as u64 };
    // SAFETY: the kernel writes at most `len` bytes; the caller vouches that they may hold anything.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

unsafe fn bpf_fd<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for what the attribute points to.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: these commands return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller vouches for what the attribute points to; its size goes with it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}
