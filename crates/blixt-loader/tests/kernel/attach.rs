//! Attaching: every hook, replacing in place, devices that go and come back.

use std::process::Command;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{SchedClassifier, TcAttachType};
use blixt_loader::{Attachment, Dataplane, Hook, Mode, Options, cleanup};

use crate::world::{WIRE, World, has_tcx, open, options, programs};

fn show(world: &World, arguments: &[&str]) -> String {
    let (program, arguments) = arguments.split_first().unwrap();
    world.machine().output(Command::new(program).args(arguments)).unwrap()
}

#[test]
fn a_virtual_device_is_hooked_by_tc_unless_xdp_is_wished() {
    World::run(|world| {
        let left = world.index(WIRE.0);
        let mut dataplane = open();
        let attachment = dataplane.attach(left, Hook::Auto, false).unwrap();
        let by_filter = !has_tcx();
        let tc = Attachment { ifindex: left, ingress: Some(Mode::Tc), egress: false, by_filter };
        assert_eq!(attachment, tc);
        assert_eq!((programs(WIRE.0, TcAttachType::Ingress), programs(WIRE.0, TcAttachType::Egress)), (1, 0));

        let attachment = dataplane.attach(left, Hook::Xdp, true).unwrap();
        assert_eq!(attachment, Attachment { ingress: Some(Mode::XdpNative), egress: true, ..tc.clone() });
        assert_eq!((programs(WIRE.0, TcAttachType::Ingress), programs(WIRE.0, TcAttachType::Egress)), (1, 1));
        assert_eq!(dataplane.attachments().unwrap(), [attachment]);

        dataplane.attach(left, Hook::Tc, false).unwrap();
        assert!(!show(world, &["ip", "link", "show", WIRE.0]).contains("xdp"));
        assert_eq!(dataplane.attachments().unwrap(), [tc]);
    });
}

#[test]
fn the_verifier_sees_only_the_programs_that_the_hooks_need() {
    World::run(|world| {
        let left = world.index(WIRE.0);
        let mut dataplane = open();
        let loaded = |dataplane: &Dataplane| dataplane.loaded_programs().collect::<Vec<_>>();
        dataplane.attach(left, Hook::Tc, false).unwrap();
        assert_eq!(loaded(&dataplane), ["blixt_ingress"]);
        dataplane.attach(left, Hook::Tc, true).unwrap();
        assert_eq!(loaded(&dataplane), ["blixt_ingress", "blixt_egress"]);
        dataplane.attach(left, Hook::Xdp, false).unwrap();
        assert_eq!(loaded(&dataplane), ["blixt_ingress", "blixt_egress", "blixt_xdp"]);
    });
}

#[test]
fn xdp_is_generic_where_the_driver_has_no_native_one() {
    World::run(|world| {
        world.ip("link add bridge0 type bridge");
        let bridge = world.index("bridge0");
        for _ in 0..2 {
            let attachment = open().attach(bridge, Hook::Xdp, false).unwrap();
            assert_eq!(attachment.ingress, Some(Mode::XdpGeneric));
            assert!(show(world, &["ip", "link", "show", "bridge0"]).contains("xdpgeneric"));
        }
        let attachment = open().attach(bridge, Hook::Auto, false).unwrap();
        assert_eq!(attachment.ingress, Some(Mode::Tc));
    });
}

#[test]
fn xdp_is_generic_where_the_driver_takes_it_only_from_a_smaller_mtu_on() {
    World::run(|world| {
        world.ip(&format!("link set {} mtu 9000\nlink set {} mtu 9000", WIRE.0, WIRE.1));
        let attachment = open().attach(world.index(WIRE.0), Hook::Xdp, true).unwrap();
        assert_ne!(attachment.ingress, Some(Mode::XdpNative));
        assert_eq!((programs(WIRE.0, TcAttachType::Ingress), programs(WIRE.0, TcAttachType::Egress)), (1, 1));
    });
}

#[test]
fn a_restart_replaces_the_program_of_the_same_link() {
    World::run(|world| {
        let (left, right) = (world.index(WIRE.0), world.index(WIRE.1));
        let pins = [(left, "ingress"), (left, "egress"), (right, "xdp")]
            .map(|(ifindex, slot)| world.pins().join(format!("link-{ifindex}-{slot}")));
        let ids = || {
            pins.each_ref().map(|pin| {
                let info = FdLink::from(PinnedLink::from_pin(pin).unwrap()).info().unwrap();
                (info.id(), info.program_id())
            })
        };
        let attach = || {
            let mut dataplane = open();
            dataplane.attach(left, Hook::Tc, true).unwrap();
            dataplane.attach(right, Hook::Xdp, false).unwrap();
        };
        attach();
        let before = ids();
        // The process is gone, the programs are at work.
        assert_eq!(programs(WIRE.0, TcAttachType::Ingress), 1);
        attach();
        for ((link, program), (link_before, program_before)) in ids().into_iter().zip(before) {
            assert_eq!(link, link_before);
            assert_ne!(program, program_before);
        }
    });
}

