//! The command line of Blixt and what stands behind it: where manifests come from, the run loop, and all that an
//! operator sees. No rule of the Gateway API is decided here, and no packet touched.

pub mod agent;
mod atomic;
pub mod check;
pub mod cleanup;
pub mod cli;
pub mod control;
pub mod controller;
pub mod demo;
pub mod exit;
pub mod explain;
pub mod generate;
pub mod health;
pub mod log;
pub mod metrics;
pub mod node;
pub mod run;
pub mod source;
pub mod status;
pub mod sync;
