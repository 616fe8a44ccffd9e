//! A packet of an established flow in TC, full NAT, beside the floor: what one run of each program costs.
//!
//! `BPF_PROG_TEST_RUN` does not restore a packet between its repeats. So a driver runs, which makes the packet that of
//! another flow and tail-calls the program under test; the driver with a program that does nothing is subtracted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, HashMap, Map, MapData, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use blixt_core::config::{Endpoint, Protocol};
use blixt_core::host::Mac;
use blixt_core::tables::{
    BackendEntry, BackendSlot, BackendState, DeviceEntry, Family, FrontendEntry, HopEntry, Op, Ring,
    RouteEntry, Way,
};
use blixt_lab::Machine;
use blixt_loader::{Dataplane, Options, cleanup};
use blixt_packet::abi::{BackendId, Flow, FlowKey, V4};
use blixt_packet::checksum::Delta;
use nix::time::{ClockId, clock_gettime};

use crate::line::{Bar, Line, Part, ratios};
use crate::pin::pinned;

/// Flows of the walk, as the driver has them.
const FLOWS: u32 = 65_536;
/// Ports of one client, as the driver has them.
const PORTS: u32 = 16_384;
/// Packets of a measurement: each flow's turn comes eight times.
const PACKETS: u32 = 8 * FLOWS;
/// Measurements of each program in a round; the least disturbed one counts.
const TRIES: usize = 3;
/// Backends, so that four clients with the same ports find a source port of their own.
const BACKENDS: u16 = 16;
/// `TC_ACT_REDIRECT`: the packet went on.
const REDIRECT: u32 = 7;

const CLIENT: [u8; 4] = [10, 0, 0, 2];
const FIRST_PORT: u16 = 32_768;
const FRONTEND: [u8; 4] = [10, 99, 0, 1];
const FRONTEND_PORT: u16 = 80;
const BACKEND: [u8; 4] = [10, 0, 1, 2];
const FIRST_BACKEND_PORT: u16 = 8080;
const OWN: [u8; 4] = [10, 0, 1, 1];
/// Device of a test run: the loopback of the namespace.
const LOOPBACK: u32 = 1;
/// Bytes of a frame, its headers included.
const FRAME: usize = 80;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Measures in a namespace of its own, which has nothing but a loopback.
pub fn measure(floor: &Path, rounds: usize) -> Result<Line> {
    let machine = Machine::new("balancer")?;
    let line = pinned(|| machine.run(|| measure_here(floor, rounds)));
    let cleaned = machine.run(cleanup);
    let line = line?;
    cleaned?;
    Ok(line)
}

fn measure_here(floor: &Path, rounds: usize) -> Result<Line> {
    let options = Options { hop_life: Duration::from_secs(3600), ..Options::default() };
    let mut dataplane = Dataplane::open(&options)?;
    dataplane.apply(&tables())?;
    let flows = establish(&mut dataplane)?;
    let entries = dataplane.capacity().flows * 2;
    let mut bench = Bench::load(floor, entries, &flows)?;
    let blixt = fd(dataplane.programs()?, "blixt_ingress")?;
    let nat = fd(&mut bench.ebpf, "floor_nat")?;
    let nothing = fd(&mut bench.ebpf, "floor_nothing")?;
    bench.check(&blixt, "blixt_ingress")?;
    bench.check(&nat, "floor_nat")?;

    let mut nanoseconds: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        let mut least = [f64::INFINITY; 3];
        for _ in 0..TRIES {
            for (least, program) in least.iter_mut().zip([&nothing, &nat, &blixt]) {
                *least = least.min(bench.run(program)?);
            }
        }
        for (all, least) in nanoseconds.iter_mut().zip(least) {
            all.push(least);
        }
    }
    let [driver, nat, blixt] = nanoseconds;
    let net =
        |gross: &[f64]| gross.iter().zip(&driver).map(|(gross, driver)| gross - driver).collect::<Vec<f64>>();
    let (nat, blixt) = (net(&nat), net(&blixt));
    Ok(Line {
        what: "a packet of an established flow in TC, full NAT, 65 536 flows, against the floor",
        unit: "x",
        bar: Bar::AtMost(1.5),
        rounds: ratios(&blixt, &nat),
        parts: vec![
            Part::new("Blixt", "ns", blixt),
            Part::new("floor", "ns", nat),
            Part::new("driver, subtracted from both", "ns", driver),
        ],
    })
}