#[test]
fn a_device_that_was_remade_is_hooked_afresh() {
    World::run(|world| {
        world.ip("link add again index 77 type veth peer name again1 index 78");
        let mut dataplane = open();
        dataplane.attach(77, Hook::Tc, true).unwrap();
        dataplane.attach(78, Hook::Xdp, false).unwrap();
        world.ip("link del again\nlink add again index 77 type veth peer name again1 index 78");
        assert_eq!(programs("again", TcAttachType::Ingress), 0);
        dataplane.attach(77, Hook::Tc, true).unwrap();
        dataplane.attach(78, Hook::Xdp, false).unwrap();
        assert_eq!(
            (programs("again", TcAttachType::Ingress), programs("again", TcAttachType::Egress)),
            (1, 1)
        );
        assert!(show(world, &["ip", "link", "show", "again1"]).contains("xdp"));
    });
}

#[test]
fn a_device_that_is_gone_leaves_no_pin_once_detached() {
    World::run(|world| {
        let left = world.index(WIRE.0);
        let mut dataplane = open();
        dataplane.attach(left, Hook::Tc, true).unwrap();
        world.ip(&format!("link del {}", WIRE.0));
        assert_eq!(dataplane.attachments().unwrap().len(), 1);
        let error = dataplane.attach(left, Hook::Tc, true).unwrap_err();
        assert!(error.to_string().contains("the device is gone"), "{error}");
        dataplane.detach(left).unwrap();
        assert_eq!(dataplane.attachments().unwrap(), []);
    });
}

#[test]
fn a_foreign_xdp_program_is_left_alone_and_tc_does_the_work() {
    World::run(|world| {
        let (left, right) = (world.index(WIRE.0), world.index(WIRE.1));
        let mut dataplane = open();
        dataplane.attach(left, Hook::Xdp, false).unwrap();
        // Another one's link on a device: ours cannot be a second.
        let pin = world.pins().join(format!("link-{left}-xdp"));
        let foreign = world.instance_directory().join("foreign");
        std::fs::rename(&pin, &foreign).unwrap();
        let attachment = dataplane.attach(left, Hook::Xdp, false).unwrap();
        assert_eq!(attachment.ingress, Some(Mode::Tc));
        assert_eq!(programs(WIRE.0, TcAttachType::Ingress), 1);
        assert!(show(world, &["ip", "link", "show", WIRE.0]).contains("xdp"));
        dataplane.attach(right, Hook::Xdp, false).unwrap();
        std::fs::remove_file(foreign).unwrap();
    });
}

#[test]
fn what_others_have_at_the_same_hooks_stays_through_start_restart_and_removal() {
    World::run(|world| {
        let (left, right) = (world.index(WIRE.0), world.index(WIRE.1));
        let mut dataplane = open();
        put_foreign_filters(world, &mut dataplane);
        dataplane.attach(left, Hook::Tc, true).unwrap();
        dataplane.attach(right, Hook::Xdp, false).unwrap();
        // Links without a pin are another one's, whatever program they hold.
        let links = [(left, "ingress", has_tcx()), (left, "egress", has_tcx()), (right, "xdp", true)];
        let foreign: Vec<_> = links
            .into_iter()
            .filter(|(.., is_link)| *is_link)
            .map(|(ifindex, slot, _)| {
                let pin = world.pins().join(format!("link-{ifindex}-{slot}"));
                let link = FdLink::from(PinnedLink::from_pin(&pin).unwrap());
                std::fs::remove_file(pin).unwrap();
                let info = link.info().unwrap();
                (link, info.program_id())
            })
            .collect();
        let assert_untouched = |ours: usize| {
            for (direction, side) in [(TcAttachType::Ingress, "ingress"), (TcAttachType::Egress, "egress")] {
                assert_eq!(programs(WIRE.0, direction), usize::from(has_tcx()) + 1 + ours, "{side}");
                let filters = show(world, &["tc", "filter", "show", "dev", WIRE.0, side]);
                assert!(filters.contains("pref 77 "), "{filters}");
            }
            for (link, program) in &foreign {
                assert_eq!(link.info().unwrap().program_id(), *program);
            }
            assert!(show(world, &["ip", "link", "show", WIRE.1]).contains("xdp"));
        };
        drop(dataplane);
        for _ in 0..2 {
            let mut dataplane = open();
            dataplane.attach(left, Hook::Tc, true).unwrap();
            assert_eq!(dataplane.attach(right, Hook::Xdp, false).unwrap().ingress, Some(Mode::Tc));
            assert_untouched(1);
        }
        cleanup().unwrap();
        assert_untouched(0);
    });
}

