//! The state of the leading controller, and the steps that bring agents and statuses to what the objects say.
//!
//! Levels, not edges: events mark what is to be looked at, [`Leader::converge`] does what there is to do.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blixt_core::api::ObjectKey;
use blixt_core::config::Generation;
use blixt_core::snapshot::Snapshot;
use blixt_core::status::Statuses;
use blixt_core::translate::{self, Report, ServiceAccount, Touched, infrastructure, retranslate};
use blixt_loader::release_memory;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::events::Events;
use super::fleet::{Expected, Fleet};
use super::history::History;
use super::lease::Handover;
use super::ledger::{Due, Ledger};
use super::numbers::Numbers;
use super::objects::Objects;
use super::told::Write;
use super::watch::{Seen, Source};
use super::writer::{Failure, Outcome};
use crate::run::assigned::{self, Assigned};
use crate::status::turned::log_transitions;
use crate::status::untold::Untold;
use crate::sync::server::{Connected, Published};

/// A write that failed is tried again after this, doubled each time,
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// An address that a Gateway gave back is given to nobody for so long: clients and caches may still hold it.
const REST: Duration = Duration::from_secs(60);

/// The leading controller.
pub struct Leader {
    objects: Objects,
    fleet: Fleet,
    expected: Expected,
    history: History,
    connected: Connected,
    report: Option<Arc<Report>>,
    /// The Report that statuses were last worked out with.
    told_report: Option<Arc<Report>>,
    /// When the Report may say something else though nobody says anything.
    report_due: Option<Instant>,
    /// It may say something else now: it follows from every frontend and node, so it is not made for every event.
    report_stale: bool,
    /// The generation that is published next.
    next: Generation,
    resting: BTreeMap<IpAddr, Instant>,
    statuses: StatusWork,
    outlets: Outlets,
    numbers: Numbers,
}

/// Where what the leader decides goes.
pub struct Outlets {
    /// To the nodes.
    pub published: watch::Sender<Published>,
    /// To itself, from beside the loop.
    pub worked: mpsc::Sender<Result<Worked, String>>,
    /// Statuses to the API server,
    pub writes: mpsc::UnboundedSender<(ObjectKey, Box<str>)>,
    /// addresses that rest to the Lease,
    pub resting: watch::Sender<BTreeSet<IpAddr>>,
    /// ServiceAccounts,
    pub accounts: watch::Sender<Vec<ServiceAccount>>,
    /// and Events.
    pub events: Events,
}

/// Statuses that are to be worked out, are being worked out, or have to be written again.
struct StatusWork {
    untold: Untold,
    /// `None` while statuses are worked out beside the loop.
    ledger: Option<Ledger>,
    /// Objects whose ledger is to be compared with what the API server has.
    distrusted: BTreeSet<ObjectKey>,
    /// What could not be written: when it is tried again, and after how long a wait.
    retries: BTreeMap<ObjectKey, (Option<Instant>, Duration)>,
}

/// Statuses that were worked out beside the loop.
pub struct Worked {
    ledger: Ledger,
    due: Due,
    assigned: Option<Assigned>,
}

impl Leader {
    /// Begins where the leader before left off: with the generation that is given.
    pub fn new(sources: &[Source], before: &Handover, connected: Connected, outlets: Outlets) -> Self {
        let until = Instant::now() + REST;
        let mut leader = Self {
            objects: Objects::new(sources),
            fleet: Fleet::default(),
            expected: Expected::default(),
            history: History::default(),
            connected,
            report: None,
            told_report: None,
            report_due: None,
            report_stale: true,
            next: Generation(before.generation),
            resting: before.resting.iter().map(|address| (*address, until)).collect(),
            statuses: StatusWork {
                untold: Untold::default(),
                ledger: Some(Ledger::default()),
                distrusted: BTreeSet::new(),
                retries: BTreeMap::new(),
            },
            outlets,
            numbers: Numbers::default(),
        };
        leader.rest();
        leader
    }

    /// Takes in what was seen.
    pub fn see(&mut self, seen: Seen) {
        self.report_stale |= self.fleet.see(&seen, Instant::now());
        let was_complete = self.objects.is_complete();
        self.objects.see(seen);
        if !was_complete && self.objects.is_complete() {
            self.begin();
        }
    }

    /// Every list is complete.
    pub fn has_begun(&self) -> bool {
        self.objects.is_complete()
    }

    /// Does what there is to do now.
    pub fn converge(&mut self) {
        if !self.has_begun() {
            return;
        }
        if self.report_stale {
            self.objects.set_node_addresses(self.fleet.node_addresses());
        }
        let touched = self.objects.take_touched();
        if !touched.is_nothing() {
            self.release_addresses();
            self.publish(&touched);
            if touched == Touched::Everything {
                let accounts = infrastructure(&self.objects.snapshot);
                self.outlets.accounts.send_if_modified(|known| {
                    let is_news = *known != accounts;
                    *known = accounts;
                    is_news
                });
            }
            self.statuses.untold.mark(touched);
        }
        self.compare_written();
        if std::mem::take(&mut self.report_stale) {
            self.look_at_nodes();
        }
    }

