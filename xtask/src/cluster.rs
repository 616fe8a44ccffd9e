//! A real Kubernetes cluster on this machine: its own control plane, nodes in network namespaces, no registry.
//!
//! ```text
//! tests/cluster ─ parts ─► programs and images ─ up ─► namespaces, programs ─ down ─► nothing
//!                             (cache)                  (/var/lib/blixt-cluster)
//! ```

mod bench;
mod control_plane;
mod down;
mod node;
mod parts;
mod place;
mod program;
mod topology;
mod up;

pub use node::Proxy;
pub use program::Place;
pub use topology::{UNUSABLE, USABLE, client};
pub use up::{kubectl, last_lines};

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::image;
use crate::process::{hand_over, is_root, succeed};
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
    /// Only build what a cluster is made of, and what is tested in it.
    Build {
        /// Leave out the image of `blixt`.
        #[arg(long, conflicts_with = "binary")]
        no_image: bool,
        #[command(flatten)]
        load: Load,
    },
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
    /// Measure speed and memory of Blixt in a cluster of its own against their bars.
    Bench(bench::Args),
    /// Kill a program of the cluster, as a fault: `apiserver`, `kubelet-node1`, ...
    Kill {
        /// Its name.
        program: String,
    },
    /// Start a program again.
    Start {
        /// Its name.
        program: String,
        /// Flags beside those that it had, after `--`; of equal ones the last counts.
        #[arg(last = true)]
        flags: Vec<String>,
    },
}

/// What `cargo xtask cluster up` takes.
#[derive(clap::Args)]
pub struct Up {
    /// How many nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// How kube-proxy does its work.
    #[arg(long, value_enum, default_value_t = Proxy::Nftables)]
    proxy: Proxy,
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
    pub binary: Option<PathBuf>,
    /// Install what is missing without asking.
    #[arg(long)]
    pub yes: bool,
}

/// `cargo xtask cluster`.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Verb::Up(args) => up(args).map(|()| ExitCode::SUCCESS),
        Verb::Build { no_image, load } => supplies(load, !no_image).map(|_| ExitCode::SUCCESS),
        Verb::Bench(args) => bench::run(args),
        _ if !is_root() => again_as_root(),
        Verb::Down => take_down().map(|()| ExitCode::SUCCESS),
        Verb::Kubectl { args } => nodes().and_then(|_| hand_over(&mut kubectl().args(args))),
        Verb::In { place, args } => hand_over(place_of(place)?.command(&args[0]).args(&args[1..])),
        Verb::Load(args) => load(args).map(|()| ExitCode::SUCCESS),
        Verb::Kill { program } => program::kill(program).map(|()| ExitCode::SUCCESS),
        Verb::Start { program, flags } => start(program, flags).map(|()| ExitCode::SUCCESS),
    }
}

/// What a cluster is brought up with.
pub struct Supplies {
    /// Programs and images.
    pub parts: parts::Parts,
    /// The static `blixt`.
    pub blixt: Option<PathBuf>,
}

/// Makes the machine ready, and builds what is not built. Needs root only for what it installs.
pub fn supplies(load: &Load, with_blixt: bool) -> Result<Supplies> {
    let compiler = setup::prepare(Purpose::Cluster, load.yes)?;
    // Go's compiler and Rust's keep a machine of few cores busy by turns: both at once take little longer than the longer one.
    let (parts, blixt) = std::thread::scope(|scope| {
        let blixt = scope.spawn(|| match &load.binary {
            _ if !with_blixt => Ok(None),
            Some(binary) => Ok(Some(binary.clone())),
            None => image::build_static(compiler.as_ref()).map(Some),
        });
        (parts::build(), blixt.join().expect("a panic ends the program"))
    });
    Ok(Supplies { parts: parts?, blixt: blixt? })
}

