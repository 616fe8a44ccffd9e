//! The loop of the thread: hear what changed, ask what is stale, publish what follows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blixt_core::host::Path;
use globset::GlobSet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::constants::NETLINK_ROUTE;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::facts::Facts;
use super::neighbour::{self, KEEP_LOST, NeighbourKey};
use super::netlink::{Asker, Heard, Listener};
use super::watcher::{Wanted, lock};
use super::{HostError, Interest, Observation, path, xdp};

/// Changes come in swarms: after the first, this long a silence ends one ...
const SILENCE: Duration = Duration::from_millis(3);
/// ... or this much time.
const SWARM: Duration = Duration::from_millis(20);
/// Everything is asked anew, whatever was heard.
const SLOW_PASS: Duration = Duration::from_secs(60);
/// A neighbour that the kernel does not keep although it was asked to (before 5.16) is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Looking paths up takes at most one part in so many of the time.
const REST: u32 = 4;

/// The thread's state.
pub(super) struct Follower {
    node: String,
    interfaces: GlobSet,
    wanted: Arc<Mutex<Wanted>>,
    wake: UnixStream,
    observations: watch::Sender<Arc<Observation>>,
    asker: Asker,
    listener: Listener,
    xdp_listener: xdp::Listener,
    facts: Facts,
    /// What the paths were looked up for: the backends, with the number of their pools ...
    backends: BTreeMap<IpAddr, i32>,
    /// ... and the addresses of Gateways.
    addresses: BTreeSet<IpAddr>,
    followed: u64,
    /// What was found since can be told beside the last whole observation: no question failed, and no path is by a device that it
    /// does not show, which nobody has hooked yet.
    is_addition: bool,
    stale: Stale,
    asked: HashMap<NeighbourKey, Instant>,
    quota: neighbour::Quota,
    last_pass: Instant,
    paths_not_before: Instant,
}

/// What must be asked anew.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Stale {
    links: bool,
    paths: bool,
    neighbours: bool,
}

const ALL: Stale = Stale { links: true, paths: true, neighbours: true };

impl Follower {
    /// With the first look at the machine.
    pub(super) fn new(
        node: String,
        interfaces: GlobSet,
        wanted: Arc<Mutex<Wanted>>,
        wake: UnixStream,
        observations: watch::Sender<Arc<Observation>>,
    ) -> Result<Self, HostError> {
        let now = Instant::now();
        let mut follower = Self {
            node,
            interfaces,
            wanted,
            wake,
            observations,
            // First the ears, then the questions: nothing is missed in between.
            listener: Listener::open()?,
            xdp_listener: xdp::Listener::open(),
            asker: Asker::open(NETLINK_ROUTE)?,
            facts: Facts::default(),
            backends: BTreeMap::new(),
            addresses: BTreeSet::new(),
            followed: 0,
            is_addition: true,
            stale: ALL,
            asked: HashMap::new(),
            quota: neighbour::Quota::of_kernel(),
            last_pass: now,
            paths_not_before: now,
        };
        follower.refresh()?;
        follower.publish();
        Ok(follower)
    }

    pub(super) fn run(mut self) {
        while !lock(&self.wanted).stop {
            if let Err(error) = self.step() {
                warn!(%error, "the machine cannot be followed for now");
                std::thread::sleep(RETRY);
                self.reopen();
            }
        }
    }

    fn step(&mut self) -> Result<(), HostError> {
        self.take_interest()?;
        if self.last_pass.elapsed() >= SLOW_PASS {
            self.stale = ALL;
        }
        self.refresh()?;
        self.publish();
        self.wait()
    }

    /// Looks up only what is new, if something is: a backend more costs one question. After a failure everything is looked up.
    fn take_interest(&mut self) -> Result<bool, HostError> {
        let wanted = lock(&self.wanted).take(self.followed);
        let Some((number, Interest { backends, addresses })) = wanted else { return Ok(false) };
        let was_addition = std::mem::replace(&mut self.is_addition, false) && addresses == self.addresses;
        self.addresses = addresses;
        let (mut fresh, mut gone) = (Vec::new(), Vec::new());
        for (address, more) in backends {
            let pools = self.backends.entry(address).or_default();
            let is_fresh = *pools == 0;
            *pools += more;
            if *pools == 0 {
                self.backends.remove(&address);
                gone.push(address);
            } else if is_fresh {
                fresh.push(address);
            }
        }
        let found = path::paths(&mut self.asker, &fresh, &self.facts.links)?;
        let devices = &self.observations.borrow().host.devices;
        let mut by = found.iter().filter(|(_, path)| !path.local).map(|(_, path)| path.device);
        self.is_addition = was_addition && by.all(|device| devices.contains_key(&device));
        if self.facts.paths.is_empty() {
            self.facts.paths = Arc::new(found);
        } else if !gone.is_empty() || !found.is_empty() {
            let paths = Arc::make_mut(&mut self.facts.paths);
            for address in gone {
                paths.remove(&address);
            }
            paths.extend(found);
        }
        self.facts.find_next_hops();
        self.followed = number;
        Ok(true)
    }

