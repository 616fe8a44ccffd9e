//! How agents find the leader: its address and the certificate of its authority in a ConfigMap, which they read as soon as the API
//! server is there; and its address in the EndpointSlice of the controller's Service, which kube-proxy keeps while it is not.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};

use super::writer::FIELD_MANAGER;
use crate::agent::authority::{CERTIFICATES, LEADER};

/// Name of the Service, the ConfigMap and the EndpointSlice.
const NAME: &str = "blixt-controller";
/// Name of the Service's port.
const PORT: &str = "sync";

/// Where it is published.
#[derive(Clone)]
pub struct Publication {
    client: Client,
    namespace: String,
}

impl Publication {
    /// In the controller's namespace.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// Publishes where the leader is and what agents must trust.
    pub async fn publish(&self, address: SocketAddr, certificates: &str) -> anyhow::Result<()> {
        self.map(address, certificates).await?;
        self.slice(address).await
    }

    async fn map(&self, address: SocketAddr, certificates: &str) -> anyhow::Result<()> {
        let entries = [(CERTIFICATES, certificates.to_owned()), (LEADER, address.to_string())];
        let map = ConfigMap {
            metadata: self.metadata(BTreeMap::new()),
            data: Some(entries.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ConfigMap::default()
        };
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        api.patch(NAME, &params(), &Patch::Apply(&map)).await.with_context(|| {
            format!(
                "cannot write ConfigMap {}/{NAME}; compare the Role with that of deploy/install.yaml",
                self.namespace
            )
        })?;
        Ok(())
    }

    async fn slice(&self, address: SocketAddr) -> anyhow::Result<()> {
        let labels = [
            ("kubernetes.io/service-name".to_owned(), NAME.to_owned()),
            ("endpointslice.kubernetes.io/managed-by".to_owned(), "blixt.dev".to_owned()),
        ];
        let slice = EndpointSlice {
            metadata: self.metadata(labels.into()),
            address_type: match address.ip() {
                IpAddr::V4(_) => "IPv4",
                IpAddr::V6(_) => "IPv6",
            }
            .to_owned(),
            endpoints: Some(vec![Endpoint {
                addresses: vec![address.ip().to_string()],
                conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
                ..Endpoint::default()
            }]),
            ports: Some(vec![EndpointPort {
                name: Some(PORT.to_owned()),
                port: Some(address.port().into()),
                protocol: Some("TCP".to_owned()),
                ..EndpointPort::default()
            }]),
        };
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        api.patch(NAME, &params(), &Patch::Apply(&slice)).await.with_context(|| {
            format!(
                "cannot write EndpointSlice {}/{NAME}; compare the Role with that of deploy/install.yaml",
                self.namespace
            )
        })?;
        Ok(())
    }

    fn metadata(&self, labels: BTreeMap<String, String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        }
    }
}

fn params() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}
