//! The types of the wire to ours and back.

use std::net::IpAddr;

use blixt_core::config::{Backend, Endpoint, Forwarding, Frontend, Pool, Protocol, RouteName, Share};

use super::proto;

/// A message that no controller or agent of ours sends.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} {fault}: controller and agents must be of versions that go together")]
pub struct Malformed {
    field: &'static str,
    fault: String,
}

impl Malformed {
    /// What is wrong with a field.
    pub(super) fn new(field: &'static str, fault: impl Into<String>) -> Self {
        Self { field, fault: fault.into() }
    }
}

/// An address, 4 or 16 bytes.
pub(super) fn address(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| sixteen()).map_err(|_| Malformed::new("address", format!("has {} bytes", bytes.len())))
}

/// The bytes of an address.
pub(super) fn address_bytes(address: IpAddr) -> tonic::codegen::Bytes {
    match address {
        IpAddr::V4(address) => address.octets().to_vec().into(),
        IpAddr::V6(address) => address.octets().to_vec().into(),
    }
}

fn port(port: u32) -> Result<u16, Malformed> {
    u16::try_from(port).map_err(|_| Malformed::new("port", format!("is {port}")))
}

impl From<&Endpoint> for proto::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        let Endpoint { address, port, protocol } = *endpoint;
        Self { address: address_bytes(address), port: port.into(), protocol: protocol.number().into() }
    }
}

impl TryFrom<proto::Endpoint> for Endpoint {
    type Error = Malformed;

    fn try_from(wire: proto::Endpoint) -> Result<Self, Malformed> {
        let protocol = u8::try_from(wire.protocol).ok().and_then(Protocol::from_number);
        Ok(Self {
            address: address(&wire.address)?,
            port: port(wire.port)?,
            protocol: protocol.ok_or_else(|| Malformed::new("protocol", format!("is {}", wire.protocol)))?,
        })
    }
}

impl From<&Backend> for proto::Backend {
    fn from(backend: &Backend) -> Self {
        let Backend { address, port, node } = backend;
        Self {
            address: address_bytes(*address),
            port: (*port).into(),
            node: node.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<proto::Backend> for Backend {
    type Error = Malformed;

    fn try_from(wire: proto::Backend) -> Result<Self, Malformed> {
        Ok(Self { address: address(&wire.address)?, port: port(wire.port)?, node: wire.node.map(Into::into) })
    }
}

/// A frontend as one message.
pub(super) fn frontend_message(endpoint: &Endpoint, frontend: &Frontend) -> proto::Frontend {
    let Frontend { listener, route, forwarding, pool: Pool { shares, draining } } = frontend;
    let backends = |backends: &[Backend]| backends.iter().map(Into::into).collect();
    proto::Frontend {
        endpoint: Some(endpoint.into()),
        listener: listener.to_string(),
        route: route.as_ref().map(|RouteName { kind, namespace, name }| proto::RouteName {
            kind: kind.to_string(),
            namespace: namespace.to_string(),
            name: name.to_string(),
        }),
        forwarding: match forwarding {
            Forwarding::Nat => proto::Forwarding::Nat,
            Forwarding::Transparent => proto::Forwarding::Transparent,
        }
        .into(),
        shares: shares
            .iter()
            .map(|Share { weight, backends: members }| proto::Share {
                weight: *weight,
                backends: backends(members),
            })
            .collect(),
        draining: backends(draining),
    }
}

/// The frontend of a message.
pub(super) fn frontend(wire: proto::Frontend) -> Result<(Endpoint, Frontend), Malformed> {
    let forwarding = match wire.forwarding() {
        proto::Forwarding::Nat => Forwarding::Nat,
        proto::Forwarding::Transparent => Forwarding::Transparent,
    };
    let endpoint = wire.endpoint.ok_or_else(|| Malformed::new("endpoint", "is missing"))?.try_into()?;
    let backends =
        |wire: Vec<proto::Backend>| wire.into_iter().map(Backend::try_from).collect::<Result<_, _>>();
    let shares = wire.shares.into_iter().map(|share| {
        if share.weight == 0 {
            return Err(Malformed::new("weight", "is 0"));
        }
        Ok(Share { weight: share.weight, backends: backends(share.backends)? })
    });
    let pool = Pool { shares: shares.collect::<Result<_, _>>()?, draining: backends(wire.draining)? };
    let route = wire.route.map(|proto::RouteName { kind, namespace, name }| RouteName {
        kind: kind.into(),
        namespace: namespace.into(),
        name: name.into(),
    });
    Ok((endpoint, Frontend { listener: wire.listener.into(), route, forwarding, pool }))
}
