//! Blixt's own kind, `BlixtClass` of `blixt.dev/v1alpha1`: settings that a GatewayClass names in its
//! `parametersRef`. Its CRD is generated from these types by `cargo xtask codegen`.

use serde::{Deserialize, Serialize};

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
    /// Addresses that are given to Gateways which ask for none. Empty: they get the machine's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schemars", schemars(length(max = 64)))]
    pub address_pools: Vec<AddressPool>,
    /// What becomes of HTTP and HTTPS listeners.
    #[serde(default)]
    pub l7_listeners: L7Listeners,
}

/// A range of addresses to give away.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct AddressPool {
    /// Its name, for messages.
    #[cfg_attr(feature = "schemars", schemars(length(min = 1, max = 63)))]
    pub name: String,
    /// Prefixes (10.0.0.0/24), ranges (10.0.0.10-10.0.0.20) and single addresses, of either family. Of an
    /// IPv4 prefix the first and the last address are left out, of an IPv6 prefix the first.
    #[cfg_attr(feature = "schemars", schemars(length(min = 1, max = 64), inner(length(min = 2, max = 128))))]
    pub addresses: Vec<String>,
}

/// What becomes of HTTP and HTTPS listeners.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum L7Listeners {
    /// They are refused: Blixt balances at layer 4.
    #[default]
    Refuse,
    /// They are balanced as opaque TCP.
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
