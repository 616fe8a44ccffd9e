//! The programs of a data plane, run on single frames (`BPF_PROG_TEST_RUN`) on a machine of their own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use aya::TestRunResult;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use blixt_cases::network::{BACKEND_SIDE, CLIENT_SIDE, INNER_MAC, OUR_MAC, SETTINGS};
use blixt_cases::{Given, Hook, Place};
use blixt_core::diff::diff;
use blixt_core::tables::{Op, Tables};
use blixt_loader::{Capacity, Dataplane, FlowCount, Options};
use blixt_model::network::{WIRE, WIRE_MAC};
use blixt_packet::abi::Settings;
use blixt_packet::{DropReason, Verdict};
use nix::time::{ClockId, clock_gettime};

use super::summed::run_summed;
use crate::world::{World, options};

/// What the kernel made of a frame.
pub struct Seen {
    /// What the program returned.
    pub action: i32,
    /// The counter that went up.
    pub reason: Option<DropReason>,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

/// The loaded programs.
pub struct Programs {
    hook: Hook,
    options: Options,
    /// `None` while one process gives way to another.
    dataplane: Option<Dataplane>,
    tables: Tables,
    drops: BTreeMap<DropReason, u64>,
    pins: PathBuf,
}

impl Programs {
    /// Runs a test with programs on a machine of their own.
    pub fn run(hook: Hook, test: impl FnOnce(&mut Self) + Send) {
        // As many connections as the longest of the tests makes, and more.
        Self::run_with_room(hook, 65_536, test);
    }

    /// The same, with room for so many connections.
    pub fn run_with_room(hook: Hook, flows: u32, test: impl FnOnce(&mut Self) + Send) {
        Self::run_with(hook, flows, SETTINGS, test);
    }

    /// The same, with other settings.
    pub fn run_with(hook: Hook, flows: u32, settings: Settings, test: impl FnOnce(&mut Self) + Send) {
        World::run(|world| {
            wire_network(world);
            let capacity = Capacity { flows, ..options().capacity };
            // Nobody renews the next hops meanwhile, on a machine however slow.
            let hop_life = Duration::from_secs(24 * 3600);
            let options = Options { capacity, settings, hop_life, ..options() };
            let mut dataplane = Dataplane::open(&options).unwrap();
            if hook == Hook::Xdp {
                // A frame is said to have come by a device only if that takes part in XDP.
                for ifindex in [CLIENT_SIDE, BACKEND_SIDE, WIRE] {
                    dataplane.attach(ifindex, blixt_loader::Hook::Xdp, false).unwrap();
                }
            }
            let drops = dataplane.counters().unwrap().drops;
            let (tables, dataplane) = (Tables::default(), Some(dataplane));
            test(&mut Self { hook, options, dataplane, tables, drops, pins: world.pins() });
        });
    }

    /// User space writes these tables; no flow is known.
    pub fn begin(&mut self, tables: &Tables) {
        self.write(tables);
        self.age_stray(u32::MAX);
        clear::<16, 32>(self.pins.join("FLOWS_V4"));
        clear::<40, 56>(self.pins.join("FLOWS_V6"));
        clear::<16, 12>(self.pins.join("FRAGMENTS_V4"));
        clear::<40, 12>(self.pins.join("FRAGMENTS_V6"));
    }

    /// User space writes these tables.
    pub fn write(&mut self, tables: &Tables) {
        self.apply(&diff(&self.tables, tables));
    }

    /// What user space has written.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Where the maps are pinned.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Seconds go by: the kernel's clock cannot be set, but every flow was seen so much earlier. On a machine that was started
    /// later than that, as many go by in truth as anything may be silent before it is over.
    pub fn wait(&mut self, seconds: u32) {
        let up = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        let silence = Duration::from_secs(u64::from(seconds.min(SETTINGS.udp_idle)) + 2);
        thread::sleep(silence.saturating_sub(up));
        self.age_stray(seconds);
        age::<16, 32>(self.pins.join("FLOWS_V4"), seconds);
        age::<40, 56>(self.pins.join("FLOWS_V6"), seconds);
        age::<16, 12>(self.pins.join("FRAGMENTS_V4"), seconds);
        age::<40, 12>(self.pins.join("FRAGMENTS_V6"), seconds);
    }

    /// Moves the last stray segment into the past.
    pub fn age_stray(&mut self, seconds: u32) {
        let ebpf = self.dataplane().programs().unwrap();
        let mut strays: Array<_, u32> = ebpf.map_mut("STRAYS").unwrap().try_into().unwrap();
        let last = strays.get(&0, 0).unwrap();
        strays.set(0, last.saturating_sub(seconds), 0).unwrap();
        // What the CPUs have kept of it.
        let mut clock: PerCpuArray<_, [u64; 4]> = ebpf.map_mut("CLOCK").unwrap().try_into().unwrap();
        let nothing = PerCpuValues::try_from(vec![[0; 4]; nr_cpus().unwrap()]).unwrap();
        clock.set(0, nothing, 0).unwrap();
    }

