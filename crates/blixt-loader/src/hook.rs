//! Which hook of a device: a decision, and the facts that it needs.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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

/// Asks the driver of a device; a device that says nothing has a nameless one.
pub(crate) fn driver(device: &str) -> Driver {
    let text =
        |bytes: &[u8]| bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    driver_info(device)
        .map(|info| Driver { name: text(&info.driver), bus: text(&info.bus) })
        .unwrap_or_default()
}

const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rest: [u32; 16],
}

/// `struct ifreq`, with the member that points to data.
#[repr(C)]
struct Request {
    device: [u8; libc::IFNAMSIZ],
    data: *mut DriverInfo,
    rest: [u64; 2],
}

fn driver_info(device: &str) -> io::Result<DriverInfo> {
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        rest: [0; 16],
    };
    let mut request = Request { device: [0; libc::IFNAMSIZ], data: &raw mut info, rest: [0; 2] };
    // The last byte stays 0.
    for (to, from) in request.device[..libc::IFNAMSIZ - 1].iter_mut().zip(device.bytes()) {
        *to = from;
    }
    // SAFETY: the request and what it points to are of the sizes that the kernel knows, and outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info) }
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
