//! The kinds of Kubernetes itself, cut down to what a load balancer reads of them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::config::Protocol;

/// Of a Namespace only the metadata matters.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NamespaceSpec {}

/// The `spec` of a Service.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP` and so on; only `ExternalName` makes a difference.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub service_type: Option<SmolStr>,
    /// Its ports.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub ports: Box<[ServicePort]>,
    /// What a cluster dials it at, which no Gateway may take; the API server writes `clusterIP` here too.
    #[serde(
        default,
        rename = "clusterIPs",
        deserialize_with = "addresses",
        skip_serializing_if = "<[_]>::is_empty"
    )]
    pub cluster_ips: Box<[IpAddr]>,
    /// `None` or `ClientIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SmolStr>,
    /// Clients that may connect; what follows is read only to be told of, since Blixt does none of it.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub load_balancer_source_ranges: Box<[SmolStr]>,
    /// `Cluster` or `Local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<SmolStr>,
    /// `Cluster` or `Local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<SmolStr>,
    /// `PreferClose` and its like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<SmolStr>,
    /// Addresses beside those of Gateways.
    #[serde(default, rename = "externalIPs", skip_serializing_if = "<[_]>::is_empty")]
    pub external_ips: Box<[SmolStr]>,
    /// An address beside those of Gateways.
    #[serde(default, rename = "loadBalancerIP", skip_serializing_if = "Option::is_none")]
    pub load_balancer_ip: Option<SmolStr>,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its name, by which EndpointSlices name the target port; empty if it is the only one.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub name: SmolStr,
    /// What backendRefs name.
    pub port: u16,
    /// TCP, UDP or SCTP.
    #[serde(default)]
    pub protocol: PortProtocol,
}

/// A protocol of Kubernetes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PortProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, which Blixt does not balance.
    Sctp,
}

/// What an EndpointSlice says; the kind has no `spec`, its fields stand beside `metadata`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSliceSpec {
    /// What kind of addresses it holds.
    pub address_type: AddressType,
    /// Who serves.
    #[serde(default, deserialize_with = "null_is_default")]
    pub endpoints: Box<[SliceEndpoint]>,
    /// Where they serve.
    #[serde(default, deserialize_with = "null_is_default")]
    pub ports: Box<[EndpointPort]>,
}

/// What kind of addresses an EndpointSlice holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AddressType {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
    /// Names, which Blixt does not look up.
    #[serde(rename = "FQDN")]
    Fqdn,
}

/// One that serves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Its addresses: all of them the same server.
    pub addresses: Box<[SmolStr]>,
    /// How it is.
    #[serde(default)]
    pub conditions: EndpointConditions,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<SmolStr>,
}

/// How one that serves is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointConditions {
    /// It takes connections; unknown counts as ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// It answers, terminating or not; unknown is as `ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// It is about to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// Where those of a slice serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointPort {
    /// The name of the Service's port.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "SmolStr::is_empty")]
    pub name: SmolStr,
    /// The number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// TCP, UDP or SCTP.
    #[serde(default, deserialize_with = "null_is_default")]
    pub protocol: PortProtocol,
}

impl PartialEq<Protocol> for PortProtocol {
    fn eq(&self, other: &Protocol) -> bool {
        matches!((self, other), (Self::Tcp, Protocol::Tcp) | (Self::Udp, Protocol::Udp))
    }
}

/// Those of a list that are addresses: a Service without one says `None` there.
fn addresses<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Box<[IpAddr]>, D::Error> {
    let texts: Vec<SmolStr> = null_is_default(deserializer)?;
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

/// Kubernetes writes an empty list or name as null.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