    /// The process that wrote the tables ends, and another one takes them over.
    pub fn restart(&mut self) {
        self.dataplane = None;
        let dataplane = Dataplane::open(&self.options).unwrap();
        assert!(dataplane.found().is_taken_over);
        self.dataplane = Some(dataplane);
    }

    /// The process ends, and one comes that has another map layout: it knows nothing.
    pub fn change_layout(&mut self) {
        self.dataplane = None;
        fs::rename(&self.pins, self.pins.with_file_name("v0")).unwrap();
        let dataplane = Dataplane::open(&self.options).unwrap();
        assert_eq!((dataplane.found().is_taken_over, dataplane.other_layouts().len()), (false, 1));
        self.drops = dataplane.counters().unwrap().drops;
        self.dataplane = Some(dataplane);
        self.tables = Tables::default();
    }

    /// How many entries of flows come from another map layout.
    pub fn carry_flows(&mut self) -> usize {
        self.dataplane().carry_flows().unwrap()
    }

    /// What the flow tables of IPv4 and IPv6 hold and gave up.
    pub fn count_flows(&mut self) -> [FlowCount; 2] {
        self.dataplane().census().unwrap().take(Default::default()).unwrap()
    }

    /// User space writes.
    pub fn apply(&mut self, ops: &[Op]) {
        self.dataplane().apply(ops).unwrap();
        ops.iter().for_each(|op| self.tables.apply(op));
    }

    /// What was dropped until now, by reason.
    pub fn drops(&mut self) -> BTreeMap<DropReason, u64> {
        self.dataplane().counters().unwrap().drops
    }

    /// Lets the programs see a frame. What XDP passes, the TC program behind it sees.
    pub fn show(&mut self, given: &Given) -> Seen {
        let (action, out) = self.pass_by(given);
        let drops = self.drops();
        let counted: Vec<DropReason> = drops
            .iter()
            .filter(|(reason, count)| self.drops[reason] != **count)
            .map(|(reason, _)| *reason)
            .collect();
        assert!(counted.len() <= 1, "one frame was counted for {counted:?}");
        self.drops = drops;
        Seen { action, reason: counted.first().copied(), frame: out }
    }

    /// The same without a look at the counters: what the last program returned, and the frame as it left it.
    pub fn pass_by(&mut self, given: &Given) -> (i32, Vec<u8>) {
        let Given { place, frame, segment } = given;
        match *place {
            Place::Leaves(ifindex) => self.run_tc("blixt_egress", ifindex, frame, *segment),
            Place::Enters(ifindex) if self.hook == Hook::Xdp => {
                let (action, out) = self.run_xdp(ifindex, frame);
                if action != XDP_PASS {
                    return (action, out);
                }
                self.run_tc("blixt_ingress", ifindex, &out, *segment)
            }
            Place::Enters(ifindex) => self.run_tc("blixt_ingress", ifindex, frame, *segment),
        }
    }

    /// Lets the TC program see a frame that a network card has summed up. An error if the sum is not true afterwards.
    pub fn show_summed(&mut self, given: &Given) -> io::Result<()> {
        let (name, ifindex) = match given.place {
            Place::Enters(ifindex) => ("blixt_ingress", ifindex),
            Place::Leaves(ifindex) => ("blixt_egress", ifindex),
        };
        let program = self.classifier(name).fd().unwrap();
        run_summed(program.as_fd(), &given.frame, &skb_context(ifindex, given.segment))
    }

    /// The TC program sends the frame on.
    pub fn is_redirected(&mut self, given: &Given) -> bool {
        let Place::Enters(ifindex) = given.place else { return false };
        self.run_tc("blixt_ingress", ifindex, &given.frame, given.segment).0 == TC_ACT_REDIRECT
    }

    fn dataplane(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().unwrap()
    }

    fn classifier(&mut self, name: &str) -> &SchedClassifier {
        self.dataplane().programs().unwrap().program(name).unwrap().try_into().unwrap()
    }

    fn run_tc(&mut self, name: &str, ifindex: u32, frame: &[u8], segment: u32) -> (i32, Vec<u8>) {
        let program = self.classifier(name);
        run(program, frame, &skb_context(ifindex, segment))
    }

    fn run_xdp(&mut self, ifindex: u32, frame: &[u8]) -> (i32, Vec<u8>) {
        let program: &Xdp =
            self.dataplane().programs().unwrap().program("blixt_xdp").unwrap().try_into().unwrap();
        run(program, frame, &xdp_context(frame.len(), ifindex))
    }

