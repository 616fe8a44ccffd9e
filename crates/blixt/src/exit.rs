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

/// An error with what led to it, each said once: many name their cause in their own words already.
pub fn words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
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
    let _ = writeln!(std::io::stderr(), "blixt: {}", words(error));
}

/// Whoever read our output (`head`, a pager) has had enough of it.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_led_to_an_error_is_said_once() {
        let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let file = blixt_loader::Error::File { op: "open", path: "/lock".into(), source: denied() };
        let named = anyhow::Error::from(file).context("cannot begin");
        assert_eq!(words(&named), "cannot begin: cannot open /lock: permission denied; run as root");
        let plain = anyhow::Error::from(denied()).context("cannot open it").context("cannot begin");
        assert_eq!(words(&plain), "cannot begin: cannot open it: permission denied");
    }
}
