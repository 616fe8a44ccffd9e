//! Requests to a device by `ioctl`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `struct ifreq`, with one member of its union.
#[repr(C)]
struct Request<M> {
    device: [u8; libc::IFNAMSIZ],
    member: M,
    /// The kernel copies the largest member, whichever is meant.
    rest: [u64; 2],
}

/// Makes a request.
///
/// # Safety
///
/// `member` is what the command reads from the union, and a pointer in it leads to what the command reads and writes.
pub(crate) unsafe fn request<M>(device: &str, command: libc::Ioctl, member: M) -> io::Result<()> {
    let mut request = Request { device: [0; libc::IFNAMSIZ], member, rest: [0; 2] };
    // The last byte stays 0.
    for (to, from) in request.device[..libc::IFNAMSIZ - 1].iter_mut().zip(device.bytes()) {
        *to = from;
    }
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the request is at least as long as the kernel's and outlives the call; the caller answers for the member.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), command, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
