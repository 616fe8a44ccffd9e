//! New connections a second, request and response included, requests in one connection, and small datagrams: Blixt against plain
//! routing, nftables and proxies, and 10 000 listeners against one.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blixt_bars::{Bar, Line, Part, quantile};
use blixt_lab::{Lab, Machine};
use socket2::Socket;

use crate::fleet::{self, LARGE, NODES};
use crate::nat::{Nat, Source};
use crate::pin::pinned;
use crate::processor::time_of_all;
use crate::proxy::Kind;
use crate::stage::{PATIENCE, Stage};

/// One measurement.
const SLICE: Duration = Duration::from_millis(300);
/// Measurements of each kind in a round; the least disturbed one counts.
const TRIES: usize = 3;
/// Bytes of a request and of a response.
const MESSAGE: usize = 64;
/// The first byte of a request after which the server ends the connection, and of one after which another comes.
const LAST: u8 = 1;
const MORE: u8 = 2;
/// Bytes of a datagram whose frame has 60, and how many are sent before they are taken from the other end.
const DATAGRAM: usize = 18;
const BURST: usize = 64;
/// Where servers answer for Blixt, for plain routing, for nftables without and with masquerade, and for each proxy. One that meets a connection's
/// end at the server with the client's address and port once more has to wait for it: nothing of one meets the others.
const PORTS: [u16; 6] = [fleet::TARGET, 8081, 8082, 8083, 8084, 8085];
/// Far from the frontend before: consecutive connections share no cache lines. Odd and no factor of 10 000.
const STRIDE: u32 = 7_919;

/// What was found of one mode, round by round.
struct Found {
    /// Connections a second.
    connections: Vec<f64>,
    /// Microseconds of processor time for each.
    processor: Vec<f64>,
    /// Microseconds of a request and its response in one flow, the usual ones and the slowest of a hundred.
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// Thousand datagrams a second that arrived.
    kpps: Vec<f64>,
}

/// Lines of connections, of what one adds, of requests in one flow, and of small datagrams; and many listeners against one.
pub fn measure(blixt: &Path, rounds: usize) -> Result<Vec<Line>> {
    pinned(|| measure_pinned(blixt, rounds))
}

fn measure_pinned(blixt: &Path, rounds: usize) -> Result<Vec<Line>> {
    let bare = Stage::new(blixt, NODES)?;
    let mut small = Stage::new(blixt, NODES)?;
    let mut large = Stage::new(blixt, NODES)?;
    let mut servers = Vec::new();
    for (stage, routes) in [(&bare, 1), (&small, 1), (&large, LARGE)] {
        stage.lab.client.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        fleet::route_pods(&stage.lab)?;
        fleet::write(stage, routes)?;
        servers.extend(serve(&stage.lab)?);
    }
    let pod = |port: usize| SocketAddr::new(fleet::backend(1, 0).ip(), PORTS[port]);
    fleet::write_udp(&small, &[fleet::backend(1, 0)])?;
    let [bare_sink, sink] = [sink(bare.lab.other(1))?, sink(small.lab.other(1))?];
    large.start_and_wait()?;
    let many: Vec<SocketAddr> = (0..LARGE).map(|number| fleet::frontend(number * STRIDE % LARGE)).collect();
    Kind::give_addresses(&bare.lab.balancer)?;
    let Lab { client, balancer, .. } = &bare.lab;
    let our_client = small.lab.client.clone();
    let [mut plain, mut ours, mut nat, mut full, mut spread] = [const { Found::EMPTY }; 5];
    let mut proxied = [const { Found::EMPTY }; Kind::ALL.len()];
    for _ in 0..rounds {
        plain.connections(client, &[pod(1)])?;
        plain.requests(client, pod(1))?;
        small.start_and_wait()?;
        ours.connections(&our_client, &[fleet::frontend(0)])?;
        spread.connections(&large.lab.client, &many)?;
        ours.requests(&our_client, fleet::frontend(0))?;
        ours.datagrams(&our_client, fleet::udp_frontend(), &sink)?;
        small.stop()?;
        for (port, source, found) in [(2, Source::Client, &mut nat), (3, Source::Machine, &mut full)] {
            let frontend = Nat::frontend(PORTS[port]);
            let nat = Nat::start(balancer, pod(port), source)?;
            found.connections(client, &[frontend])?;
            found.requests(client, frontend)?;
            drop(nat);
            let _nat = Nat::start(balancer, pod(0), source)?;
            found.datagrams(client, Nat::frontend(fleet::TARGET), &bare_sink)?;
        }
        for ((kind, port), found) in Kind::ALL.into_iter().zip(4..).zip(&mut proxied) {
            let _proxy = kind.start(balancer, client, pod(port))?;
            found.connections(client, &[kind.frontend(PORTS[port])])?;
        }
    }
    large.stop()?;
    drop(servers);
    Ok(lines(&plain, &ours, &nat, &full, &proxied, &spread))
}

