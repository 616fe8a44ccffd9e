//! What is known of the objects in files: their last good state, how often their spec changed, and since when they
//! are known.
//!
//! Pure: files are read, and time is told, by the caller. An object that is written wrongly keeps its last good
//! state; so does every object of a file that cannot be read, and every object that may be behind a place that
//! cannot be parsed. An object leaves only with its document or its file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blixt_core::api::{Object, ObjectKey};
use blixt_core::manifest::{Content, Document, Problem};
use blixt_core::snapshot::{Snapshot, pack};
use blixt_core::translate::Touched;
use jiff::Timestamp;
use smol_str::{SmolStr, format_smolstr};

use super::text_hash;

/// After a change of so many objects, memory is tidied up.
const MANY: usize = 1000;

/// The objects of all files.
#[derive(Debug, Default)]
pub struct Store {
    /// The last good state of every object. Facts about the machine are the run loop's to fill in.
    pub snapshot: Arc<Snapshot>,
    known: BTreeMap<Arc<ObjectKey>, Known>,
    files: BTreeMap<Arc<Path>, FileState>,
    /// Objects that more than one file defines, with the files whose definition is not the one in force.
    rivals: BTreeMap<Arc<ObjectKey>, BTreeSet<Arc<Path>>>,
}

/// What is remembered of an object beside its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// The file that it comes from.
    pub file: Arc<Path>,
    /// The line that its document starts on.
    pub line: u32,
    /// How often its spec changed, from 1.
    pub generation: i64,
    /// When it was first seen.
    pub created: Timestamp,
    /// Hash of the text of its document.
    pub text_hash: u64,
}

/// What reading a file gave.
#[derive(Debug)]
pub enum Reading {
    /// There is no such file.
    Gone,
    /// It cannot be read.
    Unreadable(Problem),
    /// It cannot be looked for, since something above it cannot be read, which says so itself.
    Unknown,
    /// Its text and the documents in it.
    Text(String, Vec<Document>),
}

/// What a change of files led to.
#[derive(Debug, Default)]
pub struct Update {
    /// Objects that are different from before.
    pub touched: Touched,
    /// What to remember across restarts, in order.
    pub records: Vec<Record>,
}

/// Something to remember.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// The text of a document, and the objects that were read from it.
    Put(String, Vec<(ObjectKey, Known)>),
    /// An object that is no more.
    Remove(ObjectKey),
}

/// A problem and the file that it is in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct FileProblem {
    /// The file.
    pub file: PathBuf,
    /// The line of the field, from 1; 0 for the file as a whole.
    pub line: u32,
    /// The object, as far as it could be read.
    pub object: String,
    /// The field; empty for the object as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub next: String,
}

/// A document of a kind that Blixt does not read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct Skipped {
    /// The file.
    pub file: PathBuf,
    /// The line that it starts on.
    pub line: u32,
    /// Kind, namespace and name.
    pub object: String,
}

#[derive(Debug, Default)]
struct FileState {
    holds: BTreeMap<Arc<ObjectKey>, Hold>,
    /// Objects whose document cannot be used.
    broken: BTreeSet<ObjectKey>,
    problems: Vec<Problem>,
    skipped: Vec<(u32, String)>,
}

/// What a file says of an object.
#[derive(Debug)]
enum Hold {
    /// Nothing that can be understood at the moment: its last good state counts.
    Stale,
    /// It defines it, as another file does, which was first.
    Shadowed(Box<Definition>),
    /// It is in force as this file defines it.
    InForce,
}

#[derive(Debug)]
struct Definition {
    line: u32,
    object: Object,
    text: Arc<str>,
    text_hash: u64,
}

impl Store {
    /// Begins with what was remembered. No object is in force until its file was read.
    pub fn remembering(known: BTreeMap<ObjectKey, Known>) -> Self {
        let known: BTreeMap<Arc<ObjectKey>, Known> =
            known.into_iter().map(|(key, known)| (Arc::new(key), known)).collect();
        let mut files: BTreeMap<Arc<Path>, FileState> = BTreeMap::new();
        for (key, known) in &known {
            files.entry(known.file.clone()).or_default().holds.insert(key.clone(), Hold::Stale);
        }
        Self { known, files, ..Self::default() }
    }

