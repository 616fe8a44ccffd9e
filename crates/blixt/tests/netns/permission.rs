//! Machines that do not let Blixt do what it must: no root, no bpf, no bpf file system.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use blixt_lab::{Family, Protocol};
use tempfile::TempDir;

use crate::demo::children_of;
use crate::manifests::Manifests;
use crate::world::{BLIXT, Hook, World, until};

#[test]
fn without_root_every_command_names_the_next_step() {
    let world = World::usual(Hook::Tc);
    let public = public_copy();
    let manifests = public.path().join("web.yaml");
    let nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        command.arg(public.path().join("blixt")).args(arguments);
        outcome(&world, command)
    };
    let files = manifests.to_str().unwrap();
    for arguments in [
        &["run", "-f", files][..],
        &["status"],
        &["explain", "tcp 10.0.0.2:4242 > 10.99.0.1:80"],
        &["cleanup"],
        &["demo"],
    ] {
        let (code, words) = nobody(arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {words}");
        assert!(
            words.contains("run as root") || words.contains("run this as root"),
            "{arguments:?}: {words}"
        );
        assert_eq!(words.matches("os error").count() & !1, 0, "{arguments:?} says it twice: {words}");
        assert_eq!(words.lines().count(), 1, "{arguments:?}: {words}");
    }
    // What needs no root works.
    let (code, words) = nobody(&["check", "-f", files]);
    assert_eq!(code, Some(0), "{words}");
    let (code, words) = nobody(&["explain", "-f", files, "tcp 10.0.0.2:4242 > 10.99.0.1:80"]);
    assert_eq!(code, Some(0), "{words}");
    // And the instance that runs is not disturbed.
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, 10).answered(), 10);
}

#[test]
fn root_without_capabilities_is_told_which_ones_are_missing() {
    let world = World::idle(Hook::Tc, Manifests::usual());
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--", BLIXT, "run", "-f"]).arg(world.directory());
    let (code, words) = outcome(&world, command);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"), "{words}");
    assert_nothing_left(&world);
}

#[test]
fn without_the_bpf_system_call_the_kernels_options_are_named() {
    let world = World::idle(Hook::Tc, Manifests::usual());
    for (errno, expected) in
        [(libc::ENOSYS, "CONFIG_BPF_SYSCALL"), (libc::EPERM, "run as root, or with CAP_BPF")]
    {
        let mut command = Command::new(BLIXT);
        command.arg("run").arg("-f").arg(world.directory());
        // SAFETY: between fork and exec it only calls prctl.
        unsafe { command.pre_exec(move || answer_bpf_with(errno, None)) };
        let (code, words) = outcome(&world, command);
        assert_eq!(code, Some(1), "{words}");
        assert!(words.contains(expected) && words.lines().count() == 1, "{words}");
        assert_nothing_left(&world);
    }
}

#[test]
fn a_bpf_file_system_that_is_not_mounted_is_mounted() {
    let mut world = World::idle(Hook::Tc, Manifests::usual());
    world.launch(without_bpffs(""), &[]);
    world.wait_until_ready();
    let blixt = children_of(world.process().id());
    let blixt = blixt.first().expect("blixt is a child of unshare");
    let mounts = fs::read_to_string(format!("/proc/{blixt}/mounts")).unwrap();
    assert!(mounts.lines().any(|line| line.starts_with("bpf /sys/fs/bpf bpf ")), "{mounts}");
    let pins = PathBuf::from(format!("/proc/{blixt}/root/sys/fs/bpf/blixt"));
    assert!(fs::read_dir(&pins).unwrap().next().is_some(), "nothing is pinned below {}", pins.display());
    for family in Family::ALL {
        assert_eq!(world.dial(Protocol::Tcp, family, 10).answered(), 10);
    }
    // It ends a moment after unshare, and its mounts with it.
    world.process().kill().unwrap();
    until("blixt is gone", || !fs::exists(format!("/proc/{blixt}")).unwrap());
}

#[test]
fn a_bpf_file_system_that_cannot_be_mounted_is_named_with_the_next_step() {
    let world = World::idle(Hook::Tc, Manifests::usual());
    let before = entries(Path::new("/run/blixt"));
    let mut command = without_bpffs("setpriv --bounding-set=-sys_admin --");
    command.args(["run", "-f"]).arg(world.directory());
    let (code, words) = outcome(&world, command);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("`mount -t bpf bpf /sys/fs/bpf`"), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
    let left: BTreeSet<_> = entries(Path::new("/run/blixt")).difference(&before).cloned().collect();
    assert!(!left.iter().any(|path| path.ends_with("bpf")), "left behind: {left:?}");
    assert_nothing_left(&world);
}

/// `blixt`, as the first process of a machine on which no bpf file system is mounted; `before` is put before it.
fn without_bpffs(before: &str) -> Command {
    let script = format!(
        "for place in /sys/fs/bpf /run/blixt/bpf; do while umount $place 2>/dev/null; do :; done; done; \
         exec {before} \"$0\" \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation=private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ]);
    command.args(["sh", "-c", &script, BLIXT]);
    command
}

fn outcome(world: &World, mut command: Command) -> (Option<i32>, String) {
    command.stdin(Stdio::null());
    let Output { status, stderr, .. } = world.lab.balancer.run(|| command.output()).unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// A copy of the program and a file of manifests that everybody may read, wherever the checkout is.
fn public_copy() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
    fs::copy(BLIXT, directory.path().join("blixt")).unwrap();
    let manifests: Vec<String> = Manifests::usual().files().into_values().collect();
    fs::write(directory.path().join("web.yaml"), manifests.join("---\n")).unwrap();
    directory
}

fn assert_nothing_left(world: &World) {
    assert_eq!(world.pins(), BTreeSet::new(), "left behind");
    let instance = world.lab.balancer.namespace().inode().to_string();
    let left = entries(Path::new("/run/blixt"));
    assert!(!left.iter().any(|path| path.to_string_lossy().contains(&instance)), "left behind: {left:?}");
}

fn entries(directory: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Has the kernel answer every bpf system call of this process, or those with one command, with an error; and of what it
/// executes.
pub fn answer_bpf_with(errno: i32, command: Option<u32>) -> std::io::Result<()> {
    let code = |code: u32, jump_true: u8, jump_false: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: jump_true,
        jf: jump_false,
        k,
    };
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    // What the filter sees begins with the number of the system call; its first argument is the command.
    const NUMBER: u32 = 0;
    const COMMAND: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
    let mut program = [
        code(LOAD, 0, 0, NUMBER),
        code(IS, 0, 3, libc::SYS_bpf as u32),
        code(LOAD, 0, 0, COMMAND),
        code(IS, 0, u8::from(command.is_some()), command.unwrap_or_default()),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter and the program that it points to live until the call returns.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