    /// A node connected, said something or left, or time has passed for those that did not.
    pub fn hear(&mut self) {
        self.report_stale = true;
    }

    /// When there is something to do though nothing happened.
    pub fn due(&self) -> Option<Instant> {
        let rested = self.resting.values().min().copied();
        let retry = self.statuses.retries.values().filter_map(|(at, _)| *at).min();
        [self.statuses_due(), self.report_due, rested, retry].into_iter().flatten().min()
    }

    /// Does what is due by now.
    pub fn work(&mut self) {
        let now = Instant::now();
        self.report_stale |= self.report_due.is_some_and(|due| due <= now);
        if self.resting.values().any(|until| *until <= now) {
            self.resting.retain(|_, until| *until > now);
            self.rest();
            // Somebody may wait for an address.
            self.objects.touch_all();
        }
        let is_due = |at: &Option<Instant>| at.is_some_and(|at| at <= now);
        let retries = self.statuses.retries.iter_mut().filter(|(_, (at, _))| is_due(at));
        let due: Vec<ObjectKey> = retries
            .map(|(key, (at, _))| {
                // It is under way now; how long it waited is remembered until it succeeds.
                *at = None;
                key.clone()
            })
            .collect();
        if !due.is_empty() {
            due.into_iter().for_each(|key| self.distrust(key));
            self.statuses.untold.mark(Touched::Everything);
        }
        if self.statuses_due().is_some_and(|due| due <= now) {
            self.work_statuses_out();
        }
    }

    /// Takes in statuses that were worked out, and has them written.
    pub fn take_worked(&mut self, worked: Result<Worked, String>) {
        let Worked { mut ledger, due: Due { writes, is_held: _ }, assigned } = match worked {
            Ok(worked) => worked,
            Err(error) => {
                // The next change has them worked out again, and compared with what the API server has.
                tracing::error!(error, "cannot work statuses out: a fault of blixt, please report it");
                self.statuses.ledger = Some(Ledger::default());
                return;
            }
        };
        ledger.distrust(&std::mem::take(&mut self.statuses.distrusted));
        self.statuses.ledger = Some(ledger);
        if let Some(assigned) = assigned {
            self.assign(assigned);
        }
        let mut turned = Vec::new();
        for Write { key, body, transitions } in writes {
            self.numbers.status_writes += 1;
            if let Some(object) = self.objects.object(&key) {
                let told = transitions.iter().cloned().map(|transition| (object.clone(), transition));
                told.for_each(|(object, transition)| self.outlets.events.tell(object, transition));
            }
            turned.extend(transitions);
            // The writer lives as long as the leader.
            let _ = self.outlets.writes.send((key, body));
        }
        log_transitions(&turned);
    }

    /// Takes in what became of a write.
    pub fn take_outcome(&mut self, outcome: Outcome) {
        let Outcome { key, result } = outcome;
        let failure = match result {
            Ok(()) | Err(Failure::Gone) => {
                self.statuses.retries.remove(&key);
                return;
            }
            Err(failure) => failure,
        };
        self.numbers.status_failures += 1;
        let (_, last) = self.statuses.retries.get(&key).copied().unwrap_or_default();
        let wait = (last * 2).clamp(FIRST_RETRY, LONGEST_RETRY);
        if let Failure::Other(error) = &failure {
            tracing::warn!(object = %key, error, seconds = wait.as_secs_f64(), "cannot write a status, trying again");
        }
        self.statuses.retries.insert(key, (Some(Instant::now() + wait), wait));
    }

    /// What is counted.
    pub fn numbers(&self) -> Numbers {
        let Published { generation, config } = self.outlets.published.borrow().clone();
        Numbers {
            leading: true,
            generation: generation.0,
            frontends: config.frontends.len() as u64,
            nodes_expected: self.expected.ready.len() as u64,
            nodes_connected: self.connected.count() as u64,
            objects: self.objects.counts(),
            ..self.numbers.clone()
        }
    }

    fn begin(&mut self) {
        let assigned = self.objects.assigned();
        Arc::make_mut(&mut self.objects.snapshot).assigned = assigned;
        self.objects.touch_all();
    }

    fn publish(&mut self, touched: &Touched) {
        let last = self.outlets.published.borrow().clone();
        let is_first = last.generation == Generation(0);
        let snapshot = &self.objects.snapshot;
        let config = match touched {
            Touched::Services(services) if !is_first => retranslate(snapshot, &last.config, services),
            _ => translate::config(snapshot).sharing(&last.config),
        };
        if config == *last.config && !is_first {
            return;
        }
        let generation = self.next;
        self.next = Generation(generation.0 + 1);
        self.report_stale = true;
        self.history.publish(&last.config, &config, generation, Instant::now());
        tracing::info!(generation = generation.0, frontends = config.frontends.len(), "published");
        self.outlets.published.send_replace(Published { generation, config: Arc::new(config) });
    }

