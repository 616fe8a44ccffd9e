//! Loads, attaches and feeds the kernel programs, and follows the machine's devices, routes and neighbours.
//!
//! ```text
//! open ─► pins of a process before this one, or new ones
//!   └─► read_back ─► Tables ─► (diff) ─► apply ─► maps ─► program ─► counters, flows
//!   └─► attach: TC or XDP, on each device, in place of what is there
//! ```
//!
//! What is pinned works without this process, and belongs to one network namespace: see [`Instance`]. Nothing is decided
//! here about frontends and backends.

mod apply;
mod attach;
mod bpffs;
mod capacity;
mod carry;
mod census;
mod cleanup;
mod clsact;
mod counters;
mod cpu_table;
mod dataplane;
mod error;
mod ethtool;
mod family;
mod filter;
mod flows;
mod hook;
pub mod host;
mod instance;
mod ioctl;
mod machine;
mod maps;
mod multicast;
mod object;
mod pins;
mod plain;
mod read_back;
mod rings;
mod row;
mod sys;
mod table;

pub use attach::Attachment;
pub use capacity::Capacity;
pub use census::{Census, FlowCount};
pub use cleanup::cleanup;
pub use counters::Counters;
pub use dataplane::{Dataplane, Found, Options};
pub use error::Error;
pub use family::MapAddress;
pub use flows::FlowEntries;
pub use hook::{Driver, Hook, Mode, modes};
pub use instance::Instance;
pub use machine::{release_memory, share_memory};
pub use object::KeptSize;
pub use plain::Plain;
