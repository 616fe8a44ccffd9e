//! ReferenceGrants: who may refer to Services of another namespace.

use std::collections::BTreeMap;

use crate::api::{Kind, L4Route, ReferenceGrant};
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
    /// the route among `from` and the Service among `to`. Entries are combined with OR.
    pub fn permit(&self, route: &L4Route, namespace: &str, service: &str) -> bool {
        if route.metadata.namespace == namespace {
            return true;
        }
        let kind = route.kind();
        self.0.get(namespace).into_iter().flatten().any(|grant| {
            let from = grant.spec.from.iter().any(|from| {
                from.group == kind.group()
                    && from.kind == kind.name()
                    && from.namespace == route.metadata.namespace
            });
            let to = grant.spec.to.iter().any(|to| {
                to.group == Kind::Service.group()
                    && to.kind == Kind::Service.name()
                    && to.name.as_deref().is_none_or(|name| name.is_empty() || name == service)
            });
            from && to
        })
    }
}
