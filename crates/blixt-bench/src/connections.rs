//! New connections a second, request and response included: Blixt against nftables and proxies, and 10 000 listeners
//! against one.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blixt_bars::{Bar, Line, Part};
use blixt_lab::{Lab, Machine};
use socket2::Socket;

use crate::fleet::{self, LARGE, NODES};
use crate::nat::Nat;
use crate::pin::pinned;
use crate::proxy::Kind;
use crate::stage::{PATIENCE, Stage};

/// One measurement.
const SLICE: Duration = Duration::from_millis(400);
/// Measurements of each kind in a round; the least disturbed one counts.
const TRIES: usize = 3;
/// Bytes of a request and of a response.
const MESSAGE: usize = 64;
/// Where servers answer for nftables.
const NAT_PORT: u16 = 8081;
/// Far from the frontend before: consecutive connections share no cache lines. Odd and no factor of 10 000.
const STRIDE: u32 = 7_919;

/// Four lines: against nftables and two proxies, and many listeners against one.
pub fn measure(blixt: &Path, rounds: usize) -> Result<Vec<Line>> {
    pinned(|| measure_pinned(blixt, rounds))
}

fn measure_pinned(blixt: &Path, rounds: usize) -> Result<Vec<Line>> {
    let mut small = Stage::new(blixt, NODES)?;
    let mut large = Stage::new(blixt, NODES)?;
    let mut servers = Vec::new();
    for (stage, routes) in [(&small, 1), (&large, LARGE)] {
        stage.lab.client.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        fleet::route_pods(&stage.lab)?;
        fleet::write(stage, routes)?;
        servers.extend(serve(&stage.lab)?);
    }
    large.start_and_wait()?;
    let one = [fleet::frontend(0)];
    let many: Vec<SocketAddr> = (0..LARGE).map(|number| fleet::frontend(number * STRIDE % LARGE)).collect();
    let pod = SocketAddr::new(fleet::backend(1, 0).ip(), NAT_PORT);
    Kind::give_addresses(&small.lab.balancer)?;
    let [mut at_one, mut at_many, mut by_nat] = [const { Vec::new() }; 3];
    let mut by_proxy = [const { Vec::new() }; Kind::ALL.len()];
    for _ in 0..rounds {
        small.start_and_wait()?;
        let (mut single, mut spread) = (0.0_f64, 0.0_f64);
        for _ in 0..TRIES {
            single = single.max(rate(&small.lab.client, &one)?);
            spread = spread.max(rate(&large.lab.client, &many)?);
        }
        small.stop()?;
        at_one.push(single);
        at_many.push(spread);
        let best = |frontend| -> Result<f64> {
            let tries: Result<Vec<f64>> = (0..TRIES).map(|_| rate(&small.lab.client, &[frontend])).collect();
            Ok(tries?.into_iter().fold(0.0, f64::max))
        };
        {
            let _nat = Nat::start(&small.lab.balancer, pod)?;
            by_nat.push(best(Nat::frontend(NAT_PORT))?);
        }
        for (kind, rounds) in Kind::ALL.into_iter().zip(&mut by_proxy) {
            let _proxy = kind.start(&small.lab.balancer, &small.lab.client, pod)?;
            rounds.push(best(kind.frontend(NAT_PORT))?);
        }
    }
    large.stop()?;
    drop(servers);
    let part = |name: &str, rounds: &[f64]| Part::new(name, "connections/s", rounds.to_vec());
    let line = |what, bar, stretch, other: &[f64], name| {
        let line = Line::ratio(what, Bar::AtLeast(bar), part("Blixt", &at_one), part(name, other));
        line.stretched(stretch)
    };
    Ok(vec![
        line(
            "P16 connections a second in TC, full NAT, against nftables DNAT",
            1.08,
            1.15,
            &by_nat,
            "nftables",
        ),
        line("P16 connections a second in TC, full NAT, against HAProxy", 1.7, 1.9, &by_proxy[0], "HAProxy"),
        line("P16 connections a second in TC, full NAT, against nginx", 1.7, 1.9, &by_proxy[1], "nginx"),
        Line::ratio(
            "connections a second to 10 000 listeners, against one listener",
            Bar::AtLeast(0.9),
            part("10 000 listeners", &at_many),
            part("one listener", &at_one),
        ),
    ])
}

/// Connections a second, one after the other, over the frontends in turn.
fn rate(client: &Machine, frontends: &[SocketAddr]) -> Result<f64> {
    client.run(|| {
        let begun = Instant::now();
        let mut count = 0_u32;
        for frontend in frontends.iter().cycle() {
            exchange(*frontend).with_context(|| format!("{frontend}: connection {count} failed"))?;
            count += 1;
            if begun.elapsed() > SLICE {
                break;
            }
        }
        Ok(f64::from(count) / begun.elapsed().as_secs_f64())
    })
}

/// One connection to its end, which the server begins: no port of the client has to wait.
fn exchange(frontend: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&frontend, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[1; MESSAGE])?;
    let mut answer = Vec::with_capacity(MESSAGE + 1);
    stream.read_to_end(&mut answer)?;
    if answer != [1; MESSAGE] {
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
    let ports = [fleet::TARGET, NAT_PORT];
    let mut servers = Vec::new();
    for node in &lab.backends {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for port in ports {
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
            stream.read_exact(&mut message)?;
            stream.write_all(&message)?;
            stream.shutdown(Shutdown::Write)
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
