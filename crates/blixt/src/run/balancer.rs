//! The state of a running instance, and the steps that bring the data plane to what the manifests say.
//!
//! Levels, not edges: events mark what is stale, [`Balancer::converge`] does what there is to do, and whatever
//! failed stays stale until it works.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blixt_core::compile::{self, Change, Compilation, Last, compile, recompile};
use blixt_core::config::Config;
use blixt_core::diff::diff;
use blixt_core::snapshot::Machine;
use blixt_core::status::Statuses;
use blixt_core::tables::{Op, Tables};
use blixt_core::translate::{self, Note, Report, Touched, Translation, retranslate, translate};
use blixt_loader::host::{
    Announcement, Interest, Listening, Observation, Watcher, announce, announcements, listening_sockets,
};
use blixt_loader::{Counters, Dataplane, release_memory};
use tokio::sync::mpsc;

use super::assigned;
use super::devices::{Devices, needs_egress};
use super::report::report;
use super::runtime_dir::RuntimeDir;
use super::settings::Settings;
use crate::control::{Ask, Reply, Request};
use crate::explain;
use crate::metrics::Numbers;
use crate::source::Source;
use crate::source::pending::Changes;
use crate::status::book::{self, Book, Transition};
use crate::status::dir::StatusDir;
use crate::status::gather;
use crate::status::view::View;

/// Statuses are told this long after the data plane changed: the next change comes first.
const STATUS_DELAY: Duration = Duration::from_millis(50);
/// But not later than this.
const STATUS_LATEST: Duration = Duration::from_millis(500);

/// More conditions than this that turn at once are counted in the log, not listed.
const MANY: usize = 50;

/// A running instance.
pub struct Balancer {
    pub(crate) settings: Settings,
    pub(crate) dataplane: Dataplane,
    pub(crate) source: Source,
    pub(crate) devices: Devices,
    /// What the maps hold, without the slots of rings.
    pub(crate) tables: Tables,
    /// What they should do.
    pub(crate) config: Arc<Config>,
    pub(crate) observation: Option<Arc<Observation>>,
    pub(crate) compile_problems: Vec<compile::Problem>,
    pub(crate) notes: Vec<Note>,
    pub(crate) report: Option<Arc<Report>>,
    pub(crate) book: Book,
    pub(crate) progress: Progress,
    machine: Watcher,
    status_dir: Option<StatusDir>,
    assigned_file: PathBuf,
    listening: Listening,
    /// What neighbours were told.
    announced: BTreeSet<Announcement>,
    /// Why not everybody is heard who looks for an address.
    unheard: Option<String>,
    /// Why no interface carries the program.
    pub(crate) unhooked: Option<String>,
    stale: Stale,
    /// What the tables were compiled from; `None` where that is not known.
    compiled: Option<Compiled>,
    /// The number of the interest that the Config has in the machine.
    interest: u64,
    /// No memory lies idle that a change took for a moment.
    is_tidy: bool,
    statuses_marked: Option<(Instant, Instant)>,
    /// Whose statuses those are.
    untold: Touched,
    /// Where statuses come back that were worked out beside the run loop.
    told: mpsc::Sender<Told>,
    /// The number of the newest of them, and whether it is still under way.
    telling: (u64, bool),
}

/// Statuses that were worked out beside the run loop.
pub struct Told {
    number: u64,
    what: Telling,
}

/// What there is to tell.
enum Telling {
    /// Of every object, with what no status can say.
    All(Statuses, Vec<Note>),
    /// Of some objects; with all others it is as it was.
    Some(Statuses),
}

/// What it begins with: all that can go wrong about that, before it owns anything.
pub struct Beginning {
    tables: Tables,
    devices: Devices,
    status_dir: Option<StatusDir>,
    book: Book,
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
    pub(crate) generation: u64,
    /// The number of the last one that the maps hold.
    pub(crate) applied_generation: u64,
    pub(crate) applied: u64,
    pub(crate) failures: u64,
    pub(crate) apply_seconds: f64,
    /// Why the last apply failed.
    pub(crate) error: Option<String>,
}

/// What is to be looked at anew.
#[derive(Debug, Default)]
struct Stale {
    objects: Touched,
    tables: bool,
    devices: bool,
    retry: bool,
}

