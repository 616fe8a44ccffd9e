//! `--interface` and `--hook`: where programs are attached, and what that means for packets.

use std::collections::BTreeMap;
use std::process::Command;

use blixt_lab::{Family, Protocol, tally};

use crate::manifests::Manifests;
use crate::world::{BLIXT, Hook, World, until, vip};

on_both_hooks!(
    only_interfaces_that_are_named_take_packets,
    without_an_interface_nothing_is_ready_until_one_appears,
);

fn only_interfaces_that_are_named_take_packets(hook: Hook) {
    let mut manifests = Manifests::usual();
    manifests.remove(3);
    let mut world = World::idle(hook, manifests);
    let named = ["--interface", "client", "--interface", "backend[12]"];
    world.start_with(&named);
    assert_only_the_named_ones(&world, hook);
    // What an instance before it attached goes, too.
    world.process().kill().unwrap();
    world.start();
    assert_eq!(hooks(&world).len(), 4, "{:?}", hooks(&world));
    let from_behind = tally(&world.lab.backends[2], Protocol::Tcp, vip(Family::V4), 5);
    assert_eq!(from_behind.answered(), 5, "{from_behind:?}");
    world.process().kill().unwrap();
    world.start_with(&named);
    assert_only_the_named_ones(&world, hook);
}

fn without_an_interface_nothing_is_ready_until_one_appears(hook: Hook) {
    let mut world = World::idle(hook, Manifests::usual());
    world.launch(Command::new(BLIXT), &["--interface", "later*"]);
    until("it is alive", || world.get("/healthz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    until("status says why it is not ready", || {
        let said = world.status()["problems"].to_string();
        said.contains("`--interface` matches none of") && said.contains("backend1")
    });
    assert!(world.get("/readyz").unwrap().starts_with("HTTP/1.1 503"));
    until("nothing is programmed", || programmed(&world) == "False");
    assert_eq!(hooks(&world), BTreeMap::new());
    world.lab.balancer.ip("link add later0 type veth peer name other0\nlink set later0 up").unwrap();
    world.wait_until_ready();
    assert_eq!(hooks(&world).into_keys().collect::<Vec<_>>(), ["later0"]);
    until("it is programmed", || programmed(&world) == "True");
    until("status has no problem left", || world.status()["problems"] == serde_json::json!([]));
}

#[test]
fn the_hook_is_chosen_by_the_flag_and_by_what_the_device_can_do() {
    let mut world = World::idle(Hook::Xdp, Manifests::usual());
    // A bridge has no native mode.
    world.lab.balancer.ip("link add plain type bridge\nlink set plain up").unwrap();
    for (flag, veth, plain) in [("auto", "tc", "tc"), ("xdp", "xdp", "xdp generic"), ("tc", "tc", "tc")] {
        world.start_with(&["--hook", flag]);
        let mut expected: BTreeMap<_, _> = ["client", "backend1", "backend2", "backend3"]
            .map(|device| (device.to_owned(), veth.to_owned()))
            .into();
        expected.insert("plain".to_owned(), plain.to_owned());
        assert_eq!(hooks(&world), expected, "--hook {flag}");
        for family in Family::ALL {
            assert_eq!(world.dial(Protocol::Tcp, family, 10).answered(), 10, "--hook {flag}");
        }
        world.process().kill().unwrap();
    }
}

fn assert_only_the_named_ones(world: &World, hook: Hook) {
    let name = if hook == Hook::Tc { "tc" } else { "xdp" };
    let expected = ["client", "backend1", "backend2"].map(|device| (device.to_owned(), name.to_owned()));
    assert_eq!(hooks(world), expected.into());
    for family in Family::ALL {
        assert_eq!(world.dial(Protocol::Tcp, family, 10).answered(), 10, "{family:?}");
    }
    let from_behind = tally(&world.lab.backends[2], Protocol::Tcp, vip(Family::V4), 1);
    assert_eq!(from_behind.answered(), 0, "backend3 is not named: {from_behind:?}");
}

/// The status of the Gateway's condition `Programmed`.
fn programmed(world: &World) -> String {
    let status = world.status();
    let mut objects = status["objects"].as_array().unwrap().iter();
    let gateway = objects.find(|object| object["kind"] == "Gateway").unwrap();
    let mut conditions = gateway["conditions"].as_array().unwrap().iter();
    let condition = conditions.find(|condition| condition["type"] == "Programmed");
    condition.and_then(|condition| condition["status"].as_str()).unwrap_or_default().to_owned()
}

/// The hook of each device, as status has them.
fn hooks(world: &World) -> BTreeMap<String, String> {
    let status = world.status();
    let hooks = status["hooks"].as_array().unwrap().iter();
    let of = |hook: &serde_json::Value, field: &str| hook[field].as_str().unwrap().to_owned();
    hooks.map(|hook| (of(hook, "device"), of(hook, "hook"))).collect()
}
