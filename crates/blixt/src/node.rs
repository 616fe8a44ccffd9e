//! The data plane of one machine: it is given a [`Config`] and what the machine looks like, and brings the kernel's maps and
//! hooks to that. Where the Config comes from, and who is told of the [`Report`], is its owner's business.
//!
//! ```text
//! Config ──────┐
//!              ├─► Node: compile ► diff ► apply ► attach ► Report
//! Observation ─┘
//! ```
//!
//! Levels, not edges: events mark what is stale, [`Node::converge`] does what there is to do, and whatever failed stays
//! stale until it works.

pub mod devices;
pub mod flows;
mod interest;
pub mod report;
pub mod runtime_dir;
pub mod settings;
pub mod signals;
pub mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use blixt_core::compile::{self, Change, Compilation, Last, compile, recompile};
use blixt_core::config::{Config, Generation};
use blixt_core::diff::diff;
use blixt_core::tables::{Op, Tables};
use blixt_core::translate::Report;
use blixt_loader::host::{
    self, Announcement, Listening, Observation, Watcher, Wire, announce, announcements, listening_sockets,
};
use blixt_loader::{Counters, Dataplane, release_memory};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use self::devices::{Devices, needs_egress};
use self::flows::Flows;
use self::interest::interest;
use self::report::report;
use self::settings::Settings;
use self::start::notify;

/// Next hops are believed for this long without us.
pub const HOP_LIFE: Duration = Duration::from_secs(30);
/// They are renewed this often, and what failed is tried again: several times within their life.
pub const TICK: Duration = Duration::from_secs(5);

/// Without another change for this long, memory is given back ...
const QUIET: Duration = Duration::from_secs(1);
/// ... and after this long, however many changes come.
const LONGEST_UNTIDY: Duration = Duration::from_secs(60);

/// A data plane at work.
pub struct Node {
    pub(crate) settings: Settings,
    pub(crate) dataplane: Dataplane,
    pub(crate) devices: Devices,
    pub(crate) flows: Flows,
    /// What the maps hold, without the slots of rings.
    pub(crate) tables: Tables,
    /// What they should do.
    pub(crate) config: Arc<Config>,
    pub(crate) observation: Option<Arc<Observation>>,
    pub(crate) compile_problems: Vec<compile::Problem>,
    pub(crate) report: Option<Arc<Report>>,
    pub(crate) progress: Progress,
    /// Why no interface carries the program.
    pub(crate) unhooked: Option<String>,
    machine: Watcher,
    listening: Listening,
    /// What neighbours were told.
    announced: BTreeSet<Announcement>,
    /// Why not everybody is heard who looks for an address.
    unheard: Option<String>,
    /// How this machine's own processes reach the addresses.
    wire: Wire,
    /// Why they do not.
    unwired: Option<String>,
    stale: Stale,
    /// What the tables were compiled from; `None` where that is not known.
    compiled: Option<Compiled>,
    /// The number of the interest that the Config has in the machine.
    interest: u64,
    /// Gives memory back that changes took for a moment, and since when they follow each other.
    tidying: Option<(Instant, JoinHandle<()>)>,
    /// It was said that it has begun.
    has_told: bool,
}

/// What it begins with: all that can go wrong about that, before it owns anything.
pub struct Beginning {
    tables: Tables,
    devices: Devices,
}

/// What tables were compiled from.
struct Compiled {
    config: Arc<Config>,
    observation: Arc<Observation>,
}

/// How far it has come.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) started: jiff::Timestamp,
    pub(crate) begun: Instant,
    /// The number of the Config.
    pub(crate) generation: Generation,
    /// The number of the last one that the maps hold.
    pub(crate) applied_generation: Generation,
    pub(crate) applied: u64,
    pub(crate) failures: u64,
    pub(crate) apply_seconds: f64,
    /// Why the last apply failed.
    pub(crate) error: Option<String>,
}

/// What is to be looked at anew.
#[derive(Debug)]
struct Stale {
    tables: bool,
    devices: bool,
    retry: bool,
    /// The Report says something else than when it was last asked for.
    report: bool,
}

impl Beginning {
    /// What the maps hold, and what is hooked.
    pub fn find(dataplane: &Dataplane) -> anyhow::Result<Self> {
        // Maps that are new hold nothing.
        let is_taken_over = dataplane.found().is_taken_over;
        let tables = if is_taken_over { dataplane.read_back()? } else { Tables::default() };
        Ok(Self { tables, devices: Devices::inheriting(&dataplane.attachments()?) })
    }
}