    /// The objects, to change them. Whoever holds them still keeps them as they were.
    pub fn snapshot_mut(&mut self) -> &mut Snapshot {
        Arc::make_mut(&mut self.snapshot)
    }

    /// Every file that was read, or that an object is remembered from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(AsRef::as_ref)
    }

    /// Every object in force, with what is known of it.
    pub fn known(&self) -> impl Iterator<Item = (&ObjectKey, &Known)> {
        self.known.iter().map(|(key, known)| (&**key, known))
    }

    /// Where an object comes from.
    pub fn origin(&self, key: &ObjectKey) -> Option<&Known> {
        self.known.get(key)
    }

    /// Everything that is wrong with files and documents.
    pub fn problems(&self) -> Vec<FileProblem> {
        let mut problems: Vec<FileProblem> = self
            .files
            .iter()
            .flat_map(|(file, state)| {
                state.problems.iter().map(|problem| FileProblem::new(file, problem.clone()))
            })
            .collect();
        problems.extend(
            self.rivals
                .iter()
                .flat_map(|(key, files)| files.iter().filter_map(|file| self.defined_twice(key, file))),
        );
        problems.sort();
        problems
    }

    /// The objects of which an earlier good state stands in for what their file says, and once without a name each such
    /// file.
    pub fn kept(&self) -> BTreeSet<(&Path, String)> {
        let mut kept = BTreeSet::new();
        for (file, state) in &self.files {
            for (key, _) in state.holds.iter().filter(|(_, hold)| matches!(hold, Hold::Stale)) {
                kept.insert((file.as_ref(), String::new()));
                kept.insert((file.as_ref(), key.to_string()));
            }
        }
        kept
    }

    /// Every document of a kind that Blixt does not read.
    pub fn skipped(&self) -> Vec<Skipped> {
        let of_file = |(file, state): (&Arc<Path>, &FileState)| {
            let skipped = |(line, object): &(u32, String)| Skipped {
                file: file.to_path_buf(),
                line: *line,
                object: object.clone(),
            };
            state.skipped.iter().map(skipped).collect::<Vec<_>>()
        };
        self.files.iter().flat_map(of_file).collect()
    }

    /// Takes in what was read. `recall` gives the remembered text of a document by the object in it.
    pub fn update(
        &mut self,
        readings: BTreeMap<PathBuf, Reading>,
        now: Timestamp,
        recall: &mut dyn FnMut(&ObjectKey) -> Option<Object>,
    ) -> Update {
        let mut touched: BTreeMap<Arc<ObjectKey>, Vec<(Arc<Path>, Definition)>> = BTreeMap::new();
        for (file, reading) in readings {
            let file: Arc<Path> = file.into();
            for (key, definition) in self.read(&file, reading) {
                let definitions = touched.entry(key).or_default();
                definitions.extend(definition.map(|definition| (file.clone(), definition)));
            }
        }
        let mut settled = Settled::default();
        let count = touched.len();
        for (key, definitions) in touched {
            self.settle(key, definitions, now, recall, &mut settled);
        }
        self.note_broken();
        if count >= MANY {
            self.pack();
        }
        settled.update()
    }

    fn pack(&mut self) {
        pack(&mut self.known);
        self.files.values_mut().for_each(|state| pack(&mut state.holds));
        self.snapshot_mut().pack();
    }

    /// Lets those who refer to an object know that it is there, but not as it must be.
    fn note_broken(&mut self) {
        let broken: BTreeSet<ObjectKey> = self
            .files
            .values()
            .flat_map(|state| &state.broken)
            .filter(|key| self.snapshot.get(key).is_none())
            .cloned()
            .collect();
        if broken != self.snapshot.broken {
            self.snapshot_mut().broken = broken;
        }
    }

    /// The key by which the object is known already: one for all.
    fn shared(&self, key: ObjectKey) -> Arc<ObjectKey> {
        self.known.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| known.clone())
    }

    /// Notes what a file says now. Gives every object that it holds or held, with its definition if it has one.
    fn read(&mut self, file: &Arc<Path>, reading: Reading) -> Vec<(Arc<ObjectKey>, Option<Definition>)> {
        let before = self.files.remove(file).unwrap_or_default();
        let mut touched: Vec<(Arc<ObjectKey>, Option<Definition>)> = Vec::new();
        let mut after = FileState::default();
        match reading {
            Reading::Gone => {
                touched.extend(before.holds.into_keys().map(|key| (key, None)));
                self.forget_rival(file, touched.iter().map(|(key, _)| key));
                return touched;
            }
            Reading::Unreadable(_) | Reading::Unknown => {
                if let Reading::Unreadable(problem) = reading {
                    after.problems.push(problem);
                }
                after.broken = before.broken;
                // Whatever was shadowed here stays so: the file may come back as it was.
                after.holds = before.holds.into_iter().map(|(key, hold)| (key, hold.stale())).collect();
                touched.extend(after.holds.keys().map(|key| (key.clone(), None)));
            }
            Reading::Text(text, documents) => {
                let Parsed { definitions, broken, unattributed } =
                    parsed(&text, documents, &mut after.problems, &mut after.skipped);
                for (key, hold) in before.holds {
                    if (unattributed || broken.contains(&key)) && !definitions.contains_key(&key) {
                        after.holds.insert(key.clone(), hold.stale());
                    }
                    if !definitions.contains_key(&key) {
                        touched.push((key, None));
                    }
                }
                touched.extend(
                    definitions.into_iter().map(|(key, definition)| (self.shared(key), Some(definition))),
                );
                after.broken = broken;
            }
        }
        self.forget_rival(file, touched.iter().map(|(key, _)| key));
        self.files.insert(file.clone(), after);
        touched
    }

    fn forget_rival<'a>(&mut self, file: &Path, keys: impl Iterator<Item = &'a Arc<ObjectKey>>) {
        for key in keys {
            if let Some(files) = self.rivals.get_mut(key) {
                files.remove(file);
                if files.is_empty() {
                    self.rivals.remove(key);
                }
            }
        }
    }

    /// Decides which definition of an object is in force, and whether that changes anything.
    fn settle(
        &mut self,
        key: Arc<ObjectKey>,
        definitions: Vec<(Arc<Path>, Definition)>,
        now: Timestamp,
        recall: &mut dyn FnMut(&ObjectKey) -> Option<Object>,
        settled: &mut Settled,
    ) {
        let mut definitions: BTreeMap<Arc<Path>, Definition> = definitions.into_iter().collect();
        // Those that were shadowed compete again.
        for file in self.rivals.remove(&key).unwrap_or_default() {
            if let Some(state) = self.files.get_mut(&file)
                && let Some(Hold::Shadowed(definition)) = state.holds.remove(&key)
            {
                definitions.entry(file).or_insert(*definition);
            }
        }
        let owner = self.known.get(&key).map(|known| known.file.clone());
        let owner_still = owner.as_ref().is_some_and(|owner| definitions.contains_key(owner));
        let in_force = owner.as_ref().filter(|_| !owner_still).and_then(|owner| {
            let hold = self.files.get(owner)?.holds.get(&key)?;
            matches!(hold, Hold::InForce).then(|| owner.clone())
        });
        let winner = match (&owner, owner_still) {
            (Some(owner), true) => Some(owner.clone()),
            _ => in_force.clone().or_else(|| definitions.keys().next().cloned()),
        };
        let chosen = winner.as_ref().and_then(|winner| definitions.remove(winner));
        for (file, definition) in definitions {
            self.rivals.entry(key.clone()).or_default().insert(file.clone());
            let hold = Hold::Shadowed(Box::new(definition));
            self.files.entry(file).or_default().holds.insert(key.clone(), hold);
        }
        match (winner, chosen) {
            (Some(file), Some(definition)) => {
                // A file that cannot be understood holds nothing that another one defines.
                if let Some(owner) = owner.filter(|owner| *owner != file)
                    && let Some(state) = self.files.get_mut(&owner)
                    && matches!(state.holds.get(&key), Some(Hold::Stale))
                {
                    state.holds.remove(&key);
                }
                self.files.entry(file.clone()).or_default().holds.insert(key.clone(), Hold::InForce);
                self.define(key, file, definition, now, recall, settled);
            }
            (Some(_), None) => {}
            (None, _) => self.hold_or_remove(key, recall, settled),
        }
    }

    fn define(
        &mut self,
        key: Arc<ObjectKey>,
        file: Arc<Path>,
        definition: Definition,
        now: Timestamp,
        recall: &mut dyn FnMut(&ObjectKey) -> Option<Object>,
        settled: &mut Settled,
    ) {
        let Definition { line, mut object, text, text_hash } = definition;
        let before = self.known.get(&key);
        let old = self.snapshot.get(&key);
        let (generation, created) = match before {
            None => (1, now),
            Some(known) if known.text_hash == text_hash => (known.generation, known.created),
            Some(known) => {
                let old = old.clone().or_else(|| recall(&key));
                let same = old.is_some_and(|old| old.same_spec(&object));
                (known.generation + i64::from(!same), known.created)
            }
        };
        let metadata = object.metadata_mut();
        metadata.generation = generation;
        metadata.creation_timestamp.get_or_insert_with(|| settled.written(created));
        let known = Known { file, line, generation, created, text_hash };
        let moved = |before: &Known| Known { line, ..before.clone() } != known;
        if before.is_none_or(moved) {
            settled.put(text, ObjectKey::clone(&key), known.clone());
        }
        if old.as_ref() != Some(&object) {
            settled.touched.add(old.as_ref(), Some(&object));
            self.snapshot_mut().insert_as(key.clone(), object);
        }
        self.known.insert(key, known);
    }

    /// No file defines the object. It stays if a file that cannot be understood may still do so.
    fn hold_or_remove(
        &mut self,
        key: Arc<ObjectKey>,
        recall: &mut dyn FnMut(&ObjectKey) -> Option<Object>,
        settled: &mut Settled,
    ) {
        let Some(known) = self.known.get(&key) else { return };
        let held = self.files.get(&known.file).is_some_and(|state| state.holds.contains_key(&key));
        let in_force = self.snapshot.get(&key);
        if held && in_force.is_none() {
            let created = known.created;
            if let Some(mut object) = recall(&key) {
                let metadata = object.metadata_mut();
                metadata.generation = known.generation;
                metadata.creation_timestamp.get_or_insert_with(|| settled.written(created));
                settled.touched.add(None, Some(&object));
                self.snapshot_mut().insert(object);
                return;
            }
        } else if held {
            return;
        }
        if let Some(state) = self.files.get_mut(&known.file) {
            state.holds.remove(&key);
        }
        self.snapshot_mut().remove(&key);
        self.known.remove(&key);
        settled.touched.add(in_force.as_ref(), None);
        settled.records.push(Record::Remove(ObjectKey::clone(&key)));
    }

    fn defined_twice(&self, key: &ObjectKey, file: &Arc<Path>) -> Option<FileProblem> {
        let Some(Hold::Shadowed(definition)) = self.files.get(file)?.holds.get(key) else { return None };
        let first = self.known.get(key)?;
        let in_force = self.snapshot.get(key);
        if in_force.is_some_and(|in_force| in_force.same_meaning(&definition.object)) {
            // Both want the same: whichever goes, nothing changes.
            return None;
        }
        let problem = Problem {
            line: definition.line,
            object: key.to_string(),
            field: "metadata.name".into(),
            message: format!(
                "it is defined already on line {} of {}, which is in force",
                first.line,
                first.file.display()
            ),
            next: "remove or rename one of the two".into(),
        };
        Some(FileProblem::new(file, problem))
    }
}

