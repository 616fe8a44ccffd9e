//! Blixt's own kind, `BlixtClass` of `blixt.dev/v1alpha1`: settings that a GatewayClass names in its
//! `parametersRef`. Its CRD is generated from these types by `cargo xtask codegen`.

use serde::{Deserialize, Serialize};

use super::Selector;
use crate::config::Forwarding;

/// The `spec` of a BlixtClass.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BlixtClassSpec {
    /// How packets reach backends that are not on the node itself. Nat hides the client's address and works with
    /// any backend; Transparent keeps it, and the backend's route must lead back through the balancer.
    #[serde(default)]
    #[cfg_attr(feature = "schemars", schemars(with = "ForwardingSchema"))]
    pub forwarding: Forwarding,
    /// Addresses for Gateways, in the order in which they are used up. Where there are any, a Gateway can have no
    /// other address. Empty: Gateways may name any address, and on a standalone machine those that name none
    /// get the machine's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schemars",
        schemars(
            length(max = 64),
            extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
        )
    )]
    pub address_pools: Vec<AddressPool>,
    /// What becomes of HTTP and HTTPS listeners.
    #[serde(default)]
    pub l7_listeners: L7Listeners,
}

/// A range of addresses to give away.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schemars",
    schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.addresses.all(a, !a.contains('-') || a.split('-')[0].contains(':') == a.split('-')[1].contains(':'))",
        "message": "both ends of a range must be of one address family",
    }]))
)]
#[serde(rename_all = "camelCase")]
pub struct AddressPool {
    /// Its name, for messages.
    #[cfg_attr(feature = "schemars", schemars(length(min = 1, max = 63)))]
    pub name: String,
    /// Prefixes (10.0.0.0/24), ranges (10.0.0.10-10.0.0.20) and single addresses, of either family. Of an
    /// IPv4 prefix the first and the last address are left out, of an IPv6 prefix the first.
    #[cfg_attr(feature = "schemars", schemars(length(min = 1, max = 64), inner(length(min = 2, max = 128))))]
    pub addresses: Vec<String>,
    /// Whether Gateways that ask for no address of their own get one from here. With false, the pool is for those
    /// that name an address in spec.addresses.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Namespaces of the Gateways that may have its addresses. Empty: every namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schemars", schemars(length(max = 64), inner(length(min = 1, max = 63))))]
    pub namespaces: Vec<String>,
    /// Labels of the Gateways that may have its addresses. Absent: every Gateway of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(with = "SelectorSchema"))]
    pub gateway_selector: Option<Selector>,
}

fn yes() -> bool {
    true
}

/// What becomes of HTTP and HTTPS listeners.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum L7Listeners {
    /// They are refused: Blixt balances at layer 4.
    #[default]
    Refuse,
    /// They are balanced as opaque TCP: hostnames and paths are not looked at, TLS is not terminated. The oldest
    /// HTTPRoute that matches everything serves all of them that share a port.
    Passthrough,
}

/// [`Forwarding`] as the CRD shows it: the type itself belongs to the Config.
#[cfg(feature = "schemars")]
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
enum ForwardingSchema {
    Nat,
    Transparent,
}

/// [`Selector`] as the CRD shows it: the type itself is generated from the Gateway API.
#[cfg(feature = "schemars")]
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))",
    "message": "In and NotIn need values, Exists and DoesNotExist take none",
}]))]
struct SelectorSchema {
    /// Labels that must have these values.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32))]
    match_labels: std::collections::BTreeMap<String, String>,
    /// Requirements that must all hold.
    #[serde(default)]
    #[schemars(length(max = 32))]
    match_expressions: Vec<MatchExpressionSchema>,
}

#[cfg(feature = "schemars")]
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct MatchExpressionSchema {
    /// A label.
    #[schemars(length(min = 1, max = 317))]
    key: String,
    /// How the label is compared.
    operator: OperatorSchema,
    /// The values that In and NotIn compare with.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    values: Vec<String>,
}

#[cfg(feature = "schemars")]
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
enum OperatorSchema {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}
