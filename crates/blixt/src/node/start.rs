//! The start of a data plane: the lock first, then all that can fail, then the loop's inlets.

use std::sync::Arc;

use blixt_loader::host::{self, Observation};
use blixt_loader::{Dataplane, Found, share_memory};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use super::runtime_dir::RuntimeDir;
use super::settings::Settings;
use super::{Beginning, HOP_LIFE, Node};
use crate::control::{self, Ask};
use crate::exit::{Exit, InstanceError};
use crate::metrics::{self, Numbers};

/// Asks that wait for the run loop.
const ASKS: usize = 16;

/// A data plane that can begin, and the inlets of the loop that drives it.
pub struct Start {
    /// The data plane.
    pub node: Node,
    /// Where its files lie.
    pub runtime_dir: RuntimeDir,
    /// What came over the control socket.
    pub asked: mpsc::Receiver<Ask>,
    /// Who wants the numbers of `/metrics`.
    pub numbers_asked: mpsc::Receiver<oneshot::Sender<Numbers>>,
    /// What `/readyz` says.
    pub ready: watch::Sender<bool>,
    /// What the machine looks like.
    pub observations: watch::Receiver<Arc<Observation>>,
}

impl Start {
    /// Prepares all that can fail, and what `own` prepares for its caller, before anything can change: whatever fails
    /// leaves nothing behind.
    pub fn prepare<T>(
        settings: Settings,
        own: impl FnOnce(&RuntimeDir) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Self, T)> {
        // The lock comes first: of two instances, the second must hear of the first, not of a port that is taken.
        let dataplane = Dataplane::open(&settings.dataplane_options(HOP_LIFE)).map_err(instance_error)?;
        match Inlets::prepare(&settings, &dataplane, own) {
            Ok((inlets, own)) => {
                let Inlets { runtime_dir, asked, numbers_asked, ready, machine, beginning } = inlets;
                let observations = machine.observations();
                let node = Node::new(settings, dataplane, beginning, machine);
                Ok((Self { node, runtime_dir, asked, numbers_asked, ready, observations }, own))
            }
            Err(error) => Err(withdraw(dataplane, error)),
        }
    }
}

/// All that can fail.
struct Inlets {
    runtime_dir: RuntimeDir,
    asked: mpsc::Receiver<Ask>,
    numbers_asked: mpsc::Receiver<oneshot::Sender<Numbers>>,
    ready: watch::Sender<bool>,
    machine: host::Watcher,
    beginning: Beginning,
}

impl Inlets {
    fn prepare<T>(
        settings: &Settings,
        dataplane: &Dataplane,
        own: impl FnOnce(&RuntimeDir) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Self, T)> {
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
        let own = own(&runtime_dir)?;
        let beginning = Beginning::find(dataplane)?;
        Ok((Self { runtime_dir, asked, numbers_asked, ready, machine, beginning }, own))
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
            "another version of blixt is at work, with tables of its own; it is replaced as soon as the manifests are in \
             force, and its connections are taken over"
        );
    }
}

/// What the machine looks like now.
pub fn current(observations: &mut watch::Receiver<Arc<Observation>>) -> Arc<Observation> {
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
pub fn notify(states: &[sd_notify::NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// Runs what drives a data plane, until it ends; asks and announcements under way are not waited for then.
pub fn drive(workers: usize, follow: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    raise_descriptor_limit();
    share_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let exit = runtime.block_on(follow);
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
