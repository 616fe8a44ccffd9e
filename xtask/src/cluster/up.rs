//! Brings a cluster up: each step waits for what the next one needs, and says when it was done.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::parts::Parts;
use super::program::{self, Place};
use super::topology::{Node, client, links, router, routes, settings};
use super::{control_plane, node, place};
use crate::image;
use crate::process::{describe, succeed};
use crate::workspace;

/// What is wanted.
pub struct Wish {
    /// How many nodes.
    pub nodes: u8,
    /// How kube-proxy works.
    pub proxy: node::Proxy,
    /// The program that is to be on every node as an image.
    pub blixt: Option<PathBuf>,
}

/// Brings it up from nothing.
pub fn up(wish: &Wish, parts: &Parts) -> Result<()> {
    let clock = Clock::start();
    prepare(wish.nodes, &parts.kube)?;
    let blixt = wish.blixt.as_deref().map(write_image).transpose()?;
    network(wish.nodes)?;
    clock.say("network");

    control_plane::write_users(wish.nodes)?;
    control_plane::write_audit_policy()?;
    let kube = place::state("kube");
    control_plane::etcd(&kube).start()?;
    control_plane::api_server(&kube).start()?;
    // Meanwhile: it takes seconds.
    for node in Node::all(wish.nodes) {
        node::mount(node)?;
        node::make_cgroups(node)?;
        node::write_settings(node, wish.proxy)?;
        node::containerd(node).start()?;
    }
    wait_for("the API server", "apiserver", || kubectl().args(["get", "--raw=/readyz"]))?;
    clock.say("the API server is ready");
    control_plane::controller_manager(&kube).start()?;
    control_plane::scheduler(&kube).start()?;

    for node in Node::all(wish.nodes) {
        let name = node.name();
        wait_for("containerd", &format!("containerd-{name}"), || {
            let mut ctr = node::ctr(node);
            ctr.arg("version");
            ctr
        })?;
        node::kubelet(&kube, node).start()?;
        node::proxy(&kube, node).start()?;
    }
    for node in Node::all(wish.nodes) {
        for archive in parts.images.iter().chain(&blixt) {
            import(node, archive)?;
        }
        clock.say(&format!("{}: images", node.name()));
    }
    for node in Node::all(wish.nodes) {
        let name = node.name();
        wait_for("the node", &format!("kubelet-{name}"), || {
            kubectl().args(["wait", "--for=condition=Ready", "--timeout=1s", &format!("node/{name}")])
        })?;
        clock.say(&format!("{name} is ready"));
    }
    definitions(&parts.crds)?;
    wait_for("the default ServiceAccount", "controller-manager", || {
        kubectl().args(["--namespace=default", "get", "serviceaccount", "default"])
    })?;
    clock.say("the CRDs are established");
    Ok(())
}

/// `kubectl` as the cluster's administrator.
pub fn kubectl() -> Kubectl {
    let place = Place { network: control_plane::NODE.namespace(), mounts: None };
    let mut command = place.command(place::state("kube"));
    command.arg("kubectl").env("KUBECONFIG", place::kubeconfig("admin"));
    Kubectl(command)
}

/// A command that can be written in one expression.
pub struct Kubectl(Command);

impl Kubectl {
    /// With these arguments.
    pub fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Command {
        self.0.args(args);
        self.0
    }
}

/// Puts an image into a node's containerd.
pub fn import(node: Node, archive: &Path) -> Result<()> {
    let mut ctr = node::ctr(node);
    ctr.args(["images", "import"]).arg(archive).stdout(Stdio::null());
    succeed(&mut ctr).with_context(|| format!("{}: {} cannot be imported", node.name(), archive.display()))
}

/// Writes the image of `blixt` where the nodes see it.
pub fn write_image(binary: &Path) -> Result<PathBuf> {
    let archive = place::state("blixt.tar");
    image::blixt(binary, &archive)?;
    Ok(archive)
}

/// The directories; and `kube` itself, since the cache may be cleared while it runs.
fn prepare(nodes: u8, kube: &Path) -> Result<()> {
    for dir in
        [place::logs(), place::programs(), place::certificates(), place::kubeconfig(""), place::mounts()]
    {
        fs::create_dir_all(&dir).with_context(|| format!("{}: cannot be made", dir.display()))?;
    }
    fs::copy(kube, place::state("kube")).with_context(|| format!("{}: cannot be copied", kube.display()))?;
    fs::write(place::state("nodes"), nodes.to_string()).context("the number of nodes")?;
    // A namespace can only be held by a file on a mount that no other namespace shares.
    let mounts = place::mounts();
    succeed(Command::new("mount").arg("--bind").args([&mounts, &mounts]))?;
    succeed(Command::new("mount").arg("--make-private").arg(&mounts))
}

fn network(nodes: u8) -> Result<()> {
    links(nodes).iter().try_for_each(|words| ip(words))?;
    let namespaces = Node::all(nodes).map(Node::namespace).chain([client(), router()]);
    for namespace in namespaces {
        let lines = settings(&namespace);
        let lines: Vec<_> =
            lines.iter().map(|(file, value)| format!("echo {value} > /proc/sys/net/{file}")).collect();
        let place = Place { network: namespace, mounts: None };
        succeed(place.command("sh").args(["-e", "-c", &lines.join("\n")]))?;
    }
    routes(nodes).iter().try_for_each(|words| ip(words))
}

fn ip(words: &str) -> Result<()> {
    succeed(Command::new("ip").args(words.split(' ')))
}

/// The CRDs of the Gateway API and our own.
fn definitions(crds: &Path) -> Result<()> {
    let own = workspace::root().join("deploy/crds");
    let log = File::create(place::logs().join("crds.log"))?;
    let mut apply = kubectl().args(["apply", "--server-side", "--force-conflicts", "--filename"]);
    succeed(apply.arg(crds).arg("--filename").arg(own).stdout(log))?;
    // It takes one for broken that has no conditions at all yet: then it is asked again. The time is that of all of them.
    wait_for("the CRDs", "apiserver", || {
        kubectl().args(["wait", "--for=condition=Established", "--timeout=60s", "--all", "crd"])
    })
}

/// Tries until it succeeds; an error shows the end of the program's log.
fn wait_for(what: &str, program: &str, command: impl Fn() -> Command) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut command = command();
        let output = command.stdin(Stdio::null()).output().context("cannot be started")?;
        if output.status.success() {
            return Ok(());
        }
        let has_ended = !program::is_running(program);
        if has_ended || Instant::now() > deadline {
            let why = if has_ended { "has ended" } else { "is not ready" };
            bail!(
                "{what}: {program} {why}: {}: {}\n{}",
                describe(&command),
                String::from_utf8_lossy(&output.stderr).trim(),
                last_lines(&program::log(program), 30),
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How long a step may take on a busy machine; most take seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// The end of a file, with its name.
pub fn last_lines(file: &Path, count: usize) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    format!("--- the end of {}\n{}\n", file.display(), lines[from..].join("\n"))
}

/// Says what is done, and when.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn say(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.0.elapsed().as_secs_f64());
    }
}
