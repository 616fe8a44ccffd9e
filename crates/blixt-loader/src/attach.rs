//! Programs on devices.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::{ProgramError, ProgramFd, SchedClassifier};
use tracing::warn;

use crate::Error;
use crate::ethtool;
use crate::filter;
use crate::hook::{self, Hook, Mode};
use crate::object::{self, EGRESS, INGRESS, XDP};
use crate::pins::{self, LinkPin, Slot};

/// How a device is hooked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Attachment {
    /// Index of the device.
    pub ifindex: u32,
    /// How packets that come in are seen first (XDP has TC behind it); `None` if only the egress is hooked.
    pub ingress: Option<Mode>,
    /// Packets that leave are seen too.
    pub egress: bool,
    /// By filters of a clsact queueing discipline, since the kernel has no TCX.
    pub by_filter: bool,
}

/// Where this version's pins are, and those of others.
#[derive(Debug)]
pub(crate) struct Directories {
    pub(crate) own: PathBuf,
    pub(crate) other_layouts: Vec<PathBuf>,
}

/// Hooks that devices refused when they were tried last, with the device's name and why.
pub(crate) type Refusals = BTreeMap<(u32, &'static str), (String, String)>;

/// Hooks a device, or replaces the programs that are there without a gap. What it is hooked by besides goes, after.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    directories: &Directories,
    refusals: &mut Refusals,
    ifindex: u32,
    hook: Hook,
    egress: bool,
    by_filter: bool,
) -> Result<Attachment, Error> {
    let device = device_name(ifindex).map_err(attach_error(ifindex, "any hook"))?;
    let existing: BTreeSet<Slot> = attached_slots(directories, ifindex)?;
    let mut failure = None;
    let mut ingress = None;
    let mut filter = false;
    // First: no request reaches a backend on this machine whose reply would leave as it is.
    if egress {
        filter |= place(ebpf, directories, ifindex, &device, Slot::Egress, by_filter)?;
    }
    for &mode in hook::modes(hook, &ethtool::driver(&device)) {
        // Generic XDP is only ever there because the driver has no native one, and the two exclude each other.
        if mode == Mode::XdpNative && existing.contains(&Slot::In(Mode::XdpGeneric)) {
            continue;
        }
        match place(ebpf, directories, ifindex, &device, Slot::In(mode), by_filter) {
            Ok(by_filter) => {
                refusals.remove(&(ifindex, mode.label()));
                filter |= by_filter;
                ingress = Some(mode);
                break;
            }
            Err(error) if may_take_another(mode, &error) => {
                // A device that cannot be hooked is tried again and again.
                let refusal = (device.clone(), error.to_string());
                if refusals.insert((ifindex, mode.label()), refusal.clone()) != Some(refusal) {
                    warn!(device, hook = mode.label(), %error, "a hook is refused, taking the next best");
                }
                failure = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    let Some(mode) = ingress else {
        return Err(
            failure.unwrap_or_else(|| attach_error(ifindex, "any hook")(libc_error(libc::EOPNOTSUPP)))
        );
    };
    // XDP leaves what it cannot send to TC.
    if mode != Mode::Tc {
        filter |= place(ebpf, directories, ifindex, &device, Slot::In(Mode::Tc), by_filter)?;
    }
    for slot in Slot::ALL {
        let stays = match slot {
            Slot::In(Mode::Tc) => true,
            Slot::In(other) => other == mode,
            Slot::Egress => egress,
        };
        if !stays {
            displace(directories, ifindex, slot)?;
        }
    }
    Ok(Attachment { ifindex, ingress: Some(mode), egress, by_filter: filter })
}

/// Takes the programs off a device, which may be gone already.
pub(crate) fn detach(directories: &Directories, ifindex: u32) -> Result<(), Error> {
    Slot::ALL.into_iter().try_for_each(|slot| displace(directories, ifindex, slot))
}

/// What is attached, by this process or by one before it, under this layout or another.
pub(crate) fn attachments(directories: &Directories) -> Result<Vec<Attachment>, Error> {
    let mut all: Vec<Attachment> = Vec::new();
    let mut add = |ifindex: u32, slot: Slot, by_filter: bool| {
        let known = all.iter().position(|attachment| attachment.ifindex == ifindex);
        let at = known.unwrap_or_else(|| {
            all.push(Attachment { ifindex, ingress: None, egress: false, by_filter });
            all.len() - 1
        });
        match slot {
            // TC is there beside XDP as well.
            Slot::In(Mode::Tc) => all[at].ingress = all[at].ingress.or(Some(Mode::Tc)),
            Slot::In(mode) => all[at].ingress = Some(mode),
            Slot::Egress => all[at].egress = true,
        }
        all[at].by_filter |= by_filter;
    };
    for directory in directories.all() {
        for LinkPin { ifindex, slot, .. } in pins::links(directory)? {
            add(ifindex, slot, false);
        }
        for (ifindex, slot) in filter::marks(directory)? {
            add(ifindex, slot, true);
        }
    }
    all.sort();
    Ok(all)
}

impl Directories {
    pub(crate) fn all(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.own).chain(&self.other_layouts)
    }
}

pub(crate) fn device_name(ifindex: u32) -> io::Result<String> {
    let name = nix::net::if_::if_indextoname(ifindex)?.to_string_lossy().into_owned();
    // The library takes a device that is gone for one without a name.
    if name.is_empty() { Err(libc_error(libc::ENODEV)) } else { Ok(name) }
}

/// Puts the slot's program there; true if by a filter.
fn place(
    ebpf: &mut Ebpf,
    directories: &Directories,
    ifindex: u32,
    device: &str,
    slot: Slot,
    by_filter: bool,
) -> Result<bool, Error> {
    let pin = pins::link_path(&directories.own, ifindex, slot);
    let older: Vec<_> =
        directories.other_layouts.iter().map(|layout| pins::link_path(layout, ifindex, slot)).collect();
    let is_tc = !matches!(slot, Slot::In(Mode::XdpNative | Mode::XdpGeneric));
    if !(by_filter && is_tc) {
        let program = program(ebpf, slot)?;
        match pins::put_link(program.as_fd(), ifindex, slot, &pin, &older) {
            Ok(()) => return Ok(false),
            // Before Linux 6.6 the kernel does not know this kind of link.
            Err(error) if is_tc && error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(attach_error(ifindex, slot.label())(error)),
        }
    }
    filter::put(classifier(ebpf, slot)?, &directories.own, ifindex, device, slot)?;
    Ok(true)
}

fn displace(directories: &Directories, ifindex: u32, slot: Slot) -> Result<(), Error> {
    for directory in directories.all() {
        pins::drop_link(&pins::link_path(directory, ifindex, slot))?;
        filter::remove(directory, ifindex, slot)?;
    }
    Ok(())
}

fn attached_slots(directories: &Directories, ifindex: u32) -> Result<BTreeSet<Slot>, Error> {
    let mut slots = BTreeSet::new();
    for directory in directories.all() {
        let links = pins::links(directory)?;
        slots.extend(links.iter().filter(|link| link.ifindex == ifindex).map(|link| link.slot));
    }
    Ok(slots)
}

/// The slot's program, in the kernel. The verifier has only those before it that are used: an XDP program that it
/// refuses is nothing to TC.
fn program(ebpf: &mut Ebpf, slot: Slot) -> Result<ProgramFd, Error> {
    let name = program_name(slot);
    object::load_program(ebpf, name)?;
    let program = ebpf.program(name).ok_or(Error::Missing { name })?;
    let fd = program.fd().and_then(|fd| fd.try_clone().map_err(ProgramError::from));
    fd.map_err(|source| Error::Program { program: name, source })
}

fn classifier(ebpf: &mut Ebpf, slot: Slot) -> Result<&mut SchedClassifier, Error> {
    let name = program_name(slot);
    object::load_program(ebpf, name)?;
    let program = ebpf.program_mut(name).ok_or(Error::Missing { name })?;
    <&mut SchedClassifier>::try_from(program).map_err(|source| Error::Program { program: name, source })
}

const fn program_name(slot: Slot) -> &'static str {
    match slot {
        Slot::In(Mode::Tc) => INGRESS,
        Slot::In(Mode::XdpNative | Mode::XdpGeneric) => XDP,
        Slot::Egress => EGRESS,
    }
}

/// The driver has no such hook, or not as the device is set up (MTU, queues, another program), or the verifier refuses
/// the program: the next one may do.
fn may_take_another(mode: Mode, error: &Error) -> bool {
    let is_of_this_hook = match error {
        Error::Attach { source, .. } => !matches!(source.raw_os_error(), Some(libc::EPERM | libc::ENODEV)),
        Error::Verifier { .. } | Error::Program { .. } | Error::Missing { .. } => true,
        _ => false,
    };
    mode != Mode::Tc && is_of_this_hook
}

pub(crate) fn attach_error(ifindex: u32, hook: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| {
        let device = device_name(ifindex).unwrap_or_else(|_| format!("of index {ifindex}"));
        Error::Attach { device, hook, source }
    }
}

fn libc_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_xdp_program_that_the_verifier_refuses_leaves_the_device_to_tc() {
        let refused = |program| Error::Verifier { program, log: String::new(), release: String::new() };
        assert!(may_take_another(Mode::XdpNative, &refused(XDP)));
        assert!(may_take_another(Mode::XdpGeneric, &refused(XDP)));
        assert!(!may_take_another(Mode::Tc, &refused(INGRESS)));
        assert!(!may_take_another(Mode::XdpNative, &Error::NotPermitted));
    }
}
