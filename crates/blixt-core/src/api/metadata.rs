//! What every object has: its kind, its name, and when and how often its spec changed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use smol_str::SmolStr;

use super::Labels;

/// How the names of our annotations begin.
const OWN_PREFIX: &str = "blixt.dev/";

/// A kind of object that Blixt reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// `blixt.dev`, cluster-scoped.
    BlixtClass,
    /// `gateway.networking.k8s.io`, cluster-scoped.
    GatewayClass,
    /// `gateway.networking.k8s.io`.
    Gateway,
    /// `gateway.networking.k8s.io`.
    ListenerSet,
    /// `gateway.networking.k8s.io`.
    #[serde(rename = "TCPRoute")]
    TcpRoute,
    /// `gateway.networking.k8s.io`.
    #[serde(rename = "UDPRoute")]
    UdpRoute,
    /// `gateway.networking.k8s.io`.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// `gateway.networking.k8s.io`.
    ReferenceGrant,
    /// The core group, cluster-scoped.
    Namespace,
    /// The core group.
    Secret,
    /// The core group.
    Service,
    /// `discovery.k8s.io`.
    EndpointSlice,
}

/// One object. Shown as `Gateway default/web`, or `GatewayClass blixt` where there is no namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: SmolStr,
    /// Its name.
    pub name: SmolStr,
}

/// The part of `metadata` that Blixt uses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    pub name: SmolStr,
    /// Its namespace; empty for cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub namespace: SmolStr,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Its annotations of `blixt.dev`; those of others are not kept.
    #[serde(default, deserialize_with = "own_annotations", skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
    /// What tells it from another object that had its name before; empty outside a cluster.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub uid: SmolStr,
    /// How often its spec changed, from 1; 0 where nobody counts.
    #[serde(default)]
    pub generation: i64,
    /// When it was made, RFC 3339 in UTC (`2026-01-31T12:00:00Z`), so that text order is time order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<SmolStr>,
}

/// An object with a spec of type `S`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resource<S> {
    /// Who it is.
    pub metadata: Metadata,
    /// What its author wants.
    pub spec: S,
}

impl Kind {
    /// Every kind, in the order in which people read them.
    pub const ALL: [Self; 12] = [
        Self::BlixtClass,
        Self::GatewayClass,
        Self::Gateway,
        Self::ListenerSet,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::HttpRoute,
        Self::ReferenceGrant,
        Self::Namespace,
        Self::Secret,
        Self::Service,
        Self::EndpointSlice,
    ];

    /// As the API spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BlixtClass => "BlixtClass",
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::HttpRoute => "HTTPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::Namespace => "Namespace",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
        }
    }

    /// Its API group; empty for the core group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::BlixtClass => "blixt.dev",
            Self::Namespace | Self::Secret | Self::Service => "",
            Self::EndpointSlice => "discovery.k8s.io",
            _ => "gateway.networking.k8s.io",
        }
    }

    /// Whether its objects live in namespaces.
    pub const fn namespaced(self) -> bool {
        !matches!(self, Self::BlixtClass | Self::GatewayClass | Self::Namespace)
    }
}

impl Metadata {
    /// Sorts older objects first; those whose age nobody knows come last, all by namespace and name.
    pub fn age(&self) -> (bool, Option<&str>, &str, &str) {
        let created = self.creation_timestamp.as_deref();
        (created.is_none(), created, &self.namespace, &self.name)
    }

    /// Namespace and name.
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() {
            self.name.to_string()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

fn own_annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
    let mut annotations =
        Option::<BTreeMap<SmolStr, SmolStr>>::deserialize(deserializer)?.unwrap_or_default();
    annotations.retain(|name, _| name.starts_with(OWN_PREFIX));
    Ok(annotations.into())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{} {}", self.kind, self.name);
        }
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}
