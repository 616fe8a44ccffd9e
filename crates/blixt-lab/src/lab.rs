//! The usual lab: a client, a balancer and some backends, each on a network of its own with the balancer.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Error, Machine, Offload, XdpPass};

/// What kind of lab to build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// How many backends.
    pub backends: u8,
    /// Frames look as on a wire: checksums are whole, segments are cut, and devices take frames that XDP redirects.
    pub wire_like: bool,
    /// MTU of every device.
    pub mtu: u32,
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The machines of the usual lab. The balancer routes plainly between them; `client` is network 0 and backend `i`
/// (from 0) is in network `i + 1`.
#[derive(Debug)]
pub struct Lab {
    /// Dials.
    pub client: Machine,
    /// Stands in between: its devices are `client` and `backend1`, `backend2`, ...
    pub balancer: Machine,
    /// Answer; each has an `eth0`.
    pub backends: Vec<Machine>,
    layout: Layout,
    passes: Vec<XdpPass>,
}

/// An address of the lab: `10.0.NETWORK.HOST/24` or `fd00:0:0:NETWORK::HOST/64`.
pub fn address(family: Family, network: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, network, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, network.into(), 0, 0, 0, host.into()).into(),
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self { backends: 3, wire_like: false, mtu: 1500 }
    }
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    const fn prefix(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }
}

impl Lab {
    /// The balancer's host number in every network.
    pub const BALANCER: u8 = 1;
    /// Everybody else's host number.
    pub const OTHER: u8 = 2;

    /// Builds it: wires up, addresses usable, routes set.
    pub fn new(layout: Layout) -> Result<Self, Error> {
        let client = Machine::new("client")?;
        let balancer = Machine::new("balancer")?;
        let backends = (1..=layout.backends).map(|number| Machine::new(format!("backend-{number}")));
        let backends = backends.collect::<Result<Vec<_>, _>>()?;
        balancer.sysctl("net/ipv4/ip_forward", "1")?;
        balancer.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        let mut lab = Self { client, balancer, backends, layout, passes: Vec::new() };
        for network in 0..=lab.layout.backends {
            lab.connect(network)?;
        }
        Ok(lab)
    }

    /// The name of the balancer's device in a network.
    pub fn device(network: u8) -> String {
        match network {
            0 => "client".to_owned(),
            number => format!("backend{number}"),
        }
    }

    /// The machine that shares a network with the balancer.
    pub fn other(&self, network: u8) -> &Machine {
        match network {
            0 => &self.client,
            number => &self.backends[usize::from(number) - 1],
        }
    }

    /// Lays the wire of a network; again, after [`Lab::disconnect`].
    pub fn connect(&mut self, network: u8) -> Result<(), Error> {
        let device = Self::device(network);
        let other = self.other(network);
        self.balancer.wire(&device, other, "eth0", self.layout.mtu)?;
        self.balancer.ip(&start(&device, network, Self::BALANCER))?;
        let mut lines = start("eth0", network, Self::OTHER);
        for family in Family::ALL {
            let _ = writeln!(lines, "route add default via {}", address(family, network, Self::BALANCER));
        }
        other.ip(&lines)?;
        if !self.layout.wire_like {
            return Ok(());
        }
        other.wire_like("eth0")?;
        self.balancer.wire_like(&device)?;
        let pass = XdpPass::attach(other, "eth0")?;
        self.passes.push(pass);
        Ok(())
    }

    /// Takes the XDP programs off the other ends of all wires: what XDP sends there is lost from now on.
    pub fn take_xdp_off(&mut self) {
        self.passes.clear();
    }

    /// Takes the wire of a network away, with its devices at both ends.
    pub fn disconnect(&self, network: u8) -> Result<(), Error> {
        self.balancer.ip(&format!("link del {}", Self::device(network)))
    }
}

impl Machine {
    /// Lays a wire from a device of this machine to one of another; both are made, without addresses, and are down.
    pub fn wire(&self, device: &str, other: &Self, other_device: &str, mtu: u32) -> Result<(), Error> {
        self.ip(&format!(
            "link add {device} mtu {mtu} type veth peer name {other_device} mtu {mtu} netns {}",
            other.namespace().path().display()
        ))
    }

    /// Makes what a device sends look as on a wire: whole checksums, cut segments.
    pub fn wire_like(&self, device: &str) -> Result<(), Error> {
        self.offload(device, Offload::TcpSegmentation, false)?;
        self.offload(device, Offload::Segmentation, false)?;
        self.offload(device, Offload::TxChecksum, false)
    }
}

/// Lines of `ip` that start a device with its addresses of both families.
fn start(device: &str, network: u8, host: u8) -> String {
    let mut lines = String::new();
    for family in Family::ALL {
        let (address, prefix) = (address(family, network, host), family.prefix());
        let _ = writeln!(lines, "addr add {address}/{prefix} dev {device} nodad");
    }
    let _ = writeln!(lines, "link set {device} up");
    lines
}
