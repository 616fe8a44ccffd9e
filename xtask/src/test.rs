//! Runs every test for real, and says what is proved.
//!
//! Beside the outcomes of the tests themselves two things can fail: `docs/tests.md` names a test that did not
//! pass, or something is left behind on the machine.

use std::io::{BufRead, BufReader, PipeReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::build::build_kernel_program;
use crate::leftovers::{left_behind, traces};
use crate::outcome::{Outcome, Outcomes, Prefixes, prefix};
use crate::process::{cargo, is_root, kill_tree};
use crate::proof::{GOLDEN, Proofs, parse, unproved};
use crate::setup::{self, Purpose};
use crate::{status, workspace};

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
    /// Only the tests of this crate.
    #[arg(long, short)]
    package: Vec<String>,
    /// Write the README's status table anew.
    #[arg(long, conflicts_with_all = ["package", "filter"])]
    write_status: bool,
    /// Only tests with this in their name; and flags of the test programs, after `--`.
    #[arg(trailing_var_arg = true)]
    filter: Vec<String>,
}

/// `cargo xtask test`.
pub fn run(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let proofs = read_proofs()?;
    if let Some(compiler) = setup::prepare(Purpose::Test, args.yes)? {
        build_kernel_program(&compiler)?;
    }
    let prefixes = build_tests(args)?;
    let before = traces();
    let mut outcomes = Outcomes::default();
    let succeeded = run_tests(args, &prefixes, &mut outcomes)?;

    let mut failures: Vec<String> = outcomes.failed().map(|name| format!("test failed: {name}")).collect();
    failures.extend(outcomes.broken.iter().map(|program| format!("ended before its last test: {program}")));
    failures.extend(left_behind(&before).iter().map(|thing| format!("left behind: {thing}")));
    if args.package.is_empty() && args.filter.is_empty() {
        failures.extend(
            unproved(&proofs, &outcomes, is_golden).iter().map(|text| format!("docs/tests.md: {text}")),
        );
    } else {
        println!("docs/tests.md is not compared: only some tests ran");
    }
    if !succeeded && failures.is_empty() {
        failures.push("cargo test failed: see above".to_owned());
    }
    if args.write_status {
        write_status(&proofs, &outcomes)?;
    }
    report(&proofs, &outcomes, &failures, start);
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(proofs: &Proofs, outcomes: &Outcomes, failures: &[String], start: Instant) {
    println!();
    for failure in failures {
        println!("{failure}");
    }
    let (proved, open) = (proofs.proved.len(), proofs.open.len());
    println!("docs/tests.md: {proved} statements with tests, {open} not yet proved");
    println!("{} tests were ignored, {} s", outcomes.count(Outcome::Ignored), start.elapsed().as_secs());
    println!("{} passed, {} failed", outcomes.count(Outcome::Passed), failures.len());
}

fn read_proofs() -> Result<Proofs> {
    let file = workspace::root().join("docs/tests.md");
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("{}: cannot be read", file.display()))?;
    parse(&text).map_err(|error| anyhow!("docs/tests.md: {error}"))
}

fn is_golden(file: &str) -> bool {
    workspace::root().join(GOLDEN).join(file).is_file()
}

fn write_status(proofs: &Proofs, outcomes: &Outcomes) -> Result<()> {
    let file = workspace::root().join("README.md");
    let readme = std::fs::read_to_string(&file).context("README.md: cannot be read")?;
    let readme =
        status::rewrite(&readme, proofs, outcomes).context("README.md: no markers for the status table")?;
    std::fs::write(&file, readme).context("README.md: cannot be written")
}

fn cargo_test(args: &Args) -> Command {
    let mut command = cargo();
    command.arg("test");
    if args.package.is_empty() {
        command.arg("--workspace");
    }
    for package in &args.package {
        command.args(["--package", package]);
    }
    command
}

