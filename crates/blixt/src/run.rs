//! `blixt run`: one task owns the state, and every event only marks what is to be looked at anew.
//!
//! ```text
//! files ──► Source ─┐
//! netlink ──────────┼─► Balancer: translate ► compile ► diff ► apply ► attach ► report ► statuses
//! ticks, signals ───┘                                                   ▲
//! status, explain, metrics ─────────────────────────────── asks ────────┘
//! ```

pub mod assigned;
pub mod balancer;
pub mod devices;
pub mod report;
pub mod runtime_dir;
pub mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use blixt_loader::host::{self, Observation};
use blixt_loader::{Dataplane, Found, share_memory};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use self::balancer::{Balancer, Beginning};
use self::runtime_dir::RuntimeDir;
use self::settings::Settings;
use crate::cli::RunArgs;
use crate::control::{self, Ask};
use crate::exit::{Exit, InstanceError};
use crate::metrics::{self, Numbers};
use crate::source::Source;
use crate::source::pending::Changes;

/// Next hops are believed for this long without us.
const HOP_LIFE: Duration = Duration::from_secs(30);
/// They are renewed this often, and what failed is tried again: several times within their life.
const TICK: Duration = Duration::from_secs(5);
/// Workers beside the run loop: they carry what people and Prometheus ask.
const WORKERS: usize = 1;
/// Asks that wait for the run loop.
const ASKS: usize = 16;

/// `blixt run`
pub fn run(args: RunArgs) -> anyhow::Result<Exit> {
    let settings = Settings::try_from(args)?;
    raise_descriptor_limit();
    share_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let exit = runtime.block_on(follow(settings));
    // Announcements and answers under way are not waited for.
    runtime.shutdown_background();
    exit
}

/// Rings are swapped in by descriptors, as many at a time as the soft limit lets.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files; many changes at once take longer");
    }
}

/// What a signal asks for.
enum Wish {
    End(End),
    Reread,
}

