//! What an operator has of a running instance: metrics, health, the log, a status that goes on, SIGHUP.

use std::fs;
use std::io::BufReader;
use std::process::{Command, Stdio};

use blixt_lab::{Busy, Family, Process, Protocol};
use serde_json::Value;

use crate::changes::assert_unharmed;
use crate::manifests::{Listener, Manifests};
use crate::world::{BLIXT, Hook, METRICS, PATIENCE, World, until, until_within, vip};

#[test]
fn metrics_health_and_readiness_are_served() {
    let world = World::usual(Hook::Tc);
    for (method, path, status) in [
        ("GET", "/metrics", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/readyz", 405),
    ] {
        let answer = world.request(METRICS, method, path).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
    }
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, 7).answered(), 7);
    until("7 connections are counted", || world.metric("blixt_route_connections_total", &["tcp-80"]) == 7);
    let metrics = world.get("/metrics").unwrap();
    let (head, body) = metrics.split_once("\r\n\r\n").unwrap();
    assert!(
        head.to_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.trim_end().ends_with("# EOF"), "{body}");
    for line in body.lines() {
        let line = line
            .strip_prefix("# ")
            .map_or(line, |comment| comment.split_once(' ').map_or("", |(_, name)| name));
        assert!(line.is_empty() || line.starts_with("blixt_"), "{line}");
    }
    for expected in ["blixt_ready 1", "blixt_frontends 4", r#"blixt_hooks{hook="tc"} 4"#, "blixt_problems 0"]
    {
        assert!(body.lines().any(|line| line == expected), "no {expected:?} in:\n{body}");
    }
}

#[test]
fn a_table_of_flows_that_is_full_is_seen_in_metrics_and_status() {
    const ROOM: u64 = 2 * 1024;
    const CONNECTIONS: u64 = 1500;
    let mut world = World::idle(Hook::Tc, Manifests::usual());
    world.launch(Command::new(BLIXT), &["--flows", "1024"]);
    world.wait_until_ready();
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, CONNECTIONS as usize).answered(), CONNECTIONS);
    let metric = |name: &str, family: &str| world.metric(name, &[family]);
    let evicted = || metric("blixt_flow_entries_evicted_total", "ipv4");
    // Counted every ten seconds, at a tick.
    until_within(2 * PATIENCE, "what gave way is counted", || {
        evicted() + metric("blixt_flow_entries{", "ipv4") >= 2 * CONNECTIONS
    });
    assert_eq!(metric("blixt_flow_entries_limit", "ipv4"), ROOM);
    assert!((1..=ROOM).contains(&metric("blixt_flow_entries{", "ipv4")));
    assert!(evicted() >= 2 * CONNECTIONS - ROOM, "{} evicted", evicted());
    assert_eq!(metric("blixt_flow_entries_evicted_total", "ipv6"), 0);
    assert_eq!(world.status()["instance"]["flowEntriesEvicted"], evicted());
}

#[test]
fn nothing_but_the_metrics_listens_and_that_on_loopback() {
    let mut world = World::usual(Hook::Tc);
    assert_eq!(listening(&world), [METRICS]);
    for (flag, expected) in [("off", vec![]), ("[::1]:9700", vec!["[::1]:9700"])] {
        world.process().kill().unwrap();
        world.launch(Command::new(BLIXT), &["--listen", flag]);
        until("status is answered", || world.blixt(&["status"]).status.success());
        assert_eq!(listening(&world), expected, "--listen {flag}");
    }
    let answer = world.request("[::1]:9700", "GET", "/healthz").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn an_address_that_is_taken_or_reachable_from_elsewhere_is_refused_with_the_next_step() {
    let mut world = World::idle(Hook::Tc, Manifests::usual());
    let _other = world.lab.balancer.run(|| std::net::TcpListener::bind(METRICS)).unwrap();
    let elsewhere = ["0.0.0.0:9641", "10.0.0.1:9641", "[::]:9641", "[fd00::1]:9641"];
    let refused = elsewhere.map(|address| (address, 2, "is not a loopback address"));
    for (address, code, expected) in [(METRICS, 1, "choose another with --listen")].into_iter().chain(refused)
    {
        let said = world.log().len();
        world.launch(Command::new(BLIXT), &["--listen", address]);
        assert_eq!(world.wait_for_the_end(), Some(code), "--listen {address}");
        let words = world.log().split_off(said);
        assert!(words.contains(expected), "--listen {address}: {words}");
        assert_eq!(world.pins(), [].into(), "left behind");
    }
}

#[test]
fn each_line_of_the_log_is_an_object_where_json_is_asked_for() {
    let mut world = World::idle(Hook::Tc, Manifests::usual());
    world.start_with(&["--log-format", "json"]);
    world.change(|manifests| manifests.remove(2));
    world.write_file("wrong.yaml", "kind: [");
    until("the log tells of the file", || world.log().contains("wrong.yaml"));
    world.process().signal(libc::SIGTERM).unwrap();
    assert_eq!(world.wait_for_the_end(), Some(0));
    let log = world.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "no {field} in {line}");
        }
    }
    let ready = lines.iter().find(|line| line["message"] == "ready").unwrap();
    assert_eq!((&ready["frontends"], &ready["devices"]), (&4.into(), &4.into()), "{ready}");
    assert!(
        lines.iter().any(|line| line["level"] == "WARN" && line.to_string().contains("wrong.yaml")),
        "{log}"
    );
    // Changes, never packets: what it logged does not grow with traffic.
    world.start_with(&["--log-format", "json", "--log", "trace"]);
    world.dial(Protocol::Udp, Family::V4, 10);
    let before = world.log().lines().count();
    world.dial(Protocol::Udp, Family::V4, 300);
    let after = world.log().lines().count();
    assert!(after - before < 100, "{} lines for 300 datagrams", after - before);
}

