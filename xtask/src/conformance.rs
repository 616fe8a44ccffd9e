//! The official conformance suite of the Gateway API, against Blixt in a cluster on this machine.
//!
//! ```text
//! cluster up ─► install Blixt ─► suite, in the namespace of clients ─► verdict ─► cluster down
//! ```

mod blixt;
mod verdict;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::{self, Load, Place, Proxy, Supplies, UNUSABLE, USABLE, as_root_again, client};
use crate::process::{hand_over, is_root};
use crate::workspace;
use verdict::{PROFILES, Verdict};

/// What `cargo xtask conformance` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Leave the cluster up, for a look at it or for the next run.
    #[arg(long)]
    keep: bool,
    /// Only the official suite, or only our own tests.
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// How often to run the suite; our own tests run once, after it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Write the last run's ConformanceReport here; relative paths lie below `docs/conformance`.
    #[arg(long)]
    report: Option<PathBuf>,
    /// How kube-proxy does its work.
    #[arg(long, value_enum, default_value_t = Proxy::Nftables)]
    proxy: Proxy,
    #[command(flatten)]
    load: Load,
    /// Flags of the suite and of our own tests, after `--`: `-run-test=TCPRouteWeightedRouting`.
    #[arg(last = true)]
    suite: Vec<String>,
}

/// A part of what is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Only {
    /// The official suite.
    Official,
    /// Our own tests.
    Own,
}

