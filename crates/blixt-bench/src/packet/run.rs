//! Runs of a program, one at a time or many behind the driver.

use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, HashMap, Map, MapData, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use blixt_packet::abi::{Flow, FlowKey, V4};

use super::frame::{FRAME, FRONTEND, Family, Place, Shape};
use crate::processor::thread_time;

/// `TC_ACT_REDIRECT`: the packet went on.
pub const REDIRECT: u32 = 7;
/// `TC_ACT_UNSPEC` and `TC_ACT_OK`: it is not ours.
const NOT_OURS_TC: [u32; 2] = [u32::MAX, 0];
/// `XDP_TX`: the packet went on.
const TX: u32 = 3;
/// `XDP_PASS`: it is not ours.
const PASS: u32 = 2;
/// Packets that are sent at once.
const BATCH: u32 = 64;
/// Packets that are looked at before anything is measured.
const CHECKED: u32 = 4096;
/// The driver's flags: of IPv6, and of flows to many listeners.
const IPV6: u32 = 1;
const SPREAD: u32 = 2;
/// Of the floor's only ring.
const RING: u32 = 256;

/// Where a program runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hook {
    Tc,
    Xdp,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It goes on, with other addresses.
    SentOn,
    /// It stays as it is.
    NotOurs,
}

/// Packets that the driver makes: of so many flows, a power of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    pub shape: Shape,
    pub flows: u32,
    pub to: Place,
    /// Over many listeners, of which `to` is the first.
    pub spread: bool,
    pub frame: [u8; FRAME],
}

impl Hook {
    /// Its name, and how it ends a program's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }
}

/// Runs a program once: its verdict, and the packet after it.
pub fn run(ebpf: &mut Ebpf, name: &str, hook: Hook, frame: &[u8; FRAME]) -> Result<(u32, [u8; FRAME])> {
    let mut out = [0; FRAME];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    Ok((test_run(ebpf, name, hook, options)?, out))
}

fn test_run(ebpf: &mut Ebpf, name: &str, hook: Hook, options: TestRunOptions<'_>) -> Result<u32> {
    let program = ebpf.program_mut(name).with_context(|| format!("{name}: no such program"))?;
    let result = match hook {
        Hook::Tc => <&mut SchedClassifier>::try_from(program)?.test_run(options)?,
        Hook::Xdp => <&mut Xdp>::try_from(program)?.test_run(options)?,
    };
    Ok(result.return_value)
}

/// The descriptor of a loaded program.
pub fn program(ebpf: &mut Ebpf, name: &str, hook: Hook) -> Result<ProgramFd> {
    let program = ebpf.program_mut(name).with_context(|| format!("{name}: no such program"))?;
    Ok(match hook {
        Hook::Tc => <&mut SchedClassifier>::try_from(program)?.fd()?.try_clone()?,
        Hook::Xdp => <&mut Xdp>::try_from(program)?.fd()?.try_clone()?,
    })
}

/// The floor's object: the drivers, what is driven, and tables of the floor's own.
pub struct Floor {
    ebpf: Ebpf,
    targets: [ProgramArray<MapData>; 2],
    packet: Array<MapData, [u64; 10]>,
    walk: Array<MapData, [u32; 2]>,
    flows: HashMap<MapData, [u32; 4], [u32; 8]>,
}

