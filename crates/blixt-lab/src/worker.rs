//! A thread in a machine that runs until its owner has enough.

use std::future::Future;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::{Error, Machine};

/// A thread with a runtime of its own, so that all its sockets are the machine's. Stopped and waited for when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Comes when the worker is to stop.
pub(crate) type Stop = oneshot::Receiver<()>;

impl Worker {
    /// Starts it; `work` may spawn local tasks, which end with it.
    pub(crate) fn start<F: Future<Output = ()>>(
        machine: &Machine,
        work: impl FnOnce(Stop) -> F + Send + 'static,
    ) -> Result<Self, Error> {
        let (stop, stopped) = oneshot::channel();
        let runtime = machine.run(|| Builder::new_current_thread().enable_all().build());
        let runtime = runtime.map_err(Error::io("start a runtime in", machine.name()))?;
        // Started from inside the namespace, so that the thread is born there.
        let thread = machine.run(|| {
            thread::Builder::new()
                .name(machine.name().to_owned())
                .spawn(move || LocalSet::new().block_on(&runtime, work(stopped)))
        });
        let thread = thread.map_err(Error::io("start a thread in", machine.name()))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed; what it should have counted is missing and will be noticed.
            let _ = thread.join();
        }
    }
}