fn lines(
    plain: &Found,
    ours: &Found,
    nat: &Found,
    full: &Found,
    [haproxy, nginx]: &[Found; 2],
    spread: &Found,
) -> Vec<Line> {
    let part = |name: &str, unit, rounds: &[f64]| Part::new(name, unit, rounds.to_vec());
    let rate = |name: &str, found: &Found| part(name, "connections/s", &found.connections);
    let connections = |what, bar, stretch, other: &Found, name| {
        Line::ratio(what, Bar::AtLeast(bar), rate("Blixt", ours), rate(name, other)).stretched(stretch)
    };
    let requests = |what, [bar, stretch]: [f64; 2], [one, other]: [&[f64]; 2], name| {
        let parts = (part("Blixt", "us", one), part(name, "us", other));
        Line::ratio(what, Bar::AtMost(bar), parts.0, parts.1).stretched(stretch)
    };
    let datagrams = |what, other: &Found, name| {
        let parts = (part("Blixt", "kpps", &ours.kpps), part(name, "kpps", &other.kpps));
        Line::ratio(what, Bar::AtLeast(1.0), parts.0, parts.1)
    };
    let (filtered, masked) = ("nftables", "nftables with masquerade");
    vec![
        connections("P16 connections a second, TC against plain routing", 0.85, 0.9, plain, "plain routing"),
        connections("P16 connections a second, TC against nftables", 1.08, 1.15, nat, filtered),
        connections(
            "P16 connections a second, TC against nftables with masquerade",
            1.08,
            1.15,
            full,
            masked,
        ),
        connections("P16 connections a second, TC against HAProxy", 1.7, 1.9, haproxy, "HAProxy"),
        connections("P16 connections a second, TC against nginx", 1.7, 1.9, nginx, "nginx"),
        Line::ratio(
            "connections a second to 10 000 listeners, against one listener",
            Bar::AtLeast(0.9),
            rate("10 000 listeners", spread),
            rate("one listener", ours),
        ),
        added(plain, ours, nat),
        requests(
            "P18 request and response in one flow, p50, TC against plain routing",
            [1.05, 1.0],
            [&ours.p50, &plain.p50],
            "plain routing",
        ),
        requests(
            "P18 request and response in one flow, p99, TC against nftables",
            [1.0, 0.8],
            [&ours.p99, &nat.p99],
            filtered,
        ),
        datagrams("UDP in frames of 60 bytes, TC against nftables", nat, filtered),
        datagrams("UDP in frames of 60 bytes, TC against nftables with masquerade", full, masked),
    ]
}

/// What a connection costs more than by plain routing, in what it costs nftables more.
fn added(plain: &Found, ours: &Found, nat: &Found) -> Line {
    let more = |found: &Found| {
        found.processor.iter().zip(&plain.processor).map(|(all, plain)| all - plain).collect()
    };
    let part = |name: &str, rounds: Vec<f64>| Part::new(name, "us", rounds);
    let mut line = Line::ratio(
        "P17 processor time that a connection adds to plain routing, TC against nftables",
        Bar::AtMost(0.6),
        part("Blixt adds", more(ours)),
        part("nftables adds", more(nat)),
    );
    line.parts.push(part("plain routing, client and server included", plain.processor.clone()));
    line.stretched(0.4)
}

impl Found {
    const EMPTY: Self = Self {
        connections: Vec::new(),
        processor: Vec::new(),
        p50: Vec::new(),
        p99: Vec::new(),
        kpps: Vec::new(),
    };

    /// Connections one after the other, over the frontends in turn.
    fn connections(&mut self, client: &Machine, frontends: &[SocketAddr]) -> Result<()> {
        let (mut most, mut least) = (0.0_f64, f64::INFINITY);
        for _ in 0..TRIES {
            let (count, seconds, processor) = client.run(|| connections(frontends))?;
            most = most.max(count / seconds);
            least = least.min(processor / count * 1e6);
        }
        self.connections.push(most);
        self.processor.push(least);
        Ok(())
    }

