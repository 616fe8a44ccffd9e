//! What signals ask of a process that balances.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
pub enum Wish {
    /// To end.
    End(End),
    /// To look at everything anew.
    Reread,
}

/// How the loop ends.
pub enum End {
    /// Forwarding stays.
    Leave,
    /// Every trace goes.
    Remove,
}

/// The signals that are heeded.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Heeds them from now on.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End(End::Leave),
            _ = self.interrupt.recv() => Wish::End(End::Remove),
            _ = self.hangup.recv() => Wish::Reread,
        }
    }
}
