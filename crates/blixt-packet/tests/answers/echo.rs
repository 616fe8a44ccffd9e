//! Pings to an address that only Blixt owns.

use blixt_cases::network::{Net, nets};
use blixt_cases::packet::{frame, icmp, icmp_number, ip, part};
use blixt_packet::DropReason;
use blixt_packet::Verdict;
use blixt_packet::abi::WAY_NAT;

use crate::world::{CLIENT_MAC, OUR_MAC, World};

const ID: [u8; 4] = [0x12, 0x34, 0, 1];

fn kinds(net: &Net) -> (u8, u8) {
    if net.client.is_ipv4() { (8, 0) } else { (128, 129) }
}

#[test]
fn an_address_that_only_blixt_owns_answers_echo() {
    for net in nets() {
        let (request, reply) = kinds(&net);
        let protocol = icmp_number(net.client);
        for payload in [&b""[..], b"odd", &[9; 1400]] {
            let body = icmp(net.client, net.owned, request, 0, ID, payload);
            let (verdict, answer) =
                World::new(WAY_NAT).client_sends(&ip(net.client, net.owned, protocol, 3, &body));
            assert_eq!(verdict, Verdict::Answer(None));
            let body = icmp(net.owned, net.client, reply, 0, ID, payload);
            assert_eq!(answer, frame(CLIENT_MAC, OUR_MAC, &ip(net.owned, net.client, protocol, 64, &body)));
        }
    }
}

#[test]
fn a_fragmented_echo_goes_back_part_by_part() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let (request, reply) = kinds(&net);
        let protocol = icmp_number(net.client);
        let sent = icmp(net.client, net.owned, request, 0, ID, &[5; 2000]);
        let expected = icmp(net.owned, net.client, reply, 0, ID, &[5; 2000]);
        for (offset, range, more) in [(0, 0..1000, true), (1000, 1000..2008, false)] {
            let (verdict, answer) = world.client_sends(&part(
                net.client,
                net.owned,
                protocol,
                3,
                offset,
                more,
                &sent[range.clone()],
            ));
            assert_eq!(verdict, Verdict::Answer(None));
            let part = part(net.owned, net.client, protocol, 64, offset, more, &expected[range]);
            assert_eq!(answer, frame(CLIENT_MAC, OUR_MAC, &part));
        }
    }
}

#[test]
fn echo_to_an_address_of_the_host_is_the_hosts() {
    for net in nets() {
        let body = icmp(net.client, net.source, kinds(&net).0, 0, ID, b"ping");
        let packet = ip(net.client, net.source, icmp_number(net.client), 60, &body);
        let (verdict, unchanged) = World::new(WAY_NAT).client_sends(&packet);
        assert_eq!(verdict, Verdict::Pass);
        assert_eq!(unchanged, frame(OUR_MAC, CLIENT_MAC, &packet));
    }
}

#[test]
fn other_questions_to_an_address_that_only_blixt_owns_are_dropped() {
    for net in nets() {
        let body = icmp(net.client, net.owned, if net.client.is_ipv4() { 13 } else { 139 }, 0, ID, b"");
        let packet = ip(net.client, net.owned, icmp_number(net.client), 60, &body);
        assert_eq!(World::new(WAY_NAT).client_sends(&packet).0, Verdict::Drop(DropReason::Refused));
    }
}

#[test]
fn a_reply_of_zeros_alone_has_a_sum_that_holds() {
    let [net, _] = nets();
    let body = icmp(net.client, net.owned, 8, 0, [0; 4], &[0; 8]);
    let packet = ip(net.client, net.owned, 1, 60, &body);
    let (_, answer) = World::new(WAY_NAT).client_sends(&packet);
    assert_eq!(answer[34..38], [0, 0, 0xff, 0xff]);
}
