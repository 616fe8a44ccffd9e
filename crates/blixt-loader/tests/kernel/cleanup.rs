//! Cleaning up leaves nothing, and may be done at any time.

use aya::programs::TcAttachType;
use blixt_loader::{Error, Hook, cleanup};

use crate::world::{WIRE, World, open, programs};

#[test]
fn nothing_is_left() {
    World::run(|world| {
        let mut dataplane = open();
        dataplane.attach(world.index(WIRE.0), Hook::Tc, true).unwrap();
        dataplane.attach(world.index(WIRE.1), Hook::Xdp, false).unwrap();
        drop(dataplane);
        let pins = world.pins();
        assert!(pins.exists());
        cleanup().unwrap();
        assert_nothing(world);
        cleanup().unwrap();
        assert_nothing(world);
    });
}

#[test]
fn the_owner_can_remove_it_all() {
    World::run(|world| {
        let mut dataplane = open();
        dataplane.attach(world.index(WIRE.0), Hook::Tc, false).unwrap();
        dataplane.remove().unwrap();
        assert_nothing(world);
    });
}

#[test]
fn a_running_instance_is_not_cleaned_up_under_its_feet() {
    World::run(|world| {
        let dataplane = open();
        assert!(matches!(cleanup(), Err(Error::Held { .. })));
        assert!(world.pins().exists());
        drop(dataplane);
    });
}

fn assert_nothing(world: &World) {
    assert!(!world.instance_directory().exists());
    assert!(!world.lock_path().exists());
    for device in [WIRE.0, WIRE.1] {
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            assert_eq!(programs(device, direction), 0, "{device} {direction:?}");
        }
        let link =
            world.machine().output(std::process::Command::new("ip").args(["link", "show", device])).unwrap();
        assert!(!link.contains("xdp"), "{link}");
    }
}
