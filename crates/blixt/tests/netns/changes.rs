//! Changes under load: what stays is not cut, what goes is ended, nothing new is refused in between.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use blixt_lab::{
    Attempt, Busy, BusyConnection, Churn, Failure, Family, Protocol, address, connect, exchange_on,
};

use crate::balancing::{everything, udp_socket};
use crate::manifests::{Endpoint, Listener, Manifests, Route, Service, State, TARGET};
use crate::world::{Hook, PATIENCE, World, at, until, vip};

on_both_hooks!(
    adding_a_backend_under_load_cuts_and_refuses_nothing,
    removing_a_backend_under_load_ends_only_its_own_connections,
    changing_weights_under_load_cuts_and_refuses_nothing,
    adding_and_removing_routes_and_listeners_under_load_leaves_the_others_alone,
    a_removed_backends_udp_flows_move,
    a_terminating_backend_keeps_its_tcp_and_gets_nothing_new,
    a_backend_that_is_not_ready_any_more_keeps_its_tcp,
    terminating_backends_take_new_connections_when_there_are_no_others,
    a_removed_listener_ends_its_connections,
    a_client_that_only_listens_hears_that_its_listener_is_gone,
);

/// Busy connections and new ones, all the time, over one family each.
struct Load {
    busy: Vec<Busy>,
    churn: Vec<Churn>,
}

/// How long changes may take to be in force before new connections are judged by them.
pub const IN_FORCE: Duration = Duration::from_secs(1);

fn adding_a_backend_under_load_cuts_and_refuses_nothing(hook: Hook) {
    let mut world = World::usual(hook);
    world.change(|manifests| manifests.remove(3));
    until("backend-3 gets nothing", || without(&world, "backend-3"));
    let load = Load::start(&world);
    world.change(|manifests| manifests.services = Manifests::usual().services);
    until("backend-3 gets connections", || load.answered_by("backend-3"));
    let (busy, attempts) = load.finish();
    assert_unharmed(&busy);
    assert_served(&attempts);
}

fn removing_a_backend_under_load_ends_only_its_own_connections(hook: Hook) {
    let mut world = World::usual(hook);
    let load = Load::start(&world);
    world.change(|manifests| manifests.remove(2));
    until("connections to backend-2 are reset", || {
        load.busy()
            .iter()
            .filter(|one| is_of(one, "backend-2"))
            .all(|one| one.failure == Some(Failure::Reset))
    });
    let removed = Instant::now();
    thread::sleep(IN_FORCE);
    let (busy, attempts) = load.finish();
    let (gone, stayed): (Vec<_>, Vec<_>) = busy.into_iter().partition(|one| is_of(one, "backend-2"));
    assert!(!gone.is_empty(), "backend-2 had no connection to lose");
    assert_unharmed(&stayed);
    // A connection that was being made to the backend in that very moment may be reset with the rest.
    let harmed: Vec<_> = attempts.iter().filter(|attempt| attempt.result.is_err()).collect();
    assert!(harmed.iter().all(|attempt| attempt.result == Err(Failure::Reset)), "{harmed:?}");
    assert!(harmed.len() <= 2 * Family::ALL.len(), "{harmed:?}");
    let late: Vec<_> = attempts.iter().filter(|attempt| attempt.at > removed).collect();
    assert!(late.len() > 10, "only {} new connections after the removal", late.len());
    for attempt in late {
        assert_ne!(
            attempt.result.as_ref().unwrap().backend,
            "backend-2",
            "a new connection to a removed backend"
        );
    }
}

fn changing_weights_under_load_cuts_and_refuses_nothing(hook: Hook) {
    let mut world = World::with(hook, Manifests::weighted([Some(1), Some(1), Some(1)]));
    let load = Load::start(&world);
    world.change(|manifests| {
        for route in &mut manifests.routes {
            route.backends[0].1 = Some(0);
            route.backends[1].1 = Some(7);
        }
    });
    until("backend-1 gets nothing new", || without(&world, "backend-1"));
    let changed = Instant::now();
    thread::sleep(IN_FORCE);
    let (busy, attempts) = load.finish();
    assert_unharmed(&busy);
    assert_served(&attempts);
    assert!(busy.iter().any(|one| is_of(one, "backend-1")), "no connection to backend-1 to keep");
    for attempt in attempts.iter().filter(|attempt| attempt.at > changed) {
        assert_ne!(attempt.result.as_ref().unwrap().backend, "backend-1", "weight 0 was served");
    }
}

