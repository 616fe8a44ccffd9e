//! What an agent belongs to: it stays at work between two versions of itself, and goes with the installation.

use std::time::Duration;

use anyhow::bail;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::node::signals::End;

/// An API server that takes longer is not waited for: forwarding stays.
const PATIENCE: Duration = Duration::from_secs(3);

/// The DaemonSet that it is of, if any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installation {
    daemon_set: Option<(String, String)>,
}

impl Installation {
    /// From `NAMESPACE/NAME`.
    pub fn new(daemon_set: Option<&str>) -> anyhow::Result<Self> {
        let Some(text) = daemon_set else { return Ok(Self { daemon_set: None }) };
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self { daemon_set: Some((namespace.to_owned(), name.to_owned())) })
            }
            _ => bail!("--daemon-set {text}: write it as NAMESPACE/NAME"),
        }
    }

    /// What becomes of forwarding when the agent is to end: it stays, unless the whole installation goes.
    pub async fn end(&self) -> End {
        let Some((namespace, name)) = &self.daemon_set else { return End::Leave };
        match timeout(PATIENCE, is_gone(namespace, name)).await {
            Ok(Ok(true)) => {
                tracing::info!(namespace, name, "the DaemonSet is deleted: forwarding goes with it");
                End::Remove
            }
            Ok(Ok(false)) => End::Leave,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot tell whether the DaemonSet is deleted; forwarding stays");
                End::Leave
            }
            Err(_) => {
                tracing::warn!(
                    "the API server does not say whether the DaemonSet is deleted; forwarding stays"
                );
                End::Leave
            }
        }
    }
}

async fn is_gone(namespace: &str, name: &str) -> kube::Result<bool> {
    let client = Client::try_default().await?;
    let found = Api::<DaemonSet>::namespaced(client, namespace).get_opt(name).await?;
    Ok(found.is_none_or(|daemon_set| daemon_set.metadata.deletion_timestamp.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_set_is_named_with_its_namespace() {
        assert!(Installation::new(Some("blixt-system/blixt-agent")).unwrap().daemon_set.is_some());
        for wrong in ["blixt-agent", "/blixt-agent", "blixt-system/", ""] {
            assert!(Installation::new(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn without_a_daemon_set_forwarding_stays() {
        assert!(matches!(Installation::new(None).unwrap().end().await, End::Leave));
    }
}
