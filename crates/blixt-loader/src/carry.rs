//! Connections of another map layout, taken over into this one's flow tables.
//!
//! All other maps are made anew from the manifests; what a flow says nobody else knows. `FLOWS_*` keep their names for as long as
//! keys and values mean the same: whatever else differs, what is pinned by that name can be read, by an older version as well as by a newer one. The slot that a
//! flow's backend stands in may be another by now: the flow itself says which backend it is, by address and port.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use blixt_packet::abi::{BACKEND_GONE, BackendId, EndpointKey, FLOWS_CARRIED, Flow, FlowCounters, FlowKey};

use crate::Error;
use crate::census::sum;
use crate::family::{FamilyMaps, Flows, MapAddress};
use crate::sys;

/// Takes over what the layout pinned in a directory has and these maps have not. Flows of backends that are in no slot here stay
/// behind. Answers how many entries came, two for each connection.
pub(crate) fn carry<A: MapAddress>(layout: &Path, maps: &FamilyMaps<A>) -> Result<usize, Error> {
    let Some(old) = flows::<A>(layout)? else { return Ok(0) };
    let standing = Standing::read(maps)?;
    let (mut count, mut failed) = (0, None);
    old.walk(|some| {
        let here = some.into_iter().filter_map(|(key, flow)| Some((key, standing.here(&key, flow)?)));
        for (key, flow) in here {
            match maps.flows.add(&key, &flow) {
                Ok(is_new) => count += usize::from(is_new),
                Err(error) => failed = Some(error),
            }
        }
        failed.is_none()
    })?;
    count_carried(maps, count)?;
    failed.map_or(Ok(count), Err)
}

/// What the program did not put in is counted beside it, or it would stand in for what was evicted.
fn count_carried<A: MapAddress>(maps: &FamilyMaps<A>, count: usize) -> Result<(), Error> {
    if count == 0 {
        return Ok(());
    }
    let counters = maps.flow_counters.sums(FLOWS_CARRIED + 1, sum)?;
    let FlowCounters { added, removed } = counters.last().copied().unwrap_or_default();
    maps.flow_counters.set(FLOWS_CARRIED, FlowCounters { added: added + count as u64, removed })
}

/// The flows of a layout, if they mean what they mean here.
fn flows<A: MapAddress>(layout: &Path) -> Result<Option<Flows<A>>, Error> {
    let name = FamilyMaps::<A>::FLOWS;
    let pin = layout.join(name);
    match sys::object_get(&pin) {
        Ok(map) => Ok(Flows::new(name, map).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("open the pinned map", &pin)(error)),
    }
}

/// Who stands where by now.
struct Standing<A> {
    /// The slots of each endpoint, with the route that each is of.
    slots: BTreeMap<EndpointKey<A>, Vec<(u32, BackendId)>>,
    /// The route of each frontend.
    routes: BTreeMap<EndpointKey<A>, u32>,
}

impl<A: MapAddress> Standing<A> {
    fn read(maps: &FamilyMaps<A>) -> Result<Self, Error> {
        let mut slots: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (slot, backend) in maps.backends.all()? {
            if backend.state != BACKEND_GONE {
                let endpoint = EndpointKey {
                    address: backend.address,
                    port: backend.port,
                    protocol: backend.protocol.into(),
                };
                let id = BackendId::new(slot, backend.incarnation);
                slots.entry(endpoint).or_default().push((backend.route, id));
            }
        }
        let routes = maps.frontends.all()?.into_iter().map(|(key, frontend)| (key, frontend.route)).collect();
        Ok(Self { slots, routes })
    }

    /// The flow as it is here: of the same backend, for the same route if that has it still.
    fn here(&self, key: &FlowKey<A>, flow: Flow<A>) -> Option<Flow<A>> {
        let other = flow.opposite_key(key.protocol);
        let (request, reply) = if flow.is_request() { (key, &other) } else { (&other, key) };
        let slots = self.slots.get(&reply.source())?;
        let route = self.routes.get(&request.destination());
        let (_, id) = slots.iter().find(|(of, _)| Some(of) == route).or(slots.first())?;
        Some(Flow { backend: *id, ..flow })
    }
}

#[cfg(test)]
mod tests {
    use blixt_packet::abi::{FLOW_REQUEST, V4};

    use super::*;

    const CLIENT: V4 = V4([1]);
    const VIP: V4 = V4([2]);
    const OURS: V4 = V4([3]);
    const BACKEND: V4 = V4([4]);

    fn endpoint(address: V4, port: u16) -> EndpointKey<V4> {
        EndpointKey { address, port, protocol: 6 }
    }

    #[test]
    fn both_halves_find_their_backend_by_address_and_route() {
        let key = FlowKey { source: CLIENT, destination: VIP, ports: [40, 80], protocol: 6 };
        let flow = Flow {
            source: OURS,
            destination: BACKEND,
            ports: [40, 8080],
            flags: FLOW_REQUEST,
            backend: BackendId::new(9, 3),
            ..Flow::default()
        };
        let other_key = flow.opposite_key(6);
        let other = flow.opposite(&key);
        let ids = [BackendId::new(1, 0), BackendId::new(2, 7)];
        let slots = [(endpoint(BACKEND, 8080), vec![(5, ids[0]), (6, ids[1])])].into();
        let mut standing = Standing { slots, routes: [(endpoint(VIP, 80), 6)].into() };
        for (key, flow) in [(key, flow), (other_key, other)] {
            assert_eq!(standing.here(&key, flow), Some(Flow { backend: ids[1], ..flow }));
        }
        // A frontend that went meanwhile leaves its connections.
        standing.routes.clear();
        assert_eq!(standing.here(&key, flow).map(|flow| flow.backend), Some(ids[0]));
        standing.slots.clear();
        assert_eq!(standing.here(&other_key, other), None);
    }
}
