//! What the instance is told: some of it stays, some changes all the time.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use blixt_lab::{Family, Lab, address};

use crate::stage::Stage;

/// The port that backends serve on.
pub const TARGET: u16 = 8080;
/// Backends, numbered from 1.
pub const BACKENDS: u8 = 3;
/// Listeners that come and go.
pub const VISITORS: std::ops::Range<u16> = 90..98;

/// A frontend's port, and what is done to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Front {
    /// Nothing: three backends, always.
    Steady,
    /// Its backends come and go.
    Members,
    /// Weights change.
    Weights,
    /// Nothing; of the class that keeps the client's address.
    Kept,
    /// It comes and goes itself.
    Visitor(u16),
}

/// What changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// The backends of [`Front::Members`], never none.
    pub members: Vec<u8>,
    /// The weight of each backend at [`Front::Weights`], never all 0.
    pub weights: [u8; BACKENDS as usize],
    /// The listeners that are there.
    pub visitors: Vec<u16>,
}

impl Front {
    /// What a client dials.
    pub fn place(self, family: Family) -> SocketAddr {
        let (number, port) = match self {
            Self::Steady => (1, 80),
            Self::Members => (1, 81),
            Self::Weights => (1, 82),
            Self::Kept => (2, 80),
            Self::Visitor(port) => (1, port),
        };
        SocketAddr::new(gateway_address(family, number), port)
    }
}

fn gateway_address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 99, 0, number].into(),
        Family::V6 => [0xfd00, 0x99, 0, 0, 0, 0, 0, number.into()].into(),
    }
}

impl State {
    /// As it is at the beginning, and again at the end.
    pub fn first() -> Self {
        Self {
            members: (1..=BACKENDS).collect(),
            weights: [1, 2, 1],
            visitors: VISITORS.step_by(2).collect(),
        }
    }

    /// Another one.
    pub fn random(random: &mut fastrand::Rng) -> Self {
        let mut members: Vec<u8> = (1..=BACKENDS).filter(|_| random.bool()).collect();
        if members.is_empty() {
            members.push(random.u8(1..=BACKENDS));
        }
        let mut weights = [(); BACKENDS as usize].map(|()| random.u8(0..4));
        if weights == [0; BACKENDS as usize] {
            weights[random.usize(0..weights.len())] = 1;
        }
        Self { members, weights, visitors: VISITORS.filter(|_| random.bool()).collect() }
    }

    /// Listeners, TCP and UDP, of both families.
    pub fn frontends(&self) -> usize {
        (4 + self.visitors.len()) * 2 * Family::ALL.len()
    }

    /// Writes all of it; what stays as it was is not written anew.
    pub fn write(&self, stage: &Stage) -> Result<()> {
        let all: Vec<u8> = (1..=BACKENDS).collect();
        let mut listeners = vec![80, 81, 82];
        listeners.extend(&self.visitors);
        let mut text = class("blixt", "Nat") + &class("kept", "Transparent");
        text += &gateway("soak", "blixt", 1, &listeners);
        text += &gateway("kept", "kept", 2, &[80]);
        stage.write("gateways.yaml", &text)?;

        let weights: Vec<(String, u8)> =
            all.iter().map(|number| (single(*number), self.weights[usize::from(*number) - 1])).collect();
        let mut text = route("steady", "soak", 80, &[("steady".to_owned(), 1)]);
        text += &route("kept", "kept", 80, &[("steady".to_owned(), 1)]);
        text += &route("members", "soak", 81, &[("members".to_owned(), 1)]);
        text += &route("weights", "soak", 82, &weights);
        for port in &self.visitors {
            text += &route(&format!("visitor-{port}"), "soak", *port, &[("steady".to_owned(), 1)]);
        }
        stage.write("routes.yaml", &text)?;

        stage.write("steady.yaml", &service("steady", &all))?;
        stage.write(
            "singles.yaml",
            &all.iter().map(|number| service(&single(*number), &[*number])).collect::<String>(),
        )?;
        stage.write("members.yaml", &service("members", &self.members))?;
        Ok(())
    }
}

fn single(number: u8) -> String {
    format!("single-{number}")
}

fn class(name: &str, forwarding: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: {name}}}
spec:
  controllerName: gateway.networking.k8s.io/blixt
  parametersRef: {{group: blixt.dev, kind: BlixtClass, name: {name}}}
---
apiVersion: blixt.dev/v1alpha1
kind: BlixtClass
metadata: {{name: {name}}}
spec: {{forwarding: {forwarding}}}
---
"
    )
}

fn gateway(name: &str, class: &str, number: u8, ports: &[u16]) -> String {
    let [v4, v6] = Family::ALL.map(|family| gateway_address(family, number));
    let mut text = format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: {class}
  addresses: [{{value: \"{v4}\"}}, {{value: \"{v6}\"}}]
  listeners:
"
    );
    for port in ports {
        for protocol in ["TCP", "UDP"] {
            let section = section(protocol, *port);
            let _ = writeln!(text, "  - {{name: {section}, protocol: {protocol}, port: {port}}}");
        }
    }
    text + "---\n"
}

fn section(protocol: &str, port: u16) -> String {
    format!("{}-{port}", protocol.to_lowercase())
}

fn route(name: &str, gateway: &str, port: u16, services: &[(String, u8)]) -> String {
    let mut text = String::new();
    for protocol in ["TCP", "UDP"] {
        let section = section(protocol, port);
        let _ = write!(
            text,
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: {protocol}Route
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: {gateway}, sectionName: {section}}}]
  rules:
  - backendRefs:
"
        );
        for (service, weight) in services {
            let _ = writeln!(text, "    - {{name: {service}, port: 80, weight: {weight}}}");
        }
        text += "---\n";
    }
    text
}

fn service(name: &str, backends: &[u8]) -> String {
    let mut text = format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  ports:
  - {{name: tcp, protocol: TCP, port: 80, targetPort: {TARGET}}}
  - {{name: udp, protocol: UDP, port: 80, targetPort: {TARGET}}}
---
"
    );
    for (family, kind, suffix) in [(Family::V4, "IPv4", "v4"), (Family::V6, "IPv6", "v6")] {
        let _ = write!(
            text,
            "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-{suffix}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: {kind}
ports:
- {{name: tcp, protocol: TCP, port: {TARGET}}}
- {{name: udp, protocol: UDP, port: {TARGET}}}
endpoints:
"
        );
        for backend in backends {
            let _ = writeln!(text, "- addresses: [\"{}\"]", address(family, *backend, Lab::OTHER));
        }
        text += "---\n";
    }
    text
}
