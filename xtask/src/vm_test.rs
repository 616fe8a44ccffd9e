//! Runs the tests of the kernel program on the kernels that Debian's packages offer, each in a small machine of its own.
//!
//! ```text
//! apt ─► Kernel ─┐
//!                ├─► initramfs ─► QEMU ─ serial line ─► Results ─► table, docs/kernels.md
//! cargo test  ───┘    (Plan)       └► guest: the plan's steps
//!  --no-run
//! ```
//!
//! The guest has this machine's own test programs, the libraries that they are loaded with, and a few tools; its first process is this
//! program. Nothing of it is installed, and it has no network but what it makes.

mod guest;
mod initramfs;
mod kernel;
mod machine;
mod record;
mod results;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::build_kernel_program;
use crate::process::{cargo, find};
use crate::setup::{self, Purpose};
use crate::test::{TestProgram, build_test_programs};
use crate::workspace;
use guest::{PLAN, Plan, Step};
use initramfs::Initramfs;
use kernel::{Apt, Files, Kernel};
use results::{Results, Row};

pub use guest::run as run_guest;

/// What `cargo xtask vm-test` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Series of kernels, such as `6.1`: the newest of each is taken. Without any, all that are offered.
    kernels: Vec<String>,
    /// Only say which kernels there are.
    #[arg(long)]
    list: bool,
    /// Write the rows of kernels on which everything holds into `docs/kernels.md`, which later runs are compared with.
    #[arg(long)]
    bless: bool,
    /// Show every line that a guest says.
    #[arg(long, short)]
    verbose: bool,
    /// Only tests with this in their name.
    #[arg(long, conflicts_with = "bless")]
    only: Option<String>,
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
}

/// How long one kernel may take: several times what it needs on a machine that does nothing else.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// `cargo xtask vm-test`: fails when a kernel refuses a program, a test fails, or a kernel that was named cannot be had.
pub fn run(args: &Args) -> Result<ExitCode> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the guests are x86-64 machines and run this machine's own programs: run it on one");
    }
    let compiler = setup::prepare(Purpose::VmTest, args.yes)?;
    let apt = Apt::open()?;
    let offered = apt.offered()?;
    if args.list {
        offered.iter().for_each(|kernel| println!("{:<6} {}", kernel.series, kernel.release));
        return Ok(ExitCode::SUCCESS);
    }
    let mut missing: Vec<String> = args
        .kernels
        .iter()
        .filter(|series| offered.iter().all(|kernel| kernel.series != **series))
        .map(|series| format!("{series}: no package of Debian has it, see --list"))
        .collect();
    if let Some(compiler) = compiler {
        build_kernel_program(&compiler)?;
    }
    let tests = build_tests()?;
    let (mut rows, mut fit) = (Vec::new(), Vec::new());
    let wanted = |kernel: &&Kernel| args.kernels.is_empty() || args.kernels.contains(&kernel.series);
    for kernel in offered.iter().filter(wanted) {
        let start = Instant::now();
        let files = match apt.fetch(kernel) {
            Ok(files) => files,
            Err(error) => {
                missing.push(format!("{}: {error:#}", kernel.series));
                continue;
            }
        };
        eprintln!("==> {}", kernel.release);
        let results = test(args, kernel, &files, &tests)?;
        let failures = if args.only.is_some() { results.faults() } else { results.failures() };
        println!("{}: {} failures, {} s", kernel.release, failures.len(), start.elapsed().as_secs());
        failures.iter().for_each(|failure| println!("  {failure}"));
        let row = Row::new(&kernel.release, &results);
        if failures.is_empty() {
            fit.push(row.clone());
        }
        rows.push(row);
    }
    println!("\n{}", results::table(&rows));
    for kernel in &missing {
        println!("not tested: {kernel}");
    }
    if args.bless {
        record::write(&fit)?;
    }
    let is_fine = missing.is_empty() && fit.len() == rows.len() && !rows.is_empty();
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn test(args: &Args, kernel: &Kernel, files: &Files, tests: &[TestProgram]) -> Result<Results> {
    let directory =
        tempfile::tempdir_in(workspace::target_dir()).context("no directory for the guest's files")?;
    let archive = directory.path().join("initramfs");
    std::fs::write(&archive, files_of_guest(args, kernel, files, tests, directory.path())?)
        .with_context(|| format!("{}: cannot be written", archive.display()))?;
    let prefixes = tests.iter().map(TestProgram::prefix_of_file).collect();
    let mut results = Results::default();
    let mut said = Vec::new();
    let ended = machine::boot(&files.image, &archive, LIMIT, |line| {
        results.take(line, &prefixes);
        said.push(line.to_owned());
        if args.verbose {
            println!("{line}");
        }
    });
    results.outcomes.end();
    if let Err(error) = ended {
        results.left.push(format!("{error:#}"));
    }
    let log = workspace::target_dir().join(format!("vm-test-{}.log", kernel.release));
    std::fs::write(&log, said.join("\n") + "\n")
        .with_context(|| format!("{}: cannot be written", log.display()))?;
    if !results.faults().is_empty() {
        println!("what the guest said: {}", log.display());
    }
    Ok(results)
}

/// The programs of tests that the guests run.
fn build_tests() -> Result<Vec<TestProgram>> {
    let mut command = cargo();
    command.args(["test", "--package", "blixt-loader", "--package", "blixt"]);
    command.args(["--test", "kernel", "--test", "host", "--test", "netns"]);
    build_test_programs(&mut command)
}

