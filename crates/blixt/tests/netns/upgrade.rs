//! Another process takes over, or fails to, under load.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use blixt_lab::{Attempt, Busy, BusyConnection, Churn, Family, Pace, Pacer, Protocol, linked_program};
use blixt_packet::abi::ABI_VERSION;
use tempfile::TempDir;

use crate::balancing::everything;
use crate::build;
use crate::changes::{assert_served, assert_unharmed};
use crate::permission::answer_bpf_with;
use crate::world::{BLIXT, Hook, PATIENCE, World, vip};

on_both_hooks!(
    twenty_ends_and_starts_of_two_builds_under_load_lose_nothing,
    a_start_that_fails_leaves_the_programs_at_work,
);

/// Between a message of a busy connection, or a new connection, and the next.
const PAUSE: Duration = Duration::from_millis(10);

fn twenty_ends_and_starts_of_two_builds_under_load_lose_nothing(hook: Hook) {
    let mut world = World::usual(hook);
    let directory = TempDir::new().unwrap();
    let builds = [BLIXT.into(), build::of_another_version(directory.path())];
    assert_ne!(version(&builds[0]), version(&builds[1]));
    let load = Load::start(&world);
    for round in 0..20 {
        // Every other process gets no chance to say good-bye.
        if round % 2 == 0 {
            world.process().kill().unwrap();
        } else {
            world.process().signal(libc::SIGTERM).unwrap();
            assert!(world.process().wait(PATIENCE).unwrap().is_some(), "SIGTERM did not end it");
        }
        let before = programs(&world);
        world.launch(Command::new(&builds[round / 2 % 2]), &[]);
        world.wait_until_ready();
        assert!(programs(&world).iter().all(|(link, program)| before[link] != *program), "{before:?}");
    }
    load.assert_unharmed();
}

fn a_start_that_fails_leaves_the_programs_at_work(hook: Hook) {
    let mut world = World::usual(hook);
    let directory = TempDir::new().unwrap();
    let refused = build::that_the_verifier_refuses(directory.path());
    let load = Load::start(&world);
    world.process().kill().unwrap();
    let before = programs(&world);
    for is_of_another_layout in [false, true] {
        if is_of_another_layout {
            let own = world.layout(ABI_VERSION);
            fs::rename(&own, own.with_file_name("v0")).unwrap();
        }
        for (why, blixt) in [("the verifier", Command::new(&refused)), ("permission", without_loading())] {
            world.launch(blixt, &[]);
            assert_eq!(world.wait_for_the_end(), Some(1), "{why}: {}", world.log());
            assert_eq!(
                programs(&world).into_values().collect::<Vec<_>>(),
                before.values().copied().collect::<Vec<_>>(),
                "{why}"
            );
            for (protocol, family) in everything() {
                let tally = world.dial(protocol, family, 20);
                assert_eq!(tally.answered(), 20, "{why}: {protocol} {family:?}: {tally:?}");
            }
        }
        if is_of_another_layout {
            assert!(
                !world.pins().iter().any(|pin| pin.ends_with(format!("v{ABI_VERSION}"))),
                "{:?}",
                world.pins()
            );
            let other = world.layout(0);
            fs::rename(&other, other.with_file_name(format!("v{ABI_VERSION}"))).unwrap();
        }
    }
    let log = world.log();
    assert!(
        log.contains("the kernel's verifier refuses") && log.contains("cannot load the kernel program"),
        "{log}"
    );
    world.start();
    load.assert_unharmed();
}

/// 200 busy connections, new ones, and datagrams that are counted, until it is over.
struct Load {
    busy: [Busy; 2],
    churn: [Churn; 2],
    pacers: [Pacer; 2],
}

impl Load {
    fn start(world: &World) -> Self {
        let client = &world.lab.client;
        let pace = Pace { flows: 16, datagrams: u64::MAX, rate: 5_000 };
        Self {
            busy: Family::ALL.map(|family| Busy::start(client, vip(family), 100, PAUSE).unwrap()),
            churn: Family::ALL.map(|family| Churn::start(client, Protocol::Tcp, vip(family), PAUSE)),
            pacers: Family::ALL.map(|family| Pacer::start(client, vip(family), pace).unwrap()),
        }
    }

    #[track_caller]
    fn assert_unharmed(self) {
        for pacer in self.pacers {
            let report = pacer.stop();
            println!("{} datagrams", report.sent);
            assert!(report.sent > 1_000, "{report:?}");
            assert_eq!((report.lost(), report.duplicates, report.moved), (0, 0, 0), "{report:?}");
            assert_eq!((report.garbled, report.failures.len()), (0, 0), "{report:?}");
        }
        let attempts: Vec<Attempt> = self.churn.into_iter().flat_map(Churn::finish).collect();
        assert_served(&attempts);
        let busy: Vec<BusyConnection> = self.busy.into_iter().flat_map(Busy::finish).collect();
        assert_unharmed(&busy);
    }
}

/// The programs at work, by the pin of their link.
fn programs(world: &World) -> BTreeMap<PathBuf, u32> {
    let is_link = |pin: &PathBuf| pin.file_name().unwrap().to_string_lossy().starts_with("link-");
    let program = |pin: PathBuf| {
        let program = linked_program(&pin).unwrap();
        (pin, program)
    };
    world.pins().into_iter().filter(is_link).map(program).collect()
}

fn version(blixt: &Path) -> String {
    let output = Command::new(blixt).arg("--version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `blixt`, which is not allowed to load a program.
fn without_loading() -> Command {
    const PROGRAM_LOAD: u32 = 5;
    let mut command = Command::new(BLIXT);
    // SAFETY: between fork and exec it only calls prctl.
    unsafe { command.pre_exec(|| answer_bpf_with(libc::EPERM, Some(PROGRAM_LOAD))) };
    command
}
