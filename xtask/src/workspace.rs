//! Where things lie in the checkout.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the checkout that this program was built from.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies one directory below the root")
}

/// Where `blixt-loader` looks for the kernel program, whatever `CARGO_TARGET_DIR` says.
pub fn kernel_object() -> PathBuf {
    root().join("target/bpf/blixt.o")
}

/// Where the results of benchmarks are written.
pub fn results() -> PathBuf {
    root().join("docs/performance")
}

/// Where cargo puts what it builds for this machine.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where what is fetched or built once is kept, outside of every checkout.
pub fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set: what is fetched has no place")?.join("blixt"))
}

/// The files below a directory by their paths in it, in their order; links are followed.
pub fn files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).with_context(|| format!("{}: cannot be read", at.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            files.push((
                name,
                fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?,
            ));
        }
    }
    files.sort();
    Ok(files)
}
