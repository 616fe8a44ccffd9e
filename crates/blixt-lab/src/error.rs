//! What can go wrong while a lab is built.

use std::io;
use std::process::ExitStatus;

/// Why a machine, a wire or a server could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces are the administrator's.
    #[error("making a network namespace was refused: run as root (CAP_SYS_ADMIN)")]
    NotPermitted,
    /// A system call failed.
    #[error("{op} {on}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        on: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A command could be started and failed.
    #[error("`{command}` in {machine} ended with {status}: {stderr}")]
    Command {
        /// The command.
        command: String,
        /// The machine it ran in.
        machine: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
}

impl Error {
    /// For `map_err`: names what was tried and on what.
    pub(crate) fn io<E: Into<io::Error>>(op: &'static str, on: impl Into<String>) -> impl FnOnce(E) -> Self {
        let on = on.into();
        move |source| Self::Io { op, on, source: source.into() }
    }
}
