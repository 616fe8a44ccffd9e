//! `cargo xtask manifests`: `deploy/install.yaml` from the Helm chart `deploy/chart`, by Helm's own libraries
//! (`tests/cluster/helm`), for those who use kubectl alone.
//!
//! The file says of what it was made, so that whoever forgot to render it is told without Go.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::image::sum;
use crate::process::{output, succeed};
use crate::setup;
use crate::workspace;

/// What `cargo xtask manifests` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing: test the chart, and fail if the file is another than would be written.
    #[arg(long)]
    check: bool,
}

/// Relative to the root of the checkout.
const INSTALL: &str = "deploy/install.yaml";
const CHART: &str = "deploy/chart";
const RENDERER: &str = "tests/cluster/helm";
/// Where `install.yaml` puts Blixt, and how it differs from the chart's own values: Helm makes no namespace with labels.
const VALUES: [&str; 2] = ["blixt-system", "namespace.create=true"];

/// `cargo xtask manifests`.
pub fn run(args: &Args) -> Result<()> {
    if args.check {
        succeed(go("test")?.arg("./..."))?;
    }
    let body = render(&[])?;
    let text = format!("{}{body}", header(&sources()?, &body));
    let file = workspace::root().join(INSTALL);
    if !args.check {
        return fs::write(&file, text).with_context(|| format!("{}: cannot be written", file.display()));
    }
    if fs::read_to_string(&file).with_context(|| format!("{}: cannot be read", file.display()))? != text {
        bail!("{INSTALL} is not what {CHART} renders to: run `cargo xtask manifests`");
    }
    Ok(())
}

/// What `install.yaml` has, with some values of the chart set otherwise: `secrets.read=true`.
pub fn render(values: &[&str]) -> Result<String> {
    let mut helm = go("run")?;
    helm.arg(".").arg(workspace::root().join(CHART)).args(VALUES).args(values);
    output(&mut helm).with_context(|| {
        format!("{CHART}: cannot be rendered; `cargo xtask manifests --check` says what is wrong with it")
    })
}

fn go(verb: &str) -> Result<Command> {
    let go = setup::go().context("go: not found: `cargo xtask setup cluster` installs it")?;
    let mut command = Command::new(go.program);
    command.arg(verb).current_dir(workspace::root().join(RENDERER)).env("CGO_ENABLED", "0");
    Ok(command)
}

fn header(sources: &str, body: &str) -> String {
    let body = sum(body.as_bytes());
    format!(
        "# Rendered from {CHART} by `cargo xtask manifests`: do not edit.\n# From {sources}, to {body}.\n"
    )
}

/// A hash of all that the file is rendered from.
fn sources() -> Result<String> {
    let mut lines = VALUES.join("\n");
    for dir in [CHART, RENDERER] {
        for (path, bytes) in workspace::files(&workspace::root().join(dir))? {
            lines += &format!("\n{dir}/{path} {}", sum(&bytes));
        }
    }
    Ok(sum(lines.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::BLIXT;

    fn read(path: &str) -> String {
        fs::read_to_string(workspace::root().join(path)).expect("it is there")
    }

    #[test]
    fn the_manifest_for_kubectl_is_what_the_chart_renders_to() {
        let text = read(INSTALL);
        let body = text.find("---\n").expect("it has documents");
        let expected = header(&sources().expect("the chart is readable"), &text[body..]);
        assert_eq!(text[..body], expected, "{INSTALL}: run `cargo xtask manifests`");
    }

    #[test]
    fn the_chart_has_the_version_of_the_program_and_its_image() {
        let version = env!("CARGO_PKG_VERSION");
        let chart = read("deploy/chart/Chart.yaml");
        for line in [format!("\nversion: {version}\n"), format!("\nappVersion: {version}\n")] {
            assert!(chart.contains(&line), "{line:?} is missing in\n{chart}");
        }
        let text = read(INSTALL);
        let images: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
        assert_eq!(images, [BLIXT, BLIXT]);
    }
}