impl Beginning {
    /// What the maps hold, what is hooked, and the statuses that were written.
    pub fn find(settings: &Settings, dataplane: &Dataplane) -> anyhow::Result<Self> {
        // Maps that are new hold nothing.
        let is_taken_over = dataplane.found().is_taken_over;
        let tables = if is_taken_over { dataplane.read_back()? } else { Tables::default() };
        let devices = Devices::inheriting(&dataplane.attachments()?);
        let status_dir = settings.status_dir.as_deref().map(StatusDir::open).transpose()?;
        let book = status_dir.as_ref().map(StatusDir::book).transpose()?.unwrap_or_default();
        Ok(Self { tables, devices, status_dir, book })
    }
}

impl Balancer {
    /// Takes over what was found.
    pub fn new(
        settings: Settings,
        dataplane: Dataplane,
        beginning: Beginning,
        machine: Watcher,
        source: Source,
        runtime_dir: &RuntimeDir,
        told: mpsc::Sender<Told>,
    ) -> Self {
        let Beginning { tables, devices, status_dir, book } = beginning;
        let mut balancer = Self {
            settings,
            dataplane,
            source,
            devices,
            tables,
            config: Arc::default(),
            observation: None,
            compile_problems: Vec::new(),
            notes: Vec::new(),
            report: None,
            book,
            progress: Progress {
                started: jiff::Timestamp::now(),
                begun: Instant::now(),
                generation: 0,
                applied_generation: 0,
                applied: 0,
                failures: 0,
                apply_seconds: 0.0,
                error: None,
            },
            machine,
            status_dir,
            assigned_file: runtime_dir.assigned(),
            listening: Listening::default(),
            announced: BTreeSet::new(),
            unheard: None,
            unhooked: None,
            stale: Stale { objects: Touched::Everything, tables: true, devices: true, retry: false },
            compiled: None,
            interest: 0,
            is_tidy: true,
            statuses_marked: None,
            untold: Touched::default(),
            told,
            telling: (0, false),
        };
        balancer.source.store_mut().snapshot_mut().assigned = assigned::load(&balancer.assigned_file);
        balancer
    }

    /// Waits for changes of files.
    pub async fn file_changes(&mut self) -> anyhow::Result<Changes> {
        self.source.changes().await
    }

    /// Reads what changed.
    pub fn read_files(&mut self, changes: &Changes) {
        let problems = self.source.store().problems();
        self.stale.objects.merge(self.source.refresh(changes));
        let now = self.source.store().problems();
        let kept = if now == problems { BTreeSet::new() } else { self.source.store().kept() };
        for problem in now.iter().filter(|problem| !problems.contains(problem)) {
            if kept.contains(&(problem.file.as_path(), problem.object.clone())) {
                tracing::warn!(%problem, "cannot be used as it is written; its last good state stays");
            } else {
                tracing::warn!(%problem, "cannot be used as it is written");
            }
        }
        if now.len() < problems.len() && now.is_empty() {
            tracing::info!("every file is in order again");
        }
        if now != problems {
            self.mark_statuses(Touched::Everything);
        }
    }

    /// Reads every file, changed or not.
    pub fn reread_files(&mut self) {
        tracing::info!("reading every file again");
        self.source.forget_all();
        self.read_files(&Changes::all());
    }

    /// Takes in what the machine looks like.
    pub fn observe(&mut self, observation: Arc<Observation>) {
        let machine = Machine {
            default_addresses: observation.primary.clone(),
            addresses: observation.host.addresses.clone(),
        };
        if self.source.store().snapshot.machine != machine {
            self.source.store_mut().snapshot_mut().machine = machine;
            self.stale.objects = Touched::Everything;
        }
        self.stale.tables = true;
        self.stale.devices = true;
        self.observation = Some(observation);
    }

    /// Does what there is to do, as far as it can be done now.
    pub fn converge(&mut self) {
        let Some(observation) = self.observation.clone() else { return };
        let touched = std::mem::take(&mut self.stale.objects);
        if !touched.is_nothing() {
            self.translate(&touched);
        }
        if observation.followed < self.interest {
            return;
        }
        if std::mem::take(&mut self.stale.tables) {
            self.fill_tables(&observation);
        }
        if self.progress.applied_generation > 0 && std::mem::take(&mut self.stale.devices) {
            let retry = std::mem::take(&mut self.stale.retry);
            let egress = needs_egress(self.tables.backends.values());
            let Settings { interfaces, hook, .. } = &self.settings;
            self.devices.follow(&mut self.dataplane, &observation.links, interfaces, *hook, egress, retry);
            self.retire_other_layouts();
            self.note_hooks(&observation);
        }
    }

