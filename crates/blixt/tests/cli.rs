//! What the command line says: standard output, standard error and exit code, of commands that need no root.
//!
//! Each `tests/cli/NAME.case` holds commands and what they said. `BLIXT_BLESS=1` writes them anew: read the
//! difference before you commit it.

#![expect(clippy::unwrap_used, reason = "a test that meets an error panics where it is")]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn blixt(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_blixt"))
        .args(arguments)
        .current_dir(cases())
        .env_clear()
        .output()
        .expect("blixt is built")
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli")
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("blixt writes UTF-8")
}

/// Runs every `$ blixt ..` of a case and writes down what it says.
fn transcript(case: &str) -> String {
    let mut transcript = String::new();
    for command in case.lines().filter_map(|line| line.strip_prefix("$ blixt ")) {
        let mut quoted = false;
        let arguments: Vec<String> = command
            .split(|character| {
                quoted ^= character == '\'';
                character == ' ' && !quoted
            })
            .map(|argument| argument.trim_matches('\'').to_owned())
            .collect();
        let output = blixt(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        transcript += &format!("$ blixt {command}\n{}", text(&output.stdout));
        if !output.stderr.is_empty() {
            transcript += &format!("--- standard error\n{}", text(&output.stderr));
        }
        transcript += &format!("--- exit code {}\n\n", output.status.code().expect("blixt was not killed"));
    }
    transcript
}

#[test]
fn every_command_says_what_it_said() {
    let mut different = Vec::new();
    for path in files(&cases(), "case") {
        let expected = fs::read_to_string(&path).unwrap();
        let found = transcript(&expected);
        assert!(!found.is_empty(), "{}: no command", path.display());
        if found == expected {
            continue;
        }
        if std::env::var_os("BLIXT_BLESS").is_some() {
            fs::write(&path, found).unwrap();
        } else {
            different.push(format!("{}\n{found}", path.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn a_broken_manifest_is_an_error_that_names_file_object_and_field() {
    let broken = files(&workspace().join("crates/blixt-core/testdata/broken"), "yaml");
    assert!(broken.len() >= 20, "{} broken manifests", broken.len());
    for path in broken {
        let path = path.to_str().unwrap();
        let output = blixt(&["check", "-f", path, "-o", "json"]);
        assert_eq!(output.status.code(), Some(1), "{path}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let errors: Vec<&Value> = found["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["severity"] == "error")
            .collect();
        assert!(!errors.is_empty(), "{path}");
        for error in errors {
            assert_eq!(error["file"], path);
            assert!(error["line"].as_u64().is_some_and(|line| line > 0), "{path}: {error}");
            assert!(error["object"].as_str().is_some_and(|object| !object.is_empty()), "{path}: {error}");
            assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{path}: {error}");
        }
    }
}

#[test]
fn every_example_is_in_order() {
    let examples = workspace().join("examples");
    for path in files(&examples, "yaml") {
        let output = blixt(&["check", "-f", path.to_str().unwrap()]);
        let said = text(&output.stdout);
        assert!(
            output.status.success() && said.ends_with(" 0 errors, 0 warnings\n"),
            "{}\n{said}",
            path.display()
        );
    }
    let output = blixt(&["check", "-f", examples.to_str().unwrap()]);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.ends_with(" 0 errors, 0 warnings\n"), "{said}");
}

#[test]
fn explain_of_files_that_are_missing_or_wrong_is_no_success() {
    let packet = "tcp 10.0.0.1:4242 > 10.0.0.2:80";
    let missing = blixt(&["explain", "-f", "nosuch.yaml", packet]);
    assert_eq!(missing.status.code(), Some(1), "{}", text(&missing.stdout));
    assert!(missing.stdout.is_empty() && text(&missing.stderr).contains("nosuch.yaml"));
    let wrong = blixt(&["explain", "-f", "wrong.yaml", packet]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong.stdout));
    assert!(
        text(&wrong.stderr).contains("wrong.yaml:") && !wrong.stdout.is_empty(),
        "{}",
        text(&wrong.stderr)
    );
}

#[test]
fn every_help_has_examples() {
    for command in ["run", "check", "explain", "status", "demo", "cleanup", "completions", "man"] {
        let output = blixt(&[command, "--help"]);
        assert!(output.status.success(), "{command}");
        assert!(text(&output.stdout).contains("Examples:"), "{command}");
    }
    let own = blixt(&["--help"]);
    assert!(text(&own.stdout).contains("Examples:") && text(&own.stdout).contains("Exit codes:"));
}

#[test]
fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = blixt(&["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("explain"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    assert!(blixt(&["man", pages.to_str().unwrap()]).status.success());
    for command in ["run", "check", "explain", "status", "demo", "cleanup"] {
        let page = fs::read_to_string(pages.join(format!("blixt-{command}.1"))).unwrap();
        assert!(page.contains("Examples:"), "{command}");
    }
}

#[test]
fn the_log_is_for_people_and_json_where_it_is_asked_for() {
    let check = ["check", "-f", "web.yaml", "--log", "nobody=[", "--log-format"];
    let said = |format: &str| {
        let output = blixt(&[&check[..], &[format]].concat());
        assert!(output.status.success());
        text(&output.stderr).to_owned()
    };
    let line = said("text");
    assert!(line.contains(" WARN the log filter is not understood") && line.lines().count() == 1, "{line}");
    assert!(!line.contains('\x1b'), "colours where there is no terminal: {line:?}");
    let line = said("json");
    let object: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["level"], "WARN", "{line}");
    for field in ["timestamp", "message", "error"] {
        assert!(object[field].is_string(), "no {field} in {line}");
    }
}

#[test]
fn at_a_terminal_the_log_has_colours_and_json_has_none() {
    for (format, colours) in [("text", true), ("json", false)] {
        let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_blixt"));
        command.args(["check", "-f", "web.yaml", "--log", "nobody=[", "--log-format", format]);
        command.current_dir(cases()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(slave);
        assert!(command.status().unwrap().success());
        let mut said = [0; 4096];
        let length = fs::File::from(master).read(&mut said).unwrap();
        let said = text(&said[..length]);
        assert_eq!(said.contains('\x1b'), colours, "{format}: {said:?}");
        assert!(said.contains("the log filter is not understood"), "{format}: {said:?}");
    }
}

#[test]
fn standard_input_is_checked_like_a_file() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blixt"));
    let mut child =
        command.args(["check", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "1 object in 1 file: 0 errors, 0 warnings\n");
}