impl Node {
    /// Takes over what was found.
    pub fn new(settings: Settings, dataplane: Dataplane, beginning: Beginning, machine: Watcher) -> Self {
        let Beginning { tables, devices } = beginning;
        Self {
            settings,
            flows: Flows::of(&dataplane),
            dataplane,
            devices,
            tables,
            config: Arc::default(),
            observation: None,
            compile_problems: Vec::new(),
            report: None,
            progress: Progress {
                started: jiff::Timestamp::now(),
                begun: Instant::now(),
                generation: Generation(0),
                applied_generation: Generation(0),
                applied: 0,
                failures: 0,
                apply_seconds: 0.0,
                error: None,
            },
            machine,
            listening: Listening::default(),
            announced: BTreeSet::new(),
            unheard: None,
            wire: Wire::default(),
            unwired: None,
            unhooked: None,
            stale: Stale { tables: true, devices: true, retry: false, report: false },
            compiled: None,
            interest: 0,
            tidying: None,
            has_told: false,
        }
    }

    /// Takes in what the machine looks like.
    pub fn observe(&mut self, mut observation: Arc<Observation>) {
        if !self.settings.announces {
            let Observation { host, unanswered, .. } = Arc::make_mut(&mut observation);
            host.on_link.clear();
            unanswered.clear();
        }
        self.stale.tables = true;
        self.stale.devices = true;
        self.observation = Some(observation);
    }

    /// Takes in what the data plane should do from now on. Generations count from 1.
    pub fn set_config(&mut self, config: Arc<Config>, generation: Generation) {
        let last = std::mem::replace(&mut self.config, config);
        self.progress.generation = generation;
        self.stale.tables = true;
        self.interest = self.machine.follow(interest(&last, &self.config));
    }

    /// Does what there is to do, as far as it can be done now.
    pub fn converge(&mut self) {
        let Some(observation) = self.observation.clone() else { return };
        // Before the first Config there is nothing to compare the maps with: they work on.
        if self.progress.generation == Generation(0) || observation.followed < self.interest {
            return;
        }
        let is_stale = self.stale.tables || self.stale.devices;
        if std::mem::take(&mut self.stale.tables) {
            self.fill_tables(&observation);
        }
        if self.has_begun() && std::mem::take(&mut self.stale.devices) {
            let retry = std::mem::take(&mut self.stale.retry);
            let egress = needs_egress(self.tables.backends.values());
            let Settings { interfaces, hook, .. } = &self.settings;
            carry_flows(&self.dataplane);
            self.devices.follow(&mut self.dataplane, &observation.links, interfaces, *hook, egress, retry);
            self.retire_other_layouts();
            self.note_hooks(&observation);
        }
        if self.has_begun() && is_stale {
            self.tend_wire(&observation);
        }
    }

    /// Whether the Report says something else since this was last asked.
    pub fn take_reported(&mut self) -> bool {
        std::mem::take(&mut self.stale.report)
    }

    /// The data plane has held what the manifests say, perhaps without an interface: a service manager does not wait
    /// for those.
    pub fn has_begun(&self) -> bool {
        self.progress.applied_generation > Generation(0)
    }

    /// The data plane holds what the manifests say, and sees packets.
    pub fn is_ready(&self) -> bool {
        self.has_begun() && self.progress.error.is_none() && self.unhooked.is_none()
    }

    /// Says whether it is ready, and at the first time also in the log and to the service manager.
    pub fn tell_ready(&mut self, ready: &watch::Sender<bool>) {
        ready.send_replace(self.is_ready());
        if self.has_begun() && !std::mem::replace(&mut self.has_told, true) {
            self.log_ready();
            notify(&[sd_notify::NotifyState::Ready]);
        }
    }

