//! The command line of Blixt and what stands behind it: where manifests come from, the run loop, and all that an
//! operator sees. No rule of the Gateway API is decided here, and no packet touched.

pub mod cli;
pub mod exit;
pub mod log;
pub mod source;
pub mod run;
pub mod control;
pub mod status;
pub mod metrics;
pub mod check;
pub mod explain;
pub mod demo;
pub mod cleanup;
pub mod generate;
mod atomic;
