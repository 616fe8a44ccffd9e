//! `--status-dir`: one YAML file for each object's status, and `summary.yaml`. Files are written when what they say
//! changes, and replaced whole.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use blixt_core::api::{Kind, ObjectKey};
use blixt_core::status::Statuses;
use serde_json::{Value, json};
use smol_str::SmolStr;

use super::book::Book;
use super::gather::Summary;
use crate::atomic;
use crate::source::text_hash;

/// Linux has room for 255 bytes in a name; while it is written, ten more than these are in use.
const LONGEST: usize = 240;
/// What it says of the instance as a whole.
const SUMMARY: &str = "summary.yaml";

/// The directory.
#[derive(Debug)]
pub struct StatusDir {
    path: PathBuf,
    /// Files of objects that are no more were removed, those of an instance before this one included.
    swept: bool,
    /// Objects of which the file does not say yet what it should.
    unwritten: BTreeSet<ObjectKey>,
    /// The last attempt failed.
    failed: bool,
}

impl StatusDir {
    /// Makes it, if need be.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("--status-dir {}: it cannot be made", path.display()))?;
        Ok(Self { path: path.to_owned(), swept: false, unwritten: BTreeSet::new(), failed: false })
    }

    /// The times that were told before. Files of objects that are no more go with the first statuses.
    pub fn book(&self) -> anyhow::Result<Book> {
        let mut book = Book::default();
        for file in self.files()? {
            let told =
                fs::read_to_string(file).ok().and_then(|text| serde_saphyr::from_str::<Value>(&text).ok());
            if let Some(told) = told
                && let (Some(key), Some(status)) = (key(&told), told.get("status"))
            {
                book.remember(key, status);
            }
        }
        Ok(book)
    }

    /// Whether it does not hold what was to be written.
    pub fn is_behind(&self) -> bool {
        self.failed || !self.path.is_dir()
    }

    /// Removes every file that it writes.
    pub fn clear(&self) -> anyhow::Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        for file in self.files()? {
            remove_file(&file)?;
        }
        remove_file(&self.path.join(SUMMARY))
    }

    /// Writes what changed, and what could not be written before, as far as it is among `statuses`. One file that fails does not keep back the others;
    /// the first error is given.
    pub fn write(
        &mut self,
        book: &Book,
        statuses: &Statuses,
        changed: &BTreeSet<ObjectKey>,
        summary: &Summary,
    ) -> anyhow::Result<()> {
        self.unwritten.extend(changed.iter().cloned());
        if !self.path.is_dir() {
            // Somebody removed it, with all that was in it.
            self.unwritten.extend(book.objects().cloned());
        }
        let result = self.write_due(book, statuses, summary);
        self.failed = result.is_err();
        result
    }

    fn write_due(&mut self, book: &Book, statuses: &Statuses, summary: &Summary) -> anyhow::Result<()> {
        fs::create_dir_all(&self.path).with_context(|| format!("cannot make {}", self.path.display()))?;
        let due = std::mem::take(&mut self.unwritten);
        let mut failure = None;
        for key in due {
            let written = match statuses.get(&key) {
                Some(status) => self.write_status(&key, &book.status(&key, status)),
                None if book.is_told(&key) => Err(anyhow!("the status of {key} is not at hand")),
                None => remove_file(&self.file(&key)),
            };
            if let Err(error) = written {
                failure.get_or_insert(error);
                self.unwritten.insert(key);
            }
        }
        self.sweep_and_sum_up(book, summary)?;
        failure.map_or(Ok(()), Err)
    }

    fn sweep_and_sum_up(&mut self, book: &Book, summary: &Summary) -> anyhow::Result<()> {
        if !self.swept {
            let told: BTreeSet<PathBuf> = book.objects().map(|key| self.file(key)).collect();
            for file in self.files()?.into_iter().filter(|file| !told.contains(file)) {
                remove_file(&file)?;
            }
            self.swept = true;
        }
        let path = self.path.join(SUMMARY);
        let text = serde_saphyr::to_string(summary)?;
        if fs::read(&path).is_ok_and(|written| written == text.as_bytes()) {
            return Ok(());
        }
        atomic::write(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn write_status(&self, key: &ObjectKey, status: &Value) -> anyhow::Result<()> {
        let mut metadata = json!({ "name": key.name });
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        let object = json!({ "kind": key.kind.name(), "metadata": metadata, "status": status });
        let path = self.file(key);
        atomic::write(&path, serde_saphyr::to_string(&object)?.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn file(&self, key: &ObjectKey) -> PathBuf {
        self.path.join(file_name(key))
    }

    /// The files of objects that are there.
    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries =
            fs::read_dir(&self.path).with_context(|| format!("cannot look into {}", self.path.display()))?;
        let files = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_of_object));
        Ok(files.map(|entry| entry.path()).collect())
    }
}

