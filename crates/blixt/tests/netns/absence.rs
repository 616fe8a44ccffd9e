//! The process is dead for long, and the network changes meanwhile.

use std::thread;
use std::time::Duration;

use blixt_lab::{Busy, Family, Protocol};
use blixt_loader::{Dataplane, Options};

use crate::changes::{assert_unharmed, is_of};
use crate::elsewhere::Elsewhere;
use crate::manifests::{Manifests, Service};
use crate::world::{Hook, World, until, vip};

on_both_hooks!(neighbours_and_routes_that_change_without_the_process_are_followed);

fn neighbours_and_routes_that_change_without_the_process_are_followed(hook: Hook) {
    for forwarding in ["Nat", "Transparent"] {
        let mut world = World::idle(hook, Manifests { forwarding, ..Manifests::usual() });
        let elsewhere = Elsewhere::new(&world);
        world.change(|manifests| {
            let mut service = Service::new("web", &[3]);
            service.endpoints.extend(elsewhere.endpoints());
            manifests.services = vec![service];
        });
        world.start();
        let busy = Family::ALL.map(|family| {
            Busy::start(&world.lab.client, vip(family), 20, Duration::from_millis(20)).unwrap()
        });
        assert_answered(&world, "first");

        world.process().kill().unwrap();
        let_next_hops_run_out(&world);
        let backend = &world.lab.backends[2];
        // The kernel tells the neighbours by gratuitous ARP and NDP, as it does on a take-over.
        backend.sysctl("net/ipv4/conf/eth0/arp_notify", "1").unwrap();
        backend.sysctl("net/ipv6/conf/eth0/ndisc_notify", "1").unwrap();
        backend.ip("link set eth0 address 02:00:00:00:be:03").unwrap();
        elsewhere.moves(&world);
        assert_answered(&world, "second");
        let before = busy.each_ref().map(Busy::now);
        let of_backend_3 = |busy: &Busy| busy.now().into_iter().filter(|one| is_of(one, "backend-3"));
        until("connections to the backend that moved go on", || {
            busy.iter().zip(&before).all(|(busy, before)| {
                let grown = busy.now().into_iter().zip(before).filter(|(now, _)| is_of(now, "backend-3"));
                grown.into_iter().all(|(now, before)| now.messages > before.messages + 2)
            })
        });

        // And with the next process, which is told of the new state alone.
        world.start();
        assert_answered(&world, "second");
        for busy in &busy {
            assert_unharmed(&of_backend_3(busy).collect::<Vec<_>>());
        }
    }
}

/// As if the process had been dead for as long as next hops are believed without it, and longer.
fn let_next_hops_run_out(world: &World) {
    world.lab.balancer.run(|| {
        let mut dataplane =
            Dataplane::open(&Options { hop_life: Duration::ZERO, ..Options::default() }).unwrap();
        dataplane.renew_hops().unwrap();
    });
    thread::sleep(Duration::from_secs(2));
}

/// Waits until everybody who should answers, and nobody else.
fn assert_answered(world: &World, elsewhere: &str) {
    for family in Family::ALL {
        for protocol in Protocol::ALL {
            until("both backends answer", || {
                let tally = world.dial(protocol, family, 10);
                tally.answered() == 10 && tally.of("backend-3") + tally.of(elsewhere) == 10
            });
            let tally = world.dial(protocol, family, 40);
            assert!(tally.of("backend-3") > 0 && tally.of(elsewhere) > 0, "{protocol} {family:?}: {tally:?}");
            assert_eq!(tally.answered(), 40, "{protocol} {family:?}: {tally:?}");
        }
    }
}
