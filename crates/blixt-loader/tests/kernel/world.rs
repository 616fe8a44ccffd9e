//! A machine with two devices that are wired to each other, and whatever Blixt leaves on it: gone with it, also after a
//! panic.

use std::path::PathBuf;
use std::process::Command;

use aya::programs::{SchedClassifier, TcAttachType};
use blixt_core::tables::Limits;
use blixt_lab::Machine;
use blixt_loader::{Capacity, Dataplane, Instance, Options, cleanup};
use blixt_packet::abi::ABI_VERSION;

/// The devices.
pub const WIRE: (&str, &str) = ("left", "right");

pub struct World {
    machine: Machine,
    /// What Blixt left stays.
    is_left_alone: bool,
}

impl World {
    /// Runs a test in a world of its own.
    pub fn run(test: impl FnOnce(&World) + Send) {
        let world = Self::new();
        world.machine.run(|| test(&world));
    }

    pub fn new() -> Self {
        let machine = Machine::new("balancer").unwrap();
        let world = Self { machine, is_left_alone: false };
        world.ip(&format!("link add {} type veth peer name {}", WIRE.0, WIRE.1));
        world.ip(&format!("link set {} up\nlink set {} up", WIRE.0, WIRE.1));
        world
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub fn ip(&self, lines: &str) {
        self.machine.ip(lines).unwrap();
    }

    /// The index of a device.
    pub fn index(&self, device: &str) -> u32 {
        self.machine.run(|| nix::net::if_::if_nametoindex(device)).unwrap()
    }

    /// Where the maps and links of this map layout are pinned.
    pub fn pins(&self) -> PathBuf {
        self.instance_directory().join(format!("v{ABI_VERSION}"))
    }

    pub fn instance_directory(&self) -> PathBuf {
        self.machine.run(|| Instance::current().unwrap().directory().unwrap())
    }

    /// Ends the machine as if every process on it had been killed.
    pub fn kill(mut self) {
        self.is_left_alone = true;
    }

    pub fn lock_path(&self) -> PathBuf {
        let name = self.machine.run(|| Instance::current().unwrap().name().to_owned());
        Instance::run_directory().join(format!("{name}.lock"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.is_left_alone {
            return;
        }
        // In the panic of a failed test the dataplane is dropped first: it lives inside of `run`.
        let cleaned = self.machine.run(cleanup);
        if !std::thread::panicking() {
            cleaned.unwrap();
        }
    }
}

/// How many programs are at a TC hook of this machine, by TCX and by filters of an older kernel's.
pub fn programs(device: &str, direction: TcAttachType) -> usize {
    let tcx = SchedClassifier::query_tcx(device, direction).map_or(0, |(_, programs)| programs.len());
    let side = if direction == TcAttachType::Ingress { "ingress" } else { "egress" };
    let filters = Command::new("tc").args(["filter", "show", "dev", device, side]).output().unwrap();
    tcx + String::from_utf8_lossy(&filters.stdout).matches("direct-action").count()
}

/// The kernel has TCX: Linux 6.6 and newer.
pub fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

/// Small maps: a test makes them in no time.
pub fn options() -> Options {
    let limits = Limits { frontends: 64, backends: 255, rings: 64, routes: 64, hops: 64, addresses: 64 };
    Options { capacity: Capacity { flows: 1024, limits }, ..Options::default() }
}

pub fn open() -> Dataplane {
    Dataplane::open(&options()).unwrap()
}
