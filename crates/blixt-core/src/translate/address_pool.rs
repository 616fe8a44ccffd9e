//! The address pools of a BlixtClass, and which Gateways may have addresses of theirs.

use std::net::IpAddr;

use smol_str::SmolStr;

use super::address;
use super::address_range::AddressRange;
use super::namespaces;
use crate::api::{self, Gateway, Selector};

/// Addresses to give away.
pub struct AddressPool {
    /// Its name, for messages.
    pub name: String,
    /// Its addresses.
    pub ranges: Vec<AddressRange>,
    /// Whether Gateways get addresses of it that do not name one.
    pub auto_assign: bool,
    namespaces: Vec<SmolStr>,
    selector: Option<Selector>,
}

impl AddressPool {
    /// A pool as a BlixtClass writes it, or the field that is wrong, and what is wrong with it.
    pub fn parse(pool: &api::AddressPool) -> Result<Self, (String, String)> {
        let api::AddressPool { name, addresses, auto_assign, namespaces, gateway_selector } = pool;
        let ranges = addresses.iter().enumerate().map(|(index, text)| {
            let range = AddressRange::parse(text).and_then(usable);
            range.map_err(|fault| (format!("addresses[{index}]"), fault))
        });
        let ranges = ranges.collect::<Result<_, _>>()?;
        if let Some(fault) = gateway_selector.as_ref().and_then(namespaces::selector_fault) {
            return Err(("gatewaySelector".into(), fault));
        }
        Ok(Self {
            name: name.clone(),
            ranges,
            auto_assign: *auto_assign,
            namespaces: namespaces.iter().map(SmolStr::new).collect(),
            selector: gateway_selector.clone(),
        })
    }

    /// Whether a Gateway may have addresses of it.
    pub fn admits(&self, gateway: &Gateway) -> bool {
        let metadata = &gateway.metadata;
        (self.namespaces.is_empty() || self.namespaces.contains(&metadata.namespace))
            && self
                .selector
                .as_ref()
                .is_none_or(|selector| namespaces::selects(selector, |key| metadata.labels.get(key)))
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
}

/// A range of which every address can be given away.
fn usable(range: AddressRange) -> Result<AddressRange, String> {
    match address::unusable_between(range.first(), range.last()) {
        None => Ok(range),
        Some((address, fault)) => Err(format!("{address} {fault}: give addresses that clients can reach")),
    }
}
