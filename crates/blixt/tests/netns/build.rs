//! Other builds of `blixt`, made of this one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::world::BLIXT;

/// The same program with another version number.
pub fn of_another_version(directory: &Path) -> PathBuf {
    let version = env!("CARGO_PKG_VERSION").as_bytes();
    let mut other = version.to_vec();
    *other.last_mut().unwrap() ^= 1;
    changed(directory, "blixt-of-another-version", |blixt| {
        let places: Vec<usize> =
            (0..blixt.len() - version.len()).filter(|at| blixt[*at..].starts_with(version)).collect();
        assert!(!places.is_empty(), "blixt does not know its version");
        for at in places {
            blixt[at..at + other.len()].copy_from_slice(&other);
        }
    })
}

/// The same program with a kernel program that no verifier lets in: each of its parts ends before it has a result.
pub fn that_the_verifier_refuses(directory: &Path) -> PathBuf {
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    changed(directory, "blixt-that-is-refused", |blixt| {
        let object = kernel_object(blixt).expect("blixt carries no kernel program");
        let programs = programs(&blixt[object..]);
        assert!(!programs.is_empty(), "the kernel program has no parts");
        for at in programs {
            blixt[object + at..object + at + EXIT.len()].copy_from_slice(&EXIT);
        }
    })
}

fn changed(directory: &Path, name: &str, change: impl FnOnce(&mut [u8])) -> PathBuf {
    let path = directory.join(name);
    fs::copy(BLIXT, &path).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    path
}

/// Where the ELF file of the kernel program begins.
fn kernel_object(bytes: &[u8]) -> Option<usize> {
    const BPF: u64 = 247;
    (0..bytes.len().saturating_sub(64))
        .step_by(4)
        .find(|at| bytes[*at..].starts_with(b"\x7fELF\x02\x01") && number(&bytes[at + 18..], 2) == BPF)
}

/// Where the first instruction of each program stands in an ELF file of 64 bits.
fn programs(elf: &[u8]) -> Vec<usize> {
    const SYMBOLS: u64 = 2;
    const GLOBAL_FUNCTION: u8 = 0x12;
    const TEXT: &str = ".text";
    let (table, size) = (number(&elf[0x28..], 8) as usize, number(&elf[0x3a..], 2) as usize);
    let section = |index: usize| &elf[table + index * size..][..size];
    let offset = |index: usize| number(&section(index)[24..], 8) as usize;
    let text = |table: usize, at: usize| {
        let bytes = &elf[offset(table) + at..];
        String::from_utf8_lossy(&bytes[..bytes.iter().position(|byte| *byte == 0).unwrap()]).into_owned()
    };
    let (count, names) = (number(&elf[0x3c..], 2) as usize, number(&elf[0x3e..], 2) as usize);
    let mut programs = Vec::new();
    for symbols in (0..count).filter(|index| number(&section(*index)[4..], 4) == SYMBOLS) {
        let length = number(&section(symbols)[32..], 8) as usize;
        for symbol in elf[offset(symbols)..][..length].chunks(24) {
            let home = number(&symbol[6..], 2) as usize;
            if symbol[4] == GLOBAL_FUNCTION
                && home < count
                && text(names, number(section(home), 4) as usize) != TEXT
            {
                programs.push(offset(home) + number(&symbol[8..], 8) as usize);
            }
        }
    }
    programs
}

fn number(bytes: &[u8], size: usize) -> u64 {
    bytes[..size].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
