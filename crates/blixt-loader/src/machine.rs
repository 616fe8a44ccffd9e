//! What the loader must know of the machine itself.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::Error;
use crate::sys;

/// `SO_NETNS_COOKIE`, which libc does not name.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The oldest kernel that Blixt knows to work.
pub(crate) const OLDEST_KERNEL: &str = "6.1";

/// The release of the running kernel, as `uname -r` says it.
pub(crate) fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_else(|_| "unknown".into())
}

/// Names the kernel's age where that may be why something failed.
pub(crate) fn blame_kernel(source: Error) -> Error {
    let release = kernel_release();
    match source {
        Error::Load(_) | Error::Program { .. } | Error::Verifier { .. } | Error::Map { .. }
            if is_old(&release) =>
        {
            Error::KernelTooOld { source: Box::new(source), release, minimum: OLDEST_KERNEL }
        }
        source => source,
    }
}

/// Tries the smallest thing that bpf can do, for a clear word before anything else is touched.
pub(crate) fn check_bpf() -> Result<(), Error> {
    match sys::create_array("blixt_probe", 4, 1, 0) {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOSYS) => Err(Error::NoBpf { minimum: OLDEST_KERNEL }),
            Some(libc::EPERM | libc::EACCES) => Err(Error::NotPermitted),
            _ => Err(Error::Map { op: "create", map: "blixt_probe", source: error }),
        },
    }
}

fn is_old(release: &str) -> bool {
    let version = |text: &str| {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    version(release).is_some_and(|release| Some(release) < version(OLDEST_KERNEL))
}

/// Has all threads allocate from two places, so that what one of them frees, others use again, and two do not wait for each
/// other.
pub fn share_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and is called before there are threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2)
    };
}

/// Gives memory that is not in use any more back to the machine. Reading ten thousand routes takes several times the
/// memory of keeping them, and the allocator would hold on to it.
pub fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and only returns pages that nothing is allocated in.
    unsafe {
        libc::malloc_trim(0)
    };
    for code in own_code() {
        // SAFETY: the mapping is of a file, and nobody has written to it or can: what is used again is mapped again.
        unsafe { libc::madvise(code.start as *mut libc::c_void, code.len(), libc::MADV_DONTNEED) };
    }
}

/// Where the code of this program is mapped, and the constants before it, which nothing is ever written to. Most of it reads
/// manifests, and is not needed while nothing changes.
fn own_code() -> Vec<Range<usize>> {
    let (Ok(program), Ok(maps)) = (fs::read_link("/proc/self/exe"), fs::read_to_string("/proc/self/maps"))
    else {
        return Vec::new();
    };
    let mapping = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [range, permissions, _, _, _, path] = fields[..] else { return None };
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        (Some(path) == program.to_str()).then_some((permissions == "r-xp", address(start)?..address(end)?))
    };
    let own: Vec<(bool, Range<usize>)> = maps.lines().filter_map(mapping).collect();
    // What follows the code was written to when the program was loaded.
    let code = own.iter().position(|(is_code, _)| *is_code);
    let upto = code.map_or(0, |code| code + 1);
    own.into_iter().take(upto).map(|(_, range)| range).collect()
}

/// The coarse monotonic clock, the one that the kernel program reads.
pub(crate) fn now() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE);
    time.map(Duration::from).unwrap_or_default()
}

/// The number of CPUs that per-CPU maps have values for.
pub(crate) fn possible_cpus() -> Result<usize, Error> {
    aya::util::nr_cpus().map_err(|(path, source)| Error::file("read", path)(source))
}

/// The number that the kernel gives this thread's network namespace. Unlike an inode's number, it is not given again
/// before the next boot.
pub(crate) fn network_namespace() -> io::Result<u64> {
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut cookie = 0u64;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes, which `cookie` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_told_from_new_ones() {
        for (release, old) in [("5.10.0-8-amd64", true), ("6.1.0", false), ("6.18.44", false), ("odd", false)]
        {
            assert_eq!(is_old(release), old, "{release}");
        }
    }

    #[test]
    fn the_namespace_has_one_number() {
        assert_eq!(network_namespace().unwrap(), network_namespace().unwrap());
        assert_ne!(network_namespace().unwrap(), 0);
    }
}
