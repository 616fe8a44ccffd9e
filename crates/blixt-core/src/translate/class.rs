//! GatewayClasses that name our controller, and the settings that they refer to.

use std::collections::BTreeMap;

use super::address;
use super::address_range::AddressRange;
use super::refusal::Refusal;
use smol_str::SmolStr;

use crate::api::{BlixtClassSpec, GatewayClass, Kind, L7Listeners, ObjectKey};
use crate::config::Forwarding;
use crate::snapshot::Snapshot;
use crate::status::{
    CONTROLLER_NAME, Condition, ConditionStatus, GatewayClassStatus, Status, Statuses, SupportedFeature,
};

/// Features of the conformance suite that Blixt has; the API wants them sorted.
const SUPPORTED_FEATURES: [&str; 7] = [
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayStaticAddresses",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "UDPRoute",
];

/// A GatewayClass of ours.
pub struct Class<'a> {
    key: &'a ObjectKey,
    generation: i64,
    /// What its BlixtClass says, or why that cannot be used.
    pub settings: Result<Settings, Refusal>,
}

/// What a BlixtClass says, ready for use.
#[derive(Default)]
pub struct Settings {
    /// How packets reach backends elsewhere.
    pub forwarding: Forwarding,
    /// Addresses to give away, in the order of the pools.
    pub ranges: Vec<AddressRange>,
}

/// The classes of ours, by name.
pub type Classes<'a> = BTreeMap<&'a str, Class<'a>>;

/// Finds them.
pub fn classes(snapshot: &Snapshot) -> Classes<'_> {
    let ours = snapshot.gateway_classes.iter().filter(|(_, class)| is_ours(class));
    ours.map(|(key, class)| {
        let settings = settings(snapshot, class);
        (key.name.as_str(), Class { key, generation: class.metadata.generation, settings })
    })
    .collect()
}

/// `GatewayClass.spec.controllerName`: only classes that name this controller are ours.
fn is_ours(class: &GatewayClass) -> bool {
    class.spec.controller_name == CONTROLLER_NAME
}

/// `GatewayClass.spec.parametersRef`: nonexistent, unsupported or malformed ones are `InvalidParameters`, and so
/// is a namespace for a cluster-scoped kind.
fn settings(snapshot: &Snapshot, class: &GatewayClass) -> Result<Settings, Refusal> {
    let Some(reference) = &class.spec.parameters_ref else { return Ok(Settings::default()) };
    let invalid = |message: String| Refusal::new("InvalidParameters", message);
    if (reference.group.as_str(), reference.kind.as_str()) != ("blixt.dev", "BlixtClass") {
        return Err(invalid(format!(
            "spec.parametersRef names {} of group {:?}: name a BlixtClass of group blixt.dev",
            reference.kind, reference.group
        )));
    }
    if reference.namespace.is_some() {
        return Err(invalid("spec.parametersRef.namespace is set: a BlixtClass has none, remove it".into()));
    }
    let key =
        ObjectKey { kind: Kind::BlixtClass, namespace: SmolStr::default(), name: reference.name.clone() };
    let Some(blixt_class) = snapshot.blixt_classes.get(&key) else {
        return Err(invalid(format!("spec.parametersRef: {}", snapshot.absence(&key))));
    };
    parse_settings(&blixt_class.spec).map_err(|message| invalid(format!("{key}: {message}")))
}

fn parse_settings(spec: &BlixtClassSpec) -> Result<Settings, String> {
    if spec.l7_listeners == L7Listeners::Passthrough {
        return Err("spec.l7Listeners: Passthrough is not available in this release: use Refuse".into());
    }
    let mut ranges = Vec::new();
    for (index, pool) in spec.address_pools.iter().enumerate() {
        for (place, text) in pool.addresses.iter().enumerate() {
            let range = AddressRange::parse(text).and_then(usable).map_err(|message| {
                format!("spec.addressPools[{index}].addresses[{place}] (pool {}): {message}", pool.name)
            })?;
            ranges.push(range);
        }
    }
    Ok(Settings { forwarding: spec.forwarding, ranges })
}

/// A range of which every address can be given away.
fn usable(range: AddressRange) -> Result<AddressRange, String> {
    match address::unusable_between(range.address(0), range.address(range.len() - 1)) {
        None => Ok(range),
        Some((address, fault)) => Err(format!("{address} {fault}: give addresses that clients can reach")),
    }
}

/// `Accepted` and `SupportedVersion`, and what the class can do.
pub fn statuses(classes: &Classes<'_>) -> Statuses {
    classes.values().map(|class| (class.key.clone(), Status::GatewayClass(status(class)))).collect()
}

fn status(class: &Class<'_>) -> GatewayClassStatus {
    let generation = class.generation;
    let accepted = match &class.settings {
        Ok(_) => Condition::new(
            "Accepted",
            ConditionStatus::True,
            "Accepted",
            "Blixt serves Gateways of this class",
            generation,
        ),
        Err(refusal) => Condition::new(
            "Accepted",
            ConditionStatus::False,
            refusal.reason,
            refusal.message.clone(),
            generation,
        ),
    };
    let version = Condition::new(
        "SupportedVersion",
        ConditionStatus::True,
        "SupportedVersion",
        "the schemas of Gateway API v1.6.1 are in use",
        generation,
    );
    let features = SUPPORTED_FEATURES.iter().map(|name| SupportedFeature { name: (*name).into() });
    GatewayClassStatus { conditions: vec![accepted, version], supported_features: features.collect() }
}