impl Hold {
    fn stale(self) -> Self {
        match self {
            Self::InForce | Self::Stale => Self::Stale,
            shadowed @ Self::Shadowed(..) => shadowed,
        }
    }
}

impl FileProblem {
    /// A problem of a file.
    pub fn new(file: &Path, problem: Problem) -> Self {
        let Problem { line, object, field, message, next } = problem;
        Self { file: file.to_owned(), line, object, field, message, next }
    }
}

/// `web.yaml:7: Gateway default/web: spec.listeners[0].port: 70000 is too large; give a port from 1 to 65535`
impl std::fmt::Display for FileProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        for part in [&self.object, &self.field, &self.message].into_iter().filter(|part| !part.is_empty()) {
            write!(f, ": {part}")?;
        }
        if self.next.is_empty() { Ok(()) } else { write!(f, "; {}", self.next) }
    }
}

/// The text of a document, and what was read from it.
type SharedDocument = (Arc<str>, Vec<(ObjectKey, Known)>);

/// What came of settling, with the objects of one document in one record.
#[derive(Default)]
struct Settled {
    touched: Touched,
    /// The last time that was written out: most objects share one.
    written: Option<(Timestamp, SmolStr)>,
    records: Vec<Record>,
    /// By the address of the shared text: the items of one `List` share it.
    documents: BTreeMap<usize, SharedDocument>,
}