    /// The data plane has held what the manifests say, perhaps without an interface: a service manager does not wait
    /// for those.
    pub fn has_begun(&self) -> bool {
        self.progress.applied_generation > 0
    }

    /// The data plane holds what the manifests say, and sees packets.
    pub fn is_ready(&self) -> bool {
        self.has_begun() && self.progress.error.is_none() && self.unhooked.is_none()
    }

    /// Says that it is.
    pub fn log_ready(&self) {
        tracing::info!(
            instance = %self.dataplane.instance(),
            frontends = self.tables.frontends.len(),
            devices = self.devices.attached().count(),
            taken_over = self.dataplane.found().is_taken_over,
            milliseconds = u64::try_from(self.progress.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "ready"
        );
    }

    /// When statuses are to be worked out: not before those that are under way.
    pub fn statuses_due(&self) -> Option<Instant> {
        let (_, under_way) = self.telling;
        // Before the data plane was tried there is nothing to say of it.
        let tried = self.has_begun() || self.progress.error.is_some();
        self.statuses_marked
            .filter(|_| tried && !under_way)
            .map(|(first, last)| (last + STATUS_DELAY).min(first + STATUS_LATEST))
    }

    /// Has it worked out what to tell about every object, on another thread: the next change need not wait for it.
    pub fn work_statuses_out(&mut self) {
        self.statuses_marked = None;
        let number = self.telling.0 + 1;
        self.telling = (number, true);
        let untold = std::mem::take(&mut self.untold);
        let snapshot = Arc::clone(&self.source.store().snapshot);
        let report = self.report.clone();
        let told = self.told.clone();
        tokio::task::spawn_blocking(move || {
            let what = match untold {
                Touched::Services(services) => {
                    Telling::Some(translate::retell(&snapshot, report.as_deref(), &services))
                }
                Touched::Everything => {
                    let Translation { statuses, notes, .. } = translate(&snapshot, report.as_deref());
                    Telling::All(statuses, notes)
                }
            };
            // Where nobody takes it the run loop has ended.
            let _ = told.blocking_send(Told { number, what });
        });
    }

    /// Takes in what was worked out, unless something newer has been told since.
    pub fn take_statuses(&mut self, told: Told) {
        if (told.number, true) == self.telling {
            self.telling.1 = false;
            match told.what {
                Telling::Some(statuses) => {
                    let changes = self.book.enter_some(&statuses, jiff::Timestamp::now());
                    self.tell(&statuses, &changes);
                }
                Telling::All(statuses, notes) => {
                    self.tell_all(&statuses, notes);
                    // They are many, and were only wanted once: nobody waits until they are gone.
                    tokio::task::spawn_blocking(move || {
                        drop(statuses);
                        release_memory();
                    });
                    self.is_tidy = true;
                }
            }
        }
    }

    fn tell_all(&mut self, statuses: &Statuses, notes: Vec<Note>) {
        self.notes = notes;
        let changes = self.book.enter(statuses, jiff::Timestamp::now());
        let assigned = assigned::of(statuses);
        if assigned != self.source.store().snapshot.assigned {
            if let Err(error) = assigned::save(&self.assigned_file, &assigned) {
                tracing::warn!(%error, "cannot remember the addresses of gateways; make room in /run");
            }
            self.source.store_mut().snapshot_mut().assigned = assigned;
        }
        self.tell(statuses, &changes);
    }

    fn tell(&mut self, statuses: &Statuses, changes: &book::Changes) {
        log_transitions(&changes.transitions);
        let summary = self.summary();
        if let Some(status_dir) = &mut self.status_dir
            && let Err(error) = status_dir.write(&self.book, statuses, &changes.objects, &summary)
        {
            tracing::warn!(error = format!("{error:#}"), "cannot write statuses, trying again");
        }
    }

    /// Keeps next hops believed, and tries again what failed.
    pub fn tick(&mut self) {
        if let Err(error) = self.dataplane.renew_hops() {
            tracing::warn!(%error, "cannot renew the next hops; the kernel is asked for each packet when they run out");
        }
        if !std::mem::replace(&mut self.is_tidy, true) {
            tokio::task::spawn_blocking(release_memory);
        }
        self.stale.tables |= self.progress.error.is_some();
        if self.devices.failures().next().is_some() {
            self.stale.devices = true;
            self.stale.retry = true;
        }
        if self.status_dir.as_ref().is_some_and(StatusDir::is_behind) {
            self.mark_statuses(Touched::Everything);
        }
        let listening = self.listening.clone();
        self.look_for_listeners();
        if listening != self.listening {
            self.make_report();
        }
    }

    /// Answers what came over the control socket.
    pub fn answer(&mut self, ask: Ask) {
        let reply = match ask.request {
            Request::Status => Reply::from_result(Ok(self.view())),
            Request::Explain { packet } => Reply::from_result(explain::of_running(self, &packet)),
        };
        // Whoever asked may have gone.
        let _ = ask.reply.send(reply);
    }

    /// Everything that `status` shows.
    pub fn view(&mut self) -> View {
        self.statuses_marked = None;
        self.untold = Touched::default();
        // What is under way is older.
        self.telling = (self.telling.0 + 1, false);
        let Translation { statuses, notes, .. } =
            translate(&self.source.store().snapshot, self.report.as_deref());
        self.tell_all(&statuses, notes);
        gather::view(self, &statuses, &self.counters())
    }

    /// Everything that `/metrics` shows.
    pub fn numbers(&self) -> Numbers {
        gather::numbers(self, &self.counters())
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

    /// The data plane, to remove it. Nobody is told any more that it serves.
    pub fn into_dataplane(self) -> Dataplane {
        if let Some(status_dir) = &self.status_dir
            && let Err(error) = status_dir.clear()
        {
            tracing::warn!(error = format!("{error:#}"), "cannot remove the statuses that were written");
        }
        self.dataplane
    }

    fn translate(&mut self, touched: &Touched) {
        let snapshot = &self.source.store().snapshot;
        let config = match touched {
            Touched::Services(services) => retranslate(snapshot, &self.config, services),
            Touched::Everything => translate::config(snapshot),
        };
        self.mark_statuses(touched.clone());
        if config == *self.config && self.progress.generation > 0 {
            return;
        }
        self.config = Arc::new(config);
        self.progress.generation += 1;
        self.stale.tables = true;
        self.interest = self.machine.follow(interest(&self.config));
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
        self.is_tidy &= ops.is_empty();
        self.look_for_listeners();
        self.make_report();
        if !ops.is_empty() {
            tracing::info!(
                generation = self.progress.generation,
                frontends = self.tables.frontends.len(),
                operations = ops.len(),
                milliseconds = self.progress.apply_seconds * 1e3,
                "applied"
            );
        }
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
            self.mark_statuses(Touched::Everything);
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
        match self.dataplane.retire_other_layouts() {
            Ok(()) => tracing::info!(layouts, "replaced what another version had at work"),
            Err(error) => tracing::warn!(%error, "cannot remove what another version has left"),
        }
    }

    fn mark_statuses(&mut self, touched: Touched) {
        self.untold.merge(touched);
        let now = Instant::now();
        let first = self.statuses_marked.map_or(now, |(first, _)| first);
        self.statuses_marked = Some((first, now));
    }

    fn counters(&self) -> Counters {
        self.dataplane.counters().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the counters");
            Counters::default()
        })
    }

    fn summary(&self) -> gather::Summary {
        gather::summary(self)
    }
}

/// Every condition that turned; where very many did, how many of each.
fn log_transitions(transitions: &[Transition]) {
    if transitions.len() <= MANY {
        for turned in transitions {
            tracing::info!(
                object = %turned.object, part = turned.part, condition = turned.condition,
                status = turned.status, reason = turned.reason, message = turned.message, "status"
            );
        }
        return;
    }
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for Transition { object, condition, status, reason, .. } in transitions {
        *counts.entry((object.kind, condition, *status, reason)).or_default() += 1;
    }
    for ((kind, condition, status, reason), count) in counts {
        tracing::info!(%kind, condition, status, reason, count, "status of many; see `blixt status`");
    }
}

/// What the Config makes worth knowing of the machine.
fn interest(config: &Config) -> Interest {
    let pools = config.frontends.values().map(|frontend| &frontend.pool);
    let backends = pools.flat_map(|pool| pool.backends().map(|backend| backend.address)).collect();
    Interest { backends, addresses: config.addresses.clone() }
}
