//! The address families as types, and the maps that exist once for each.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use blixt_core::tables::Family;
use blixt_packet::abi::{Backend, EndpointKey, Flow, FlowCounters, FlowKey, Frontend, OwnedAddress, V4, V6};
use blixt_packet::address::Address;

use crate::Error;
use crate::cpu_table::CpuTable;
use crate::object::Fds;
use crate::plain::Plain;
use crate::table::Table;

/// An address as the maps hold it: [`V4`] or [`V6`], nothing else.
pub trait MapAddress: Plain + Address + Ord + Hash + Debug + sealed::Sealed {
    /// Which family it is of.
    const FAMILY: Family;

    /// The address, if it is of this family.
    fn from_ip(address: IpAddr) -> Option<Self>;

    /// The address.
    fn to_ip(self) -> IpAddr;
}

/// A flow table.
pub(crate) type Flows<A> = Table<FlowKey<A>, Flow<A>>;

/// The maps of one family.
#[derive(Debug)]
pub struct FamilyMaps<A: MapAddress> {
    pub(crate) flows: Flows<A>,
    pub(crate) flow_counters: CpuTable<FlowCounters>,
    pub(crate) frontends: Table<EndpointKey<A>, Frontend>,
    pub(crate) endpoints: Table<EndpointKey<A>, u32>,
    pub(crate) backends: Table<u32, Backend<A>>,
    pub(crate) addresses: Table<A, OwnedAddress>,
    pub(crate) known: Table<u32, u64>,
    pub(crate) backend_counters: CpuTable<u64>,
}

impl<A: MapAddress> FamilyMaps<A> {
    /// The name of the family's flow table.
    pub(crate) const FLOWS: &str = Self::name("FLOWS_V4", "FLOWS_V6");

    const fn name(v4: &'static str, v6: &'static str) -> &'static str {
        match A::FAMILY {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    pub(crate) fn new(fds: &Fds, cpus: usize) -> Result<Self, Error> {
        let name = Self::name;
        Ok(Self {
            flows: fds.table(Self::FLOWS)?,
            flow_counters: fds.cpu_table(name("FLOW_COUNTERS_V4", "FLOW_COUNTERS_V6"), cpus)?,
            frontends: fds.table(name("FRONTENDS_V4", "FRONTENDS_V6"))?,
            endpoints: fds.table(name("ENDPOINTS_V4", "ENDPOINTS_V6"))?,
            backends: fds.table(name("BACKENDS_V4", "BACKENDS_V6"))?,
            addresses: fds.table(name("ADDRESSES_V4", "ADDRESSES_V6"))?,
            known: fds.table(name("KNOWN_V4", "KNOWN_V6"))?,
            backend_counters: fds.cpu_table(name("BACKEND_COUNTERS_V4", "BACKEND_COUNTERS_V6"), cpus)?,
        })
    }
}

impl MapAddress for V4 {
    const FAMILY: Family = Family::V4;

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(Self([u32::from_ne_bytes(address.octets())])),
            IpAddr::V6(_) => None,
        }
    }

    fn to_ip(self) -> IpAddr {
        Ipv4Addr::from(self.0[0].to_ne_bytes()).into()
    }
}

impl MapAddress for V6 {
    const FAMILY: Family = Family::V6;

    fn from_ip(address: IpAddr) -> Option<Self> {
        let IpAddr::V6(address) = address else { return None };
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(address.octets().chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Some(Self(words))
    }

    fn to_ip(self) -> IpAddr {
        let mut octets = [0; 16];
        for (bytes, word) in octets.chunks_exact_mut(4).zip(self.0) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Ipv6Addr::from(octets).into()
    }
}

pub(crate) mod sealed {
    use super::{FamilyMaps, V4, V6};
    use crate::maps::Maps;

    /// Nobody else's types may claim to be plain words.
    pub trait Sealed {
        /// The maps of the family.
        fn maps(maps: &Maps) -> &FamilyMaps<Self>
        where
            Self: super::MapAddress;
    }

    impl Sealed for V4 {
        fn maps(maps: &Maps) -> &FamilyMaps<Self> {
            &maps.v4
        }
    }

    impl Sealed for V6 {
        fn maps(maps: &Maps) -> &FamilyMaps<Self> {
            &maps.v6
        }
    }
}
