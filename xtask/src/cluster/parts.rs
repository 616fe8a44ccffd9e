//! What a cluster is made of and no distribution packages together: built from Go modules, once for each state of their sources.
//!
//! ```text
//! tests/cluster/kube         Kubernetes and etcd, one program     ─► kube
//! tests/cluster/conformance  the official suite                   ─► suite, echo-basic.tar, crds/
//! tests/cluster/l4           our own tests, in the suite's form   ─► l4
//! tests/cluster/coredns, pause, echo                              ─► coredns.tar, pause.tar, echo.tar
//! tests/cluster/bench        what measures, only where it is asked for ─► bench
//! ```
//!
//! Each part lies in a directory of the user's cache that is named by a hash of its sources, outside the checkout: a fresh clone of
//! the same commit finds it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::image::{self, Image, sum};
use crate::process::{output, succeed};
use crate::setup;
use crate::workspace;

/// The image that holds the namespaces of a pod.
pub const PAUSE: &str = "localhost/pause:1";
/// The image of the servers in our own tests.
const ECHO: &str = "localhost/blixt-echo:1";
/// The module of the suite.
const SUITE: &str = "sigs.k8s.io/gateway-api/conformance";
/// The module of the CRDs.
const API: &str = "sigs.k8s.io/gateway-api";
/// To be raised when equal sources are built into something else.
const RECIPE: u32 = 1;
/// How long a part is kept that nobody uses: 30 days.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Everything, built.
pub struct Parts {
    /// Kubernetes and etcd.
    pub kube: PathBuf,
    /// The test program of the official suite.
    pub suite: PathBuf,
    /// The test program of our own tests.
    pub own: PathBuf,
    /// Archives of the images that a cluster starts with.
    pub images: Vec<PathBuf>,
    /// The CRDs of the Gateway API, standard channel.
    pub crds: PathBuf,
}

/// Builds what is not in the cache.
pub fn build() -> Result<Parts> {
    let go = Go::find()?;
    let kube = go.part("kube", &[], |go, dir| go.build(&kubernetes_flags(go)?, ".", &dir.join("kube")))?;
    let suite = go.part("conformance", &[], build_suite)?;
    let coredns = go.part("coredns", &["conformance"], |go, dir| {
        go.build(&[], ".", &dir.join("coredns"))?;
        let names =
            fs::read_to_string(suite.join("coredns.names")).context("the names of the suite's images")?;
        let names: Vec<_> = names.lines().map(str::to_owned).collect();
        let image = Image { names: &names, program: "coredns", user: "0:0" };
        image::write(&image, &dir.join("coredns"), &dir.join("coredns.tar"))
    })?;
    let own = go.part("l4", &[], |go, dir| go.build_tests(&dir.join("l4")))?;
    let small = |name: &'static str, tag: &str| {
        go.part(name, &[], |go, dir| {
            go.build(&[], ".", &dir.join(name))?;
            let image = Image { names: &[tag.to_owned()], program: name, user: "65532:65532" };
            image::write(&image, &dir.join(name), &dir.join(format!("{name}.tar")))
        })
    };
    let (pause, echo) = (small("pause", PAUSE)?, small("echo", ECHO)?);
    Ok(Parts {
        kube: kube.join("kube"),
        suite: suite.join("suite"),
        own: own.join("l4"),
        images: vec![
            pause.join("pause.tar"),
            echo.join("echo.tar"),
            suite.join("echo-basic.tar"),
            coredns.join("coredns.tar"),
        ],
        crds: suite.join("crds"),
    })
}

/// The program that measures.
pub fn bench() -> Result<PathBuf> {
    let bench = Go::find()?.part("bench", &[], |go, dir| go.build(&[], ".", &dir.join("bench")))?;
    Ok(bench.join("bench"))
}

/// The suite, the server that its manifests name, and the CRDs of its version.
fn build_suite(go: &Module, dir: &Path) -> Result<()> {
    go.build_tests(&dir.join("suite"))?;
    go.build(&[], &format!("{SUITE}/echo-basic"), &dir.join("echo-basic"))?;
    let source = go.module_dir(SUITE)?;
    let manifests = manifests(&[source.join("base"), source.join("tests")])?;
    let names: Vec<_> = image_names(&manifests, "echo-basic").into_iter().collect();
    let image = Image { names: &names, program: "echo-basic", user: "65532:65532" };
    image::write(&image, &dir.join("echo-basic"), &dir.join("echo-basic.tar"))?;
    let names: Vec<_> = image_names(&manifests, "coredns").into_iter().collect();
    fs::write(dir.join("coredns.names"), names.join("\n"))?;

    let crds = dir.join("crds");
    fs::create_dir_all(&crds)?;
    for entry in fs::read_dir(go.module_dir(API)?.join("config/crd/standard"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            let bytes = fs::read(&file).with_context(|| format!("{}: cannot be read", file.display()))?;
            fs::write(crds.join(file.file_name().unwrap_or_default()), bytes)?;
        }
    }
    Ok(())
}

/// Without them Kubernetes takes itself for a version that its own components refuse.
fn kubernetes_flags(go: &Module) -> Result<Vec<String>> {
    let version = go.list("{{.Version}}", "k8s.io/kubernetes")?;
    let mut numbers = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        bail!("tests/cluster/kube/go.mod: {version} is no version of k8s.io/kubernetes");
    };
    let values = [("Version", version.as_str()), ("Major", major), ("Minor", minor), ("TreeState", "clean")];
    let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
    let flags = packages.iter().flat_map(|package| {
        values.iter().map(move |(name, value)| format!("-X {package}.git{name}={value}"))
    });
    Ok(flags.collect())
}

