//! A packet without a flow: whose is it, and which connection does it begin?

use crate::DropReason;
use crate::abi::{Backend, BackendId, FLOW_REQUEST, FLOW_TO_STACK, Flow, Frontend, WAY_LOCAL, WAY_NAT};
use crate::address::Address;
use crate::headers::{Headers, RST, TCP};
use crate::room::Room;
use crate::select::{choose, hash};
use crate::source_port::{Reserved, reserve};
use crate::state::{Route, Socket, State};

/// Whose a packet without a flow is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A frontend's: the connection is in the table.
    Frontend,
    /// Not ours.
    Others,
}

/// Begins the connection of a packet: both of its halves are in the table afterwards.
#[inline(always)]
pub(crate) fn connect<A: Address, S: State<A>>(state: &S, room: &mut Room<A>) -> Result<Owner, DropReason> {
    let headers = &room.headers;
    let key = &headers.key;
    if let Some(frontend) = state.frontend(&key.destination()) {
        begin(state, room, &frontend)?;
        return Ok(Owner::Frontend);
    }
    if state.address(&key.destination).is_some() {
        return Err(DropReason::Refused);
    }
    if state.is_endpoint(&key.source()) && is_stray(state, headers) {
        return Err(DropReason::NoFlow);
    }
    Ok(Owner::Others)
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
    let is_new = headers.protocol() != TCP || headers.is_syn();
    room.flow = request(headers, id, &backend, state.now());
    match reserve(state, room, is_new)? {
        Reserved::New => state.count_connection(backend.route, id.slot()),
        Reserved::Found => {}
    }
    state.set_flow(&room.headers.key, &room.flow)
}

/// The half from the client to the backend, with the client's own port.
#[inline(always)]
fn request<A: Address>(headers: &Headers<A>, id: BackendId, backend: &Backend<A>, now: u32) -> Flow<A> {
    let key = &headers.key;
    Flow {
        source: if backend.way == WAY_NAT { backend.source } else { key.source },
        destination: backend.address,
        ports: [key.ports[0], backend.port],
        backend: id,
        client: headers.link,
        client_mac: headers.mac,
        flags: if backend.way == WAY_LOCAL { FLOW_REQUEST | FLOW_TO_STACK } else { FLOW_REQUEST },
        state: 0,
        seen: now,
    }
}
