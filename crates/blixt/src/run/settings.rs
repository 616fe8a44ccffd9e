//! What `blixt run` was asked to do, understood.

use std::path::PathBuf;

use anyhow::bail;

use crate::cli::RunArgs;
use crate::node;

/// Everything that `blixt run` needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Files and directories of manifests.
    pub files: Vec<PathBuf>,
    /// Where a file with the status of each object is kept.
    pub status_dir: Option<PathBuf>,
    /// How the data plane works.
    pub node: node::settings::Settings,
}

impl TryFrom<RunArgs> for Settings {
    type Error = anyhow::Error;

    fn try_from(args: RunArgs) -> anyhow::Result<Self> {
        let RunArgs { files, status_dir, node } = args;
        if files.iter().any(|file| file.as_os_str() == "-") {
            bail!("-f -: standard input cannot be followed; write it to a file and give that");
        }
        let node = node.try_into()?;
        let files = files.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
        if let Some(dir) = &status_dir {
            let below = std::path::absolute(dir)?;
            if let Some(file) = files.iter().find(|file| below.starts_with(file)) {
                bail!(
                    "--status-dir {}: it lies below -f {}, where statuses would be read as manifests; choose another place",
                    dir.display(),
                    file.display()
                );
            }
        }
        Ok(Self { files, status_dir, node })
    }
}
