//! The loader against the real kernel, each test in a network namespace, and so an instance, of its own. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, with a line number")]

mod world;

mod apply;
mod attach;
mod cases;
mod cleanup;
mod death;
mod foreign;
mod groups;
mod known;
mod open;
mod verifier;
