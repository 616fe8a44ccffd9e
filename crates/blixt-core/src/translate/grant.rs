//! ReferenceGrants: who may refer to objects of another namespace.

use std::collections::BTreeMap;

use crate::api::{Kind, ReferenceGrant};
use crate::snapshot::Snapshot;

/// The grants, by their own namespace: that of the objects that may be referred to.
pub struct Grants<'a>(BTreeMap<&'a str, Vec<&'a ReferenceGrant>>);

impl<'a> Grants<'a> {
    /// Of a Snapshot.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut grants: BTreeMap<&str, Vec<&ReferenceGrant>> = BTreeMap::new();
        for (key, grant) in &snapshot.reference_grants {
            grants.entry(&key.namespace).or_default().push(grant);
        }
        Self(grants)
    }

    /// `ReferenceGrantSpec`: a reference across namespaces needs a grant in the namespace that it leads to, with
    /// the kind and namespace that refer among `from` and what they refer to among `to`. Entries are combined with OR.
    pub fn permit(
        &self,
        (from, from_namespace): (Kind, &str),
        (to, to_namespace, name): (Kind, &str, &str),
    ) -> bool {
        if from_namespace == to_namespace {
            return true;
        }
        self.0.get(to_namespace).into_iter().flatten().any(|grant| {
            let permits_from = grant.spec.from.iter().any(|known| {
                known.group == from.group() && known.kind == from.name() && known.namespace == from_namespace
            });
            let permits_to = grant.spec.to.iter().any(|known| {
                known.group == to.group()
                    && known.kind == to.name()
                    && known.name.as_deref().is_none_or(|known| known.is_empty() || known == name)
            });
            permits_from && permits_to
        })
    }
}
