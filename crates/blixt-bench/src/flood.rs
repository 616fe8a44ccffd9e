//! New connections amid a flood of SYNs from made-up addresses, ten times as many as the table of flows has room for (R6), against
//! none; beside them connections in use, of which those are counted that it makes silent.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blixt_bars::{Bar, Line, Part};
use blixt_cases::packet::{IpPacket, frame};
use blixt_core::config::Protocol;
use blixt_lab::{Busy, Lab, PacketSocket};
use socket2::SockRef;

use crate::fleet::{self, NODES};
use crate::stage::{PATIENCE, Stage};

/// Connections that the table of flows has room for.
const ROOM: u32 = 16_384;
/// SYNs of a flood.
const SYNS: u32 = 10 * ROOM;
/// SYNs a second.
const RATE: u32 = 20_000;
/// Between two bursts of them.
const TICK: Duration = Duration::from_millis(1);
/// New connections are counted for so long where there is no flood.
const QUIET: Duration = Duration::from_secs(4);
/// Connections in use, and how long each is silent between two messages.
const IN_USE: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);
/// Connections that a backend keeps half open, and the default of many servers; beyond them it sends cookies.
const BACKLOG: &str = "128";
/// Where they come from: no port is that of the one before.
const FIRST_PORT: u16 = 1024;
const PORTS: u32 = 64_000;
const STRIDE: u32 = 7_919;

/// The line of R6.
pub fn measure(blixt: &Path, rounds: usize) -> Result<Line> {
    let mut stage = Stage::new(blixt, NODES)?.with_room(ROOM);
    fleet::route_pods(&stage.lab)?;
    fleet::write(&stage, 1)?;
    // What a backend keeps half open for a minute, a new connection by the same port has to clear away first.
    for node in &stage.lab.backends {
        node.sysctl("net/core/somaxconn", BACKLOG)?;
    }
    let servers = fleet::serve(&stage.lab)?;
    stage.start_and_wait()?;
    let lab = &stage.lab;
    let socket = PacketSocket::open(&lab.client, "eth0")?;
    let macs = [lab.balancer.mac(&Lab::device(0))?, lab.client.mac("eth0")?];
    let (mut amid, mut quiet, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let busy = Busy::start(&lab.client, fleet::frontend(0), IN_USE, PAUSE)?;
        let begun = Instant::now();
        quiet.push(connections(lab, || begun.elapsed() > QUIET)?);
        amid.push(thread::scope(|scope| {
            let flood = scope.spawn(|| flood(&socket, macs));
            let rate = connections(lab, || flood.is_finished())?;
            let sent = flood.join().unwrap_or_else(|panic| resume_unwind(panic));
            sent.context("R6: a SYN cannot be sent").map(|()| rate)
        })?);
        cut.push(busy.finish().into_iter().filter(|one| one.failure.is_some()).count() as f64);
    }
    stage.stop()?;
    drop(servers);
    let part = |name: &str, rates| Part::new(name, "connections/s", rates);
    let mut line = Line::ratio(
        "R6 connections a second amid a flood of SYNs, against none",
        Bar::AtLeast(0.9),
        part("amid a flood", amid),
        part("no flood", quiet),
    );
    line.parts.push(Part::new("silent for 5 s of 200 in use", "connections", cut));
    Ok(line)
}

/// Connections a second, one after the other, until it is over.
fn connections(lab: &Lab, is_over: impl Fn() -> bool + Sync) -> Result<f64> {
    lab.client.run(|| {
        let begun = Instant::now();
        let mut count = 0_u32;
        while !is_over() {
            exchange(fleet::frontend(0)).with_context(|| format!("R6: connection {count} failed"))?;
            count += 1;
        }
        Ok(f64::from(count) / begun.elapsed().as_secs_f64())
    })
}

/// Connects and waits until the server says who it is. The client's RST ends it: no port has to wait.
fn exchange(frontend: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&frontend, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let mut greeting = String::new();
    BufReader::new(&stream).read_line(&mut greeting)?;
    if greeting.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Sends all SYNs of a flood.
fn flood(socket: &PacketSocket, [to, from]: [[u8; 6]; 2]) -> io::Result<()> {
    let begun = Instant::now();
    let mut sent = 0;
    while sent < SYNS {
        let due = (begun.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
        while sent < due.min(SYNS) {
            match socket.send(&frame(to, from, &syn(sent))) {
                // It is sent with the next burst.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => break,
                result => result?,
            }
            sent += 1;
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// The first packet of a connection that nobody will confirm.
fn syn(number: u32) -> Vec<u8> {
    let from = Ipv4Addr::from_bits(Ipv4Addr::new(172, 16, 0, 0).to_bits() + number);
    let port = FIRST_PORT + (number * STRIDE % PORTS) as u16;
    let to = fleet::frontend(0);
    IpPacket::new(Protocol::Tcp, (from.into(), port), (to.ip(), to.port())).bytes()
}
