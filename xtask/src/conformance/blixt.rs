//! Blixt in the cluster, as a user installs it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::{self, kubectl, last_lines};
use crate::manifests;
use crate::process::{describe, succeed};
use crate::workspace;

/// What all of Blixt's objects are labelled with.
const LABEL: &str = "app.kubernetes.io/name=blixt";

/// The suite has HTTPS listeners, whose certificates are looked at only by who was given leave to.
const VALUES: [&str; 1] = ["secrets.read=true"];

/// Applies what a user applies, then the class that the suite runs with, and waits until all of it runs.
pub fn install() -> Result<()> {
    let before = workloads()?;
    let install = workspace::target_dir().join("conformance/install.yaml");
    fs::create_dir_all(workspace::target_dir().join("conformance"))?;
    fs::write(&install, manifests::render(&VALUES)?)
        .with_context(|| format!("{}: cannot be written", install.display()))?;
    for file in [install, workspace::root().join("tests/cluster/conformance-class.yaml")] {
        let mut apply = kubectl().args(["apply", "--server-side", "--force-conflicts", "--filename"]);
        succeed(apply.arg(file).stdout(Stdio::null()))?;
    }
    // The image has the name of the one before it.
    for workload in &before {
        succeed(workload.kubectl(&["rollout", "restart"]).stdout(Stdio::null()))?;
    }
    let workloads = workloads()?;
    if workloads.is_empty() {
        bail!("deploy/install.yaml: no Deployment or DaemonSet is labelled {LABEL}");
    }
    workloads.iter().try_for_each(|workload| {
        let mut wait = workload.kubectl(&["rollout", "status", "--timeout=180s"]);
        succeed(wait.stdout(Stdio::null()))
    })
}

/// Shows the last lines of the nodes' and of Blixt's logs; the cluster's own go into a directory, whole.
pub fn show_logs(keep: Option<&Path>) {
    for log in cluster::logs() {
        if let (Some(keep), Some(name)) = (keep, log.file_name()) {
            drop(fs::copy(&log, keep.join(name)));
        }
        if log.file_stem().is_some_and(|name| name.to_string_lossy().starts_with("kubelet")) {
            println!("{}", last_lines(&log, 10));
        }
    }
    show(kubectl().args(["get", "pods", "--all-namespaces", "--output=wide", "--selector", LABEL]));
    let namespaces: BTreeSet<_> =
        workloads().into_iter().flatten().map(|workload| workload.namespace).collect();
    for namespace in namespaces {
        let mut logs = kubectl().args(["logs", "--namespace", &namespace, "--selector", LABEL]);
        logs.args(["--all-containers", "--prefix", "--tail=60", "--ignore-errors", "--max-log-requests=20"]);
        show(logs);
    }
}

/// What cannot be shown is no reason to say less of the failure itself.
fn show(mut command: Command) {
    println!("--- {}", describe(&command));
    drop(command.status());
}

/// The names of all namespaces.
pub fn namespaces() -> Result<Vec<String>> {
    let list = json(&["get", "namespaces", "--output=json"])?;
    let names = list["items"].as_array().into_iter().flatten();
    Ok(names.filter_map(|item| Some(item["metadata"]["name"].as_str()?.to_owned())).collect())
}

/// An object in a YAML file, whether the API server knows its kind or not.
pub fn to_json(file: &Path) -> Result<Value> {
    json(&["label", "--local", "--output=json", "kept=no", &format!("--filename={}", file.display())])
}

struct Workload {
    kind: String,
    namespace: String,
    name: String,
}

impl Workload {
    fn kubectl(&self, verbs: &[&str]) -> Command {
        let mut command = kubectl().args(["--namespace", &self.namespace]);
        command.args(verbs).arg(format!("{}/{}", self.kind.to_lowercase(), self.name));
        command
    }
}

/// The Deployments and DaemonSets that are Blixt.
fn workloads() -> Result<Vec<Workload>> {
    let list =
        json(&["get", "deployments,daemonsets", "--all-namespaces", "--selector", LABEL, "--output=json"])?;
    let items = list["items"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let workloads = items.map(|item| Workload {
        kind: text(&item["kind"]),
        namespace: text(&item["metadata"]["namespace"]),
        name: text(&item["metadata"]["name"]),
    });
    Ok(workloads.collect())
}

fn json(args: &[&str]) -> Result<Value> {
    let mut command = kubectl().args(args);
    let output = command.output().context("nsenter: cannot be started")?;
    if !output.status.success() {
        bail!("{}: {}", describe(&command), String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{}: no JSON", describe(&command)))
}
