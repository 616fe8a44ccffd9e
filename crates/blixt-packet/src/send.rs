//! The way out: where a packet goes next, whether it may, and its new headers.

use crate::abi::{Backend, Flow, Hop};
use crate::address::Address;
use crate::headers::Headers;
use crate::packet::Packet;
use crate::rewrite::{address_frame, rewrite};
use crate::state::{Route, State};
use crate::{DropReason, Refusal, Verdict};

/// Where a request goes: the hop that user space keeps, while it keeps it.
#[inline(always)]
pub fn way_to_backend<A: Address, S: State<A>>(state: &S, flow: &Flow<A>, backend: &Backend<A>) -> Route {
    if flow.is_to_stack() {
        return Route::Local;
    }
    if backend.hop != 0
        && let Some(hop) = state.hop(backend.hop)
        && hop.deadline >= state.now()
    {
        return Route::Hop(hop);
    }
    ask_kernel(state, flow)
}

/// Where a reply goes: back where the client's packets come from.
#[inline(always)]
pub fn way_to_client<A: Address, S: State<A>>(state: &S, flow: &Flow<A>) -> Route {
    let Some(device) = state.device(flow.client.ifindex()) else {
        return ask_kernel(state, flow);
    };
    Route::Hop(Hop {
        link: flow.client,
        deadline: 0,
        mtu: device.mtu,
        destination: flow.client_mac,
        source: device.mac,
    })
}

/// Rewrites a packet and sends it on.
#[inline(always)]
pub fn send<A: Address, P: Packet>(
    pkt: &mut P,
    headers: &Headers<A>,
    flow: &Flow<A>,
    route: Route,
) -> Result<Verdict, Refusal> {
    let (verdict, vlan) = match route {
        Route::Local => (Verdict::Deliver, headers.link.vlan()),
        Route::Device(ifindex) => (Verdict::Neighbour(ifindex), 0),
        Route::Hop(hop) => {
            if headers.total > hop.mtu && !pkt.is_segmented() {
                return Err(Refusal { reason: DropReason::TooBig, mtu: hop.mtu });
            }
            (Verdict::Send(hop.link), hop.link.vlan())
        }
        Route::Unknown => return Err(DropReason::NoWay.into()),
    };
    let is_routed = verdict != Verdict::Deliver;
    if is_routed && headers.hops <= 1 {
        return Err(DropReason::TtlExceeded.into());
    }
    if let Route::Hop(hop) = route {
        address_frame(pkt, hop.destination, hop.source)?;
    }
    rewrite(pkt, headers, flow, is_routed)?;
    if headers.link.vlan() != vlan {
        pkt.set_vlan(vlan)?;
    }
    Ok(verdict)
}

/// Nobody keeps the way for us. A backend elsewhere whose address turns out to be this machine's is no backend.
#[inline(always)]
fn ask_kernel<A: Address, S: State<A>>(state: &S, flow: &Flow<A>) -> Route {
    match state.route(flow.source, flow.destination) {
        Route::Local => Route::Unknown,
        route => route,
    }
}
