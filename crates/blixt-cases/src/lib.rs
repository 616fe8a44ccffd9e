//! One table of packet cases, for whoever runs them: `forward` on the host, the TC and the XDP program in the kernel.
//!
//! A [`Case`] says what user space has written and then, step by step, which frame comes in and what must become of it. Every
//! expected frame is built and summed by etherparse, not by the code under test. For tests only; nothing here is shipped.
#![expect(clippy::unwrap_used, reason = "a case that cannot be built fails the test that asked for it")]

mod case;
mod cases;
pub mod host;
pub mod network;
pub mod packet;
pub mod sound;

pub use case::{Case, Given, Hook, Place, Step, backend_sends, client_sends, given};
pub use cases::cases;
