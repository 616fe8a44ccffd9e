//! Reads files, and only those that changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use blixt_core::manifest::{self, Problem};

use super::ahead::Ahead;
use super::scan::Fingerprint;
use super::store::Reading;
use super::text_hash;

/// A file of manifests larger than this is a mistake: 10 000 routes with all that belongs to them take 12 MiB.
const LARGEST_FILE: u64 = 128 << 20;

/// What was read last of each file.
#[derive(Debug, Default)]
pub struct Reader {
    last: BTreeMap<PathBuf, (Fingerprint, u64)>,
    ahead: Ahead,
}

impl Reader {
    /// Of files that may have been read ahead.
    pub fn after(ahead: Ahead) -> Self {
        Self { ahead, ..Self::default() }
    }

    /// Reads a file and parses it, unless it is what it was. A file that is known to have `changed` is read even if
    /// its fingerprint says otherwise: clocks of file systems are coarse.
    pub fn read(&mut self, path: &Path, fingerprint: Fingerprint, changed: bool) -> Option<Reading> {
        let last = self.last.get(path).copied();
        if !changed && last.is_some_and(|(known, _)| known == fingerprint) {
            return None;
        }
        match read_text(path) {
            Ok(text) => {
                let hash = text_hash(text.as_bytes());
                self.last.insert(path.to_owned(), (fingerprint, hash));
                if last.is_some_and(|(_, known)| known == hash) {
                    return None;
                }
                let documents = self.ahead.take(path, hash).unwrap_or_else(|| manifest::parse(&text));
                Some(Reading::Text(text, documents))
            }
            Err(error) => {
                self.forget(path);
                Some(if error.kind() == ErrorKind::NotFound { Reading::Gone } else { unreadable(&error) })
            }
        }
    }

    /// Forgets what was read ahead and is not wanted.
    pub fn forget_ahead(&mut self) {
        self.ahead = Ahead::default();
    }

    /// Reads the file anew when it is there again.
    pub fn forget(&mut self, path: &Path) {
        self.last.remove(path);
    }

    /// Reads every file anew.
    pub fn forget_all(&mut self) {
        self.last.clear();
    }
}

/// Reads and parses what comes once: standard input (`-`), a pipe.
pub fn stream(path: &Path) -> Reading {
    let text = match path.as_os_str().to_str() {
        Some("-") => text_of(io::stdin().lock()),
        _ => read_text(path),
    };
    match text {
        Ok(text) => {
            let documents = manifest::parse(&text);
            Reading::Text(text, documents)
        }
        Err(error) => unreadable(&error),
    }
}

fn text_of(file: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "larger than 128 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })
}

/// What to say of a file that cannot be read.
pub fn unreadable(error: &io::Error) -> Reading {
    let next = match error.kind() {
        ErrorKind::NotFound => "make it, or leave it out",
        ErrorKind::PermissionDenied => "let root read it",
        ErrorKind::InvalidData => "save it as UTF-8",
        ErrorKind::FileTooLarge => "split it into several files",
        _ => "make it readable",
    };
    Reading::Unreadable(Problem {
        line: 0,
        object: String::new(),
        field: String::new(),
        message: match error.kind() {
            ErrorKind::NotFound => "there is no such file or directory".into(),
            _ => format!("it cannot be read: {error}"),
        },
        next: next.into(),
    })
}

/// The text of a file.
pub fn read_text(path: &Path) -> io::Result<String> {
    text_of(fs::File::open(path)?)
}
