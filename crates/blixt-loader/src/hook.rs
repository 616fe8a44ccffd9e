//! Which hook of a device: a decision, and the facts that it needs.

/// What the user wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Hook {
    /// XDP on a wire, TC where frames may carry offloads (virtual devices).
    #[default]
    Auto,
    /// TC everywhere.
    Tc,
    /// XDP everywhere: native where the driver has it, generic elsewhere, TC where the device takes neither.
    Xdp,
}

/// How packets of a device come to the program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// TC, at ingress.
    Tc,
    /// XDP in the driver.
    XdpNative,
    /// XDP in the network stack.
    XdpGeneric,
}

/// What a device's driver says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Driver {
    /// `veth`, `bridge`, `ixgbe`, ...
    pub name: String,
    /// Where the hardware is; empty or made up for virtual devices.
    pub bus: String,
}

/// Drivers of virtual machines: their frames may come from the host itself, unfinished, and native XDP makes them give
/// their offloads up.
const PARAVIRTUAL: &[&str] = &["virtio_net", "vmxnet3", "hv_netvsc", "vif", "xen_netfront"];
/// What virtual devices say instead of a bus.
const NO_BUS: &[&str] = &["", "N/A", "tap", "tun"];

/// The modes to try, the best first. A device that refuses all of them cannot be hooked.
pub fn modes(hook: Hook, driver: &Driver) -> &'static [Mode] {
    match hook {
        Hook::Tc => &[Mode::Tc],
        Hook::Xdp => &[Mode::XdpNative, Mode::XdpGeneric, Mode::Tc],
        Hook::Auto if is_wire(driver) => &[Mode::XdpNative, Mode::Tc],
        Hook::Auto => &[Mode::Tc],
    }
}

impl Mode {
    /// Its name in `status`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::XdpNative => "xdp",
            Self::XdpGeneric => "xdp generic",
        }
    }
}

fn is_wire(driver: &Driver) -> bool {
    !NO_BUS.contains(&driver.bus.as_str()) && !PARAVIRTUAL.contains(&driver.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_native_xdp_on_a_wire_and_tc_where_frames_may_carry_offloads() {
        let check = |name: &str, bus: &str, wire: bool| {
            let driver = Driver { name: name.into(), bus: bus.into() };
            let expected: &[Mode] = if wire { &[Mode::XdpNative, Mode::Tc] } else { &[Mode::Tc] };
            assert_eq!(modes(Hook::Auto, &driver), expected, "{driver:?}");
        };
        check("ixgbe", "0000:01:00.0", true);
        check("mvneta", "f1070000.ethernet", true);
        check("virtio_net", "virtio0", false);
        check("veth", "", false);
        check("bridge", "N/A", false);
        check("tun", "tap", false);
        check("", "", false);
    }

    #[test]
    fn a_wish_is_a_wish() {
        let driver = Driver::default();
        assert_eq!(modes(Hook::Tc, &driver), [Mode::Tc]);
        assert_eq!(modes(Hook::Xdp, &driver), [Mode::XdpNative, Mode::XdpGeneric, Mode::Tc]);
    }
}