/// Brings a cluster up; one that is there is taken down first. What fails half-way is taken down again.
pub fn bring_up(nodes: u8, proxy: Proxy, supplies: &Supplies) -> Result<()> {
    let _lock = lock()?;
    clear()?;
    eprintln!("==> bring up a cluster: {nodes} nodes, kube-proxy by {proxy}");
    let wish = up::Wish { nodes, proxy, blixt: supplies.blixt.clone() };
    if let Err(error) = up::up(&wish, &supplies.parts) {
        eprintln!("==> it failed: take it down");
        down::down().context("after a failure the cluster cannot be taken down")?;
        return Err(error);
    }
    Ok(())
}

/// Ends the cluster, and removes every trace of it.
pub fn take_down() -> Result<()> {
    let _lock = lock()?;
    down::down()
}

/// Whether a cluster is up, or what became of it.
pub fn is_up() -> bool {
    program::is_running("etcd") && program::is_running("apiserver")
}

/// Puts a `blixt` onto every node.
pub fn load_image(binary: &Path) -> Result<()> {
    let nodes = nodes()?;
    let archive = up::write_image(binary)?;
    nodes.into_iter().try_for_each(|node| up::import(node, &archive))
}

fn up(args: &Up) -> Result<()> {
    let supplies = supplies(&args.load, !args.no_image)?;
    if !is_root() {
        // It finds all of it built.
        let blixt = &supplies.blixt;
        let blixt =
            blixt.as_ref().map_or("--no-image".to_owned(), |blixt| format!("--binary={}", blixt.display()));
        let (nodes, proxy) = (format!("--nodes={}", args.nodes), format!("--proxy={}", args.proxy));
        return succeed(as_root_again().args(["cluster", "up", &nodes, &proxy, &blixt]));
    }
    bring_up(args.nodes, args.proxy, &supplies)?;
    println!("the cluster is up: `cargo xtask cluster kubectl -- get nodes`, `cargo xtask cluster down`");
    Ok(())
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
    nodes()?;
    match &args.binary {
        Some(binary) => load_image(binary),
        None => load_image(&image::build_static(setup::prepare(Purpose::Cluster, args.yes)?.as_ref())?),
    }
}

fn start(name: &str, flags: &[String]) -> Result<()> {
    if program::is_running(name) {
        bail!("{name}: runs already: `cargo xtask cluster kill {name}` ends it");
    }
    let mut program = program::Program::kept(name)?;
    program.words.extend_from_slice(flags);
    program.start()
}

fn place_of(name: &str) -> Result<Place> {
    if name == "client" {
        return Ok(Place { network: client(), mounts: None });
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
    place::check_name()?;
    let file = File::open(place::LOCK).with_context(|| format!("{}: cannot be opened", place::LOCK))?;
    file.lock().with_context(|| format!("{}: cannot be locked", place::LOCK))?;
    Ok(file)
}

fn again_as_root() -> Result<ExitCode> {
    hand_over(as_root_again().args(std::env::args_os().skip(1)))
}

/// The kubeconfig of the cluster's administrator.
pub fn admin() -> PathBuf {
    place::kubeconfig("admin")
}

/// Where the API server notes what Blixt writes.
pub fn audit_log() -> PathBuf {
    place::state(control_plane::AUDIT_LOG)
}

/// What the cluster's own programs print.
pub fn logs() -> Vec<PathBuf> {
    program::names().iter().map(|name| program::log(name)).collect()
}

/// This program by sudo, with what it needs of our environment.
pub fn as_root_again() -> Command {
    let kept = "HOME,PATH,CARGO,CARGO_HOME,CARGO_TARGET_DIR,RUSTUP_HOME,RUSTUP_TOOLCHAIN,XDG_CACHE_HOME,BLIXT_CLUSTER,GOPATH,GOMODCACHE";
    let mut command = Command::new("sudo");
    command.arg(format!("--preserve-env={kept}")).arg("--").arg(std::env::current_exe().unwrap_or_default());
    command
}
