//! Manifests as values, so that a test changes one field and not a text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use blixt_lab::{Family, Lab, Protocol, address};

/// Everything that a world's Blixt is told.
#[derive(Clone)]
pub struct Manifests {
    /// `spec.forwarding` of the class.
    pub forwarding: &'static str,
    pub gateways: Vec<Gateway>,
    pub routes: Vec<Route>,
    pub services: Vec<Service>,
}

#[derive(Clone)]
pub struct Gateway {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub listeners: Vec<Listener>,
}

/// A listener; its name is its port with its protocol, `tcp-80`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    pub protocol: Protocol,
    pub port: u16,
}

/// A route of a Gateway's listener to Services by weight.
#[derive(Clone)]
pub struct Route {
    pub name: String,
    pub gateway: String,
    pub listener: Listener,
    pub backends: Vec<(String, Option<u32>)>,
}

/// A Service with port 80 of TCP and UDP, and its endpoints.
#[derive(Clone)]
pub struct Service {
    pub name: String,
    pub endpoints: Vec<Endpoint>,
    /// The node that all of them are on, if they are pods.
    pub node: Option<&'static str>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub state: State,
}

/// The conditions of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ready,
    NotReady,
    /// Terminating, and serving still.
    Terminating,
}

/// The port that servers listen on.
pub const TARGET: u16 = 8080;
/// The port of the listeners.
pub const PORT: u16 = 80;

/// The address that only Blixt owns, routed to it.
pub fn owned(family: Family) -> IpAddr {
    match family {
        Family::V4 => "10.99.0.1".parse().unwrap(),
        Family::V6 => "fd00:99::1".parse().unwrap(),
    }
}

impl Manifests {
    /// One Gateway `lab` at the owned addresses of both families, with TCP and UDP on port 80, balanced over the
    /// Service `web` with all three backends.
    pub fn usual() -> Self {
        let listeners = Protocol::ALL.map(|protocol| Listener { protocol, port: PORT });
        Self {
            forwarding: "Nat",
            gateways: vec![Gateway {
                name: "lab".to_owned(),
                addresses: Family::ALL.map(owned).to_vec(),
                listeners: listeners.to_vec(),
            }],
            routes: listeners.map(|listener| Route::new("lab", listener, &["web"])).to_vec(),
            services: vec![Service::new("web", &[1, 2, 3])],
        }
    }

    /// The usual ones, with a Service `one`, `two`, `three` for each backend and these weights.
    pub fn weighted(weights: [Option<u32>; 3]) -> Self {
        let mut manifests = Self::usual();
        let names = ["one", "two", "three"];
        manifests.services =
            names.iter().zip(1..).map(|(name, network)| Service::new(name, &[network])).collect();
        let backends = names.iter().zip(weights).map(|(name, weight)| ((*name).to_owned(), weight));
        for route in &mut manifests.routes {
            route.backends = backends.clone().collect();
        }
        manifests
    }

    /// One file for each object, by name.
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        files.insert("class.yaml".to_owned(), self.class());
        for gateway in &self.gateways {
            files.insert(format!("gateway-{}.yaml", gateway.name), gateway.yaml());
        }
        for route in &self.routes {
            files.insert(format!("route-{}.yaml", route.name), route.yaml());
        }
        for service in &self.services {
            files.insert(format!("service-{}.yaml", service.name), service.yaml());
            for family in Family::ALL {
                files
                    .insert(format!("slice-{}-{}.yaml", service.name, suffix(family)), service.slice(family));
            }
        }
        files
    }

    /// The endpoints of a backend's network, of both families.
    pub fn endpoints(&mut self, network: u8) -> impl Iterator<Item = &mut Endpoint> {
        let addresses = Family::ALL.map(|family| address(family, network, Lab::OTHER));
        let endpoints = self.services.iter_mut().flat_map(|service| &mut service.endpoints);
        endpoints.filter(move |endpoint| addresses.contains(&endpoint.address))
    }

    /// Takes the endpoints of a backend's network away.
    pub fn remove(&mut self, network: u8) {
        let addresses = Family::ALL.map(|family| address(family, network, Lab::OTHER));
        for service in &mut self.services {
            service.endpoints.retain(|endpoint| !addresses.contains(&endpoint.address));
        }
    }

    fn class(&self) -> String {
        format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: blixt
spec:
  controllerName: gateway.networking.k8s.io/blixt
  parametersRef:
    group: blixt.dev
    kind: BlixtClass
    name: blixt
---
apiVersion: blixt.dev/v1alpha1
kind: BlixtClass
metadata:
  name: blixt
spec:
  forwarding: {}
",
            self.forwarding
        )
    }
}