/// The floor's object, its table filled as Blixt's is.
struct Bench {
    ebpf: Ebpf,
    target: ProgramArray<MapData>,
}

impl Bench {
    fn load(floor: &Path, entries: u32, flows: &[(FlowKey<V4>, Flow<V4>)]) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .map_max_entries("FLOOR_FLOWS", entries)
            .load_file(floor)
            .with_context(|| format!("{}: cannot be loaded", floor.display()))?;
        for name in ["floor_driver", "floor_nothing", "floor_nat"] {
            classifier(&mut ebpf, name)?.load()?;
        }
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("{name}: no such map"));
        let mut packet: Array<MapData, [u64; 7]> = take("PACKET")?.try_into()?;
        packet.set(0, first_words(&frame(0, ACK)), 0)?;
        let Map::LruHashMap(table) = take("FLOOR_FLOWS")? else { bail!("FLOOR_FLOWS: not an LRU hash") };
        let mut table: HashMap<MapData, [u32; 4], [u32; 8]> = Map::LruHashMap(table).try_into()?;
        for (key, flow) in flows {
            table.insert(key_words(key), flow_words(flow), 0)?;
        }
        let target = take("TARGET")?.try_into()?;
        Ok(Self { ebpf, target })
    }

    /// That a program translates the packets which the driver makes: each of them.
    fn check(&mut self, program: &ProgramFd, name: &str) -> Result<()> {
        self.target.set(0, program, 0)?;
        for _ in 0..FLOWS {
            let mut out = [0; FRAME];
            let result = classifier(&mut self.ebpf, "floor_driver")?.test_run(TestRunOptions {
                data_in: Some(&frame(0, ACK)),
                data_out: Some(&mut out),
                ..TestRunOptions::new()
            })?;
            if result.return_value != REDIRECT || out[26..30] != OWN || out[30..34] != BACKEND {
                bail!(
                    "{name}: a packet of an established flow was not sent on: {} {out:x?}",
                    result.return_value
                );
            }
        }
        Ok(())
    }

    /// Nanoseconds of this thread for a packet, the driver included.
    fn run(&mut self, program: &ProgramFd) -> Result<f64> {
        self.target.set(0, program, 0)?;
        let packet = frame(0, ACK);
        let driver = classifier(&mut self.ebpf, "floor_driver")?;
        let before = thread_time()?;
        driver.test_run(TestRunOptions {
            data_in: Some(&packet),
            repeat: PACKETS,
            ..TestRunOptions::new()
        })?;
        let took = thread_time()? - before;
        Ok(took.as_secs_f64() * 1e9 / f64::from(PACKETS))
    }
}

/// One frontend and its backends, by one hop.
fn tables() -> Vec<Op> {
    let tcp = |address: [u8; 4], port| Endpoint { address: address.into(), port, protocol: Protocol::Tcp };
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let ids: Vec<BackendId> = (1..=BACKENDS).map(|slot| BackendId::new(slot.into(), 1)).collect();
    let device = DeviceEntry { mac, mtu: 1500, xdp_target: false, xdp_sender: false, of_host: false };
    let hop = HopEntry {
        next_hop: Some(BACKEND.into()),
        device: LOOPBACK,
        mtu: 1500,
        source: mac,
        destination: Some(Mac([2, 0, 0, 0, 0, 2])),
    };
    let mut ops = vec![
        Op::SetDevice(LOOPBACK, Some(device)),
        Op::SetHop(1, Some(hop)),
        Op::SetRoute(1, Some(RouteEntry { hash: 1, name: None })),
    ];
    for (slot, port) in (1..=BACKENDS).zip(FIRST_BACKEND_PORT..) {
        let entry = BackendEntry {
            endpoint: tcp(BACKEND, port),
            incarnation: 1,
            state: BackendState::Serving,
            way: Way::Nat,
            source: OWN.into(),
            hop: 1,
            route: 1,
        };
        ops.push(Op::SetBackend(BackendSlot { family: Family::V4, slot: slot.into() }, entry));
    }
    let slots = u32::from(BACKENDS);
    ops.push(Op::SetRing(1, Some(Ring { hash: 1, len: slots, slots: Some(ids.into()) })));
    let frontend = FrontendEntry { ring: 1, slots, route: 1 };
    ops.push(Op::SetFrontend(tcp(FRONTEND, FRONTEND_PORT), Some(frontend)));
    ops
}

