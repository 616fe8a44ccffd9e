//! The whole of Blixt in network namespaces: a client, a balancer on which `blixt run` works, three backends, and
//! real sockets. Needs root; without it every test fails and says so.
//!
//! Each test makes a [`World`](world::World), and the world ends with it. A function that takes a hook is run with
//! both.

#![expect(clippy::unwrap_used, reason = "a failure here must show the line of the test")]

/// Makes two tests of each function that takes a [`Hook`](world::Hook).
macro_rules! on_both_hooks {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[test]
            fn tc() {
                super::$name(crate::world::Hook::Tc);
            }

            #[test]
            fn xdp() {
                super::$name(crate::world::Hook::Xdp);
            }
        })*
    };
}

mod frames;
mod manifests;
mod permit;
mod world;

mod absence;
mod balancing;
mod build;
mod changes;
mod clients;
mod demo;
mod elsewhere;
mod errors;
mod explain;
mod files;
mod hooks;
mod interfaces;
mod life;
mod links;
mod operator;
mod permission;
mod refusal;
mod rush;
mod shapes;
mod upgrade;
