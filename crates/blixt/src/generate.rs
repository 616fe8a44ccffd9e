//! Completions and man pages, made from the command line's own description.

use std::fs;
use std::io;

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::exit::Exit;

/// `blixt completions SHELL`
pub fn completions(args: CompletionsArgs) -> anyhow::Result<Exit> {
    let CompletionsArgs { shell } = args;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "blixt", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(Exit::Success)
}

/// `blixt man DIR`
pub fn man(args: ManArgs) -> anyhow::Result<Exit> {
    let ManArgs { dir } = args;
    fs::create_dir_all(&dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), &dir)
        .with_context(|| format!("cannot write man pages into {}", dir.display()))?;
    Ok(Exit::Success)
}
