//! A packet without a flow: whose is it, and which connection does it begin?

use crate::abi::{
    Backend, BackendId, FLOW_REQUEST, FLOW_TO_STACK, Flow, FlowKey, Frontend, WAY_LOCAL, WAY_NAT,
};
use crate::address::Address;
use crate::flow::PICKED_UP;
use crate::headers::{Headers, RST, TCP};
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
        return DropReason::NoFlow.into();
    }
    Verdict::Pass.into()
}

/// A segment of a backend that this machine's stack would answer although it knows nothing of the connection: the flow
/// that it belonged to is over. What this machine merely forwards, or has a socket for, is none.
#[inline(always)]
fn is_stray<A: Address, S: State<A>>(state: &S, headers: &Headers<A>) -> bool {
    let key = &headers.key;
    if !key.destination.is_host() {
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
    if source(key, &backend) == A::default() {
        // Its way is lost for now: a flow begun without a source would keep none for ever.
        return Err(DropReason::NoWay);
    }
    room.flow = request(headers, id, &backend, state.now());
    room.attempts = 0;
    Ok(())
}

/// Who a backend sees as the sender of a client's packets.
#[inline(always)]
pub(crate) fn source<A: Address>(key: &FlowKey<A>, backend: &Backend<A>) -> A {
    if backend.way == WAY_NAT { backend.source } else { key.source }
}

/// The half from the client to the backend, with the client's own port.
#[inline(always)]
fn request<A: Address>(headers: &Headers<A>, id: BackendId, backend: &Backend<A>, now: u32) -> Flow<A> {
    let key = &headers.key;
    Flow {
        source: source(key, backend),
        destination: backend.address,
        ports: [key.ports[0], backend.port],
        backend: id,
        client: headers.link,
        client_mac: headers.mac,
        flags: if backend.way == WAY_LOCAL { FLOW_REQUEST | FLOW_TO_STACK } else { FLOW_REQUEST },
        state: if headers.protocol() == TCP && !headers.is_syn() { PICKED_UP } else { 0 },
        seen: now,
    }
}
