//! What can be measured alone.

/// A subject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Subject {
    /// A packet of an established flow.
    Packet,
    /// Every kind of packet at both hooks, against floors of one step each. Stricter: not all bars are met yet.
    Path,
    /// Bulk TCP.
    Bulk,
    /// New connections a second.
    Connections,
    /// A changed EndpointSlice among 10 000 routes.
    Change,
    /// A cold start with 10 000 routes.
    Start,
    /// Resident memory at 10 000 routes.
    Memory,
}
