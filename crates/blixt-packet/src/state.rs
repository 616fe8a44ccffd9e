//! What the data plane knows. The maps of the kernel program and a test's plain structs implement it.

use crate::DropReason;
use crate::abi::{
    BURST, Backend, BackendId, Budget, Device, EndpointKey, Flow, FlowKey, Fragment, FragmentKey, Frontend,
    Hop, Limited, OwnedAddress, Settings,
};
use crate::address::Address;

/// The tables of one address family, the clock and what the kernel can be asked.
pub trait State<A: Address> {
    /// An entry of the flow table that was found.
    type Entry: Entry<A>;

    /// Seconds of the coarse monotonic clock.
    fn now(&self) -> u32;

    /// Windows of 2^[`WINDOW_BITS`](crate::abi::WINDOW_BITS) nanoseconds of the same clock.
    fn window(&self) -> u32;

    /// Seconds after which it is noted that a connection that lasts is in use: see [`lasting`](crate::flow::lasting).
    fn lasting(&self) -> u32;

    /// Notes that a segment came from a backend without a flow.
    fn note_stray(&self);

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

    /// What this CPU has used of a budget.
    fn budget(&self, of: Limited) -> Budget;

    /// See [`State::budget`].
    fn set_budget(&self, of: Limited, budget: Budget);

    /// Takes one answer (RST, ICMP) out of what this CPU may make in this second; false: none is left.
    #[inline(always)]
    fn take_answer(&self) -> bool {
        let second = self.now();
        let used = used(self.budget(Limited::Answer), second, self.setting(|settings| &settings.answers), 1);
        self.take(Limited::Answer, second, used)
    }

    /// Takes one flow out of what this CPU may begin; false: none is left.
    #[inline(always)]
    fn take_new_flow(&self) -> bool {
        let (window, used) = self.new_flows(BURST);
        self.take(Limited::NewFlow, window, used)
    }

    /// So many shares of the flows that this CPU may begin are not used up.
    #[inline(always)]
    fn has_new_flow(&self, shares: u32) -> bool {
        self.new_flows(shares).1.is_some()
    }

    /// The window, and the flows of so many shares that this CPU has begun.
    #[inline(always)]
    fn new_flows(&self, shares: u32) -> (u32, Option<u32>) {
        let window = self.window();
        let share = self.setting(|settings| &settings.new_flows);
        (window, used(self.budget(Limited::NewFlow), window, share, shares))
    }

    /// Takes one out of a budget of which so much is used, if any is left.
    #[inline(always)]
    fn take(&self, of: Limited, time: u32, used: Option<u32>) -> bool {
        if let Some(used) = used {
            self.set_budget(of, Budget { time, used: used + 1 });
        }
        used.is_some()
    }
}

/// What is used of a budget of so many shares, one of which comes back whenever the time goes on; `None`: all of it.
#[inline(always)]
fn used(budget: Budget, time: u32, share: u32, shares: u32) -> Option<u32> {
    let (share, back) = (u64::from(share), time.wrapping_sub(budget.time).min(BURST));
    // Of a process before, with larger shares, more may be used than there is.
    let used = u64::from(budget.used).min(share * u64::from(BURST)).saturating_sub(share * u64::from(back));
    (used < share * u64::from(shares)).then_some(used as u32)
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
