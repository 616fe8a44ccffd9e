//! The way out: where a packet goes next, whether it may, and its new headers.

use crate::abi::{Backend, Flow, Hop, Link};
use crate::address::Address;
use crate::headers::Headers;
use crate::packet::Packet;
use crate::rewrite::{address_frame, rewrite};
use crate::state::{Route, State};
use crate::{DropReason, Refusal, Verdict};

/// Where a packet goes next. All of it is defined always, unlike what an enum has in store: see `step`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    reach: Reach,
    hop: Hop,
}

#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// To the machine that the frame is addressed to.
    Hop,
    /// To a neighbour by the hop's device, whose MAC address the kernel must find.
    Neighbour,
    /// To this machine's own stack.
    Stack,
    /// Nowhere.
    Nowhere,
}

impl Way {
    /// To this machine's own stack.
    pub const STACK: Self = Self::without_hop(Reach::Stack);

    /// The packet can go this way from the hook that it is at.
    #[inline(always)]
    pub fn is_open<A: Address, P: Packet>(&self, pkt: &P, headers: &Headers<A>) -> bool {
        let hop = &self.hop;
        P::GOES_EVERYWHERE
            || (self.reach == Reach::Hop
                && pkt.can_leave_by(hop.link)
                && (headers.total <= hop.mtu || !pkt.is_segmented()))
    }

    /// The next hop, if the kernel need not be asked for it.
    #[inline(always)]
    pub fn hop(&self) -> Option<Hop> {
        (self.reach == Reach::Hop).then_some(self.hop)
    }

    const fn without_hop(reach: Reach) -> Self {
        let hop = Hop { link: Link(0), deadline: 0, mtu: u32::MAX, destination: [0; 3], source: [0; 3] };
        Self { reach, hop }
    }
}

/// Where a request goes: the hop that user space keeps, while it keeps it.
#[inline(always)]
pub(crate) fn way_to_backend<A: Address, S: State<A>>(
    state: &S,
    flow: &Flow<A>,
    backend: &Backend<A>,
    now: u32,
) -> Way {
    if flow.is_to_stack() {
        return Way::STACK;
    }
    let Some(hop) = known_hop(state, backend) else {
        return ask_kernel(state, flow);
    };
    if hop.deadline >= now {
        return Way { reach: Reach::Hop, hop };
    }
    match state.route(flow.source, flow.destination) {
        // It finds the way of a packet that it sends itself, and the hop's device is that way.
        Route::Forbidden => {
            Way { reach: Reach::Neighbour, hop: Hop { link: Link::new(hop.link.ifindex(), 0), ..hop } }
        }
        route => follow_kernel(route),
    }
}

/// The backend's hop, stale or not.
#[inline(always)]
fn known_hop<A: Address, S: State<A>>(state: &S, backend: &Backend<A>) -> Option<Hop> {
    if backend.hop == 0 {
        return None;
    }
    state.hop(backend.hop).filter(|hop| hop.link.ifindex() != 0)
}

/// Where a reply goes: back where the client's packets come from.
#[inline(always)]
pub(crate) fn way_to_client<A: Address, S: State<A>>(state: &S, flow: &Flow<A>) -> Way {
    let Some(device) = state.device(flow.client.ifindex()) else {
        return ask_kernel(state, flow);
    };
    let hop = Hop {
        link: flow.client,
        deadline: 0,
        mtu: device.mtu,
        destination: flow.client_mac,
        source: device.mac,
    };
    Way { reach: Reach::Hop, hop }
}

/// Rewrites a packet and sends it on.
#[inline(always)]
pub(crate) fn send<A: Address, P: Packet>(
    pkt: &mut P,
    headers: &Headers<A>,
    flow: &Flow<A>,
    way: &Way,
) -> Result<Verdict, Refusal> {
    let Way { reach, hop } = *way;
    if reach == Reach::Nowhere {
        return Err(DropReason::NoWay.into());
    }
    let is_routed = reach != Reach::Stack;
    if is_routed && headers.hops <= 1 {
        return Err(DropReason::TtlExceeded.into());
    }
    if headers.total > hop.mtu && headers.largest(pkt)? > hop.mtu {
        return Err(Refusal { reason: DropReason::TooBig, mtu: hop.mtu });
    }
    if reach == Reach::Hop {
        address_frame(pkt, hop.destination, hop.source)?;
    }
    rewrite(pkt, headers, flow, is_routed)?;
    if is_routed && headers.link.vlan() != hop.link.vlan() {
        pkt.set_vlan(hop.link.vlan())?;
    }
    Ok(match reach {
        Reach::Hop => Verdict::Send(hop.link),
        Reach::Neighbour => Verdict::Neighbour(hop.link.ifindex()),
        Reach::Stack | Reach::Nowhere => Verdict::Deliver,
    })
}

/// Nobody keeps the way for us.
#[inline(always)]
fn ask_kernel<A: Address, S: State<A>>(state: &S, flow: &Flow<A>) -> Way {
    follow_kernel(state.route(flow.source, flow.destination))
}

/// A backend elsewhere whose address turns out to be this machine's is no backend.
#[inline(always)]
fn follow_kernel(route: Route) -> Way {
    match route {
        Route::Hop(hop) => Way { reach: Reach::Hop, hop },
        Route::Device(ifindex) => {
            let way = Way::without_hop(Reach::Neighbour);
            Way { hop: Hop { link: Link::new(ifindex, 0), ..way.hop }, ..way }
        }
        Route::Local | Route::Forbidden | Route::Unknown => Way::without_hop(Reach::Nowhere),
    }
}