    fn log_ready(&self) {
        tracing::info!(
            instance = %self.dataplane.instance(),
            frontends = self.tables.frontends.len(),
            devices = self.devices.attached().count(),
            taken_over = self.dataplane.found().is_taken_over,
            milliseconds = u64::try_from(self.progress.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "ready"
        );
    }

    /// Keeps next hops believed, and tries again what failed.
    pub fn tick(&mut self) {
        self.flows.tick();
        if let Err(error) = self.dataplane.renew_hops() {
            tracing::warn!(%error, "cannot renew the next hops; the kernel is asked for each packet when they run out");
        }
        self.stale.tables |= self.progress.error.is_some();
        self.stale.devices |= self.unwired.is_some();
        if self.devices.failures().next().is_some() {
            self.stale.devices = true;
            self.stale.retry = true;
        }
        let listening = self.listening.clone();
        self.look_for_listeners();
        if listening != self.listening {
            self.make_report();
        }
    }

    /// What the maps hold, slots of rings included, and the Config that it was compiled from.
    pub fn compiled(&self) -> (Tables, &Config) {
        match &self.compiled {
            Some(Compiled { config, observation }) => {
                let limits = self.dataplane.capacity().limits;
                (compile::with_slots(&self.tables, config, &observation.host, &limits), config)
            }
            None => (self.tables.clone(), &self.config),
        }
    }

    /// What the kernel counted.
    pub fn counters(&self) -> Counters {
        self.dataplane.counters().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the counters");
            Counters::default()
        })
    }

    /// Removes every trace of it from the machine.
    pub fn remove(self) -> anyhow::Result<()> {
        let released = host::release_neighbours()
            .context("cannot release the neighbours that the kernel keeps for blixt");
        // With the wire goes what leads to it, before nobody is there to answer.
        let unwired = host::remove_wire().context("cannot remove the wire of this machine's own processes");
        let removed = self.dataplane.remove().map_err(anyhow::Error::from);
        removed.and(released.map(drop)).and(unwired)
    }

    fn fill_tables(&mut self, observation: &Arc<Observation>) {
        let began = Instant::now();
        let limits = self.dataplane.capacity().limits;
        let host = &observation.host;
        let mut whole = None;
        let Change { ops, problems } = match self.compiled.take() {
            Some(Compiled { config, observation: last }) => {
                let problems = &self.compile_problems;
                let last = Last { config: &config, host: &last.host, tables: &self.tables, problems };
                recompile(&self.config, host, &last, &limits)
            }
            None => {
                let Compilation { tables, problems } = compile(&self.config, host, &self.tables, &limits);
                let ops = diff(&self.tables, &tables);
                whole = Some(tables);
                Change { ops, problems }
            }
        };
        self.compile_problems = problems;
        let needed_egress = needs_egress(self.tables.backends.values());
        let set_backends = ops.iter().filter_map(|op| match op {
            Op::SetBackend(_, entry) => Some(entry),
            _ => None,
        });
        // Maps that were taken over may be empty: a process may have ended between making and filling them.
        let is_filled = self.dataplane.found().is_taken_over && !self.tables.frontends.is_empty();
        let is_at_work = self.has_begun() || is_filled;
        if !needed_egress && needs_egress(set_backends) && is_at_work {
            // No request may reach the first backend on this machine before its replies are translated. Maps that
            // nobody has filled yet must not be hooked: what another version has left does the work until then.
            let Settings { interfaces, hook, .. } = &self.settings;
            self.devices.follow(&mut self.dataplane, &observation.links, interfaces, *hook, true, false);
        }
        if !ops.is_empty() && !self.apply(&ops, began) {
            self.make_report();
            return;
        }
        // Trees that are made at once take less room than those that grow entry by entry.
        match whole {
            Some(tables) => self.tables = tables,
            None => ops.iter().for_each(|op| self.tables.apply(op)),
        }
        self.tables.forget_slots();
        self.announce(observation);
        // A removed local backend takes the egress programs along, an added one wants them.
        self.stale.devices |= needed_egress != needs_egress(self.tables.backends.values());
        self.compiled =
            Some(Compiled { config: Arc::clone(&self.config), observation: Arc::clone(observation) });
        self.progress.applied_generation = self.progress.generation;
        self.progress.error = None;
        self.look_for_listeners();
        self.make_report();
        if !ops.is_empty() {
            self.tidy_later();
            tracing::info!(
                generation = self.progress.generation.0,
                frontends = self.tables.frontends.len(),
                operations = ops.len(),
                milliseconds = self.progress.apply_seconds * 1e3,
                "applied"
            );
        }
    }

    /// Has memory given back that a change took for a moment, when no other change follows: it would take the memory again, and
    /// wait for it.
    fn tidy_later(&mut self) {
        let since = match &self.tidying {
            Some((since, tidying)) if !tidying.is_finished() => {
                if since.elapsed() > LONGEST_UNTIDY {
                    return;
                }
                tidying.abort();
                *since
            }
            _ => Instant::now(),
        };
        let tidying = tokio::spawn(async {
            sleep(QUIET).await;
            tokio::task::spawn_blocking(release_memory);
        });
        self.tidying = Some((since, tidying));
    }

    /// Hears who looks for the addresses, and tells neighbours where they are, as far as it is news to them; after a start
    /// it may all be.
    fn announce(&mut self, observation: &Observation) {
        let addresses = &self.tables.addresses;
        let unheard = self.dataplane.join_groups(addresses).err().map(|error| error.to_string());
        if let Some(error) = unheard.as_ref().filter(|_| unheard != self.unheard) {
            tracing::warn!(error, "cannot hear everybody who looks for an address, trying again");
        }
        self.unheard = unheard;
        let announcements = announcements(addresses, &observation.links);
        let news: Vec<_> = announcements.difference(&self.announced).cloned().collect();
        self.announced = announcements;
        if news.is_empty() {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = announce(news).await {
                tracing::warn!(%error, "cannot announce an address");
            }
        });
    }

    /// Lets this machine's own processes reach the addresses that only Blixt owns.
    fn tend_wire(&mut self, observation: &Observation) {
        let addresses = self.tables.addresses.keys().copied().collect();
        let Observation { primary, links, .. } = observation;
        let followed = self.wire.follow(&addresses, primary, links, |ifindex| self.devices.carries(ifindex));
        let unwired = followed.err().map(|error| error.to_string());
        if let Some(error) = unwired.as_ref().filter(|_| unwired != self.unwired) {
            tracing::warn!(error, "processes of this machine cannot reach a Gateway's address, trying again");
        }
        self.unwired = unwired;
    }

    /// Without an interface nothing is served, whatever the maps hold.
    fn note_hooks(&mut self, observation: &Observation) {
        let unhooked = self.devices.why_none(&observation.links, &self.settings.interfaces);
        if unhooked == self.unhooked {
            return;
        }
        if let Some(reason) = &unhooked {
            tracing::warn!(reason, "no connection is served");
        }
        self.unhooked = unhooked;
        self.make_report();
    }

    fn apply(&mut self, ops: &[Op], began: Instant) -> bool {
        let result = self.dataplane.apply(ops);
        self.progress.apply_seconds = began.elapsed().as_secs_f64();
        self.progress.applied += 1;
        let Err(error) = result else { return true };
        self.progress.failures += 1;
        tracing::error!(%error, operations = ops.len(), "cannot write to the data plane, trying again");
        self.progress.error = Some(error.to_string());
        match self.dataplane.read_back() {
            Ok(tables) => self.tables = tables,
            Err(error) => tracing::error!(%error, "cannot read the data plane back"),
        }
        false
    }

    fn make_report(&mut self) {
        let report = report(
            &self.config,
            &self.tables,
            &self.compile_problems,
            self.progress.error.as_deref(),
            self.unhooked.as_deref(),
            &self.unanswered(),
            &self.listening,
        );
        if self.report.as_deref() != Some(&report) {
            self.report = Some(Arc::new(report));
            self.stale.report = true;
        }
    }

    /// The devices that [`Observation::unanswered`] means, by name.
    fn unanswered(&self) -> BTreeMap<IpAddr, String> {
        let Some(observation) = &self.observation else { return BTreeMap::new() };
        let device = |ifindex: &u32| observation.links.get(ifindex).map(|link| link.name.clone());
        let named = observation.unanswered.iter();
        named.filter_map(|(address, ifindex)| Some((*address, device(ifindex)?))).collect()
    }

    fn look_for_listeners(&mut self) {
        match listening_sockets() {
            Ok(listening) => self.listening = listening,
            Err(error) => tracing::debug!(%error, "cannot list the sockets that listen"),
        }
    }

    /// What another version has attached does its work until each of its devices carries this one.
    fn retire_other_layouts(&mut self) {
        let layouts = self.dataplane.other_layouts().len();
        if layouts == 0 || !self.devices.are_replaced() {
            return;
        }
        // Those that began since.
        carry_flows(&self.dataplane);
        match self.dataplane.retire_other_layouts() {
            Ok(()) => tracing::info!(layouts, "replaced what another version had at work"),
            Err(error) => tracing::warn!(%error, "cannot remove what another version has left"),
        }
    }
}

/// Takes connections over from another version, if one is at work.
fn carry_flows(dataplane: &Dataplane) {
    match dataplane.carry_flows() {
        Ok(0) => {}
        Ok(entries) => tracing::info!(entries, "took connections over from another version"),
        Err(error) => {
            tracing::warn!(%error, "cannot take all connections over from another version; those that go on are begun anew")
        }
    }
}
