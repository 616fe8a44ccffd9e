//! The two families as type parameters, and as what user space calls them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use blixt_packet::abi::{EndpointKey, Flow, FlowKey, V4, V6};
use blixt_packet::address::Address;

use super::{Flows, Memory, Simulation};
use crate::config::{Endpoint, Protocol};
use crate::tables::Family;

/// An address family on the host.
pub trait AddressFamily: Address + Ord + 'static {
    /// Its name.
    const FAMILY: Family;

    /// `None`: an address of the other family.
    fn from_ip(address: IpAddr) -> Option<Self>;

    /// The address for people.
    fn to_ip(self) -> IpAddr;

    #[doc(hidden)]
    fn flows<'a>(simulation: &'a Simulation<'_>) -> &'a Flows<Self>;

    #[doc(hidden)]
    fn remembered(memory: &dyn Memory, key: &FlowKey<Self>) -> Option<Flow<Self>>;
}

impl AddressFamily for V4 {
    const FAMILY: Family = Family::V4;

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(Self([u32::from_ne_bytes(address.octets())])),
            IpAddr::V6(_) => None,
        }
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.0[0].to_ne_bytes()))
    }

    fn flows<'a>(simulation: &'a Simulation<'_>) -> &'a Flows<Self> {
        &simulation.v4
    }

    fn remembered(memory: &dyn Memory, key: &FlowKey<Self>) -> Option<Flow<Self>> {
        memory.flow_v4(key)
    }
}

impl AddressFamily for V6 {
    const FAMILY: Family = Family::V6;

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h] = address.segments().map(u16::to_be_bytes);
                let word =
                    |high: [u8; 2], low: [u8; 2]| u32::from_ne_bytes([high[0], high[1], low[0], low[1]]);
                Some(Self([word(a, b), word(c, d), word(e, f), word(g, h)]))
            }
        }
    }

    fn to_ip(self) -> IpAddr {
        let value = self
            .0
            .iter()
            .fold(0_u128, |value, word| value << 32 | u128::from(u32::from_be_bytes(word.to_ne_bytes())));
        IpAddr::V6(Ipv6Addr::from_bits(value))
    }

    fn flows<'a>(simulation: &'a Simulation<'_>) -> &'a Flows<Self> {
        &simulation.v6
    }

    fn remembered(memory: &dyn Memory, key: &FlowKey<Self>) -> Option<Flow<Self>> {
        memory.flow_v6(key)
    }
}

/// `None`: a protocol that Blixt does not balance.
pub(super) fn endpoint<A: AddressFamily>(key: &EndpointKey<A>) -> Option<Endpoint> {
    let protocol = Protocol::from_number(u8::try_from(key.protocol).ok()?)?;
    Some(Endpoint { address: key.address.to_ip(), port: u16::from_be(key.port), protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_went() {
        let v4 = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(V4::from_ip(v4).map(V4::to_ip), Some(v4));
        let v6 = IpAddr::from([0x2001, 0xdb8, 1, 2, 3, 4, 5, 6]);
        assert_eq!(V6::from_ip(v6).map(V6::to_ip), Some(v6));
        assert_eq!(V6::from_ip(v6).map(|address| address.0[0].to_ne_bytes()), Some([0x20, 1, 0xd, 0xb8]));
        assert_eq!((V4::from_ip(v6), V6::from_ip(v4)), (None, None));
    }
}
