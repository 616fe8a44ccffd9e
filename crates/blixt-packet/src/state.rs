//! What the data plane knows. The maps of the kernel program and a test's plain structs implement it.

use crate::DropReason;
use crate::abi::{
    AnswerBudget, Backend, BackendId, Device, EndpointKey, Flow, FlowKey, Fragment, FragmentKey, Frontend,
    Hop, OwnedAddress, Settings,
};
use crate::address::Address;

/// The tables of one address family, the clock and what the kernel can be asked.
pub trait State<A: Address> {
    /// An entry of the flow table that was found.
    type Entry: Entry<A>;

    /// Seconds of the coarse monotonic clock.
    fn now(&self) -> u32;

    /// One of the settings: `state.setting(|settings| &settings.udp_idle)`.
    fn setting<T: Copy>(&self, field: impl Fn(&Settings) -> &T) -> T;

    /// The address is, or was since the tables were made, that of a frontend or a backend, or one that only Blixt owns. It may say
    /// so of others, too.
    fn knows(&self, address: A) -> bool;

    /// The flow of a packet.
    fn flow(&self, key: &FlowKey<A>) -> Option<Self::Entry>;

    /// Writes a flow, an existing one too.
    fn set_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Result<(), DropReason>;

    /// Writes a flow unless there is one.
    fn add_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Added;

    /// Takes a flow out of the table.
    fn remove_flow(&self, key: &FlowKey<A>);

    /// The first part of a fragmented packet.
    fn fragment(&self, key: &FragmentKey<A>) -> Option<Fragment>;

    /// Remembers the first part of a fragmented packet.
    fn set_fragment(&self, key: &FragmentKey<A>, fragment: &Fragment);

    /// The frontend of a destination.
    fn frontend(&self, key: &EndpointKey<A>) -> Option<Frontend>;

    /// A backend has this address, port and protocol.
    fn is_endpoint(&self, key: &EndpointKey<A>) -> bool;

    /// An address that only Blixt owns.
    fn address(&self, address: &A) -> Option<OwnedAddress>;

    /// A slot of a ring.
    fn ring(&self, ring: u32, slot: u32) -> Option<BackendId>;

    /// A slot of the backends.
    fn backend(&self, slot: u32) -> Option<Backend<A>>;

    /// A next hop.
    fn hop(&self, id: u32) -> Option<Hop>;

    /// A device, by its index.
    fn device(&self, ifindex: u32) -> Option<Device>;

    /// What the kernel's routing says about a packet between these addresses.
    fn route(&self, source: A, destination: A) -> Route;

    /// The socket of this machine that would get a packet with this tuple.
    fn socket(&self, key: &FlowKey<A>) -> Socket;

    /// Counts a packet of `bytes` bytes from a client to a backend.
    fn count_request(&self, route: u32, bytes: u32);

    /// Counts a packet of `bytes` bytes from a backend to a client.
    fn count_reply(&self, route: u32, bytes: u32);

    /// Counts a connection of a route and of the backend in a slot.
    fn count_connection(&self, route: u32, slot: u32);

    /// Counts a connection that was refused.
    fn count_refused(&self, route: u32);

    /// What this CPU has answered in this second.
    fn answers(&self) -> AnswerBudget;

    /// See [`State::answers`].
    fn set_answers(&self, budget: AnswerBudget);

    /// Takes one answer (RST, ICMP) out of what this CPU may make in this second; false: none is left.
    fn take_answer(&self) -> bool {
        let second = self.now();
        let budget = self.answers();
        let made = if budget.second == second { budget.made } else { 0 };
        if made >= self.setting(|settings| &settings.answers) {
            return false;
        }
        self.set_answers(AnswerBudget { second, made: made + 1 });
        true
    }
}

/// An entry of the flow table. It may be gone from the table by the time that it is read or written; then nobody
/// else sees what is written.
pub trait Entry<A: Address> {
    /// What it says.
    fn read(&self) -> Flow<A>;

    /// Writes it.
    fn write(&self, flow: &Flow<A>);
}

/// What became of a flow that was to be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// It is in the table.
    New,
    /// Another one is there.
    Exists,
    /// The table took none.
    Full,
}

/// What the kernel's routing says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// The next hop and its MAC address.
    Hop(Hop),
    /// The device with this index; its neighbour's MAC address is not known.
    Device(u32),
    /// This machine itself.
    Local,
    /// This machine forwards nothing that comes by the packet's device (`ip_forward`), wherever it may go.
    Forbidden,
    /// No way, or none that the kernel tells.
    Unknown,
}

/// A socket of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Socket {
    /// There is none.
    None,
    /// One that waits for connections.
    Listening,
    /// One that is bound to the tuple, or to all of its port.
    Bound,
}
