//! Where an agent finds the certificate of the controller's authority: a ConfigMap, which names the leader as well, or a file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::time::timeout;

/// The key of the certificates in the ConfigMap.
pub const CERTIFICATES: &str = "ca.crt";
/// The key of the leader's own address and port.
pub const LEADER: &str = "leader";
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

/// What is found there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The certificates, PEM.
    pub certificates: String,
    /// Where the leader listens, if that is said.
    pub leader: Option<SocketAddr>,
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
    /// What is said there now.
    pub async fn find(&self) -> anyhow::Result<Found> {
        match self {
            Self::File(path) => {
                let certificates = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read --authority {}", path.display()))?;
                Ok(Found { certificates, leader: None })
            }
            Self::ConfigMap(namespace, name) => timeout(PATIENCE, of_config_map(namespace, name))
                .await
                .map_err(|_| anyhow!("the API server does not answer"))?
                .with_context(|| format!("cannot read ConfigMap {namespace}/{name}")),
        }
    }
}

async fn of_config_map(namespace: &str, name: &str) -> anyhow::Result<Found> {
    let client = Client::try_default().await?;
    found(Api::<ConfigMap>::namespaced(client, namespace).get(name).await?)
}

fn found(map: ConfigMap) -> anyhow::Result<Found> {
    let mut data = map.data.unwrap_or_default();
    let certificates = data
        .remove(CERTIFICATES)
        .ok_or_else(|| anyhow!("it has no {CERTIFICATES} yet; is a controller running?"))?;
    // A controller of an earlier version does not say where it is.
    let leader = data.get(LEADER).and_then(|address| address.parse().ok());
    Ok(Found { certificates, leader })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_map_has_certificates_and_may_name_the_leader() {
        let map = |entries: &[(&str, &str)]| ConfigMap {
            data: Some(entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
            ..ConfigMap::default()
        };
        let leader = |entries: &[(&str, &str)]| found(map(entries)).unwrap().leader;
        assert_eq!(leader(&[(CERTIFICATES, "pem")]), None);
        assert_eq!(leader(&[(CERTIFICATES, "pem"), (LEADER, "nowhere")]), None);
        let address = "[fd00::7]:9645";
        assert_eq!(leader(&[(CERTIFICATES, "pem"), (LEADER, address)]), Some(address.parse().unwrap()));
        assert!(found(map(&[(LEADER, address)])).is_err());
    }

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
