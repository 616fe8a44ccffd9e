//! What a Config makes worth knowing of the machine. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use blixt_core::config::{Config, Pool, differing};
use blixt_loader::host::Interest;

/// How the change from one Config to another changes it: what both share is not looked at.
pub fn interest(last: &Config, config: &Config) -> Interest {
    let mut backends: BTreeMap<IpAddr, i32> = BTreeMap::new();
    for endpoint in differing(&last.frontends, &config.frontends) {
        for (config, pools) in [(last, -1), (config, 1)] {
            let pool = config.frontends.get(endpoint).map(|frontend| &frontend.pool);
            for backend in pool.into_iter().flat_map(Pool::backends) {
                *backends.entry(backend.address).or_default() += pools;
            }
        }
    }
    Interest { backends, addresses: config.addresses.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blixt_core::config::{Backend, Endpoint, Forwarding, Frontend, Protocol, Share};

    use super::*;

    #[test]
    fn changes_add_up_to_the_pools_that_an_address_is_in() {
        let mut last = Config::default();
        let mut sum: BTreeMap<IpAddr, i32> = BTreeMap::new();
        for (pools, expected) in [
            (&[&[1, 2][..], &[2, 3]][..], &[(1, 1), (2, 2), (3, 1)][..]),
            (&[&[1, 2], &[3]], &[(1, 1), (2, 1), (3, 1)]),
            (&[&[4, 2], &[3]], &[(2, 1), (3, 1), (4, 1)]),
            (&[&[4, 2]], &[(2, 1), (4, 1)]),
            (&[&[], &[4]], &[(4, 1)]),
            (&[], &[]),
        ] {
            let config = config(pools);
            for (address, pools) in interest(&last, &config).backends {
                *sum.entry(address).or_default() += pools;
            }
            sum.retain(|_, pools| *pools != 0);
            let expected = expected.iter().map(|(number, pools)| (address(*number), *pools));
            assert_eq!(sum, expected.collect(), "{pools:?}");
            last = config;
        }
    }

    fn config(pools: &[&[u8]]) -> Config {
        let backend = |number: &u8| Backend { address: address(*number), port: 80, node: None };
        let frontend = |(port, numbers): (u16, &&[u8])| {
            let share = Share { weight: 1, backends: numbers.iter().map(backend).collect() };
            let frontend = Frontend {
                listener: "default/web/http".into(),
                route: None,
                forwarding: Forwarding::Nat,
                pool: Pool { shares: vec![share], ..Pool::default() },
            };
            (Endpoint { address: address(0), port, protocol: Protocol::Tcp }, Arc::new(frontend))
        };
        Config { frontends: (1..).zip(pools).map(frontend).collect(), ..Config::default() }
    }

    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }
}
