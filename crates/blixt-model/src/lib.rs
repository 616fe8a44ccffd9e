//! A second account of what Blixt does with packets, and a fuzzer that holds the data plane against it.
//!
//! The [`Model`] is written for obviousness, after `ARCHITECTURE.md` and the RFCs: plain maps, no families as types, every checksum made
//! of all that it covers. Of `blixt-packet` it knows the layout of the maps and the names of the reasons, none of the code. The
//! [`Author`] writes [`Story`]s from a seed: frames that hit the flows which the model has, wrong in every way that a frame can be wrong,
//! and what user space and time do in between. Whoever is a [`Target`] is shown a story and must do what the model did:
//! `forward` on the host here, the kernel's TC and XDP programs in the tests of `blixt-loader`.
//!
//! For tests only; nothing here is shipped. It deliberately knows no neighbours or routes that the kernel would have to be asked for, no
//! sockets and no full tables.

mod change;
mod flow;
mod hash;
mod model;
pub mod network;
mod outcome;
mod packet;
mod story;
mod sum;

mod author;
mod corpus;
mod random;

mod decode;
mod fuzz;
mod host;
mod shrink;
mod table;

pub use author::Author;
pub use change::Change;
pub use corpus::corpus;
pub use flow::{End, Half, Progress, Tuple};
pub use fuzz::{Plan, fuzz, replay, replay_corpus};
pub use host::Host;
pub use model::Model;
pub use outcome::Outcome;
pub use story::{Script, Sight, Step, Story, Target, hex};
pub use table::{Row, difference, key_bytes, rows};
