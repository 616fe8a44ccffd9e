//! A packet without a flow: whose is it, and which connection does it begin?

use crate::abi::{
    Backend, BackendId, DEVICE_OF_HOST, FLOW_MASKED, FLOW_REQUEST, FLOW_TO_STACK, Flow, FlowKey, Frontend,
    Link, WAY_LOCAL, WAY_NAT,
};
use crate::address::Address;
use crate::flow::PICKED_UP;
use crate::headers::{FIN, Headers, RST, SYN, TCP};
use crate::room::Room;
use crate::select::{choose, hash};
use crate::state::{Route, Socket, State};
use crate::step::Step;
use crate::{DropReason, Verdict};

/// Says in the room's flow which connection a packet begins; it lacks a source port then.
#[inline(always)]
pub(crate) fn connect<A: Address, S: State<A>>(state: &S, room: &mut Room<A>) -> Step {
    let headers = &room.headers;
    let key = &headers.key;
    if let Some(frontend) = state.frontend(&key.destination()) {
        return match begin(state, room, &frontend) {
            Ok(()) => Step::UNCLAIMED,
            Err(reason) => reason.into(),
        };
    }
    if state.address(&key.destination).is_some() {
        return DropReason::Refused.into();
    }
    if state.is_endpoint(&key.source()) && is_stray(state, headers) {
        // What opens or closes a connection is late, or a flood's; the middle of one that nobody knows is missed by somebody.
        if headers.protocol() == TCP && headers.flags & (SYN | RST | FIN) == 0 {
            state.note_stray();
        }
        return DropReason::NoFlow.into();
    }
    Verdict::Pass.into()
}

/// A segment of a backend that this machine's stack would answer although it knows nothing of the connection: the flow
/// that it belonged to is over. What this machine merely forwards, or has a socket for, is none. Beside kube-proxy nobody can
/// tell it from a reply that connection tracking translates for others: then there are none.
#[inline(always)]
fn is_stray<A: Address, S: State<A>>(state: &S, headers: &Headers<A>) -> bool {
    let key = &headers.key;
    if state.setting(|settings| &settings.passes_strays) != 0 || !key.destination.is_host() {
        return false;
    }
    match state.socket(key) {
        Socket::Bound => return false,
        Socket::Listening if headers.is_syn() => return false,
        Socket::Listening | Socket::None => {}
    }
    !matches!(state.route(key.source, key.destination), Route::Hop(_) | Route::Device(_))
}

#[inline(always)]
fn begin<A: Address, S: State<A>>(
    state: &S,
    room: &mut Room<A>,
    frontend: &Frontend,
) -> Result<(), DropReason> {
    let headers = &room.headers;
    let key = &headers.key;
    if !key.source.is_host() || key.source == key.destination {
        return Err(DropReason::BadAddress);
    }
    if headers.flags & RST != 0 {
        return Err(DropReason::NoFlow);
    }
    let (id, backend) = match choose(state, frontend, hash(key)) {
        Ok(chosen) => chosen,
        Err(reason) => {
            if reason == DropReason::Refused {
                state.count_refused(frontend.route);
            }
            return Err(reason);
        }
    };
    let is_masked = backend.way != WAY_NAT && answers_past_us(state, headers.link, &backend);
    let way = if is_masked { WAY_NAT } else { backend.way };
    if source(key, &backend, way) == A::default() {
        // Its way is lost for now: a flow begun without a source would keep none for ever.
        return Err(DropReason::NoWay);
    }
    if is_masked && backend.hop == 0 {
        // A process of this machine dials another one by an address of ours: no way leads there that would come back.
        state.count_refused(frontend.route);
        return Err(DropReason::Refused);
    }
    if !state.take_new_flow() {
        return Err(DropReason::Flood);
    }
    room.flow = request(headers, id, &backend, way, state.now());
    room.attempts = 0;
    Ok(())
}

/// A backend that keeps a client's address would answer it past us: a client who is its neighbour, behind the very device that
/// leads to the backend; or this machine, whose stack takes the answer before we see it.
#[inline(always)]
fn answers_past_us<A: Address, S: State<A>>(state: &S, link: Link, backend: &Backend<A>) -> bool {
    let is_neighbour = backend.way == WAY_LOCAL
        && backend.hop != 0
        && state.hop(backend.hop).is_some_and(|hop| hop.link == link);
    is_neighbour || state.device(link.ifindex()).is_some_and(|device| device.flags & DEVICE_OF_HOST != 0)
}

/// Who a backend that is reached by `way` sees as the sender of a client's packets.
#[inline(always)]
pub(crate) fn source<A: Address>(key: &FlowKey<A>, backend: &Backend<A>, way: u8) -> A {
    if way == WAY_NAT { backend.source } else { key.source }
}

/// The half from the client to the backend, with the client's own port.
#[inline(always)]
fn request<A: Address>(
    headers: &Headers<A>,
    id: BackendId,
    backend: &Backend<A>,
    way: u8,
    now: u32,
) -> Flow<A> {
    let key = &headers.key;
    let source = source(key, backend, way);
    let flags = match way {
        WAY_LOCAL => FLOW_REQUEST | FLOW_TO_STACK,
        WAY_NAT if backend.way != WAY_NAT || source == key.source => FLOW_REQUEST | FLOW_MASKED,
        _ => FLOW_REQUEST,
    };
    Flow {
        source,
        destination: backend.address,
        ports: [key.ports[0], backend.port],
        backend: id,
        client: headers.link,
        client_mac: headers.mac,
        flags,
        state: if headers.protocol() == TCP && !headers.is_syn() { PICKED_UP } else { 0 },
        seen: now,
    }
}
