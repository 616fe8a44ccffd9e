//! Files of manifests, and what is known of the objects in them.
//!
//! ```text
//! inotify ─► Pending ─► Changes ─► scan, read, parse ─► Store ─► Snapshot
//!                                                         ▲ │
//!                                                        Memory (across restarts)
//! ```

pub mod ahead;
pub mod memory;
pub mod pending;
pub mod read;
pub mod scan;
pub mod store;
pub mod watch;

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use blixt_core::translate::Touched;
use jiff::Timestamp;

use self::ahead::Ahead;
use self::memory::Memory;
use self::pending::Changes;
use self::read::Reader;
use self::scan::scan;
use self::store::{Reading, Store};
use self::watch::Watcher;

/// Directories that are scanned again because they are new; more often than this nobody makes one meanwhile.
const SCANS: usize = 8;

/// Followed files.
pub struct Source {
    roots: Vec<PathBuf>,
    watcher: Watcher,
    memory: Memory,
    reader: Reader,
    store: Store,
}

/// What was read once.
pub struct Loaded {
    /// What is known of the objects.
    pub store: Store,
    /// The text of each file that could be read.
    pub texts: BTreeMap<PathBuf, String>,
}

/// Reads files and directories once, without a memory. `-` is standard input, and whatever is neither file nor
/// directory is read like it, so that `<(..)` works.
pub fn load(roots: &[PathBuf], now: Timestamp) -> Loaded {
    let (streams, roots): (Vec<PathBuf>, Vec<PathBuf>) =
        roots.iter().cloned().partition(|root| is_stream(root));
    let found = scan(&roots);
    let mut reader = Reader::default();
    let mut readings: BTreeMap<PathBuf, Reading> = BTreeMap::new();
    for (path, fingerprint) in &found.files {
        readings.extend(reader.read(path, *fingerprint, true).map(|reading| (path.clone(), reading)));
    }
    for (path, error) in &found.unknown {
        readings.insert(path.clone(), read::unreadable(error));
    }
    readings.extend(streams.into_iter().map(|path| {
        let reading = read::stream(&path);
        (path, reading)
    }));
    let text_of = |(path, reading): (&PathBuf, &Reading)| match reading {
        Reading::Text(text, _) => Some((path.clone(), text.clone())),
        _ => None,
    };
    let texts = readings.iter().filter_map(text_of).collect();
    let mut store = Store::default();
    store.update(readings, now, &mut |_| None);
    Loaded { store, texts }
}

fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
        || std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

impl Source {
    /// Watches files and directories; what was known of their objects before is in `memory_file`. What was read `ahead` is not
    /// parsed again.
    pub fn open(roots: &[PathBuf], memory_file: &Path, ahead: Ahead) -> anyhow::Result<Self> {
        let roots = roots.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
        let (memory, known) = Memory::open(memory_file)?;
        Ok(Self {
            roots,
            watcher: Watcher::new()?,
            memory,
            reader: Reader::after(ahead),
            store: Store::remembering(known),
        })
    }

    /// What is known of the objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The same, for the facts about the machine that belong to a Snapshot.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Waits until something changed.
    pub async fn changes(&mut self) -> anyhow::Result<Changes> {
        self.watcher.changes().await
    }

    /// Reads every file anew at the next refresh, changed or not.
    pub fn forget_all(&mut self) {
        self.reader.forget_all();
    }

    /// Reads what changed. Says which objects did.
    pub fn refresh(&mut self, changes: &Changes) -> Touched {
        // Somebody wrote to what a link leads to: whose file that is, the fingerprints tell.
        let elsewhere =
            changes.files.iter().any(|file| !self.roots.iter().any(|root| file.starts_with(root)));
        let readings = if changes.everything || elsewhere {
            self.read_everything(changes)
        } else {
            self.read_files(changes)
        };
        self.reader.forget_ahead();
        if readings.is_empty() {
            return Touched::default();
        }
        let Self { store, memory, .. } = self;
        let update = store.update(readings, Timestamp::now(), &mut |key| memory.recall(key));
        if let Err(error) = memory.append(&update.records) {
            tracing::warn!(
                %error,
                "cannot remember the last good state of objects: a restart with a broken file would lose them; \
                 make room in /run"
            );
        }
        update.touched
    }

    fn read_files(&mut self, changes: &Changes) -> BTreeMap<PathBuf, Reading> {
        let mut readings = BTreeMap::new();
        for path in &changes.files {
            let reading = match std::fs::metadata(path) {
                Ok(metadata) if metadata.is_file() => self.reader.read(path, (&metadata).into(), true),
                Ok(_) => Some(read::unreadable(&scan::not_a_file())),
                Err(error) if self.is_root(path) || error.kind() != std::io::ErrorKind::NotFound => {
                    self.reader.forget(path);
                    Some(read::unreadable(&error))
                }
                Err(_) => {
                    self.reader.forget(path);
                    Some(Reading::Gone)
                }
            };
            readings.extend(reading.map(|reading| (path.clone(), reading)));
        }
        readings
    }

    fn read_everything(&mut self, changes: &Changes) -> BTreeMap<PathBuf, Reading> {
        let mut found = scan(&self.roots);
        for _ in 0..SCANS {
            if !self.watcher.watch(std::mem::take(&mut found.watch)) {
                break;
            }
            found = scan(&self.roots);
        }
        let mut readings = BTreeMap::new();
        for (path, fingerprint) in &found.files {
            if !changes.hold.contains(path) {
                let changed = changes.files.contains(path);
                readings.extend(
                    self.reader.read(path, *fingerprint, changed).map(|reading| (path.clone(), reading)),
                );
            }
        }
        let unlisted: Vec<PathBuf> = self
            .store
            .files()
            .filter(|path| !found.files.contains_key(*path) && !changes.hold.contains(*path))
            .map(Path::to_owned)
            .collect();
        for path in unlisted {
            self.reader.forget(&path);
            let reading = match found.unknown.get(&path) {
                Some(error) => read::unreadable(error),
                None if found.is_unknown(&path) => Reading::Unknown,
                None => Reading::Gone,
            };
            readings.insert(path, reading);
        }
        for (path, error) in &found.unknown {
            readings.entry(path.clone()).or_insert_with(|| read::unreadable(error));
        }
        readings
    }

    fn is_root(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| root == path)
    }
}

/// Tells texts apart. Only compared with what the same version wrote.
pub(crate) fn text_hash(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
