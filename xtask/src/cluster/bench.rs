//! Speed and memory of Blixt in a cluster, held against their bars.
//!
//! ```text
//! cluster up ─► install Blixt ─► tests/cluster/bench, in the namespace of clients ─► lines ─► table, JSON, page ─► cluster down
//! ```

mod lines;
mod page;

use std::fs;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use blixt_bars::{Facts, Line, Misses, json, parts, table};
use serde_json::Value;

use super::{
    Load, Place, Proxy, Supplies, admin, as_root_again, audit_log, client, parts as built, supplies,
    take_down,
};
use crate::conformance;
use crate::process::{describe, hand_over, is_root};
use crate::workspace;

/// What `cargo xtask cluster bench` takes.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Leave the cluster up, for a look at it or for the next run.
    #[arg(long)]
    keep: bool,
    /// Measure only this; may be given more than once.
    #[arg(long, value_enum)]
    only: Vec<Subject>,
    /// Rounds of changes, rounds of paths, and starts of the controller; each line is the median of them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// For how many seconds writes to the API server are counted at rest.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(20..))]
    rest: u32,
    /// Write the lines here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write `docs/performance/cluster.md`.
    #[arg(long, conflicts_with = "only")]
    report: bool,
    /// How kube-proxy does its work.
    #[arg(long, value_enum, default_value_t = Proxy::Nftables)]
    proxy: Proxy,
    #[command(flatten)]
    load: Load,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask cluster bench                              all of it, in a cluster of its own: half an hour
  cargo xtask cluster bench --only change --rounds 1     50 changes of an EndpointSlice
  cargo xtask cluster bench --only scale --rest 60       10 000 routes, with a minute at rest
  cargo xtask cluster bench --keep --binary ./blixt      a static program that is there, and a look afterwards
  cargo xtask cluster bench --report --json lines.json   write docs/performance/cluster.md, and the lines as JSON

The exit code is 1 where a median misses its bar and docs/performance/misses.md does not explain why.";

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Subject {
    /// From a change of an EndpointSlice to the first connection that obeys it, beside kube-proxy.
    Change,
    /// Bulk TCP to a pod through a Gateway, against the direct path.
    Path,
    /// 1 000 Gateways, 10 000 routes and 100 000 endpoints: the controller's start, memory and writes.
    Scale,
}

impl Subject {
    const ALL: [Self; 3] = [Self::Change, Self::Path, Self::Scale];

    fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Path => "path",
            Self::Scale => "scale",
        }
    }

    fn lines(self, measured: &Value) -> Result<Vec<Line>> {
        match self {
            Self::Change => lines::of_changes(measured),
            Self::Path => lines::of_paths(measured),
            Self::Scale => lines::of_scale(measured),
        }
    }
}

/// `cargo xtask cluster bench`: the exit code is 1 where a median misses its bar for no known reason.
pub fn run(args: &Args) -> Result<ExitCode> {
    let program = built::bench()?;
    let supplies = supplies(&args.load, true)?;
    if !is_root() {
        let mut again = as_root_again();
        again.args(["cluster", "bench"]);
        // It finds all of it built.
        if let (None, Some(blixt)) = (&args.load.binary, &supplies.blixt) {
            again.arg("--binary").arg(blixt);
        }
        return hand_over(again.args(std::env::args_os().skip(3)));
    }
    let mut facts = Facts::gather(args.rounds as usize);
    let measured = measure(args, &supplies, &program);
    if !args.keep {
        eprintln!("==> take the cluster down");
        take_down()?;
    }
    let lines = measured?;
    facts.end();
    let misses = Misses::beside_results(&workspace::results())?;
    println!("{}\n{}\n{facts}\n{}", table(&lines, &misses), parts(&lines), misses.said(&lines));
    if let Some(file) = &args.json {
        fs::write(file, json(&lines).to_string())
            .with_context(|| format!("{}: cannot be written", file.display()))?;
    }
    if args.report {
        page::write(&lines, &misses, &facts, args.rest)?;
    }
    Ok(if misses.excuse(&lines) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(args: &Args, supplies: &Supplies, program: &std::path::Path) -> Result<Vec<Line>> {
    conformance::bring_up_with_blixt(args.proxy, supplies)?;
    let mut lines = Vec::new();
    for subject in Subject::ALL {
        if !args.only.is_empty() && !args.only.contains(&subject) {
            continue;
        }
        eprintln!("==> measure: {}", subject.name());
        // Outside the nodes: what a node sends itself does not come in by its network device.
        let mut command = Place { network: client(), mounts: None }.command(program);
        command.arg(format!("-subject={}", subject.name())).arg(format!("-rounds={}", args.rounds));
        command.arg(format!("-rest={}s", args.rest)).arg(format!("-audit={}", audit_log().display()));
        let output = command.env("KUBECONFIG", admin()).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("{}: cannot be started", describe(&command)))?;
        if !output.status.success() {
            bail!("{}: {}", describe(&command), output.status);
        }
        let measured = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{}: no JSON", describe(&command)))?;
        lines.extend(subject.lines(&measured)?);
    }
    Ok(lines)
}
