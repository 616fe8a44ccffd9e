//! `blixt demo` from outside: its summary, its exit code, and what is left of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use blixt_lab::programs;

use crate::permit::Permit;
use crate::world::PATIENCE;

#[test]
fn the_demo_sees_what_it_promises_and_leaves_nothing_behind() {
    assert_shown(&[], "tc");
}

#[test]
fn the_demo_shows_the_same_at_the_xdp_hook() {
    assert_shown(&["--hook", "xdp"], "xdp");
}

fn assert_shown(arguments: &[&str], hook: &str) {
    let _permit = Permit::wait();
    let demo = start(arguments);
    let id = demo.id();
    let output = demo.wait_with_output().unwrap();
    let words = words(&output);
    assert!(output.status.success(), "{words}");
    assert!(!words.contains("FAIL") && words.contains("Summary"), "{words}");
    for shown in
        ["kind: Gateway", "kind: TCPRoute", "kind: UDPRoute", "0 of 10000 datagrams lost", "backend-3"]
    {
        assert!(words.contains(shown), "no {shown:?} in:\n{words}");
    }
    assert!(words.contains(&format!("packets are taken by {hook} at")), "no hook {hook:?} in:\n{words}");
    assert_eq!(children_of(id), BTreeSet::new());
}

#[test]
fn what_the_demo_keeps_can_be_looked_at_until_it_is_interrupted() {
    let _permit = Permit::wait();
    let mut demo = start(&["--keep"]);
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let kept: Vec<String> = lines
        .by_ref()
        .skip_while(|line| !line.contains("Everything is kept"))
        .filter(|line| !line.trim().is_empty())
        .take(4)
        .collect();
    let word = |line: &str, start: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(start).map(str::to_owned))
    };
    let balancer = word(&kept[2], "--net=").unwrap();
    let manifests = kept[3].split(' ').next_back().unwrap().to_owned();
    let mut status = Command::new("nsenter");
    status.args([&format!("--net={balancer}"), env!("CARGO_BIN_EXE_blixt"), "status", "-o", "json"]);
    let status = status.output().unwrap();
    assert!(status.status.success(), "{}", words(&status));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["instance"]["ready"], true, "{status}");
    assert!(fs::read_dir(&manifests).unwrap().count() > 2, "{manifests}");

    Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(demo.wait().unwrap().success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("Summary")), "{rest:?}");
    for gone in [&balancer, &manifests] {
        assert!(!fs::exists(gone).unwrap(), "{gone} stays");
    }
}

#[test]
fn the_demo_takes_down_what_it_made_when_it_is_interrupted() {
    let _permit = Permit::wait();
    let mut demo = start(&[]);
    let id = demo.id();
    let deadline = Instant::now() + PATIENCE;
    let balancer = loop {
        assert!(
            demo.try_wait().unwrap().is_none() && Instant::now() < deadline,
            "the demo started no balancer"
        );
        if let Some(balancer) = children_of(id).first() {
            break *balancer;
        }
        thread::sleep(Duration::from_millis(20));
    };
    // In the middle of what it shows.
    thread::sleep(Duration::from_secs(3));
    let held = held_by(balancer);
    Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap();
    let output = demo.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("interrupted"), "{}", words(&output));
    assert!(!fs::exists(format!("/proc/{balancer}")).unwrap(), "the balancer goes on");
    let deadline = Instant::now() + PATIENCE;
    while held.iter().any(|id| programs().unwrap().contains_key(id)) {
        assert!(Instant::now() < deadline, "some of the programs {held:?} are left in the kernel");
        thread::sleep(Duration::from_millis(20));
    }
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blixt"));
    command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn words(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// The processes that a process started.
pub fn children_of(parent: u32) -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        // `ID (NAME) STATE PARENT ...`, where the name may hold anything.
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let parent_of =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parent_of == Some(parent)
    })
    .collect()
}

fn held_by(id: u32) -> BTreeSet<u32> {
    let entries = fs::read_dir(format!("/proc/{id}/fdinfo")).into_iter().flatten().flatten();
    let texts = entries.map(|entry| fs::read_to_string(entry.path()).unwrap_or_default());
    let lines: Vec<_> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.iter().filter_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()).collect()
}
