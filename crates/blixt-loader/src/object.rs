//! The kernel program's object: what it holds, and how it comes into the kernel.
//!
//! aya reopens a pinned map without comparing it with the object. So shapes are compared here, before it is asked to.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::maps::{Map, MapData, MapError};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use blixt_packet::abi::Settings;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::Error;
use crate::capacity::Capacity;
use crate::cpu_table::CpuTable;
use crate::machine;
use crate::plain::Plain;
use crate::sys::{self, MapInfo};
use crate::table::Table;

/// Every program of the object.
pub(crate) const PROGRAMS: [&str; 3] = [INGRESS, EGRESS, XDP];
/// The TC program at ingress.
pub(crate) const INGRESS: &str = "blixt_ingress";
/// The TC program at egress.
pub(crate) const EGRESS: &str = "blixt_egress";
/// The XDP program.
pub(crate) const XDP: &str = "blixt_xdp";

#[cfg(blixt_object)]
const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/blixt.o")));
#[cfg(not(blixt_object))]
const OBJECT: Option<&[u8]> = None;

/// Lines of the verifier's log that an error shows: the reason comes last.
const LOG_LINES: usize = 12;

/// A map whose size is not the one that was asked for, since it was pinned before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptSize {
    /// The map.
    pub map: String,
    /// Entries that it has room for.
    pub pinned: u32,
    /// Entries that were asked for.
    pub wanted: u32,
}

/// The programs and maps of one load.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Holds the programs, those that are not loaded yet too.
    pub(crate) ebpf: Ebpf,
    /// The maps of the contract.
    pub(crate) fds: Fds,
    /// The capacity that the maps have.
    pub(crate) capacity: Capacity,
    /// Maps that are not of the size asked for.
    pub(crate) kept: Vec<KeptSize>,
}

/// Descriptors of maps, by name.
#[derive(Debug)]
pub(crate) struct Fds(BTreeMap<String, OwnedFd>);

/// Creates the maps or takes those pinned in `pins` over, and loads the program that every hook needs.
pub(crate) fn load(pins: &Path, capacity: &Capacity, settings: &Settings) -> Result<Loaded, Error> {
    let object = OBJECT.ok_or(Error::NoObject)?;
    let maps = contract_maps(object, capacity)?;
    let mut kept = Vec::new();
    let settings = settings_bytes(settings);
    let paths: Vec<_> = maps.iter().map(|(name, _)| pins.join(name)).collect();

    let mut loader = EbpfLoader::new();
    // No type of the kernel is looked up by the programs: reading all of its types would cost 100 ms.
    // A log is written only when a program that was refused is tried once more: it costs nothing before.
    loader.btf(None).verifier_log_level(VerifierLogLevel::DEBUG);
    loader.override_global("SETTINGS", settings.as_slice(), true);
    for ((name, wanted), path) in maps.iter().zip(&paths) {
        let mut entries = wanted.max_entries;
        if let Some(pinned) = pinned_entries(path, wanted)? {
            if pinned != entries {
                kept.push(KeptSize { map: name.clone(), pinned, wanted: entries });
            }
            entries = pinned;
        }
        loader.map_pin_path(name, path.as_path()).map_max_entries(name, entries);
    }
    let mut ebpf = undisturbed(|| loader.load(object)).map_err(load_error)?;
    // XDP has it behind; the others are loaded when a device wants them.
    load_program(&mut ebpf, INGRESS)?;

    let mut fds = BTreeMap::new();
    let mut entries = BTreeMap::new();
    for (name, _) in &maps {
        let Some(data) = ebpf.map(name).and_then(map_data) else { continue };
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(Error::file("duplicate", pins.join(name)))?;
        let info = sys::map_info(fd.as_fd()).map_err(Error::file("read the shape of", pins.join(name)))?;
        entries.insert(name.clone(), info.max_entries);
        fds.insert(name.clone(), fd);
    }
    let capacity = Capacity::of_maps(|map| entries.get(map).copied().unwrap_or(1));
    Ok(Loaded { ebpf, fds: Fds(fds), capacity, kept })
}

/// Loads a program, unless it is in the kernel already.
pub(crate) fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), Error> {
    let program = ebpf.program_mut(name).ok_or(Error::Missing { name })?;
    if is_loaded(program) {
        return Ok(());
    }
    let loaded = match program {
        Program::Xdp(program) => undisturbed(|| program.load()),
        Program::SchedClassifier(program) => undisturbed(|| program.load()),
        _ => return Err(Error::Missing { name }),
    };
    loaded.map_err(|source| match source {
        ProgramError::LoadError { io_error, .. } if is_permission(&io_error) => Error::NotPermitted,
        ProgramError::LoadError { io_error, verifier_log } => Error::Verifier {
            program: name,
            log: tail(&verifier_log.to_string()).unwrap_or_else(|| io_error.to_string()),
            release: machine::kernel_release(),
        },
        source => Error::Program { program: name, source },
    })
}

