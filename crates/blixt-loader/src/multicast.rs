//! Multicast groups of link layers. Who looks for an IPv6 address asks the group that its last three bytes name, and a
//! network card lets only groups in that somebody joined: for addresses that only Blixt owns, nobody else does.
//!
//! A group is joined by the device itself (`SIOCADDMULTI`), so that it outlives this process as forwarding does. What
//! marks it as ours is an empty directory beside the pins, made before and removed after.
//!
//! Switches and bridges that snoop let a group through only to who reports it (MLD). The kernel reports what a socket has
//! joined: as long as this process holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};
use tracing::debug;

use crate::Error;
use crate::attach::device_name;
use crate::cleanup::all;
use crate::ioctl;
use crate::pins;

/// The solicited-node group of some addresses, on one device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Group {
    ifindex: u32,
    /// The last three bytes of the addresses.
    suffix: [u8; 3],
}

/// The groups of the devices of one network namespace.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Of the pins.
    directory: PathBuf,
    /// Those that this process has joined, with the socket that has them reported.
    joined: BTreeMap<Group, Option<Socket>>,
    /// Those that have a mark. A process before this one may have ended before it joined some, and a device may have
    /// lost its list: a mark says only what is to be left.
    marked: BTreeSet<Group>,
}

impl Groups {
    /// Those that are marked in a directory; all that are wanted will be joined.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let marked = marks(directory)?;
        Ok(Self { directory: directory.to_owned(), joined: BTreeMap::new(), marked })
    }

    /// This process has joined it.
    pub(crate) fn has_joined(&self, group: Group) -> bool {
        self.joined.contains_key(&group)
    }

    /// Joins what these addresses want, each with the device that answers (0: none), and leaves the rest. What fails for
    /// one group does not keep the others back; the first failure is returned.
    pub(crate) fn follow(&mut self, addresses: &BTreeMap<IpAddr, u32>) -> Result<(), Error> {
        let wanted = groups(addresses);
        let missing: Vec<Group> = wanted.iter().copied().filter(|group| !self.has_joined(*group)).collect();
        let left_over: Vec<Group> = self.marked.difference(&wanted).copied().collect();
        let joined = all(missing.into_iter().map(|group| self.join(group)));
        let left = all(left_over.into_iter().map(|group| self.leave(group)));
        for (group, reporter) in self.joined.iter_mut().filter(|(_, reporter)| reporter.is_none()) {
            *reporter = report(*group)
                .inspect_err(|error| debug!(?group, %error, "a multicast group is not reported to switches"))
                .ok();
        }
        joined.and(left)
    }

    fn join(&mut self, group: Group) -> Result<(), Error> {
        let joined = join(&self.directory, group);
        if joined.is_ok() {
            self.joined.insert(group, None);
            self.marked.insert(group);
        } else {
            self.marked.remove(&group);
        }
        joined
    }

    fn leave(&mut self, group: Group) -> Result<(), Error> {
        leave(&self.directory, group)?;
        self.joined.remove(&group);
        self.marked.remove(&group);
        Ok(())
    }
}

/// The groups in which neighbours ask for these addresses, each with the device that answers (0: none).
fn groups(addresses: &BTreeMap<IpAddr, u32>) -> BTreeSet<Group> {
    let group = |(address, ifindex): (&IpAddr, &u32)| match address {
        IpAddr::V6(address) if *ifindex != 0 => {
            let [.., a, b, c] = address.octets();
            Some(Group { ifindex: *ifindex, suffix: [a, b, c] })
        }
        _ => None,
    };
    addresses.iter().filter_map(group).collect()
}

/// Joins a group; once more does no harm.
fn join(directory: &Path, group: Group) -> Result<(), Error> {
    let mark = mark_path(directory, group);
    match fs::create_dir(&mark) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::file("create", &mark)(error));
        }
        _ => {}
    }
    match change(libc::SIOCADDMULTI, group) {
        // A device without a filter lets every group in.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(()),
        Err(error) => {
            // The failure says more than what becomes of the mark.
            let _: io::Result<()> = fs::remove_dir(&mark);
            Err(group_error(group, "join")(error))
        }
        Ok(()) => Ok(()),
    }
}

