//! The pure middle of Blixt. No I/O, no clock, no async runtime, no kube client, no aya.
//!
//! ```text
//! Snapshot ─ translate ─► Config ─ compile ─► Tables ─ diff ─► Op..
//!                └─► Statuses      ▲
//!                                 Host
//! ```

pub mod api;
pub mod compile;
pub mod config;
pub mod diff;
pub mod explain;
pub mod host;
pub mod maglev;
pub mod manifest;
mod schema;
pub mod simulation;
pub mod snapshot;
pub mod status;
pub mod tables;
pub mod translate;
