//! Finds what the machine lacks, says what it installs, installs it once.
//!
//! ```text
//! probe ─► Machine ─ plan ─► Plan ─ ask ─► install
//!             ▲                               │ a compiler cannot be had: ruled out
//!             └───────────────────────────────┘
//! ```
//!
//! Deciding ([`plan()`]) is pure; [`probe`] and [`install`] are the only hands.

mod install;
mod machine;
mod plan;
mod probe;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};

use anyhow::{Result, bail};

pub use machine::Compiler;
use plan::{Plan, plan, reach_root};
pub use plan::{Purpose, static_target};
pub use probe::{CNI, go};

/// What `cargo xtask setup` takes.
#[derive(clap::Args)]
pub struct Args {
    /// What the machine is to be ready for.
    #[arg(value_enum, default_value_t = Purpose::Test)]
    purpose: Purpose,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Only say what would be installed.
    #[arg(long)]
    dry_run: bool,
}

/// `cargo xtask setup`.
pub fn run(args: &Args) -> Result<()> {
    if args.dry_run {
        let plan = plan(&probe::probe(), args.purpose, &BTreeSet::new())?;
        print!("{}", describe(&plan));
        return Ok(());
    }
    prepare(args.purpose, args.yes)?;
    println!("this machine has what `{}` needs", args.purpose);
    Ok(())
}

/// Makes the machine ready, and answers which compiler builds the kernel program (none: a prebuilt one is given).
pub fn prepare(purpose: Purpose, yes: bool) -> Result<Option<Compiler>> {
    let mut ruled_out = BTreeSet::new();
    let mut agreed = yes;
    let mut done = Vec::new();
    loop {
        let machine = probe::probe();
        let plan = plan(&machine, purpose, &ruled_out)?;
        if plan.steps.is_empty() {
            reach_root(&machine, purpose)?;
            return Ok(plan.compiler);
        }
        if let Some(step) = plan.steps.iter().find(|step| done.contains(*step)) {
            bail!("{step}: was done and is still missing: is the directory of cargo's programs on the path?");
        }
        eprint!("{}", describe(&plan));
        if !agreed && !ask()? {
            bail!("nothing was installed: install the above yourself, then run this again");
        }
        agreed = true;
        if let Err(failure) = install::install(&plan.steps) {
            let Some(way) = failure.way.filter(|way| !ruled_out.contains(way)) else {
                return Err(failure.error);
            };
            eprintln!("{way} cannot be had here ({:#}): looking for another", failure.error);
            ruled_out.insert(way);
        } else {
            done.extend(plan.steps);
        }
    }
}

fn describe(plan: &Plan) -> String {
    if plan.steps.is_empty() {
        return "nothing is missing\n".to_owned();
    }
    let mut text = "this machine lacks something; to be done now:\n".to_owned();
    for step in &plan.steps {
        text += &format!("  - {step}\n");
    }
    text
}

/// Asks at a terminal; elsewhere the answer is yes.
fn ask() -> Result<bool> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(true);
    }
    eprint!("go ahead? [Y/n] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}
