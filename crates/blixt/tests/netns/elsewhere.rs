//! An address of each family that two machines have: whoever the balancer's route names answers.

use std::net::IpAddr;

use blixt_lab::{Family, Lab, Server, address};

use crate::manifests::{Endpoint, State, TARGET};
use crate::world::{World, at};

/// The addresses, and who answers at them: "first" behind network 1, "second" behind network 2.
pub struct Elsewhere {
    addresses: [IpAddr; 2],
    _servers: Vec<Server>,
}

impl Elsewhere {
    /// The route leads to the first one.
    pub fn new(world: &World) -> Self {
        let addresses = Family::ALL.map(|family| address(family, 50, Lab::OTHER));
        let [v4, v6] = addresses;
        let machines = world.lab.backends[..2].iter().zip(["first", "second"]);
        let servers = machines.map(|(machine, name)| {
            machine.ip(&format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad")).unwrap();
            Server::start(machine, name, &addresses.map(|address| at(address, TARGET))).unwrap()
        });
        let elsewhere = Self { addresses, _servers: servers.collect() };
        elsewhere.route(world, "add", 1);
        elsewhere
    }

    /// The route leads to the second one.
    pub fn moves(&self, world: &World) {
        self.route(world, "replace", 2);
    }

    /// Both as endpoints that are ready.
    pub fn endpoints(&self) -> [Endpoint; 2] {
        self.addresses.map(|address| Endpoint { address, state: State::Ready })
    }

    fn route(&self, world: &World, verb: &str, network: u8) {
        for (family, elsewhere) in Family::ALL.into_iter().zip(self.addresses) {
            let via = address(family, network, Lab::OTHER);
            world.lab.balancer.ip(&format!("route {verb} {elsewhere} via {via}")).unwrap();
        }
    }
}
