//! What is remembered of objects across restarts: their last good text, their generation and when they were first
//! seen. A restart that meets a broken file then takes no traffic down, and "oldest wins" stays as it was.
//!
//! A journal, one line of JSON a record, the last one about an object counts. A line that a crash tore is left
//! out. When more than half of it is old, it is written anew beside itself and renamed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use blixt_core::api::{Object, ObjectKey};
use blixt_core::manifest::{self, Content};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::store::{Known, Record};

/// A journal that grew by less than this is not worth writing anew.
const SLACK: u64 = 4 << 20;

/// The journal.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    file: File,
    /// Bytes now, and right after it was written anew.
    size: u64,
    compact_size: u64,
    /// Where the text of each object begins; made when it is first asked for.
    index: Option<BTreeMap<ObjectKey, u64>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Put { text: String, objects: Vec<Remembered> },
    Remove(ObjectKey),
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    key: ObjectKey,
    file: Arc<Path>,
    line: u32,
    generation: i64,
    created: Timestamp,
    text_hash: u64,
}

impl Memory {
    /// Opens the journal, or begins one.
    pub fn open(path: &Path) -> anyhow::Result<(Self, BTreeMap<ObjectKey, Known>)> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let mut memory = Self { path: path.to_owned(), file, size: 0, compact_size: 0, index: None };
        let mut files: BTreeSet<Arc<Path>> = BTreeSet::new();
        let mut known: BTreeMap<ObjectKey, Known> = BTreeMap::new();
        let torn = memory.each_line(|_, line| match line {
            Line::Put { objects, .. } => {
                for object in objects {
                    let file = files.get(&object.file).cloned().unwrap_or(object.file);
                    files.insert(file.clone());
                    let Remembered { key, line, generation, created, text_hash, .. } = object;
                    known.insert(key, Known { file, line, generation, created, text_hash });
                }
            }
            Line::Remove(key) => drop(known.remove(&key)),
        })?;
        if torn > 0 {
            tracing::warn!(path = %path.display(), lines = torn, "left out what cannot be read of the memory of objects");
            // Whatever follows must begin a line of its own.
            memory.compact()?;
        }
        memory.compact_size = memory.size;
        Ok((memory, known))
    }

    /// Adds records, in one write.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        self.index = None;
        let mut writer = BufWriter::with_capacity(1 << 20, &self.file);
        for record in records {
            write_line(&mut writer, &Line::from(record))?;
        }
        writer.flush()?;
        drop(writer);
        if self.size == 0 {
            // Nothing is said twice in a journal that was empty.
            self.compact_size = self.file.metadata()?.len();
        }
        self.size = self.file.metadata()?.len();
        if self.size > 2 * self.compact_size + SLACK {
            self.compact()?;
        }
        Ok(())
    }

    /// The last good state of an object, as it was written in its file.
    pub fn recall(&mut self, key: &ObjectKey) -> Option<Object> {
        let offset = *self.index().ok()?.get(key)?;
        let mut reader = BufReader::new(&self.file);
        reader.seek(SeekFrom::Start(offset)).ok()?;
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Line::Put { text, .. } = serde_json::from_str(&line).ok()? else { return None };
        manifest::parse(&text).into_iter().find_map(|document| match document.content {
            Content::Object(object) if object.key() == *key => Some(object),
            _ => None,
        })
    }

    fn index(&mut self) -> io::Result<&BTreeMap<ObjectKey, u64>> {
        if self.index.is_none() {
            self.index = Some(self.offsets()?);
        }
        Ok(self.index.get_or_insert_default())
    }

    fn offsets(&mut self) -> io::Result<BTreeMap<ObjectKey, u64>> {
        let mut offsets = BTreeMap::new();
        self.each_line(|offset, line| match line {
            Line::Put { objects, .. } => {
                offsets.extend(objects.into_iter().map(|object| (object.key, offset)));
            }
            Line::Remove(key) => drop(offsets.remove(&key)),
        })?;
        Ok(offsets)
    }

    /// Writes what counts into a new journal and puts it in place of the old one.
    fn compact(&mut self) -> io::Result<()> {
        let offsets = self.offsets()?;
        let temporary = self.path.with_extension("new");
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let mut failure = None;
        self.each_line(|offset, line| {
            let Line::Put { text, mut objects } = line else { return };
            objects.retain(|object| offsets.get(&object.key) == Some(&offset));
            if !objects.is_empty()
                && let Err(error) = write_line(&mut writer, &Line::Put { text, objects })
            {
                failure.get_or_insert(error);
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
        fs::rename(&temporary, &self.path)?;
        self.file = OpenOptions::new().append(true).read(true).open(&self.path)?;
        self.size = self.file.metadata()?.len();
        self.compact_size = self.size;
        self.index = None;
        Ok(())
    }

    /// Gives every line that can be read with its offset, and says how many cannot.
    fn each_line(&mut self, mut take: impl FnMut(u64, Line)) -> io::Result<usize> {
        let mut reader = BufReader::with_capacity(1 << 16, &self.file);
        reader.seek(SeekFrom::Start(0))?;
        let (mut offset, mut torn) = (0, 0);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = reader.read_until(b'\n', &mut bytes)?;
            if read == 0 {
                self.size = offset;
                return Ok(torn);
            }
            match serde_json::from_slice(&bytes) {
                Ok(line) if bytes.ends_with(b"\n") => take(offset, line),
                _ => torn += 1,
            }
            offset += read as u64;
        }
    }
}

impl From<&Record> for Line {
    fn from(record: &Record) -> Self {
        match record {
            Record::Put(text, objects) => Self::Put {
                text: text.clone(),
                objects: objects.iter().map(|(key, known)| Remembered::new(key, known)).collect(),
            },
            Record::Remove(key) => Self::Remove(key.clone()),
        }
    }
}

impl Remembered {
    fn new(key: &ObjectKey, known: &Known) -> Self {
        let Known { file, line, generation, created, text_hash } = known.clone();
        Self { key: key.clone(), file, line, generation, created, text_hash }
    }
}

fn write_line(writer: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, line)?;
    writer.write_all(b"\n")
}
