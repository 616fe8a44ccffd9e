use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use blixt_packet::abi::{Flow, FlowKey, Settings, V4, V6};

use super::{Explanation, Outcome, Tuple, explain};
use crate::compile::compile;
use crate::config::{Backend, Config, Endpoint, Forwarding, Frontend, Pool, Protocol, RouteName, Share};
use crate::host::{Device, Host, Mac, Path};
use crate::simulation::{Memory, NoMemory, Simulation};
use crate::tables::{Limits, Tables, Way};

#[test]
fn a_new_connection_is_explained_from_frontend_to_rewrite() {
    for (packet, rewritten) in [
        ("tcp 198.51.100.2:4242 > 192.0.2.99:80", "tcp 192.0.2.254:4242 > 192.0.2.1:8080"),
        ("tcp [2001:db8:9::2]:4242 > [2001:db8::99]:80", "tcp [2001:db8::254]:4242 > [2001:db8::1]:8080"),
    ] {
        let explanation = explained(packet, &config(&[1], Forwarding::Nat));
        assert_eq!(explanation.verdict, Outcome::Sent, "{explanation}");
        assert_eq!(explanation.rewritten.unwrap().to_string(), rewritten);
        let frontend = explanation.frontend.unwrap();
        assert_eq!(frontend.listener.as_deref(), Some("default/gateway/web"));
        assert_eq!(frontend.route.unwrap().name, "web");
        assert!(frontend.slot.unwrap() < 251);
        let backend = explanation.backend.unwrap();
        assert_eq!((backend.way, backend.share, backend.device), (Way::Nat, Some(251), Some(7)));
    }
}

#[test]
fn each_outcome_has_its_words() {
    let one = config(&[1], Forwarding::Nat);
    let none = config(&[], Forwarding::Nat);
    let transparent = config(&[1], Forwarding::Transparent);
    let local = config(&[200], Forwarding::Nat);
    let unreachable = config(&[250], Forwarding::Nat);
    for (packet, config, outcome, why) in [
        ("tcp 198.51.100.2:1 > 192.0.2.99:80", &one, Outcome::Sent, "a new connection"),
        ("tcp 198.51.100.2:1 > 192.0.2.99:80", &transparent, Outcome::Sent, "a new connection"),
        ("tcp 198.51.100.2:1 > 192.0.2.99:80", &local, Outcome::Delivered, "a new connection"),
        (
            "tcp 198.51.100.2:1 > 192.0.2.99:80",
            &none,
            Outcome::Refused,
            "no route with a backend that is ready",
        ),
        (
            "udp 198.51.100.2:1 > 192.0.2.99:80",
            &one,
            Outcome::Refused,
            "no listener has this port and protocol",
        ),
        ("tcp 198.51.100.2:1 > 192.0.2.254:22", &one, Outcome::Passed, "not Blixt's"),
        ("tcp 192.0.2.99:1 > 192.0.2.99:80", &one, Outcome::Dropped, "source and destination are the same"),
        ("tcp 198.51.100.2:1 > 192.0.2.99:80", &unreachable, Outcome::Dropped, "no way leads"),
    ] {
        let explanation = explained(packet, config);
        assert_eq!(explanation.verdict, outcome, "{packet}\n{explanation}");
        assert!(explanation.why.to_lowercase().contains(&why.to_lowercase()), "{packet}\n{explanation}");
    }
}

#[test]
fn the_client_keeps_its_address_where_it_can() {
    for (backend, forwarding) in [(1, Forwarding::Transparent), (200, Forwarding::Nat)] {
        let explanation = explained("tcp 198.51.100.2:4242 > 192.0.2.99:80", &config(&[backend], forwarding));
        let source = explanation.rewritten.unwrap().source;
        assert_eq!(source.to_string(), "198.51.100.2:4242", "backend {backend}");
    }
}

#[test]
fn an_established_connection_keeps_its_backend_when_the_ring_says_another() {
    let before = compiled(&config(&[1], Forwarding::Nat), &Tables::default());
    let tuple: Tuple = "tcp 198.51.100.2:4242 > 192.0.2.99:80".parse().unwrap();
    let memory = remembering(&tuple, &before);
    let many: Vec<u8> = (1..100).collect();
    let config = config(&many, Forwarding::Nat);
    let after = compiled(&config, &before);
    let explanation = explain(&tuple, &after, &config, &memory, Settings::DEFAULT);
    assert_eq!(explanation.backend.as_ref().unwrap().endpoint, "192.0.2.1:8080/tcp", "{explanation}");
    assert_eq!(explanation.flow.as_ref().unwrap().idle, 5);
    assert_eq!(explanation.frontend.unwrap().slot, None, "the ring was not asked");
    assert_eq!(explanation.why, "its connection is in the flow table");

    let reply: Tuple = "tcp 192.0.2.1:8080 > 192.0.2.254:4242".parse().unwrap();
    let explanation = explain(&reply, &after, &config, &memory, Settings::DEFAULT);
    assert_eq!(explanation.rewritten.unwrap().to_string(), "tcp 192.0.2.99:80 > 198.51.100.2:4242");
}

#[test]
fn an_explanation_is_the_same_after_a_journey_as_json() {
    let explanation =
        explained("tcp [2001:db8:9::2]:4242 > [2001:db8::99]:80", &config(&[1], Forwarding::Nat));
    let text = serde_json::to_string(&explanation).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), explanation);
}

