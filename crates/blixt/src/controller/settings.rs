//! What `blixt controller` was asked to do, understood.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use blixt_core::api::Kind;

use crate::cli::{ControllerArgs, Listen};

/// Everything that `blixt controller` needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Where it runs, and its agents.
    pub namespace: String,
    /// What it is called in the Lease.
    pub identity: String,
    /// The name of its pod.
    pub pod: String,
    /// Where agents connect.
    pub sync: SocketAddr,
    /// What agents dial.
    pub address: IpAddr,
    /// Where metrics are served.
    pub listen: Option<SocketAddr>,
    /// Which pods are agents.
    pub agents: String,
    /// What is watched.
    pub kinds: Vec<Kind>,
}

impl TryFrom<ControllerArgs> for Settings {
    type Error = anyhow::Error;

    fn try_from(args: ControllerArgs) -> anyhow::Result<Self> {
        let ControllerArgs { namespace, pod_name, pod_ip, sync, listen, agents, secrets } = args;
        let address = pod_ip
            .context("--pod-ip is not given: let the downward API set POD_IP (status.podIP), as deploy/install.yaml does")?;
        if pod_name.is_empty() || namespace.is_empty() {
            bail!("--pod-name and --namespace must not be empty");
        }
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        Ok(Self {
            // A process that died has not given its Lease back: the next one of the same pod is another holder.
            identity: format!("{pod_name}_{nanos:x}"),
            namespace,
            pod: pod_name,
            sync,
            address,
            listen: match listen {
                Listen::Off => None,
                Listen::At(address) => Some(address),
            },
            agents,
            kinds: Kind::ALL.into_iter().filter(|kind| secrets || *kind != Kind::Secret).collect(),
        })
    }
}
