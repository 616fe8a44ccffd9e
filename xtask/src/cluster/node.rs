//! A node: a mount namespace of its own beside its network namespace, and in both containerd, the kubelet and kube-proxy.
//!
//! With mounts of its own each node has the usual places to itself, as a machine has: `/run`, `/var/lib/kubelet`, the bpf file system.
//! They go with the namespace, and with them every volume and every pin.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};

use super::place;
use super::program::{Place, Program};
use super::topology::{Node, PODS};
use crate::process::{describe, output, succeed};
use crate::setup::CNI;

/// How kube-proxy does its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Proxy {
    /// By nftables.
    Nftables,
    /// By iptables.
    Iptables,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

/// What a node keeps on disk, and where it sees it.
const DIRECTORIES: [(&str, &str); 5] = [
    ("blixt", "/var/lib/blixt"),
    ("kubelet", "/var/lib/kubelet"),
    ("cni", "/var/lib/cni"),
    ("containerd", place::IMAGES),
    ("log", "/var/log"),
];
/// Where containerd listens, as the node sees it.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Where the node's programs run.
pub fn place(node: Node) -> Place {
    Place { network: node.namespace(), mounts: Some(place::mounts_of(node)) }
}

/// Directories of the machine that only have to be there, for the node's own to be mounted on.
pub fn mount_points() -> impl Iterator<Item = &'static str> {
    DIRECTORIES.into_iter().map(|(_, at)| at)
}

/// Who enters a mount namespace is at its root, outside of whatever directory was made the root of the processes that asked for
/// it (`chroot`). That directory is laid over the namespace's root, if it is another one: whoever enters is there then.
const OWN_ROOT: &str = r#"
exec 9</
entered() { nsenter --mount=/proc/self/ns/mnt -- "$@"; }
[ "$(stat --format=%d:%i /)" = "$(entered stat --format=%d:%i /)" ] || entered mount --rbind /proc/self/fd/9 /
echo made
read -r kept || true
"#;

/// Makes the node's mounts.
pub fn mount(node: Node) -> Result<()> {
    let file = place::mounts_of(node);
    fs::write(&file, "").with_context(|| format!("{}: cannot be made", file.display()))?;
    keep_new_namespace(&file)?;
    let mut script =
        vec!["mount --make-rshared /".to_owned(), "mount -t tmpfs -o mode=755 tmpfs /run".to_owned()];
    script.push("mkdir /run/lock && mount -t bpf bpf /sys/fs/bpf".to_owned());
    for (name, at) in DIRECTORIES {
        let own = if at == place::IMAGES { place::images_of(node) } else { place::node(node).join(name) };
        for dir in [own.as_path(), Path::new(at)] {
            fs::create_dir_all(dir).with_context(|| format!("{}: cannot be made", dir.display()))?;
        }
        script.push(format!("mount --bind {} {at}", own.display()));
    }
    succeed(place(node).command("sh").args(["-e", "-c", &script.join("\n")]))
        .with_context(|| format!("{}: its mounts cannot be made", node.name()))
}

/// Makes a mount namespace that stays as long as a file is mounted on it.
///
/// The kernel lets only a namespace be mounted in one that it takes for older, and tells age by numbers that each CPU deals out of a stock of
/// its own (Linux 6.18): where this process itself is in a namespace of its own, a newer one may have a smaller number. Made on the same CPU
/// it has a larger one.
fn keep_new_namespace(file: &Path) -> Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut result = Ok(());
    for cpu in 0..cpus {
        result = keep_namespace_made_on(cpu, file);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn keep_namespace_made_on(cpu: usize, file: &Path) -> Result<()> {
    let mut unshare = Command::new("taskset");
    unshare.args(["--cpu-list", &cpu.to_string(), "unshare", "--mount", "sh", "-e", "-c", OWN_ROOT]);
    let mut process = unshare
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("taskset: cannot be started; it is in util-linux")?;
    let mut line = String::new();
    if let Some(stdout) = process.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).context("unshare: says nothing")?;
    }
    let kept = match line.as_str() {
        "made\n" => {
            let namespace = format!("/proc/{}/ns/mnt", process.id());
            let mut bind = Command::new("mount");
            bind.args(["--bind", &namespace]).arg(file);
            output(&mut bind).map(drop).with_context(|| format!("{}: failed", describe(&bind)))
        }
        _ => Err(anyhow!("{}: a mount namespace cannot be made", file.display())),
    };
    // It ends when there is nothing more to read.
    drop(process.stdin.take());
    process.wait().context("unshare: cannot be waited for")?;
    kept
}

/// Makes the cgroup that the node's pods lie in. There may be many hierarchies, or one.
pub fn make_cgroups(node: Node) -> Result<()> {
    for hierarchy in hierarchies() {
        let dir = hierarchy.join(node.namespace());
        fs::create_dir_all(&dir).with_context(|| format!("{}: cannot be made", dir.display()))?;
        // In this hierarchy of version 1 an empty set, which a new group has, can run nothing.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(set) = fs::read_to_string(hierarchy.join(file)) {
                fs::write(dir.join(file), set.trim())
                    .with_context(|| format!("{}/{file}: cannot be written", dir.display()))?;
            }
        }
    }
    Ok(())
}

