//! Opening: new maps, maps of a process before, maps of others.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData};
use aya::programs::TcAttachType;
use aya::programs::links::{FdLink, PinnedLink};
use blixt_core::tables::{FrontendEntry, Op};
use blixt_loader::{Dataplane, Error, Hook, Options};

use crate::world::{WIRE, World, open, options, programs};

fn set_frontend(port: u16) -> Op {
    let endpoint = format!("10.0.0.1:{port}").parse::<std::net::SocketAddr>().unwrap();
    let endpoint = blixt_core::config::Endpoint {
        address: endpoint.ip(),
        port,
        protocol: blixt_core::config::Protocol::Tcp,
    };
    Op::SetFrontend(endpoint, Some(FrontendEntry { ring: 0, slots: 0, route: 0 }))
}

#[test]
fn what_is_pinned_is_taken_over() {
    World::run(|_| {
        let mut first = open();
        assert!(!first.found().is_taken_over);
        first.apply(&[set_frontend(80)]).unwrap();
        let tables = first.read_back().unwrap();
        drop(first);

        let second = open();
        assert!(second.found().is_taken_over);
        assert_eq!(second.read_back().unwrap(), tables);
        assert_eq!(tables.frontends.len(), 1);
    });
}

#[test]
fn a_second_instance_in_the_namespace_is_refused_and_names_the_first() {
    World::run(|world| {
        let first = open();
        let error = Dataplane::open(&options()).unwrap_err();
        assert!(matches!(&error, Error::Held { pid, .. } if *pid == Some(std::process::id())), "{error:?}");
        assert!(error.to_string().contains("stop it first"), "{error}");
        assert!(world.pins().join("FLOWS_V4").exists());
        drop(first);
        open();
    });
}

#[test]
fn instances_in_two_namespaces_do_not_meet() {
    World::run(|_| {
        let mut first = open();
        World::run(|_| {
            let second = open();
            first.apply(&[set_frontend(80)]).unwrap();
            assert!(second.read_back().unwrap().frontends.is_empty());
        });
        assert_eq!(first.read_back().unwrap().frontends.len(), 1);
    });
}

#[test]
fn pinned_maps_keep_their_size_and_it_is_said() {
    World::run(|_| {
        drop(open());
        let mut larger = options();
        larger.capacity.limits.frontends = 100;
        let dataplane = Dataplane::open(&larger).unwrap();
        let kept: Vec<_> = dataplane
            .found()
            .kept_sizes
            .iter()
            .map(|kept| (kept.map.as_str(), kept.pinned, kept.wanted))
            .collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(kept.contains(&("FRONTENDS_V4", 64, 100)), "{kept:?}");
        assert_eq!(*dataplane.capacity(), options().capacity);
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_refused_and_left_alone() {
    World::run(|world| {
        drop(open());
        let pin = world.pins().join("HOPS");
        fs::remove_file(&pin).unwrap();
        let other = Array::<MapData, u64>::create(65, 0).unwrap();
        other.pin(&pin).unwrap();

        let error = Dataplane::open(&options()).unwrap_err();
        assert!(
            matches!(&error, Error::PinnedMap { field: "value size", pinned: 8, path, .. } if *path == pin),
            "{error:?}"
        );
        assert!(error.to_string().contains("blixt cleanup"), "{error}");
        assert!(pin.exists());
    });
}

/// Pins of another layout, whose programs are at work.
fn left_by_another_layout(world: &World, egress: bool) -> PathBuf {
    let mut old = open();
    old.attach(world.index(WIRE.0), Hook::Tc, egress).unwrap();
    drop(old);
    let other = world.instance_directory().join("v0");
    fs::rename(world.pins(), &other).unwrap();
    other
}

#[test]
fn programs_of_another_layout_are_replaced_in_place_and_its_maps_removed() {
    World::run(|world| {
        let left = world.index(WIRE.0);
        let other = left_by_another_layout(world, false);
        let link = link_id(&other.join(format!("link-{left}-ingress")));

        let mut new = open();
        assert!(!new.found().is_taken_over);
        assert_eq!(new.found().other_layouts, std::slice::from_ref(&other));
        assert_eq!(new.attachments().unwrap().len(), 1);
        new.attach(left, Hook::Tc, false).unwrap();
        assert_eq!(link_id(&world.pins().join(format!("link-{left}-ingress"))), link);
        new.retire_other_layouts().unwrap();
        assert!(!other.exists());
        assert_eq!(new.attachments().unwrap().len(), 1);
    });
}

#[test]
fn a_link_that_another_layout_still_has_a_pin_of_is_not_detached_with_that_layout() {
    World::run(|world| {
        let left = world.index(WIRE.0);
        let other = left_by_another_layout(world, true);
        // A start was killed between pinning the links anew and removing their old pins.
        drop(open());
        for slot in ["ingress", "egress"] {
            let name = format!("link-{left}-{slot}");
            let link = FdLink::from(PinnedLink::from_pin(other.join(&name)).unwrap());
            link.pin(world.pins().join(&name)).unwrap();
        }

        let mut new = open();
        new.attach(left, Hook::Tc, true).unwrap();
        new.retire_other_layouts().unwrap();
        assert!(!other.exists());
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            assert_eq!(programs(WIRE.0, direction), 1, "{direction:?}");
        }
    });
}

#[test]
fn instances_of_dead_namespaces_are_removed_by_the_next_one() {
    let dead = World::new();
    let directory = dead.instance_directory();
    let lock = dead.lock_path();
    dead.machine().run(|| {
        let mut dataplane = open();
        dataplane.attach(dead.index(WIRE.0), Hook::Tc, false).unwrap();
    });
    assert!(directory.exists());
    dead.kill();

    let end = Instant::now() + Duration::from_secs(20);
    World::run(|_| {
        while directory.exists() {
            assert!(Instant::now() < end, "{} is still there", directory.display());
            std::thread::sleep(Duration::from_millis(50));
            drop(open());
        }
    });
    assert!(!lock.exists());
}

#[test]
fn an_instance_that_was_never_attached_goes_with_its_namespace() {
    let dead = World::new();
    let directory = dead.instance_directory();
    dead.machine().run(|| drop(open()));
    World::run(|_| {
        assert!(open().found().dead_instances.is_empty());
        assert!(directory.exists(), "its namespace is still there");
    });
    dead.kill();

    let end = Instant::now() + Duration::from_secs(20);
    World::run(|_| {
        while directory.exists() {
            assert!(Instant::now() < end, "{} is still there", directory.display());
            std::thread::sleep(Duration::from_millis(50));
            drop(open());
        }
    });
}

#[test]
fn opening_in_vain_leaves_nothing() {
    World::run(|world| {
        let mut impossible = options();
        impossible.capacity.limits.backends = u32::MAX - 1;
        Dataplane::open(&impossible).unwrap_err();
        assert!(!world.lock_path().exists(), "a lock is left");
        assert!(!world.instance_directory().exists(), "pins are left");
    });
}

#[test]
fn settings_do_not_hinder_taking_over() {
    World::run(|_| {
        drop(open());
        let mut settings = Options { ..options() };
        settings.settings.first_port = 30_000;
        assert!(Dataplane::open(&settings).unwrap().found().is_taken_over);
    });
}

fn link_id(pin: &std::path::Path) -> u32 {
    FdLink::from(PinnedLink::from_pin(pin).unwrap()).info().unwrap().id()
}
