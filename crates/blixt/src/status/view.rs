//! What `status` shows, and what travels over the control socket: plain values, in the spelling of the API.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A running instance, seen from outside.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Who answers.
    pub instance: InstanceView,
    /// Versions of the parts.
    pub versions: Versions,
    /// Every object, with or without a status.
    pub objects: Vec<ObjectView>,
    /// What clients can dial.
    pub frontends: Vec<FrontendView>,
    /// What each route did.
    pub routes: Vec<RouteView>,
    /// Packets that were dropped, by reason. Reasons that never occurred are left out.
    pub drops: BTreeMap<String, u64>,
    /// Where in the kernel packets are taken.
    pub hooks: Vec<HookView>,
    /// What an operator should look at.
    pub problems: Vec<ProblemView>,
}

/// The process that answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceView {
    /// Its name: that of the network namespace.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Since when it runs.
    pub started: Timestamp,
    /// The data plane holds what the manifests say.
    pub ready: bool,
    /// The state of an instance before this one was taken over.
    pub taken_over: bool,
    /// The number of the Config that the manifests give.
    pub generation: u64,
    /// The number of the last one that the data plane holds.
    pub applied_generation: u64,
    /// Connections over IPv4 that can be remembered at a time.
    pub flow_capacity: u32,
    /// About how many are remembered now, of both families.
    pub flows: u64,
    /// Entries, two for each connection, whose place the full tables gave to others.
    #[serde(default)]
    pub flow_entries_evicted: u64,
}

/// Versions of the parts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// Of Blixt.
    pub blixt: String,
    /// Of the layout of the maps.
    pub map_layout: u32,
    /// Of the Gateway API.
    pub gateway_api: String,
    /// Of the kernel.
    pub kernel: String,
}

/// An object.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectView {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How often its spec changed, from 1.
    pub generation: i64,
    /// Where it comes from.
    pub file: String,
    /// The line that it starts on.
    pub line: u32,
    /// Its own conditions, or, of a route, those of its parents.
    pub conditions: Vec<Value>,
    /// Its whole status as the API has it; null for kinds that have none.
    pub status: Value,
}

/// What clients can dial.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendView {
    /// Address, port and protocol.
    pub endpoint: String,
    /// The listener that asked for it.
    pub listener: String,
    /// The route that serves it.
    pub route: Option<String>,
    /// `Nat` or `Transparent`.
    pub forwarding: String,
    /// Slots of its ring; 0: every connection is refused.
    pub ring_slots: u32,
    /// The part of the connections that is refused, in percent.
    pub refused_percent: f64,
    /// Who gets packets.
    pub backends: Vec<BackendView>,
    /// Why it does not serve.
    pub error: Option<String>,
    /// What its user should know all the same.
    pub warnings: Vec<String>,
}

/// Who gets packets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Address, port and protocol.
    pub endpoint: String,
    /// `serving`, `draining` or `absent`.
    pub state: String,
    /// How packets reach it: `nat`, `transparent` or `local`.
    pub way: Option<String>,
    /// The device that they leave by, or that a local one sits behind; none for a process of this machine, or where the kernel is
    /// asked.
    pub device: Option<String>,
    /// Where clients sit whose address it does not see, although its way keeps it: it would answer them past Blixt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nat_from: Vec<String>,
    /// The weight of the backendRef that it belongs to.
    pub weight: u32,
    /// The part of new connections that it gets, in percent.
    pub percent: f64,
    /// Connections begun.
    pub connections: u64,
}

/// What a route did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// Kind, namespace and name.
    pub route: String,
    /// Connections begun.
    pub connections: u64,
    /// Connections refused.
    pub refused: u64,
    /// Packets from clients.
    pub request_packets: u64,
    /// Their bytes.
    pub request_bytes: u64,
    /// Packets to clients.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
}

/// Where in the kernel packets of a device are taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookView {
    /// The device.
    pub device: String,
    /// Its index.
    pub ifindex: u32,
    /// `tc`, `xdp`, `xdp generic` or `none`.
    pub hook: String,
    /// Packets that leave are seen too.
    pub egress: bool,
    /// Why it is not hooked.
    pub error: Option<String>,
}

/// What an operator should look at.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemView {
    /// The file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The field of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What there is to know.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next: String,
}

impl std::fmt::Display for ProblemView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match self.line {
            Some(line) => format!("{}:{line}", self.file),
            None => self.file.clone(),
        };
        let parts = [&place, &self.object, &self.field, &self.message];
        let parts: Vec<&str> =
            parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        f.write_str(&parts.join(": "))?;
        if self.next.is_empty() { Ok(()) } else { write!(f, "; {}", self.next) }
    }
}
