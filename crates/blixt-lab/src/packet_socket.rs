//! Whole frames, sent and received as they are.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::{Error, Machine};

/// A socket on a device of a machine that sends and receives frames, VLAN tags included.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Opens it; frames are kept from then on.
    pub fn open(machine: &Machine, device: &str) -> Result<Self, Error> {
        let on = format!("{device} in {}", machine.name());
        let socket = machine.run(|| open(device)).map_err(Error::io("open a packet socket on", on))?;
        Ok(Self { socket })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and length are those of a live slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        Errno::result(sent)?;
        Ok(())
    }

    /// The next frame that came from outside, if one comes in time.
    pub fn receive(&self, at_most: Duration) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + at_most;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd that outlives the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as i32) };
            if Errno::result(ready)? == 0 {
                return Ok(None);
            }
            if let Some(frame) = receive(&self.socket)? {
                return Ok(Some(frame));
            }
        }
    }

    /// The next frame that `accept` likes, if one comes in time.
    pub fn receive_if(
        &self,
        at_most: Duration,
        accept: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + at_most;
        while let Some(frame) = self.receive(deadline.saturating_duration_since(Instant::now()))? {
            if accept(&frame) {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}

/// Larger than any packet, unsegmented ones included.
const FRAME: usize = 1 << 17;
/// Ethernet addresses come first, a VLAN tag right after them.
const TAG_AT: usize = 12;

fn open(device: &str) -> nix::Result<OwnedFd> {
    let index = if_nametoindex(device)?;
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: plain integers; a new descriptor is returned.
    let socket = unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let socket = Errno::result(libc::socket(libc::AF_PACKET, kind, all.into()))?;
        OwnedFd::from_raw_fd(socket)
    };
    // SAFETY: all zeroes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = all;
    address.sll_ifindex = index.cast_signed();
    let on = 1_i32;
    // SAFETY: pointers and sizes are those of live values of the types that the calls expect.
    unsafe {
        Errno::result(libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        ))?;
        Errno::result(libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_AUXDATA,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        ))?;
    }
    Ok(socket)
}

/// One frame, with its VLAN tag put back where the kernel took it from; `None` for one that this machine sent.
fn receive(socket: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let mut frame = vec![0_u8; FRAME];
    let mut control = [0_u64; 16];
    // SAFETY: all zeroes are valid for both.
    let (mut from, mut header): (libc::sockaddr_ll, libc::msghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
    let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
    header.msg_name = (&raw mut from).cast();
    header.msg_namelen = size_of_val(&from) as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: every pointer in the header is to a live buffer of the length beside it.
    let length = Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) })?;
    if from.sll_pkttype == libc::PACKET_OUTGOING {
        return Ok(None);
    }
    frame.truncate(length as usize);
    // SAFETY: the kernel filled the control buffer, which is still alive; the auxiliary data is read unaligned.
    let auxiliary = unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (!message.is_null() && (*message).cmsg_type == libc::PACKET_AUXDATA)
            .then(|| libc::CMSG_DATA(message).cast::<libc::tpacket_auxdata>().read_unaligned())
    };
    if let Some(auxiliary) = auxiliary
        && auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID != 0
    {
        let [a, b] = auxiliary.tp_vlan_tpid.to_be_bytes();
        let [c, d] = auxiliary.tp_vlan_tci.to_be_bytes();
        frame.splice(TAG_AT..TAG_AT, [a, b, c, d]);
    }
    Ok(Some(frame))
}
