//! Links by their pins: what is attached where is read from the bpf file system, never remembered.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::hook::Mode;
use crate::sys::{self, AttachType};

/// `XDP_FLAGS_SKB_MODE`.
const XDP_SKB: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
const XDP_DRIVER: u32 = 1 << 2;

/// Where a program sits on a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Slot {
    /// What comes in.
    In(Mode),
    /// What leaves, by TC.
    Egress,
}

/// The pin of a link.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct LinkPin {
    pub(crate) ifindex: u32,
    pub(crate) slot: Slot,
    pub(crate) path: PathBuf,
}

impl Slot {
    pub(crate) const ALL: [Self; 4] =
        [Self::In(Mode::Tc), Self::In(Mode::XdpNative), Self::In(Mode::XdpGeneric), Self::Egress];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::In(mode) => mode.label(),
            Self::Egress => "tc egress",
        }
    }

    pub(crate) const fn pin_name(self) -> &'static str {
        match self {
            Self::In(Mode::Tc) => "ingress",
            Self::In(Mode::XdpNative) => "xdp",
            Self::In(Mode::XdpGeneric) => "xdpgeneric",
            Self::Egress => "egress",
        }
    }

    const fn attach(self) -> (AttachType, u32) {
        match self {
            Self::In(Mode::Tc) => (AttachType::TcxIngress, 0),
            Self::In(Mode::XdpNative) => (AttachType::Xdp, XDP_DRIVER),
            Self::In(Mode::XdpGeneric) => (AttachType::Xdp, XDP_SKB),
            Self::Egress => (AttachType::TcxEgress, 0),
        }
    }
}

/// The pinned links in a directory.
pub(crate) fn links(directory: &Path) -> Result<Vec<LinkPin>, Error> {
    let mut links: Vec<LinkPin> = list(directory)?.into_iter().filter_map(link_pin).collect();
    links.sort();
    Ok(links)
}

pub(crate) fn link_path(directory: &Path, ifindex: u32, slot: Slot) -> PathBuf {
    directory.join(format!("link-{ifindex}-{}", slot.pin_name()))
}

/// Makes a link of the program at `pin`: in place of the program that is there, without a gap, or afresh. A link that is
/// pinned at one of `older` moves here.
pub(crate) fn put_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    slot: Slot,
    pin: &Path,
    older: &[PathBuf],
) -> io::Result<()> {
    for path in [pin].into_iter().chain(older.iter().map(PathBuf::as_path)) {
        let link = match sys::object_get(path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match sys::link_update(link.as_fd(), program) {
            Ok(()) => {
                if path != pin {
                    sys::object_pin(link.as_fd(), pin)?;
                }
                return remove_twins(link.as_fd(), older);
            }
            // The device of this link was removed; one of the same index is another device.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => fs::remove_file(path)?,
            Err(error) => return Err(error),
        }
    }
    let (attach_type, flags) = slot.attach();
    let link = sys::link_create(program, ifindex, attach_type, flags)?;
    sys::object_pin(link.as_fd(), pin)
}

/// Removes the pins of this very link, which goes on: a process may have ended between making a pin and removing the one
/// before it.
fn remove_twins(link: BorrowedFd<'_>, pins: &[PathBuf]) -> io::Result<()> {
    let id = sys::link_info(link)?.id;
    for path in pins {
        match sys::object_get(path).and_then(|other| sys::link_info(other.as_fd())) {
            Ok(other) if other.id == id => fs::remove_file(path)?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Detaches a link at once and removes its pin.
pub(crate) fn drop_link(path: &Path) -> Result<(), Error> {
    match sys::object_get(path) {
        // A link whose device is gone has nothing to detach.
        Ok(link) => drop(sys::link_detach(link.as_fd())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("open the pinned link", path)(error)),
    }
    fs::remove_file(path).map_err(Error::file("remove", path))
}

/// The device of the link is gone. A pin that cannot be opened says nothing: whoever replaces a layout moves its pins.
pub(crate) fn leads_nowhere(path: &Path) -> bool {
    sys::object_get(path).and_then(|link| sys::link_info(link.as_fd())).is_ok_and(|info| info.ifindex == 0)
}

/// Everything in a directory; nothing if it does not exist.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<_>>()
            .map_err(Error::file("list", directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file("list", directory)(error)),
    }
}

fn link_pin(path: PathBuf) -> Option<LinkPin> {
    let (ifindex, place) = path.file_name()?.to_str()?.strip_prefix("link-")?.split_once('-')?;
    let slot = Slot::ALL.into_iter().find(|slot| slot.pin_name() == place)?;
    Some(LinkPin { ifindex: ifindex.parse().ok()?, slot, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_moved_meanwhile_does_not_lead_nowhere() {
        assert!(!leads_nowhere(&link_path(Path::new("moved"), 7, Slot::Egress)));
    }

    #[test]
    fn a_pin_says_which_device_and_which_hook() {
        for slot in Slot::ALL {
            let path = link_path(Path::new("pins"), 7, slot);
            assert_eq!(link_pin(path.clone()), Some(LinkPin { ifindex: 7, slot, path }));
        }
        for other in ["pins/FLOWS_V4", "pins/link-x-xdp", "pins/link-7-other", "pins/link-7"] {
            assert_eq!(link_pin(other.into()), None, "{other}");
        }
    }
}
