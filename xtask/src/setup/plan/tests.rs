//! Machines, and what is done on them.

use super::*;
use crate::setup::machine::{Go, Nightly};

#[test]
fn a_complete_machine_needs_nothing() {
    for purpose in [Purpose::Bench, Purpose::Cluster, Purpose::VmTest] {
        check(&complete(), purpose, &[]);
    }
}

#[test]
fn a_fresh_debian_gets_everything_once_and_packages_first() {
    let machine = Machine { nightlies: vec![nightly("nightly", LLVM, false)], ..fresh() };
    check(
        &machine,
        Purpose::Test,
        &[
            "install Debian packages: bpftool, iproute2, libpolly-22-dev, libzstd-dev, llvm-22-dev, zlib1g-dev",
            "add rust-src to the Rust toolchain nightly (rustup): compiles the kernel program",
            "install bpf-linker 0.13.0 (cargo install, takes some minutes)",
            "mount the bpf file system at /sys/fs/bpf",
        ],
    );
}

#[test]
fn a_build_wants_neither_the_tools_of_the_tests_nor_a_mount() {
    let machine = Machine { programs: ["rustup".to_owned()].into(), bpffs: false, ..complete() };
    check(&machine, Purpose::Build, &[]);
}

#[test]
fn without_any_nightly_the_one_that_is_known_to_work_is_installed() {
    let machine = Machine { nightlies: Vec::new(), ..complete() };
    check(
        &machine,
        Purpose::Build,
        &[
            "install the Rust toolchain nightly-2026-05-20 with rust-src (rustup): compiles the kernel program",
        ],
    );
}

#[test]
fn a_nightly_with_another_llvm_is_passed_over() {
    let machine = Machine {
        nightlies: vec![nightly("nightly", LLVM + 1, true), nightly(NIGHTLY, LLVM, true)],
        ..complete()
    };
    assert_eq!(compiler_of(&machine, &[]), Some(Compiler::Nightly(NIGHTLY.to_owned())));
}

#[test]
fn a_compiler_that_is_there_wins_over_one_to_be_installed() {
    let machine = Machine { nightlies: Vec::new(), debian_compiler: true, ..complete() };
    assert_eq!(compiler_of(&machine, &[]), Some(Compiler::Debian));
    check(&machine, Purpose::Test, &[]);
}

#[test]
fn a_nightly_that_cannot_be_had_leads_to_debians_compiler() {
    let machine = Machine { nightlies: Vec::new(), ..complete() };
    let plan = plan(&machine, Purpose::Build, &[Way::Nightly].into()).expect("there is another way");
    assert_eq!(plan.compiler, Some(Compiler::Debian));
    assert_eq!(shown(&plan), ["install Debian packages: cargo-web, libstd-rust-web-dev-bpf, rustc-web"]);
}

#[test]
fn without_any_compiler_the_next_step_is_named() {
    let error = plan(&complete(), Purpose::Build, &[Way::Nightly, Way::Debian].into());
    let text = error.expect_err("nothing is left").to_string();
    assert!(text.contains("rustup toolchain install nightly-2026-05-20"), "{text}");
    assert!(text.contains("BLIXT_EBPF_OBJECT"), "{text}");
}

#[test]
fn a_prebuilt_kernel_program_needs_neither_compiler_nor_linker() {
    let machine = Machine { object: true, bpffs: true, ..fresh() };
    let plan = plan(&machine, Purpose::Demo, &BTreeSet::new()).expect("Debian has the rest");
    assert_eq!(plan.compiler, None);
    assert_eq!(shown(&plan), ["install Debian packages: iproute2"]);
}

#[test]
fn a_linker_of_another_version_is_replaced() {
    for version in [(0, 12), (0, 14)] {
        let machine = Machine { linker: Some(version), ..complete() };
        check(&machine, Purpose::Build, &["install bpf-linker 0.13.0 (cargo install, takes some minutes)"]);
    }
}

#[test]
fn elsewhere_everything_that_is_missing_is_named_at_once_and_nothing_is_installed() {
    let machine = Machine { apt: false, system: "Fedora Linux 44".to_owned(), ..fresh() };
    let text = plan(&machine, Purpose::Test, &BTreeSet::new()).expect_err("not Debian").to_string();
    assert!(text.starts_with("Fedora Linux 44: only Debian's packages"), "{text}");
    for thing in ["LLVM 22", "Polly", "zstd", "zlib", "`ip`", "`bpftool`"] {
        assert!(text.contains(thing), "{thing} is not named in: {text}");
    }
}

#[test]
fn elsewhere_a_machine_with_llvm_builds_its_own_linker() {
    let machine = Machine { apt: false, llvm: true, linker: None, packages: BTreeSet::new(), ..complete() };
    check(&machine, Purpose::Test, &["install bpf-linker 0.13.0 (cargo install, takes some minutes)"]);
}

