//! What Blixt answers, translates and puts in order: every expected packet is built and summed by etherparse.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod world;

mod echo;
mod errors;
mod flows;
mod fragments;
mod neighbours;
mod properties;
mod refusals;
