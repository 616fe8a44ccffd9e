//! Which devices are hooked, and which are to be.

use std::collections::{BTreeMap, BTreeSet};

use blixt_core::host::Mac;
use blixt_core::tables::{BackendEntry, BackendState, Way};
use blixt_loader::host::{Link, hooked};
use blixt_loader::{Attachment, Dataplane, Hook};
use globset::GlobSet;

/// The devices that carry the program.
#[derive(Debug, Default)]
pub struct Devices {
    attached: BTreeMap<u32, (Identity, Attachment)>,
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

/// Tells a device from a later one of the same index.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Identity {
    name: String,
    mac: Mac,
}

impl Devices {
    /// Begins with what a process before this one attached.
    pub fn inheriting(attachments: &[Attachment]) -> Self {
        Self {
            inherited: attachments.iter().map(|attachment| attachment.ifindex).collect(),
            ..Self::default()
        }
    }

    /// Every hooked device by name.
    pub fn attached(&self) -> impl Iterator<Item = (&str, &Attachment)> {
        self.attached.values().map(|(identity, attachment)| (identity.name.as_str(), attachment))
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
        if !self.attached.is_empty() {
            return None;
        }
        if let Some(failure) = self.failed.values().next() {
            return Some(format!("no interface carries blixt: {}: {}", failure.device, failure.error));
        }
        let others = links.values().filter(|link| link.ethernet && !names.is_match(&link.name));
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
        let wanted: BTreeSet<u32> = hooked(links, names).into_iter().collect();
        for link in links.values().filter(|link| wanted.contains(&link.ifindex)) {
            let identity = Identity { name: link.name.clone(), mac: link.mac };
            let up_to_date = self
                .attached
                .get(&link.ifindex)
                .is_some_and(|(known, attachment)| *known == identity && attachment.egress == egress);
            let given_up = self.failed.get(&link.ifindex).is_some_and(|failure| failure.device == link.name);
            if !up_to_date && (retry || !given_up) {
                self.attach(dataplane, link.ifindex, identity, hook, egress);
            }
        }
        self.failed.retain(|ifindex, _| wanted.contains(ifindex));
        let unwanted: Vec<u32> = self
            .attached
            .keys()
            .chain(&self.inherited)
            .filter(|index| !wanted.contains(index))
            .copied()
            .collect();
        for ifindex in unwanted {
            self.detach(dataplane, ifindex);
        }
    }

    fn attach(
        &mut self,
        dataplane: &mut Dataplane,
        ifindex: u32,
        identity: Identity,
        hook: Hook,
        egress: bool,
    ) {
        match dataplane.attach(ifindex, hook, egress) {
            Ok(attachment) => {
                let mode = attachment.ingress.map_or("none", |mode| mode.label());
                tracing::info!(device = identity.name, hook = mode, egress, "hooked");
                self.failed.remove(&ifindex);
                self.inherited.remove(&ifindex);
                self.attached.insert(ifindex, (identity, attachment));
            }
            Err(error) => {
                let failure = Failure { device: identity.name, error: error.to_string() };
                if self.failed.get(&ifindex) != Some(&failure) {
                    tracing::warn!(device = failure.device, %error, "cannot hook a device, trying again");
                }
                self.failed.insert(ifindex, failure);
            }
        }
    }

    fn detach(&mut self, dataplane: &mut Dataplane, ifindex: u32) {
        let name = self.attached.remove(&ifindex).map(|(identity, _)| identity.name);
        self.inherited.remove(&ifindex);
        match dataplane.detach(ifindex) {
            Ok(()) => tracing::info!(device = name, ifindex, "unhooked"),
            Err(error) => tracing::warn!(device = name, ifindex, %error, "cannot unhook a device"),
        }
    }
}

/// Replies of a backend on this machine are translated as they leave.
pub fn needs_egress<'a>(mut backends: impl Iterator<Item = &'a BackendEntry>) -> bool {
    backends.any(|entry| entry.way == Way::Local && entry.state != BackendState::Gone)
}
