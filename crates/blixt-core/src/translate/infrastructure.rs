//! What a cluster holds for each Gateway: a ServiceAccount that carries the labels and annotations of
//! `spec.infrastructure`. Blixt serves all Gateways from the same nodes, so there is nothing else of a Gateway that
//! could carry them.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::class;
use super::gateway::{self, GatewayState};
use crate::api::ObjectKey;
use crate::snapshot::Snapshot;

/// The label by which whatever is made for a Gateway names it.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Longest name of an object, and longest value of a label.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// A ServiceAccount as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceAccount {
    /// Its name: the Gateway's and `-blixt`.
    pub name: String,
    /// Its namespace, the Gateway's.
    pub namespace: SmolStr,
    /// The label that names the Gateway, and those of `spec.infrastructure`.
    pub labels: BTreeMap<SmolStr, SmolStr>,
    /// Those of `spec.infrastructure`.
    pub annotations: BTreeMap<SmolStr, SmolStr>,
    /// The Gateway, which owns it.
    pub gateway: ObjectKey,
    /// The Gateway's `metadata.uid`.
    pub gateway_uid: SmolStr,
}

/// One for each Gateway of ours that is not refused as a whole, in the order of their names.
pub fn infrastructure(snapshot: &Snapshot) -> Vec<ServiceAccount> {
    let classes = class::classes(snapshot);
    let gateways = gateway::gateways(snapshot, &classes, &mut Vec::new());
    let accepted = gateways.iter().filter(|state| state.refusal.is_none());
    let mut accounts: Vec<ServiceAccount> = accepted.map(service_account).collect();
    accounts.sort_by(|a, b| a.gateway.cmp(&b.gateway));
    accounts
}

/// `GatewayInfrastructure.labels` and `.annotations` are applied to what is made for the Gateway. The label that names
/// the Gateway is not theirs to change.
fn service_account(state: &GatewayState<'_>) -> ServiceAccount {
    let infrastructure = state.gateway.spec.infrastructure.as_ref();
    let mut labels = infrastructure.map(|infrastructure| infrastructure.labels.clone()).unwrap_or_default();
    labels.insert(SmolStr::new_static(GATEWAY_NAME), shortened(&state.key.name, LONGEST_LABEL).into());
    let suffix = "-blixt";
    ServiceAccount {
        name: shortened(&state.key.name, LONGEST_NAME - suffix.len()) + suffix,
        namespace: state.key.namespace.clone(),
        labels,
        annotations: infrastructure
            .map(|infrastructure| infrastructure.annotations.clone())
            .unwrap_or_default(),
        gateway: state.key.clone(),
        gateway_uid: state.gateway.metadata.uid.clone(),
    }
}

/// A name that is too long ends in a hash of the whole, so that two of them stay different.
fn shortened(name: &str, longest: usize) -> String {
    if name.len() <= longest {
        return name.to_owned();
    }
    let hash = format!("-{:016x}", xxhash_rust::xxh3::xxh3_64(name.as_bytes()));
    // Names are ASCII. What remains must not end in a sign before the hash.
    let begin = name[..longest - hash.len()].trim_end_matches(['-', '.']);
    format!("{begin}{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_and_stays_its_own() {
        let long = |end: &str| format!("{}{end}", "a".repeat(70));
        assert_eq!(shortened("web", LONGEST_LABEL), "web");
        assert_eq!(shortened(&long("x"), LONGEST_LABEL).len(), LONGEST_LABEL);
        assert_ne!(shortened(&long("x"), LONGEST_LABEL), shortened(&long("y"), LONGEST_LABEL));
    }
}
