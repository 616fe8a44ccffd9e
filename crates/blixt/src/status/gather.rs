//! What a running instance knows, as views and numbers.

use std::collections::BTreeMap;

use blixt_core::api::ObjectKey;
use blixt_core::config::{Backend, Config, Endpoint, Frontend};
use blixt_core::status::{Status, Statuses};
use blixt_core::tables::{BackendEntry, BackendSlot, BackendState, Tables, Way};
use blixt_core::translate::Note;
use blixt_loader::Counters;
use blixt_packet::abi::{ABI_VERSION, RouteCounters};
use serde::Serialize;

use super::book::{Book, conditions};
use super::view::{
    BackendView, FrontendView, HookView, InstanceView, ObjectView, ProblemView, RouteView, Versions, View,
};
use crate::metrics::{BackendNumber, Numbers, RouteNumber};
use crate::node::Node;
use crate::source::store::{FileProblem, Known, Store};

/// The version of the Gateway API that the types are generated from.
const GATEWAY_API: &str = "v1.6.1";

/// What `--status-dir` says of the instance as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The data plane holds what the manifests say, and an interface carries it.
    pub ready: bool,
    /// The number of the Config that the manifests give.
    pub generation: u64,
    /// The number of the last one that the data plane holds.
    pub applied_generation: u64,
    /// Objects by kind.
    pub objects: BTreeMap<&'static str, u64>,
    /// Frontends in the data plane.
    pub frontends: usize,
    /// What an operator should look at.
    pub problems: Vec<ProblemView>,
}

/// What is known of the objects that the Config was made from. A node that only receives Configs knows none.
#[derive(Clone, Copy)]
pub struct Objects<'a> {
    /// Where they come from.
    pub store: Option<&'a Store>,
    /// What was told of them.
    pub book: &'a Book,
    /// What no status can say.
    pub notes: &'a [Note],
    /// Why no news of them come.
    pub trouble: Option<&'a str>,
}

impl Objects<'_> {
    fn views(&self, statuses: &Statuses) -> Vec<ObjectView> {
        let known = self.store.into_iter().flat_map(Store::known);
        known.map(|(key, known)| object(key, known, self.book, statuses.get(key))).collect()
    }

    fn problems(&self) -> Vec<ProblemView> {
        let trouble = self.trouble.map(|message| ProblemView {
            object: "controller".to_owned(),
            message: message.to_owned(),
            next: "serving goes on as it was".to_owned(),
            ..ProblemView::default()
        });
        let of_files = self.store.into_iter().flat_map(Store::problems).map(file_problem);
        let origin = |object| self.store.and_then(|store| store.origin(object));
        let of_notes = self.notes.iter().map(|found| note(found, origin(&found.object)));
        trouble.into_iter().chain(of_files).chain(of_notes).collect()
    }

    fn count_kinds(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for (key, _) in self.store.into_iter().flat_map(Store::known) {
            *kinds.entry(key.kind.name()).or_default() += 1;
        }
        kinds
    }
}

/// Everything that `status` shows.
pub fn view(node: &Node, objects: &Objects<'_>, statuses: &Statuses, counters: &Counters) -> View {
    let slots = slots(&node.tables);
    View {
        instance: instance(node),
        versions: versions(),
        objects: objects.views(statuses),
        frontends: node
            .config
            .frontends
            .iter()
            .map(|(endpoint, frontend)| frontend_view(node, counters, &slots, endpoint, frontend))
            .collect(),
        routes: route_counters(&node.config, &node.tables, counters)
            .into_iter()
            .map(|number| route_view(&number))
            .collect(),
        drops: counters
            .drops
            .iter()
            .filter(|(_, packets)| **packets > 0)
            .map(|(reason, packets)| (reason.label().to_owned(), *packets))
            .collect(),
        hooks: hooks(node),
        problems: problems(node, objects),
    }
}

/// Everything that `/metrics` shows.
pub fn numbers(node: &Node, objects: &Objects<'_>, counters: &Counters) -> Numbers {
    let mut hooks: BTreeMap<String, u64> = BTreeMap::new();
    for hook in self::hooks(node) {
        *hooks.entry(hook.hook).or_default() += 1;
    }
    let slots = slots(&node.tables);
    let backends = node.config.frontends.iter().flat_map(|(endpoint, frontend)| {
        let route_id = route_id(&node.tables, endpoint);
        backends_of(frontend).into_iter().filter_map({
            let slots = &slots;
            move |(backend, _)| {
                let backend = endpoint_of(backend, endpoint);
                let (slot, _) = slots.get(&(route_id, backend))?;
                let connections = counters.backends.get(slot).copied().unwrap_or(0);
                Some(BackendNumber { route: frontend.route.clone()?, backend, connections })
            }
        })
    });
    // A backend that serves one route on two frontends is counted once.
    let mut backends: Vec<BackendNumber> = backends.collect();
    backends.sort_by(|a, b| (&a.route, a.backend).cmp(&(&b.route, b.backend)));
    backends.dedup_by(|a, b| a.route == b.route && a.backend == b.backend);
    Numbers {
        generation: node.progress.applied_generation.0,
        ready: node.is_ready(),
        applied: node.progress.applied,
        apply_failures: node.progress.failures,
        apply_seconds: node.progress.apply_seconds,
        objects: objects.count_kinds().into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
        problems: problems(node, objects).len() as u64,
        frontends: node.tables.frontends.len() as u64,
        hooks,
        routes: route_counters(&node.config, &node.tables, counters),
        backends,
        drops: counters.drops.clone(),
        flows: node.flows.counts(),
    }
}