impl Gateway {
    fn yaml(&self) -> String {
        let mut yaml = format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: {}
  namespace: default
spec:
  gatewayClassName: blixt
  addresses:
",
            self.name
        );
        for address in &self.addresses {
            let _ = write!(yaml, "  - type: IPAddress\n    value: \"{address}\"\n");
        }
        yaml.push_str("  listeners:\n");
        for listener in &self.listeners {
            let protocol = listener.protocol.to_string().to_uppercase();
            let _ = write!(
                yaml,
                "  - name: {}\n    protocol: {protocol}\n    port: {}\n",
                listener.name(),
                listener.port
            );
        }
        yaml
    }
}

impl Listener {
    pub fn name(self) -> String {
        format!("{}-{}", self.protocol, self.port)
    }
}

impl Route {
    /// A route of a Gateway's listener to Services of equal weight; it has the listener's name.
    pub fn new(gateway: &str, listener: Listener, services: &[&str]) -> Self {
        Self {
            name: listener.name(),
            gateway: gateway.to_owned(),
            listener,
            backends: services.iter().map(|service| ((*service).to_owned(), None)).collect(),
        }
    }

    fn yaml(&self) -> String {
        let kind = match self.listener.protocol {
            Protocol::Tcp => "TCPRoute",
            Protocol::Udp => "UDPRoute",
        };
        let mut yaml = format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata:
  name: {}
  namespace: default
spec:
  parentRefs:
  - name: {}
    sectionName: {}
  rules:
  - backendRefs:
",
            self.name,
            self.gateway,
            self.listener.name()
        );
        for (service, weight) in &self.backends {
            let _ = write!(yaml, "    - name: {service}\n      port: 80\n");
            if let Some(weight) = weight {
                let _ = writeln!(yaml, "      weight: {weight}");
            }
        }
        yaml
    }
}

impl Service {
    /// A Service with the backends of these networks, of both families, ready.
    pub fn new(name: &str, networks: &[u8]) -> Self {
        let endpoints = networks.iter().flat_map(|network| {
            Family::ALL.map(|family| Endpoint {
                address: address(family, *network, Lab::OTHER),
                state: State::Ready,
            })
        });
        Self { name: name.to_owned(), endpoints: endpoints.collect(), node: None }
    }

    fn yaml(&self) -> String {
        format!(
            "\
apiVersion: v1
kind: Service
metadata:
  name: {}
  namespace: default
spec:
  ports:
  - name: tcp
    protocol: TCP
    port: 80
    targetPort: {TARGET}
  - name: udp
    protocol: UDP
    port: 80
    targetPort: {TARGET}
",
            self.name
        )
    }

    fn slice(&self, family: Family) -> String {
        let mut yaml = format!(
            "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-{suffix}
  namespace: default
  labels:
    kubernetes.io/service-name: {name}
addressType: IP{suffix}
ports:
- name: tcp
  protocol: TCP
  port: {TARGET}
- name: udp
  protocol: UDP
  port: {TARGET}
endpoints:
",
            name = self.name,
            suffix = suffix(family)
        );
        let endpoints: Vec<_> = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.address.is_ipv4() == (family == Family::V4))
            .collect();
        if endpoints.is_empty() {
            return yaml.replace("endpoints:\n", "endpoints: []\n");
        }
        for endpoint in endpoints {
            let (ready, serving, terminating) = match endpoint.state {
                State::Ready => (true, true, false),
                State::NotReady => (false, false, false),
                State::Terminating => (false, true, true),
            };
            let _ = write!(
                yaml,
                "\
- addresses: [\"{}\"]
  conditions:
    ready: {ready}
    serving: {serving}
    terminating: {terminating}
",
                endpoint.address
            );
            if let Some(node) = self.node {
                let _ = writeln!(yaml, "  nodeName: {node}");
            }
        }
        yaml
    }
}

const fn suffix(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}
