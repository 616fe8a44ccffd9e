//! What lies on the disk at this moment: the manifest files below the given paths, and where to look for changes.
//!
//! Names that begin with a dot are not manifests (swap files of editors, `..data` of a ConfigMap mount), and
//! directories of such a name are not entered. Symbolic links are followed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directories below each other that are entered; deeper ones are a loop or a mistake.
const MAX_DEPTH: usize = 64;
/// As many links as the kernel follows on the way to a file.
const MAX_LINKS: usize = 40;

/// What was found below some paths.
#[derive(Debug, Default)]
pub struct Scan {
    /// Every manifest file.
    pub files: BTreeMap<PathBuf, Fingerprint>,
    /// Paths that could not be looked into: what lies there is not known, which is not the same as nothing.
    pub unknown: BTreeMap<PathBuf, io::Error>,
    /// Directories in which a change matters.
    pub watch: BTreeMap<PathBuf, Interest>,
}

/// What makes a reader believe that a file is still the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Which names in a directory matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Interest {
    /// It is one of the directories that hold manifests.
    All,
    /// Only what has one of these names.
    Names(BTreeSet<OsString>),
}

/// Looks through files and directories.
pub fn scan(roots: &[PathBuf]) -> Scan {
    let mut scan = Scan::default();
    for root in roots {
        scan.watch_name(root);
        scan.watch_links(root, &mut BTreeSet::new());
        if let Ok(target) = fs::canonicalize(root)
            && target != *root
        {
            scan.watch_name(&target);
        }
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => scan.enter(root, &mut Vec::new()),
            Ok(metadata) => scan.add_file(root.clone(), &metadata),
            Err(error) => {
                scan.unknown.insert(root.clone(), error);
            }
        }
    }
    scan
}

/// Whether a file of this name holds manifests.
pub fn is_manifest(name: &OsStr) -> bool {
    let hidden = name.as_encoded_bytes().starts_with(b".");
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// What is said of a pipe, a socket or a device where a file should be.
pub fn not_a_file() -> io::Error {
    io::Error::other("neither a file nor a directory")
}

impl Scan {
    /// Whether what lies at `path` could not be looked at.
    pub fn is_unknown(&self, path: &Path) -> bool {
        path.ancestors().any(|ancestor| self.unknown.contains_key(ancestor))
    }

    fn enter(&mut self, directory: &Path, above: &mut Vec<(u64, u64)>) {
        self.watch.insert(directory.to_owned(), Interest::All);
        let entries = fs::metadata(directory)
            .map(|metadata| (metadata.dev(), metadata.ino()))
            .and_then(|identity| Ok((identity, fs::read_dir(directory)?)));
        let (identity, entries) = match entries {
            Ok(entries) => entries,
            Err(error) => {
                self.unknown.insert(directory.to_owned(), error);
                return;
            }
        };
        if above.contains(&identity) || above.len() == MAX_DEPTH {
            return;
        }
        above.push(identity);
        for entry in entries {
            match entry {
                Ok(entry) => self.add_entry(&entry, above),
                Err(error) => {
                    self.unknown.insert(directory.to_owned(), error);
                }
            }
        }
        above.pop();
    }

    fn add_entry(&mut self, entry: &fs::DirEntry, above: &mut Vec<(u64, u64)>) {
        let name = entry.file_name();
        let file_type = entry.file_type();
        let plain_file = file_type.as_ref().is_ok_and(fs::FileType::is_file);
        if name.as_encoded_bytes().starts_with(b".") || (plain_file && !is_manifest(&name)) {
            return;
        }
        let path = entry.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => self.enter(&path, above),
            Ok(metadata) if is_manifest(&name) => {
                if file_type.is_ok_and(|file_type| file_type.is_symlink())
                    && let Ok(target) = fs::canonicalize(&path)
                {
                    self.watch_name(&target);
                }
                self.add_file(path, &metadata);
            }
            Ok(_) => {}
            // Deleted since the directory was read, which is not an error, or a link to nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound && plain_file => {}
            Err(error) if is_manifest(&name) => {
                self.unknown.insert(path, error);
            }
            Err(_) => {}
        }
    }

    fn add_file(&mut self, path: PathBuf, metadata: &Metadata) {
        if metadata.is_file() {
            self.files.insert(path, Fingerprint::from(metadata));
        } else {
            self.unknown.insert(path, not_a_file());
        }
    }

    /// Watches every link on the way to `path`, those that they lead to included: a deployment swaps one of them.
    fn watch_links(&mut self, path: &Path, seen: &mut BTreeSet<PathBuf>) {
        for link in path.ancestors() {
            let (Some(parent), Ok(target)) = (link.parent(), fs::read_link(link)) else { continue };
            if seen.len() < MAX_LINKS && seen.insert(link.to_owned()) {
                self.watch_name(link);
                self.watch_links(&parent.join(target), seen);
            }
        }
    }

    /// Watches one name in its directory, or, where the directory is missing, the name of what is missing above it.
    fn watch_name(&mut self, path: &Path) {
        let mut path = path;
        while let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            if parent.is_dir() {
                let interest =
                    self.watch.entry(parent.to_owned()).or_insert_with(|| Interest::Names(BTreeSet::new()));
                if let Interest::Names(names) = interest {
                    names.insert(name.to_owned());
                }
                return;
            }
            path = parent;
        }
    }
}

impl From<&Metadata> for Fingerprint {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(scan: &Scan, root: &Path) -> Vec<String> {
        let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        scan.files.keys().map(relative).collect()
    }

    #[test]
    fn manifests_are_found_at_every_depth_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.yaml", "b.yml", "c.json", "notes.txt", ".a.yaml.swp", ".hidden.yaml", "a.yaml~"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir_all(dir.path().join("deep/er")).unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        fs::write(dir.path().join("deep/er/d.yaml"), "").unwrap();
        fs::write(dir.path().join(".git/e.yaml"), "").unwrap();
        let scan = scan(&[dir.path().to_owned()]);
        assert_eq!(names(&scan, dir.path()), ["a.yaml", "b.yml", "c.json", "deep/er/d.yaml"]);
        assert!(scan.unknown.is_empty());
    }

    #[test]
    fn a_loop_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), "").unwrap();
        symlink(dir.path(), dir.path().join("again")).unwrap();
        assert_eq!(names(&scan(&[dir.path().to_owned()]), dir.path()), ["a.yaml"]);
    }

    #[test]
    fn a_mounted_config_map_is_read_through_its_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("..2026_11_22")).unwrap();
        fs::write(dir.path().join("..2026_11_22/web.yaml"), "").unwrap();
        symlink("..2026_11_22", dir.path().join("..data")).unwrap();
        symlink("..data/web.yaml", dir.path().join("web.yaml")).unwrap();
        assert_eq!(names(&scan(&[dir.path().to_owned()]), dir.path()), ["web.yaml"]);
    }

    #[test]
    fn a_missing_path_is_unknown_and_watched_from_above() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("not/yet");
        let scan = scan(std::slice::from_ref(&missing));
        assert!(scan.is_unknown(&missing.join("a.yaml")));
        assert_eq!(scan.watch[dir.path()], Interest::Names(BTreeSet::from(["not".into()])));
    }

    #[test]
    fn a_link_to_nowhere_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        symlink("nowhere", dir.path().join("a.yaml")).unwrap();
        let scan = scan(&[dir.path().to_owned()]);
        assert!(scan.is_unknown(&dir.path().join("a.yaml")));
    }
}
