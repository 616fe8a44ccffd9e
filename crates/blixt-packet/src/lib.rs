//! The packet path of Blixt as an ordinary library: the same source runs in XDP, in TC and on the host.
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod address;
pub mod checksum;
mod drop_reason;
pub mod frame;
pub mod headers;
pub mod packet;
pub mod state;
mod verdict;

pub use drop_reason::DropReason;
pub use verdict::Verdict;
