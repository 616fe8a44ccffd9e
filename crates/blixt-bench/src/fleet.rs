//! Manifests of many routes, each with a listener, a Service and three backends of its own.
//!
//! Backends stand as pods do: each has an address of its own, which lies on one of three nodes and is routed there.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use blixt_lab::{Family, Lab, Server, address};

use crate::stage::Stage;

/// Routes of a large fleet.
pub const LARGE: u32 = 10_000;
/// Backends of each route, one on each node.
pub const NODES: u8 = 3;
/// The port that backends serve on.
pub const TARGET: u16 = 8080;
/// A Gateway has no more listeners than this.
const LISTENERS: u32 = 64;
/// The port of a Gateway's first listener.
const FIRST_PORT: u32 = 1000;
/// The file that holds the EndpointSlice of the last route, and nothing else.
pub const LAST_SLICE: &str = "last-slice.yaml";

/// What a client dials for a route, counted from 0.
pub fn frontend(route: u32) -> SocketAddr {
    let [_, _, high, low] = (route / LISTENERS + 1).to_be_bytes();
    let port = FIRST_PORT + route % LISTENERS;
    SocketAddr::new(Ipv4Addr::new(10, 99, high, low).into(), port as u16)
}

/// A route's backend on a node, counted from 1.
pub fn backend(node: u8, route: u32) -> SocketAddr {
    let [_, _, high, low] = (route + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 200 + node, high, low)), TARGET)
}

/// Routes the networks of the pods: to each node, and on it to itself.
pub fn route_pods(lab: &Lab) -> Result<()> {
    for node in 1..=NODES {
        let network = format!("10.{}.0.0/16", 200 + node);
        let gateway = address(Family::V4, node, Lab::OTHER);
        lab.balancer.ip(&format!("route add {network} via {gateway}"))?;
        lab.other(node).ip(&format!("route add local {network} dev lo"))?;
    }
    Ok(())
}

/// Starts a server on each node that answers for all of its pods.
pub fn serve(lab: &Lab) -> Result<Vec<Server>> {
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), TARGET);
    let nodes = lab.backends.iter();
    nodes.map(|node| Ok(Server::start(node, node.name(), &[any])?)).collect()
}

/// Writes the manifests of this many routes: Gateways in one file, everything else in another, the last
/// EndpointSlice in a third.
pub fn write(stage: &Stage, routes: u32) -> Result<()> {
    stage.write("gateways.yaml", &(CLASS.to_owned() + &gateways(routes)))?;
    let mut text = String::new();
    for route in 0..routes {
        text += &route_and_service(route);
        if route + 1 < routes {
            text += &slice(route, &backends(route));
        }
    }
    stage.write("routes.yaml", &text)?;
    stage.write(LAST_SLICE, &slice(routes - 1, &backends(routes - 1)))?;
    Ok(())
}

/// What a client dials for the route of UDP that [`write_udp`] writes.
pub fn udp_frontend() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 99, 255, 1).into(), TARGET)
}

/// Writes the manifests of one route of UDP, and of its backends.
pub fn write_udp(stage: &Stage, backends: &[SocketAddr]) -> Result<()> {
    let frontend = udp_frontend().ip();
    let endpoints: Vec<String> =
        backends.iter().map(|backend| format!("{{addresses: [{}]}}", backend.ip())).collect();
    let endpoints = endpoints.join(", ");
    let text = format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: udp}}
spec:
  gatewayClassName: blixt
  addresses: [{{value: {frontend}}}]
  listeners: [{{name: udp, protocol: UDP, port: {TARGET}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {{name: udp}}
spec:
  parentRefs: [{{name: udp}}]
  rules: [{{backendRefs: [{{name: udp, port: {TARGET}}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: udp}}
spec:
  ports: [{{protocol: UDP, port: {TARGET}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: udp
  labels: {{kubernetes.io/service-name: udp}}
addressType: IPv4
ports: [{{protocol: UDP, port: {TARGET}}}]
endpoints: [{endpoints}]
---
"
    );
    stage.write("udp.yaml", &text)?;
    Ok(())
}

/// The backends of a route.
pub fn backends(route: u32) -> Vec<SocketAddr> {
    (1..=NODES).map(|node| backend(node, route)).collect()
}

/// The EndpointSlice of a route.
pub fn slice(route: u32, backends: &[SocketAddr]) -> String {
    let mut text = format!(
        "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: service-{route}-a
  labels:
    kubernetes.io/service-name: service-{route}
addressType: IPv4
ports:
- port: {TARGET}
endpoints:
"
    );
    for backend in backends {
        let _ = writeln!(text, "- addresses: [{}]\n  conditions: {{ready: true}}", backend.ip());
    }
    text + "---\n"
}

const CLASS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: blixt
spec:
  controllerName: gateway.networking.k8s.io/blixt
---
";

fn gateways(routes: u32) -> String {
    let mut text = String::new();
    for route in 0..routes {
        let frontend = frontend(route);
        if route % LISTENERS == 0 {
            let _ = write!(
                text,
                "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: gateway-{}
spec:
  gatewayClassName: blixt
  addresses:
  - value: {}
  listeners:
",
                route / LISTENERS,
                frontend.ip()
            );
        }
        let port = frontend.port();
        let _ = writeln!(text, "  - name: tcp-{port}\n    protocol: TCP\n    port: {port}");
        if route % LISTENERS == LISTENERS - 1 || route + 1 == routes {
            text += "---\n";
        }
    }
    text
}

fn route_and_service(route: u32) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata:
  name: route-{route}
spec:
  parentRefs:
  - name: gateway-{gateway}
    sectionName: tcp-{port}
  rules:
  - backendRefs:
    - name: service-{route}
      port: 80
---
apiVersion: v1
kind: Service
metadata:
  name: service-{route}
spec:
  ports:
  - port: 80
    targetPort: {TARGET}
---
",
        gateway = route / LISTENERS,
        port = frontend(route).port(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_a_frontend_and_backends_of_its_own() {
        let frontends: std::collections::BTreeSet<_> = (0..LARGE).map(frontend).collect();
        let all: std::collections::BTreeSet<_> = (0..LARGE).flat_map(backends).collect();
        assert_eq!(frontends.len(), LARGE as usize);
        assert_eq!(all.len(), LARGE as usize * usize::from(NODES));
    }
}