/// What `--status-dir` says of the instance as a whole.
pub fn summary(node: &Node, objects: &Objects<'_>) -> Summary {
    Summary {
        ready: node.is_ready(),
        generation: node.progress.generation.0,
        applied_generation: node.progress.applied_generation.0,
        objects: objects.count_kinds(),
        frontends: node.tables.frontends.len(),
        problems: problems(node, objects),
    }
}

/// Problems of files.
pub fn file_problem(problem: FileProblem) -> ProblemView {
    let FileProblem { file, line, object, field, message, next } = problem;
    ProblemView {
        file: file.display().to_string(),
        line: (line > 0).then_some(line),
        object,
        field,
        message,
        next,
    }
}

/// What no status can say.
pub fn note(note: &Note, origin: Option<&Known>) -> ProblemView {
    ProblemView {
        file: origin.map(|known| known.file.display().to_string()).unwrap_or_default(),
        line: origin.map(|known| known.line),
        object: note.object.to_string(),
        field: note.field.to_string(),
        message: note.message.clone(),
        next: String::new(),
    }
}

fn instance(node: &Node) -> InstanceView {
    InstanceView {
        name: node.dataplane.instance().to_string(),
        pid: std::process::id(),
        started: node.progress.started,
        ready: node.is_ready(),
        taken_over: node.dataplane.found().is_taken_over,
        generation: node.progress.generation.0,
        applied_generation: node.progress.applied_generation.0,
        flow_capacity: node.dataplane.capacity().flows,
        // Each connection has an entry for either direction.
        flows: node.dataplane.flow_entries().unwrap_or(0) / 2,
        flow_entries_evicted: node.flows.counts().iter().map(|count| count.evicted).sum(),
    }
}

fn versions() -> Versions {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Versions {
        blixt: env!("CARGO_PKG_VERSION").to_owned(),
        map_layout: ABI_VERSION,
        gateway_api: GATEWAY_API.to_owned(),
        kernel: kernel.trim().to_owned(),
    }
}

fn object(key: &ObjectKey, known: &Known, book: &Book, status: Option<&Status>) -> ObjectView {
    let status = status.map(|status| book.status(key, status)).unwrap_or_default();
    ObjectView {
        kind: key.kind.name().to_owned(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        generation: known.generation,
        file: known.file.display().to_string(),
        line: known.line,
        conditions: conditions(&status),
        status,
    }
}

/// Backends in the tables, by the route that they serve.
type Slots<'a> = BTreeMap<(u32, Endpoint), (BackendSlot, &'a BackendEntry)>;

fn slots(tables: &Tables) -> Slots<'_> {
    let standing = tables.backends.iter().filter(|(_, entry)| entry.state != BackendState::Gone);
    standing.map(|(slot, entry)| ((entry.route, entry.endpoint), (*slot, entry))).collect()
}

fn frontend_view(
    node: &Node,
    counters: &Counters,
    slots: &Slots,
    endpoint: &Endpoint,
    frontend: &Frontend,
) -> FrontendView {
    let tables = &node.tables;
    let report = node.report.as_ref().and_then(|report| report.frontends.get(endpoint));
    let Frontend { pool, .. } = frontend;
    let empty = pool.shares.iter().filter(|share| share.backends.is_empty());
    let refused: u64 = empty.map(|share| u64::from(share.weight)).sum();
    let route_id = route_id(tables, endpoint);
    let backends = backends_of(frontend).into_iter().map(|(backend, share)| {
        let backend = endpoint_of(backend, endpoint);
        let found = slots.get(&(route_id, backend));
        let (weight, members) = share;
        BackendView {
            endpoint: backend.to_string(),
            state: match found.map(|(_, entry)| entry.state) {
                Some(BackendState::Serving) => "serving",
                Some(BackendState::Draining) => "draining",
                Some(BackendState::Gone) | None => "absent",
            }
            .to_owned(),
            way: found.map(|(_, entry)| way(entry.way).to_owned()),
            device: found.and_then(|(_, entry)| device(node, entry)),
            nat_from: found.map(|(_, entry)| nat_from(node, entry)).unwrap_or_default(),
            weight,
            percent: pool.percent(weight.into()) / members.max(1) as f64,
            connections: found.and_then(|(slot, _)| counters.backends.get(slot).copied()).unwrap_or(0),
        }
    });
    FrontendView {
        endpoint: endpoint.to_string(),
        listener: frontend.listener.to_string(),
        route: frontend.route.as_ref().map(ToString::to_string),
        forwarding: format!("{:?}", frontend.forwarding),
        ring_slots: tables.frontends.get(endpoint).map_or(0, |entry| entry.slots),
        refused_percent: if pool.shares.is_empty() { 100.0 } else { pool.percent(refused) },
        backends: backends.collect(),
        error: report.and_then(|report| report.error.clone()),
        warnings: report.map(|report| report.warnings.clone()).unwrap_or_default(),
    }
}

