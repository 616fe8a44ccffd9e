//! What the data plane should do, the same for every node. Equal Configs mean that nothing is to be sent.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The wanted state of every node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    /// Every frontend, by what a client dials.
    pub frontends: BTreeMap<Endpoint, Arc<Frontend>>,
    /// Every address that a Gateway holds, with or without frontends. Which of them only Blixt owns
    /// depends on the machine: `compile` decides it.
    pub addresses: BTreeSet<IpAddr>,
}

/// An address, port and protocol: of a frontend or of a backend. Shown as `10.0.0.1:80/tcp`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port, host order.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A protocol that Blixt balances.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
}

/// What is served at an endpoint that clients dial.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Frontend {
    /// The listener that asked for it, for people: `default/gateway/listener`.
    pub listener: SmolStr,
    /// The route that serves it; without one every connection is refused.
    pub route: Option<RouteName>,
    /// How packets reach backends that are not on the node itself.
    pub forwarding: Forwarding,
    /// Who gets the connections.
    pub pool: Pool,
}

/// A route, by kind, namespace and name. Shown as `TCPRoute/default/web`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RouteName {
    /// `TCPRoute`, `UDPRoute`, ...
    pub kind: SmolStr,
    /// Its namespace.
    pub namespace: SmolStr,
    /// Its name.
    pub name: SmolStr,
}

/// Whether full NAT hides the client's address from backends elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Forwarding {
    /// Both addresses are rewritten: works with any backend.
    #[default]
    Nat,
    /// The client's address is kept: the backend's route leads back through the balancer.
    Transparent,
}

/// The weighted backends of one frontend.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Pool {
    /// One share for each backendRef with a weight above 0.
    pub shares: Vec<Share>,
    /// Backends that take nothing new and keep their TCP connections: each once, in order.
    pub draining: Box<[Backend]>,
}

/// The part of the connections that one backendRef gets, divided evenly among its backends.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Share {
    /// Relative to the other shares of the pool, at least 1.
    pub weight: u32,
    /// Who takes the connections: each once, in order; empty: they are refused.
    pub backends: Box<[Backend]>,
}

/// One address and port that gets packets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port, host order.
    pub port: u16,
    /// The node that it runs on, where its EndpointSlice names one.
    pub node: Option<SmolStr>,
}

/// The number of a Config, as one source counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl Config {
    /// Every frontend, in order.
    pub fn frontends(&self) -> impl Iterator<Item = (&Endpoint, &Frontend)> {
        self.frontends.iter().map(|(endpoint, frontend)| (endpoint, &**frontend))
    }

    /// The same, sharing with the last one what did not change: it may be kept for some time yet.
    #[must_use]
    pub fn sharing(mut self, last: &Self) -> Self {
        for (endpoint, frontend) in &mut self.frontends {
            if let Some(known) = last.frontends.get(endpoint).filter(|known| *known == frontend) {
                *frontend = Arc::clone(known);
            }
        }
        self
    }
}

impl Pool {
    /// Everyone in it, some perhaps more than once.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.shares.iter().flat_map(|share| &share.backends).chain(&self.draining)
    }

    /// How many of a hundred new connections shares of this weight get, taken together.
    pub fn percent(&self, weight: u64) -> f64 {
        let total: u64 = self.shares.iter().map(|share| u64::from(share.weight)).sum();
        if total == 0 { 0.0 } else { 100.0 * weight as f64 / total as f64 }
    }
}

impl Protocol {
    /// The number in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The protocol of a number in the IP header, if Blixt balances it.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.address, self.port), self.protocol)
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// The keys under which the two do not hold the same. What they share is not looked at.
pub fn differing<'a, K: Ord, V: PartialEq>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> Vec<&'a K> {
    let (mut left, mut right) = (a.iter().peekable(), b.iter().peekable());
    let mut keys = Vec::new();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return keys,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let a = left.next_if(|_| order.is_le());
        let b = right.next_if(|_| order.is_ge());
        if a != b {
            keys.extend(a.or(b).map(|(key, _)| key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_change_is_shared_with_the_config_before() {
        let config = |ports: [u16; 2]| {
            let frontend = |port| {
                let backend = Backend { address: [10, 0, 0, 1].into(), port, node: None };
                let share = Share { weight: 1, backends: [backend].into() };
                let pool = Pool { shares: vec![share], ..Pool::default() };
                Arc::new(Frontend {
                    listener: "a/b/c".into(),
                    route: None,
                    forwarding: Forwarding::Nat,
                    pool,
                })
            };
            let endpoint = |port| Endpoint { address: [192, 0, 2, 1].into(), port, protocol: Protocol::Tcp };
            let frontends =
                [1, 2].into_iter().zip(ports).map(|(port, target)| (endpoint(port), frontend(target)));
            Config { frontends: frontends.collect(), ..Config::default() }
        };
        let (last, next) = (config([80, 81]), config([80, 82]));
        let shared = next.clone().sharing(&last);
        assert_eq!(shared, next);
        let is_shared = |(a, b): (&Arc<Frontend>, &Arc<Frontend>)| Arc::ptr_eq(a, b);
        let all = shared.frontends.values().zip(last.frontends.values());
        assert_eq!(all.map(is_shared).collect::<Vec<_>>(), [true, false]);
    }
}
