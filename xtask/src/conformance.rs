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

use crate::cluster::{
    self, CLIENT, Load, Place, Proxy, Supplies, UNUSABLE, USABLE, as_root_again, hand_over,
};
use crate::process::is_root;
use crate::workspace;
use verdict::{PROFILES, Verdict, verdict};

/// What `cargo xtask conformance` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Leave the cluster up, for a look at it or for the next run.
    #[arg(long)]
    keep: bool,
    /// How often to run the suite.
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
    /// Flags of the suite, after `--`: `-run-test=TCPRouteWeightedRouting`.
    #[arg(last = true)]
    suite: Vec<String>,
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
    let result = up(args, &supplies).and_then(|()| runs(args, &supplies));
    if !args.keep {
        eprintln!("==> take the cluster down");
        cluster::take_down()?;
    }
    let verdict = result?;
    println!("conformance: {verdict}");
    Ok(if verdict.complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn up(args: &Args, supplies: &Supplies) -> Result<()> {
    if cluster::is_up() {
        eprintln!("==> use the cluster that is up");
        cluster::load_image(supplies.blixt.as_deref().context("there is a static blixt")?)?;
    } else {
        cluster::bring_up(2, args.proxy, supplies)?;
    }
    eprintln!("==> install Blixt");
    blixt::install().inspect_err(|_| blixt::show_logs(None))
}

/// All runs; the verdict is that of all of them.
fn runs(args: &Args, supplies: &Supplies) -> Result<Verdict> {
    let logs = workspace::target_dir().join("conformance");
    fs::create_dir_all(&logs).with_context(|| format!("{}: cannot be made", logs.display()))?;
    let mut all = Verdict::default();
    for run in 1..=args.runs {
        wait_for_namespaces()?;
        eprintln!(
            "==> run {run} of {}: the log is {}",
            args.runs,
            logs.join(format!("suite-{run}.log")).display()
        );
        let start = Instant::now();
        let verdict = suite(args, &supplies.parts.suite, &logs, run)?;
        println!("run {run} of {}: {verdict}, {} s", args.runs, start.elapsed().as_secs());
        for complaint in &verdict.complaints {
            println!("run {run}: {complaint}");
        }
        if !verdict.complaints.is_empty() {
            blixt::show_logs(Some(&logs));
        }
        all.add(verdict);
    }
    if let Some(report) = &args.report {
        write_report(&logs.join(format!("report-{}.yaml", args.runs)), report)?;
    }
    Ok(all)
}

/// One run of the suite, by a client outside the nodes: what a node sends itself does not come in by its network device.
fn suite(args: &Args, suite: &Path, logs: &Path, run: u32) -> Result<Verdict> {
    let report = logs.join(format!("report-{run}.yaml"));
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let place = Place { network: CLIENT.to_owned(), mounts: None };
    let mut command = place.command(suite);
    command.args(["-test.v", "-test.timeout=40m", "-test.run=^TestConformance$", "-gateway-class=blixt"]);
    command.arg(format!("-conformance-profiles={}", PROFILES.map(|profile| profile.name).join(",")));
    command.arg(format!("-usable-address={USABLE}")).arg(format!("-unusable-address={UNUSABLE}"));
    command.args(IMPLEMENTATION).arg(concat!("-version=v", env!("CARGO_PKG_VERSION")));
    command.arg(format!("-report-output={}", report.display())).args(&args.suite);
    command.env("KUBECONFIG", cluster::admin()).current_dir(logs);

    let log = logs.join(format!("suite-{run}.log"));
    let (succeeded, output) = follow(command, &log)?;
    let report = report.exists().then(|| blixt::to_json(&report)).transpose()?;
    Ok(verdict(succeeded, &output, report.as_ref(), args.suite.is_empty()))
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

/// Namespaces of a run before this one go by and by, and would take the new one's with them.
fn wait_for_namespaces() -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let left: Vec<_> = blixt::namespaces()?
            .into_iter()
            .filter(|name| name.starts_with("gateway-conformance-"))
            .collect();
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