/// What the guest runs: a title, what the names of a test program's tests begin with, and which of them. All would take hours
/// where the processor is emulated; these are the ones whose outcome a kernel decides.
const STEPS: [(&str, &str, &[&str]); 3] = [
    ("the loader and the packet table", "blixt_loader::kernel::", LOADING),
    ("what the machine has", "blixt_loader::host::", DEVICES),
    ("connections", "blixt::netns::", TRAFFIC),
];

/// Programs and maps, and every way to hook a device.
const LOADING: &[&str] = &[
    "verifier::",
    "cases::every_case_holds_in_tc",
    "cases::every_case_holds_in_xdp",
    "cases::the_sum_that_a_network_card_made_of_a_packet_stays_true",
    "attach::a_virtual_device_is_hooked_by_tc_unless_xdp_is_wished",
    "attach::a_restart_replaces_the_program_of_the_same_link",
    "attach::without_tcx_filters_do_the_same",
    "cleanup::nothing_is_left",
];

/// What the kernel tells of devices, routes and neighbours.
const DEVICES: &[&str] = &[
    "what_xdp_can_send_by_a_veth_follows_its_other_end",
    "a_path_has_its_device_next_hop_source_and_mtu",
    "neighbours_are_found_without_traffic_and_kept_by_the_kernel",
    "listening_sockets_are_known",
];

/// Real connections through `blixt run` at either hook, in full NAT and to a backend on the machine itself, and an end that leaves
/// nothing.
const TRAFFIC: &[&str] = &[
    "balancing::every_backend_gets_connections_over_both_protocols_and_families::",
    "balancing::a_backend_on_the_balancer_itself_sees_the_clients_address::",
    "life::cleanup_after_sigkill_removes_every_trace::",
];

/// Tests that a kernel cannot run, before the series in which it can, and why.
const LATER: [(&str, (u32, u32), &str); 3] = [
    (
        "blixt_loader::kernel::cases::the_sum_that_a_network_card_made_of_a_packet_stays_true",
        (6, 16),
        "a test cannot say what a network card summed up",
    ),
    (
        "blixt_loader::kernel::attach::a_restart_replaces_the_program_of_the_same_link",
        (6, 6),
        "a TC program has a filter and no link",
    ),
    (
        "blixt_loader::host::what_xdp_can_send_by_a_veth_follows_its_other_end",
        (6, 3),
        "the kernel does not say which devices take frames of XDP: TC sends them",
    ),
];

/// By how much longer than on this machine anything may take in the guest.
const SLOWNESS: u32 = 10;

fn plan(args: &Args, kernel: &Kernel, tests: &[TestProgram]) -> Result<Plan> {
    let mut plan = Plan::default();
    plan.variables.push(("CARGO_TARGET_DIR".to_owned(), workspace::target_dir().display().to_string()));
    plan.variables.push(("BLIXT_TEST_SLOWNESS".to_owned(), SLOWNESS.to_string()));
    if args.bless {
        // What is to be written anew cannot be what it is held to.
        plan.variables.push(("BLIXT_BLESS".to_owned(), "1".to_owned()));
    }
    for (title, prefix, only) in STEPS {
        let program = tests.iter().find(|test| format!("{}::", test.prefix) == prefix);
        let program = program.with_context(|| format!("{prefix}: cargo built no such tests"))?;
        // One after the other: each has the whole machine, and keeps its times.
        let words = [&program.file.display().to_string(), "--show-output", "--test-threads=1"];
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        match &args.only {
            Some(only) => words.push(only.clone()),
            None => words.extend(only.iter().map(ToString::to_string)),
        }
        for (test, since, why) in LATER {
            if let Some(test) = test.strip_prefix(prefix)
                && kernel.version() < since
            {
                let (major, minor) = since;
                println!("  without {test}: before Linux {major}.{minor} {why}");
                words.extend(["--skip".to_owned(), test.to_owned()]);
            }
        }
        plan.steps.push(Step { title: title.to_owned(), words });
    }
    Ok(plan)
}

/// Tools that tests use.
const TOOLS: [&str; 5] = ["ip", "tc", "bpftool", "kill", "ss"];

fn files_of_guest(
    args: &Args,
    kernel: &Kernel,
    files: &Files,
    tests: &[TestProgram],
    scratch: &Path,
) -> Result<Vec<u8>> {
    let mut initramfs = Initramfs::new();
    let ourselves = std::env::current_exe().context("our own program cannot be found")?;
    initramfs.own_program(&ourselves, scratch)?;
    initramfs.link("/init", &ourselves.display().to_string());
    for test in tests {
        initramfs.own_program(&test.file, scratch)?;
    }
    initramfs.own_program(&workspace::target_dir().join("debug/blixt"), scratch)?;
    for tool in TOOLS {
        initramfs.program(&path(tool)?)?;
    }
    // The kernel asks it for modules, by that name.
    let modprobe = path("modprobe")?;
    let modprobe = modprobe.canonicalize().unwrap_or(modprobe);
    initramfs.program(&modprobe)?;
    initramfs.link("/sbin/modprobe", &modprobe.display().to_string());
    for module in kernel::modules(files, &kernel.release)? {
        initramfs.copy(&files.root.join(&module), Path::new("/").join(&module))?;
    }
    for directory in ["/root", "/tmp", "/var/tmp", "/var/run", "/etc"] {
        initramfs.directory(directory);
    }
    initramfs.file(PLAN, 0o644, plan(args, kernel, tests)?.write().as_bytes());
    Ok(initramfs.finish())
}

fn path(program: &str) -> Result<PathBuf> {
    find(program).with_context(|| format!("{program}: is not on the path"))
}
