//! Loads, attaches and feeds the kernel programs, and follows the machine's devices, routes and neighbours.

pub mod host;
