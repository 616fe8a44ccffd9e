//! The lab itself: a plain router between client and backends, and every tool once.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use blixt_lab::{
    Busy, Churn, Failure, Family, Lab, Layout, Machine, Pace, Pacer, PacketSocket, Process, Protocol, Server,
    XdpPass, address, connect, connect_from, exchange, programs, tally,
};

const PORT: u16 = 8080;

#[test]
fn a_client_reaches_each_backend_over_both_protocols_and_families() {
    let (lab, _servers) = routed(&Layout::default());
    for network in 1..=3 {
        for family in Family::ALL {
            let to = backend(family, network);
            let answer = connect(&lab.client, to).unwrap().answer;
            assert_eq!(answer.backend, format!("backend-{network}"));
            assert_eq!(answer.seen.ip(), address(family, 0, Lab::OTHER));
            assert_eq!(exchange(&lab.client, to, b"hi").unwrap().backend, format!("backend-{network}"));
        }
    }
}

#[test]
fn a_wire_like_lab_routes_too_and_its_peers_hold_an_xdp_program() {
    let (lab, _servers) = routed(&Layout { backends: 1, wire_like: true, ..Layout::default() });
    for family in Family::ALL {
        assert_eq!(tally(&lab.client, Protocol::Tcp, backend(family, 1), 5).of("backend-1"), 5);
        assert_eq!(tally(&lab.client, Protocol::Udp, backend(family, 1), 5).of("backend-1"), 5);
    }
    assert!(!programs().unwrap().is_empty());
    let link = lab.client.output(Command::new("ip").args(["link", "show", "eth0"])).unwrap();
    assert!(link.contains("xdp"), "no XDP program in: {link}");
    assert!(XdpPass::attach(&lab.client, "eth0").is_err(), "a second native program was attached");
}

#[test]
fn a_closed_port_is_counted_as_refused() {
    let (lab, _servers) = routed(&Layout { backends: 1, ..Layout::default() });
    let closed = SocketAddr::new(address(Family::V4, 1, Lab::OTHER), 9);
    for protocol in Protocol::ALL {
        let tally = tally(&lab.client, protocol, closed, 3);
        assert_eq!((tally.refused(), tally.answered()), (3, 0), "{protocol}: {tally:?}");
    }
}

#[test]
fn a_connection_leaves_from_the_port_that_is_asked_for() {
    let (lab, _servers) = routed(&Layout { backends: 1, ..Layout::default() });
    let from = SocketAddr::new(address(Family::V6, 0, Lab::OTHER), 4242);
    let connection = connect_from(&lab.client, Some(from), backend(Family::V6, 1)).unwrap();
    assert_eq!(connection.answer.seen, from);
}

#[test]
fn busy_connections_count_messages_and_notice_a_reset() {
    let (mut lab, mut servers) = routed(&Layout { backends: 2, ..Layout::default() });
    let pause = Duration::from_millis(10);
    let stays = Busy::start(&lab.client, backend(Family::V4, 1), 20, pause).unwrap();
    let goes = Busy::start(&lab.client, backend(Family::V4, 2), 20, pause).unwrap();
    drop(servers.remove(1));
    wait_until(|| goes.now().iter().all(|connection| connection.failure.is_some()));
    let stayed = stays.finish();
    assert!(stayed.iter().all(|connection| connection.failure.is_none() && connection.messages > 1));
    assert!(stayed.iter().all(|connection| connection.backend.as_deref() == Some("backend-1")));
    // A wire that is cut and laid again costs time, not connections.
    let stays = Busy::start(&lab.client, backend(Family::V4, 1), 5, pause).unwrap();
    lab.disconnect(1).unwrap();
    thread::sleep(Duration::from_millis(300));
    lab.connect(1).unwrap();
    let before = stays.now();
    wait_until(|| stays.now().iter().zip(&before).all(|(now, before)| now.messages > before.messages + 2));
    assert!(
        stays.finish().iter().all(|one| one.failure.is_none() && one.slowest > Duration::from_millis(200))
    );
}

#[test]
fn numbered_datagrams_are_all_answered_once() {
    let (lab, _servers) = routed(&Layout { backends: 1, ..Layout::default() });
    let pace = Pace { flows: 8, datagrams: 5_000, rate: 10_000 };
    let report = Pacer::start(&lab.client, backend(Family::V6, 1), pace).unwrap().finish();
    assert_eq!((report.sent, report.lost(), report.duplicates), (5_000, 0, 0), "{report:?}");
    assert_eq!((report.moved, report.garbled, report.backends["backend-1"]), (0, 0, 5_000), "{report:?}");
}

