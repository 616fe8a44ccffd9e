//! What the lab wants of BPF: an XDP program that passes everything (with it at a veth, the peer may redirect frames to
//! it), the list of programs in the kernel, and which of them a link holds.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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

/// The names of all programs in the kernel, by id.
pub fn programs() -> Result<BTreeMap<u32, String>, Error> {
    let mut names = BTreeMap::new();
    let mut id = 0;
    loop {
        let mut next = NextId { start: id, next: 0, flags: 0 };
        match call(BPF_PROG_GET_NEXT_ID, &mut next) {
            Ok(_) => id = next.next,
            Err(Errno::ENOENT) => return Ok(names),
            Err(errno) => return Err(Error::io("list", "programs")(errno)),
        }
        // A program that went between the two calls is none.
        let Ok(program) = bpf(BPF_PROG_GET_FD_BY_ID, &mut NextId { start: id, next: 0, flags: 0 }) else {
            continue;
        };
        let mut info = ProgramInfo::default();
        let mut attributes = InfoByDescriptor {
            descriptor: program.as_raw_fd().cast_unsigned(),
            length: size_of::<ProgramInfo>() as u32,
            info: (&raw mut info) as u64,
        };
        call(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)
            .map_err(Error::io("describe program", id.to_string()))?;
        let name = info.name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte));
        names.insert(id, name.collect());
    }
}

/// The id of the program that a pinned link holds.
pub fn linked_program(pin: &Path) -> Result<u32, Error> {
    let fail = || Error::io("describe the pinned link", pin.display().to_string());
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL).map_err(fail())?;
    let link = bpf(BPF_OBJ_GET, &mut Pin { path: path.as_ptr() as u64, descriptor: 0, flags: 0 });
    let link = link.map_err(fail())?;
    let mut info = LinkInfo::default();
    let mut attributes = InfoByDescriptor {
        descriptor: link.as_raw_fd().cast_unsigned(),
        length: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    call(BPF_OBJ_GET_INFO_BY_FD, &mut attributes).map_err(fail())?;
    Ok(info.program)
}

// Of linux/bpf.h and linux/if_link.h.
const BPF_OBJ_GET: i32 = 7;
const BPF_PROG_GET_NEXT_ID: i32 = 11;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
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

/// The part of `union bpf_attr` that walks over ids, or names one.
#[repr(C)]
struct NextId {
    start: u32,
    next: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that asks what a descriptor is.
#[repr(C)]
struct InfoByDescriptor {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// The leading part of `struct bpf_prog_info`; the kernel fills as much as there is room for.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before_name: [u64; 8],
    name: [u8; 16],
}

/// The part of `union bpf_attr` that opens a pin.
#[repr(C)]
struct Pin {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// The leading part of `struct bpf_link_info`.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
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

/// A command that returns a new descriptor.
fn bpf<T>(command: i32, attributes: &mut T) -> nix::Result<OwnedFd> {
    let descriptor = call(command, attributes)?;
    // SAFETY: the commands that this is used for return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn call<T>(command: i32, attributes: &mut T) -> nix::Result<i32> {
    // SAFETY: the attributes are the leading part of `union bpf_attr` for this command, of the size given, and what
    // they point to lives in the caller; the kernel takes the rest as zero.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    Ok(Errno::result(result)? as i32)
}
