//! The objects of the cluster as they were seen last, and what was last written of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use blixt_core::api::{Kind, Object, ObjectKey};
use blixt_core::snapshot::Snapshot;
use blixt_core::translate::Touched;
use serde_json::Value;

use super::ledger::ObservedObjects;
use super::watch::{Seen, SeenObject, Source};

/// The objects.
#[derive(Debug)]
pub struct Objects {
    /// What is translated.
    pub snapshot: Arc<Snapshot>,
    /// What changed since that was last asked for.
    touched: Touched,
    observed: Arc<ObservedObjects>,
    /// Objects whose status is another than before.
    written: BTreeSet<ObjectKey>,
    /// Sources that were never complete.
    awaited: BTreeSet<Source>,
    /// What is missing so far of a list that began anew.
    missing: BTreeMap<Kind, BTreeSet<Arc<ObjectKey>>>,
}

/// What the API server knows of an object beside its spec.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observed {
    /// What a write is compared with.
    pub resource_version: String,
    /// Its status, as JSON.
    pub status: Option<Box<str>>,
}

impl Objects {
    /// Nothing is known yet of these sources.
    pub fn new(sources: &[Source]) -> Self {
        Self {
            snapshot: Arc::new(Snapshot::of_cluster()),
            touched: Touched::default(),
            observed: Arc::default(),
            written: BTreeSet::new(),
            awaited: sources.iter().copied().collect(),
            missing: BTreeMap::new(),
        }
    }

    /// Every list was complete once.
    pub fn is_complete(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Takes in what was seen of an object or a list.
    pub fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Begin(Source::Kind(kind)) => {
                let broken = self.snapshot.broken.iter().cloned().map(Arc::new);
                let known =
                    self.observed.keys().cloned().chain(broken).filter(|key| key.kind == kind).collect();
                self.missing.insert(kind, known);
            }
            Seen::Object(object) => self.put(*object),
            Seen::Unusable(key, why) => self.put_unusable(key, &why),
            Seen::Gone(key) => self.remove(&key),
            Seen::Complete(source) => {
                if let Source::Kind(kind) = source {
                    for key in self.missing.remove(&kind).unwrap_or_default() {
                        self.remove(&key);
                    }
                }
                self.awaited.remove(&source);
            }
            Seen::Begin(_)
            | Seen::Node { .. }
            | Seen::NodeGone(_)
            | Seen::Agent { .. }
            | Seen::AgentGone(_) => {}
        }
    }

    /// Nodes have these addresses, of which no Gateway may get one.
    pub fn set_node_addresses(&mut self, addresses: BTreeMap<IpAddr, String>) {
        if self.snapshot.node_addresses != addresses {
            Arc::make_mut(&mut self.snapshot).node_addresses = addresses;
            self.touched = Touched::Everything;
        }
    }

    /// What changed since this was last asked.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Objects whose status was written, by whomever, since this was last asked.
    pub fn take_written(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.written)
    }

    /// Everything has to be looked at anew.
    pub fn touch_all(&mut self) {
        self.touched = Touched::Everything;
    }

    /// What is known of each object beside its spec.
    pub fn observed(&self) -> &Arc<ObservedObjects> {
        &self.observed
    }

    /// How many there are, by kind.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for key in self.observed.keys() {
            *counts.entry(key.kind.name()).or_default() += 1;
        }
        counts
    }

    /// The object.
    pub fn object(&self, key: &ObjectKey) -> Option<Object> {
        self.snapshot.get(key)
    }

    /// The addresses that Gateways hold, as their statuses say.
    pub fn assigned(&self) -> BTreeMap<ObjectKey, BTreeSet<IpAddr>> {
        let gateways = self.observed.iter().filter(|(key, _)| key.kind == Kind::Gateway);
        let assigned = gateways.filter_map(|(key, observed)| {
            let status: Value = serde_json::from_str(observed.status.as_deref()?).ok()?;
            let addresses = status.get("addresses")?.as_array()?.iter();
            let addresses: BTreeSet<IpAddr> =
                addresses.filter_map(|address| address.get("value")?.as_str()?.parse().ok()).collect();
            Some(((**key).clone(), addresses)).filter(|(_, addresses)| !addresses.is_empty())
        });
        assigned.collect()
    }

    fn put(&mut self, seen: SeenObject) {
        let SeenObject { object, resource_version, status } = seen;
        let key = self.own_key(object.key());
        self.note_seen(&key);
        let is_news = self.observed.get(&key).is_none_or(|before| before.status != status);
        if is_news {
            self.written.insert((*key).clone());
        }
        let observed = Arc::new(Observed { resource_version, status });
        Arc::make_mut(&mut self.observed).insert(Arc::clone(&key), observed);
        let before = self.object(&key);
        let is_same = before.as_ref().is_some_and(|before| is_same(before, &object));
        if is_same && !self.snapshot.broken.contains(&key) {
            return;
        }
        self.touched.add(before.as_ref(), Some(&object));
        let snapshot = Arc::make_mut(&mut self.snapshot);
        snapshot.broken.remove(&key);
        snapshot.insert_as(key, object);
    }

    /// The last good state of an object that the API server took but that cannot be understood stays.
    fn put_unusable(&mut self, key: ObjectKey, why: &str) {
        let key = self.own_key(key);
        self.note_seen(&key);
        tracing::warn!(object = %key, why, "cannot be understood; its last good state stays");
        if self.object(&key).is_none() && Arc::make_mut(&mut self.snapshot).broken.insert((*key).clone()) {
            self.touched = Touched::Everything;
        }
    }

    fn remove(&mut self, key: &ObjectKey) {
        Arc::make_mut(&mut self.observed).remove(key);
        self.written.insert(key.clone());
        let before = self.object(key);
        let was_broken = self.snapshot.broken.contains(key);
        if before.is_none() && !was_broken {
            return;
        }
        self.touched.add(before.as_ref(), None);
        if was_broken {
            self.touched = Touched::Everything;
        }
        let snapshot = Arc::make_mut(&mut self.snapshot);
        snapshot.broken.remove(key);
        snapshot.remove(key);
    }

    fn note_seen(&mut self, key: &ObjectKey) {
        if let Some(missing) = self.missing.get_mut(&key.kind) {
            missing.remove(key);
        }
    }

    fn own_key(&self, key: ObjectKey) -> Arc<ObjectKey> {
        self.observed.get_key_value(&key).map_or_else(|| Arc::new(key), |(key, _)| Arc::clone(key))
    }
}

/// Whether it makes no difference which of the two is there.
fn is_same(a: &Object, b: &Object) -> bool {
    a.metadata() == b.metadata() && a.same_spec(b)
}
