//! More connections than the table has room for, made-up ones and real ones, beside connections that are in use.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use blixt_cases::network::{BACKEND_PORT, BACKEND_SIDE, FRONTEND_PORT, SETTINGS, nets, tables};
use blixt_cases::packet::{ACK, FIN, IpPacket, SYN};
use blixt_cases::{Given, Hook, backend_sends, client_sends};
use blixt_core::config::Protocol;
use blixt_core::tables::Way;
use blixt_packet::abi::{BURST, Link, Settings, WINDOW_BITS};
use blixt_packet::{DropReason, Verdict};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::program::{Programs, table};

/// Connections that the table has room for.
const ROOM: u32 = 4096;
/// Connections in use.
const IN_USE: u32 = 200;
/// Connections that are waited for until they have asked twice.
const TRIED_AGAIN: u32 = 3;
/// Others beside them.
const OTHERS: u32 = 10 * ROOM;
/// Others for each packet of a connection in use.
const OTHERS_FOR_A_PACKET: u32 = 5;

#[test]
fn connections_in_use_outlive_a_flood_of_syns_ten_times_as_large_as_the_table() {
    check(|programs, number, _| {
        assert!(programs.is_redirected(&spoofed(number)), "SYN {number} found no room");
        true
    });
}

#[test]
fn connections_in_use_outlive_ten_tables_of_new_ones_each_of_which_is_served() {
    check(|programs, number, late| {
        let client = client(number);
        for flags in [SYN, ACK] {
            let (request, reply) = (request_of(client, flags), reply_to(client));
            let mut is_served = || programs.is_redirected(&request) && programs.is_redirected(&reply);
            if is_served() {
                continue;
            }
            // The kernel took half of its flow for the other one. What is not answered is said again, a second later; to wait
            // for each would take too long.
            if late < TRIED_AGAIN {
                thread::sleep(Duration::from_millis(1100));
                assert!(is_served(), "new connection {number} is not served");
            }
            return false;
        }
        true
    });
}

#[test]
fn what_a_full_table_gave_up_is_counted_to_the_entry() {
    const BEGUN: u32 = 3 * ROOM;
    Programs::run_with_room(Hook::Tc, ROOM, |programs| {
        programs.begin(&tables(Way::Transparent));
        // Of these both halves are taken out by what the backend says at last.
        for connection in 0..IN_USE {
            let (client, close) = (in_use(connection), FIN | ACK);
            let talk = [(SYN, SYN | ACK), (ACK, ACK), (close, close)];
            for (asked, answered) in talk {
                for given in [request_of(client, asked), backends(client, answered)] {
                    assert!(programs.is_redirected(&given), "connection {connection} does not go on");
                }
            }
            programs.pass_by(&backends(client, SYN));
        }
        let [v4, v6] = programs.count_flows();
        assert_eq!(
            (v4.added, v4.entries, v4.evicted),
            (2 * u64::from(IN_USE), 0, 0),
            "taken out by the program"
        );

        for number in 0..BEGUN {
            assert!(programs.is_redirected(&spoofed(number)), "SYN {number} found no room");
        }
        // All are different: whatever is not there any more was thrown out.
        let there = table::<16, 32>(programs.pins().join("FLOWS_V4")).keys().count() as u64;
        let thrown_out = 2 * u64::from(BEGUN) - there;
        assert!(
            there <= 2 * u64::from(ROOM) && thrown_out >= 4 * u64::from(ROOM),
            "{there} entries are there"
        );
        let [counted, other] = programs.count_flows();
        assert_eq!((counted.entries, counted.evicted), (there, thrown_out));
        assert_eq!(other, v6, "nothing came by IPv6");

        programs.restart();
        assert_eq!(programs.count_flows(), [counted, other], "the next process counts on");
    });
}

