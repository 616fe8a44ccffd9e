//! Writes to maps, counted, and refused from a certain one on: as if the process had died there.
//!
//! The thread that writes has a seccomp filter which asks this one about each `bpf` system call that changes a map. The loader
//! knows nothing of it. A batch is one call: the kernel ends it, whoever kills the process meanwhile.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;

/// Does `work` on a thread whose first `budget` writes reach the maps and no others: what came of it.
pub fn within<T: Send>(budget: usize, work: impl FnOnce() -> T + Send) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            sender.send(ask_before_writes().unwrap()).unwrap();
            work()
        });
        let listener = receiver.recv().unwrap();
        let mut left = budget;
        while let Some(id) = next(&listener).unwrap() {
            answer(&listener, id, left > 0).unwrap();
            left = left.saturating_sub(1);
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Installs the filter on the calling thread, for good; who reads the descriptor is asked.
fn ask_before_writes() -> io::Result<OwnedFd> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Where `struct seccomp_data` has the number of the call, and the lower half of its first argument.
    const NUMBER: u32 = 0;
    const COMMAND: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let [update, delete, update_many, delete_many] = WRITES;
    let mut steps = [
        step(LOAD, NUMBER, 0, 0),
        step(IS, libc::SYS_bpf as u32, 0, 5),
        step(LOAD, COMMAND, 0, 0),
        step(IS, update, 4, 0),
        step(IS, delete, 3, 0),
        step(IS, update_many, 2, 0),
        step(IS, delete_many, 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program outlives the call, which copies it.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let listener = Errno::result(listener)? as i32;
    // SAFETY: the call returned a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// Waits for the next write: its number, or nothing where the thread has ended.
fn next(listener: &OwnedFd) -> io::Result<Option<u64>> {
    let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, alive.
    Errno::result(unsafe { libc::poll(&raw mut poll, 1, -1) })?;
    if poll.revents & libc::POLLIN == 0 {
        return Ok(None);
    }
    // SAFETY: plain words, which the kernel wants to be 0.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one notification there.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut asked) })?;
    Ok(Some(asked.id))
}

fn answer(listener: &OwnedFd, id: u64, goes_on: bool) -> io::Result<()> {
    let flags = if goes_on { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 };
    let mut answer =
        libc::seccomp_notif_resp { id, val: 0, error: if goes_on { 0 } else { -libc::EIO }, flags };
    // SAFETY: the kernel reads one answer there.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw mut answer) })?;
    Ok(())
}

/// `BPF_MAP_UPDATE_ELEM`, `BPF_MAP_DELETE_ELEM`, `BPF_MAP_UPDATE_BATCH`, `BPF_MAP_DELETE_BATCH`.
const WRITES: [u32; 4] = [2, 3, 26, 27];
/// `SECCOMP_IOCTL_NOTIF_RECV`.
const RECEIVE: libc::c_ulong = request(0, size_of::<libc::seccomp_notif>());
/// `SECCOMP_IOCTL_NOTIF_SEND`.
const SEND: libc::c_ulong = request(1, size_of::<libc::seccomp_notif_resp>());

/// The number of a request that is written and read, `_IOWR('!', number, size)`.
const fn request(number: libc::c_ulong, size: usize) -> libc::c_ulong {
    3 << 30 | (size as libc::c_ulong) << 16 | (b'!' as libc::c_ulong) << 8 | number
}
