//! Flows that outlive what they led to, and the process that wrote it.

use blixt_cases::network::{BACKEND_PORT, FRONTEND_PORT, Net, moves, nets, renews, tables};
use blixt_cases::packet::{ACK, IpPacket, SYN};
use blixt_cases::{Given, Hook, backend_sends, client_sends};
use blixt_core::config::{Endpoint, Protocol};
use blixt_core::tables::{BackendEntry, BackendState, Op, Tables, Way};
use blixt_packet::DropReason;

use super::program::Programs;

#[test]
fn flows_outlive_the_addresses_that_they_led_to_and_a_restart_in_tc() {
    check(Hook::Tc);
}

#[test]
fn flows_outlive_the_addresses_that_they_led_to_and_a_restart_in_xdp() {
    check(Hook::Xdp);
}

fn check(hook: Hook) {
    // With full NAT a backend's packets go to this machine's own address: nothing but their source says that they are ours.
    let tables = tables(Way::Nat);
    for net in nets() {
        Programs::run(hook, |programs| {
            programs.begin(&tables);
            let begun = talk(&net);
            for given in &begun {
                assert!(programs.is_redirected(given), "{net:?}: the connection does not begin");
            }
            let [_, answer, later] = &begun;

            programs.apply(&without_frontends(programs.tables()));
            programs.restart();
            for given in [later, answer] {
                assert!(programs.is_redirected(given), "{net:?}: the connection ended with its frontend");
            }

            programs.apply(&with_others_in_their_place(programs.tables()));
            programs.restart();
            for given in [later, answer] {
                let seen = programs.show(given);
                assert_eq!(seen.reason, Some(DropReason::BackendGone), "{net:?}: nobody was told");
            }
        });
    }
}

#[test]
fn connections_are_carried_over_to_another_map_layout_in_tc() {
    check_layouts(Hook::Tc);
}

#[test]
fn connections_are_carried_over_to_another_map_layout_in_xdp() {
    check_layouts(Hook::Xdp);
}

fn check_layouts(hook: Hook) {
    let tables = tables(Way::Nat);
    // Their backend stands there under another number; or it is drained, and the ring leads elsewhere.
    for ops in [renews(Way::Nat), moves(Way::Nat, BackendState::Draining)] {
        Programs::run(hook, |programs| {
            programs.begin(&tables);
            let talks = nets().map(|net| talk(&net));
            let before = talks.each_ref().map(|talk| talk.each_ref().map(|given| programs.show(given).frame));

            programs.change_layout();
            programs.write(&tables);
            programs.apply(&ops);
            for [_, answer, _] in &talks {
                assert!(!programs.is_redirected(answer), "it knows of a connection that it has not seen");
            }
            assert_eq!(programs.carry_flows(), 4, "two connections, two halves each");
            assert_eq!(programs.carry_flows(), 0, "what is there stays");
            for count in programs.count_flows() {
                assert_eq!((count.entries, count.evicted), (2, 0), "what was carried was put in, too");
            }
            for ([_, answer, later], [_, seen, seen_later]) in talks.iter().zip(&before) {
                assert_eq!(programs.show(later).frame, *seen_later, "the backend is another");
                assert_eq!(programs.show(answer).frame, *seen, "the answer goes elsewhere");
            }
        });
    }
}

/// Nothing is listened on any more, and no address is ours.
fn without_frontends(tables: &Tables) -> Vec<Op> {
    let frontends = tables.frontends.keys().map(|endpoint| Op::SetFrontend(*endpoint, None));
    frontends.chain(tables.addresses.keys().map(|address| Op::SetAddress(*address, None))).collect()
}

/// Other backends stand in all slots: no table names the addresses of the first ones.
fn with_others_in_their_place(tables: &Tables) -> Vec<Op> {
    let others = tables.backends.iter().map(|(slot, entry)| {
        let [v4, v6] = nets();
        let router = if entry.endpoint.address.is_ipv4() { v4.router } else { v6.router };
        let endpoint = Endpoint { address: router, ..entry.endpoint };
        let incarnation = entry.incarnation.wrapping_add(1);
        let state = BackendState::Gone;
        Op::SetBackend(*slot, BackendEntry { endpoint, incarnation, state, ..entry.clone() })
    });
    others.collect()
}

/// How a connection begins: asked, answered, confirmed.
fn talk(net: &Net) -> [Given; 3] {
    [request(net, SYN), reply(net), request(net, ACK)]
}

fn request(net: &Net, flags: u8) -> Given {
    let to = (net.frontend, FRONTEND_PORT);
    client_sends(&IpPacket::new(Protocol::Tcp, (net.client, 4242), to).flags(flags).bytes())
}

fn reply(net: &Net) -> Given {
    let from = (net.backend, BACKEND_PORT);
    backend_sends(&IpPacket::new(Protocol::Tcp, from, (net.source, 4242)).flags(SYN | ACK).bytes())
}
