//! Ctrl-C ends the demo through its own way out, so that nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody wants the demo to end.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches SIGINT and SIGTERM from now on.
    pub(super) fn catch() -> anyhow::Result<Self> {
        let wanted = Arc::new(AtomicBool::new(false));
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot catch signals")?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            let catch = |kind| signal(kind).context("cannot catch signals");
            (catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?)
        };
        let shared = Arc::clone(&wanted);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            shared.store(true, Ordering::Relaxed);
        });
        Ok(Self(wanted))
    }

    /// Whether it was wanted.
    pub(super) fn wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once it was wanted: the steps stop, and what they made is taken down.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.wanted(), "the demo was interrupted; everything it made is removed");
        Ok(())
    }
}
