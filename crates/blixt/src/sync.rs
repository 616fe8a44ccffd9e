//! `Sync`: how node agents get the Config, and tell what became of it. One gRPC method over TLS, two streams.
//!
//! ```text
//! controller: Config of a generation ─ parts ─► agent: the same Config ─► data plane
//! controller: Report of a node       ◄─────────────────────────────────── Report
//! ```
//!
//! The wire's types go no further than here.

pub mod certificate;
pub mod client;
pub mod config_parts;
#[cfg(test)]
mod hostile;
pub mod report;
pub mod server;
#[cfg(test)]
mod tests;
mod wire;

/// What `build.rs` makes of `proto/sync.proto`.
#[expect(missing_docs, unused_qualifications, clippy::allow_attributes, reason = "generated")]
mod proto {
    tonic::include_proto!("blixt.sync.v1");
}

/// The name that the controller's certificate is for, whatever address it is dialled by.
pub const SERVER_NAME: &str = "blixt-controller";
/// The audience of the tokens that agents show.
pub const AUDIENCE: &str = "blixt";
/// The longest message that either side takes, bytes. Parts are far smaller.
const LONGEST_MESSAGE: usize = 16 << 20;