#[test]
fn without_root_the_commands_for_root_are_named() {
    let machine = Machine { root: false, sudo: false, ..fresh() };
    let text = plan(&machine, Purpose::Test, &BTreeSet::new()).expect_err("no root").to_string();
    assert!(text.contains("this needs root"), "{text}");
    assert!(text.contains("`apt-get install bpftool iproute2"), "{text}");
    assert!(text.contains("`mount -t bpf bpf /sys/fs/bpf`"), "{text}");
}

#[test]
fn without_root_what_needs_no_root_is_done() {
    let machine = Machine { root: false, sudo: false, linker: None, ..complete() };
    check(&machine, Purpose::Test, &["install bpf-linker 0.13.0 (cargo install, takes some minutes)"]);
}

#[test]
fn what_runs_as_root_is_refused_in_words_where_there_is_neither_root_nor_sudo() {
    for (root, sudo, purpose, refused) in [
        (false, false, Purpose::Test, true),
        (false, false, Purpose::Demo, true),
        (false, false, Purpose::Cluster, true),
        (false, false, Purpose::Build, false),
        (false, false, Purpose::Image, false),
        (false, true, Purpose::Test, false),
        (true, false, Purpose::Bench, false),
    ] {
        let said = reach_root(&Machine { root, sudo, ..complete() }, purpose);
        assert_eq!(said.is_err(), refused, "{purpose}: {said:?}");
        if let Err(error) = said {
            assert!(error.to_string().contains("run it as root, or install sudo"), "{error}");
        }
    }
}

#[test]
fn a_compiler_that_the_user_names_is_used() {
    let machine = Machine { wanted: Some(Compiler::Debian), debian_compiler: true, ..complete() };
    assert_eq!(compiler_of(&machine, &[]), Some(Compiler::Debian));
}

#[test]
fn a_cluster_gets_containers_a_network_for_pods_go_and_a_static_blixt() {
    let machine = Machine { programs: ["rustup".to_owned(), "ip".to_owned()].into(), go: None, ..complete() };
    let machine = Machine { musl: false, ..machine };
    check(
        &machine,
        Purpose::Cluster,
        &[
            "install Debian packages: bpftool, containerd, containernetworking-plugins, golang-go, iptables, \
             musl-tools, nftables, runc, util-linux",
            &format!("add Rust's standard library for {} (rustup): static programs", static_target()),
            "fetch the Go toolchain go1.26.8 as a Go module",
        ],
    );
}

#[test]
fn a_go_that_fetches_newer_ones_is_enough_and_an_older_one_is_not() {
    for (version, steps) in
        [((1, 21), &[][..]), ((1, 19), &["fetch the Go toolchain go1.26.8 as a Go module"][..])]
    {
        check(&Machine { go: Some(go(version)), ..complete() }, Purpose::Cluster, steps);
    }
}

#[test]
fn an_image_wants_nothing_of_a_cluster() {
    let programs = ["rustup", "musl-gcc"].map(str::to_owned).into();
    check(&Machine { programs, go: None, bpffs: false, ..complete() }, Purpose::Image, &[]);
}

fn check(machine: &Machine, purpose: Purpose, steps: &[&str]) {
    let plan = plan(machine, purpose, &BTreeSet::new()).expect("the machine can be made ready");
    assert_eq!(shown(&plan), steps);
}

fn shown(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(ToString::to_string).collect()
}

fn compiler_of(machine: &Machine, ruled_out: &[Way]) -> Option<Compiler> {
    plan(machine, Purpose::Build, &ruled_out.iter().copied().collect()).expect("there is a compiler").compiler
}

/// A Debian with rustup, and nothing else.
fn fresh() -> Machine {
    Machine {
        system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        root: true,
        apt: true,
        programs: ["rustup".to_owned()].into(),
        ..Machine::default()
    }
}

fn complete() -> Machine {
    Machine {
        packages: LLVM_PACKAGES.map(str::to_owned).into(),
        programs: ["rustup"]
            .into_iter()
            .chain(PROGRAMS.map(|(program, ..)| program))
            .map(str::to_owned)
            .collect(),
        go: Some(go((1, 26))),
        musl: true,
        bpffs: true,
        nightlies: vec![nightly("nightly", LLVM, true)],
        linker: Some((0, 13)),
        ..fresh()
    }
}

fn nightly(name: &str, llvm: u32, rust_src: bool) -> Nightly {
    Nightly { name: name.to_owned(), llvm, rust_src }
}

fn go(version: (u32, u32)) -> Go {
    Go { program: "go".into(), version }
}