#[test]
fn datagrams_that_nobody_answers_are_counted_as_lost() {
    let (lab, _servers) = routed(&Layout { backends: 1, ..Layout::default() });
    lab.backends[0].ip("route add blackhole 10.0.0.0/24").unwrap();
    let pace = Pace { flows: 2, datagrams: 100, rate: 1_000 };
    let report = Pacer::start(&lab.client, backend(Family::V4, 1), pace).unwrap().finish();
    assert_eq!((report.sent, report.lost()), (100, 100), "{report:?}");
}

#[test]
fn churn_notes_each_new_connection() {
    let (lab, mut servers) = routed(&Layout { backends: 1, ..Layout::default() });
    let churn = Churn::start(&lab.client, Protocol::Tcp, backend(Family::V4, 1), Duration::from_millis(1));
    wait_until(|| churn.now().len() > 10);
    servers.clear();
    let stopped = Instant::now();
    wait_until(|| churn.now().iter().any(|attempt| attempt.result == Err(Failure::Refused)));
    let attempts = churn.finish();
    assert!(attempts.iter().take(10).all(|attempt| attempt.result.is_ok()));
    assert!(attempts.iter().filter(|attempt| attempt.at > stopped).all(|attempt| attempt.result.is_err()));
}

#[test]
fn a_frame_arrives_with_its_vlan_tag() {
    let (lab, _servers) = routed(&Layout { backends: 1, ..Layout::default() });
    let sender = PacketSocket::open(&lab.client, "eth0").unwrap();
    let receiver = PacketSocket::open(&lab.balancer, "client").unwrap();
    let mut frame = vec![0xff; 12];
    frame.extend_from_slice(&[0x81, 0x00, 0x00, 42, 0x88, 0xb5]);
    frame.extend_from_slice(&[7; 64]);
    sender.send(&frame).unwrap();
    let second = Duration::from_secs(1);
    let received = receiver.receive_if(second, |frame| frame.starts_with(&[0xff; 6])).unwrap();
    assert_eq!(received.as_deref(), Some(frame.as_slice()));
}

#[test]
fn a_process_ends_with_its_owner_even_in_a_panic() {
    let machine = Machine::new("lonely").unwrap();
    let mut id = 0;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let process = Process::start(&machine, Command::new("sleep").arg("60")).unwrap();
        id = process.id();
        assert!(fs::exists(format!("/proc/{id}")).unwrap());
        panic!("as planned");
    }));
    assert!(panicked.is_err());
    assert!(!fs::exists(format!("/proc/{id}")).unwrap(), "process {id} outlived its owner");
}

#[test]
fn the_machines_own_devices_are_never_touched() {
    let own = || -> BTreeSet<String> {
        let entries = fs::read_dir("/sys/class/net").unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let before = own();
    let (lab, servers) = routed(&Layout::default());
    let during = own();
    assert!(before.is_subset(&during), "{before:?} became {during:?}");
    assert!(!during.contains(&Lab::device(1)), "the lab's devices are here: {during:?}");
    drop((lab, servers));
    assert!(before.is_subset(&own()), "{before:?} became {:?}", own());
}

#[test]
fn a_failing_line_of_ip_is_named_with_its_machine() {
    let machine = Machine::new("lonely").unwrap();
    let error = machine.ip("link set nowhere up").unwrap_err().to_string();
    assert!(error.contains("lonely") && error.contains("nowhere"), "{error}");
}

/// A lab with a server on each backend.
fn routed(layout: &Layout) -> (Lab, Vec<Server>) {
    let lab = Lab::new(layout.clone()).expect("the lab can be built");
    let serve = |(machine, network): (&Machine, u8)| {
        let addresses = Family::ALL.map(|family| backend(family, network));
        Server::start(machine, machine.name(), &addresses).expect("the server starts")
    };
    let servers = lab.backends.iter().zip(1..).map(serve).collect();
    (lab, servers)
}

fn backend(family: Family, network: u8) -> SocketAddr {
    SocketAddr::new(address(family, network, Lab::OTHER), PORT)
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "waited 10 s in vain");
        thread::sleep(Duration::from_millis(10));
    }
}