/// The verifier gives up when a signal waits for the thread that it works for. Meanwhile other threads take them.
/// The first object that Aya loads asks the verifier too: which of its features the kernel has; an answer that was cut short counts as no.
fn undisturbed<T>(load: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let loaded = load();
    if let Ok(before) = before {
        // It was in force a moment ago.
        let _ = before.thread_set_mask();
    }
    loaded
}

/// The verifier let it in.
pub(crate) fn is_loaded(program: &Program) -> bool {
    program.fd().is_ok()
}

/// The build carries a kernel program.
pub(crate) fn is_there() -> bool {
    OBJECT.is_some()
}

impl Fds {
    pub(crate) fn fd(&self, name: &'static str) -> Result<OwnedFd, Error> {
        let Self(fds) = self;
        let fd = fds.get(name).ok_or(Error::Missing { name })?;
        fd.try_clone().map_err(Error::map("duplicate", name))
    }

    pub(crate) fn table<K: Plain + std::fmt::Debug, V: Plain>(
        &self,
        name: &'static str,
    ) -> Result<Table<K, V>, Error> {
        Table::new(name, self.fd(name)?)
    }

    pub(crate) fn cpu_table<V: Plain>(&self, name: &'static str, cpus: usize) -> Result<CpuTable<V>, Error> {
        CpuTable::new(name, self.fd(name)?, cpus)
    }
}

/// The maps of the object that the contract names, with the shapes that they are to have.
fn contract_maps(object: &[u8], capacity: &Capacity) -> Result<Vec<(String, MapInfo)>, Error> {
    let object = aya_obj::Object::parse(object).map_err(|error| Error::Load(EbpfError::ParseError(error)))?;
    Ok(object
        .maps
        .into_iter()
        .filter_map(|(name, map)| {
            let max_entries = capacity.entries(&name)?;
            let shape = MapInfo {
                map_type: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries,
                map_flags: map.map_flags(),
                ..MapInfo::default()
            };
            Some((name, shape))
        })
        .collect())
}

/// The size of the map pinned at a path, once all else about it is as wanted; `None` if there is no pin.
fn pinned_entries(path: &Path, wanted: &MapInfo) -> Result<Option<u32>, Error> {
    let fd = match sys::object_get(path) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("open the pinned map", path)(error)),
    };
    let pinned = sys::map_info(fd.as_fd()).map_err(Error::file("read the shape of", path))?;
    let properties = [
        ("type", pinned.map_type, wanted.map_type),
        ("key size", pinned.key_size, wanted.key_size),
        ("value size", pinned.value_size, wanted.value_size),
        ("flags", pinned.map_flags, wanted.map_flags),
    ];
    match properties.into_iter().find(|(_, pinned, wanted)| pinned != wanted) {
        Some((field, pinned, wanted)) => Err(Error::PinnedMap { path: path.into(), field, pinned, wanted }),
        None => Ok(Some(pinned.max_entries)),
    }
}

fn load_error(error: EbpfError) -> Error {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => match io_error.raw_os_error() {
            // Without the right to bpf, an old kernel names the locked memory.
            Some(libc::EPERM | libc::EACCES) => Error::NotPermitted,
            Some(libc::ENOMEM | libc::E2BIG) => Error::NoMemory { map: name },
            _ => Error::Load(EbpfError::MapError(MapError::CreateError { name, io_error })),
        },
        error => Error::Load(error),
    }
}

fn is_permission(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

/// The end of a log, without the statistics; `None` if it is empty.
fn tail(log: &str) -> Option<String> {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("processed "))
        .collect();
    (!lines.is_empty()).then(|| lines[lines.len().saturating_sub(LOG_LINES)..].join("; "))
}

fn settings_bytes(settings: &Settings) -> [u8; size_of::<Settings>()] {
    let Settings {
        first_port,
        last_port,
        udp_idle,
        syn_idle,
        closed_idle,
        answers,
        new_flows,
        passes_strays,
    } = *settings;
    let mut bytes = [0; size_of::<Settings>()];
    bytes[..2].copy_from_slice(&first_port.to_ne_bytes());
    bytes[2..4].copy_from_slice(&last_port.to_ne_bytes());
    let words = [udp_idle, syn_idle, closed_idle, answers, new_flows, passes_strays];
    for (to, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data) => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_the_verifier_is_the_end_of_its_log() {
        let log = (0..100).map(|line| format!("line {line}\n")).collect::<String>() + "processed 100 insns\n";
        let shown = tail(&log).unwrap();
        assert!(shown.starts_with("line 88; ") && shown.ends_with("line 99"), "{shown}");
        assert_eq!(tail("\n"), None);
    }

    #[test]
    fn settings_lie_in_memory_as_the_program_reads_them() {
        let settings = Settings { first_port: 0x0102, new_flows: 7, passes_strays: 5, ..Settings::DEFAULT };
        let bytes = settings_bytes(&settings);
        assert_eq!(bytes[..2], 0x0102u16.to_ne_bytes());
        assert_eq!(bytes[20..24], 7u32.to_ne_bytes());
        assert_eq!(bytes[24..], 5u32.to_ne_bytes());
    }
}
