//! A real Kubernetes cluster on this machine: its own control plane, nodes in network namespaces, no registry.
//!
//! ```text
//! tests/cluster ─ parts ─► programs and images ─ up ─► namespaces, programs ─ down ─► nothing
//!                             (cache)                  (/var/lib/blixt-cluster)
//! ```

mod control_plane;
mod down;
mod node;
mod parts;
mod place;
mod program;
mod topology;
mod up;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::image;
use crate::process::{describe, is_root, succeed};
use crate::setup::{self, Purpose};

/// What `cargo xtask cluster` takes.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Build what is missing, and bring a cluster up. One that is there is taken down first.
    Up(Up),
    /// End the cluster, and remove every trace of it.
    Down,
    /// Run kubectl as the cluster's administrator.
    Kubectl {
        /// For kubectl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run a command where clients are, or on a node.
    In {
        /// `client`, `node1`, `node2`, ...
        place: String,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<String>,
    },
    /// Build the image of `blixt` anew and put it onto every node.
    Load(Load),
    /// Kill a program of the cluster, as a fault: `apiserver`, `kubelet-node1`, ...
    Kill {
        /// Its name.
        program: String,
    },
    /// Start a program again.
    Start {
        /// Its name.
        program: String,
    },
}

/// What `cargo xtask cluster up` takes.
#[derive(clap::Args)]
pub struct Up {
    /// How many nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// How kube-proxy does its work.
    #[arg(long, value_enum, default_value_t = node::Proxy::Nftables)]
    proxy: node::Proxy,
    /// Leave out the image of `blixt`.
    #[arg(long, conflicts_with = "binary")]
    no_image: bool,
    #[command(flatten)]
    load: Load,
}

/// Which `blixt`.
#[derive(clap::Args)]
pub struct Load {
    /// A static `blixt` that is there already, instead of one built now.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
}

/// `cargo xtask cluster`.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Verb::Up(args) => up(args).map(|()| ExitCode::SUCCESS),
        _ if !is_root() => again_as_root(),
        Verb::Down => down().map(|()| ExitCode::SUCCESS),
        Verb::Kubectl { args } => nodes().and_then(|_| hand_over(&mut up::kubectl().args(args))),
        Verb::In { place, args } => hand_over(place_of(place)?.command(&args[0]).args(&args[1..])),
        Verb::Load(args) => load(args).map(|()| ExitCode::SUCCESS),
        Verb::Kill { program } => program::signal(program, "KILL").map(|()| ExitCode::SUCCESS),
        Verb::Start { program } => start(program).map(|()| ExitCode::SUCCESS),
    }
}

fn up(args: &Up) -> Result<()> {
    let compiler = setup::prepare(Purpose::Cluster, args.load.yes)?;
    let parts = parts::build()?;
    let binary = match &args.load.binary {
        _ if args.no_image => None,
        Some(binary) => Some(binary.clone()),
        None => Some(image::build_static(compiler.as_ref())?),
    };
    if !is_root() {
        // It finds all of it built.
        let binary =
            binary.map_or("--no-image".to_owned(), |binary| format!("--binary={}", binary.display()));
        let (nodes, proxy) = (format!("--nodes={}", args.nodes), format!("--proxy={}", args.proxy));
        return succeed(as_root_again().args(["cluster", "up", &nodes, &proxy, &binary]));
    }
    let _lock = lock()?;
    clear()?;
    eprintln!("==> bring up a cluster: {} nodes, kube-proxy by {}", args.nodes, args.proxy);
    if let Err(error) = up::up(&up::Wish { nodes: args.nodes, proxy: args.proxy, blixt: binary }, &parts) {
        eprintln!("==> it failed: take it down");
        down::down().context("after a failure the cluster cannot be taken down")?;
        return Err(error);
    }
    println!("the cluster is up: `cargo xtask cluster kubectl -- get nodes`, `cargo xtask cluster down`");
    Ok(())
}

fn down() -> Result<()> {
    let _lock = lock()?;
    down::down()
}

/// Removes what an earlier cluster left.
fn clear() -> Result<()> {
    if down::is_there() {
        eprintln!("==> take down the cluster that is there");
        down::down()?;
    }
    Ok(())
}

fn load(args: &Load) -> Result<()> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => image::build_static(setup::prepare(Purpose::Cluster, args.yes)?.as_ref())?,
    };
    let nodes = nodes()?;
    let archive = up::write_image(&binary)?;
    nodes.into_iter().try_for_each(|node| up::import(node, &archive))
}

fn start(name: &str) -> Result<()> {
    if program::is_running(name) {
        bail!("{name}: runs already: `cargo xtask cluster kill {name}` ends it");
    }
    program::Program::kept(name)?.start()
}

fn place_of(name: &str) -> Result<program::Place> {
    if name == "client" {
        return Ok(program::Place { network: topology::CLIENT.to_owned(), mounts: None });
    }
    let node = nodes()?.into_iter().find(|node| node.name() == name);
    node.map(node::place).with_context(|| format!("{name}: neither `client` nor a node of this cluster"))
}

/// The nodes of the cluster that is up.
fn nodes() -> Result<Vec<topology::Node>> {
    let Ok(text) = std::fs::read_to_string(place::state("nodes")) else {
        bail!("there is no cluster: `cargo xtask cluster up` brings one up");
    };
    Ok(topology::Node::all(text.trim().parse().context("the number of nodes")?).collect())
}

/// Held while a cluster comes up or goes down; others wait.
fn lock() -> Result<File> {
    let file = File::open(place::LOCK).with_context(|| format!("{}: cannot be opened", place::LOCK))?;
    file.lock().with_context(|| format!("{}: cannot be locked", place::LOCK))?;
    Ok(file)
}

/// Runs a command with our input and output, and answers with its exit code.
fn hand_over(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("{}: cannot be started", describe(command)))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn again_as_root() -> Result<ExitCode> {
    hand_over(as_root_again().args(std::env::args_os().skip(1)))
}

/// This program by sudo, with what it needs of our environment.
fn as_root_again() -> Command {
    let kept = "HOME,PATH,CARGO,CARGO_HOME,CARGO_TARGET_DIR,RUSTUP_HOME,RUSTUP_TOOLCHAIN,XDG_CACHE_HOME,GOPATH,GOMODCACHE";
    let mut command = Command::new("sudo");
    command.arg(format!("--preserve-env={kept}")).arg("--").arg(std::env::current_exe().unwrap_or_default());
    command
}
