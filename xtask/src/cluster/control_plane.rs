//! etcd, the API server, the controller manager, the scheduler, and who may talk to the API server.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::place;
use super::program::{Place, Program};
use super::topology::{Node, SERVICES};

/// Where the control plane runs.
pub const NODE: Node = Node(1);
/// The API server's port.
const PORT: u16 = 6443;
/// Where the API server notes what Blixt writes.
pub const AUDIT_LOG: &str = "audit.log";
/// What of it is to be noted: every request that writes, but not what was written.
const AUDIT_POLICY: &str = "audit.yaml";
/// A log that grows past so many MiB would be begun anew: of 10 000 routes all statuses are not 50.
const AUDIT_SIZE: u32 = 1024;

/// A user of the API server.
struct User {
    /// The kubeconfig's file.
    file: String,
    name: String,
    group: Option<&'static str>,
}

fn users(nodes: u8) -> Vec<User> {
    let user = |file: &str, name: &str, group| User { file: file.to_owned(), name: name.to_owned(), group };
    let mut users = vec![
        user("admin", "admin", Some("system:masters")),
        user("controller-manager", "system:kube-controller-manager", None),
        user("scheduler", "system:kube-scheduler", None),
        user("proxy", "system:kube-proxy", None),
    ];
    users.extend(Node::all(nodes).map(|node| {
        user(
            &format!("kubelet-{}", node.name()),
            &format!("system:node:{}", node.name()),
            Some("system:nodes"),
        )
    }));
    users
}

/// Writes a token and a kubeconfig for every user.
pub fn write_users(nodes: u8) -> Result<()> {
    let mut tokens = String::new();
    for user in users(nodes) {
        let token = token()?;
        let group = user.group.map(|group| format!(",\"{group}\"")).unwrap_or_default();
        tokens += &format!("{token},{},{}{group}\n", user.name, user.file);
        write_private(&place::kubeconfig(&user.file), &kubeconfig(&token))?;
    }
    write_private(&place::state("tokens.csv"), &tokens)
}

/// Writes what the API server is to note.
pub fn write_audit_policy() -> Result<()> {
    write_private(
        &place::state(AUDIT_POLICY),
        "apiVersion: audit.k8s.io/v1\n\
         kind: Policy\n\
         omitStages: [RequestReceived]\n\
         omitManagedFields: true\n\
         rules:\n\
         - level: Metadata\n\
         \x20 userGroups: [\"system:serviceaccounts:blixt-system\"]\n\
         \x20 verbs: [create, update, patch, delete, deletecollection]\n\
         - level: None\n",
    )
}

fn kubeconfig(token: &str) -> String {
    let certificate = place::certificates().join("apiserver.crt");
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters: [{{name: cluster, cluster: {{server: \"https://{}:{PORT}\", certificate-authority: {}}}}}]\n\
         users: [{{name: user, user: {{token: {token}}}}}]\n\
         contexts: [{{name: context, context: {{cluster: cluster, user: user}}}}]\n\
         current-context: context\n",
        NODE.addresses()[0],
        certificate.display(),
    )
}

fn token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("/dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_private(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    let mut open = open.with_context(|| format!("{}: cannot be written", file.display()))?;
    open.write_all(text.as_bytes()).with_context(|| format!("{}: cannot be written", file.display()))
}

/// What others store in.
pub fn etcd(kube: &Path) -> Program {
    let flags = [
        "--name=e",
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=e=http://127.0.0.1:2380",
    ];
    let mut flags = flags.map(str::to_owned).to_vec();
    flags.push(format!("--data-dir={}", place::state("etcd").display()));
    program(kube, "etcd", "etcd", flags)
}

/// It makes its certificate, that certificate's authority and the key itself; the key signs tokens of ServiceAccounts as well.
pub fn api_server(kube: &Path) -> Program {
    let key = place::certificates().join("apiserver.key");
    let flags = [
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--bind-address=0.0.0.0".to_owned(),
        format!("--secure-port={PORT}"),
        format!("--advertise-address={}", NODE.addresses()[0]),
        format!("--cert-dir={}", place::certificates().display()),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", key.display()),
        format!("--service-account-signing-key-file={}", key.display()),
        format!("--service-cluster-ip-range={}", SERVICES.join(",")),
        format!("--token-auth-file={}", place::state("tokens.csv").display()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--audit-policy-file={}", place::state(AUDIT_POLICY).display()),
        format!("--audit-log-path={}", place::state(AUDIT_LOG).display()),
        format!("--audit-log-maxsize={AUDIT_SIZE}"),
    ];
    program(kube, "apiserver", "kube-apiserver", flags.to_vec())
}

/// Pods of Deployments, EndpointSlices, ServiceAccounts, ...
pub fn controller_manager(kube: &Path) -> Program {
    let flags = [
        format!("--kubeconfig={}", place::kubeconfig("controller-manager").display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--service-cluster-ip-range={}", SERVICES.join(",")),
        format!("--root-ca-file={}", place::certificates().join("apiserver.crt").display()),
        "--use-service-account-credentials=true".to_owned(),
        // It counts on while the API server is away: a minute without makes no node and none of its pods unready.
        "--node-monitor-grace-period=90s".to_owned(),
    ];
    program(kube, "controller-manager", "kube-controller-manager", flags.to_vec())
}

/// Pods onto nodes.
pub fn scheduler(kube: &Path) -> Program {
    let flags = [
        format!("--kubeconfig={}", place::kubeconfig("scheduler").display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ];
    program(kube, "scheduler", "kube-scheduler", flags.to_vec())
}

fn program(kube: &Path, name: &str, what: &str, flags: Vec<String>) -> Program {
    let place = Place { network: NODE.namespace(), mounts: None };
    let words = [kube.display().to_string(), what.to_owned()].into_iter().chain(flags).collect();
    Program { name: name.to_owned(), place, words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_plane_serves_both_families() {
        let kube = Path::new("/kube");
        for program in [api_server(kube), controller_manager(kube)] {
            let flag = "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".to_owned();
            assert!(program.words.contains(&flag), "{program:?}");
        }
    }

    #[test]
    fn every_node_is_a_user_with_the_name_that_the_api_server_wants() {
        let names: Vec<_> = users(2).into_iter().map(|user| user.name).collect();
        assert!(names.contains(&"system:node:node2".to_owned()), "{names:?}");
    }
}
