//! Files that are read and parsed beside the start of the data plane: both take a processor some hundred milliseconds.
//!
//! Only the documents are kept, with the hash of the text that they were read from: whoever reads the file, and finds that text, need not
//! parse it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use blixt_core::manifest::{self, Document};

use super::read::read_text;
use super::scan::scan;
use super::text_hash;

/// Documents by file, with the hash of its text.
type Parsed = BTreeMap<PathBuf, (u64, Vec<Document>)>;

/// What is, or was, read ahead.
#[derive(Debug, Default)]
pub struct Ahead {
    reader: Option<JoinHandle<Parsed>>,
    parsed: Parsed,
}

impl Ahead {
    /// Begins to read files and directories.
    pub fn begin(roots: &[PathBuf]) -> Self {
        let roots: Vec<PathBuf> = roots.iter().filter_map(|root| std::path::absolute(root).ok()).collect();
        let read = move || {
            let files = scan(&roots).files.into_keys();
            let parse = |path: PathBuf| {
                let text = read_text(&path).ok()?;
                Some((path, (text_hash(text.as_bytes()), manifest::parse(&text))))
            };
            files.filter_map(parse).collect()
        };
        // Without a thread the files are parsed when they are asked for.
        Self { reader: thread::Builder::new().spawn(read).ok(), parsed: Parsed::new() }
    }

    /// The documents of a file whose text has this hash, once.
    pub fn take(&mut self, path: &Path, hash: u64) -> Option<Vec<Document>> {
        if let Some(reader) = self.reader.take() {
            // What it could not read, whoever asks can try himself.
            self.parsed = reader.join().unwrap_or_default();
        }
        let (known, documents) = self.parsed.remove(path)?;
        (known == hash).then_some(documents)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_read_ahead_counts_once_and_only_for_the_same_text() {
        let directory = tempfile::tempdir().unwrap();
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
        let [same, other] = ["same.yaml", "other.yaml"].map(|name| directory.path().join(name));
        for path in [&same, &other] {
            fs::write(path, text).unwrap();
        }
        let mut ahead = Ahead::begin(&[directory.path().to_owned()]);
        let hash = text_hash(text.as_bytes());
        assert_eq!(ahead.take(&same, hash), Some(manifest::parse(text)));
        assert_eq!(ahead.take(&same, hash), None);
        assert_eq!(ahead.take(&other, hash + 1), None);
        assert_eq!(Ahead::default().take(&other, hash), None);
    }
}
