//! What can be typed, and what each command leads to.
//!
//! The structs here hold what was typed, no more; a command that needs more than that turns it into settings of
//! its own (`run::Settings`) before it begins.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use blixt_core::tables::Limits;
use blixt_packet::abi::NEW_FLOWS;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::Exit;
use crate::log::{self, LogFormat};
use crate::{agent, check, cleanup, controller, demo, explain, generate, health, run, status};

/// A layer-4 load balancer: Gateway API manifests in, eBPF out.
#[derive(Parser, Debug)]
#[command(name = "blixt", version, propagate_version = true, after_help = EPILOGUE)]
pub struct Cli {
    /// What to log: a level (error, warn, info, debug, trace) or a filter such as `blixt=debug`.
    #[arg(long, global = true, help_heading = LOG, value_name = "FILTER", env = "BLIXT_LOG", default_value = "info")]
    pub log: String,
    /// How to write the log, which goes to standard error.
    #[arg(long, global = true, help_heading = LOG, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Over the flags that every command has.
const LOG: &str = "Log";

/// Where to begin, and the exit codes of every command.
const EPILOGUE: &str = "\
Examples:
  blixt demo                        see it at work
  blixt check -f web.yaml           what is wrong with manifests
  blixt run -f /etc/blixt           balance as they say
  blixt status                      what the running instance does

Exit codes:
  0  done, and everything was found in order
  1  errors in manifests, a failed step, or something that was not as it must be
  2  the command line was not understood
  3  there is no running instance in this network namespace, or there is one already";

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Balance connections as manifests say, and follow the manifests.
    Run(RunArgs),
    /// Say what is wrong with manifests, without touching the machine.
    Check(CheckArgs),
    /// Follow one packet from its client to its backend, and say why it goes there.
    Explain(ExplainArgs),
    /// Show what the running instance does.
    Status(StatusArgs),
    /// Show Blixt at work in network namespaces of its own.
    Demo(DemoArgs),
    /// Watch a Kubernetes cluster's Gateway API objects, tell the agents what to do, and write statuses.
    Controller(ControllerArgs),
    /// Be the data plane of one node of a Kubernetes cluster.
    Agent(AgentArgs),
    /// Remove every trace of Blixt from this network namespace.
    Cleanup(CleanupArgs),
    /// Say whether the process that serves metrics here is well.
    Health(HealthArgs),
    /// Write completions for a shell to standard output.
    Completions(CompletionsArgs),
    /// Write man pages into a directory.
    Man(ManArgs),
}

/// `blixt run`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt run -f /etc/blixt                       follow a directory
  blixt run -f web.yaml -f dns.yaml             follow two files
  blixt run -f /etc/blixt --interface 'eth*'    only on these interfaces
  blixt run -f /etc/blixt --hook xdp            at the driver, where that is possible

SIGTERM ends the process and leaves forwarding in place; the next start takes over without a packet lost.
SIGINT (Ctrl-C) ends it and removes every trace. SIGHUP reads every file again.")]
pub struct RunArgs {
    /// File or directory of manifests; directories with all below them, *.yaml, *.yml and *.json.
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// Directory to keep a file with the status of each object in.
    #[arg(long, value_name = "DIR")]
    pub status_dir: Option<PathBuf>,
    /// How this machine's data plane works.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// How the data plane of a machine works: `blixt run` and `blixt agent`.
#[derive(Args, Debug)]
pub struct NodeArgs {
    /// Interfaces to take packets from, by name or pattern [default: all that can carry traffic, except loopback].
    #[arg(long, value_name = "GLOB")]
    pub interface: Vec<String>,
    /// Where in the kernel to take packets.
    #[arg(long, value_enum, default_value_t)]
    pub hook: HookArg,
    /// Loopback address and port for /metrics, /healthz and /readyz; `off` for none.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9641")]
    pub listen: Listen,
    /// Connections that can be remembered at a time [default: by memory, 1 M at 16 GiB].
    #[arg(long, value_name = "COUNT")]
    pub flows: Option<u32>,
    /// New connections that one CPU takes on in a second, half as many of them at once: what comes beyond is a flood, dropped and
    /// counted.
    #[arg(long, value_name = "COUNT", default_value_t = NEW_FLOWS)]
    pub new_flows: u32,
    /// Frontends, of each address family, that there is room for; rings, routes and addresses go with them.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().frontends)]
    pub frontends: u32,
    /// Backends, of each address family, that there is room for, those included that are gone.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().backends)]
    pub backends: u32,
    /// Name of this machine, as EndpointSlices have it in `nodeName` [default: the host name].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
}

/// `blixt controller`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt controller               in a pod of the Deployment that the Helm chart installs
  blixt controller --secrets     also look at the certificates that HTTPS listeners name

Of several replicas one leads, by a Lease; SIGTERM gives it back.")]
pub struct ControllerArgs {
    /// Namespace of the controller and its agents.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "blixt-system")]
    pub namespace: String,
    /// Name of this pod.
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "blixt-controller")]
    pub pod_name: String,
    /// Address of this pod, which agents are led to.
    #[arg(long, value_name = "ADDRESS", env = "POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// Address and port for agents: gRPC over TLS, with a token of audience `blixt`.
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:9645")]
    pub sync: SocketAddr,
    /// Loopback address and port for /metrics, /healthz and /readyz; `off` for none.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9641")]
    pub listen: Listen,
    /// Label selector of the agents' pods.
    #[arg(
        long,
        value_name = "SELECTOR",
        default_value = "app.kubernetes.io/name=blixt,app.kubernetes.io/component=agent"
    )]
    pub agents: String,
    /// Watch Secrets too: the certificates of HTTPS listeners, where a BlixtClass says `l7Listeners: Passthrough`.
    #[arg(long)]
    pub secrets: bool,
}

