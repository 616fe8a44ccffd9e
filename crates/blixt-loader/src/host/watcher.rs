//! The handle of the thread that follows the machine.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use globset::GlobSet;
use tokio::sync::watch;

use super::follow::Follower;
use super::{HostError, Interest, Observation};

/// Follows the network namespace of the thread that started it, until it is dropped. Neighbours stay kept then:
/// forwarding goes on without it.
#[derive(Debug)]
pub struct Watcher {
    wanted: Arc<Mutex<Wanted>>,
    waker: UnixStream,
    observations: watch::Receiver<Arc<Observation>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is to do.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// What changed since it was taken last.
    interest: Interest,
    /// Counts the changes, from 1.
    number: u64,
    pub(super) stop: bool,
}

impl Watcher {
    /// Looks at the whole machine once, then follows it. `node` is the name that EndpointSlices know it by, `interfaces`
    /// matches the devices that are [`hooked`](super::hooked).
    pub fn start(node: &str, interfaces: &GlobSet) -> Result<Self, HostError> {
        let (waker, wake) = wires().map_err(|source| HostError::Thread { source })?;
        let wanted = Arc::new(Mutex::new(Wanted::default()));
        let (sender, observations) = watch::channel(Arc::default());
        let follower = Follower::new(node.to_owned(), interfaces.clone(), Arc::clone(&wanted), wake, sender)?;
        let thread = thread::Builder::new()
            .name("netlink".to_owned())
            .spawn(move || follower.run())
            .map_err(|source| HostError::Thread { source })?;
        Ok(Self { wanted, waker, observations, thread: Some(thread) })
    }

    /// What was seen last, and what will be seen.
    pub fn observations(&self) -> watch::Receiver<Arc<Observation>> {
        self.observations.clone()
    }

    /// Changes what is looked up. Returns the number that [`Observation::followed`] will have reached when it is.
    pub fn follow(&self, interest: Interest) -> u64 {
        let mut wanted = lock(&self.wanted);
        let is_news = interest.backends.values().any(|count| *count != 0);
        if is_news || interest.addresses != wanted.interest.addresses || wanted.number == 0 {
            for (address, count) in interest.backends {
                *wanted.interest.backends.entry(address).or_default() += count;
            }
            wanted.interest.addresses = interest.addresses;
            wanted.number += 1;
            self.wake();
        }
        wanted.number
    }

    /// Changes what is looked up, and waits until that was done. `None`: the thread is gone.
    pub async fn observe(&self, interest: Interest) -> Option<Arc<Observation>> {
        let number = self.follow(interest);
        let mut observations = self.observations.clone();
        let observation = observations.wait_for(|observation| observation.followed >= number).await.ok()?;
        Some(Arc::clone(&observation))
    }

    fn wake(&self) {
        // A full pipe has enough in it to wake anybody.
        let _ = (&self.waker).write(&[0]);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        lock(&self.wanted).stop = true;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Wanted {
    /// What changed, if something did since the change of this number.
    pub(super) fn take(&mut self, number: u64) -> Option<(u64, Interest)> {
        let Interest { backends, addresses } = &mut self.interest;
        let mut interest = || Interest { backends: std::mem::take(backends), addresses: addresses.clone() };
        (self.number != number).then(|| (self.number, interest()))
    }
}

/// Nobody leaves half a change behind, so a poisoned lock is as good as any.
pub(super) fn lock(wanted: &Mutex<Wanted>) -> MutexGuard<'_, Wanted> {
    wanted.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wires() -> io::Result<(UnixStream, UnixStream)> {
    let (waker, wake) = UnixStream::pair()?;
    waker.set_nonblocking(true)?;
    wake.set_nonblocking(true)?;
    Ok((waker, wake))
}
