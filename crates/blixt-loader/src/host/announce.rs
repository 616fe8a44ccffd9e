//! Tells the neighbours of a link that an address is here now: gratuitous ARP, unsolicited neighbour advertisements.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use blixt_core::host::Mac;

use super::link::Link;

/// How often an address is announced, since any frame may be lost.
const TIMES: usize = 3;
/// Between two announcements.
const PAUSE: Duration = Duration::from_secs(1);

/// An address and where it is now.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Announcement {
    /// Index of the device on whose link it is announced.
    pub device: u32,
    /// That device's MAC address.
    pub mac: Mac,
    /// The address.
    pub address: IpAddr,
    /// How often the device has found its link, see [`Link::carrier_ups`].
    pub carrier_ups: u32,
}

/// An announcement could not be sent.
#[derive(Debug, thiserror::Error)]
#[error(
    "announce {address} on device {device}: {source}; clients on that link find it when their caches expire"
)]
pub struct AnnounceError {
    /// The address.
    pub address: IpAddr,
    /// Index of the device.
    pub device: u32,
    /// Why.
    pub source: io::Error,
}

/// What neighbours should know, for addresses and the devices that answer for them (0: none). Whatever was not in the last
/// answer is news to them: an address that was taken or moved, another MAC address, a link that was lost and found.
pub fn announcements(
    addresses: &BTreeMap<IpAddr, u32>,
    links: &BTreeMap<u32, Link>,
) -> BTreeSet<Announcement> {
    addresses
        .iter()
        .filter_map(|(address, device)| {
            let Link { mac, carrier_ups, .. } = *links.get(device).filter(|link| link.carrier)?;
            Some(Announcement { device: *device, mac, address: *address, carrier_ups })
        })
        .collect()
}

/// Sends each announcement three times, a second apart. What cannot be sent does not keep the others back; the first
/// failure is returned at the end.
pub async fn announce(announcements: Vec<Announcement>) -> Result<(), AnnounceError> {
    let mut result = Ok(());
    for time in 0..TIMES {
        if time > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        for announcement in &announcements {
            if let (Err(error), Ok(())) = (send(announcement), &result) {
                result = Err(error);
            }
        }
    }
    result
}

fn send(announcement: &Announcement) -> Result<(), AnnounceError> {
    let Announcement { device, mac, address, .. } = announcement;
    let failed = |source: io::Error| AnnounceError { address: *address, device: *device, source };
    frames(*mac, *address).iter().try_for_each(|frame| transmit(*device, frame)).map_err(failed)
}

/// The frames of one announcement.
fn frames(mac: Mac, address: IpAddr) -> Vec<Vec<u8>> {
    match address {
        // Some listen to requests only, some to replies only.
        IpAddr::V4(address) => vec![arp(mac, address, 1), arp(mac, address, 2)],
        IpAddr::V6(address) => vec![advertisement(mac, address)],
    }
}

fn arp(Mac(mac): Mac, address: Ipv4Addr, operation: u8) -> Vec<u8> {
    let target = if operation == 1 { [0; 6] } else { mac };
    let mut frame = ethernet([0xff; 6], mac, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend(target);
    frame.extend(address.octets());
    frame
}

fn advertisement(Mac(mac): Mac, address: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ICMPV6: u8 = 58;
    const OVERRIDE: u8 = 0x20;
    // Type, code and checksum; flags; the address; the option with the MAC address.
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac);
    let length = message.len() as u8;
    let pseudo = [&address.octets()[..], &ALL_NODES.octets(), &[0, 0, 0, length, 0, 0, 0, ICMPV6]].concat();
    let sum = checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd);
    // The hop limit must be 255, or it is not believed to come from this link.
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn ethernet(destination: [u8; 6], source: [u8; 6], protocol: u16) -> Vec<u8> {
    [&destination[..], &source, &protocol.to_be_bytes()].concat()
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn transmit(device: u32, frame: &[u8]) -> io::Result<()> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    // SAFETY: no pointers; the result is checked before it is owned.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: device as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [frame[0], frame[1], frame[2], frame[3], frame[4], frame[5], 0, 0],
    };
    // SAFETY: both pointers come with the lengths of what they point to, which lives through the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketHeaders, TransportHeader};

    use super::*;

    #[test]
    fn an_advertisement_has_a_right_checksum() {
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let frame = advertisement(Mac([2, 0, 0, 0, 0, 7]), source);
        let packet = PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(TransportHeader::Icmpv6(header)) = packet.transport else { panic!("{packet:?}") };
        let destination: Ipv6Addr = "ff02::1".parse().unwrap();
        let sum =
            header.icmp_type.calc_checksum(source.octets(), destination.octets(), packet.payload.slice());
        assert_eq!(header.checksum, sum.unwrap());
    }

    #[test]
    fn whatever_neighbours_do_not_know_yet_is_news() {
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let link = |mac: u8| Link { mac: Mac([mac; 6]), carrier: true, carrier_ups: 1, ..Link::default() };
        let links = [(3, link(3)), (4, link(4))];
        let addresses = [(address(1), 3), (address(2), 3), (address(3), 0), (address(4), 9)];
        let news = |last: &BTreeSet<Announcement>, addresses: &[(IpAddr, u32)], links: &[(u32, Link)]| {
            let next = announcements(&addresses.iter().copied().collect(), &links.iter().cloned().collect());
            let news = next.difference(last).map(|news| (news.device, news.address)).collect::<Vec<_>>();
            (news, next)
        };
        let (first, last) = news(&BTreeSet::new(), &addresses, &links);
        assert_eq!(first, [(3, address(1)), (3, address(2))], "what is held on a link");
        assert_eq!(news(&last, &addresses, &links).0, [], "once is enough");
        let moved = [(address(1), 3), (address(2), 4)];
        assert_eq!(news(&last, &moved, &links).0, [(4, address(2))], "an address that moved");
        let other_mac = [(3, link(9)), (4, link(4))];
        assert_eq!(news(&last, &addresses, &other_mac).0.len(), 2, "another MAC address");
        let no_carrier = [(3, Link { carrier: false, ..link(3) })];
        let (lost, without) = news(&last, &addresses, &no_carrier);
        assert_eq!(lost, [], "nobody hears it");
        assert_eq!(news(&without, &addresses, &links).0.len(), 2, "a link that came back");
        let flap = [(3, Link { carrier_ups: 2, ..link(3) })];
        assert_eq!(
            news(&last, &addresses, &flap).0.len(),
            2,
            "a link that came back before it was looked at"
        );
    }
}