fn adding_and_removing_routes_and_listeners_under_load_leaves_the_others_alone(hook: Hook) {
    let mut world = World::usual(hook);
    let load = Load::start(&world);
    let more: Vec<_> = (9000..9020).map(|port| Listener { protocol: Protocol::Tcp, port }).collect();
    let last = |family| at(vip(family).ip(), 9019);
    for _ in 0..3 {
        world.change(|manifests| {
            manifests.gateways[0].listeners.extend(&more);
            manifests.routes.extend(more.iter().map(|listener| Route::new("lab", *listener, &["web"])));
        });
        for family in Family::ALL {
            until("the last new listener serves", || connect(&world.lab.client, last(family)).is_ok());
        }
        world.change(|manifests| {
            manifests.gateways[0].listeners.truncate(2);
            manifests.routes.truncate(2);
        });
        for family in Family::ALL {
            let gone = Some(Failure::Refused);
            until("the last new listener refuses", || connect(&world.lab.client, last(family)).err() == gone);
        }
    }
    let (busy, attempts) = load.finish();
    assert_unharmed(&busy);
    assert_served(&attempts);
}

fn a_removed_backends_udp_flows_move(hook: Hook) {
    let mut world = World::usual(hook);
    let sockets: Vec<_> = Family::ALL
        .into_iter()
        .flat_map(|family| (0..24).map(move |_| family))
        .map(|family| (family, udp_socket(&world, family)))
        .collect();
    let all = || {
        sockets
            .iter()
            .map(|(family, socket)| exchange_on(socket, vip(*family), b"x").map(|answer| answer.backend))
    };
    let before: Vec<_> = all().map(Result::unwrap).collect();
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3);
    world.change(|manifests| manifests.remove(1));
    until("backend-1 gets nothing new", || without(&world, "backend-1"));
    let after: Vec<_> = all().map(Result::unwrap).collect();
    for (before, after) in before.iter().zip(&after) {
        if before == "backend-1" {
            assert_ne!(after, "backend-1", "a flow stayed with a removed backend");
        } else {
            assert_eq!(before, after, "a flow left a backend that stayed");
        }
    }
}

fn a_terminating_backend_keeps_its_tcp_and_gets_nothing_new(hook: Hook) {
    stays_for_tcp_only(hook, State::Terminating);
}

fn a_backend_that_is_not_ready_any_more_keeps_its_tcp(hook: Hook) {
    stays_for_tcp_only(hook, State::NotReady);
}

fn stays_for_tcp_only(hook: Hook, state: State) {
    let mut world = World::usual(hook);
    let load = Load::start(&world);
    let sockets: Vec<_> = (0..24).map(|_| udp_socket(&world, Family::V4)).collect();
    let all = || sockets.iter().map(|socket| exchange_on(socket, vip(Family::V4), b"x").unwrap().backend);
    assert!(all().any(|backend| backend == "backend-2"), "no UDP flow of backend-2 to move");
    world.change(|manifests| manifests.endpoints(2).for_each(|endpoint| endpoint.state = state));
    until("backend-2 gets nothing new", || without(&world, "backend-2"));
    let changed = Instant::now();
    thread::sleep(IN_FORCE);
    if state == State::Terminating {
        assert!(all().all(|backend| backend != "backend-2"), "a UDP flow stayed with a terminating backend");
    }
    let (busy, attempts) = load.finish();
    assert_unharmed(&busy);
    assert_served(&attempts);
    assert!(busy.iter().any(|one| is_of(one, "backend-2")), "no connection to backend-2 to keep");
    for attempt in attempts.iter().filter(|attempt| attempt.at > changed) {
        assert_ne!(attempt.result.as_ref().unwrap().backend, "backend-2", "new to a backend that is leaving");
    }
}

fn terminating_backends_take_new_connections_when_there_are_no_others(hook: Hook) {
    let mut world = World::usual(hook);
    world.change(|manifests| {
        for network in 1..=3 {
            manifests.endpoints(network).for_each(|endpoint| endpoint.state = State::NotReady);
        }
        manifests.endpoints(3).for_each(|endpoint| endpoint.state = State::Terminating);
    });
    until("nothing reaches the backends that are not ready", || {
        without(&world, "backend-1") && without(&world, "backend-2")
    });
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, 20);
        assert_eq!(tally.of("backend-3"), 20, "{protocol} {family:?}: {tally:?}");
    }
}

fn a_removed_listener_ends_its_connections(hook: Hook) {
    let mut manifests = Manifests::usual();
    let second = Listener { protocol: Protocol::Tcp, port: 81 };
    manifests.gateways[0].listeners.push(second);
    manifests.routes.push(Route::new("lab", second, &["other"]));
    manifests.services.push(Service::new("other", &[1, 2]));
    let mut world = World::with(hook, manifests);
    let pause = Duration::from_millis(20);
    let goes = Busy::start(&world.lab.client, at(vip(Family::V4).ip(), 81), 10, pause).unwrap();
    let stays = Busy::start(&world.lab.client, vip(Family::V4), 10, pause).unwrap();
    world.change(|manifests| {
        manifests.gateways[0].listeners.pop();
        manifests.routes.pop();
    });
    until("connections of the removed listener are ended", || {
        goes.now().iter().all(|one| one.failure.is_some())
    });
    thread::sleep(IN_FORCE);
    assert_unharmed(&stays.finish());
}

