//! The manifests of the demo, as a person would write them.

use std::fmt::Write;
use std::net::IpAddr;

use blixt_lab::{Family, Lab, address};

/// One of the backends as the routes see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Backend {
    /// The number of its network in the lab, from 1.
    pub(super) network: u8,
    /// Its weight in both routes.
    pub(super) weight: u64,
    /// Whether its EndpointSlices name it.
    pub(super) listed: bool,
}

impl Backend {
    /// The name of its Service, which is also what it answers.
    pub(super) fn name(&self) -> String {
        format!("backend-{}", self.network)
    }
}

/// The port that backends listen on.
pub(super) const TARGET: u16 = 8080;
/// The port of the listeners.
pub(super) const PORT: u16 = 80;

/// The Gateway's address: routed to the balancer, on no device of it.
pub(super) fn gateway_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 99, 0, 1].into(),
        Family::V6 => [0xfd00, 0x99, 0, 0, 0, 0, 0, 1].into(),
    }
}

/// The class and the Gateway.
pub(super) fn gateway() -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: blixt
spec:
  controllerName: gateway.networking.k8s.io/blixt
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: web
  namespace: default
spec:
  gatewayClassName: blixt
  addresses:
  - type: IPAddress
    value: {}
  - type: IPAddress
    value: {}
  listeners:
  - name: tcp
    protocol: TCP
    port: {PORT}
  - name: udp
    protocol: UDP
    port: {PORT}
",
        gateway_address(Family::V4),
        gateway_address(Family::V6)
    )
}

/// A TCPRoute and a UDPRoute with the weights.
pub(super) fn routes(backends: &[Backend]) -> String {
    ["TCP", "UDP"].map(|protocol| route(protocol, backends)).join("---\n")
}

/// The Service of a backend and its EndpointSlices, one for each family.
pub(super) fn service(backend: &Backend) -> String {
    let name = backend.name();
    let mut yaml = format!(
        "\
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: default
spec:
  ports:
  - {{name: tcp, protocol: TCP, port: {PORT}, targetPort: {TARGET}}}
  - {{name: udp, protocol: UDP, port: {PORT}, targetPort: {TARGET}}}
"
    );
    for family in Family::ALL {
        let kind = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let endpoints = if backend.listed {
            format!("\n- addresses: [\"{}\"]", address(family, backend.network, Lab::OTHER))
        } else {
            " []".to_owned()
        };
        let _ = write!(
            yaml,
            "\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-{}
  namespace: default
  labels: {{kubernetes.io/service-name: {name}}}
addressType: {kind}
ports:
- {{name: tcp, protocol: TCP, port: {TARGET}}}
- {{name: udp, protocol: UDP, port: {TARGET}}}
endpoints:{endpoints}
",
            kind.to_lowercase()
        );
    }
    yaml
}

fn route(protocol: &str, backends: &[Backend]) -> String {
    let mut yaml = format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: {protocol}Route
metadata:
  name: web
  namespace: default
spec:
  parentRefs:
  - name: web
    sectionName: {}
  rules:
  - backendRefs:
",
        protocol.to_lowercase()
    );
    for backend in backends {
        let _ =
            writeln!(yaml, "    - {{name: {}, port: {PORT}, weight: {}}}", backend.name(), backend.weight);
    }
    yaml
}
