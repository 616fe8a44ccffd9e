//! An XDP program that passes everything: with it at a veth, the peer may redirect frames to it.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::{Error, Machine};

/// The program, attached in native mode as long as this lives.
#[derive(Debug)]
pub struct XdpPass {
    _link: OwnedFd,
}

impl XdpPass {
    /// Attaches it to a device of a machine.
    pub fn attach(machine: &Machine, device: &str) -> Result<Self, Error> {
        let fail = || Error::io("attach XDP_PASS to", format!("{device} in {}", machine.name()));
        let program = load().map_err(fail())?;
        let link = machine.run(|| {
            let index = if_nametoindex(device)?;
            let mut attributes = LinkCreate {
                program: program.as_raw_fd().cast_unsigned(),
                target: index,
                attach_type: BPF_XDP,
                flags: XDP_FLAGS_DRV_MODE,
            };
            bpf(BPF_LINK_CREATE, &mut attributes)
        });
        link.map(|link| Self { _link: link }).map_err(fail())
    }
}

// Of linux/bpf.h and linux/if_link.h.
const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_PASS: i32 = 2;

/// The part of `union bpf_attr` that loads a program.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The part of `union bpf_attr` that makes a link.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn load() -> nix::Result<OwnedFd> {
    let code = [
        // r0 = XDP_PASS
        Instruction { code: 0xb7, registers: 0, offset: 0, immediate: XDP_PASS },
        // exit
        Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
    ];
    let license = CString::from(c"Apache-2.0");
    let mut attributes = ProgramLoad {
        kind: BPF_PROG_TYPE_XDP,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    bpf(BPF_PROG_LOAD, &mut attributes)
}

fn bpf<T>(command: i32, attributes: &mut T) -> nix::Result<OwnedFd> {
    // SAFETY: the attributes are the leading part of `union bpf_attr` for this command, of the size given, and what
    // they point to lives in the caller; the kernel takes the rest as zero.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    let descriptor = Errno::result(result)?;
    // SAFETY: both commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}
