//! A packet as people name it: `tcp 10.10.0.2:4242 > 10.99.0.1:80`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use blixt_packet::abi::FlowKey;
use serde::{Deserialize, Serialize};

use crate::config::Protocol;
use crate::simulation::AddressFamily;

/// Protocol, source and destination of a packet; both addresses are of one family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tuple {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who sends.
    pub source: SocketAddr,
    /// Who shall get it.
    pub destination: SocketAddr,
}

/// The words do not name a packet.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TupleError {
    /// Not the form.
    #[error(
        "packet `{0}`: not of the form `tcp 10.10.0.2:4242 > 10.99.0.1:80` or `udp [fd00::2]:4242 > [fd00::1]:53`"
    )]
    Form(String),
    /// Another protocol.
    #[error("packet protocol `{0}`: neither tcp nor udp; blixt balances no other")]
    Protocol(String),
    /// Not an address and port.
    #[error("packet {side} `{text}`: not an address and port; write `10.10.0.2:4242` or `[fd00::2]:4242`")]
    Address {
        /// Source or destination.
        side: &'static str,
        /// What stands there.
        text: String,
    },
    /// One address of each family.
    #[error(
        "packet `{0}`: source and destination are of different address families; write both as ipv4 or both as ipv6"
    )]
    Families(String),
}

impl Tuple {
    /// The key in the flow table; `None`: of the other family.
    pub(super) fn key<A: AddressFamily>(&self) -> Option<FlowKey<A>> {
        Some(FlowKey {
            source: A::from_ip(self.source.ip())?,
            destination: A::from_ip(self.destination.ip())?,
            ports: [self.source.port().to_be(), self.destination.port().to_be()],
            protocol: u32::from(self.protocol.number()),
        })
    }
}

impl FromStr for Tuple {
    type Err = TupleError;

    fn from_str(text: &str) -> Result<Self, TupleError> {
        let form = || TupleError::Form(text.to_owned());
        let (protocol, addresses) = text.trim().split_once(char::is_whitespace).ok_or_else(form)?;
        let (source, destination) = addresses.split_once('>').ok_or_else(form)?;
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => return Err(TupleError::Protocol(other.to_owned())),
        };
        let source = address("source", source)?;
        let destination = address("destination", destination)?;
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(TupleError::Families(text.to_owned()));
        }
        Ok(Self { protocol, source, destination })
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} > {}", self.protocol, self.source, self.destination)
    }
}

impl From<Tuple> for String {
    fn from(tuple: Tuple) -> Self {
        tuple.to_string()
    }
}

impl TryFrom<String> for Tuple {
    type Error = TupleError;

    fn try_from(text: String) -> Result<Self, TupleError> {
        text.parse()
    }
}

fn address(side: &'static str, text: &str) -> Result<SocketAddr, TupleError> {
    let text = text.trim();
    text.parse().map_err(|_| TupleError::Address { side, text: text.to_owned() })
}
