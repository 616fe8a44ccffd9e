//! Which devices are hooked, and which are to be.

use std::collections::{BTreeMap, BTreeSet};

use blixt_core::host::Mac;
use blixt_core::tables::{BackendEntry, Way};
use blixt_loader::host::{Link, hooked};
use blixt_loader::{Attachment, Dataplane, Hook};
use globset::GlobSet;

/// The devices that carry the program.
#[derive(Debug, Default)]
pub struct Devices {
    attached: BTreeMap<u32, (Target, Attachment)>,
    failed: BTreeMap<u32, Failure>,
    /// What a process before this one attached, until it is replaced or removed.
    inherited: BTreeSet<u32>,
}

/// A device that could not be hooked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Its name.
    pub device: String,
    /// Why not.
    pub error: String,
}

/// What is to be hooked, and how. Name and MAC address tell a device from a later one of the same index.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Target {
    name: String,
    mac: Mac,
    hook: Hook,
    egress: bool,
    /// It is the end of our own wire.
    is_wire: bool,
}

impl Devices {
    /// Begins with what a process before this one attached.
    pub fn inheriting(attachments: &[Attachment]) -> Self {
        Self {
            inherited: attachments.iter().map(|attachment| attachment.ifindex).collect(),
            ..Self::default()
        }
    }

    /// Every hooked device by name, but for our own wire's.
    pub fn attached(&self) -> impl Iterator<Item = (&str, &Attachment)> {
        let others = self.attached.values().filter(|(target, _)| !target.is_wire);
        others.map(|(target, attachment)| (target.name.as_str(), attachment))
    }

    /// The device carries the program.
    pub fn carries(&self, ifindex: u32) -> bool {
        self.attached.contains_key(&ifindex)
    }

    /// Every device that could not be hooked.
    pub fn failures(&self) -> impl Iterator<Item = (u32, &Failure)> {
        self.failed.iter().map(|(ifindex, failure)| (*ifindex, failure))
    }

    /// What a process before this one attached is replaced or removed.
    pub fn are_replaced(&self) -> bool {
        self.inherited.is_empty()
    }

    /// Why no device is hooked, if none is.
    pub fn why_none(&self, links: &BTreeMap<u32, Link>, names: &GlobSet) -> Option<String> {
        if self.attached().next().is_some() {
            return None;
        }
        if let Some(failure) = self.failed.values().next() {
            return Some(format!("no interface carries blixt: {}: {}", failure.device, failure.error));
        }
        let is_other = |link: &&Link| link.wire_end().is_none() && !names.is_match(&link.name);
        let others = links.values().filter(|link| link.ethernet).filter(is_other);
        let others: Vec<&str> = others.map(|link| link.name.as_str()).collect();
        Some(match others[..] {
            [] => "no interface carries blixt: there is none with Ethernet frames; add one".into(),
            _ => format!("no interface carries blixt: `--interface` matches none of {}", others.join(", ")),
        })
    }

    /// Hooks the devices that match and no others. The tables must be filled by then. Devices that failed before are
    /// tried again only if `retry` is set.
    pub fn follow(
        &mut self,
        dataplane: &mut Dataplane,
        links: &BTreeMap<u32, Link>,
        names: &GlobSet,
        hook: Hook,
        egress: bool,
        retry: bool,
    ) {
        let wanted = targets(links, names, hook, egress);
        for (ifindex, target) in &wanted {
            let up_to_date = self.attached.get(ifindex).is_some_and(|(known, _)| known == target);
            let given_up = self.failed.get(ifindex).is_some_and(|failure| failure.device == target.name);
            if !up_to_date && (retry || !given_up) {
                self.attach(dataplane, *ifindex, target.clone());
            }
        }
        self.failed.retain(|ifindex, _| wanted.contains_key(ifindex));
        let unwanted: Vec<u32> = self
            .attached
            .keys()
            .chain(&self.inherited)
            .filter(|index| !wanted.contains_key(index))
            .copied()
            .collect();
        for ifindex in unwanted {
            self.detach(dataplane, ifindex);
        }
    }

    fn attach(&mut self, dataplane: &mut Dataplane, ifindex: u32, target: Target) {
        let Target { name, hook, egress, .. } = &target;
        match dataplane.attach(ifindex, *hook, *egress) {
            Ok(attachment) => {
                let mode = attachment.ingress.map_or("none", |mode| mode.label());
                tracing::info!(device = name, hook = mode, egress, "hooked");
                self.failed.remove(&ifindex);
                self.inherited.remove(&ifindex);
                self.attached.insert(ifindex, (target, attachment));
            }
            Err(error) => {
                let failure = Failure { device: target.name, error: error.to_string() };
                if self.failed.get(&ifindex) != Some(&failure) {
                    tracing::warn!(device = failure.device, %error, "cannot hook a device, trying again");
                }
                self.failed.insert(ifindex, failure);
            }
        }
    }

    fn detach(&mut self, dataplane: &mut Dataplane, ifindex: u32) {
        let name = self.attached.remove(&ifindex).map(|(target, _)| target.name);
        self.inherited.remove(&ifindex);
        match dataplane.detach(ifindex) {
            Ok(()) => tracing::info!(device = name, ifindex, "unhooked"),
            Err(error) => tracing::warn!(device = name, ifindex, %error, "cannot unhook a device"),
        }
    }
}

/// The devices to be hooked, by index.
fn targets(links: &BTreeMap<u32, Link>, names: &GlobSet, hook: Hook, egress: bool) -> BTreeMap<u32, Target> {
    let target = |ifindex: u32| {
        let link = links.get(&ifindex)?;
        let Link { name, mac, hides_tags, .. } = link;
        let is_wire = link.wire_end().is_some();
        // XDP would answer without a tag that it does not see, and knows no unfinished sum, as this machine's packets have.
        let hook = if *hides_tags || is_wire { Hook::Tc } else { hook };
        // Nobody's reply leaves by the wire but what the program sends.
        let egress = egress && !is_wire;
        Some((ifindex, Target { name: name.clone(), mac: *mac, hook, egress, is_wire }))
    };
    hooked(links, names).into_iter().filter_map(target).collect()
}

/// Replies of a backend on this machine are translated as they leave. One that is gone may go on sending for long: nothing of
/// that leaves with its own address.
pub fn needs_egress<'a>(mut backends: impl Iterator<Item = &'a BackendEntry>) -> bool {
    backends.any(|entry| entry.way == Way::Local)
}

#[cfg(test)]
mod tests {
    use globset::Glob;

    use super::*;

    #[test]
    fn a_device_whose_vlan_tags_xdp_does_not_see_is_hooked_by_tc() {
        let link = |ifindex, name: &str, hides_tags| {
            (ifindex, Link { ifindex, name: name.into(), ethernet: true, hides_tags, ..Link::default() })
        };
        let links = BTreeMap::from([link(1, "eth0", false), link(2, "eth1", true)]);
        let all = GlobSet::builder().add(Glob::new("*").unwrap()).build().unwrap();
        for (wish, with_vlans) in [(Hook::Xdp, Hook::Tc), (Hook::Auto, Hook::Tc), (Hook::Tc, Hook::Tc)] {
            let hooks: Vec<Hook> =
                targets(&links, &all, wish, false).into_values().map(|target| target.hook).collect();
            assert_eq!(hooks, [wish, with_vlans]);
        }
    }
}
