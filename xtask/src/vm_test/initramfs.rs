//! What a guest has for files: an archive of the form `newc`, which the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::strip_debug_info;
use crate::process::output;

/// An archive in the making.
pub struct Initramfs {
    bytes: Vec<u8>,
    entries: BTreeSet<PathBuf>,
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const CHARACTERS: u32 = 0o020_600;

impl Initramfs {
    /// With the console that the kernel gives the first process.
    pub fn new() -> Self {
        let mut new = Self { bytes: Vec::new(), entries: BTreeSet::new() };
        new.parents(Path::new("/dev/console"));
        new.entry(Path::new("/dev/console"), CHARACTERS, (5, 1), &[]);
        new
    }

    /// An empty directory.
    pub fn directory(&mut self, path: &str) {
        self.parents(&Path::new(path).join("anything"));
    }

    /// A file of these bytes.
    pub fn file(&mut self, path: impl AsRef<Path>, permissions: u32, bytes: &[u8]) {
        self.parents(path.as_ref());
        self.entry(path.as_ref(), FILE | permissions, (0, 0), bytes);
    }

    /// A file of this machine, at another place.
    pub fn copy(&mut self, from: &Path, to: impl AsRef<Path>) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("{}: cannot be read", from.display()))?;
        let permissions = from.metadata().map_or(0o644, |metadata| metadata.permissions().mode() & 0o777);
        self.file(to, permissions, &bytes);
        Ok(())
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.parents(Path::new(path));
        self.entry(Path::new(path), LINK, (0, 0), to.as_bytes());
    }

    /// A program of this machine at its own place, and the libraries that it is loaded with.
    pub fn program(&mut self, program: &Path) -> Result<()> {
        self.copy(program, program)?;
        self.libraries(program)
    }

    /// The same, of a program that we built: without what debuggers read, which would fill the guest's memory.
    pub fn own_program(&mut self, program: &Path, scratch: &Path) -> Result<()> {
        let stripped = scratch.join("stripped");
        strip_debug_info(program, &stripped)?;
        self.copy(&stripped, program)?;
        self.libraries(program)
    }

    fn libraries(&mut self, program: &Path) -> Result<()> {
        // Nothing for a static program.
        let listed = output(Command::new("ldd").arg(program)).unwrap_or_default();
        for library in libraries(&listed) {
            if !self.entries.contains(&library) {
                self.copy(&library, &library)?;
            }
        }
        Ok(())
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &Path) {
        let parents: Vec<_> = path.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
        for parent in parents.into_iter().rev() {
            self.entry(parent, DIRECTORY, (0, 0), &[]);
        }
    }

    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) {
        if !self.entries.insert(path.to_owned()) {
            return;
        }
        let name = path.to_string_lossy();
        let name = name.trim_start_matches('/');
        let fields = [
            // Of files with the number of another one the kernel would make one.
            self.entries.len() as u32,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The files in what `ldd` prints: `libm.so.6 => /lib/libm.so.6 (0x..)`, `/lib64/ld-linux-x86-64.so.2 (0x..)`.
fn libraries(listed: &str) -> Vec<PathBuf> {
    let words = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    listed.lines().filter_map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_each_directory_once_and_pads_to_words() {
        let mut initramfs = Initramfs::new();
        initramfs.file("/etc/a/one", 0o644, b"1");
        initramfs.file("/etc/a/two", 0o755, b"22");
        initramfs.link("/init", "/etc/a/two");
        let archive = initramfs.finish();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive);
        let count = |name: &str| text.matches(name).count();
        assert_eq!((count("etc\0"), count("etc/a\0"), count("etc/a/one\0")), (1, 1, 1));
        // The link's target is its content, without an end.
        assert_eq!((count("etc/a/two"), count("dev/console\0"), count("TRAILER!!!\0")), (2, 1, 1));
    }

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let listed =
            "\tlinux-vdso.so.1 (0x01)\n\tlibm.so.6 => /lib/libm.so.6 (0x02)\n\t/lib64/ld.so.2 (0x03)\n";
        assert_eq!(libraries(listed), [PathBuf::from("/lib/libm.so.6"), PathBuf::from("/lib64/ld.so.2")]);
    }
}
