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
        Ok(Self {
            door: Door { url: controller, authority: authority.parse()?, token },
            // Nodes may share a file system, where they are namespaces of one machine.
            state_dir: state_dir.join(&node.node_name),
            installation: Installation::new(daemon_set.as_deref())?,
            node,
        })
    }
}
