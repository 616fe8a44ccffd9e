//! How large the maps are.

use std::fs;
use std::path::Path;

use blixt_core::tables::Limits;
use blixt_packet::DropReason;
use blixt_packet::abi::{BUDGETS, DEVICE_SLOTS, FLOW_COUNTERS, KNOWN_WORDS};

/// Memory for each IPv4 flow: 1 M flows at 16 GiB.
const BYTES_PER_FLOW: u64 = 16 << 10;
/// A small machine serves this many at least, a large one needs no more.
const FLOWS: (u64, u64) = (8 << 10, 16 << 20);
/// Entries of the flow table for each flow: its requests and its replies.
const ENTRIES_PER_FLOW: u32 = 2;
/// IPv6 gets the room of one flow for each two of IPv4: its entries are half as large again, and seldom as many.
const V4_FLOWS_PER_V6: u32 = 2;
/// Of so many flows one may be a fragmented packet under way.
const FLOWS_PER_FRAGMENT: u32 = 64;

/// How many entries each map has room for. It is settled when the maps are made; as long as they are pinned they keep it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Connections over IPv4 at one time; IPv6 gets half as many.
    pub flows: u32,
    /// What user space writes.
    pub limits: Limits,
}

impl Capacity {
    /// The capacity of a machine with this much memory.
    pub fn from_memory(bytes: u64) -> Self {
        let (least, most) = FLOWS;
        let flows = (bytes / BYTES_PER_FLOW).clamp(least, most);
        Self { flows: flows as u32, limits: Limits::default() }
    }

    /// The capacity for the memory of this machine, or of this process's cgroup where that may use less: maps count
    /// towards it.
    pub fn of_machine() -> Self {
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|meminfo| total_memory(&meminfo));
        Self::from_memory(machine.unwrap_or(0).min(cgroup_memory().unwrap_or(u64::MAX)))
    }

    /// Entries of a map by its name; `None` for a map that only the kernel program knows.
    pub(crate) fn entries(&self, map: &str) -> Option<u32> {
        let limits = &self.limits;
        Some(match map {
            "FLOWS_V4" => self.flows.saturating_mul(ENTRIES_PER_FLOW),
            "FLOWS_V6" => (self.flows / V4_FLOWS_PER_V6).max(1).saturating_mul(ENTRIES_PER_FLOW),
            "FLOW_COUNTERS_V4" | "FLOW_COUNTERS_V6" => FLOW_COUNTERS,
            "FRAGMENTS_V4" | "FRAGMENTS_V6" => (self.flows / FLOWS_PER_FRAGMENT).clamp(1024, 65_536),
            "FRONTENDS_V4" | "FRONTENDS_V6" => limits.frontends,
            "ENDPOINTS_V4" | "ENDPOINTS_V6" => limits.backends,
            "ADDRESSES_V4" | "ADDRESSES_V6" => limits.addresses,
            // Ids and slots go from 1 to the limit.
            "BACKENDS_V4" | "BACKENDS_V6" | "BACKEND_COUNTERS_V4" | "BACKEND_COUNTERS_V6" => {
                limits.backends + 1
            }
            "RINGS" | "RING_HASHES" => limits.rings + 1,
            "ROUTES" | "ROUTE_COUNTERS" => limits.routes + 1,
            "HOPS" => limits.hops + 1,
            "DEVICES" => DEVICE_SLOTS,
            "KNOWN_V4" | "KNOWN_V6" => KNOWN_WORDS,
            "DROPS" => DropReason::COUNT as u32,
            "BUDGETS" => BUDGETS,
            _ => return None,
        })
    }

    /// The capacity of maps that exist, by the number of entries of each.
    pub(crate) fn of_maps(entries: impl Fn(&str) -> u32) -> Self {
        let both = |name: &str| entries(&format!("{name}_V4")).min(entries(&format!("{name}_V6")));
        Self {
            flows: entries("FLOWS_V4") / ENTRIES_PER_FLOW,
            limits: Limits {
                frontends: both("FRONTENDS"),
                backends: both("BACKENDS").min(both("BACKEND_COUNTERS")) - 1,
                rings: entries("RINGS").min(entries("RING_HASHES")) - 1,
                routes: entries("ROUTES").min(entries("ROUTE_COUNTERS")) - 1,
                hops: entries("HOPS") - 1,
                addresses: both("ADDRESSES"),
            },
        }
    }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The lowest `memory.max` of this process's cgroup and those above it; `None` without a limit or without cgroup v2.
fn cgroup_memory() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit =
        |group: &Path| fs::read_to_string(Path::new("/sys/fs/cgroup").join(group).join("memory.max")).ok();
    Path::new(path).ancestors().filter_map(limit).filter_map(|limit| limit.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_16_gib_gets_a_million_flows() {
        let capacity = Capacity::from_memory(16 << 30);
        assert_eq!(capacity.flows, 1 << 20);
        assert_eq!(capacity.entries("FLOWS_V4"), Some(2 << 20));
        assert_eq!(capacity.entries("FLOWS_V6"), Some(1 << 20));
    }

    #[test]
    fn no_machine_is_too_small_or_too_large() {
        assert_eq!(Capacity::from_memory(0).flows, 8 << 10);
        assert_eq!(Capacity::from_memory(u64::MAX).flows, 16 << 20);
    }

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(total_memory("MemTotal:       24689500 kB\nMemFree:  1 kB\n"), Some(24_689_500 << 10));
        assert_eq!(total_memory(""), None);
    }

    #[test]
    fn the_capacity_of_maps_is_what_they_were_made_for() {
        let mut capacity = Capacity::from_memory(1 << 30);
        capacity.limits.backends = 77;
        assert_eq!(Capacity::of_maps(|map| capacity.entries(map).unwrap()), capacity);
    }
}
