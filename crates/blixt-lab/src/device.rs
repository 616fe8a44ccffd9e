//! A device of a machine: its MAC address, its offloads (switched as `ethtool -K` does).

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Socket, Type};

use crate::{Error, Machine};

/// Work that a device may take off the stack. A veth takes all of it and passes it on undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offload {
    /// Checksums of what it sends.
    TxChecksum,
    /// Cutting TCP into segments.
    TcpSegmentation,
    /// Cutting anything into segments, late.
    Segmentation,
    /// Joining segments that arrive.
    Receive,
}

impl Offload {
    // ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO of linux/ethtool.h, which libc does not have.
    const fn set_command(self) -> u32 {
        match self {
            Self::TxChecksum => 0x17,
            Self::TcpSegmentation => 0x1f,
            Self::Segmentation => 0x24,
            Self::Receive => 0x2c,
        }
    }

    /// The command that asks is the one before the command that sets.
    const fn get_command(self) -> u32 {
        self.set_command() - 1
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

impl Machine {
    /// The MAC address of one of the machine's devices.
    pub fn mac(&self, device: &str) -> Result<[u8; 6], Error> {
        let found = self.run(|| {
            let mut entries = getifaddrs()?.filter(|entry| entry.interface_name == device);
            entries.find_map(|entry| entry.address?.as_link_addr()?.addr()).ok_or(Errno::ENODEV)
        });
        found.map_err(Error::io("find the MAC address of", format!("{device} in {}", self.name())))
    }

    /// Switches an offload of one of the machine's devices.
    pub fn offload(&self, device: &str, offload: Offload, on: bool) -> Result<(), Error> {
        self.switch(device, offload, on)
            .map_err(Error::io("switch an offload of", format!("{device} in {}", self.name())))
    }

    fn switch(&self, device: &str, offload: Offload, on: bool) -> io::Result<()> {
        let socket = self.run(|| Socket::new(Domain::IPV4, Type::DGRAM, None))?;
        let mut value = Value { command: offload.set_command(), data: on.into() };
        let Err(error) = ethtool(&socket, device, &mut value) else { return Ok(()) };
        // A veth whose peer has an XDP program has no segmentation to switch off any more.
        let mut now = Value { command: offload.get_command(), data: 0 };
        ethtool(&socket, device, &mut now)?;
        if (now.data != 0) == on { Ok(()) } else { Err(error.into()) }
    }
}

fn ethtool(socket: &Socket, device: &str, value: &mut Value) -> nix::Result<()> {
    // SAFETY: all zeroes are a valid ifreq: integers, an array of bytes and a null pointer.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
    // SAFETY: the request and the value it points to outlive the call, and these commands read and write a Value.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    Errno::result(result).map(drop)
}
