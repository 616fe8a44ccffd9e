//! A server that says its name and whom it sees, then echoes.

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::spawn_local;

use crate::worker::Worker;
use crate::{Error, Machine};

/// A protocol to be balanced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Serves TCP and UDP at some addresses until it is dropped.
///
/// Over TCP it begins with the line `NAME PEER`, where `PEER` is the client's address as the server sees it; over UDP
/// it puts that line before each answer. Everything else is what it received.
#[derive(Debug)]
pub struct Server {
    name: String,
    _worker: Worker,
}

impl Server {
    /// Starts it; the addresses take connections when this returns.
    pub fn start(
        machine: &Machine,
        name: impl Into<String>,
        addresses: &[SocketAddr],
    ) -> Result<Self, Error> {
        let name = name.into();
        let mut bound = Vec::new();
        for address in addresses {
            let sockets = machine.run(|| bind(*address));
            bound.push(sockets.map_err(Error::io("serve at", format!("{address} in {}", machine.name())))?);
        }
        let greeting = name.clone();
        let worker = Worker::start(machine, async move |stop| {
            for (listener, socket) in bound {
                spawn_local(accept(listener, greeting.clone()));
                spawn_local(answer(socket, greeting.clone()));
            }
            let _ = stop.await;
        })?;
        Ok(Self { name, _worker: worker })
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A burst of UDP that waits while the server's thread has no CPU: 4 MiB are some 10 000 small datagrams.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Connections that wait for `accept`, more than any client here opens at once.
const BACKLOG: i32 = 4096;

fn bind(address: SocketAddr) -> io::Result<(net::TcpListener, net::UdpSocket)> {
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    force_receive_buffer(&socket, RECEIVE_BUFFER)?;
    for socket in [&listener, &socket] {
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
    }
    listener.listen(BACKLOG)?;
    Ok((listener.into(), socket.into()))
}

/// As `SO_RCVBUF`, past the machine's limit for users.
pub(crate) fn force_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &bytes)?;
    Ok(())
}

async fn accept(listener: net::TcpListener, name: String) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(spawn_local(echo(stream, peer, name.clone()))),
            // Out of descriptors, or a connection that was reset while it waited.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// The client sees how the connection ended and counts it.
async fn echo(mut stream: TcpStream, peer: SocketAddr, name: String) {
    let _ = stream.set_nodelay(true);
    if stream.write_all(format!("{name} {peer}\n").as_bytes()).await.is_err() {
        return;
    }
    let (mut reader, mut writer) = stream.split();
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}

async fn answer(socket: net::UdpSocket, name: String) {
    let Ok(socket) = UdpSocket::from_std(socket) else { return };
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        // An ICMP error that an earlier answer met is reported here and is nobody's business.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let mut reply = format!("{name} {peer}\n").into_bytes();
        reply.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&reply, peer).await;
    }
}
