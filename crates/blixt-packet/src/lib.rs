//! The packet path of Blixt as an ordinary library: the same source runs in XDP, in TC and on the host.
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
mod drop_reason;

pub use drop_reason::DropReason;
