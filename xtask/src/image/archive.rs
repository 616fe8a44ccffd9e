//! The bytes of an image archive. Pure: equal programs give equal archives.
//!
//! ```text
//! manifest.json        names, and the two files below
//! <sha256>.json        what to run, and the layers by their sums
//! <sha256>.tar         the only layer: the program, users, a directory for what is temporary
//! ```

use std::io::Write;

use anyhow::{Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

/// An image of one program.
pub struct Image<'a> {
    /// What it is called, with its tag.
    pub names: &'a [String],
    /// The program's name in the root directory.
    pub program: &'a str,
    /// Who runs it, unless a manifest says otherwise.
    pub user: &'a str,
}

impl Image<'_> {
    /// The whole archive.
    pub fn archive(&self, program: &[u8]) -> Result<Vec<u8>> {
        let layer = tar(&[
            Entry::Directory("etc/", 0o755),
            Entry::File("etc/passwd", 0o644, USERS),
            Entry::File("etc/group", 0o644, GROUPS),
            Entry::Directory("tmp/", 0o1777),
            Entry::File(self.program, 0o755, program),
        ])?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Entrypoint": [format!("/{}", self.program)],
                "Env": ["PATH=/"],
                "User": self.user,
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sum(&layer))] },
        });
        let config = config.to_string().into_bytes();
        let files = [format!("{}.json", sum(&config)), format!("{}.tar", sum(&layer))];
        let manifest =
            json!([{ "Config": files[0], "RepoTags": self.names, "Layers": [files[1]] }]).to_string();
        tar(&[
            Entry::File("manifest.json", 0o644, manifest.as_bytes()),
            Entry::File(&files[0], 0o644, &config),
            Entry::File(&files[1], 0o644, &layer),
        ])
    }
}

/// Refuses a program that wants a loader of dynamic libraries, which an image has not.
pub fn check_static(program: &[u8]) -> Result<()> {
    // Of an ELF header of 64 bits: where the table of segments begins, its entries' size and their number. Type 3 names a loader.
    const INTERPRETER: u32 = 3;
    let number = |at: usize, len: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a program for a machine of 64 bits, little end first");
    }
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else {
        bail!("ends within its header");
    };
    let types = (0..count).map(|index| number(table.saturating_add(index * size), 4));
    if types.into_iter().any(|kind| kind == Some(INTERPRETER as usize)) {
        bail!("not static: build it for a musl target, or for Go with CGO_ENABLED=0");
    }
    Ok(())
}

const USERS: &[u8] = b"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n";
const GROUPS: &[u8] = b"root:x:0:\nnonroot:x:65532:\n";

enum Entry<'a> {
    Directory(&'a str, u32),
    File(&'a str, u32, &'a [u8]),
}

/// Nothing in it depends on the time, the user or the machine.
fn tar(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let (kind, path, mode, bytes) = match *entry {
            Entry::Directory(path, mode) => (tar::EntryType::Directory, path, mode, &[][..]),
            Entry::File(path, mode, bytes) => (tar::EntryType::Regular, path, mode, bytes),
        };
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes)?;
    }
    let mut bytes = tar.into_inner()?;
    bytes.flush()?;
    Ok(bytes)
}

/// SHA-256, as hexadecimal digits.
pub fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use serde_json::Value;

    use super::*;

    #[test]
    fn an_image_holds_its_program_under_sums_that_are_right() {
        let names = ["localhost/one:1".to_owned(), "localhost/two:2".to_owned()];
        let image = Image { names: &names, program: "run", user: "65532:65532" };
        let files = read(&image.archive(b"the program").expect("it fits"));
        let manifest: Value = serde_json::from_slice(&files["manifest.json"].1).expect("JSON");
        assert_eq!(manifest[0]["RepoTags"], json!(names));

        let config = manifest[0]["Config"].as_str().expect("a name");
        let layer = manifest[0]["Layers"][0].as_str().expect("a name");
        for (name, suffix) in [(config, "json"), (layer, "tar")] {
            assert_eq!(name, format!("{}.{suffix}", sum(&files[name].1)));
        }
        let config: Value = serde_json::from_slice(&files[config].1).expect("JSON");
        assert_eq!(config["config"]["Entrypoint"], json!(["/run"]));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", layer.trim_end_matches(".tar")));

        let layer = read(&files[layer].1);
        assert_eq!(layer["run"], (0o755, b"the program".to_vec()));
        assert_eq!(layer["tmp/"].0, 0o1777);
    }

    #[test]
    fn the_same_program_gives_the_same_archive() {
        let image = Image { names: &["localhost/one:1".to_owned()], program: "run", user: "0:0" };
        let archive = |bytes| sum(&image.archive(bytes).expect("it fits"));
        assert_eq!(archive(b"one"), archive(b"one"));
        assert_ne!(archive(b"one"), archive(b"two"));
    }

    #[test]
    fn a_program_that_wants_a_loader_is_refused() {
        let program = |kind: u8| {
            let mut bytes = vec![0; 64 + 2 * 56];
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            (bytes[32], bytes[54], bytes[56], bytes[64 + 56]) = (64, 56, 2, kind);
            bytes
        };
        assert!(check_static(&program(1)).is_ok());
        let error = check_static(&program(3)).expect_err("it has a loader");
        assert!(error.to_string().starts_with("not static"), "{error}");
        assert!(check_static(b"#!/bin/sh").is_err());
        assert!(check_static(b"\x7fELF\x02\x01").is_err());
    }

    fn read(archive: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().expect("a tar file").map(|entry| {
            let mut entry = entry.expect("an entry");
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("it is whole");
            let header = entry.header();
            assert_eq!((header.mtime().ok(), header.uid().ok()), (Some(0), Some(0)));
            let path = entry.path().expect("a path").to_string_lossy().into_owned();
            (path, (header.mode().expect("a mode"), bytes))
        });
        entries.collect()
    }
}