impl Settled {
    fn put(&mut self, text: Arc<str>, key: ObjectKey, known: Known) {
        let address = text.as_ptr().addr();
        self.documents.entry(address).or_insert_with(|| (text, Vec::new())).1.push((key, known));
    }

    /// A time as `creationTimestamp` has it.
    fn written(&mut self, time: Timestamp) -> SmolStr {
        match &self.written {
            Some((known, text)) if *known == time => text.clone(),
            _ => self.written.insert((time, format_smolstr!("{time:.6}"))).1.clone(),
        }
    }

    fn update(self) -> Update {
        let mut records = self.records;
        let put =
            |(text, objects): (Arc<str>, Vec<(ObjectKey, Known)>)| Record::Put(text.to_string(), objects);
        records.extend(self.documents.into_values().map(put));
        Update { touched: self.touched, records }
    }
}

struct Parsed {
    definitions: BTreeMap<ObjectKey, Definition>,
    /// Objects whose document is wrong.
    broken: BTreeSet<ObjectKey>,
    /// Some document is so wrong that nobody knows whose it is.
    unattributed: bool,
}

fn parsed(
    text: &str,
    documents: Vec<Document>,
    problems: &mut Vec<Problem>,
    skipped: &mut Vec<(u32, String)>,
) -> Parsed {
    let mut parsed = Parsed { definitions: BTreeMap::new(), broken: BTreeSet::new(), unattributed: false };
    let mut shared: Option<(std::ops::Range<usize>, Arc<str>, u64)> = None;
    for document in documents {
        let Document { line, span, key, content } = document;
        match content {
            Content::Skipped(object) => skipped.push((line, object)),
            Content::Invalid(found) => {
                problems.extend(found);
                match key {
                    Some(key) => drop(parsed.broken.insert(key)),
                    None => parsed.unattributed = true,
                }
            }
            Content::Object(object) => {
                let (text, hash) = match &shared {
                    Some((known, text, hash)) if *known == span => (text.clone(), *hash),
                    _ => {
                        let text: Arc<str> = text.get(span.clone()).unwrap_or_default().into();
                        let hash = text_hash(text.as_bytes());
                        shared = Some((span, text.clone(), hash));
                        (text, hash)
                    }
                };
                let key = object.key();
                if let Some(first) = parsed.definitions.get(&key) {
                    problems.push(Problem {
                        line,
                        object: key.to_string(),
                        field: "metadata.name".into(),
                        message: format!(
                            "it is defined already on line {} of the same file, which is in force",
                            first.line
                        ),
                        next: "remove or rename one of the two".into(),
                    });
                    continue;
                }
                parsed.definitions.insert(key, Definition { line, object, text, text_hash: hash });
            }
        }
    }
    parsed
}

#[cfg(test)]
mod tests;