#[test]
fn status_is_shown_again_and_again_until_it_is_interrupted() {
    let mut world = World::usual(Hook::Tc);
    let mut command = Command::new(BLIXT);
    command.args(["status", "-o", "json", "--watch"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = world.lab.balancer.spawn(&mut command).unwrap();
    let mut documents = serde_json::Deserializer::from_reader(BufReader::new(child.stdout.take().unwrap()))
        .into_iter::<Value>()
        .map(Result::unwrap);
    let first = documents.next().unwrap();
    assert_eq!(first["frontends"].as_array().unwrap().len(), 4, "{first}");
    world.change(|manifests| {
        manifests.gateways[0].listeners.retain(|listener| listener.protocol == Protocol::Tcp);
    });
    let changed = documents.by_ref().take(20).find(|view| view["frontends"].as_array().unwrap().len() == 2);
    assert!(changed.is_some(), "twenty looks later it shows what was");
    let id = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = child.wait().unwrap();
    assert!(!ended.success());
    // Of an instance that ends it says so.
    let mut command = Command::new(BLIXT);
    command.args(["status", "--watch"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut watch = Process::start(&world.lab.balancer, &mut command).unwrap();
    world.process().kill().unwrap();
    let ended = watch.wait(PATIENCE).unwrap().expect("it watches nothing");
    assert_eq!(ended.code(), Some(3));
}

#[test]
fn sighup_reads_what_no_event_told_of_and_disturbs_nothing() {
    let mut world = World::usual(Hook::Tc);
    let busy =
        Busy::start(&world.lab.client, vip(Family::V4), 10, std::time::Duration::from_millis(10)).unwrap();
    world.process().signal(libc::SIGHUP).unwrap();
    until("it reads every file again", || world.log().contains("reading every file again"));
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, 10).answered(), 10);

    // Written through another name of the file: the directory that is watched hears nothing of it.
    let path = world.directory().join("gateway-lab.yaml");
    let elsewhere = tempfile::tempdir_in(world.directory().parent().unwrap()).unwrap();
    let other_name = elsewhere.path().join("other-name");
    fs::hard_link(&path, &other_name).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut changed = world.manifests.clone();
    changed.gateways[0].listeners.push(Listener { protocol: Protocol::Tcp, port: 81 });
    fs::write(&other_name, &changed.files()["gateway-lab.yaml"]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(world.metric("blixt_frontends", &[]), 4, "an event told of it");
    world.process().signal(libc::SIGHUP).unwrap();
    until("the new listener is there", || world.metric("blixt_frontends", &[]) == 6);
    assert_unharmed(&busy.finish());
}

#[test]
fn signals_that_come_while_it_starts_do_not_keep_it_from_starting() {
    let mut world = World::idle(Hook::Tc, Manifests::usual());
    let lock = format!("{}-", world.lab.balancer.namespace().inode());
    // Not each of them finds the verifier at work.
    for _ in 0..4 {
        world.launch(Command::new(BLIXT), &[]);
        // From its lock on it catches signals.
        until("it has its lock", || {
            let mut files = fs::read_dir("/run/blixt").into_iter().flatten().flatten();
            files.any(|file| file.file_name().to_string_lossy().starts_with(&lock))
        });
        for _ in 0..400 {
            world.process().signal(libc::SIGHUP).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        world.wait_until_ready();
        world.process().signal(libc::SIGINT).unwrap();
        assert_eq!(world.wait_for_the_end(), Some(0));
    }
}

/// Every address that something in the balancer's namespace listens on, by `ss`.
fn listening(world: &World) -> Vec<String> {
    let mut command = Command::new("ss");
    let lines = world.lab.balancer.output(command.args(["-H", "-l", "-n", "-t", "-u", "-w", "-S"])).unwrap();
    lines.lines().map(|line| line.split_whitespace().nth(4).unwrap().to_owned()).collect()
}