/// Has the kernel report a group as long as the socket is held; a device without IPv6 has nobody to report to.
fn report(Group { ifindex, suffix: [a, b, c] }: Group) -> io::Result<Socket> {
    let [last, before] = [u16::from_be_bytes([b, c]), u16::from_be_bytes([0xff, a])];
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    socket.join_multicast_v6(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, before, last), ifindex)?;
    Ok(socket)
}

/// Leaves a group. The device may be gone, and somebody else may have left the group before.
pub(crate) fn leave(directory: &Path, group: Group) -> Result<(), Error> {
    match change(libc::SIOCDELMULTI, group) {
        Err(error)
            if !matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::ENXIO | libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP)
            ) =>
        {
            return Err(group_error(group, "leave")(error));
        }
        _ => {}
    }
    let mark = mark_path(directory, group);
    fs::remove_dir(&mark).map_err(Error::file("remove", &mark))
}

/// The groups that have a mark in a directory, of this process or one before it.
pub(crate) fn marks(directory: &Path) -> Result<BTreeSet<Group>, Error> {
    Ok(pins::list(directory)?.iter().filter_map(|path| group_of(path)).collect())
}

/// `struct sockaddr`, as far as a link-layer address needs it.
#[repr(C)]
struct HardwareAddress {
    family: u16,
    address: [u8; 6],
}

fn change(command: libc::c_ulong, group: Group) -> io::Result<()> {
    let [a, b, c] = group.suffix;
    let address = HardwareAddress { family: libc::AF_UNSPEC as u16, address: [0x33, 0x33, 0xff, a, b, c] };
    // SAFETY: the commands of groups read an address, without pointers.
    unsafe { ioctl::request(&device_name(group.ifindex)?, command as _, address) }
}

fn mark_path(directory: &Path, Group { ifindex, suffix: [a, b, c] }: Group) -> PathBuf {
    directory.join(format!("group-{ifindex}-{a:02x}{b:02x}{c:02x}"))
}

fn group_of(mark: &Path) -> Option<Group> {
    let (ifindex, suffix) = mark.file_name()?.to_str()?.strip_prefix("group-")?.split_once('-')?;
    let [0, suffix @ ..] = u32::from_str_radix(suffix, 16).ok()?.to_be_bytes() else { return None };
    Some(Group { ifindex: ifindex.parse().ok()?, suffix })
}

fn group_error(
    Group { ifindex, suffix: [a, b, c] }: Group,
    op: &'static str,
) -> impl FnOnce(io::Error) -> Error {
    move |source| {
        let device = device_name(ifindex).unwrap_or_else(|_| format!("of index {ifindex}"));
        Error::Group { op, group: format!("33:33:ff:{a:02x}:{b:02x}:{c:02x}"), device, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_ask_in_the_group_of_the_last_three_bytes() {
        let addresses = [("2001:db8::aa:bbcc", 2), ("fd00::aa:bbcc", 2), ("fd00::1", 0), ("192.0.2.1", 2)];
        let addresses = addresses.map(|(address, ifindex)| (address.parse().unwrap(), ifindex));
        assert_eq!(groups(&addresses.into()), [Group { ifindex: 2, suffix: [0xaa, 0xbb, 0xcc] }].into());
    }

    #[test]
    fn a_mark_says_which_group_of_which_device() {
        let group = Group { ifindex: 7, suffix: [0, 0x0b, 0xff] };
        assert_eq!(group_of(&mark_path(Path::new("pins"), group)), Some(group));
        for other in ["pins/FLOWS_V4", "pins/group-x-000001", "pins/group-7", "pins/group-7-01000000"] {
            assert_eq!(group_of(Path::new(other)), None, "{other}");
        }
    }
}
