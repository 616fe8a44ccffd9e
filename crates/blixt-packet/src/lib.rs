//! The packet path of Blixt as an ordinary library: the same source runs in XDP, in TC and on the host.
#![no_std]
#![forbid(unsafe_code)]

mod forward;
mod room;
mod step;

pub mod part;

pub mod known;

pub mod packet;
pub mod state;
mod verdict;

pub mod address;
pub mod checksum;
pub mod frame;
pub mod headers;

pub mod connect;
pub mod flow;
pub mod select;
pub mod source_port;

pub mod answer;
pub mod fragment;
pub mod icmp;
pub mod neighbour;

pub mod rewrite;
pub mod send;

pub mod abi;
mod drop_reason;

pub use drop_reason::DropReason;
pub use forward::{enter, exit, forward, leave};
pub use room::{Room, Rooms};
pub use step::Step;
pub use verdict::{Refusal, Verdict};
