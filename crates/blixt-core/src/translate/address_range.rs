//! Ranges of addresses, as a BlixtClass writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::tables::Family;

/// Addresses of one family, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

impl AddressRange {
    /// A prefix, a range `FIRST-LAST` or one address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some((address, length)) = text.split_once('/') {
            return Self::prefix(text, parse_address(address)?, length);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (parse_address(first.trim())?, parse_address(last.trim())?);
        if Family::from(first) != Family::from(last) || first > last {
            return Err(format!(
                "{text} does not run upwards within one family: write the lower address first"
            ));
        }
        Ok(Self { family: first.into(), first: number(first), last: number(last) })
    }

    /// A prefix without the addresses that are no host's: IPv4's network and broadcast address, IPv6's
    /// subnet-router anycast address. Prefixes of two addresses or one have none.
    fn prefix(text: &str, address: IpAddr, length: &str) -> Result<Self, String> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length: u32 = length
            .parse()
            .ok()
            .filter(|length| *length <= bits)
            .ok_or_else(|| format!("{text} is no prefix: write a length from 0 to {bits}"))?;
        let hosts = 1_u128.checked_shl(bits - length).map_or(u128::MAX, |size| size - 1);
        let base = number(address);
        if base & hosts != 0 {
            return Err(format!("{text} has bits beyond its length: clear them, or write a range"));
        }
        let (first, last) = match hosts {
            0 | 1 => (base, base + hosts),
            _ if bits == 32 => (base + 1, base + hosts - 1),
            _ => (base + 1, base + hosts),
        };
        Ok(Self { family: address.into(), first, last })
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        self.family
    }

    /// How many addresses it has; at least 1.
    pub fn len(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Its lowest address.
    pub fn first(&self) -> IpAddr {
        self.address(0)
    }

    /// Its highest address.
    pub fn last(&self) -> IpAddr {
        self.address(self.last - self.first)
    }

    /// The address at an index below [`len`](Self::len).
    pub fn address(&self, index: u128) -> IpAddr {
        let number = self.first + index;
        match self.family {
            Family::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            Family::V6 => Ipv6Addr::from(number).into(),
        }
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::from(address) == self.family && (self.first..=self.last).contains(&number(address))
    }
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text} is no IP address"))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &str) -> Result<(String, String), String> {
        AddressRange::parse(text)
            .map(|range| (range.address(0).to_string(), range.address(range.len() - 1).to_string()))
    }

    #[test]
    fn a_range_holds_the_addresses_that_hosts_can_have() {
        let cases = [
            ("10.0.0.0/24", "10.0.0.1", "10.0.0.254"),
            ("10.0.0.4/31", "10.0.0.4", "10.0.0.5"),
            ("10.0.0.4", "10.0.0.4", "10.0.0.4"),
            ("10.0.0.250 - 10.0.1.3", "10.0.0.250", "10.0.1.3"),
            ("2001:db8::/64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
            ("::/0", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("0.0.0.0/0", "0.0.0.1", "255.255.255.254"),
        ];
        for (text, first, last) in cases {
            assert_eq!(ends(text), Ok((first.to_owned(), last.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_range_that_makes_no_sense_is_refused() {
        for text in [
            "10.0.0.1/24",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-2001:db8::1",
            "10.0.0.0/33",
            "lan",
            "10.0.0.0/x",
            "",
        ] {
            assert!(ends(text).is_err(), "{text}");
        }
    }
}