/// Every backend with the weight of its share and how many divide it; draining ones have none.
fn backends_of(frontend: &Frontend) -> Vec<(&Backend, (u32, usize))> {
    let shares = frontend.pool.shares.iter().flat_map(|share| {
        share.backends.iter().map(move |backend| (backend, (share.weight, share.backends.len())))
    });
    shares.chain(frontend.pool.draining.iter().map(|backend| (backend, (0, 1)))).collect()
}

fn endpoint_of(backend: &Backend, frontend: &Endpoint) -> Endpoint {
    Endpoint { address: backend.address, port: backend.port, protocol: frontend.protocol }
}

fn route_id(tables: &Tables, endpoint: &Endpoint) -> u32 {
    tables.frontends.get(endpoint).map_or(0, |entry| entry.route)
}

fn way(way: Way) -> &'static str {
    match way {
        Way::Nat => "nat",
        Way::Transparent => "transparent",
        Way::Local => "local",
    }
}

/// Whose address a backend does not see although its way keeps it: it would answer them past us.
fn nat_from(node: &Node, entry: &BackendEntry) -> Vec<String> {
    let beside = (entry.way == Way::Local).then(|| device(node, entry)).flatten();
    let has_own = node.tables.devices.values().any(|device| device.of_host);
    let own = (entry.way != Way::Nat && entry.hop != 0 && has_own).then(|| "this machine".to_owned());
    beside.into_iter().chain(own).collect()
}

fn device(node: &Node, entry: &BackendEntry) -> Option<String> {
    let hop = node.tables.hops.get(&entry.hop)?;
    let observation = node.observation.as_ref()?;
    Some(observation.host.devices.get(&hop.device)?.name.clone())
}

fn route_counters(config: &Config, tables: &Tables, counters: &Counters) -> Vec<RouteNumber> {
    let routes: BTreeMap<_, _> = config
        .frontends
        .iter()
        .filter_map(|(endpoint, frontend)| Some((frontend.route.clone()?, route_id(tables, endpoint))))
        .collect();
    let number = |(route, id)| {
        let counters = counters.routes.get(&id).copied().unwrap_or_default();
        RouteNumber { route, counters }
    };
    routes.into_iter().map(number).collect()
}

fn route_view(number: &RouteNumber) -> RouteView {
    let RouteCounters { requests, replies, connections, refused } = number.counters;
    RouteView {
        route: number.route.to_string(),
        connections,
        refused,
        request_packets: requests.packets,
        request_bytes: requests.bytes,
        reply_packets: replies.packets,
        reply_bytes: replies.bytes,
    }
}

fn hooks(node: &Node) -> Vec<HookView> {
    let attached = node.devices.attached().map(|(device, attachment)| HookView {
        device: device.to_owned(),
        ifindex: attachment.ifindex,
        hook: attachment.ingress.map_or("none", |mode| mode.label()).to_owned(),
        egress: attachment.egress,
        error: None,
    });
    let failed = node.devices.failures().map(|(ifindex, failure)| HookView {
        device: failure.device.clone(),
        ifindex,
        hook: "none".to_owned(),
        egress: false,
        error: Some(failure.error.clone()),
    });
    attached.chain(failed).collect()
}

fn problems(node: &Node, objects: &Objects<'_>) -> Vec<ProblemView> {
    let mut problems = objects.problems();
    let message = |message: String| ProblemView { message, ..ProblemView::default() };
    problems.extend(node.compile_problems.iter().map(|problem| message(problem.to_string())));
    problems.extend(node.devices.failures().map(|(_, failure)| ProblemView {
        object: format!("device {}", failure.device),
        message: failure.error.clone(),
        ..ProblemView::default()
    }));
    problems.extend(node.dataplane.other_layouts().iter().map(|path| ProblemView {
        file: path.display().to_string(),
        message: "another version of blixt is at work, with counters and connections of its own".into(),
        next: "it is replaced when each of its interfaces carries this one; `blixt cleanup` ends both".into(),
        ..ProblemView::default()
    }));
    problems.extend(node.unhooked.clone().map(message));
    problems.extend(node.progress.error.clone().map(message));
    problems
}
