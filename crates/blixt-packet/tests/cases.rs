//! The table of packet cases on the host, and what holds for any packet.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use blixt_cases::host::{Clock, begin, show};
use blixt_cases::network::{
    BACKEND_PORT, BACKEND_SIDE, CLIENT_SIDE, FRONTEND_PORT, Net, PROTOCOLS, SETTINGS, nets, tables,
    to_backend, to_client,
};
use blixt_cases::packet::IpPacket;
use blixt_cases::sound::flaw;
use blixt_cases::{Case, Hook, Step, backend_sends, cases, client_sends};
use blixt_core::config::Protocol;
use blixt_core::tables::Way;
use blixt_packet::Verdict;
use blixt_packet::abi::Link;
use proptest::prelude::*;

#[test]
fn every_case_holds_on_the_host() {
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.hooks.contains(&Hook::Host)).collect();
    let failures: Vec<String> = cases.iter().filter_map(|case| hold(case).err()).collect();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<String> = cases().into_iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases().len());
}

#[test]
fn every_frame_that_is_expected_is_sound() {
    for case in cases() {
        for step in &case.steps {
            if let Step::Frame { after: Some(frame), verdict, .. } = step
                && *verdict != Verdict::Pass
            {
                assert_eq!(flaw(frame), None, "{}: {frame:02x?}", case.name);
            }
        }
    }
}

fn hold(case: &Case) -> Result<(), String> {
    let clock = Clock::default();
    clock.0.set(1000);
    // What user space writes outlives the steps that read it.
    let mut all = vec![case.tables.clone()];
    for step in &case.steps {
        if let Step::Change(ops) = step {
            let mut next = all[all.len() - 1].clone();
            ops.iter().for_each(|op| next.apply(op));
            all.push(next);
        }
    }
    let mut written = all.iter();
    let mut simulation = begin(written.next().unwrap(), &clock, SETTINGS);
    for (index, step) in case.steps.iter().enumerate() {
        match step {
            Step::Change(_) => simulation = simulation.over(written.next().unwrap()),
            Step::Wait(seconds) => clock.0.set(clock.0.get() + seconds),
            Step::Frame { given, verdict, after } => {
                let (seen, bytes) = show(&simulation, given);
                if seen != *verdict || after.as_ref().is_some_and(|after| *after != bytes) {
                    return Err(format!(
                        "{}, step {index}: {seen:?} instead of {verdict:?}\n  in   {:02x?}\n  out  {bytes:02x?}\n  want {after:02x?}",
                        case.name, given.frame
                    ));
                }
            }
        }
    }
    Ok(())
}

/// A request of any shape.
fn request() -> impl Strategy<Value = (Net, Protocol, u16, IpPacket)> {
    let net = prop::sample::select(nets().to_vec());
    let protocol = prop::sample::select(PROTOCOLS.to_vec());
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    (net, protocol, any::<u16>(), 2..=255_u8, 0..=10_usize, 0..=10_usize, payload).prop_map(
        |(net, protocol, port, hops, words, options, payload)| {
            let packet = IpPacket::new(protocol, (net.client, port), (net.frontend, FRONTEND_PORT))
                .hops(hops)
                .between(&between(&net, protocol, words))
                .options(&[1, 1, 1, 0].repeat(options))
                .payload(&payload);
            (net, protocol, port, packet)
        },
    )
}

/// IPv4 options, or IPv6 destination options.
fn between(net: &Net, protocol: Protocol, words: usize) -> Vec<u8> {
    match (net.client.is_ipv4(), words) {
        (true, _) => [1, 1, 1, 0].repeat(words),
        (false, 0) => Vec::new(),
        (false, _) => vec![60, protocol.number(), 0, 1, 4, 0, 0, 0, 0],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_stay_right_for_any_packet_there_and_back(
        (net, protocol, port, there) in request(),
        way in prop::sample::select(vec![Way::Nat, Way::Transparent]),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let (tables, clock) = (tables(way), Clock::default());
        let simulation = begin(&tables, &clock, SETTINGS);
        let (client, frontend) = ((net.client, port), (net.frontend, FRONTEND_PORT));
        let source = if way == Way::Nat { (net.source, port) } else { client };
        let backend = (net.backend, BACKEND_PORT);

        let (verdict, frame) = show(&simulation, &client_sends(&there.bytes()));
        prop_assert_eq!(verdict, Verdict::Send(Link::new(BACKEND_SIDE, 0)));
        prop_assert_eq!(flaw(&frame), None);
        prop_assert_eq!(frame, to_backend(&there.routed(source, backend).bytes()));

        let back = IpPacket::new(protocol, backend, source).payload(&payload);
        let (verdict, frame) = show(&simulation, &backend_sends(&back.bytes()));
        prop_assert_eq!(verdict, Verdict::Send(Link::new(CLIENT_SIDE, 0)));
        prop_assert_eq!(flaw(&frame), None);
        prop_assert_eq!(frame, to_client(&back.routed(frontend, client).bytes()));
    }

    #[test]
    fn there_and_back_is_the_identity_for_any_packet((net, _, port, there) in request()) {
        // What the backend sends back, with both ends exchanged, is the request that the client would know again.
        let (tables, clock) = (tables(Way::Nat), Clock::default());
        let simulation = begin(&tables, &clock, SETTINGS);
        let (verdict, _) = show(&simulation, &client_sends(&there.bytes()));
        prop_assert!(matches!(verdict, Verdict::Send(_)));
        let mirrored = there.translated((net.backend, BACKEND_PORT), (net.source, port));
        let (verdict, frame) = show(&simulation, &backend_sends(&mirrored.bytes()));
        prop_assert!(matches!(verdict, Verdict::Send(_)));
        let expected = there.routed((net.frontend, FRONTEND_PORT), (net.client, port));
        prop_assert_eq!(frame, to_client(&expected.bytes()));
    }
}
