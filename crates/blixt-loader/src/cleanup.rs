//! Taking Blixt off a machine: nothing of it stays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::filter;
use crate::instance::{Instance, Lock};
use crate::multicast;
use crate::pins;

/// Removes everything of the calling thread's network namespace, and of namespaces that are gone: programs, filters,
/// pins, locks. It needs no kernel program in the build, and does no harm where there is nothing.
pub fn cleanup() -> Result<(), Error> {
    let instance = Instance::current()?;
    let lock = instance.lock()?;
    remove_dead(&instance);
    remove_own(&instance, lock)
}

/// Removes everything of the network namespace that the calling thread is in.
pub(crate) fn remove_own(instance: &Instance, lock: Lock) -> Result<(), Error> {
    let mut layouts = Vec::new();
    for directory in instance.directories() {
        layouts.extend(pins::list(&directory)?);
    }
    let programs = all(layouts.iter().map(|layout| take_programs_off(layout)));
    let groups = all(layouts.iter().map(|layout| leave_groups(layout)));
    // What stays keeps its mark: the next cleanup finds it by that.
    programs.and(groups)?;
    remove_instance(instance, lock)
}

/// Removes what is pinned. The devices of a namespace that is gone have left their multicast groups with it.
fn remove_instance(instance: &Instance, lock: Lock) -> Result<(), Error> {
    for directory in instance.directories() {
        all(pins::list(&directory)?.iter().map(|layout| remove_layout(layout)))?;
        remove_directory(&directory)?;
        remove_parent(&directory);
    }
    lock.remove()
}

/// Takes the programs of one layout off their devices and removes its maps.
pub(crate) fn remove_layout(layout: &Path) -> Result<(), Error> {
    take_programs_off(layout)?;
    let remove = |path: &PathBuf| {
        let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        removed.map_err(Error::file("remove", path))
    };
    all(pins::list(layout)?.iter().map(remove))?;
    remove_directory(layout)?;
    if let Some(instance) = layout.parent() {
        // Other layouts may be there.
        let _: io::Result<()> = fs::remove_dir(instance);
        remove_parent(instance);
    }
    Ok(())
}

/// Every one of them is done, whatever becomes of the others; the first failure is returned.
pub(crate) fn all(results: impl Iterator<Item = Result<(), Error>>) -> Result<(), Error> {
    results.fold(Ok(()), Result::and)
}

fn take_programs_off(layout: &Path) -> Result<(), Error> {
    let links = all(pins::links(layout)?.iter().map(|link| pins::drop_link(&link.path)));
    let filters = filter::marks(layout)?;
    links.and(all(filters.into_iter().map(|(ifindex, slot)| filter::remove(layout, ifindex, slot))))
}

fn leave_groups(layout: &Path) -> Result<(), Error> {
    all(multicast::marks(layout)?.into_iter().map(|group| multicast::leave(layout, group)))
}

/// Removes the pins of instances whose network namespace ended without them; returns their names. A namespace takes its
/// devices with it: links that all lead nowhere are a dead one's. Failures wait for the next start.
pub(crate) fn remove_dead(own: &Instance) -> Vec<String> {
    let mut removed = Vec::new();
    for instance in Instance::all() {
        if instance == *own || !is_dead(&instance) {
            continue;
        }
        // One that is held is alive, whatever its links say.
        let Ok(lock) = instance.lock() else { continue };
        if is_dead(&instance) {
            if remove_instance(&instance, lock).is_ok() {
                removed.push(instance.name().to_owned());
            }
        } else if !instance.has_pins() {
            // It was cleaned up meanwhile, and its lock with it: this one is ours.
            let _: Result<(), Error> = lock.remove();
        }
    }
    removed
}

/// It has links, and all of them lead nowhere; or it has none, and nobody sees its network namespace.
fn is_dead(instance: &Instance) -> bool {
    let mut links = 0;
    for directory in instance.directories() {
        let Ok(layouts) = pins::list(&directory) else { return false };
        for layout in layouts {
            let Ok(pins) = pins::links(&layout) else { return false };
            if !pins.iter().all(|pin| pins::leads_nowhere(&pin.path))
                || filter::marks(&layout).is_ok_and(|marks| !marks.is_empty())
            {
                return false;
            }
            links += pins.len();
        }
    }
    links > 0 || !instance.is_namespace_seen()
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The directory of all instances goes with the last of them.
fn remove_parent(directory: &Path) {
    if let Some(parent) = directory.parent() {
        let _: io::Result<()> = fs::remove_dir(parent);
    }
}
