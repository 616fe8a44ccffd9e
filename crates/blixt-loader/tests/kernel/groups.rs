//! Multicast groups: joined for IPv6 addresses that devices answer for, kept without the process, left with the address.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::process::Command;

use aya::programs::TcAttachType;
use blixt_loader::{Hook, cleanup};

use crate::world::{WIRE, World, open, programs};

#[test]
fn groups_are_joined_for_owned_addresses_and_left_with_them() {
    World::run(|world| {
        let left = world.index(WIRE.0);
        let mut dataplane = open();
        dataplane.join_groups(&addresses(&[("2001:db8::aa:bb01", left), ("fd00::2", left)])).unwrap();
        assert_eq!(joined(world), ["33:33:ff:00:00:02", "33:33:ff:aa:bb:01"]);
        dataplane.join_groups(&addresses(&[("fd00::2", left), ("fd00::3", 0), ("192.0.2.1", left)])).unwrap();
        assert_eq!(joined(world), ["33:33:ff:00:00:02"]);
        // The process ends; the next one knows what it has to leave.
        drop(dataplane);
        assert_eq!(joined(world), ["33:33:ff:00:00:02"]);
        open().join_groups(&addresses(&[("fd00::4", left)])).unwrap();
        assert_eq!(joined(world), ["33:33:ff:00:00:04"]);
        cleanup().unwrap();
        assert_eq!(joined(world), [""; 0]);
    });
}

#[test]
fn a_group_goes_with_its_owner_and_a_device_that_is_gone_is_no_hindrance() {
    World::run(|world| {
        let (left, right) = (world.index(WIRE.0), world.index(WIRE.1));
        let mut dataplane = open();
        dataplane.join_groups(&addresses(&[("fd00::2", left)])).unwrap();
        dataplane.remove().unwrap();
        assert_eq!(joined(world), [""; 0]);

        let mut dataplane = open();
        dataplane.join_groups(&addresses(&[("fd00::2", right)])).unwrap();
        world.ip(&format!("link del {}", WIRE.0));
        dataplane.join_groups(&BTreeMap::new()).unwrap();
        dataplane.remove().unwrap();
    });
}

#[test]
fn a_group_that_a_device_has_lost_is_joined_again_by_the_next_start() {
    World::run(|world| {
        let wanted = addresses(&[("fd00::2", world.index(WIRE.0))]);
        open().join_groups(&wanted).unwrap();
        world.ip(&format!("maddr del 33:33:ff:00:00:02 dev {}", WIRE.0));
        assert_eq!(joined(world), [""; 0]);
        let mut dataplane = open();
        dataplane.join_groups(&wanted).unwrap();
        assert_eq!(joined(world), ["33:33:ff:00:00:02"]);
        dataplane.remove().unwrap();
        assert_eq!(joined(world), [""; 0]);
    });
}

#[test]
fn a_group_that_cannot_be_joined_has_no_mark_and_does_not_keep_the_others_back() {
    World::run(|world| {
        let nowhere = 4_000_000;
        let mut dataplane = open();
        let wanted = addresses(&[("fd00::2", nowhere), ("fd00::3", world.index(WIRE.0))]);
        let error = dataplane.join_groups(&wanted).unwrap_err();
        assert!(error.to_string().contains("4000000"), "{error}");
        assert_eq!(joined(world), ["33:33:ff:00:00:03"]);
        assert!(!world.pins().join(format!("group-{nowhere}-000002")).exists());
    });
}

#[test]
fn what_cannot_be_removed_does_not_keep_the_programs_on_their_devices() {
    World::run(|world| {
        let left = world.index(WIRE.0);
        let mut dataplane = open();
        dataplane.attach(left, Hook::Tc, true).unwrap();
        // Nothing removes a mark with something in it.
        let marks = ["group-4000000-000001", "filter-4000000-ingress"].map(|name| world.pins().join(name));
        for mark in &marks {
            fs::create_dir_all(mark.join("inside")).unwrap();
        }
        dataplane.remove().unwrap_err();
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            assert_eq!(programs(WIRE.0, direction), 0, "{direction:?}");
        }
        for mark in &marks {
            fs::remove_dir(mark.join("inside")).unwrap();
        }
        cleanup().unwrap();
        assert!(!world.instance_directory().exists());
    });
}

#[test]
fn groups_are_reported_to_switches_while_the_process_is_there() {
    World::run(|world| {
        let reported = || {
            let shown =
                world.machine().output(Command::new("ip").args(["-6", "maddr", "show", "dev", WIRE.0]));
            shown.unwrap().contains("ff02::1:ffaa:bb01")
        };
        let left = world.index(WIRE.0);
        let mut dataplane = open();
        dataplane.join_groups(&addresses(&[("2001:db8::aa:bb01", left)])).unwrap();
        assert!(reported());
        dataplane.join_groups(&BTreeMap::new()).unwrap();
        assert!(!reported());
        dataplane.join_groups(&addresses(&[("2001:db8::aa:bb01", left)])).unwrap();
        drop(dataplane);
        assert!(!reported());
        assert_eq!(joined(world), ["33:33:ff:aa:bb:01"]);
    });
}

#[test]
fn a_group_of_another_layout_stays_where_it_is_still_needed() {
    World::run(|world| {
        let left = world.index(WIRE.0);
        let mut old = open();
        old.join_groups(&addresses(&[("fd00::2", left), ("fd00::3", left)])).unwrap();
        drop(old);
        fs::rename(world.pins(), world.instance_directory().join("v0")).unwrap();
        let mut new = open();
        new.join_groups(&addresses(&[("fd00::3", left)])).unwrap();
        new.retire_other_layouts().unwrap();
        assert_eq!(joined(world), ["33:33:ff:00:00:03"]);
        new.remove().unwrap();
        assert_eq!(joined(world), [""; 0]);
    });
}

fn addresses(addresses: &[(&str, u32)]) -> BTreeMap<IpAddr, u32> {
    addresses.iter().map(|(address, device)| (address.parse().unwrap(), *device)).collect()
}

/// The groups that the left device was told to join.
fn joined(world: &World) -> Vec<String> {
    let shown = world.machine().output(Command::new("ip").args(["maddr", "show", "dev", WIRE.0])).unwrap();
    let mut groups: Vec<String> = shown
        .lines()
        .filter(|line| line.contains("static"))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("33:33:ff:")))
        .map(str::to_owned)
        .collect();
    groups.sort();
    groups
}
