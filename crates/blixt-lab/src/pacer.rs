//! Numbered datagrams at a steady pace: how many answers, how many twice, how many from another backend than before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::client::{parse, unspecified};
use crate::server::force_receive_buffer;
use crate::{Error, Failure, Machine};

/// How much to send and how fast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Sockets, each with a port of its own; they take turns.
    pub flows: usize,
    /// Datagrams in all.
    pub datagrams: u64,
    /// Datagrams a second.
    pub rate: u64,
}

/// A pacer at work.
#[derive(Debug)]
pub struct Pacer {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<PacerReport>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PacerReport {
    /// Datagrams that left.
    pub sent: u64,
    /// Different ones that were answered.
    pub answered: u64,
    /// Answers that came more than once.
    pub duplicates: u64,
    /// Flows that were answered by more than one backend.
    pub moved: u64,
    /// Answers that are not what was sent.
    pub garbled: u64,
    /// Answers by backend.
    pub backends: BTreeMap<String, u64>,
    /// Errors that a socket reported, such as a refusal.
    pub failures: BTreeMap<Failure, u64>,
}

impl PacerReport {
    /// Sent and never answered.
    pub fn lost(&self) -> u64 {
        self.sent - self.answered
    }
}

impl Pacer {
    /// Starts it.
    pub fn start(machine: &Machine, to: SocketAddr, pace: Pace) -> Result<Self, Error> {
        let sockets = machine.run(|| (0..pace.flows).map(|_| open(to)).collect::<io::Result<Vec<_>>>());
        let sockets = sockets.map_err(Error::io("open datagram sockets to", to.to_string()))?;
        let sent = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (progress, stopped) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = thread::spawn(move || run(&sockets, pace, &progress, &stopped));
        Ok(Self { sent, stop, thread })
    }

    /// How many have been sent up to now.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends no more, and waits for the last answer.
    pub fn stop(self) -> PacerReport {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the last datagram and its answer.
    pub fn finish(self) -> PacerReport {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// How often a burst is sent.
const TICK: Duration = Duration::from_millis(2);
/// Datagrams that wait for their answer at any time, so that neither the pacer nor a server that had no CPU for a while
/// sends a burst: a veth device with XDP has room for 256 frames and loses the rest, whoever forwards them.
const WINDOW: u64 = 16;
/// How long nothing is answered before what was sent no longer fills the window.
const SILENCE: Duration = Duration::from_millis(500);
/// How long after the last datagram an answer may come.
const LATEST: Duration = Duration::from_secs(2);
/// Answers that wait while the pacer has no CPU.
const RECEIVE_BUFFER: usize = 4 << 20;

fn open(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
    force_receive_buffer(&socket, RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(unspecified(to), 0).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// What is known of one socket's answers.
#[derive(Default)]
struct Seen {
    numbers: BTreeSet<u64>,
    backends: BTreeSet<String>,
}

/// Keeps few datagrams under way.
struct Window {
    /// Answers when it was last looked at, and since when there were as many.
    answered: u64,
    since: Instant,
    /// Datagrams whose answer is not waited for.
    given_up: u64,
}

impl Window {
    /// How many may be sent now.
    fn room(&mut self, report: &PacerReport) -> u64 {
        // An answer that came after all opens no window.
        self.given_up = self.given_up.min(report.lost());
        if report.answered > self.answered {
            (self.answered, self.since) = (report.answered, Instant::now());
        } else if self.since.elapsed() > SILENCE {
            (self.given_up, self.since) = (report.lost(), Instant::now());
        }
        WINDOW.saturating_sub(report.lost() - self.given_up)
    }
}

fn run(sockets: &[UdpSocket], pace: Pace, progress: &AtomicU64, stopped: &AtomicBool) -> PacerReport {
    let mut report = PacerReport::default();
    let mut seen: Vec<Seen> = sockets.iter().map(|_| Seen::default()).collect();
    let begin = Instant::now();
    let mut window = Window { answered: 0, since: begin, given_up: 0 };
    while report.sent < pace.datagrams && !stopped.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_millis() as u64 * pace.rate / 1000).min(pace.datagrams);
        let due = due.min(report.sent + window.room(&report));
        while report.sent < due {
            let socket = &sockets[report.sent as usize % sockets.len()];
            match socket.send(&report.sent.to_be_bytes()) {
                Ok(_) => report.sent += 1,
                Err(error) => {
                    // A pending error of an earlier datagram: this one has not left and is sent again.
                    *report.failures.entry(error.into()).or_default() += 1;
                    break;
                }
            }
        }
        progress.store(report.sent, Ordering::Relaxed);
        receive(sockets, &mut seen, &mut report);
        thread::sleep(TICK);
    }
    let last = Instant::now();
    while report.answered < report.sent && last.elapsed() < LATEST {
        thread::sleep(TICK);
        receive(sockets, &mut seen, &mut report);
    }
    report.moved = seen.iter().filter(|seen| seen.backends.len() > 1).count() as u64;
    report
}

fn receive(sockets: &[UdpSocket], seen: &mut [Seen], report: &mut PacerReport) {
    let mut buffer = [0; 256];
    for (index, socket) in sockets.iter().enumerate() {
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => note(&buffer[..length], index, sockets.len(), &mut seen[index], report),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => *report.failures.entry(error.into()).or_default() += 1,
            }
        }
    }
}

fn note(answer: &[u8], flow: usize, flows: usize, seen: &mut Seen, report: &mut PacerReport) {
    let Some((backend, number)) = read(answer) else {
        report.garbled += 1;
        return;
    };
    if number as usize % flows != flow {
        report.garbled += 1;
        return;
    }
    if !seen.numbers.insert(number) {
        report.duplicates += 1;
        return;
    }
    report.answered += 1;
    *report.backends.entry(backend.clone()).or_default() += 1;
    seen.backends.insert(backend);
}

fn read(answer: &[u8]) -> Option<(String, u64)> {
    let end = answer.iter().position(|byte| *byte == b'\n')?;
    let backend = parse(std::str::from_utf8(&answer[..end]).ok()?).ok()?.backend;
    Some((backend, u64::from_be_bytes(answer[end + 1..].try_into().ok()?)))
}
