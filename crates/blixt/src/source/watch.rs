//! Which files changed, from inotify.
//!
//! Events only say where to look: whatever they miss (lost events, a file system that has none) the slow full
//! pass repairs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_core::Stream;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::{sleep_until, timeout};

use super::pending::{Changes, Pending};
use super::scan::{Interest, is_manifest};

/// Everything is looked at this often, whatever the events say.
const FULL_PASS: Duration = Duration::from_secs(60);
/// The same while some directories cannot be watched.
const FULL_PASS_UNWATCHED: Duration = Duration::from_secs(1);
/// Room for some hundred events.
const BUFFER: usize = 64 * 1024;

/// The kernel's watches on some directories.
pub struct Watcher {
    events: EventStream<Vec<u8>>,
    watched: BTreeMap<PathBuf, Watched>,
    /// One directory that is reached by two paths has one descriptor.
    paths: HashMap<WatchDescriptor, BTreeSet<PathBuf>>,
    pending: Pending,
    unwatched: bool,
}

struct Watched {
    descriptor: WatchDescriptor,
    interest: Interest,
}

impl Watcher {
    /// Watches nothing yet.
    pub fn new() -> anyhow::Result<Self> {
        let inotify = Inotify::init()
            .context("cannot watch files: raise the sysctl fs.inotify.max_user_instances and start again")?;
        Ok(Self {
            events: inotify.into_event_stream(vec![0; BUFFER])?,
            watched: BTreeMap::new(),
            paths: HashMap::new(),
            pending: Pending::default(),
            unwatched: false,
        })
    }

    /// Watches these directories and no others. Says whether one is new, so that what happened in it before is to
    /// be looked at once more.
    pub fn watch(&mut self, directories: BTreeMap<PathBuf, Interest>) -> bool {
        let gone: Vec<PathBuf> =
            self.watched.keys().filter(|path| !directories.contains_key(*path)).cloned().collect();
        for path in gone {
            self.unwatch(&path);
        }
        let mut news = false;
        let mut failure = None;
        for (path, interest) in directories {
            match self.add(&path, interest) {
                Ok(new) => news |= new,
                // It vanished since it was scanned: the event of that is on its way.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => failure = Some((path, error)),
            }
        }
        if let Some((path, error)) = &failure
            && !self.unwatched
        {
            tracing::warn!(
                path = %path.display(), %error,
                "cannot watch a directory, looking every second instead; raise the sysctl fs.inotify.max_user_watches"
            );
        }
        self.unwatched = failure.is_some();
        news
    }

    /// Waits for changes that are due.
    pub async fn changes(&mut self) -> anyhow::Result<Changes> {
        let full_pass = if self.unwatched { FULL_PASS_UNWATCHED } else { FULL_PASS };
        let deadline = tokio::time::Instant::now() + full_pass;
        loop {
            if let Some(changes) = self.pending.take(Instant::now()) {
                return Ok(changes);
            }
            let wake = self.pending.due().map_or(deadline, |due| deadline.min(due.into()));
            tokio::select! {
                event = poll_fn(|context| Pin::new(&mut self.events).poll_next(context)) => {
                    let event = event.context("the kernel ended the inotify events")?;
                    self.note(event.context("cannot read inotify events")?, Instant::now());
                }
                () = sleep_until(wake) => {
                    if wake == deadline {
                        self.pending.everything(Instant::now());
                    }
                }
            }
        }
    }

    /// Waits for changes, but not longer than this.
    pub async fn changes_within(&mut self, limit: Duration) -> anyhow::Result<Option<Changes>> {
        timeout(limit, self.changes()).await.ok().transpose()
    }

    fn add(&mut self, path: &Path, interest: Interest) -> io::Result<bool> {
        // The same for all: one directory that is reached by two paths has one mask.
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        // Adding it again is cheap and finds out whether another directory has the path by now.
        let descriptor = self.events.watches().add(path, mask)?;
        if let Some(watched) = self.watched.get_mut(path)
            && watched.descriptor == descriptor
        {
            watched.interest = interest;
            return Ok(false);
        }
        self.unwatch(path);
        self.paths.entry(descriptor.clone()).or_default().insert(path.to_owned());
        self.watched.insert(path.to_owned(), Watched { descriptor, interest });
        Ok(true)
    }

    fn unwatch(&mut self, path: &Path) {
        let Some(watched) = self.watched.remove(path) else { return };
        if let Some(paths) = self.paths.get_mut(&watched.descriptor) {
            paths.remove(path);
            if paths.is_empty() {
                self.paths.remove(&watched.descriptor);
                // Fails if the directory is gone, and its watch with it.
                let _ = self.events.watches().remove(watched.descriptor);
            }
        }
    }

    fn note(&mut self, event: EventOwned, now: Instant) {
        let EventOwned { wd: descriptor, mask, name, .. } = event;
        if mask.contains(EventMask::Q_OVERFLOW) {
            self.pending.everything(now);
        }
        let directories = self.paths.get(&descriptor).cloned().unwrap_or_default();
        if mask.contains(EventMask::IGNORED) {
            self.paths.remove(&descriptor);
            for directory in &directories {
                self.watched.remove(directory);
            }
        }
        for directory in directories {
            match &name {
                Some(name) => self.note_name(&directory, name, mask, now),
                None => self.pending.everything(now),
            }
        }
    }

    fn note_name(&mut self, directory: &Path, name: &OsString, mask: EventMask, now: Instant) {
        let path = directory.join(name);
        let interesting = match self.watched.get(directory).map(|watched| &watched.interest) {
            Some(Interest::All) => is_manifest(name),
            Some(Interest::Names(names)) if names.contains(name) => true,
            Some(Interest::Names(_)) | None => return,
        };
        let appeared = mask.intersects(EventMask::CREATE | EventMask::MOVED_TO);
        let vanished = mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM);
        if mask.contains(EventMask::ISDIR) || self.watched.contains_key(&path) {
            if appeared || vanished || mask.contains(EventMask::ATTRIB) {
                self.pending.everything(now);
            }
            return;
        }
        // A link may lead to a directory, or be the one that a ConfigMap mount turns from one version to the next.
        if appeared && fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
            self.pending.everything(now);
            return;
        }
        if !interesting {
            return;
        }
        if mask.intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO) {
            self.pending.whole(path, now);
        } else if mask.contains(EventMask::ATTRIB) {
            self.pending.touched(path, now);
        } else if vanished {
            self.pending.gone(path, now);
        } else if appeared && is_linked(&path) {
            self.pending.whole(path, now);
        } else {
            self.pending.written(path, now);
        }
    }
}

/// The name is one of several of a file: nobody is about to write it.
fn is_linked(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| std::os::unix::fs::MetadataExt::nlink(&metadata) > 1)
}
