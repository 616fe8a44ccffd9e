//! The loader against the real kernel, each test in a network namespace, and so an instance, of its own. Needs root.

mod world;

mod apply;
mod attach;
mod cleanup;
mod open;
