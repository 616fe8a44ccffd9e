//! Finds the kernel program's object, so that the binary carries it.
//!
//! `BLIXT_EBPF_OBJECT` names one that was built elsewhere; otherwise it is where `cargo xtask build` puts it. Without
//! either the crate still builds (for lints and docs), and `Dataplane::open` says what to do.

use std::path::{Path, PathBuf};
use std::{env, fs};

const VARIABLE: &str = "BLIXT_EBPF_OBJECT";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(blixt_object)");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    // Asked for as it runs: checkouts that share a target directory share this program.
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
    let workspace = Path::new(&manifest_dir).join("../..");
    let given = env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let object = match &given {
        Some(path) => workspace.join(path),
        None => workspace.join("target/bpf/blixt.o"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        assert!(given.is_none(), "{VARIABLE} names {}, which is no file", object.display());
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it for build scripts"));
    fs::copy(&object, out.join("blixt.o")).expect("the object can be read and the output directory written");
    println!("cargo::rustc-cfg=blixt_object");
}
