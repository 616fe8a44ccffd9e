//! The clsact queueing discipline of a device, by netlink: what aya does not do, looking for filters and deleting it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
/// `TC_H_CLSACT`, as a parent, and its handle.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// Where filters sit in it: ingress and egress.
const SIDES: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
/// More than the largest message of a dump.
const BUFFER: usize = 32 << 10;

/// `struct nlmsghdr` and `struct tcmsg`.
#[repr(C)]
struct Request {
    length: u32,
    message_type: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u32,
    ifindex: i32,
    handle: u32,
    parent: u32,
    info: u32,
}

/// Somebody has a filter in it.
pub(crate) fn has_filters(ifindex: u32) -> io::Result<bool> {
    for parent in SIDES {
        if ask(RTM_GETTFILTER, libc::NLM_F_DUMP, ifindex, 0, parent)?.contains(&RTM_NEWTFILTER) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) fn delete(ifindex: u32) -> io::Result<()> {
    ask(RTM_DELQDISC, libc::NLM_F_ACK, ifindex, CLSACT_HANDLE, CLSACT).map(drop)
}

/// Sends a request; returns the types of the messages that answer it.
fn ask(message_type: u16, flags: i32, ifindex: u32, handle: u32, parent: u32) -> io::Result<Vec<u16>> {
    let request = Request {
        length: size_of::<Request>() as u32,
        message_type,
        flags: (libc::NLM_F_REQUEST | flags) as u16,
        sequence: 1,
        port: 0,
        family: 0,
        ifindex: ifindex as i32,
        handle,
        parent,
        info: 0,
    };
    // SAFETY: no pointers.
    let socket =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the request is plain words of that size.
    let sent =
        unsafe { libc::send(socket.as_raw_fd(), (&raw const request).cast(), size_of::<Request>(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut types = Vec::new();
    let mut buffer = vec![0u8; BUFFER];
    loop {
        // SAFETY: the buffer has that many bytes.
        let read = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let mut rest = match usize::try_from(read) {
            Ok(read) => &buffer[..read],
            Err(_) => return Err(io::Error::last_os_error()),
        };
        while let (Some(length), Some(message_type)) = (word(rest, 0), word(rest, 4)) {
            let message_type = message_type as u16;
            match i32::from(message_type) {
                libc::NLMSG_DONE => return Ok(types),
                libc::NLMSG_ERROR => {
                    return match word(rest, 16).map_or(0, |code| code as i32) {
                        0 => Ok(types),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => types.push(message_type),
            }
            rest = rest.get((length as usize).max(1).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
