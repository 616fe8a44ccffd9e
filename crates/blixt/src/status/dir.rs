//! `--status-dir`: one YAML file for each object's status, and `summary.yaml`. Files are written when what they say
//! changes, and replaced whole.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use blixt_core::api::{Kind, ObjectKey};
use serde_json::{Value, json};

use super::book::Book;
use super::gather::Summary;
use crate::atomic;

/// The directory.
#[derive(Debug)]
pub struct StatusDir {
    path: PathBuf,
    /// Files of objects that are no more were removed, those of an instance before this one included.
    swept: bool,
}

impl StatusDir {
    /// Makes it, if need be.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("--status-dir {}: it cannot be made", path.display()))?;
        Ok(Self { path: path.to_owned(), swept: false })
    }

    /// The times that were told before. Files of objects that are no more go with the first statuses.
    pub fn book(&self) -> anyhow::Result<Book> {
        let mut book = Book::default();
        for key in self.keys()? {
            let told = fs::read_to_string(self.file(&key))
                .ok()
                .and_then(|text| serde_saphyr::from_str::<Value>(&text).ok());
            if let Some(status) = told.as_ref().and_then(|told| told.get("status")) {
                book.remember(key, status);
            }
        }
        Ok(book)
    }

    /// Writes what changed.
    pub fn write(
        &mut self,
        book: &Book,
        changed: &BTreeSet<ObjectKey>,
        summary: &Summary,
    ) -> anyhow::Result<()> {
        for key in changed {
            match book.status(key) {
                Some(status) => self.write_status(key, &status)?,
                None => self.remove(key)?,
            }
        }
        if !self.swept {
            for key in self.keys()?.into_iter().filter(|key| !book.statuses().contains_key(key)) {
                self.remove(&key)?;
            }
            self.swept = true;
        }
        let path = self.path.join("summary.yaml");
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

    fn remove(&self, key: &ObjectKey) -> anyhow::Result<()> {
        let path = self.file(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// `Gateway.default.web.yaml`; without a namespace `GatewayClass..blixt.yaml`. Namespaces have no dots.
    fn file(&self, key: &ObjectKey) -> PathBuf {
        self.path.join(format!("{}.{}.{}.yaml", key.kind, key.namespace, key.name))
    }

    fn keys(&self) -> anyhow::Result<Vec<ObjectKey>> {
        let entries =
            fs::read_dir(&self.path).with_context(|| format!("cannot look into {}", self.path.display()))?;
        Ok(entries.flatten().filter_map(|entry| key(entry.file_name().to_str()?)).collect())
    }
}

fn key(file_name: &str) -> Option<ObjectKey> {
    let mut parts = file_name.strip_suffix(".yaml")?.splitn(3, '.');
    let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
    Some(ObjectKey { kind, namespace: namespace.to_owned(), name: name.to_owned() })
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
                ObjectKey { kind: Kind::GatewayClass, namespace: String::new(), name: (*name).to_owned() };
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
        let changes = book.enter(statuses(&["a", "b.c"]), Timestamp::UNIX_EPOCH);
        status_dir.write(&book, &changes.objects, &Summary::default()).unwrap();
        assert_eq!(names(&path), ["GatewayClass..a.yaml", "GatewayClass..b.c.yaml", "summary.yaml"]);
        let written: Value =
            serde_saphyr::from_str(&fs::read_to_string(path.join("GatewayClass..a.yaml")).unwrap()).unwrap();
        assert_eq!(written["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");

        let mut status_dir = StatusDir::open(&path).unwrap();
        let mut book = status_dir.book().unwrap();
        let changes = book.enter(statuses(&["a"]), Timestamp::from_second(9).unwrap());
        status_dir.write(&book, &changes.objects, &Summary::default()).unwrap();
        assert_eq!(names(&path), ["GatewayClass..a.yaml", "summary.yaml"]);
        let [key] = book.statuses().keys().collect::<Vec<_>>()[..] else { panic!("one status") };
        assert_eq!(book.conditions(key)[0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }
}
