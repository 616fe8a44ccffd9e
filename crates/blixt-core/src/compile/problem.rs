//! What could not be compiled as it was asked.

use std::net::IpAddr;

use smol_str::SmolStr;

use crate::config::{Endpoint, Frontend};

/// One thing that a person should know, with the next step in its words.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum Problem {
    /// The frontend is left out.
    #[error(
        "listener {listener} ({frontend}): not served, the table has room for {limit} frontends; run `blixt cleanup`, then start with a higher `--frontends`"
    )]
    FrontendsFull {
        /// What clients would dial.
        frontend: Endpoint,
        /// Who asked for it.
        listener: SmolStr,
        /// Room of the table.
        limit: u32,
    },
    /// Every connection of the frontend is refused.
    #[error(
        "listener {listener} ({frontend}): every connection is refused, the table has room for {limit} rings; run `blixt cleanup`, then start with a higher `--frontends`"
    )]
    RingsFull {
        /// What clients dial.
        frontend: Endpoint,
        /// Who asked for it.
        listener: SmolStr,
        /// Room of the table.
        limit: u32,
    },
    /// The frontend works, its route is not counted.
    #[error(
        "listener {listener} ({frontend}): its route is not counted, the table has room for {limit} routes; run `blixt cleanup`, then start with a higher `--frontends`"
    )]
    RoutesFull {
        /// What clients dial.
        frontend: Endpoint,
        /// Who asked for it.
        listener: SmolStr,
        /// Room of the table.
        limit: u32,
    },
    /// The backend gets nothing from this frontend.
    #[error(
        "listener {listener} ({frontend}): backend {backend} gets nothing, the table has room for {limit} backends; run `blixt cleanup`, then start with a higher `--backends`"
    )]
    BackendsFull {
        /// What clients dial.
        frontend: Endpoint,
        /// Who asked for it.
        listener: SmolStr,
        /// Who is left out.
        backend: Endpoint,
        /// Room of the table.
        limit: u32,
    },
    /// The backend has its part of the connections, and they fail.
    #[error("listener {listener} ({frontend}): this machine has no route to backend {backend}; see `ip route get {}`", backend.address)]
    NoPath {
        /// What clients dial.
        frontend: Endpoint,
        /// Who asked for it.
        listener: SmolStr,
        /// Who cannot be reached.
        backend: Endpoint,
    },
    /// The backend gets nothing from this frontend.
    #[error(
        "listener {listener} ({frontend}): backend {backend} is of the other address family and gets nothing; give the gateway an address of that family"
    )]
    OtherFamily {
        /// What clients dial.
        frontend: Endpoint,
        /// Who asked for it.
        listener: SmolStr,
        /// Who is left out.
        backend: Endpoint,
    },
    /// Nobody answers ARP, NDP and echo for the address.
    #[error(
        "address {address}: not owned, the table has room for {limit} addresses; run `blixt cleanup`, then start with a higher `--frontends`"
    )]
    AddressesFull {
        /// The address.
        address: IpAddr,
        /// Room of the table.
        limit: u32,
    },
}

impl Problem {
    /// The frontend that has the problem; the address has no frontend.
    pub const fn frontend(&self) -> Option<&Endpoint> {
        match self {
            Self::FrontendsFull { frontend, .. }
            | Self::RingsFull { frontend, .. }
            | Self::RoutesFull { frontend, .. }
            | Self::BackendsFull { frontend, .. }
            | Self::NoPath { frontend, .. }
            | Self::OtherFamily { frontend, .. } => Some(frontend),
            Self::AddressesFull { .. } => None,
        }
    }

    /// Clients of the frontend get nothing at all.
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::FrontendsFull { .. } | Self::RingsFull { .. } | Self::AddressesFull { .. })
    }

    /// A table has no room: one that leaves makes room for others.
    pub(super) const fn is_shortage(&self) -> bool {
        !matches!(self, Self::NoPath { .. } | Self::OtherFamily { .. })
    }

    pub(super) fn frontends_full(endpoint: &Endpoint, frontend: &Frontend, limit: u32) -> Self {
        Self::FrontendsFull { frontend: *endpoint, listener: frontend.listener.clone(), limit }
    }

    pub(super) fn rings_full(endpoint: &Endpoint, frontend: &Frontend, limit: u32) -> Self {
        Self::RingsFull { frontend: *endpoint, listener: frontend.listener.clone(), limit }
    }

    pub(super) fn routes_full(endpoint: &Endpoint, frontend: &Frontend, limit: u32) -> Self {
        Self::RoutesFull { frontend: *endpoint, listener: frontend.listener.clone(), limit }
    }

    pub(super) fn backends_full(
        endpoint: &Endpoint,
        frontend: &Frontend,
        backend: Endpoint,
        limit: u32,
    ) -> Self {
        Self::BackendsFull { frontend: *endpoint, listener: frontend.listener.clone(), backend, limit }
    }

    pub(super) fn no_path(endpoint: &Endpoint, frontend: &Frontend, backend: Endpoint) -> Self {
        Self::NoPath { frontend: *endpoint, listener: frontend.listener.clone(), backend }
    }

    pub(super) fn other_family(endpoint: &Endpoint, frontend: &Frontend, backend: Endpoint) -> Self {
        Self::OtherFamily { frontend: *endpoint, listener: frontend.listener.clone(), backend }
    }
}