    fn refresh(&mut self) -> Result<(), HostError> {
        let now = Instant::now();
        if self.stale == ALL {
            self.last_pass = now;
        }
        let mut is_moved = std::mem::take(&mut self.stale.links);
        if is_moved {
            self.facts.ask_links(&mut self.asker)?;
            self.stale.paths = true;
        }
        if self.stale.paths && now >= self.paths_not_before {
            let paths = self.paths()?;
            if paths != *self.facts.paths {
                self.facts.paths = Arc::new(paths);
            }
            self.facts.primary = path::primary(&mut self.asker, &self.facts.links)?;
            self.stale.paths = false;
            self.paths_not_before = Instant::now() + now.elapsed() * REST;
            is_moved = true;
        }
        if is_moved {
            self.facts.find_next_hops();
        }
        if std::mem::take(&mut self.stale.neighbours) {
            self.facts.ask_neighbours(&mut self.asker, now)?;
        }
        self.tend_neighbours()
    }

    /// Looks all paths up. That takes a while, in which others may be asked for: they are not kept waiting.
    fn paths(&mut self) -> Result<BTreeMap<IpAddr, Path>, HostError> {
        let backends: Vec<IpAddr> = self.backends.keys().copied().collect();
        let mut paths = Vec::with_capacity(backends.len());
        let mut is_other = false;
        for backends in backends.chunks(path::AT_ONCE) {
            paths.extend(path::paths(&mut self.asker, backends, &self.facts.links)?);
            if self.take_interest()? {
                is_other = true;
                self.publish();
            }
        }
        if is_other {
            paths.retain(|(address, _)| self.backends.contains_key(address));
            let is_since = |address: &IpAddr| {
                self.backends.contains_key(address) && backends.binary_search(address).is_err()
            };
            let since = self.facts.paths.iter().filter(|(address, _)| is_since(address));
            paths.extend(since.map(|(address, path)| (*address, path.clone())));
        }
        Ok(paths.into_iter().collect())
    }

    /// Has the kernel keep the neighbours that are needed, and no others.
    fn tend_neighbours(&mut self) -> Result<(), HostError> {
        if self.followed == 0 {
            // Nobody said yet what is needed: what an earlier process had kept may be.
            return Ok(());
        }
        let now = Instant::now();
        let mut needed = self.facts.next_hops.clone();
        self.quota.limit(&mut needed);
        self.asked.retain(|key, asked| needed.contains(key) && now.duration_since(*asked) < ASK_AGAIN);
        let missing: Vec<NeighbourKey> = needed
            .iter()
            .filter(|key| !self.facts.neighbours.get(key).is_some_and(|neighbour| neighbour.kept))
            .filter(|key| !self.asked.contains_key(key))
            .copied()
            .collect();
        for (key, answer) in missing.iter().zip(neighbour::keep(&mut self.asker, &missing)?) {
            self.asked.insert(*key, now);
            if let Err(code) = answer {
                let error = std::io::Error::from_raw_os_error(code);
                debug!(device = key.0, address = %key.1, %error, "the kernel does not keep a neighbour");
            }
        }
        self.release(&needed)
    }

    fn release(&mut self, needed: &BTreeSet<NeighbourKey>) -> Result<(), HostError> {
        let idle: Vec<NeighbourKey> = self
            .facts
            .neighbours
            .iter()
            .filter(|(key, neighbour)| neighbour.ours && neighbour.kept && !needed.contains(key))
            .map(|(key, _)| *key)
            .collect();
        neighbour::release(&mut self.asker, &idle)?;
        for key in &idle {
            if let Some(neighbour) = self.facts.neighbours.get_mut(key) {
                neighbour.kept = false;
            }
        }
        Ok(())
    }

