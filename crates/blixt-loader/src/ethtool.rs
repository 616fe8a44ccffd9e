//! What a device says of itself by `SIOCETHTOOL`: its driver, and the offloads that it has.

use std::io;
use std::sync::OnceLock;

use crate::hook::Driver;
use crate::ioctl;

// linux/ethtool.h, which libc does not have.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
/// The set of strings that names offloads, by number.
const ETH_SS_FEATURES: u32 = 4;
/// Bytes of a string.
const STRING: usize = 32;
/// Strings of a set that there is room for: kernels have some seventy offloads.
const STRINGS: usize = 256;
/// Words of as many bits.
const WORDS: usize = STRINGS / 32;

/// The driver of a device; a device that says nothing has a nameless one.
pub(crate) fn driver(device: &str) -> Driver {
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, ..DriverInfo::default() };
    match ask(device, &mut info) {
        Ok(()) => Driver { name: text(&info.driver), bus: text(&info.bus) },
        Err(_) => Driver::default(),
    }
}

/// The device's user may switch TCP segmentation on or off; `None` if it does not say.
pub(crate) fn may_segment(device: &str) -> Option<bool> {
    static NUMBER: OnceLock<usize> = OnceLock::new();
    let offload = offload(device, "tx-tcp-segmentation", &NUMBER)?;
    Some(offload.is_available)
}

/// The device takes the VLAN tag off what it receives; `None` if it does not say.
pub(crate) fn takes_tags_off(device: &str) -> Option<bool> {
    static NUMBER: OnceLock<usize> = OnceLock::new();
    let offload = offload(device, "rx-vlan-hw-parse", &NUMBER)?;
    Some(offload.is_active)
}

struct Offload {
    is_available: bool,
    is_active: bool,
}

/// What a device says of an offload, whose number is remembered once some device has told it.
fn offload(device: &str, name: &str, number: &OnceLock<usize>) -> Option<Offload> {
    let number = match number.get() {
        Some(number) => *number,
        None => {
            let told = number_of(device, name)?;
            *number.get_or_init(|| told)
        }
    };
    let mut features = Features { command: ETHTOOL_GFEATURES, words: WORDS as u32, ..Features::default() };
    ask(device, &mut features).ok()?;
    let [available, _, active, _] = features.bits.get(number / 32)?;
    let is_set = |word: &u32| word >> (number % 32) & 1 == 1;
    Some(Offload { is_available: is_set(available), is_active: is_set(active) })
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
#[derive(Default)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rest: [u32; 16],
}

/// `struct ethtool_sset_info` for one set.
#[repr(C)]
#[derive(Default)]
struct SetInfo {
    command: u32,
    reserved: u32,
    mask: u64,
    count: u32,
}

/// `struct ethtool_gstrings`.
#[repr(C)]
struct Strings {
    command: u32,
    set: u32,
    count: u32,
    strings: [[u8; STRING]; STRINGS],
}

/// `struct ethtool_gfeatures`: for each word what is available, requested, active and never changed.
#[repr(C)]
#[derive(Default)]
struct Features {
    command: u32,
    words: u32,
    bits: [[u32; 4]; WORDS],
}

/// The number of an offload, which is the same for every device.
fn number_of(device: &str, name: &str) -> Option<usize> {
    let mut info = SetInfo { command: ETHTOOL_GSSET_INFO, mask: 1 << ETH_SS_FEATURES, ..SetInfo::default() };
    ask(device, &mut info).ok()?;
    let count = info.count as usize;
    if count > STRINGS {
        return None;
    }
    // The kernel writes as many strings as it has.
    let mut strings = Strings {
        command: ETHTOOL_GSTRINGS,
        set: ETH_SS_FEATURES,
        count: info.count,
        strings: [[0; STRING]; STRINGS],
    };
    ask(device, &mut strings).ok()?;
    strings.strings[..count].iter().position(|bytes| text(bytes) == name)
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

/// `data` is one of the structures above, and begins with the command that it belongs to.
fn ask<T>(device: &str, data: &mut T) -> io::Result<()> {
    // SAFETY: the command reads a pointer, to a structure of the size that the kernel knows.
    unsafe { ioctl::request(device, libc::SIOCETHTOOL as _, std::ptr::from_mut(data)) }
}
