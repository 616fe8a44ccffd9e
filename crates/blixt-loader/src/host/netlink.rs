//! Questions to the kernel over one netlink socket, and the socket that hears of changes.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, constants};
use tracing::debug;

use super::HostError;

/// Multicast groups of rtnetlink that say that something of [`super::facts`] changed.
const GROUPS: [u32; 9] = [
    1,  // RTNLGRP_LINK
    3,  // RTNLGRP_NEIGH
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    8,  // RTNLGRP_IPV4_RULE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
    19, // RTNLGRP_IPV6_RULE
    32, // RTNLGRP_NEXTHOP
];

/// More than the kernel puts into one datagram.
const DATAGRAM: usize = 64 << 10;

/// Questions on the way at once: their answers, some hundred bytes each, fit the smallest receive buffer.
const PIPELINE: usize = 64;

/// A table that changes while it is read is read again, this often.
const ATTEMPTS: usize = 5;

/// A socket for questions.
pub(super) struct Asker {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What came of one question: an answer, a bare acknowledgement, or an error number.
pub(super) type Answer<M> = Result<Option<M>, i32>;

impl Asker {
    pub(super) fn open(protocol: isize) -> Result<Self, HostError> {
        let socket = open(protocol)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(|source| HostError::Open { source })?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Everything of one kind.
    pub(super) fn dump<M>(&mut self, op: &'static str, request: M) -> Result<Vec<M>, HostError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Clone,
    {
        for _ in 0..ATTEMPTS {
            self.send(op, std::slice::from_ref(&request), NLM_F_DUMP)?;
            if let Some(messages) = self.receive_dump(op)? {
                return Ok(messages);
            }
        }
        Err(HostError::Interrupted { op })
    }

    /// One answer for each question, in their order.
    pub(super) fn ask<M>(
        &mut self,
        op: &'static str,
        requests: &[M],
        flags: u16,
    ) -> Result<Vec<Answer<M>>, HostError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Clone,
    {
        let mut answers = Vec::with_capacity(requests.len());
        for requests in requests.chunks(PIPELINE) {
            let first = self.send(op, requests, flags)?;
            let mut part: Vec<Option<Answer<M>>> = vec![None; requests.len()];
            while part.iter().any(Option::is_none) {
                self.receive(op, |header, payload| {
                    let index = header.sequence_number.wrapping_sub(first) as usize;
                    if let Some(answer) = part.get_mut(index) {
                        *answer = Some(match payload {
                            Ok(NetlinkPayload::InnerMessage(message)) => Ok(Some(message)),
                            Ok(NetlinkPayload::Error(error)) => {
                                error.code.map_or(Ok(None), |code| Err(code.get().saturating_abs()))
                            }
                            Ok(_) => Ok(None),
                            Err(()) => Err(libc::EBADMSG),
                        });
                    }
                })?;
            }
            answers.extend(part.into_iter().flatten());
        }
        Ok(answers)
    }

    /// Returns the sequence number of the first.
    fn send<M>(&mut self, op: &'static str, requests: &[M], flags: u16) -> Result<u32, HostError>
    where
        M: NetlinkSerializable + Clone,
    {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags;
            header.sequence_number = self.sequence;
            let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.clone()));
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        self.socket.send(&bytes, 0).map_err(|source| HostError::Ask { op, source })?;
        Ok(first)
    }

    /// `None`: the table changed meanwhile.
    fn receive_dump<M: NetlinkDeserializable>(
        &mut self,
        op: &'static str,
    ) -> Result<Option<Vec<M>>, HostError> {
        let sequence = self.sequence;
        let mut messages = Vec::new();
        let (mut done, mut interrupted, mut failure) = (false, false, None);
        while !done {
            self.receive(op, |header, payload| {
                if header.sequence_number != sequence {
                    return;
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match payload {
                    Ok(NetlinkPayload::InnerMessage(message)) => messages.push(message),
                    Ok(NetlinkPayload::Done(_)) => done = true,
                    Ok(NetlinkPayload::Error(error)) => {
                        done = true;
                        failure = error.code.map(|_| error.to_io());
                    }
                    Ok(_) | Err(()) => {}
                }
            })?;
        }
        if let Some(source) = failure {
            return Err(HostError::Ask { op, source });
        }
        Ok((!interrupted).then_some(messages))
    }

    fn receive<M: NetlinkDeserializable>(
        &mut self,
        op: &'static str,
        each: impl FnMut(&NetlinkHeader, Result<NetlinkPayload<M>, ()>),
    ) -> Result<(), HostError> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0).map_err(|source| HostError::Ask { op, source })?;
        split(&self.buffer, each);
        Ok(())
    }
}

/// A socket that hears of changes.
pub(super) struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What was heard.
pub(super) enum Heard {
    /// These changed.
    Changes(Vec<RouteNetlinkMessage>),
    /// Some were lost: everything must be asked anew.
    Lost,
    /// No more for now.
    Nothing,
}

impl Listener {
    pub(super) fn open() -> Result<Self, HostError> {
        /// Room for some thousand changes; the kernel grants what `net.core.rmem_max` allows.
        const BUFFER: u32 = 4 << 20;

        let mut socket = open(constants::NETLINK_ROUTE)?;
        let join = |socket: &mut Socket| {
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            socket.set_rx_buf_sz(BUFFER)?;
            GROUPS.iter().try_for_each(|group| socket.add_membership(*group))
        };
        join(&mut socket).map_err(|source| HostError::Open { source })?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    pub(super) fn hear(&mut self) -> Result<Heard, HostError> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Heard::Lost),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Heard::Nothing),
            Err(source) => return Err(HostError::Ask { op: "hear of changes", source }),
        }
        let mut changes = Vec::new();
        let mut lost = false;
        split(&self.buffer, |_, payload| match payload {
            Ok(NetlinkPayload::InnerMessage(change)) => changes.push(change),
            Ok(NetlinkPayload::Overrun(_)) | Err(()) => lost = true,
            Ok(_) => {}
        });
        Ok(if lost { Heard::Lost } else { Heard::Changes(changes) })
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn open(protocol: isize) -> Result<Socket, HostError> {
    Socket::new(protocol).map_err(|source| HostError::Open { source })
}

/// Hands out each message of a datagram; one that cannot be read is an `Err`.
fn split<M: NetlinkDeserializable>(
    mut bytes: &[u8],
    mut each: impl FnMut(&NetlinkHeader, Result<NetlinkPayload<M>, ()>),
) {
    /// `struct nlmsghdr`: length, type, flags, sequence number, port.
    const HEADER: usize = 16;

    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let field =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = field(0) as usize;
        if length < HEADER || length > bytes.len() {
            return;
        }
        match NetlinkMessage::<M>::deserialize(&bytes[..length]) {
            Ok(message) => {
                let (header, payload) = message.into_parts();
                each(&header, Ok(payload));
            }
            Err(error) => {
                debug!(%error, "netlink: a message that cannot be read");
                let mut header = NetlinkHeader::default();
                header.sequence_number = field(8);
                each(&header, Err(()));
            }
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
}
