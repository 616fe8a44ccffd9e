//! The process dies, ends, starts again: what the kernel goes on doing, and what is left.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::Duration;

use blixt_lab::{Busy, BusyConnection, Churn, Family, Pace, Pacer, Process, Protocol, programs};
use blixt_packet::abi::ABI_VERSION;

use crate::balancing::everything;
use crate::changes::assert_unharmed;
use crate::manifests::{Manifests, State};
use crate::world::{BLIXT, Hook, PATIENCE, World, until, until_within, vip};

on_both_hooks!(
    sigkill_amid_200_busy_connections_and_50_000_datagrams_loses_none,
    a_restart_takes_over_without_harm_and_follows_what_changed_meanwhile,
    what_another_version_left_at_work_is_replaced_without_a_gap,
    sigterm_leaves_forwarding_in_place,
    sigint_removes_every_trace,
    cleanup_after_sigkill_removes_every_trace,
);

const BUSY_PAUSE: Duration = Duration::from_millis(10);

fn sigkill_amid_200_busy_connections_and_50_000_datagrams_loses_none(hook: Hook) {
    let mut world = World::usual(hook);
    let busy =
        Family::ALL.map(|family| Busy::start(&world.lab.client, vip(family), 100, BUSY_PAUSE).unwrap());
    let pace = Pace { flows: 16, datagrams: 25_000, rate: 6_000 };
    let pacers = Family::ALL.map(|family| Pacer::start(&world.lab.client, vip(family), pace).unwrap());
    until_within(4 * PATIENCE, "some thousand datagrams", || pacers.iter().all(|pacer| pacer.sent() > 5_000));
    world.process().kill().unwrap();
    let sent_at_kill = pacers.each_ref().map(Pacer::sent);
    assert!(
        sent_at_kill.iter().all(|sent| *sent < pace.datagrams),
        "killed after the last: {sent_at_kill:?}"
    );
    // New connections too.
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, 30);
        assert_eq!(tally.answered(), 30, "{protocol} {family:?}: {tally:?}");
    }
    for pacer in pacers {
        let report = pacer.finish();
        assert_eq!((report.sent, report.lost()), (pace.datagrams, 0), "{report:?}");
        assert_eq!((report.duplicates, report.moved, report.garbled), (0, 0, 0), "{report:?}");
    }
    let busy: Vec<_> = busy.into_iter().flat_map(Busy::finish).collect();
    assert_eq!(busy.len(), 200);
    assert_unharmed(&busy);
}

fn a_restart_takes_over_without_harm_and_follows_what_changed_meanwhile(hook: Hook) {
    let mut world = World::usual(hook);
    let busy = Busy::start(&world.lab.client, vip(Family::V4), 40, BUSY_PAUSE).unwrap();
    let pace = Pace { flows: 8, datagrams: 20_000, rate: 4_000 };
    let pacer = Pacer::start(&world.lab.client, vip(Family::V6), pace).unwrap();
    // Once with nothing changed, after a hard end and after a soft one.
    world.process().kill().unwrap();
    world.start();
    world.process().signal(libc::SIGTERM).unwrap();
    assert!(world.process().wait(PATIENCE).unwrap().is_some(), "SIGTERM did not end it");
    world.start();
    let report = pacer.finish();
    assert_eq!((report.lost(), report.duplicates, report.moved), (0, 0, 0), "{report:?}");
    assert_unharmed(&busy.now());
    // Once with a backend gone meanwhile.
    world.process().kill().unwrap();
    world.change(|manifests| manifests.remove(2));
    world.start();
    let tally = world.dial(Protocol::Tcp, Family::V4, 40);
    assert_eq!((tally.answered(), tally.of("backend-2")), (40, 0), "{tally:?}");
    let of_the_removed = |one: &BusyConnection| one.backend.as_deref() == Some("backend-2");
    until("connections to the removed backend are ended", || {
        busy.now().iter().filter(|one| of_the_removed(one)).all(|one| one.failure.is_some())
    });
    let (gone, stayed): (Vec<_>, Vec<_>) = busy.finish().into_iter().partition(of_the_removed);
    assert!(!gone.is_empty(), "backend-2 had no connection to lose");
    assert_unharmed(&stayed);
}

fn what_another_version_left_at_work_is_replaced_without_a_gap(hook: Hook) {
    let mut world = World::usual(hook);
    let busy = Family::ALL.map(|family| Busy::start(&world.lab.client, vip(family), 20, BUSY_PAUSE).unwrap());
    let churn =
        Family::ALL.map(|family| Churn::start(&world.lab.client, Protocol::Tcp, vip(family), BUSY_PAUSE));
    world.process().kill().unwrap();
    // Its maps are of another layout; and a backend is drained meanwhile, to which the manifests lead nobody any more.
    world.change(|manifests| manifests.endpoints(2).for_each(|endpoint| endpoint.state = State::Terminating));
    let own = world.layout(ABI_VERSION);
    let other = own.with_file_name("v0");
    fs::rename(&own, &other).unwrap();
    world.start();
    until("the other version's maps are gone", || !other.exists());
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, 20);
        assert_eq!(tally.answered(), 20, "{protocol} {family:?}: {tally:?}");
    }
    for attempt in churn.into_iter().flat_map(Churn::finish) {
        assert!(attempt.result.is_ok(), "a new connection: {attempt:?}");
    }
    let busy: Vec<_> = busy.into_iter().flat_map(Busy::finish).collect();
    assert_unharmed(&busy);
    assert!(
        busy.iter().any(|one| one.backend.as_deref() == Some("backend-2")),
        "backend-2 had no connection to keep"
    );
    let log = world.log();
    assert!(
        log.contains("took connections over from another version") && log.contains("replaced what"),
        "{log}"
    );
    assert_eq!(world.status()["problems"], serde_json::json!([]));
}

