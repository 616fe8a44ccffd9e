//! Where an agent finds the certificate of the controller's authority: a ConfigMap, or a file.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::time::timeout;

/// The key of the ConfigMap.
pub const KEY: &str = "ca.crt";
/// An API server that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where it is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authority {
    /// In a ConfigMap, by namespace and name; the controller publishes it there.
    ConfigMap(String, String),
    /// In a file.
    File(PathBuf),
}

impl FromStr for Authority {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(name) = text.strip_prefix("configmap:") {
            let Some((namespace, name)) =
                name.split_once('/').filter(|(a, b)| !a.is_empty() && !b.is_empty())
            else {
                bail!("--authority {text}: write it as configmap:NAMESPACE/NAME, or as the path of a file");
            };
            return Ok(Self::ConfigMap(namespace.to_owned(), name.to_owned()));
        }
        Ok(Self::File(text.into()))
    }
}

impl Authority {
    /// The certificates, PEM.
    pub async fn find(&self) -> anyhow::Result<String> {
        match self {
            Self::File(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read --authority {}", path.display())),
            Self::ConfigMap(namespace, name) => timeout(PATIENCE, of_config_map(namespace, name))
                .await
                .map_err(|_| anyhow!("the API server does not answer"))?
                .with_context(|| format!("cannot read ConfigMap {namespace}/{name}")),
        }
    }
}

async fn of_config_map(namespace: &str, name: &str) -> anyhow::Result<String> {
    let client = Client::try_default().await?;
    let map = Api::<ConfigMap>::namespaced(client, namespace).get(name).await?;
    let certificates = map.data.and_then(|mut data| data.remove(KEY));
    certificates.ok_or_else(|| anyhow!("it has no {KEY} yet; is a controller running?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_config_map_or_a_file() {
        let map = Authority::ConfigMap("blixt-system".into(), "blixt-controller".into());
        assert_eq!("configmap:blixt-system/blixt-controller".parse::<Authority>().unwrap(), map);
        assert_eq!("/etc/ca.crt".parse::<Authority>().unwrap(), Authority::File("/etc/ca.crt".into()));
        for wrong in ["configmap:", "configmap:a", "configmap:/b", "configmap:a/"] {
            assert!(wrong.parse::<Authority>().is_err(), "{wrong}");
        }
    }
}
