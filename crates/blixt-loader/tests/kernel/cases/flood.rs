//! A flood of SYNs from addresses that nobody has, beside connections that are in use.

use std::net::{IpAddr, Ipv4Addr};

use blixt_cases::network::{BACKEND_PORT, FRONTEND_PORT, nets, tables};
use blixt_cases::packet::{ACK, IpPacket, SYN};
use blixt_cases::{Given, Hook, backend_sends, client_sends};
use blixt_core::config::Protocol;
use blixt_core::tables::Way;

use super::program::Programs;

/// Connections that the table has room for.
const ROOM: u32 = 4096;
/// Connections in use.
const IN_USE: u32 = 200;
/// Spoofed SYNs.
const SYNS: u32 = 10 * ROOM;
/// Spoofed SYNs for each packet of a connection in use.
const SYNS_FOR_A_PACKET: u32 = 5;

#[test]
fn connections_in_use_outlive_a_flood_of_syns_ten_times_as_large_as_the_table() {
    // The client's address is kept: nothing but the size of the table limits what a flood may put into it.
    let tables = tables(Way::Transparent);
    Programs::run_with_room(Hook::Tc, ROOM, |programs| {
        programs.begin(&tables);
        for connection in 0..IN_USE {
            for given in [request(connection, SYN), reply(connection), request(connection, ACK)] {
                assert!(programs.is_redirected(&given), "connection {connection} does not begin");
            }
        }
        for number in 0..SYNS {
            assert!(programs.is_redirected(&spoofed(number)), "SYN {number} found no room");
            let (turn, rest) = (number / SYNS_FOR_A_PACKET, number % SYNS_FOR_A_PACKET);
            if rest == 0 {
                let connection = turn / 2 % IN_USE;
                let given = if turn % 2 == 0 { request(connection, ACK) } else { reply(connection) };
                assert!(
                    programs.is_redirected(&given),
                    "connection {connection} was lost after {number} SYNs"
                );
            }
        }
    });
}

fn request(connection: u32, flags: u8) -> Given {
    let [net, _] = nets();
    let to = (net.frontend, FRONTEND_PORT);
    client_sends(&IpPacket::new(Protocol::Tcp, (net.client, port(connection)), to).flags(flags).bytes())
}

/// Unlike a request it cannot make up for a flow that was lost.
fn reply(connection: u32) -> Given {
    let [net, _] = nets();
    let from = (net.backend, BACKEND_PORT);
    backend_sends(&IpPacket::new(Protocol::Tcp, from, (net.client, port(connection))).flags(ACK).bytes())
}

fn spoofed(number: u32) -> Given {
    let [net, _] = nets();
    let from = IpAddr::V4(Ipv4Addr::from_bits(0xac10_0000 + number));
    client_sends(&IpPacket::new(Protocol::Tcp, (from, 1024), (net.frontend, FRONTEND_PORT)).bytes())
}

fn port(connection: u32) -> u16 {
    10_000 + connection as u16
}