    /// What the program must return for a verdict.
    pub fn action(&self, given: &Given, verdict: Verdict) -> i32 {
        if given.segment != 0 {
            // Only TC can tell of what size its segments are: XDP leaves it to that.
            return Self::tc_action(verdict);
        }
        match (self.hook, given.place, verdict) {
            (Hook::Xdp, Place::Enters(_), Verdict::Drop(_)) => XDP_DROP,
            (Hook::Xdp, Place::Enters(_), Verdict::Answer(_)) => XDP_TX,
            (Hook::Xdp, Place::Enters(ifindex), Verdict::Send(link) | Verdict::Reset(Some(link)))
                if link.ifindex() == ifindex =>
            {
                XDP_TX
            }
            (Hook::Xdp, Place::Enters(_), Verdict::Send(_) | Verdict::Reset(Some(_))) => XDP_REDIRECT,
            _ => Self::tc_action(verdict),
        }
    }

    /// What the TC program must return for a verdict.
    pub fn tc_action(verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Pass | Verdict::Deliver | Verdict::Reset(None) => TC_ACT_UNSPEC,
            Verdict::Drop(_) => TC_ACT_SHOT,
            Verdict::Send(_) | Verdict::Neighbour(_) | Verdict::Answer(_) | Verdict::Reset(Some(_)) => {
                TC_ACT_REDIRECT
            }
        }
    }
}

/// The devices of the cases' network. Their MAC addresses tell the kernel, and so TC, which frames are for this machine.
pub fn wire_network(world: &World) {
    let (ours, inner, wire) = (written(OUR_MAC), written(INNER_MAC), written(WIRE_MAC));
    world.ip(&format!(
        "link add outside index {CLIENT_SIDE} address {ours} type veth peer name inside index {BACKEND_SIDE} address {inner}"
    ));
    world.ip(&format!("link add wire index {WIRE} address {wire} type veth peer name end"));
    // Without addresses of their own the devices are silent: nothing but the test's frames is counted.
    for device in ["outside", "inside", "wire", "end"] {
        world.ip(&format!("link set {device} addrgenmode none\nlink set {device} up"));
    }
}

/// What the TC program at ingress makes of a frame that comes in.
pub fn run_ingress(program: &SchedClassifier, given: &Given) -> (i32, Vec<u8>) {
    let (Place::Enters(ifindex) | Place::Leaves(ifindex)) = given.place;
    run(program, &given.frame, &skb_context(ifindex, given.segment))
}

/// A MAC address as `ip` reads it.
fn written(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

const TC_ACT_UNSPEC: i32 = -1;
pub const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
const XDP_REDIRECT: i32 = 4;

/// Bytes by which an answer may be longer than what it answers: an IPv6 and an ICMPv6 header, and some.
const ROOM: usize = 128;

/// `struct __sk_buff` up to the fields that a run may be given.
fn skb_context(ifindex: u32, segment: u32) -> [u8; 192] {
    const IFINDEX: usize = 40;
    const GSO_SIZE: usize = 176;
    let mut context = [0; 192];
    context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&segment.to_ne_bytes());
    context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

/// `struct xdp_md`.
fn xdp_context(len: usize, ifindex: u32) -> [u8; 24] {
    const DATA_END: usize = 4;
    const INGRESS_IFINDEX: usize = 12;
    let mut context = [0; 24];
    context[DATA_END..DATA_END + 4].copy_from_slice(&(len as u32).to_ne_bytes());
    context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

/// The action, and the frame as it is afterwards.
fn run<P>(program: &P, frame: &[u8], context: &[u8]) -> (i32, Vec<u8>)
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let mut out = vec![0; frame.len() + ROOM];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(context),
        ..Default::default()
    };
    let result = program.test_run(options).unwrap_or_else(|error| panic!("{error} for {frame:02x?}"));
    out.truncate(result.data_size_out as usize);
    (result.return_value as i32, out)
}

/// Empties a table that the kernel writes.
pub fn clear<const KEY: usize, const VALUE: usize>(pin: PathBuf) {
    let mut map = table::<KEY, VALUE>(pin);
    let keys: Vec<[u8; KEY]> = map.keys().collect::<Result<_, _>>().unwrap();
    for key in keys {
        map.remove(&key).unwrap();
    }
}

/// Moves the last word of every value, the second when it was last seen, into the past.
fn age<const KEY: usize, const VALUE: usize>(pin: PathBuf, seconds: u32) {
    let mut map = table::<KEY, VALUE>(pin);
    let flows: Vec<([u8; KEY], [u8; VALUE])> = map.iter().collect::<Result<_, _>>().unwrap();
    for (key, mut flow) in flows {
        let seen = flow.last_chunk_mut().unwrap();
        *seen = u32::from_ne_bytes(*seen).saturating_sub(seconds).to_ne_bytes();
        map.insert(key, flow, 0).unwrap();
    }
}

pub fn table<const KEY: usize, const VALUE: usize>(pin: PathBuf) -> HashMap<MapData, [u8; KEY], [u8; VALUE]> {
    Map::LruHashMap(MapData::from_pin(pin).unwrap()).try_into().unwrap()
}
