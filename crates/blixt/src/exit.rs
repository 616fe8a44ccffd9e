//! How a command ends.

use std::io::Write;
use std::process::ExitCode;

/// The way in which a command ended.
#[derive(Debug)]
pub enum Exit {
    /// Done, and everything was found in order.
    Success,
    /// Done, and something was found that is not in order; the command has said what.
    Findings,
    /// No instance runs, or one runs already.
    Instance(anyhow::Error),
    /// A step failed.
    Failed(anyhow::Error),
}

/// There is no running instance, or there is one already: the outermost context of such an error.
#[derive(Debug)]
pub struct InstanceError(pub String);

impl Exit {
    /// Writes what failed, and gives the process's exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Success => ExitCode::SUCCESS,
            Self::Findings => ExitCode::from(1),
            Self::Instance(error) => {
                write_error(&error);
                ExitCode::from(3)
            }
            Self::Failed(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Self::Failed(error) => {
                write_error(&error);
                ExitCode::from(1)
            }
        }
    }
}

impl From<anyhow::Result<Exit>> for Exit {
    fn from(result: anyhow::Result<Exit>) -> Self {
        match result {
            Ok(exit) => exit,
            Err(error) if error.downcast_ref::<InstanceError>().is_some() => Self::Instance(error),
            Err(error) => Self::Failed(error),
        }
    }
}

impl std::fmt::Display for InstanceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InstanceError {}

fn write_error(error: &anyhow::Error) {
    // Standard error may be closed; there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "blixt: {error:#}");
}

/// Whoever read our output (`head`, a pager) has had enough of it.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