/// Filters at both sides of a device, by somebody who uses the same program.
fn put_foreign_filters(world: &World, dataplane: &mut Dataplane) {
    show(world, &["tc", "qdisc", "add", "dev", WIRE.0, "clsact"]);
    add_foreign_filters(world, dataplane);
}

fn add_foreign_filters(world: &World, dataplane: &mut Dataplane) {
    let program = dataplane.programs().unwrap().program_mut("blixt_ingress").unwrap();
    let program: &mut SchedClassifier = program.try_into().unwrap();
    let pin = world.instance_directory().join("foreign");
    program.pin(&pin).unwrap();
    for side in ["ingress", "egress"] {
        let pin = pin.to_str().unwrap();
        let filter = ["filter", "add", "dev", WIRE.0, side, "prio", "77", "bpf", "da", "object-pinned", pin];
        show(world, &[&["tc"][..], &filter].concat());
    }
    std::fs::remove_file(pin).unwrap();
}

#[test]
fn without_tcx_filters_do_the_same() {
    World::run(|world| {
        let left = world.index(WIRE.0);
        let filters = || Dataplane::open(&Options { filters: true, ..options() }).unwrap();
        let shown = |side: &str| show(world, &["tc", "filter", "show", "dev", WIRE.0, side]);
        let attachment = filters().attach(left, Hook::Auto, true).unwrap();
        assert_eq!(
            attachment,
            Attachment { ifindex: left, ingress: Some(Mode::Tc), egress: true, by_filter: true }
        );
        let before = (shown("ingress"), shown("egress"));
        assert!(before.0.contains("blixt_ingress") && before.1.contains("blixt_egress"), "{before:?}");

        // A restart replaces them: still one each, with other programs.
        let mut dataplane = filters();
        dataplane.attach(left, Hook::Auto, true).unwrap();
        assert_eq!(shown("ingress").matches("direct-action").count(), 1);
        assert_ne!((shown("ingress"), shown("egress")), before);
        assert_eq!(dataplane.attachments().unwrap(), [attachment]);

        dataplane.attach(left, Hook::Auto, false).unwrap();
        assert_eq!(shown("egress"), "");
        dataplane.detach(left).unwrap();
        assert_eq!(shown("ingress"), "");
        assert!(!show(world, &["tc", "qdisc", "show", "dev", WIRE.0]).contains("clsact"));
    });
}

#[test]
fn a_queueing_discipline_of_somebody_else_stays() {
    World::run(|world| {
        show(world, &["tc", "qdisc", "add", "dev", WIRE.0, "clsact"]);
        let left = world.index(WIRE.0);
        let mut dataplane = Dataplane::open(&Options { filters: true, ..options() }).unwrap();
        dataplane.attach(left, Hook::Tc, true).unwrap();
        dataplane.remove().unwrap();
        assert_eq!(show(world, &["tc", "filter", "show", "dev", WIRE.0, "ingress"]), "");
        assert!(show(world, &["tc", "qdisc", "show", "dev", WIRE.0]).contains("clsact"));
    });
}

#[test]
fn a_queueing_discipline_of_ours_stays_for_those_who_came_to_use_it() {
    World::run(|world| {
        let left = world.index(WIRE.0);
        let filters = || Dataplane::open(&Options { filters: true, ..options() }).unwrap();
        let mut dataplane = filters();
        dataplane.attach(left, Hook::Tc, true).unwrap();
        add_foreign_filters(world, &mut dataplane);
        let assert_untouched = |ours: usize| {
            for side in ["ingress", "egress"] {
                let shown = show(world, &["tc", "filter", "show", "dev", WIRE.0, side]);
                assert!(shown.contains("pref 77 "), "{side}: {shown}");
                assert_eq!(shown.matches("direct-action").count(), 1 + ours, "{side}: {shown}");
            }
        };
        drop(dataplane);
        let mut dataplane = filters();
        dataplane.attach(left, Hook::Tc, true).unwrap();
        assert_untouched(1);
        dataplane.detach(left).unwrap();
        assert_untouched(0);
        dataplane.attach(left, Hook::Tc, true).unwrap();
        dataplane.remove().unwrap();
        assert_untouched(0);
    });
}
