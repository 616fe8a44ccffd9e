//! A Config in parts: whole for who knows nothing yet, else what changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use blixt_core::config::{Config, Endpoint, Frontend, Generation};
use prost::Message;

use super::proto;
use super::wire::{self, Malformed};

pub use super::proto::ConfigPart;

/// A part is closed once it has so many bytes: far below what gRPC takes, far above what one frontend needs.
const PART: usize = 256 << 10;

/// The parts that lead from one Config to another; without one, the whole of it. The last carries the generation.
pub fn parts(from: Option<&Config>, to: &Config, generation: Generation) -> Vec<ConfigPart> {
    let nothing = BTreeMap::new();
    let known = from.map_or(&nothing, |config| &config.frontends);
    let mut parts = vec![ConfigPart { whole: from.is_none(), ..ConfigPart::default() }];
    let mut size = 0;
    let mut room = |parts: &mut Vec<ConfigPart>, more: usize| {
        size += more;
        if size > PART {
            size = more;
            parts.push(ConfigPart::default());
        }
    };
    for (endpoint, frontend) in &to.frontends {
        if known.get(endpoint).is_some_and(|known| is_same(known, frontend)) {
            continue;
        }
        let message = wire::frontend_message(endpoint, frontend);
        room(&mut parts, message.encoded_len());
        last(&mut parts).frontends.push(message);
    }
    for endpoint in known.keys().filter(|endpoint| !to.frontends.contains_key(endpoint)) {
        let message = proto::Endpoint::from(endpoint);
        room(&mut parts, message.encoded_len());
        last(&mut parts).removed.push(message);
    }
    let end = last(&mut parts);
    end.addresses = to.addresses.iter().copied().map(wire::address_bytes).collect();
    end.generation = Some(generation.0);
    parts
}

/// Frontends that did not change are mostly the very same.
fn is_same(a: &Arc<Frontend>, b: &Arc<Frontend>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn last(parts: &mut [ConfigPart]) -> &mut ConfigPart {
    parts.last_mut().expect("there is a part from the beginning")
}

/// Puts parts together. What is not closed by a generation is nobody's Config.
#[derive(Debug, Default)]
pub struct Assembly {
    frontends: BTreeMap<Endpoint, Arc<Frontend>>,
}

impl Assembly {
    /// Takes a part in; with a generation, gives the Config.
    pub fn add(&mut self, part: ConfigPart) -> Result<Option<(Config, Generation)>, Malformed> {
        let ConfigPart { whole, frontends, removed, addresses, generation } = part;
        if whole {
            self.frontends.clear();
        }
        for message in frontends {
            let (endpoint, frontend) = wire::frontend(message)?;
            self.frontends.insert(endpoint, Arc::new(frontend));
        }
        for endpoint in removed {
            self.frontends.remove(&Endpoint::try_from(endpoint)?);
        }
        let Some(generation) = generation else { return Ok(None) };
        let addresses = addresses.iter().map(|bytes| wire::address(bytes)).collect::<Result<_, _>>()?;
        Ok(Some((Config { frontends: self.frontends.clone(), addresses }, Generation(generation))))
    }
}

#[cfg(test)]
mod tests {
    use blixt_core::config::{Backend, Forwarding, Pool, Protocol, RouteName, Share};

    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { address: [10, 0, 0, 1].into(), port, protocol: Protocol::Tcp }
    }

    fn frontend(backends: u16) -> Arc<Frontend> {
        let backend = |last: u16| Backend {
            address: std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into(),
            port: 8080,
            node: last.is_multiple_of(2).then(|| "node1".into()),
        };
        let pool = Pool {
            shares: vec![
                Share { weight: 7, backends: (0..backends).map(backend).collect() },
                Share { weight: 1, backends: Box::default() },
            ],
            draining: [backend(9999)].into(),
        };
        let route = Some(RouteName { kind: "TCPRoute".into(), namespace: "a".into(), name: "b".into() });
        Arc::new(Frontend { listener: "a/b/c".into(), route, forwarding: Forwarding::Transparent, pool })
    }

    fn config(ports: impl Iterator<Item = u16>, backends: u16) -> Config {
        Config {
            frontends: ports.map(|port| (endpoint(port), frontend(backends))).collect(),
            addresses: [[10, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()].into(),
        }
    }

    /// Puts parts together that went over the wire.
    fn assemble(assembly: &mut Assembly, parts: Vec<ConfigPart>) -> Option<(Config, Generation)> {
        let mut closed = None;
        for part in parts {
            assert!(part.encoded_len() < super::super::LONGEST_MESSAGE / 2, "{}", part.encoded_len());
            assert!(closed.is_none(), "a part follows the last one");
            closed = assembly.add(ConfigPart::decode(part.encode_to_vec().as_slice()).unwrap()).unwrap();
        }
        closed
    }

    #[test]
    fn a_whole_config_of_a_hundred_thousand_endpoints_arrives_in_parts() {
        let config = config(0..1000, 100);
        let parts = parts(None, &config, Generation(7));
        assert!(parts.len() > 5, "{}", parts.len());
        assert_eq!(assemble(&mut Assembly::default(), parts), Some((config, Generation(7))));
    }

    #[test]
    fn a_change_sends_what_changed_and_nothing_else() {
        let first = config(0..1000, 2);
        let mut second = first.clone();
        second.frontends.insert(endpoint(500), frontend(3));
        second.frontends.insert(endpoint(5000), frontend(1));
        second.frontends.remove(&endpoint(7));
        second.addresses.clear();
        let mut assembly = Assembly::default();
        assemble(&mut assembly, parts(None, &first, Generation(1)));
        let changed = parts(Some(&first), &second, Generation(2));
        assert_eq!((changed.len(), changed[0].frontends.len(), changed[0].removed.len()), (1, 2, 1));
        assert_eq!(assemble(&mut assembly, changed), Some((second, Generation(2))));
    }

    #[test]
    fn a_new_stream_forgets_what_an_old_one_began() {
        let mut assembly = Assembly::default();
        let mut begun = parts(None, &config(0..3, 1), Generation(1));
        begun[0].generation = None;
        assert_eq!(assemble(&mut assembly, begun), None);
        let other = config(5..6, 1);
        assert_eq!(assemble(&mut assembly, parts(None, &other, Generation(2))), Some((other, Generation(2))));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let good = || wire::frontend_message(&endpoint(80), &frontend(1));
        let bad: [fn(&mut proto::Frontend); 5] = [
            |frontend| frontend.endpoint = None,
            |frontend| frontend.endpoint.as_mut().unwrap().address = vec![1, 2, 3].into(),
            |frontend| frontend.endpoint.as_mut().unwrap().port = 65536,
            |frontend| frontend.endpoint.as_mut().unwrap().protocol = 132,
            |frontend| frontend.shares[0].weight = 0,
        ];
        for spoil in bad {
            let mut message = good();
            spoil(&mut message);
            let part = ConfigPart { frontends: vec![message], ..ConfigPart::default() };
            assert!(Assembly::default().add(part.clone()).is_err(), "{part:?}");
        }
    }
}
