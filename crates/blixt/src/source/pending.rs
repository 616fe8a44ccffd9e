//! When a change that was seen is acted on: soon, but not in the middle of it.
//!
//! Pure: time is a parameter.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Without another event for this long, changes are acted on.
const QUIET: Duration = Duration::from_millis(10);
/// They are acted on after this long, however many events come.
const LONGEST: Duration = Duration::from_millis(100);
/// A file that is gone may come back under its name: some editors delete and write anew.
const GONE: Duration = Duration::from_millis(100);
/// A writer that does not close its file for this long after its last write is not waited for.
const UNCLOSED: Duration = Duration::from_millis(500);

/// Changes that were seen and are not acted on yet.
#[derive(Debug, Default)]
pub struct Pending {
    settled: Option<Settled>,
    held: BTreeMap<PathBuf, Instant>,
}

/// What is to be read now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Look at everything: directories or links changed, or events were lost.
    pub everything: bool,
    /// These files changed.
    pub files: BTreeSet<PathBuf>,
    /// These files are in the middle of a change: what is known of them stays.
    pub hold: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Settled {
    first: Instant,
    last: Instant,
    everything: bool,
    files: BTreeSet<PathBuf>,
}

impl Pending {
    /// A file is whole: its writer closed it, or it was moved here.
    pub fn whole(&mut self, path: PathBuf, now: Instant) {
        self.held.remove(&path);
        self.settle(now).files.insert(path);
    }

    /// Mode, owner or times of a file changed; if it is being written, its writer is waited for.
    pub fn touched(&mut self, path: PathBuf, now: Instant) {
        if !self.held.contains_key(&path) {
            self.whole(path, now);
        }
    }

    /// A file is being written.
    pub fn written(&mut self, path: PathBuf, now: Instant) {
        self.held.insert(path, now + UNCLOSED);
    }

    /// A file is gone.
    pub fn gone(&mut self, path: PathBuf, now: Instant) {
        self.held.insert(path, now + GONE);
    }

    /// Something changed that concerns more than one file.
    pub fn everything(&mut self, now: Instant) {
        self.settle(now).everything = true;
    }

    /// When to call [`Self::take`] next.
    pub fn due(&self) -> Option<Instant> {
        let settled = self.settled.as_ref().map(Settled::due);
        settled.into_iter().chain(self.held.values().copied()).min()
    }

    /// What is due by now.
    pub fn take(&mut self, now: Instant) -> Option<Changes> {
        let overdue: Vec<PathBuf> =
            self.held.iter().filter(|(_, due)| **due <= now).map(|(path, _)| path.clone()).collect();
        let settled_due = self.settled.as_ref().is_some_and(|settled| settled.due() <= now);
        if overdue.is_empty() && !settled_due {
            return None;
        }
        for path in overdue {
            self.whole(path, now);
        }
        let settled = self.settled.take()?;
        Some(Changes {
            everything: settled.everything,
            files: settled.files,
            hold: self.held.keys().cloned().collect(),
        })
    }

    fn settle(&mut self, now: Instant) -> &mut Settled {
        let settled = self.settled.get_or_insert_with(|| Settled {
            first: now,
            last: now,
            everything: false,
            files: BTreeSet::new(),
        });
        settled.last = now;
        settled
    }
}

impl Settled {
    fn due(&self) -> Instant {
        (self.last + QUIET).min(self.first + LONGEST)
    }
}

impl Changes {
    /// Everything is to be looked at, nothing held back.
    pub fn all() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Takes what `other` says besides.
    pub fn merge(&mut self, mut other: Self) {
        self.everything |= other.everything;
        self.files.append(&mut other.files);
        self.hold = mem::take(&mut other.hold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    fn files(changes: &Changes) -> Vec<String> {
        changes.files.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn a_whole_file_is_read_after_a_short_quiet() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.whole("a".into(), start);
        assert_eq!(pending.take(at(start, 9)), None);
        assert_eq!(files(&pending.take(at(start, 10)).unwrap()), ["a"]);
        assert_eq!(pending.due(), None);
    }

    #[test]
    fn constant_writes_do_not_put_a_change_off_for_long() {
        let start = Instant::now();
        let mut pending = Pending::default();
        for step in 0..11 {
            pending.whole(format!("{step}").into(), at(start, step * 9));
            assert_eq!(pending.take(at(start, step * 9)), None);
        }
        assert_eq!(pending.take(at(start, 100)).unwrap().files.len(), 11);
    }

    #[test]
    fn a_file_that_is_being_written_is_held_until_it_is_closed() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.written("a".into(), start);
        pending.whole("b".into(), start);
        let changes = pending.take(at(start, 20)).unwrap();
        assert_eq!(files(&changes), ["b"]);
        assert_eq!(changes.hold, BTreeSet::from(["a".into()]));
        pending.whole("a".into(), at(start, 30));
        assert_eq!(files(&pending.take(at(start, 50)).unwrap()), ["a"]);
    }

    #[test]
    fn a_file_that_is_never_closed_is_read_in_the_end() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.written("a".into(), start);
        assert_eq!(pending.take(at(start, 499)), None);
        assert_eq!(files(&pending.take(at(start, 500)).unwrap()), ["a"]);
    }

    #[test]
    fn a_file_that_is_deleted_and_written_anew_was_never_gone() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.gone("a".into(), start);
        pending.everything(start);
        let changes = pending.take(at(start, 20)).unwrap();
        assert!(changes.everything && changes.hold.contains(&PathBuf::from("a")));
        pending.written("a".into(), at(start, 40));
        pending.whole("a".into(), at(start, 50));
        let changes = pending.take(at(start, 70)).unwrap();
        assert_eq!(files(&changes), ["a"]);
        assert!(changes.hold.is_empty());
    }

    #[test]
    fn a_file_that_stays_gone_is_looked_at() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.gone("a".into(), start);
        assert_eq!(pending.due(), Some(at(start, 100)));
        assert_eq!(files(&pending.take(at(start, 100)).unwrap()), ["a"]);
    }
}