fn sigterm_leaves_forwarding_in_place(hook: Hook) {
    let mut world = World::usual(hook);
    let busy = Busy::start(&world.lab.client, vip(Family::V6), 20, BUSY_PAUSE).unwrap();
    world.process().signal(libc::SIGTERM).unwrap();
    let status = world.process().wait(PATIENCE).unwrap().expect("SIGTERM did not end it");
    assert!(status.success(), "{status}");
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, 20);
        assert_eq!(tally.answered(), 20, "{protocol} {family:?}: {tally:?}");
    }
    assert_unharmed(&busy.finish());
}

fn sigint_removes_every_trace(hook: Hook) {
    let mut world = World::usual(hook);
    let running = running(&mut world);
    world.process().signal(libc::SIGINT).unwrap();
    let status = world.process().wait(PATIENCE).unwrap().expect("SIGINT did not end it");
    assert!(status.success(), "{status}");
    assert_no_trace(&world, &running);
}

fn cleanup_after_sigkill_removes_every_trace(hook: Hook) {
    let mut world = World::usual(hook);
    let running = running(&mut world);
    world.process().kill().unwrap();
    let cleanup = world.blixt(&["cleanup"]);
    assert!(cleanup.status.success(), "{}", String::from_utf8_lossy(&cleanup.stderr));
    assert_no_trace(&world, &running);
    // Twice does no harm.
    assert!(world.blixt(&["cleanup"]).status.success());
}

#[test]
fn a_second_instance_in_the_same_namespace_is_refused() {
    let world = World::usual(Hook::Tc);
    let directory = world.directory();
    let second = world.blixt(&["run", "-f", directory.to_str().unwrap()]);
    let words = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(3), "{words}");
    assert!(words.contains("another Blixt") && words.contains("stop it first"), "{words}");
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, 10).answered(), 10);
}

#[test]
fn of_several_that_start_at_once_one_serves_and_the_others_say_why_not() {
    let world = World::idle(Hook::Tc, Manifests::usual());
    let start = || {
        let mut command = Command::new(BLIXT);
        command.args(["run", "--flows", "1024", "-f"]).arg(world.directory());
        let mut log = tempfile::tempfile().unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone().unwrap());
        let process = Process::start(&world.lab.balancer, &mut command).unwrap();
        let words = move || {
            let mut words = String::new();
            log.rewind().and_then(|()| log.read_to_string(&mut words)).unwrap();
            words
        };
        (process, words)
    };
    let mut started: Vec<_> = (0..4).map(|_| start()).collect();
    until("all but one have ended", || {
        started.iter_mut().filter_map(|(process, _)| process.ended().unwrap()).count() == 3
    });
    until("one serves", || world.dial(Protocol::Tcp, Family::V4, 10).answered() == 10);
    for (process, words) in &mut started {
        let Some(status) = process.ended().unwrap() else { continue };
        assert_eq!(status.code(), Some(3), "{}", words());
        assert!(words().contains("another Blixt") && words().contains("stop it first"), "{}", words());
    }
}

#[test]
fn a_first_start_that_fails_leaves_nothing_behind() {
    let world = World::idle(Hook::Tc, Manifests::usual());
    let directory = world.directory();
    // No directory can be made there.
    let arguments = ["run", "-f", directory.to_str().unwrap(), "--status-dir", "/dev/null/statuses"];
    let failed = world.blixt(&arguments);
    let words = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success() && words.contains("/dev/null/statuses"), "{words}");
    assert_no_trace(&world, &BTreeSet::new());
}

/// The programs of the running instance, which are in the kernel's list.
fn running(world: &mut World) -> BTreeSet<u32> {
    let held = world.process().programs().unwrap();
    let listed = programs().unwrap();
    assert!(!held.is_empty() && held.iter().all(|id| listed.contains_key(id)), "{held:?} of {listed:?}");
    assert!(!world.pins().is_empty(), "nothing is pinned while blixt runs");
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, 5).answered(), 5);
    until("the kernel keeps the neighbours", || ip(world, &["neigh"]).contains("managed"));
    held
}

fn ip(world: &World, arguments: &[&str]) -> String {
    world.lab.balancer.output(Command::new("ip").args(arguments)).unwrap()
}

fn assert_no_trace(world: &World, held: &BTreeSet<u32>) {
    assert_eq!(world.pins(), BTreeSet::new());
    // The kernel frees a program some milliseconds after its last user.
    until("its programs are gone from the kernel", || {
        let left = programs().unwrap();
        held.iter().all(|id| !left.contains_key(id))
    });
    let links = ip(world, &["-d", "link"]);
    assert!(!links.contains("xdp"), "{links}");
    let neighbours = ip(world, &["neigh"]);
    assert!(!neighbours.contains("managed"), "the kernel keeps neighbours for nobody:\n{neighbours}");
    let instance = format!("{}-", world.lab.balancer.namespace().inode());
    let files = fs::read_dir("/run/blixt").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = files.filter(|name| name.to_string_lossy().starts_with(&instance)).collect();
    assert!(left.is_empty(), "left in /run/blixt: {left:?}");
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, 2).answered(), 0, "somebody still balances");
}