impl Floor {
    /// Loads it, with room for so many entries of flows.
    pub fn load(object: &Path, entries: u32) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .map_max_entries("FLOOR_FLOWS", entries)
            .load_file(object)
            .with_context(|| format!("{}: cannot be loaded", object.display()))?;
        let names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let program = ebpf.program_mut(&name).with_context(|| format!("{name}: no such program"))?;
            let loaded = match <&mut SchedClassifier>::try_from(&mut *program) {
                Ok(program) => program.load(),
                Err(_) => <&mut Xdp>::try_from(program)?.load(),
            };
            loaded.with_context(|| format!("{name}: the verifier refused it"))?;
        }
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("{name}: no such map"));
        let Map::LruHashMap(flows) = take("FLOOR_FLOWS")? else { bail!("FLOOR_FLOWS: not an LRU hash") };
        let flows = Map::LruHashMap(flows).try_into()?;
        let targets = [take("TARGET_TC")?.try_into()?, take("TARGET_XDP")?.try_into()?];
        let (packet, walk) = (take("PACKET")?.try_into()?, take("WALK")?.try_into()?);
        let mut frontends: HashMap<MapData, [u32; 2], u32> = take("FLOOR_FRONTENDS")?.try_into()?;
        let mut ring: Array<MapData, [u32; 2]> = take("FLOOR_RING")?.try_into()?;
        let number = |bytes: [u8; 4]| u32::from_ne_bytes(bytes);
        let [high, low] = FRONTEND.address;
        let port = u32::from(FRONTEND.port.to_be());
        frontends.insert([number([10, 0, high, low]), port | 6 << 16], RING, 0)?;
        for slot in 0..RING {
            ring.set(slot, [number([10, 0, 1, 2]), u32::from((8080 + slot as u16).to_be())], 0)?;
        }
        Ok(Self { ebpf, targets, packet, walk, flows })
    }

    /// Its own programs.
    pub fn program(&mut self, name: &str, hook: Hook) -> Result<ProgramFd> {
        program(&mut self.ebpf, &format!("floor_{name}_{}", hook.suffix()), hook)
    }

    /// Fills its table with flows that the product's has.
    pub fn fill(&mut self, flows: &[(FlowKey<V4>, Flow<V4>)]) -> Result<()> {
        for (key, flow) in flows {
            self.flows.insert(key_words(key), flow_words(flow), 0)?;
        }
        Ok(())
    }

    /// That a program does with the packets of a walk what it should.
    pub fn check(
        &mut self,
        program: &ProgramFd,
        name: &str,
        hook: Hook,
        walk: &Walk,
        end: End,
    ) -> Result<()> {
        self.point(program, hook, walk)?;
        for _ in 0..CHECKED.min(walk.flows) {
            let (verdict, out) = run(&mut self.ebpf, driver(hook), hook, &walk.frame)?;
            let (source, _, _) = walk.shape.places();
            let is_changed = out[source..source + walk.shape.width()] == walk.shape.address(0, [1, 1]);
            let is_right = match (end, hook) {
                (End::SentOn, Hook::Tc) => verdict == REDIRECT && is_changed,
                (End::SentOn, Hook::Xdp) => verdict == TX && is_changed,
                (End::NotOurs, Hook::Tc) => NOT_OURS_TC.contains(&verdict) && !is_changed,
                (End::NotOurs, Hook::Xdp) => verdict == PASS && !is_changed,
            };
            if !is_right {
                bail!("{name} ({hook:?}, {:?}): wanted {end:?}, got {verdict} and {out:x?}", walk.shape);
            }
        }
        Ok(())
    }

    /// Nanoseconds of this thread for a packet, the driver included.
    pub fn measure(&mut self, program: &ProgramFd, hook: Hook, walk: &Walk, runs: u32) -> Result<f64> {
        self.point(program, hook, walk)?;
        let options = TestRunOptions { data_in: Some(&walk.frame), repeat: runs, ..TestRunOptions::new() };
        let before = thread_time()?;
        test_run(&mut self.ebpf, driver(hook), hook, options)?;
        let took = thread_time()? - before;
        Ok(took.as_secs_f64() * 1e9 / f64::from(runs))
    }

    /// Sends packets of a walk by a device of this namespace.
    pub fn send(&mut self, device: u32, walk: &Walk, packets: u32) -> Result<()> {
        let program = self.program("send", Hook::Xdp)?;
        self.point(&program, Hook::Xdp, walk)?;
        // `struct xdp_md`: where the packet ends, and the device that it came by.
        let context = [0, FRAME as u32, 0, device, 0, 0].map(u32::to_ne_bytes).concat();
        let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        let options = TestRunOptions {
            data_in: Some(&walk.frame),
            ctx_in: Some(&context),
            repeat: packets,
            attrs,
            ..TestRunOptions::new()
        };
        test_run(&mut self.ebpf, driver(Hook::Xdp), Hook::Xdp, options)?;
        Ok(())
    }

    fn point(&mut self, program: &ProgramFd, hook: Hook, walk: &Walk) -> Result<()> {
        let [tc, xdp] = &mut self.targets;
        let target = if hook == Hook::Tc { tc } else { xdp };
        target.set(0, program, 0)?;
        let family = if walk.shape.family == Family::V6 { IPV6 } else { 0 };
        let flags = family | if walk.spread { SPREAD } else { 0 };
        self.walk.set(0, [walk.flows - 1, flags], 0)?;
        self.packet.set(0, words(&walk.frame), 0)?;
        Ok(())
    }
}

const fn driver(hook: Hook) -> &'static str {
    match hook {
        Hook::Tc => "floor_driver_tc",
        Hook::Xdp => "floor_driver_xdp",
    }
}

/// As they lie in memory.
fn words(frame: &[u8; FRAME]) -> [u64; 10] {
    let mut words = [0; 10];
    for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(8)) {
        for (at, byte) in bytes.iter().enumerate() {
            *word |= u64::from(*byte) << (8 * at);
        }
    }
    words.map(u64::to_le)
}

fn key_words(key: &FlowKey<V4>) -> [u32; 4] {
    [key.source.0[0], key.destination.0[0], halves(key.ports), key.protocol]
}

/// The value, word for word.
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
