//! Where things lie in the checkout.

use std::path::{Path, PathBuf};

/// The root of the checkout that this program was built from.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies one directory below the root")
}

/// Where `blixt-loader` looks for the kernel program, whatever `CARGO_TARGET_DIR` says.
pub fn kernel_object() -> PathBuf {
    root().join("target/bpf/blixt.o")
}

/// Where cargo puts what it builds for this machine.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}
