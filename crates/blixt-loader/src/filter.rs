//! TC without TCX (Linux before 6.6): filters of a clsact queueing discipline.
//!
//! A filter lives by itself, without a pin. What marks it as ours is an empty directory beside the pins; another one
//! marks a queueing discipline that we made, which is removed with its last filter.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{SchedClassifier, TcAttachType, tc};

use crate::Error;
use crate::attach::{attach_error, device_name};
use crate::clsact;
use crate::hook::Mode;
use crate::pins::{self, Slot};

/// After most others, but before the end: those who come later can still choose.
const PRIORITY: u16 = 40_000;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Puts the program there, in place of an older one.
pub(crate) fn put(
    program: &mut SchedClassifier,
    directory: &Path,
    ifindex: u32,
    device: &str,
    slot: Slot,
) -> Result<(), Error> {
    let error = || attach_error(ifindex, slot.label());
    let mark = mark_path(directory, ifindex, slot);
    let attach_type = attach_type(slot);
    if tc::qdisc_add_clsact(device).is_ok() {
        make(&qdisc_path(directory, ifindex))?;
    }
    let existing = SchedClassifierLink::attached(device, attach_type, PRIORITY, HANDLE, None);
    let replaced = existing.and_then(|link| program.attach_to_link(link).map_err(io::Error::other));
    let id = match replaced {
        Ok(id) => id,
        Err(_) => {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            program
                .attach_with_options(device, attach_type, TcAttachOptions::Netlink(options))
                .map_err(io::Error::other)
                .map_err(error())?
        }
    };
    let link = program.take_link(id).map_err(io::Error::other).map_err(error())?;
    // It stays when this process ends.
    std::mem::forget(link);
    make(&mark)
}

/// Removes our filter, and the queueing discipline if we made it and nobody else uses it. The device may be gone.
pub(crate) fn remove(directory: &Path, ifindex: u32, slot: Slot) -> Result<(), Error> {
    let mark = mark_path(directory, ifindex, slot);
    if !mark.is_dir() {
        return Ok(());
    }
    let device = device_name(ifindex).ok();
    if let Some(device) = &device
        && let Ok(link) = SchedClassifierLink::attached(device, attach_type(slot), PRIORITY, HANDLE, None)
    {
        // Dropping the link removes the filter; one that somebody else removed before is no error.
        drop(link);
    }
    fs::remove_dir(&mark).map_err(Error::file("remove", &mark))?;
    let qdisc = qdisc_path(directory, ifindex);
    let is_last = marks(directory)?.iter().all(|(other, _)| *other != ifindex);
    if is_last && qdisc.is_dir() {
        if device.is_some() && !clsact::has_filters(ifindex).map_err(attach_error(ifindex, "clsact"))? {
            clsact::delete(ifindex).map_err(attach_error(ifindex, "clsact"))?;
        }
        fs::remove_dir(&qdisc).map_err(Error::file("remove", &qdisc))?;
    }
    Ok(())
}

/// The filters of ours that a directory knows.
pub(crate) fn marks(directory: &Path) -> Result<Vec<(u32, Slot)>, Error> {
    let mark = |path: PathBuf| {
        let (ifindex, place) = path.file_name()?.to_str()?.strip_prefix("filter-")?.split_once('-')?;
        let slot = Slot::ALL.into_iter().find(|slot| slot.pin_name() == place)?;
        Some((ifindex.parse().ok()?, slot))
    };
    Ok(pins::list(directory)?.into_iter().filter_map(mark).collect())
}

fn mark_path(directory: &Path, ifindex: u32, slot: Slot) -> PathBuf {
    directory.join(format!("filter-{ifindex}-{}", slot.pin_name()))
}

fn qdisc_path(directory: &Path, ifindex: u32) -> PathBuf {
    directory.join(format!("qdisc-{ifindex}"))
}

fn attach_type(slot: Slot) -> TcAttachType {
    match slot {
        Slot::In(Mode::Tc | Mode::XdpNative | Mode::XdpGeneric) => TcAttachType::Ingress,
        Slot::Egress => TcAttachType::Egress,
    }
}

fn make(mark: &Path) -> Result<(), Error> {
    match fs::create_dir(mark) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::file("create", mark)(error)),
        _ => Ok(()),
    }
}