    /// What somebody else wrote over our statuses is written again.
    fn compare_written(&mut self) {
        let mut differ = false;
        for key in self.objects.take_written() {
            let Some(observed) = self.objects.observed().get(&key).cloned() else { continue };
            match &self.statuses.ledger {
                Some(ledger) if !ledger.is_told(&key) || ledger.agrees(&key, &observed) => continue,
                _ => self.distrust(key),
            }
            differ = true;
        }
        if differ {
            self.statuses.untold.mark(Touched::Everything);
        }
    }

    fn distrust(&mut self, key: ObjectKey) {
        match &mut self.statuses.ledger {
            Some(ledger) => ledger.distrust(&[key].into()),
            None => drop(self.statuses.distrusted.insert(key)),
        }
    }

    fn look_at_nodes(&mut self) {
        let now = Instant::now();
        self.expected = self.fleet.expected(now);
        self.connected.retain(|name| self.fleet.has_node(name));
        let (report, due) = self.history.report(&self.expected, &self.connected.said(), now);
        self.report_due = due;
        if self.report.as_deref() != Some(&report) {
            self.report = Some(Arc::new(report));
            self.statuses.untold.mark(Touched::default());
        }
    }

    fn statuses_due(&self) -> Option<Instant> {
        self.statuses.ledger.as_ref()?;
        self.statuses.untold.due()
    }

    fn work_statuses_out(&mut self) {
        let Some(mut ledger) = self.statuses.ledger.take() else { return };
        let mut untold = self.statuses.untold.take();
        if self.report != self.told_report {
            untold = Touched::Everything;
        }
        self.told_report = self.report.clone();
        let snapshot = Arc::clone(&self.objects.snapshot);
        let observed = Arc::clone(self.objects.observed());
        let report = self.report.clone();
        // Without a node nobody is going to answer.
        let hold = !self.expected.ready.is_empty();
        let worked = self.outlets.worked.clone();
        let work = tokio::task::spawn_blocking(move || {
            let now = Timestamp::now();
            let (statuses, is_all) = match untold {
                Touched::Services(services) => {
                    (translate::retell(&snapshot, report.as_deref(), &services), false)
                }
                Touched::Everything => (translate::statuses(&snapshot, report.as_deref()), true),
            };
            let due = ledger.due(&statuses, is_all, hold, &observed, now);
            let assigned = is_all.then(|| assigned::of(&statuses));
            drop::<Statuses>(statuses);
            if is_all {
                release_memory();
            }
            Worked { ledger, due, assigned }
        });
        tokio::spawn(async move {
            // Where nobody takes it the leader has ended.
            let _ = worked.send(work.await.map_err(|error| error.to_string())).await;
        });
    }

    /// Remembers who has which address, and lets those rest that were given back.
    fn assign(&mut self, assigned: Assigned) {
        if self.objects.snapshot.assigned == assigned {
            return;
        }
        let held: BTreeSet<IpAddr> = assigned.values().flatten().copied().collect();
        let before: BTreeSet<IpAddr> = self.objects.snapshot.assigned.values().flatten().copied().collect();
        let until = Instant::now() + REST;
        self.resting.extend(before.difference(&held).map(|address| (*address, until)));
        self.resting.retain(|address, _| !held.contains(address));
        Arc::make_mut(&mut self.objects.snapshot).assigned = assigned;
        self.rest();
        // What was published meanwhile may have given one of them to somebody else.
        self.objects.touch_all();
    }

    /// The addresses of Gateways that are gone rest from now on: nobody gets them in the same moment.
    fn release_addresses(&mut self) {
        let Snapshot { assigned, gateways, .. } = &*self.objects.snapshot;
        let gone: Vec<ObjectKey> =
            assigned.keys().filter(|key| !gateways.contains_key(*key)).cloned().collect();
        if gone.is_empty() {
            return;
        }
        let until = Instant::now() + REST;
        let assigned = &mut Arc::make_mut(&mut self.objects.snapshot).assigned;
        let freed: Vec<IpAddr> = gone.iter().filter_map(|key| assigned.remove(key)).flatten().collect();
        let held: BTreeSet<IpAddr> = assigned.values().flatten().copied().collect();
        let freed = freed.into_iter().filter(|address| !held.contains(address));
        self.resting.extend(freed.map(|address| (address, until)));
        self.rest();
    }

    fn rest(&mut self) {
        let resting: BTreeSet<IpAddr> = self.resting.keys().copied().collect();
        self.outlets.resting.send_replace(resting.clone());
        Arc::make_mut(&mut self.objects.snapshot).resting = resting;
    }
}
