//! Ports that processes of the machine listen on, for warnings: who dials an address that the machine has itself
//! reaches Blixt's listener and no longer the process.

use std::collections::BTreeSet;
use std::net::IpAddr;

use blixt_core::config::{Endpoint, Protocol};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::constants::NETLINK_SOCK_DIAG;

use super::HostError;
use super::netlink::Asker;

/// Local addresses and ports that are listened on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listening {
    endpoints: BTreeSet<Endpoint>,
}

impl Listening {
    /// A process listens there, on this very address or on all of them.
    pub fn holds(&self, endpoint: &Endpoint) -> bool {
        let at = |address: IpAddr| self.endpoints.contains(&Endpoint { address, ..*endpoint });
        // A socket of IPv6's wildcard takes IPv4 too, unless it is told not to.
        at(endpoint.address) || at(IpAddr::from([0; 4])) || at(IpAddr::from([0_u16; 8]))
    }

    /// All of them; the unspecified address stands for every one.
    pub fn endpoints(&self) -> &BTreeSet<Endpoint> {
        &self.endpoints
    }
}

/// Asks the kernel for the listening TCP sockets and the unconnected UDP sockets of this network namespace.
pub fn listening_sockets() -> Result<Listening, HostError> {
    let mut asker = Asker::open(NETLINK_SOCK_DIAG)?;
    let mut endpoints = BTreeSet::new();
    for family in [AF_INET, AF_INET6] {
        for (number, protocol, states) in [
            (IPPROTO_TCP, Protocol::Tcp, StateFlags::LISTEN),
            // The kernel calls an unconnected UDP socket closed.
            (IPPROTO_UDP, Protocol::Udp, StateFlags::CLOSE),
        ] {
            let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
            let request = SockDiagMessage::InetRequest(InetRequest {
                family,
                protocol: number,
                extensions: ExtensionFlags::empty(),
                states,
                socket_id,
            });
            for message in asker.dump("list listening sockets", request)? {
                if let SockDiagMessage::InetResponse(response) = message {
                    let id = response.header.socket_id;
                    endpoints.insert(Endpoint { address: id.source_address, port: id.source_port, protocol });
                }
            }
        }
    }
    Ok(Listening { endpoints })
}