/// `Gateway.default.web.yaml`; without a namespace `GatewayClass..blixt.yaml`. Namespaces have no dots. A name that is
/// too long for a file ends in a hash of it.
fn file_name(key: &ObjectKey) -> String {
    let whole = format!("{}.{}.{}", key.kind, key.namespace, key.name);
    if whole.len() <= LONGEST {
        return format!("{whole}.yaml");
    }
    let begin: String = whole.chars().take(LONGEST - 17).collect();
    format!("{begin}~{:016x}.yaml", text_hash(whole.as_bytes()))
}

fn is_of_object(file_name: &str) -> bool {
    let parts: Vec<&str> = file_name.splitn(3, '.').collect();
    file_name.ends_with(".yaml")
        && parts.len() == 3
        && Kind::ALL.into_iter().any(|known| known.name() == parts[0])
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The object that a file tells of.
fn key(told: &Value) -> Option<ObjectKey> {
    let text = |value: &Value| value.as_str().map(SmolStr::new);
    let kind = told.get("kind")?.as_str()?;
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
    let metadata = told.get("metadata")?;
    let namespace = metadata.get("namespace").and_then(text).unwrap_or_default();
    Some(ObjectKey { kind, namespace, name: metadata.get("name").and_then(text)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use blixt_core::status::{Condition, ConditionStatus, GatewayClassStatus, Status, Statuses};
    use jiff::Timestamp;

    fn statuses(names: &[&str]) -> Statuses {
        let status = GatewayClassStatus {
            conditions: vec![Condition::new("Accepted", ConditionStatus::True, "Accepted", "", 1)],
            ..GatewayClassStatus::default()
        };
        let of = |name: &&str| {
            let key =
                ObjectKey { kind: Kind::GatewayClass, namespace: SmolStr::default(), name: (*name).into() };
            (key, Status::GatewayClass(status.clone()))
        };
        names.iter().map(of).collect()
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_object_has_a_file_as_long_as_it_has_a_status() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/for/it");
        let mut status_dir = StatusDir::open(&path).unwrap();
        let mut book = Book::default();
        let told = statuses(&["a", "b.c"]);
        let changes = book.enter(&told, Timestamp::UNIX_EPOCH);
        status_dir.write(&book, &told, &changes.objects, &Summary::default()).unwrap();
        assert_eq!(names(&path), ["GatewayClass..a.yaml", "GatewayClass..b.c.yaml", "summary.yaml"]);
        let written: Value =
            serde_saphyr::from_str(&fs::read_to_string(path.join("GatewayClass..a.yaml")).unwrap()).unwrap();
        assert_eq!(written["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");

        let mut status_dir = StatusDir::open(&path).unwrap();
        let mut book = status_dir.book().unwrap();
        let told = statuses(&["a"]);
        let changes = book.enter(&told, Timestamp::from_second(9).unwrap());
        status_dir.write(&book, &told, &changes.objects, &Summary::default()).unwrap();
        assert_eq!(names(&path), ["GatewayClass..a.yaml", "summary.yaml"]);
        let (key, status) = told.first_key_value().unwrap();
        assert_eq!(book.status(key, status)["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn what_could_not_be_written_is_written_later_and_keeps_nothing_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("told");
        let mut status_dir = StatusDir::open(&path).unwrap();
        let mut book = Book::default();
        let told = statuses(&["a", "b"]);
        let changes = book.enter(&told, Timestamp::UNIX_EPOCH);
        // No file can be put where a directory is.
        fs::create_dir(path.join("GatewayClass..a.yaml")).unwrap();
        assert!(status_dir.write(&book, &told, &changes.objects, &Summary::default()).is_err());
        assert!(status_dir.is_behind());
        assert!(path.join("GatewayClass..b.yaml").is_file() && path.join(SUMMARY).is_file());
        fs::remove_dir(path.join("GatewayClass..a.yaml")).unwrap();
        status_dir.write(&book, &told, &BTreeSet::new(), &Summary::default()).unwrap();
        assert!(path.join("GatewayClass..a.yaml").is_file() && !status_dir.is_behind());

        fs::remove_dir_all(&path).unwrap();
        assert!(status_dir.is_behind());
        status_dir.write(&book, &told, &BTreeSet::new(), &Summary::default()).unwrap();
        assert!(path.join("GatewayClass..a.yaml").is_file());
        status_dir.clear().unwrap();
        assert!(fs::read_dir(&path).unwrap().next().is_none());
    }

    #[test]
    fn the_longest_names_have_files_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let mut status_dir = StatusDir::open(directory.path()).unwrap();
        let mut book = Book::default();
        let long = ["x", "y"].map(|last| "n".repeat(252) + last);
        let told = statuses(&[&long[0], &long[1]]);
        let changes = book.enter(&told, Timestamp::UNIX_EPOCH);
        status_dir.write(&book, &told, &changes.objects, &Summary::default()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        let mut again = StatusDir::open(directory.path()).unwrap().book().unwrap();
        again.enter(&told, Timestamp::from_second(9).unwrap());
        let (key, status) = told.first_key_value().unwrap();
        assert_eq!(again.status(key, status)["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }
}