/// Opens every flow by the handshake that it would have, and answers both halves of each.
fn establish(dataplane: &mut Dataplane) -> Result<Vec<(FlowKey<V4>, Flow<V4>)>> {
    let program = classifier(dataplane.programs()?, "blixt_ingress")?;
    for flow in 0..FLOWS {
        let request = send(program, &frame(flow, SYN))?;
        send(program, &reply(&request))?;
        send(program, &frame(flow, ACK))?;
    }
    let entries = dataplane.flows::<V4>(usize::MAX)?;
    if entries.len() != FLOWS as usize * 2 {
        bail!("{FLOWS} connections made {} entries, not two each", entries.len());
    }
    Ok(entries)
}

fn send(program: &SchedClassifier, frame: &[u8; FRAME]) -> Result<[u8; FRAME]> {
    let mut out = [0; FRAME];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = program.test_run(options)?;
    if result.return_value != REDIRECT {
        bail!("a packet of a handshake was not sent on: {}", result.return_value);
    }
    Ok(out)
}

/// A client's packet.
fn frame(flow: u32, flags: u8) -> [u8; FRAME] {
    let [a, b, c, d] = CLIENT;
    let source = [a, b, c, d + (flow / PORTS) as u8];
    build((source, FIRST_PORT + (flow % PORTS) as u16), (FRONTEND, FRONTEND_PORT), flags)
}

/// What a backend answers to the SYN that it got.
fn reply(request: &[u8; FRAME]) -> [u8; FRAME] {
    let address = |at: usize| [request[at], request[at + 1], request[at + 2], request[at + 3]];
    let port = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
    build((address(30), port(36)), (address(26), port(34)), SYN | ACK)
}

/// Ethernet, IPv4, TCP and a few bytes.
fn build(source: ([u8; 4], u16), destination: ([u8; 4], u16), flags: u8) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    // Loopback's MAC address is all zero: such a frame is for this machine.
    frame[..14].copy_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 9, 0x08, 0x00]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&((FRAME - 14) as u16).to_be_bytes());
    frame[22] = 64;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&source.0);
    frame[30..34].copy_from_slice(&destination.0);
    frame[34..36].copy_from_slice(&source.1.to_be_bytes());
    frame[36..38].copy_from_slice(&destination.1.to_be_bytes());
    frame[46] = 0x50;
    frame[47] = flags;
    let sum = frame[14..34]
        .chunks_exact(2)
        .fold(Delta::default(), |sum, pair| sum.add(u16::from_be_bytes([pair[0], pair[1]]).into()));
    frame[24..26].copy_from_slice(&(!sum.fold()).to_be_bytes());
    frame
}

/// As the driver writes them.
fn first_words(frame: &[u8; FRAME]) -> [u64; 7] {
    let mut words = [0; 7];
    for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(8)) {
        for (at, byte) in bytes.iter().enumerate() {
            *word |= u64::from(*byte) << (8 * at);
        }
    }
    // Made as if the first byte were the lowest: now as they lie in memory.
    words.map(u64::to_le)
}

fn key_words(key: &FlowKey<V4>) -> [u32; 4] {
    [key.source.0[0], key.destination.0[0], halves(key.ports), key.protocol]
}

/// The value, word for word; the floor reads addresses, ports and the device of the client.
fn flow_words(flow: &Flow<V4>) -> [u32; 8] {
    let [a, b, c] = flow.client_mac;
    let rest = halves([c, u16::from_ne_bytes([flow.flags, flow.state])]);
    let (source, destination) = (flow.source.0[0], flow.destination.0[0]);
    [source, destination, halves(flow.ports), flow.backend.0, flow.client.0, halves([a, b]), rest, flow.seen]
}

fn halves([first, second]: [u16; 2]) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(ebpf.program_mut(name).with_context(|| format!("{name}: no such program"))?.try_into()?)
}

fn fd(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    Ok(classifier(ebpf, name)?.fd()?.try_clone()?)
}

/// Processor time of this thread: what others take from the processor meanwhile is not in it.
fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
