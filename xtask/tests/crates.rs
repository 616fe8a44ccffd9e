//! Which crates may know which.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

#[test]
fn the_pure_crates_depend_on_no_async_runtime_no_kube_client_and_no_aya() {
    for package in ["blixt-packet", "blixt-core"] {
        let banned: Vec<_> = dependencies(package)
            .into_iter()
            .filter(|name| {
                ["tokio", "async-std", "smol", "futures", "kube", "aya"].iter().any(|ban| is_of(name, ban))
            })
            .collect();
        assert_eq!(banned, [""; 0], "{package} depends on them");
    }
}

#[test]
fn our_crates_use_each_other_as_the_architecture_says() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ");
        let package = cells.next()?.trim_end_matches('`');
        Some((package, cells.last()?)).filter(|(package, _)| PACKAGES.contains(package))
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), PACKAGES.len(), "each crate has a row in the code map");
    for (package, uses) in rows {
        let used = direct_dependencies(package);
        let named: BTreeSet<_> =
            uses.split(", ").filter(|word| *word != "–").map(|word| format!("blixt-{word}")).collect();
        assert_eq!(used, named, "{package}: Cargo.toml beside the code map of ARCHITECTURE.md");
    }
}

#[test]
fn the_model_knows_the_layout_of_the_maps_and_the_names_of_the_reasons_and_no_code_of_the_packet_path() {
    let source = root().join("crates/blixt-model/src");
    let mut files: Vec<_> =
        ["flow.rs", "hash.rs", "model.rs", "packet.rs", "sum.rs"].map(|name| source.join(name)).into();
    let parts = std::fs::read_dir(source.join("model")).expect("the model has parts");
    files.extend(parts.map(|entry| entry.expect("it can be listed").path()));
    let mut uses = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        for (at, name) in text.match_indices("blixt_packet::") {
            let rest = &text[at + name.len()..];
            let is_known = ["abi::", "DropReason;"].iter().any(|known| rest.starts_with(known));
            assert!(
                is_known,
                "{}: blixt_packet::{}",
                file.display(),
                rest.lines().next().unwrap_or_default()
            );
            uses += 1;
        }
    }
    assert!(uses > 0);
}

/// The crates of the workspace that have arrows; xtask uses others as programs, not as libraries.
const PACKAGES: [&str; 6] =
    ["blixt-packet", "blixt-core", "blixt-loader", "blixt", "blixt-lab", "blixt-model"];

fn is_of(name: &str, family: &str) -> bool {
    name == family || name.strip_prefix(family).is_some_and(|rest| rest.starts_with('-'))
}

/// Everything that is compiled into a crate.
fn dependencies(package: &str) -> BTreeSet<String> {
    tree(package, &["--edges", "normal,build"])
}

/// What a crate names itself, of ours.
fn direct_dependencies(package: &str) -> BTreeSet<String> {
    let mut all = tree(package, &["--edges", "normal", "--depth", "1"]);
    all.retain(|name| name.starts_with("blixt-"));
    all
}

fn tree(package: &str, args: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(root())
        .args(["tree", "--offline", "--prefix", "none", "--package", package])
        .args(args);
    let output = cargo.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies one directory below the root")
}
