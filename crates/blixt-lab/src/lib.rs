//! A lab of network namespaces for the demo, the tests and the benchmark: machines, wires between them, servers that
//! say their name, clients that count who answered.
//!
//! ```text
//!            10.0.0.0/24            10.0.1.0/24
//!   client ─────────────── balancer ─────────────── backend 1
//!      .2               .1    │ .1               .2
//!                             │     10.0.2.0/24
//!                             └──────────────────── backend 2 ...
//! ```
//!
//! Namespaces have no name in the file system and devices exist only inside them: when the process ends, however it
//! ends, the kernel takes all of it away, and the machine's own devices are never touched. Nothing here knows Blixt.

mod bpf;
mod busy;
mod churn;
mod client;
mod device;
mod error;
mod lab;
mod machine;
mod namespace;
mod pacer;
mod packet_socket;
mod process;
mod server;
mod worker;

pub use bpf::{XdpPass, linked_program, programs};
pub use busy::{Busy, BusyConnection};
pub use churn::{Attempt, Churn};
pub use client::{Answer, Connection, Failure, Tally, connect, connect_from, exchange, exchange_on, tally};
pub use device::Offload;
pub use error::Error;
pub use lab::{Family, Lab, Layout, address};
pub use machine::Machine;
pub use namespace::Namespace;
pub use pacer::{Pace, Pacer, PacerReport};
pub use packet_socket::PacketSocket;
pub use process::Process;
pub use server::{Protocol, Server};
