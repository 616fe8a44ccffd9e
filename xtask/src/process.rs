//! Other programs: cargo, rustup, apt, and whatever needs root.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The cargo that runs us, in the root of the checkout.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root());
    command
}

/// A program that is to run as root: by itself if we are root, else through `sudo`.
pub fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    command
}

/// Whether our effective user is root.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whether a program of that name is on the path.
pub fn exists(program: &str) -> bool {
    find(program).is_some()
}

/// The program of that name on the path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).chain(SYSTEM.iter().map(Into::into));
    dirs.find_map(|dir| Some(dir.join(program)).filter(|program| program.is_file()))
}

/// Directories of programs for root that a plain user's path leaves out.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// What a program prints, or nothing if it is missing or fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program; an error names it.
pub fn succeed(command: &mut Command) -> Result<()> {
    let name = describe(command);
    let status = command.status().with_context(|| format!("{name}: cannot be started"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

/// Runs a command with our input and output, and answers with its exit code.
pub fn hand_over(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("{}: cannot be started", describe(command)))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The command as a person would type it.
pub fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Kills a process and all that it started, if they still have it as an ancestor.
pub fn kill_tree(id: u32) {
    let mut ids = vec![id];
    let parents = parents();
    let mut at = 0;
    while at < ids.len() {
        let children = parents.iter().filter(|(_, parent)| *parent == ids[at]).map(|(child, _)| *child);
        ids.extend(children.collect::<Vec<_>>());
        at += 1;
    }
    let ids = ids.iter().map(ToString::to_string);
    output(as_root("kill").arg("-KILL").args(ids));
}

/// Every process, with its parent.
fn parents() -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name before it is in parentheses and may hold anything.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((id, parent))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_killed_with_what_it_started() {
        let mut shell = Command::new("sh");
        let mut shell = shell.args(["-c", "sleep 1000 & wait"]).spawn().expect("sh starts");
        let child = loop {
            if let Some((child, _)) = parents().into_iter().find(|(_, parent)| *parent == shell.id()) {
                break child;
            }
        };
        kill_tree(shell.id());
        assert!(!shell.wait().expect("it ran").success());
        let stat = || std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        for _ in 0..100 {
            if stat().is_empty() || stat().contains(") Z ") {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the child lives on: {}", stat());
    }
}