/// `blixt health`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt health                   the run loop answers
  blixt health --ready           it does what it is there for

Ends with 0 if so, with 1 if not: for probes of containers that have no shell.")]
pub struct HealthArgs {
    /// Where the process serves metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9641")]
    pub listen: SocketAddr,
    /// Ask whether it is ready, not only whether it is alive.
    #[arg(long)]
    pub ready: bool,
}

/// `blixt agent`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt agent --node-name node1                  in a pod of the DaemonSet that the Helm chart installs
  blixt agent --controller https://10.0.0.5:9645 --authority /etc/blixt/ca.crt --token /etc/blixt/token

SIGTERM ends the process and leaves forwarding in place, unless the DaemonSet is deleted: then every trace goes.
SIGINT (Ctrl-C) ends it and removes every trace.")]
pub struct AgentArgs {
    /// Where the controller listens; where the ConfigMap of --authority names the leader's own address, that is dialled first.
    #[arg(
        long,
        value_name = "URL",
        env = "BLIXT_CONTROLLER",
        default_value = "https://blixt-controller.blixt-system.svc:9645"
    )]
    pub controller: String,
    /// Certificate authority of the controller: `configmap:NAMESPACE/NAME` (its key ca.crt; its key leader is the
    /// leader's address), or a file.
    #[arg(long, value_name = "WHERE", default_value = "configmap:blixt-system/blixt-controller")]
    pub authority: String,
    /// File with a ServiceAccount token of audience `blixt`, bound to a pod of this node.
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/blixt/token")]
    pub token: PathBuf,
    /// Directory to keep the last Config in, for a start without the controller.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/blixt")]
    pub state_dir: PathBuf,
    /// DaemonSet that this agent is of: when it is deleted, SIGTERM removes every trace [default: none].
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub daemon_set: Option<String>,
    /// How this machine's data plane works.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// `blixt check`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt check -f /etc/blixt             look through a directory
  kubectl get -A gateways,tcproutes,services,endpointslices -o yaml | blixt check -f -
  blixt check -f web.yaml -o json       for a program to read

Ends with 1 if there is an error. Notes and warnings leave it at 0.")]
pub struct CheckArgs {
    /// File or directory of manifests, or `-` for standard input.
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// How to write what was found.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: CheckOutput,
}

/// `blixt explain`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt explain 'tcp 10.10.0.2:4242 > 10.99.0.1:80'              of the running instance
  blixt explain 'udp [fd00::2]:4242 > [fd00:99::1]:53'
  blixt explain -f web.yaml 'tcp 10.10.0.2:4242 > 10.99.0.1:80'   of manifests, on this machine as it would be")]
pub struct ExplainArgs {
    /// Manifests to explain instead of the running instance: file, directory, or `-` for standard input.
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// How to write the explanation.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: CheckOutput,
    /// The packet: protocol, source, `>`, destination.
    #[arg(value_name = "PACKET")]
    pub packet: String,
}

/// `blixt status`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt status                   objects, frontends, backends and counters
  blixt status -o wide           more columns
  blixt status -o json           every object with its conditions, as in the API
  blixt status --watch           again every second, until Ctrl-C")]
pub struct StatusArgs {
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: StatusOutput,
    /// Write it again every second.
    #[arg(short, long)]
    pub watch: bool,
}

/// `blixt demo`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt demo                     a client, a balancer and three backends, in about 20 seconds
  blixt demo --hook xdp          the same with the program at the driver
  blixt demo --keep              keeps everything until Ctrl-C, to look around")]
pub struct DemoArgs {
    /// Keep the namespaces and the balancer at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Where in the kernel to take packets.
    #[arg(long, value_enum, default_value_t)]
    pub hook: HookArg,
}

/// `blixt cleanup`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt cleanup                  programs, tables and files of this network namespace
  ip netns exec edge blixt cleanup")]
pub struct CleanupArgs {}

/// `blixt completions`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt completions bash > /usr/share/bash-completion/completions/blixt
  blixt completions zsh > ~/.zfunc/_blixt")]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `blixt man`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  blixt man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Directory to write blixt.1, blixt-run.1, ... into; it is made if it is not there.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Where in the kernel packets are taken.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HookArg {
    /// TC where frames may carry offloads (veth, bridge, tap), native XDP on a wire.
    #[default]
    Auto,
    /// TC: TCX, or clsact on kernels before 6.6.
    Tc,
    /// Native XDP where the driver has it, generic XDP elsewhere.
    Xdp,
}

/// How `check` and `explain` write.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CheckOutput {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How `status` writes.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StatusOutput {
    /// The columns that matter most.
    #[default]
    Table,
    /// All columns.
    Wide,
    /// All there is, as JSON.
    Json,
    /// All there is, as YAML.
    Yaml,
}

/// Where to serve metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At this address of the loopback interface.
    At(SocketAddr),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "not an address and port; write it as 127.0.0.1:9641 or [::1]:9641, or `off`")?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{} is not a loopback address, and metrics are served without authentication; \
                 use 127.0.0.1 or [::1] and let a proxy of yours carry it further",
                address.ip()
            ));
        }
        Ok(Self::At(address))
    }
}

/// Reads the command line, does what it says, and answers with the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log::init(&cli.log, cli.log_format);
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::check(args),
        Command::Explain(args) => explain::explain(args),
        Command::Status(args) => status::status(args),
        Command::Demo(args) => demo::demo(&args),
        Command::Controller(args) => controller::controller(args),
        Command::Health(args) => health::health(&args),
        Command::Agent(args) => agent::agent(args),
        Command::Cleanup(args) => cleanup::cleanup(args),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
    };
    Exit::from(result).report()
}
