//! A standalone instance: objects from files, told of in files and over the control socket.
//!
//! Levels, not edges: events mark what is stale, [`Balancer::converge`] does what there is to do.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use blixt_core::config::Generation;
use blixt_core::snapshot::Machine;
use blixt_core::status::Statuses;
use blixt_core::translate::{self, Note, Touched, Translation, retranslate, translate};
use blixt_loader::host::Observation;
use blixt_loader::release_memory;
use tokio::sync::mpsc;

use super::assigned;
use crate::control::{Ask, Reply, Request};
use crate::explain;
use crate::metrics::Numbers;
use crate::node::Node;
use crate::node::runtime_dir::RuntimeDir;
use crate::source::Source;
use crate::source::pending::Changes;
use crate::status::book::{self, Book};
use crate::status::dir::StatusDir;
use crate::status::gather::{self, Objects};
use crate::status::turned::log_transitions;
use crate::status::untold::Untold;
use crate::status::view::View;

/// A running instance.
pub struct Balancer {
    node: Node,
    source: Source,
    /// What changed since the last translation.
    touched: Touched,
    notes: Vec<Note>,
    book: Book,
    status_dir: Option<StatusDir>,
    assigned_file: PathBuf,
    untold: Untold,
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

impl Balancer {
    /// Begins with the objects of `source`; `book` says what was told before.
    pub fn new(
        node: Node,
        mut source: Source,
        status_dir: Option<StatusDir>,
        book: Book,
        runtime_dir: &RuntimeDir,
        told: mpsc::Sender<Told>,
    ) -> Self {
        let assigned_file = runtime_dir.assigned();
        source.store_mut().snapshot_mut().assigned = assigned::load(&assigned_file);
        Self {
            node,
            source,
            touched: Touched::Everything,
            notes: Vec::new(),
            book,
            status_dir,
            assigned_file,
            untold: Untold::default(),
            told,
            telling: (0, false),
        }
    }

    /// The data plane.
    pub fn node(&mut self) -> &mut Node {
        &mut self.node
    }

    /// Waits for changes of files.
    pub async fn file_changes(&mut self) -> anyhow::Result<Changes> {
        self.source.changes().await
    }

    /// Reads what changed.
    pub fn read_files(&mut self, changes: &Changes) {
        let problems = self.source.store().problems();
        self.touched.merge(self.source.refresh(changes));
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
            self.untold.mark(Touched::Everything);
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
            self.touched = Touched::Everything;
        }
        self.node.observe(observation);
    }

    /// Does what there is to do, as far as it can be done now.
    pub fn converge(&mut self) {
        if self.node.observation.is_none() {
            return;
        }
        let touched = std::mem::take(&mut self.touched);
        if !touched.is_nothing() {
            self.translate(&touched);
        }
        self.node.converge();
        self.look_at_report();
    }

    /// When statuses are to be worked out: not before those that are under way.
    pub fn statuses_due(&self) -> Option<Instant> {
        let (_, under_way) = self.telling;
        // Before the data plane was tried there is nothing to say of it.
        let tried = self.node.has_begun() || self.node.progress.error.is_some();
        self.untold.due().filter(|_| tried && !under_way)
    }

    /// Has it worked out what to tell about every object, on another thread: the next change need not wait for it.
    pub fn work_statuses_out(&mut self) {
        let number = self.telling.0 + 1;
        self.telling = (number, true);
        let untold = self.untold.take();
        let snapshot = Arc::clone(&self.source.store().snapshot);
        let report = self.node.report.clone();
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
        self.node.tick();
        self.look_at_report();
        if self.status_dir.as_ref().is_some_and(StatusDir::is_behind) {
            self.untold.mark(Touched::Everything);
        }
    }

    /// Answers what came over the control socket.
    pub fn answer(&mut self, ask: Ask) {
        let reply = match ask.request {
            Request::Status => Reply::from_result(Ok(self.view())),
            Request::Explain { packet } => Reply::from_result(explain::of_running(&self.node, &packet)),
        };
        // Whoever asked may have gone.
        let _ = ask.reply.send(reply);
    }

    /// Everything that `status` shows.
    pub fn view(&mut self) -> View {
        self.untold = Untold::default();
        // What is under way is older.
        self.telling = (self.telling.0 + 1, false);
        let Translation { statuses, notes, .. } =
            translate(&self.source.store().snapshot, self.node.report.as_deref());
        self.tell_all(&statuses, notes);
        gather::view(&self.node, &self.objects(), &statuses, &self.node.counters())
    }

    /// Everything that `/metrics` shows.
    pub fn numbers(&self) -> Numbers {
        gather::numbers(&self.node, &self.objects(), &self.node.counters())
    }

    /// The data plane, to remove it. Nobody is told any more that it serves.
    pub fn into_node(self) -> Node {
        if let Some(status_dir) = &self.status_dir
            && let Err(error) = status_dir.clear()
        {
            tracing::warn!(error = format!("{error:#}"), "cannot remove the statuses that were written");
        }
        self.node
    }

    fn translate(&mut self, touched: &Touched) {
        let snapshot = &self.source.store().snapshot;
        let config = match touched {
            Touched::Services(services) => retranslate(snapshot, &self.node.config, services),
            Touched::Everything => translate::config(snapshot),
        };
        self.untold.mark(touched.clone());
        let Generation(last) = self.node.progress.generation;
        if config != *self.node.config || last == 0 {
            self.node.set_config(Arc::new(config), Generation(last + 1));
        }
    }

    fn look_at_report(&mut self) {
        if self.node.take_reported() {
            self.untold.mark(Touched::Everything);
        }
    }

    fn objects(&self) -> Objects<'_> {
        Objects { store: Some(self.source.store()), book: &self.book, notes: &self.notes, trouble: None }
    }

    fn summary(&self) -> gather::Summary {
        gather::summary(&self.node, &self.objects())
    }
}