/// How the loop ends.
enum End {
    /// Forwarding stays.
    Leave,
    /// Every trace goes.
    Remove,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

async fn follow(settings: Settings) -> anyhow::Result<Exit> {
    let mut signals = Signals::new()?;
    // The lock comes first: of two instances, the second must hear of the first, not of a port that is taken.
    let dataplane = Dataplane::open(&settings.dataplane_options(HOP_LIFE)).map_err(instance_error)?;
    let start = match Start::prepare(&settings, &dataplane) {
        Ok(start) => start,
        Err(error) => return Err(withdraw(dataplane, error)),
    };
    let Start { runtime_dir, mut asked, mut numbers_asked, ready, machine, source, beginning } = start;
    let mut observations = machine.observations();
    let (told, mut statuses_told) = mpsc::channel(1);
    let mut balancer = Balancer::new(settings, dataplane, beginning, machine, source, &runtime_dir, told);
    balancer.read_files(&Changes::all());
    let observation = current(&mut observations);
    balancer.observe(observation);

    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_begun = false;
    let end = loop {
        balancer.converge();
        ready.send_replace(balancer.is_ready());
        if balancer.has_begun() && !has_begun {
            has_begun = true;
            balancer.log_ready();
            notify(&[sd_notify::NotifyState::Ready]);
        }
        let statuses_due = balancer.statuses_due();
        tokio::select! {
            biased;
            wish = signals.next() => match wish {
                Wish::End(end) => break end,
                Wish::Reread => balancer.reread_files(),
            },
            changes = balancer.file_changes() => balancer.read_files(&changes?),
            changed = observations.changed() => {
                changed.map_err(|_| anyhow!("the thread that follows the machine ended; start blixt again"))?;
                let observation = current(&mut observations);
                balancer.observe(observation);
            }
            Some(ask) = asked.recv() => balancer.answer(ask),
            Some(reply) = numbers_asked.recv() => {
                // Whoever asked may have gone.
                let _ = reply.send(balancer.numbers());
            }
            () = sleep_until(statuses_due.unwrap_or_else(Instant::now).into()), if statuses_due.is_some() => {
                balancer.work_statuses_out();
            }
            Some(told) = statuses_told.recv() => balancer.take_statuses(told),
            _ = ticks.tick() => balancer.tick(),
        }
    };

    notify(&[sd_notify::NotifyState::Stopping]);
    match end {
        End::Leave => {
            runtime_dir.remove_socket();
            tracing::info!("ended; forwarding goes on, `blixt cleanup` removes it");
        }
        End::Remove => {
            let dataplane = balancer.into_dataplane();
            // All of it, whatever becomes of the rest; the lock goes last.
            let released = host::release_neighbours()
                .context("cannot release the neighbours that the kernel keeps for blixt");
            let cleared = runtime_dir.remove();
            let removed = dataplane.remove().map_err(anyhow::Error::from);
            removed.and(released).and(cleared)?;
            tracing::info!("ended; every trace is removed");
        }
    }
    Ok(Exit::Success)
}

/// What a start prepares before anything can change: whatever fails there leaves nothing behind.
struct Start {
    runtime_dir: RuntimeDir,
    asked: mpsc::Receiver<Ask>,
    numbers_asked: mpsc::Receiver<oneshot::Sender<Numbers>>,
    ready: watch::Sender<bool>,
    machine: host::Watcher,
    source: Source,
    beginning: Beginning,
}

impl Start {
    fn prepare(settings: &Settings, dataplane: &Dataplane) -> anyhow::Result<Self> {
        let listener = settings.listen.map(metrics::bind).transpose()?;
        log_found(dataplane.found());
        let runtime_dir = RuntimeDir::make(dataplane.instance())?;
        for name in &dataplane.found().dead_instances {
            runtime_dir.remove_other(name);
            tracing::info!(
                instance = name,
                "removed what an instance of a namespace that is gone left behind"
            );
        }

        let (asks, asked) = mpsc::channel::<Ask>(ASKS);
        tokio::spawn(control::serve(control::bind(&runtime_dir.socket())?, asks));
        let (numbers, numbers_asked) = mpsc::channel::<oneshot::Sender<Numbers>>(ASKS);
        let (ready, is_ready) = watch::channel(false);
        if let Some(listener) = listener {
            let sources = metrics::Sources { numbers, ready: is_ready };
            tokio::spawn(metrics::serve(TcpListener::from_std(listener)?, sources));
        }

        let machine = host::Watcher::start(&settings.node_name, &settings.interfaces)?;
        let source = Source::open(&settings.files, &runtime_dir.memory())?;
        let beginning = Beginning::find(settings, dataplane)?;
        Ok(Self { runtime_dir, asked, numbers_asked, ready, machine, source, beginning })
    }
}

fn log_found(found: &Found) {
    for kept in &found.kept_sizes {
        tracing::warn!(
            map = kept.map,
            entries = kept.pinned,
            wanted = kept.wanted,
            "a table keeps its size; to change it, run `blixt cleanup` and start again (connections end)"
        );
    }
    for path in &found.other_layouts {
        tracing::warn!(
            path = %path.display(),
            "another version of blixt is at work, with tables that this one cannot read; it is replaced as soon as \
             the manifests are in force (connections go on, unless their backend takes nothing new)"
        );
    }
}

fn current(observations: &mut watch::Receiver<Arc<Observation>>) -> Arc<Observation> {
    Arc::clone(&observations.borrow_and_update())
}

/// A start that fails leaves nothing new behind; what an instance before it left, of whatever version, goes on.
fn withdraw(dataplane: Dataplane, error: anyhow::Error) -> anyhow::Error {
    let found = dataplane.found();
    if found.is_taken_over || !found.other_layouts.is_empty() {
        return error;
    }
    let cleared = RuntimeDir::of(dataplane.instance()).remove();
    match dataplane.remove().map_err(anyhow::Error::from).and(cleared) {
        Ok(()) => error,
        Err(left) => error.context(format!("cannot remove what was opened ({left}): run `blixt cleanup`")),
    }
}

/// That somebody else runs has an exit code of its own.
fn instance_error(error: blixt_loader::Error) -> anyhow::Error {
    match error {
        blixt_loader::Error::Held { .. } => InstanceError(error.to_string()).into(),
        error => error.into(),
    }
}

/// Tells the service manager, if there is one.
fn notify(states: &[sd_notify::NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End(End::Leave),
            _ = self.interrupt.recv() => Wish::End(End::Remove),
            _ = self.hangup.recv() => Wish::Reread,
        }
    }
}
