//! GatewayClasses that name our controller, and the settings that they refer to.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::address_pool::AddressPool;
use super::refusal::Refusal;
use crate::api::{BlixtClassSpec, GatewayClass, Kind, L7Listeners, ObjectKey};
use crate::config::Forwarding;
use crate::snapshot::Snapshot;
use crate::status::{
    CONTROLLER_NAME, Condition, ConditionStatus, GatewayClassStatus, Status, Statuses, SupportedFeature,
};

/// Features of the conformance suite that Blixt has, by whether they need listeners of layer 7 to be accepted; the
/// API wants them sorted.
const SUPPORTED_FEATURES: [(&str, bool); 9] = [
    ("Gateway", false),
    ("GatewayAddressEmpty", false),
    ("GatewayInfrastructurePropagation", false),
    ("GatewayPort8080", true),
    ("GatewayStaticAddresses", false),
    ("ListenerSet", false),
    ("ReferenceGrant", false),
    ("TCPRoute", false),
    ("UDPRoute", false),
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
    /// Addresses to give away, in their order.
    pub pools: Vec<AddressPool>,
    /// What becomes of HTTP and HTTPS listeners.
    pub l7_listeners: L7Listeners,
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
    let BlixtClassSpec { forwarding, address_pools, l7_listeners } = spec;
    let pools = address_pools.iter().enumerate().map(|(index, pool)| {
        AddressPool::parse(pool).map_err(|(field, fault)| {
            format!("spec.addressPools[{index}].{field} (pool {}): {fault}", pool.name)
        })
    });
    Ok(Settings {
        forwarding: *forwarding,
        pools: pools.collect::<Result<_, _>>()?,
        l7_listeners: *l7_listeners,
    })
}

/// `Accepted` and `SupportedVersion`, and what the class can do.
pub fn statuses(classes: &Classes<'_>) -> Statuses {
    classes.values().map(|class| (class.key.clone(), Status::GatewayClass(status(class)))).collect()
}

fn status(class: &Class<'_>) -> GatewayClassStatus {
    let generation = class.generation;
    let l7_listeners = class.settings.as_ref().map(|settings| settings.l7_listeners).unwrap_or_default();
    let accepted = match &class.settings {
        Ok(_) => {
            let message = match l7_listeners {
                L7Listeners::Refuse => "Blixt serves Gateways of this class",
                L7Listeners::Passthrough => {
                    "Blixt serves Gateways of this class; HTTP and HTTPS listeners are balanced as opaque TCP: \
                     hostnames are not looked at and TLS is not terminated"
                }
            };
            Condition::new("Accepted", ConditionStatus::True, "Accepted", message, generation)
        }
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
    let supported_features = SUPPORTED_FEATURES
        .into_iter()
        .filter(|(_, needs_l7)| !needs_l7 || l7_listeners == L7Listeners::Passthrough)
        .map(|(name, _)| SupportedFeature { name: name.into() })
        .collect();
    GatewayClassStatus { conditions: vec![accepted, version], supported_features }
}