struct Go {
    program: PathBuf,
    cache: PathBuf,
}

/// One of the modules below `tests/cluster`.
struct Module<'a> {
    go: &'a Go,
    source: PathBuf,
}

impl Go {
    fn find() -> Result<Self> {
        let go = setup::go().context("go: not found: `cargo xtask setup cluster` installs it")?;
        Ok(Self { program: go.program, cache: workspace::cache()?.join("cluster") })
    }

    /// The directory of a part, which is made if it is not there. Half a part is never found.
    fn part(
        &self,
        name: &str,
        uses: &[&str],
        build: impl FnOnce(&Module, &Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let sources = workspace::root().join("tests/cluster");
        let source = sources.join(name);
        let mut files = workspace::files(&source)?;
        for other in uses {
            files.extend(workspace::files(&sources.join(other))?);
        }
        let hash = hash(&files);
        let dir = self.cache.join(format!("{name}-{}", &hash[..16]));
        if dir.is_dir() {
            // It was of use today.
            File::open(&dir)
                .and_then(|dir| dir.set_modified(SystemTime::now()))
                .context("the cache of parts")?;
            return Ok(dir);
        }
        self.forget_old_parts();
        eprintln!("==> build {name} (Go; once for each state of tests/cluster/{name})");
        let unfinished = self.cache.join(format!("{name}-{}-unfinished-{}", &hash[..16], std::process::id()));
        fs::create_dir_all(&unfinished)
            .with_context(|| format!("{}: cannot be made", unfinished.display()))?;
        let built = build(&Module { go: self, source }, &unfinished).and_then(|()| {
            match fs::rename(&unfinished, &dir) {
                // Another process was faster.
                Err(_) if dir.is_dir() => Ok(()),
                other => other.with_context(|| format!("{}: cannot be renamed", unfinished.display())),
            }
        });
        if unfinished.is_dir() {
            fs::remove_dir_all(&unfinished)?;
        }
        built.map(|()| dir)
    }
}

impl Go {
    /// Removes what no checkout has used for a month: each state of the sources leaves some hundred megabytes.
    fn forget_old_parts(&self) {
        for part in fs::read_dir(&self.cache).into_iter().flatten().flatten() {
            let modified = part.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > KEPT)) {
                drop(fs::remove_dir_all(part.path()));
            }
        }
    }
}

impl Module<'_> {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.go.program);
        command.arg(verb).current_dir(&self.source).env("CGO_ENABLED", "0");
        command
    }

    fn build(&self, link: &[String], package: &str, to: &Path) -> Result<()> {
        let mut command = self.command("build");
        command.args(["-trimpath", "-ldflags", &format!("-s -w {}", link.join(" ")), "-o"]).arg(to);
        succeed(command.arg(package))
    }

    fn build_tests(&self, to: &Path) -> Result<()> {
        succeed(self.command("test").args(["-trimpath", "-c", "-o"]).arg(to).arg("."))
    }

    fn module_dir(&self, module: &str) -> Result<PathBuf> {
        Ok(self.list("{{.Dir}}", module)?.into())
    }

    fn list(&self, what: &str, module: &str) -> Result<String> {
        let text = output(self.command("list").args(["-m", "-f", what, module]));
        let text = text.with_context(|| format!("go list -m {module}: failed"))?;
        Ok(text.trim().to_owned())
    }
}

/// Of names and contents.
fn hash(files: &[(String, Vec<u8>)]) -> String {
    let start = format!("{RECIPE}\n");
    let lines = files.iter().map(|(name, bytes)| format!("{} {name}\n", sum(bytes)));
    sum(std::iter::once(start).chain(lines).collect::<String>().as_bytes())
}

fn manifests(dirs: &[PathBuf]) -> Result<String> {
    let mut text = String::new();
    for dir in dirs {
        for (name, bytes) in workspace::files(dir)? {
            if name.ends_with(".yaml") {
                text += &String::from_utf8_lossy(&bytes);
                text.push('\n');
            }
        }
    }
    Ok(text)
}

/// What manifests call the images of a program, with registry and tag.
fn image_names(manifests: &str, program: &str) -> BTreeSet<String> {
    let images =
        manifests.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("image:"));
    let names = images.map(|image| image.trim().trim_matches('"'));
    names.filter(|name| name.contains(&format!("/{program}:"))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_taken_from_manifests_each_once() {
        let manifests = "  containers:\n  - name: a\n    image: example.net/x/echo-basic:v1\n  - image: example.net/x/echo-basic:v2\n\
                         \n    image: example.net/x/echo-basic:v1\n    image: \"example.net/coredns:v3\"\n    image: echo-basic-not\n";
        let names: Vec<_> = image_names(manifests, "echo-basic").into_iter().collect();
        assert_eq!(names, ["example.net/x/echo-basic:v1", "example.net/x/echo-basic:v2"]);
        assert_eq!(image_names(manifests, "coredns").len(), 1);
    }

    #[test]
    fn a_part_is_named_by_what_it_is_built_from() {
        let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        let one = hash(&[file("go.mod", "a"), file("main.go", "b")]);
        assert_eq!(one, hash(&[file("go.mod", "a"), file("main.go", "b")]));
        assert_ne!(one, hash(&[file("go.mod", "a"), file("main.go", "c")]));
        assert_ne!(one, hash(&[file("go.mod", "a"), file("other.go", "b")]));
    }
}
