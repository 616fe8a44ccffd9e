//! The rules of the Gateway API: a [`Snapshot`] to a [`Config`] and the statuses of its objects.
//!
//! Total and deterministic: what is wrong with an object becomes a condition on it, and equal Snapshots give
//! equal results.
//!
//! ```text
//! classes ─► gateways ─► addresses ─┐
//!               └─► listeners ──────┴─► claims ─► routes attach ─► backends ─► frontends ─► statuses
//! ```

mod address;
mod address_pool;
mod address_range;
mod attachment;
mod backend;
mod certificate;
mod class;
mod conflict;
mod endpoint;
mod frontend;
mod gateway;
mod grant;
mod infrastructure;
mod listener;
mod listener_set;
mod namespaces;
mod programmed;
mod refusal;
mod route;
mod touched;

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashSet;
use serde::Serialize;

use crate::api::ObjectKey;
use crate::config::{Config, Endpoint, Generation};
use crate::snapshot::{ServiceName, Snapshot};
use crate::status::Statuses;

pub use infrastructure::{ServiceAccount, infrastructure};
pub use touched::{Touched, retranslate};

/// What the data plane did with the frontends it was given. One that is missing here is not there yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// By what clients dial.
    pub frontends: BTreeMap<Endpoint, FrontendReport>,
    /// In a cluster, the nodes that this is the report of.
    pub nodes: Option<Nodes>,
}

/// The nodes of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Nodes {
    /// How many must serve, and do where a frontend is reported without an error.
    pub serving: usize,
    /// Those that would, but are not ready.
    pub not_ready: Vec<String>,
}

/// What became of one frontend.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FrontendReport {
    /// Why it does not take connections.
    pub error: Option<String>,
    /// What its user should know although it works, such as a process that listens on the same port.
    pub warnings: Vec<String>,
    /// In a cluster, the Config since which it is as it is, its backends left aside.
    pub generation: Option<Generation>,
}

/// What `translate` makes of a Snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Translation {
    /// What the data plane should do.
    pub config: Config,
    /// What to tell about each object that Blixt answers for.
    pub statuses: Statuses,
    /// What no status can say, since the API has no place for it.
    pub notes: Vec<Note>,
}

/// Something about an object that its author should know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Note {
    /// The object.
    pub object: ObjectKey,
    /// The field.
    pub field: &'static str,
    /// It does not work as it is written; else it is only worth knowing.
    pub is_error: bool,
    /// What there is to know.
    pub message: String,
}

/// Translates. With `report` absent, whatever depends on the data plane is Unknown.
pub fn translate(snapshot: &Snapshot, report: Option<&Report>) -> Translation {
    let classes = class::classes(snapshot);
    let model = Model::new(snapshot, &classes, |_| true);
    Translation { config: model.config(), statuses: model.statuses(report), notes: model.notes }
}

/// The statuses that may be others since EndpointSlices of `services`, and nothing else, changed: those of the routes
/// that refer to them.
pub fn retell(snapshot: &Snapshot, report: Option<&Report>, services: &BTreeSet<ServiceName>) -> Statuses {
    let classes = class::classes(snapshot);
    let touched: FxHashSet<&ObjectKey> =
        services.iter().flat_map(|service| snapshot.routes_to(service)).map(|(key, _)| key).collect();
    let model = Model::new(snapshot, &classes, |route| touched.contains(route));
    model.route_statuses(&programmed::Programmed::new(report))
}

/// The Config alone, in half the time.
pub fn config(snapshot: &Snapshot) -> Config {
    Model::new(snapshot, &class::classes(snapshot), |_| true).config()
}

/// The statuses alone.
pub fn statuses(snapshot: &Snapshot, report: Option<&Report>) -> Statuses {
    Model::new(snapshot, &class::classes(snapshot), |_| true).statuses(report)
}

/// Everything that Config and statuses follow from.
struct Model<'a> {
    classes: &'a class::Classes<'a>,
    gateways: Vec<gateway::GatewayState<'a>>,
    sets: Vec<listener_set::SetState<'a>>,
    listeners: Vec<listener::ListenerState<'a>>,
    claims: conflict::Claims,
    routes: Vec<attachment::AttachedRoute<'a>>,
    /// The backends of each route that is wanted.
    resolved: Vec<Option<backend::Resolved>>,
    notes: Vec<Note>,
}

impl<'a> Model<'a> {
    fn new(
        snapshot: &'a Snapshot,
        classes: &'a class::Classes<'a>,
        wants: impl Fn(&ObjectKey) -> bool,
    ) -> Self {
        let mut notes = Vec::new();
        let mut gateways = gateway::gateways(snapshot, classes, &mut notes);
        address::assign(snapshot, &mut gateways);
        let sets = listener_set::listener_sets(snapshot, &gateways, &mut notes);
        let mut listeners = listener::listeners(snapshot, &gateways, &sets);
        conflict::mark_conflicts(&mut listeners);
        let claims = conflict::claim_endpoints(snapshot, &gateways, &mut listeners);
        let routes = attachment::attach(snapshot, &gateways, &sets, &mut listeners, &mut notes);
        listener::choose_servers(&mut listeners);
        let is_frontend = |endpoint: &Endpoint| claims.listeners.contains_key(endpoint);
        let own = endpoint::Own { is_frontend: &is_frontend, addresses: &claims.owned };
        let backends = backend::Resolver::new(snapshot, own);
        let resolve =
            |route: &attachment::AttachedRoute<'a>| wants(route.key).then(|| backends.resolve(route.route));
        let resolved = routes.iter().map(resolve).collect();
        notes.extend(backends.notes(&routes));
        notes.sort();
        Self { classes, gateways, sets, listeners, claims, routes, resolved, notes }
    }

    fn config(&self) -> Config {
        frontend::config(&self.claims, &self.gateways, &self.listeners, &self.routes, &self.resolved)
    }

    fn statuses(&self, report: Option<&Report>) -> Statuses {
        let Self { gateways, sets, listeners, .. } = self;
        let programmed = programmed::Programmed::new(report);
        let mut statuses = class::statuses(self.classes);
        statuses.extend(gateway::statuses(gateways, sets, listeners, &programmed));
        statuses.extend(listener_set::statuses(gateways, sets, listeners, &programmed));
        statuses.extend(self.route_statuses(&programmed));
        statuses
    }

    fn route_statuses(&self, programmed: &programmed::Programmed<'_>) -> Statuses {
        route::statuses(&self.gateways, &self.listeners, &self.routes, &self.resolved, programmed)
    }
}
