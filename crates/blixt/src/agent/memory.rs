//! The last Config, in a file: an agent that starts without its controller goes on with it.
//!
//! The file holds the parts of the wire one after the other: a whole Config, then what changed. It is written anew when
//! the changes outgrow the whole. A part that is cut off at the end, as when power fails, is left out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use blixt_core::config::{Config, Generation};
use prost::Message;

use crate::atomic;
use crate::sync::config_parts::{self, Assembly, ConfigPart};

/// Number of the layout: what another version wrote is left out.
const FILE: &str = "config.1.parts";
/// Changes of fewer bytes than this are never too many.
const SOME: u64 = 1 << 20;

/// The file, and what it says.
#[derive(Debug)]
pub struct Memory {
    directory: PathBuf,
    last: Option<(Arc<Config>, Generation)>,
    file: Option<File>,
    whole: u64,
    changes: u64,
}

impl Memory {
    /// Reads what there is; what cannot be understood is nothing.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(directory)
            .with_context(|| format!("cannot make --state-dir {}", directory.display()))?;
        let path = directory.join(FILE);
        let last = match fs::read(&path) {
            Ok(bytes) => read(&bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read the last Config; starting without");
                None
            }
        };
        Ok(Self { directory: directory.to_owned(), last, file: None, whole: 0, changes: 0 })
    }

    /// What was remembered.
    pub fn last(&self) -> Option<(Arc<Config>, Generation)> {
        self.last.clone()
    }

    /// Remembers a Config.
    pub fn remember(&mut self, config: &Arc<Config>, generation: Generation) -> anyhow::Result<()> {
        let result = self.write(config, generation);
        if result.is_err() {
            // The end of the file may be half a part: it is written anew next time.
            self.file = None;
        }
        self.last = Some((Arc::clone(config), generation));
        result
            .with_context(|| format!("cannot write {}; make room there", self.directory.join(FILE).display()))
    }

    /// Forgets all of it, and leaves no file.
    pub fn remove(self) -> anyhow::Result<()> {
        match fs::remove_dir_all(&self.directory) {
            // A directory that is mounted goes as far as it can.
            Err(error) if ![ErrorKind::NotFound, ErrorKind::ResourceBusy].contains(&error.kind()) => {
                Err(error).with_context(|| format!("cannot remove {}", self.directory.display()))
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, config: &Config, generation: Generation) -> io::Result<()> {
        let known = self.last.as_ref().map(|(last, _)| &**last);
        if let (Some(file), Some(known)) = (&mut self.file, known)
            && self.changes < self.whole.max(SOME)
        {
            let bytes = encoded(&config_parts::parts(Some(known), config, generation));
            file.write_all(&bytes)?;
            self.changes += bytes.len() as u64;
            return Ok(());
        }
        let bytes = encoded(&config_parts::parts(None, config, generation));
        let path = self.directory.join(FILE);
        atomic::write(&path, &bytes)?;
        self.file = Some(OpenOptions::new().append(true).open(path)?);
        (self.whole, self.changes) = (bytes.len() as u64, 0);
        Ok(())
    }
}

fn encoded(parts: &[ConfigPart]) -> Vec<u8> {
    parts.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

/// The last Config that is whole.
fn read(mut bytes: &[u8]) -> Option<(Arc<Config>, Generation)> {
    let mut assembly = Assembly::default();
    let mut last = None;
    while !bytes.is_empty() {
        let Ok(part) = ConfigPart::decode_length_delimited(&mut bytes) else { break };
        match assembly.add(part) {
            Ok(Some((config, generation))) => last = Some((Arc::new(config), generation)),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use blixt_core::config::{Endpoint, Forwarding, Frontend, Pool, Protocol};

    use super::*;

    fn config(ports: impl Iterator<Item = u16>) -> Arc<Config> {
        let frontend = Arc::new(Frontend {
            listener: "a/b/c".into(),
            route: None,
            forwarding: Forwarding::Nat,
            pool: Pool::default(),
        });
        let endpoint = |port| Endpoint { address: [10, 0, 0, 1].into(), port, protocol: Protocol::Tcp };
        let frontends = ports.map(|port| (endpoint(port), Arc::clone(&frontend))).collect();
        Arc::new(Config { frontends, ..Config::default() })
    }

    #[test]
    fn the_last_config_is_there_after_a_start_whatever_changed_before() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(directory.path()).unwrap();
        assert_eq!(memory.last(), None);
        for last in 1..100 {
            memory.remember(&config(last..last + 50), Generation(last.into())).unwrap();
            let again = Memory::open(directory.path()).unwrap();
            assert_eq!(again.last(), Some((config(last..last + 50), Generation(last.into()))));
        }
        // A start takes over and goes on.
        let mut memory = Memory::open(directory.path()).unwrap();
        memory.remember(&config(7..9), Generation(200)).unwrap();
        memory.remember(&config(8..9), Generation(201)).unwrap();
        let last = Memory::open(directory.path()).unwrap().last();
        assert_eq!(last, Some((config(8..9), Generation(201))));
    }

    #[test]
    fn what_is_cut_off_or_foreign_gives_the_last_whole_config_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(directory.path()).unwrap();
        memory.remember(&config(1..3), Generation(1)).unwrap();
        let path = directory.path().join(FILE);
        let whole = fs::read(&path).unwrap().len();
        memory.remember(&config(1..40), Generation(2)).unwrap();
        let bytes = fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            let expected = (length >= whole).then(|| (config(1..3), Generation(1)));
            assert_eq!(read(&bytes[..length]), expected, "{length} of {}", bytes.len());
        }
        assert_eq!(read(b"no parts at all, but words"), None);
    }

    #[test]
    fn changes_that_outgrow_the_whole_are_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(directory.path()).unwrap();
        for generation in 1..200 {
            let ports = if generation % 2 == 0 { 1..2000 } else { 2000..4000 };
            memory.remember(&config(ports), Generation(generation)).unwrap();
        }
        let length = fs::metadata(directory.path().join(FILE)).unwrap().len();
        assert!(length < 3 * SOME, "{length}");
    }
}
