//! How agents find the leader: the certificate of its authority in a ConfigMap, its address in the EndpointSlice of the
//! controller's Service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};

use super::writer::FIELD_MANAGER;
use crate::agent::authority::KEY;

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

    /// Publishes what agents must trust.
    pub async fn authority(&self, certificates: &str) -> anyhow::Result<()> {
        let map = ConfigMap {
            metadata: self.metadata(BTreeMap::new()),
            data: Some([(KEY.to_owned(), certificates.to_owned())].into()),
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

    /// Publishes where the leader is.
    pub async fn address(&self, address: SocketAddr) -> anyhow::Result<()> {
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