fn a_client_that_only_listens_hears_that_its_listener_is_gone(hook: Hook) {
    let mut world = World::idle(hook, Manifests::usual());
    // Servers that speak when they are told to: on a backend, and on the balancer itself.
    let places = [
        ("far", world.lab.backends[0].clone(), "eth0", 78, 81),
        ("near", world.lab.balancer.clone(), "lo", 77, 82),
    ];
    let mut servers = Vec::new();
    for (name, machine, device, host, port) in places {
        let own = Family::ALL.map(|family| address(family, 1, host));
        let lines =
            format!("addr add {}/32 dev {device}\naddr add {}/128 dev {device} nodad", own[0], own[1]);
        machine.ip(&lines).unwrap();
        for (family, address) in Family::ALL.into_iter().zip(own) {
            let server = machine.run(|| TcpListener::bind(at(address, TARGET))).unwrap();
            servers.push((name, at(vip(family).ip(), port), server));
        }
        world.change(|manifests| {
            let listener = Listener { protocol: Protocol::Tcp, port };
            manifests.gateways[0].listeners.push(listener);
            manifests.routes.push(Route::new("lab", listener, &[name]));
            let endpoints = own.map(|address| Endpoint { address, state: State::Ready });
            manifests.services.push(Service {
                name: name.to_owned(),
                endpoints: endpoints.into(),
                node: None,
            });
        });
    }
    world.start();
    let connections: Vec<_> = servers
        .iter()
        .map(|(_, to, server)| {
            let client = world.lab.client.run(|| TcpStream::connect(to)).unwrap();
            let (served, _) = server.accept().unwrap();
            for stream in [&client, &served] {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            (client, served)
        })
        .collect();
    world.change(|manifests| {
        manifests.gateways[0].listeners.truncate(2);
        manifests.routes.truncate(2);
    });
    for (_, to, _) in &servers {
        let gone = Some(Failure::Refused);
        until("a removed listener refuses", || connect(&world.lab.client, *to).err() == gone);
    }
    for ((name, to, _), (mut client, mut served)) in servers.iter().zip(connections) {
        served.write_all(b"late").unwrap();
        let heard = client.read(&mut [0; 8]).map_err(|error| error.kind());
        assert_eq!(heard, Err(ErrorKind::ConnectionReset), "{name} at {to}");
        if *name == "far" {
            // What it says again, unheard, is answered.
            let heard = served.read(&mut [0; 8]).map_err(|error| error.kind());
            assert_eq!(heard, Err(ErrorKind::ConnectionReset), "{name} at {to}");
        }
    }
}

impl Load {
    /// 30 busy connections and a new one every few milliseconds, for each family.
    fn start(world: &World) -> Self {
        let client = &world.lab.client;
        let pause = Duration::from_millis(20);
        let busy = Family::ALL.map(|family| Busy::start(client, vip(family), 30, pause).unwrap());
        let churn = Family::ALL
            .map(|family| Churn::start(client, Protocol::Tcp, vip(family), Duration::from_millis(4)));
        Self { busy: busy.into(), churn: churn.into() }
    }

    fn busy(&self) -> Vec<BusyConnection> {
        self.busy.iter().flat_map(Busy::now).collect()
    }

    /// Whether a backend has answered a new connection of each family.
    fn answered_by(&self, backend: &str) -> bool {
        let by = |attempt: &Attempt| attempt.result.as_ref().is_ok_and(|answer| answer.backend == backend);
        self.churn.iter().all(|churn| churn.now().iter().any(by))
    }

    fn finish(self) -> (Vec<BusyConnection>, Vec<Attempt>) {
        let attempts = self.churn.into_iter().flat_map(Churn::finish).collect();
        (self.busy.into_iter().flat_map(Busy::finish).collect(), attempts)
    }
}

/// Whether a backend gets none of a good many new connections, of either protocol and family.
pub fn without(world: &World, backend: &str) -> bool {
    everything().all(|(protocol, family)| world.dial(protocol, family, 25).of(backend) == 0)
}

pub fn is_of(connection: &BusyConnection, backend: &str) -> bool {
    connection.backend.as_deref() == Some(backend)
}

#[track_caller]
pub fn assert_unharmed(connections: &[BusyConnection]) {
    assert!(!connections.is_empty());
    for connection in connections {
        assert!(connection.failure.is_none() && connection.messages > 1, "{connection:?}");
    }
}

#[track_caller]
pub fn assert_served(attempts: &[Attempt]) {
    assert!(attempts.len() > 10, "only {} new connections", attempts.len());
    let failed: Vec<_> = attempts.iter().filter(|attempt| attempt.result.is_err()).collect();
    assert!(failed.is_empty(), "{} of {} new connections: {failed:?}", failed.len(), attempts.len());
}
