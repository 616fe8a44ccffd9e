//! New connections amid a flood of SYNs from made-up addresses, ten times as many as the table of flows has room for (R6), against
//! none; beside them connections in use, of which those are counted that it makes silent.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blixt_bars::{Bar, Line, Part};
use blixt_lab::{Busy, Lab, PacketSocket};
use socket2::SockRef;

use crate::fleet::{self, NODES};
use crate::packet::frame::{FRAME, Family, SYN, Shape, Transport};
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
/// Where a TCP header and its checksum begin in a frame.
const TCP: usize = 34;
const SUM: usize = TCP + 16;

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
    let (mut amid, mut quiet, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let busy = Busy::start(&stage.lab.client, fleet::frontend(0), IN_USE, PAUSE)?;
        let begun = Instant::now();
        quiet.push(connections(&stage.lab, || begun.elapsed() > QUIET)?);
        let flood = Flood::start(&stage.lab)?;
        amid.push(connections(&stage.lab, || flood.has_ended())?);
        flood.finish()?;
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

/// A thread that sends SYNs. Stopped and waited for when dropped.
struct Flood {
    sent: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Flood {
    fn start(lab: &Lab) -> Result<Self> {
        let socket = PacketSocket::open(&lab.client, "eth0")?;
        let macs = [lab.balancer.mac(&Lab::device(0))?, lab.client.mac("eth0")?].concat();
        let (sent, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, is_stopped) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let begun = Instant::now();
            while !is_stopped.load(Ordering::Relaxed) {
                let due = (begun.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
                for number in counter.load(Ordering::Relaxed)..due.min(SYNS) {
                    match socket.send(&syn(number, &macs)) {
                        // It is sent with the next burst.
                        Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => break,
                        sent => sent?,
                    }
                    counter.store(number + 1, Ordering::Relaxed);
                }
                thread::sleep(TICK);
            }
            Ok(())
        });
        Ok(Self { sent, stop, thread: Some(thread) })
    }

    /// All were sent, or no more can be.
    fn has_ended(&self) -> bool {
        self.sent.load(Ordering::Relaxed) == SYNS || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// An error if not all were sent.
    fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("R6: the flood has ended before")?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .context("R6: a SYN cannot be sent")
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed.
            let _ = thread.join();
        }
    }
}

/// The first packet of a connection that nobody will confirm.
fn syn(number: u32, macs: &[u8]) -> [u8; FRAME] {
    let shape = Shape { family: Family::V4, transport: Transport::Tcp };
    let from = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + number);
    let SocketAddr::V4(to) = fleet::frontend(0) else { unreachable!("it has an address of IPv4") };
    let port = FIRST_PORT + (number * STRIDE % PORTS) as u16;
    let mut frame = shape.build(from.octets().to_vec(), to.ip().octets().to_vec(), [port, to.port()], SYN);
    frame[..macs.len()].copy_from_slice(macs);
    frame[SUM..SUM + 2].fill(0);
    let pseudo_header = [from.octets(), to.ip().octets(), [0, 6, 0, (FRAME - TCP) as u8]].concat();
    let words = pseudo_header.chunks_exact(2).chain(frame[TCP..].chunks_exact(2));
    let sum = words.fold(blixt_packet::checksum::Delta::default(), |sum, pair| {
        sum.add(u16::from_be_bytes([pair[0], pair[1]]).into())
    });
    frame[SUM..SUM + 2].copy_from_slice(&(!sum.fold()).to_be_bytes());
    frame
}