/// `cargo xtask conformance`: succeeds if every run does.
pub fn run(args: &Args) -> Result<ExitCode> {
    let supplies = cluster::supplies(&args.load, true)?;
    if !is_root() {
        let mut again = as_root_again();
        again.arg("conformance");
        // It finds all of it built.
        if let (None, Some(blixt)) = (&args.load.binary, &supplies.blixt) {
            again.arg("--binary").arg(blixt);
        }
        return hand_over(again.args(std::env::args_os().skip(2)));
    }
    let result = bring_up_with_blixt(args.proxy, &supplies).and_then(|()| runs(args, &supplies));
    if !args.keep {
        eprintln!("==> take the cluster down");
        cluster::take_down()?;
    }
    let verdict = result?;
    // Last of all: what keeps the end of a log only, keeps this.
    for saying in &verdict.sayings {
        println!("{saying}");
    }
    println!("conformance: {verdict}");
    Ok(if verdict.complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A cluster with Blixt in it, as a user installs it: the one that is up, or a new one.
pub fn bring_up_with_blixt(proxy: Proxy, supplies: &Supplies) -> Result<()> {
    if cluster::is_up() {
        eprintln!("==> use the cluster that is up");
        cluster::load_image(supplies.blixt.as_deref().context("there is a static blixt")?)?;
    } else {
        cluster::bring_up(2, proxy, supplies)?;
    }
    eprintln!("==> install Blixt");
    blixt::install().inspect_err(|_| blixt::show_logs(None))
}

/// All runs; the verdict is that of all of them.
fn runs(args: &Args, supplies: &Supplies) -> Result<Verdict> {
    let logs = workspace::target_dir().join("conformance");
    fs::create_dir_all(&logs).with_context(|| format!("{}: cannot be made", logs.display()))?;
    let mut all = Verdict::default();
    wait_for_namespaces()?;
    let runs = if args.only == Some(Only::Own) { 0 } else { args.runs };
    for run in 1..=runs {
        let name = format!("suite-{run}");
        all.add(judge(&name, &logs, || suite(args, &supplies.parts.suite, &logs, &name))?);
        wait_for_namespaces()?;
    }
    if args.only != Some(Only::Official) {
        all.add(judge("own", &logs, || own(args, &supplies.parts.own, &logs))?);
    }
    if let (Some(report), 1..) = (&args.report, runs) {
        write_report(&logs.join(format!("suite-{runs}.yaml")), report)?;
    }
    Ok(all)
}

/// Says what came out of a run, and shows what a failure leaves to look at.
fn judge(name: &str, logs: &Path, run: impl FnOnce() -> Result<Verdict>) -> Result<Verdict> {
    eprintln!("==> {name}: the log is {}", logs.join(format!("{name}.log")).display());
    let start = Instant::now();
    let verdict = run()?;
    println!("{name}: {verdict}, {} s", start.elapsed().as_secs());
    for complaint in &verdict.complaints {
        println!("{name}: {complaint}");
    }
    if !verdict.complaints.is_empty() {
        blixt::show_logs(Some(logs));
    }
    Ok(verdict)
}

/// One run of the suite.
fn suite(args: &Args, suite: &Path, logs: &Path, name: &str) -> Result<Verdict> {
    let report = logs.join(format!("{name}.yaml"));
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let mut command = test_program(args, suite, logs, "^TestConformance$");
    command.arg(format!("-usable-address={USABLE}")).arg(format!("-unusable-address={UNUSABLE}"));
    command.args(IMPLEMENTATION).arg(concat!("-version=v", env!("CARGO_PKG_VERSION")));
    command.arg(format!("-report-output={}", report.display()));
    let (succeeded, output) = follow(command, &logs.join(format!("{name}.log")))?;
    let report = report.exists().then(|| blixt::to_json(&report)).transpose()?;
    Ok(verdict::of_suite(succeeded, &output, report.as_ref(), args.suite.is_empty()))
}

/// Our own tests, in the form of the suite's.
fn own(args: &Args, own: &Path, logs: &Path) -> Result<Verdict> {
    let mut command = test_program(args, own, logs, "^TestL4$");
    // Some faults are made with the program that made the cluster; and some steps of the documentation name files.
    command
        .env("BLIXT_XTASK", std::env::current_exe()?)
        .env("BLIXT_DEPLOY", workspace::root().join("deploy"));
    let (succeeded, output) = follow(command, &logs.join("own.log"))?;
    Ok(verdict::of_tests(succeeded, &output))
}

/// Run by a client outside the nodes: what a node sends itself does not come in by its network device.
fn test_program(args: &Args, program: &Path, logs: &Path, test: &str) -> Command {
    let place = Place { network: client(), mounts: None };
    let mut command = place.command(program);
    command.args(["-test.v", "-test.timeout=40m", "-gateway-class=blixt"]).arg(format!("-test.run={test}"));
    command.arg(format!("-conformance-profiles={}", PROFILES.map(|profile| profile.name).join(",")));
    command.args(&args.suite).env("KUBECONFIG", cluster::admin()).current_dir(logs);
    command
}

/// What a report says of whom it is about.
const IMPLEMENTATION: [&str; 4] = [
    "-organization=kubernetes-sigs",
    "-project=blixt",
    "-url=https://github.com/kubernetes-sigs/blixt",
    "-contact=https://github.com/kubernetes-sigs/blixt/issues",
];

/// Runs a test program, keeps all that it prints in a file and shows what became of its tests.
fn follow(mut command: Command, log: &Path) -> Result<(bool, String)> {
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("nsenter: cannot be started")?;
    // It holds the pipe's other end, which would keep us reading.
    drop(command);
    let mut file = File::create(log).with_context(|| format!("{}: cannot be made", log.display()))?;
    let mut output = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(file, "{line}")?;
        if ["--- PASS", "--- FAIL", "panic:"].iter().any(|start| line.trim_start().starts_with(start)) {
            println!("{line}");
        }
        output += &line;
        output.push('\n');
    }
    Ok((child.wait()?.success(), output))
}

/// What the names of namespaces begin with that the suite and our own tests make.
const OURS: [&str; 2] = ["gateway-conformance-", "blixt-l4"];

/// Namespaces of a run before this one go by and by, and would take the new one's with them.
fn wait_for_namespaces() -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let mut left = blixt::namespaces()?;
        left.retain(|name| OURS.iter().any(|start| name.starts_with(start)));
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "namespaces {} do not go: `cargo xtask cluster kubectl -- describe namespace` says why",
                left.join(", ")
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The suite's report, with the command that made it.
fn write_report(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(from).context("the suite wrote no report")?;
    let to = workspace::root().join("docs/conformance").join(to);
    let text = format!("# Written by `cargo xtask conformance --report {}`.\n{text}", name(&to));
    fs::write(&to, text).with_context(|| format!("{}: cannot be written", to.display()))?;
    println!("{}", to.display());
    Ok(())
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
