//! The data plane that is measured: one frontend, its backends behind one hop, and flows.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use blixt_core::config::{Endpoint, Protocol};
use blixt_core::host::Mac;
use blixt_core::tables::{
    self, BackendEntry, BackendSlot, BackendState, DeviceEntry, FrontendEntry, HopEntry, Limits, Op, Ring,
    RouteEntry, Way,
};
use blixt_loader::{Capacity, Dataplane, Options};
use blixt_packet::abi::{BackendId, Flow, FlowKey, Settings, V4};

use super::frame::{ACK, FRAME, FRONTEND, Family, Place, SYN, Shape, Transport};
use super::run::{Hook, REDIRECT, Walk, run};

/// Backends, so that clients with the same ports find a source port of their own.
const BACKENDS: u16 = 256;
const FIRST_BACKEND_PORT: u16 = 8080;
/// The ring of TCP over IPv4.
const FIRST_RING: u32 = 1;
/// Device of a test run: the loopback of the namespace.
const LOOPBACK: u32 = 1;

/// What is measured, in a namespace of its own; one CPU begins `new_flows` flows a window.
pub fn open(flows: u32, new_flows: u32) -> Result<Dataplane> {
    let limits = Limits { frontends: 1 << 14, routes: 1 << 14, ..Limits::default() };
    let capacity = Capacity { flows, limits };
    let settings = Settings { new_flows, ..Settings::DEFAULT };
    let options = Options { capacity, settings, hop_life: Duration::from_secs(3600), ..Options::default() };
    let mut dataplane = Dataplane::open(&options)?;
    dataplane.apply(&tables())?;
    Ok(dataplane)
}

/// One frontend of each family and transport.
fn tables() -> Vec<Op> {
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    // As loopback's is: a frame for another machine is nobody's.
    let device =
        DeviceEntry { mac: Mac([0; 6]), mtu: 1500, xdp_target: true, xdp_sender: true, of_host: false };
    let mut ops = vec![
        Op::SetDevice(LOOPBACK, Some(device)),
        Op::SetRoute(1, Some(RouteEntry { hash: 1, name: None })),
    ];
    let shapes = [Family::V4, Family::V6]
        .map(|family| [Transport::Tcp, Transport::Udp].map(|transport| Shape { family, transport }));
    for (ring, shape) in (FIRST_RING..).zip(shapes.into_iter().flatten()) {
        let (family, hop) = match shape.family {
            Family::V4 => (tables::Family::V4, 1),
            Family::V6 => (tables::Family::V6, 2),
        };
        let next_hop = HopEntry {
            next_hop: Some(address(shape, 0, [1, 2])),
            device: LOOPBACK,
            mtu: 1500,
            source: mac,
            destination: Some(Mac([2, 0, 0, 0, 0, 2])),
        };
        ops.push(Op::SetHop(hop, Some(next_hop)));
        // Slots of a family are its frontends', one after the other.
        let first = match shape.transport {
            Transport::Tcp => 1,
            Transport::Udp => 1 + u32::from(BACKENDS),
        };
        let mut ids = Vec::new();
        for (slot, port) in (first..).zip((FIRST_BACKEND_PORT..).take(BACKENDS.into())) {
            let entry = BackendEntry {
                endpoint: endpoint(shape, [1, 2], port),
                incarnation: 1,
                state: BackendState::Serving,
                way: Way::Nat,
                source: address(shape, 0, [1, 1]),
                hop,
                route: 1,
            };
            ids.push(BackendId::new(slot, 1));
            ops.push(Op::SetBackend(BackendSlot { family, slot }, entry));
        }
        let slots = u32::from(BACKENDS);
        ops.push(Op::SetRing(ring, Some(Ring { hash: ring.into(), len: slots, slots: Some(ids.into()) })));
        let frontend = FrontendEntry { ring, slots, route: 1 };
        ops.push(Op::SetFrontend(endpoint(shape, FRONTEND.address, FRONTEND.port), Some(frontend)));
    }
    ops
}

fn address(shape: Shape, network: u8, number: [u8; 2]) -> IpAddr {
    let bytes = shape.address(network, number);
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).expect("an address of IPv6")),
    }
}

fn endpoint(shape: Shape, number: [u8; 2], port: u16) -> Endpoint {
    let protocol = match shape.transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    Endpoint { address: address(shape, 0, number), port, protocol }
}

/// The first of many listeners, a port for each; as many as the driver has.
pub const FIRST_LISTENER: Place = Place { address: [99, 2], port: 1000 };
pub const LISTENERS: u16 = 10_000;

/// Gives the data plane many listeners more, each with a route of its own and the first frontend's backends.
pub fn add_listeners(dataplane: &mut Dataplane) -> Result<()> {
    let shape = Shape { family: Family::V4, transport: Transport::Tcp };
    let Place { address, port } = FIRST_LISTENER;
    let mut ops = Vec::new();
    for (route, port) in (2..).zip((port..).take(LISTENERS.into())) {
        ops.push(Op::SetRoute(route, Some(RouteEntry { hash: route.into(), name: None })));
        let frontend = FrontendEntry { ring: FIRST_RING, slots: BACKENDS.into(), route };
        ops.push(Op::SetFrontend(endpoint(shape, address, port), Some(frontend)));
    }
    Ok(dataplane.apply(&ops)?)
}

/// Opens the flows of a walk by the packets that they would have, answers included.
pub fn establish(dataplane: &mut Dataplane, walk: &Walk) -> Result<()> {
    let ebpf = dataplane.programs()?;
    let mut send = |frame: &[u8; FRAME]| -> Result<[u8; FRAME]> {
        let (verdict, out) = run(ebpf, "blixt_ingress", Hook::Tc, frame)?;
        if verdict != REDIRECT {
            bail!("a packet of a handshake was not sent on: {verdict}");
        }
        Ok(out)
    };
    let Walk { shape, flows, mut to, spread, .. } = *walk;
    for flow in 0..flows {
        if spread {
            to.port = walk.to.port + (flow % u32::from(LISTENERS)) as u16;
        }
        let request = send(&shape.of_client(flow, to, SYN))?;
        send(&shape.answer(&request, SYN | ACK))?;
        send(&shape.of_client(flow, to, ACK))?;
    }
    Ok(())
}

/// The entries of all flows of IPv4.
pub fn entries(dataplane: &Dataplane, flows: u32) -> Result<Vec<(FlowKey<V4>, Flow<V4>)>> {
    let entries = dataplane.flows::<V4>(usize::MAX)?;
    if entries.len() != flows as usize * 2 {
        bail!("{flows} connections made {} entries, not two each", entries.len());
    }
    Ok(entries)
}
