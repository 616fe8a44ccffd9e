//! Which backend a new connection gets: a hash of the client's tuple, a slot of the ring.

use crate::DropReason;
use crate::abi::{BACKEND_GONE, Backend, BackendId, FlowKey, Frontend};
use crate::address::{Address, mix};
use crate::state::State;

/// A hash of the whole tuple: the same on every machine of the same byte order.
#[inline(always)]
pub fn hash<A: Address>(key: &FlowKey<A>) -> u32 {
    let [source, destination] = key.ports;
    let ports = (source as u32) << 16 | destination as u32;
    let hash = key.destination.hash(key.source.hash(key.protocol));
    // One round more without a word, so that the ports reach the high bits, which choose the slot.
    mix(mix(hash, ports), 0)
}

/// The slot of the ring for a hash: a multiplication instead of a division, since the hash is uniform.
#[inline(always)]
pub fn slot(hash: u32, slots: u32) -> u32 {
    ((hash as u64 * slots as u64) >> 32) as u32
}

/// The backend of a new connection.
#[inline(always)]
pub fn choose<A: Address, S: State<A>>(
    state: &S,
    frontend: &Frontend,
    hash: u32,
) -> Result<(BackendId, Backend<A>), DropReason> {
    if frontend.slots == 0 {
        return Err(DropReason::Refused);
    }
    let Some(id) = state.ring(frontend.ring, slot(hash, frontend.slots)) else {
        return Err(DropReason::Internal);
    };
    if id == BackendId::REFUSE {
        return Err(DropReason::Refused);
    }
    // A ring never names a backend that is gone, except in the moment in which both change: a client that is not
    // answered tries again, one that is refused gives up.
    living(state, id).map(|backend| (id, backend)).ok_or(DropReason::Internal)
}

/// The backend that an id names, if it is still there.
#[inline(always)]
pub fn living<A: Address, S: State<A>>(state: &S, id: BackendId) -> Option<Backend<A>> {
    let backend = state.backend(id.slot())?;
    if backend.state == BACKEND_GONE || backend.incarnation != id.incarnation() {
        return None;
    }
    Some(backend)
}