    fn publish(&mut self) {
        if self.stale.paths {
            // Half of an answer would lead nowhere: the last whole one stays, and backends that are new are added to it.
            let Self { facts, followed, is_addition, .. } = &*self;
            self.observations.send_if_modified(|last| {
                let is_news = *is_addition && last.followed != *followed;
                if is_news {
                    let Observation { host, followed: last, .. } = Arc::make_mut(last);
                    host.paths = Arc::clone(&facts.paths);
                    host.neighbours.extend(facts.known_neighbours(Instant::now()));
                    *last = *followed;
                }
                is_news
            });
            return;
        }
        self.is_addition = true;
        let Self { facts, node, addresses, interfaces, followed, .. } = self;
        let observation = facts.observation(node, addresses, interfaces, *followed, Instant::now());
        self.observations.send_if_modified(|last| {
            let changed = **last != observation;
            if changed {
                *last = Arc::new(observation);
            }
            changed
        });
    }

    /// Until something changed and its swarm is over, or something is due.
    fn wait(&mut self) -> Result<(), HostError> {
        let due = self.due();
        let mut until = due;
        let mut swarm: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            let wires = [self.wake.as_raw_fd(), self.listener.as_raw_fd(), self.xdp_listener.descriptor()];
            let [woken, heard, xdp_heard] = poll(wires, until - now);
            self.stale.links |= xdp_heard && self.xdp_listener.heard();
            if woken {
                while (&self.wake).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
                return self.hear_all();
            }
            if heard || xdp_heard {
                self.hear_all()?;
                let end = *swarm.get_or_insert(now + SWARM);
                until = (Instant::now() + SILENCE).min(end);
            }
        }
    }

    /// When there is something to do without anybody saying so.
    fn due(&self) -> Instant {
        let mut due = self.last_pass + SLOW_PASS;
        if self.stale.paths {
            due = due.min(self.paths_not_before);
        }
        for key in &self.facts.next_hops {
            match self.facts.neighbours.get(key) {
                Some(neighbour) if neighbour.mac.is_some() => {
                    let expiry = neighbour.lost.map(|lost| lost + KEEP_LOST);
                    due = expiry
                        .filter(|expiry| *expiry > Instant::now())
                        .map_or(due, |expiry| due.min(expiry));
                }
                _ => {}
            }
        }
        self.asked.values().map(|asked| *asked + ASK_AGAIN).fold(due, Instant::min)
    }

    fn hear_all(&mut self) -> Result<(), HostError> {
        loop {
            match self.listener.hear()? {
                Heard::Nothing => return Ok(()),
                Heard::Lost => {
                    info!(
                        "the kernel's notifications came faster than they were read: asking everything anew"
                    );
                    self.stale = ALL;
                }
                Heard::Changes(changes) => changes.iter().for_each(|change| self.note(change)),
            }
        }
    }

    fn note(&mut self, change: &RouteNetlinkMessage) {
        let now = Instant::now();
        match change {
            RouteNetlinkMessage::NewNeighbour(message) => {
                if let Some(key) = neighbour::key(message) {
                    let known = self.facts.neighbours.get(&key);
                    let neighbour = neighbour::neighbour(message, known, now);
                    self.facts.neighbours.insert(key, neighbour);
                }
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                if let Some(key) = neighbour::key(message) {
                    self.asked.remove(&key);
                    match self.facts.neighbours.remove(&key) {
                        Some(known) if known.mac(now).is_some() => {
                            self.facts.neighbours.insert(key, known.gone(now));
                        }
                        _ => {}
                    }
                }
            }
            RouteNetlinkMessage::NewLink(_)
            | RouteNetlinkMessage::DelLink(_)
            | RouteNetlinkMessage::NewAddress(_)
            | RouteNetlinkMessage::DelAddress(_) => self.stale.links = true,
            _ => self.stale.paths = true,
        }
    }

    fn reopen(&mut self) {
        self.stale = ALL;
        match (Listener::open(), Asker::open(NETLINK_ROUTE)) {
            (Ok(listener), Ok(asker)) => {
                self.listener = listener;
                self.xdp_listener = xdp::Listener::open();
                self.asker = asker;
            }
            (Err(error), _) | (_, Err(error)) => warn!(%error, "netlink cannot be opened again"),
        }
    }
}

/// Which of the descriptors can be read.
fn poll(descriptors: [RawFd; 3], timeout: Duration) -> [bool; 3] {
    let mut polled = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // Rounded up: a timeout of 0 would spin until the time is reached.
    let milliseconds = timeout.as_micros().div_ceil(1000).try_into().unwrap_or(i32::MAX);
    // SAFETY: the pointer and the length are those of an array that lives through the call.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, milliseconds) };
    polled.map(|descriptor| descriptor.revents != 0)
}