#[test]
fn one_cpu_begins_only_so_many_connections_in_a_window_and_those_in_use_go_on() {
    const IN_A_WINDOW: u32 = 100;
    let settings = Settings { new_flows: IN_A_WINDOW, ..SETTINGS };
    let tables = tables(Way::Transparent);
    // Each CPU has a budget of its own.
    let mut cpu = CpuSet::new();
    cpu.set(0).unwrap();
    for hook in [Hook::Tc, Hook::Xdp] {
        Programs::run_with(hook, ROOM, settings, |programs| {
            sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
            programs.begin(&tables);
            let sends = |programs: &mut Programs, given: Given| {
                let on = programs.action(&given, Verdict::Send(Link::new(BACKEND_SIDE, 0)));
                programs.pass_by(&given).0 == on
            };
            for flags in [SYN, ACK] {
                assert!(sends(programs, request(0, flags)), "a connection does not begin");
            }
            let begun = Instant::now();
            let mut taken = 0;
            for number in 0..OTHERS {
                taken += u32::from(sends(programs, spoofed(number)));
                assert!(sends(programs, request(0, ACK)), "a flood ended a connection in use");
            }
            let windows = (begun.elapsed().as_nanos() >> WINDOW_BITS) as u32 + 2;
            let most = (windows + BURST) * IN_A_WINDOW;
            assert!((IN_A_WINDOW..=most).contains(&taken), "{taken}, and {most} at most");
            assert!(taken < OTHERS / 2, "{taken} in {windows} windows: nothing was limited");
            assert_eq!(programs.drops()[&DropReason::Flood], u64::from(OTHERS - taken));

            thread::sleep(2 * Duration::from_nanos(1 << WINDOW_BITS));
            assert!(sends(programs, spoofed(OTHERS)), "the flood is over, and no connection begins");
        });
    }
}

/// Beside connections in use `begin` makes others, ten times as many as there is room for: whether one is served at once, where so
/// many were not before it.
fn check(begin: fn(&mut Programs, u32, u32) -> bool) {
    // The client's address is kept: nothing but the size of the table limits what may be put into it.
    let tables = tables(Way::Transparent);
    Programs::run_with_room(Hook::Tc, ROOM, |programs| {
        programs.begin(&tables);
        for connection in 0..IN_USE {
            for given in [request(connection, SYN), reply(connection), request(connection, ACK)] {
                assert!(programs.is_redirected(&given), "connection {connection} does not begin");
            }
        }
        let mut late = 0;
        for number in 0..OTHERS {
            late += u32::from(!begin(programs, number, late));
            let (turn, rest) = (number / OTHERS_FOR_A_PACKET, number % OTHERS_FOR_A_PACKET);
            if rest == 0 {
                let connection = turn / 2 % IN_USE;
                let given = if turn % 2 == 0 { request(connection, ACK) } else { reply(connection) };
                assert!(
                    programs.is_redirected(&given),
                    "connection {connection} was lost after {number} others"
                );
            }
        }
        let [v4, _] = programs.count_flows();
        assert!(v4.entries + v4.evicted >= 2 * u64::from(OTHERS - late), "{v4:?}");
        println!("{late} of {OTHERS} connections had to ask twice");
        assert!(late <= OTHERS / 2000, "{late} of {OTHERS} connections had to ask twice");
    });
}

fn request(connection: u32, flags: u8) -> Given {
    request_of(in_use(connection), flags)
}

/// Unlike a request it cannot make up for a flow that was lost.
fn reply(connection: u32) -> Given {
    reply_to(in_use(connection))
}

fn spoofed(number: u32) -> Given {
    request_of(client(number), SYN)
}

fn request_of(client: (IpAddr, u16), flags: u8) -> Given {
    let [net, _] = nets();
    let packet = IpPacket::new(Protocol::Tcp, client, (net.frontend, FRONTEND_PORT));
    client_sends(&packet.flags(flags).bytes())
}

fn reply_to(client: (IpAddr, u16)) -> Given {
    backends(client, ACK)
}

fn backends(client: (IpAddr, u16), flags: u8) -> Given {
    let [net, _] = nets();
    backend_sends(&IpPacket::new(Protocol::Tcp, (net.backend, BACKEND_PORT), client).flags(flags).bytes())
}

fn in_use(connection: u32) -> (IpAddr, u16) {
    let [net, _] = nets();
    (net.client, 10_000 + connection as u16)
}

/// One of those beside them.
fn client(number: u32) -> (IpAddr, u16) {
    (IpAddr::V4(Ipv4Addr::from_bits(0xac10_0000 + number)), 1024)
}
