//! What `blixt agent` was asked to do, understood.

use std::path::PathBuf;

use anyhow::bail;

use super::authority::Authority;
use super::installation::Installation;
use crate::cli::AgentArgs;
use crate::node;

/// Everything that `blixt agent` needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Where the controller is, and how each side knows the other.
    pub door: Door,
    /// Where the last Config is kept.
    pub state_dir: PathBuf,
    /// What it belongs to.
    pub installation: Installation,
    /// How the data plane works.
    pub node: node::settings::Settings,
}

/// Where the controller is, and how each side knows the other.
#[derive(Debug)]
pub struct Door {
    /// `https://HOST:PORT`.
    pub url: String,
    /// Where the certificate of its authority is found.
    pub authority: Authority,
    /// A file with our token, replaced now and then.
    pub token: PathBuf,
}

/// A Service's address as Kubernetes gives it to pods has no brackets, of whichever family it is.
fn bracketed(url: &str) -> String {
    let rest = url.strip_prefix("https://").unwrap_or(url);
    match rest.rsplit_once(':') {
        Some((host, port)) if host.contains(':') && !host.starts_with('[') => {
            format!("https://[{host}]:{port}")
        }
        _ => url.to_owned(),
    }
}

impl TryFrom<AgentArgs> for Settings {
    type Error = anyhow::Error;

    fn try_from(args: AgentArgs) -> anyhow::Result<Self> {
        let AgentArgs { controller, authority, token, state_dir, daemon_set, node } = args;
        if !controller.starts_with("https://") {
            bail!("--controller {controller}: write it as https://HOST:PORT");
        }
        let mut node: node::settings::Settings = node.try_into()?;
        node.announces = false;
        // A pod does not.
        node.sees_processes = false;
        node.beside_kube_proxy = true;
        Ok(Self {
            door: Door { url: bracketed(&controller), authority: authority.parse()?, token },
            // Nodes may share a file system, where they are namespaces of one machine.
            state_dir: state_dir.join(&node.node_name),
            installation: Installation::new(daemon_set.as_deref())?,
            node,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_gets_its_brackets() {
        for (typed, understood) in [
            ("https://10.96.0.7:9645", "https://10.96.0.7:9645"),
            ("https://fd00:10:96::7:9645", "https://[fd00:10:96::7]:9645"),
            ("https://[fd00:10:96::7]:9645", "https://[fd00:10:96::7]:9645"),
            (
                "https://blixt-controller.blixt-system.svc:9645",
                "https://blixt-controller.blixt-system.svc:9645",
            ),
        ] {
            assert_eq!(bracketed(typed), understood);
        }
    }
}