/// The roots of the machine's cgroups.
pub fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    // Names like `cpu,cpuacct` have links for each of their words. Version 2 beside version 1 has no controllers.
    entries.filter(|dir| dir.is_dir() && !dir.is_symlink() && !dir.ends_with("unified")).collect()
}

/// Writes what the node's programs are told by files.
pub fn write_settings(node: Node, proxy: Proxy) -> Result<()> {
    let dir = place::node(node);
    fs::create_dir_all(dir.join("net.d")).with_context(|| format!("{}: cannot be made", dir.display()))?;
    let plugins = CNI.into_iter().find(|dir| Path::new(dir).join("host-local").is_file()).unwrap_or(CNI[0]);
    for (name, text) in [
        ("net.d/10-bridge.conflist", network(node)),
        ("containerd.toml", containerd_settings(node, plugins)),
        ("kubelet.yaml", kubelet_settings(node)),
        ("proxy.yaml", proxy_settings(node, proxy)),
    ] {
        fs::write(dir.join(name), text)
            .with_context(|| format!("{}/{name}: cannot be written", dir.display()))?;
    }
    Ok(())
}

/// Runs containers.
pub fn containerd(node: Node) -> Program {
    let config = place::node(node).join("containerd.toml");
    program(node, "containerd", vec!["containerd".to_owned(), format!("--config={}", config.display())])
}

/// A command for the node's containerd.
pub fn ctr(node: Node) -> Command {
    let mut command = place(node).command("ctr");
    command.args(["--namespace", "k8s.io"]);
    command
}

/// Runs pods.
pub fn kubelet(kube: &Path, node: Node) -> Program {
    let words = vec![
        kube.display().to_string(),
        "kubelet".to_owned(),
        format!("--config={}", place::node(node).join("kubelet.yaml").display()),
        format!("--kubeconfig={}", place::kubeconfig(&format!("kubelet-{}", node.name())).display()),
        format!("--hostname-override={}", node.name()),
        format!("--node-ip={}", node.addresses().join(",")),
    ];
    program(node, "kubelet", words)
}

/// Serves the addresses of Services.
pub fn proxy(kube: &Path, node: Node) -> Program {
    let config = format!("--config={}", place::node(node).join("proxy.yaml").display());
    program(node, "proxy", vec![kube.display().to_string(), "kube-proxy".to_owned(), config])
}

fn program(node: Node, name: &str, words: Vec<String>) -> Program {
    Program { name: format!("{name}-{}", node.name()), place: place(node), words }
}

fn network(node: Node) -> String {
    let ranges = node.pods().map(|range| serde_json::json!([{ "subnet": range }]));
    let bridge = serde_json::json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "mtu": 1500,
        "ipam": { "type": "host-local", "ranges": ranges, "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }] },
    });
    serde_json::json!({ "cniVersion": "0.4.0", "name": "pods", "plugins": [bridge] }).to_string()
}

/// `oom` and the like: whoever runs this may lack the right to protect a process from running out of memory, as in a container.
fn containerd_settings(node: Node, plugins: &str) -> String {
    format!(
        r#"version = 2
oom_score = 0
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_tcp_service = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{}"
"#,
        super::parts::PAUSE,
        place::node(node).join("net.d").display(),
    )
}

fn kubelet_settings(node: Node) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
# A machine without systemd, and with cgroups of version 1 or 2; the nodes share it.
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{}
enforceNodeAllocatable: [pods]
failSwapOn: false
oomScoreAdj: 0
containerRuntimeEndpoint: unix://{SOCKET}
volumePluginDir: /var/lib/kubelet/plugins
# Nobody but the cluster itself can reach it: logs and exec need no more.
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
resolvConf: ""
clusterDomain: cluster.local
clusterDNS: [10.96.0.10]
maxPods: 200
registryPullQPS: 0
serializeImagePulls: false
# Images that are gone cannot be had again: there is no registry.
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}}
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
"#,
        node.namespace(),
    )
}

fn proxy_settings(node: Node, proxy: Proxy) -> String {
    format!(
        r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: {}
clusterCIDR: {}
clientConnection: {{kubeconfig: {}}}
hostnameOverride: {}
conntrack: {{maxPerCore: 0}}
oomScoreAdj: 0
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
"#,
        proxy,
        PODS.join(","),
        place::kubeconfig("proxy").display(),
        node.name(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_an_address_of_each_family_from_the_nodes_own_ranges() {
        let network: serde_json::Value = serde_json::from_str(&network(Node(2))).expect("JSON");
        let ranges = &network["plugins"][0]["ipam"]["ranges"];
        assert_eq!(ranges[0][0]["subnet"], "10.244.2.0/24");
        assert_eq!(ranges[1][0]["subnet"], "fd00:10:244:2::/64");
    }

    #[test]
    fn two_nodes_differ_in_everything_that_they_share_a_machine_for() {
        let kube = Path::new("/kube");
        assert_ne!(kubelet_settings(Node(1)), kubelet_settings(Node(2)));
        assert_ne!(kubelet(kube, Node(1)), kubelet(kube, Node(2)));
        assert_ne!(place(Node(1)), place(Node(2)));
        assert!(kubelet(kube, Node(2)).words.contains(&"--node-ip=172.30.0.12,fd00:172:30::12".to_owned()));
    }
}