/// Builds all test programs, and answers what their tests' names begin with.
fn build_tests(args: &Args) -> Result<Prefixes> {
    Ok(build_test_programs(&mut cargo_test(args))?.iter().map(TestProgram::prefix_of_file).collect())
}

/// A test program that cargo built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestProgram {
    /// Where it is.
    pub file: PathBuf,
    /// What the names of its tests begin with.
    pub prefix: String,
}

impl TestProgram {
    /// The prefix, by the name of the file alone.
    pub fn prefix_of_file(&self) -> (String, String) {
        let name = self.file.file_name().unwrap_or_default();
        (name.to_string_lossy().into_owned(), self.prefix.clone())
    }
}

/// Builds the test programs of a `cargo test` command.
pub fn build_test_programs(command: &mut Command) -> Result<Vec<TestProgram>> {
    command.args(["--no-run", "--quiet", "--message-format=json-render-diagnostics"]).stdout(Stdio::piped());
    eprintln!("==> build the tests");
    let output = command.stderr(Stdio::inherit()).output().context("cargo test: cannot be started")?;
    if !output.status.success() {
        bail!("the tests cannot be built: {}", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(messages.lines().filter_map(|line| test_program(&serde_json::from_str(line).ok()?)).collect())
}

/// The test program that one of cargo's messages is about.
fn test_program(message: &Value) -> Option<TestProgram> {
    let file = PathBuf::from(message["executable"].as_str()?);
    let target = &message["target"];
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let package = manifest.parent()?.file_name()?.to_string_lossy();
    let prefix = prefix(&package, target["kind"][0].as_str()?, target["name"].as_str()?);
    message["profile"]["test"].as_bool()?.then_some(TestProgram { file, prefix })
}

/// Runs the tests, shows what they print, and takes their outcomes. False: cargo was not content.
fn run_tests(args: &Args, prefixes: &Prefixes, outcomes: &mut Outcomes) -> Result<bool> {
    let (reader, writer) = std::io::pipe()?;
    let mut command = cargo_test(args);
    command.args(["--no-fail-fast", "--color=never", "--"]).args(&args.filter);
    if !is_root() {
        command.env(runner_variable()?, "sudo --preserve-env");
    }
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("cargo test: cannot be started")?;
    // It holds the pipe's other end, which would keep us reading.
    drop(command);
    let lines = lines(reader);
    let deadline = Instant::now() + LIMIT;
    let mut stdout = std::io::stdout().lock();
    loop {
        match lines.recv_timeout(Duration::from_millis(500)) {
            Ok(line) => {
                writeln!(stdout, "{line}")?;
                outcomes.take(&line, prefixes);
            }
            // A process that a test left behind may hold the pipe for ever.
            Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_none() => {}
            Err(_) => break,
        }
        if Instant::now() > deadline {
            writeln!(stdout, "the tests take longer than {} minutes: ended", LIMIT.as_secs() / 60)?;
            kill_tree(child.id());
            break;
        }
    }
    outcomes.end();
    Ok(child.wait()?.success())
}

/// How long all tests together may take: several times what they need.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// What comes out of a pipe, line by line.
fn lines(reader: PipeReader) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The variable that names the program which cargo runs tests with.
pub fn runner_variable() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = crate::process::output(Command::new(rustc).arg("-vV")).context("rustc -vV: failed")?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV: names no host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_name_the_test_programs() {
        let message = |kind: &str, test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": "/src/crates/blixt-loader/Cargo.toml",
                "target": { "kind": [kind], "name": "pins" },
                "profile": { "test": test },
                "executable": "/src/target/debug/deps/pins-0123",
            })
        };
        let expected = Some(TestProgram {
            file: "/src/target/debug/deps/pins-0123".into(),
            prefix: "blixt_loader::pins".to_owned(),
        });
        assert_eq!(test_program(&message("test", true)), expected);
        assert_eq!(test_program(&message("bin", false)), None);
        assert_eq!(test_program(&serde_json::json!({ "reason": "build-finished" })), None);
    }
}