#[test]
fn an_explanation_reads_well() {
    let explanation = explained("tcp 198.51.100.2:4242 > 192.0.2.99:80", &config(&[1], Forwarding::Nat));
    let slot = explanation.frontend.as_ref().unwrap().slot.unwrap();
    assert_eq!(
        explanation.to_string(),
        format!(
            "packet    tcp 198.51.100.2:4242 > 192.0.2.99:80\n\
             frontend  192.0.2.99:80/tcp, listener default/gateway/web\n\
             route     TCPRoute/default/web\n\
             ring      1, slot {slot} of 251\n\
             backend   192.0.2.1:8080/tcp, 100.0 % of the connections\n\
             way       full NAT: the backend sees this machine's address\n\
             rewritten tcp 192.0.2.254:4242 > 192.0.2.1:8080\n\
             verdict   sent: a new connection"
        )
    );
}

#[test]
fn words_that_name_no_packet_are_refused_with_the_form() {
    for (text, expected) in [
        ("", "packet ``: not of the form"),
        ("tcp 10.0.0.1:1", "not of the form `tcp 10.10.0.2:4242 > 10.99.0.1:80`"),
        ("sctp 10.0.0.1:1 > 10.0.0.2:2", "protocol `sctp`: neither tcp nor udp"),
        ("tcp 10.0.0.1 > 10.0.0.2:2", "source `10.0.0.1`: not an address and port"),
        ("tcp 10.0.0.1:1 > web:2", "destination `web:2`: not an address and port"),
        ("udp 10.0.0.1:1 > [::1]:2", "different address families"),
    ] {
        let error = text.parse::<Tuple>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let shown = "udp [fd00::2]:4242 > [fd00:99::1]:53";
    assert_eq!(format!("  {}", shown.to_uppercase()).parse::<Tuple>().unwrap().to_string(), shown);
}

fn explained(packet: &str, config: &Config) -> Explanation {
    let tables = compiled(config, &Tables::default());
    explain(&packet.parse().unwrap(), &tables, config, &NoMemory, Settings::DEFAULT)
}

fn compiled(config: &Config, previous: &Tables) -> Tables {
    compile(config, &host(), previous, &Limits::default()).tables
}

/// A listener on 192.0.2.99 and 2001:db8::99, port 80, with backends 192.0.2.N and 2001:db8::N.
fn config(numbers: &[u8], forwarding: Forwarding) -> Config {
    let mut config = Config::default();
    for (listener, backend) in
        [(IpAddr::from([192, 0, 2, 99]), v4 as fn(u8) -> IpAddr), (v6(0x99), v6 as fn(u8) -> IpAddr)]
    {
        let backends = numbers
            .iter()
            .map(|number| Backend { address: backend(*number), port: 8080, node: None })
            .collect();
        let frontend = Arc::new(Frontend {
            listener: "default/gateway/web".into(),
            route: Some(RouteName {
                kind: "TCPRoute".into(),
                namespace: "default".into(),
                name: "web".into(),
            }),
            forwarding,
            pool: Pool { shares: vec![Share { weight: 1, backends }], ..Pool::default() },
        });
        config.frontends.insert(Endpoint { address: listener, port: 80, protocol: Protocol::Tcp }, frontend);
        config.addresses.insert(listener);
    }
    config
}

/// One device; 1 to 199 are neighbours on it, 200 is the machine's own, there is no way to others.
fn host() -> Host {
    let device = Device {
        name: "eth0".to_owned(),
        mac: Mac([2; 6]),
        mtu: 1500,
        xdp_target: false,
        xdp_sender: false,
        of_host: false,
    };
    let mut host = Host { devices: [(7, device)].into(), ..Host::default() };
    for number in 1..=200 {
        for (address, source) in [(v4(number), v4(254)), (v6(number), "2001:db8::254".parse().unwrap())] {
            let path = Path { device: 7, next_hop: address, source, mtu: 1500, local: number == 200 };
            Arc::make_mut(&mut host.paths).insert(address, path);
            host.neighbours.insert((7, address), Mac([2, 0, 0, 0, 0, number]));
        }
    }
    host
}

fn v4(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn v6(number: u8) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)])
}

/// The flow table after a connection was begun 5 seconds ago.
struct Remembered(BTreeMap<FlowKey<V4>, Flow<V4>>);

fn remembering(tuple: &Tuple, tables: &Tables) -> Remembered {
    let simulation = Simulation::new(tables, &NoMemory, Settings::DEFAULT);
    let _ = simulation.enters(&mut super::packet::first(tuple, tables, None));
    let key: FlowKey<V4> = tuple.key().unwrap();
    let request = simulation.flow_of(&key).unwrap();
    let reply_key = request.opposite_key(key.protocol);
    let reply = simulation.flow_of(&reply_key).unwrap();
    Remembered([(key, request), (reply_key, reply)].into())
}

impl Memory for Remembered {
    fn now(&self) -> u32 {
        5
    }

    fn knows(&self, _: IpAddr) -> bool {
        true
    }

    fn flow_v4(&self, key: &FlowKey<V4>) -> Option<Flow<V4>> {
        self.0.get(key).copied()
    }

    fn flow_v6(&self, _: &FlowKey<V6>) -> Option<Flow<V6>> {
        None
    }
}
