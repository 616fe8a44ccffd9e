//! How full the flow tables are, counted now and then beside the loop, which a walk over a million entries would hold up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use blixt_loader::{Census, Dataplane, FlowCount};

/// As often as Prometheus asks, or more often.
const EVERY: Duration = Duration::from_secs(10);
/// Counting takes at most one part in so many of a core, however large the tables are.
const REST: u32 = 100;

/// What was counted last: IPv4, IPv6.
pub type FlowCounts = [FlowCount; 2];

/// Counts the tables on a thread of its own, each time that it is asked to and has rested.
pub struct Flows {
    census: Option<Arc<Census>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    counts: FlowCounts,
    is_busy: bool,
    /// When to count again.
    due: Option<Instant>,
}

impl Flows {
    /// Of a data plane's tables.
    pub fn of(dataplane: &Dataplane) -> Self {
        let census = dataplane.census();
        if let Err(error) = &census {
            tracing::warn!(%error, "cannot count the flow tables; their metrics stay 0");
        }
        Self { census: census.ok().map(Arc::new), state: Arc::default() }
    }

    /// What was counted last.
    pub fn counts(&self) -> FlowCounts {
        lock(&self.state).counts
    }

    /// Has them counted, if it is time.
    pub fn tick(&self) {
        let Some(census) = self.census.clone() else { return };
        let mut state = lock(&self.state);
        if state.is_busy || state.due.is_some_and(|due| Instant::now() < due) {
            return;
        }
        state.is_busy = true;
        let shared = Arc::clone(&self.state);
        // Nobody waits for it: a process that ends leaves it where it is.
        let started = thread::Builder::new().name("census".to_owned()).spawn(move || count(&census, &shared));
        if let Err(error) = started {
            tracing::warn!(%error, "no thread can be started to count the flow tables");
            state.is_busy = false;
        }
    }
}

fn count(census: &Census, state: &Mutex<State>) {
    let last = lock(state).counts;
    let begun = Instant::now();
    let counted = census.take(last);
    let ended = Instant::now();
    let mut state = lock(state);
    match counted {
        Ok(counts) => state.counts = counts,
        Err(error) => tracing::warn!(%error, "cannot count the flow tables, trying again"),
    }
    state.is_busy = false;
    state.due = Some(ended + ((ended - begun) * REST).max(EVERY));
}

/// Nobody leaves half a count behind, so a poisoned lock is as good as any.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
