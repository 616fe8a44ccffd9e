//! Clients: one connection or datagram, and many of them counted by who answered.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::{Machine, Protocol};

/// Longest wait for an answer: local ones take less than a millisecond, a busy machine some hundred.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why there was no answer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Failure {
    /// RST for a SYN, or ICMP port unreachable.
    Refused,
    /// RST in an established connection.
    Reset,
    /// The end of the connection where data was due.
    Closed,
    /// Nothing came.
    TimedOut,
    /// What came was not what had been sent.
    Garbled,
    /// Anything else, in the system's words.
    Other(String),
}

/// Who answered, and whom it saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The name of the server.
    pub backend: String,
    /// The client's address as the server sees it.
    pub seen: SocketAddr,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    /// Who answered.
    pub answer: Answer,
    /// The connection, after the server's greeting.
    pub stream: TcpStream,
}

/// Answers by name of the server, and failures.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// By name of the server.
    pub answers: BTreeMap<String, u64>,
    /// By kind.
    pub failures: BTreeMap<Failure, u64>,
}

/// Opens a connection and reads the greeting.
pub fn connect(machine: &Machine, to: SocketAddr) -> Result<Connection, Failure> {
    connect_from(machine, None, to)
}

/// As [`connect`], from a given address and port.
pub fn connect_from(
    machine: &Machine,
    from: Option<SocketAddr>,
    to: SocketAddr,
) -> Result<Connection, Failure> {
    let stream = machine.run(|| -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(from) = from {
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    });
    let stream = stream?;
    let mut line = String::new();
    // One byte of buffer, so that nothing of what follows the greeting is swallowed.
    BufReader::with_capacity(1, &stream).read_line(&mut line)?;
    let answer = parse(&line)?;
    Ok(Connection { answer, stream })
}

/// Sends a datagram from a port of its own and waits for the answer.
pub fn exchange(machine: &Machine, to: SocketAddr, payload: &[u8]) -> Result<Answer, Failure> {
    let any = SocketAddr::new(unspecified(to), 0);
    let socket = machine.run(|| UdpSocket::bind(any))?;
    exchange_on(&socket, to, payload)
}

/// As [`exchange`], from a socket that may have been used before.
pub fn exchange_on(socket: &UdpSocket, to: SocketAddr, payload: &[u8]) -> Result<Answer, Failure> {
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(payload)?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let length = socket.recv(&mut buffer)?;
    let end = buffer[..length].iter().position(|byte| *byte == b'\n').ok_or(Failure::Garbled)?;
    if &buffer[end + 1..length] != payload {
        return Err(Failure::Garbled);
    }
    parse(&String::from_utf8_lossy(&buffer[..end]))
}

/// Opens `count` connections (or sends as many datagrams), one after the other, each from a port of its own.
pub fn tally(machine: &Machine, protocol: Protocol, to: SocketAddr, count: usize) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..count {
        tally.note(match protocol {
            Protocol::Tcp => connect(machine, to).map(|connection| connection.answer),
            Protocol::Udp => exchange(machine, to, b"hello"),
        });
    }
    tally
}

impl Tally {
    /// Counts one result.
    pub fn note(&mut self, result: Result<Answer, Failure>) {
        match result {
            Ok(answer) => *self.answers.entry(answer.backend).or_default() += 1,
            Err(failure) => *self.failures.entry(failure).or_default() += 1,
        }
    }

    /// Counts another tally in.
    pub fn add(&mut self, other: Self) {
        for (backend, count) in other.answers {
            *self.answers.entry(backend).or_default() += count;
        }
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
    }

    /// How many a server answered.
    pub fn of(&self, backend: &str) -> u64 {
        self.answers.get(backend).copied().unwrap_or_default()
    }

    /// How many were answered at all.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// How many were refused.
    pub fn refused(&self) -> u64 {
        self.failures.get(&Failure::Refused).copied().unwrap_or_default()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::UnexpectedEof => Self::Closed,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed early",
            Self::TimedOut => "timed out",
            Self::Garbled => "garbled",
            Self::Other(text) => text,
        })
    }
}

/// Reads `NAME PEER`.
pub(crate) fn parse(line: &str) -> Result<Answer, Failure> {
    if line.is_empty() {
        return Err(Failure::Closed);
    }
    let (backend, seen) = line.trim_end().rsplit_once(' ').ok_or(Failure::Garbled)?;
    let seen = seen.parse().map_err(|_| Failure::Garbled)?;
    Ok(Answer { backend: backend.to_owned(), seen })
}

/// The address that stands for any, of the same family.
pub(crate) fn unspecified(like: SocketAddr) -> std::net::IpAddr {
    if like.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    }
}