    /// Requests one after the other in one connection.
    fn requests(&mut self, client: &Machine, frontend: SocketAddr) -> Result<()> {
        let (mut p50, mut p99) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..TRIES {
            let times =
                client.run(|| requests(frontend)).with_context(|| format!("{frontend}: a request failed"))?;
            p50 = p50.min(quantile(&times, 0.5));
            p99 = p99.min(quantile(&times, 0.99));
        }
        self.p50.push(p50);
        self.p99.push(p99);
        Ok(())
    }

    /// Datagrams of one flow.
    fn datagrams(&mut self, client: &Machine, frontend: SocketAddr, sink: &UdpSocket) -> Result<()> {
        let rates = (0..TRIES).map(|_| client.run(|| datagrams(frontend, sink)));
        let rates =
            rates.collect::<io::Result<Vec<f64>>>().with_context(|| format!("{frontend}: UDP failed"))?;
        self.kpps.push(rates.into_iter().fold(0.0, f64::max));
        Ok(())
    }
}

/// How many connections, in how many seconds, and of processor time.
fn connections(frontends: &[SocketAddr]) -> Result<(f64, f64, f64)> {
    let (begun, spent) = (Instant::now(), time_of_all()?);
    let mut count = 0_u32;
    for frontend in frontends.iter().cycle() {
        exchange(*frontend).with_context(|| format!("{frontend}: connection {count} failed"))?;
        count += 1;
        if begun.elapsed() > SLICE {
            break;
        }
    }
    let spent = time_of_all()? - spent;
    Ok((f64::from(count), begun.elapsed().as_secs_f64(), spent.as_secs_f64()))
}

/// Microseconds of each request.
fn requests(frontend: SocketAddr) -> io::Result<Vec<f64>> {
    let mut stream = TcpStream::connect_timeout(&frontend, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut answer = [0; MESSAGE];
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < SLICE {
        let sent = Instant::now();
        stream.write_all(&[MORE; MESSAGE])?;
        stream.read_exact(&mut answer)?;
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    stream.write_all(&[LAST; MESSAGE])?;
    stream.read_exact(&mut answer)?;
    Ok(times)
}

/// Thousand datagrams a second that arrive. Sending and taking turns on one processor: none is lost for want of room.
fn datagrams(frontend: SocketAddr, sink: &UdpSocket) -> io::Result<f64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(frontend)?;
    let mut arrived = 0_u32;
    let mut datagram = [0; DATAGRAM];
    let begun = Instant::now();
    while begun.elapsed() < SLICE {
        for _ in 0..BURST {
            socket.send(&[0; DATAGRAM])?;
        }
        while sink.recv(&mut datagram).is_ok() {
            arrived += 1;
        }
    }
    if arrived == 0 {
        return Err(io::Error::other("nothing arrived"));
    }
    Ok(f64::from(arrived) / begun.elapsed().as_secs_f64() / 1e3)
}

/// Takes the datagrams of a node; does not wait for any.
fn sink(node: &Machine) -> Result<UdpSocket> {
    let sink = node.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, fleet::TARGET)))?;
    sink.set_nonblocking(true)?;
    Ok(sink)
}

/// One connection to its end, which the server begins: no port of the client has to wait.
fn exchange(frontend: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&frontend, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[LAST; MESSAGE])?;
    let mut answer = Vec::with_capacity(MESSAGE + 1);
    stream.read_to_end(&mut answer)?;
    if answer != [LAST; MESSAGE] {
        return Err(io::Error::other("the answer is not what was sent"));
    }
    Ok(())
}

/// Threads of servers; stopped and waited for when dropped.
struct Servers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

fn serve(lab: &Lab) -> Result<Vec<Servers>> {
    let mut servers = Vec::new();
    for node in &lab.backends {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for port in PORTS {
            let listener = node.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
            let listener = Socket::from(listener);
            // Accepting, too, ends after this time: to see whether to stop.
            listener.set_read_timeout(Some(Duration::from_millis(200)))?;
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || answer(&listener.into(), &stop)));
        }
        servers.push(Servers { stop, threads });
    }
    Ok(servers)
}

fn answer(listener: &TcpListener, stop: &AtomicBool) {
    let mut message = [0; MESSAGE];
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else { continue };
        let mut echo = || -> io::Result<()> {
            stream.set_read_timeout(Some(PATIENCE))?;
            loop {
                stream.read_exact(&mut message)?;
                stream.write_all(&message)?;
                if message[0] == LAST {
                    return stream.shutdown(Shutdown::Write);
                }
            }
        };
        // The client sees what was not answered, and fails.
        let _ = echo();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic in it has been printed.
            let _ = thread.join();
        }
    }
}
