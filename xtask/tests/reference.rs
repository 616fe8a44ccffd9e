//! Whether `docs/reference/gateway-api.md` and the troubleshooting page say what the code does: each function and test that
//! they name is there, each condition is in a golden file that is named beside it, and none is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const REFERENCE: &str = "docs/reference/gateway-api.md";
const TROUBLESHOOTING: &str = "docs/kubernetes/troubleshooting.md";
const TRANSLATE: &str = "crates/blixt-core/src/translate";
const CONTROLLER: &str = "crates/blixt/src/controller";
const GOLDEN: &str = "crates/blixt-core/testdata";

/// One row of a table.
struct Row {
    text: String,
    function: String,
    becomes: Vec<String>,
    tests: Vec<String>,
}

#[test]
fn every_function_of_the_reference_is_where_it_says() {
    for row in rows() {
        let path: Vec<&str> = row.function.split("::").collect();
        let [root, module, function] = path[..] else { panic!("{}: no root::module::function", row.text) };
        let directory = if root == "translate" { TRANSLATE } else { CONTROLLER };
        let source = read(&format!("{directory}/{module}.rs"));
        let is_there = functions(&source).iter().any(|(name, _)| name == function);
        assert!(is_there, "{}: not in {directory}/{module}.rs", row.function);
    }
}

#[test]
fn every_test_of_the_reference_is_there() {
    for row in rows() {
        assert!(!row.tests.is_empty(), "{}: no test", row.text);
        for test in &row.tests {
            assert!(is_there(test), "{}: {test} is not there", row.function);
        }
    }
}

#[test]
fn every_condition_of_the_reference_is_in_a_golden_file_beside_it() {
    for row in rows() {
        for condition in &row.becomes {
            let is_shown = row.tests.iter().any(|test| {
                test.ends_with(".in.yaml")
                    && read(&format!("{GOLDEN}/{}", test.replace(".in.", ".out.")))
                        .contains(&format!("\"{condition} ("))
            });
            assert!(is_shown, "{}: {condition} is in no golden file of its row", row.function);
        }
    }
}

/// A function is a rule if its comment names a part of the API, or a condition that it is the source of.
#[test]
fn no_rule_is_left_out_of_the_reference() {
    let named: BTreeSet<String> = rows().into_iter().map(|row| row.function).collect();
    for path in sources(TRANSLATE) {
        let module = path.file_stem().expect("a source has a name").to_string_lossy().into_owned();
        for (function, comment) in functions(&fs::read_to_string(&path).expect("a source is readable")) {
            let name = format!("translate::{module}::{function}");
            let is_rule = quoted(&comment).iter().any(|word| RULES.iter().any(|rule| word.starts_with(rule)));
            assert!(!is_rule || named.contains(&name), "{REFERENCE} says nothing of {name}: {comment}");
        }
    }
}

/// How the API's types, reasons and conditions begin, in comments.
const RULES: [&str; 17] = [
    "GatewayClass",
    "GatewaySpec",
    "GatewayReason",
    "GatewayInfrastructure",
    "ListenerReason",
    "ListenerSetSpec",
    "RouteReason",
    "RouteNamespaces",
    "ParentReference",
    "AllowedRoutes",
    "AllowedListeners",
    "ReferenceGrantSpec",
    "TCPRouteRule",
    "BackendRef",
    "BackendObjectReference",
    "EndpointConditions",
    "blixt.dev/",
];

#[test]
fn every_condition_that_is_told_has_a_row_in_the_reference() {
    let named: BTreeSet<String> = rows().into_iter().flat_map(|row| row.becomes).collect();
    for condition in told() {
        // Where one condition of an object is not so, another one often gives the same reason.
        let (_, told) = condition.split_once('=').expect("golden files write TYPE=STATUS/REASON");
        let is_known = named.iter().any(|known| known.ends_with(&format!("={told}")));
        assert!(is_known, "{REFERENCE} has no {condition}");
    }
}

#[test]
fn every_reason_for_trouble_is_explained() {
    let text = read(TROUBLESHOOTING);
    for condition in told() {
        let (condition_type, rest) =
            condition.split_once('=').expect("golden files write TYPE=STATUS/REASON");
        let (status, reason) = rest.split_once('/').expect("golden files write TYPE=STATUS/REASON");
        let is_bad_if_true = matches!(condition_type, "Conflicted" | "blixt.dev/EndpointsRefused");
        let is_trouble = (status == "True") == is_bad_if_true || reason == "ListenersNotValid";
        assert!(
            !is_trouble || text.contains(&format!("`{reason}`")),
            "{TROUBLESHOOTING} does not say what to do about {condition}"
        );
    }
}

/// Every condition of every golden file, as `TYPE=STATUS/REASON`.
fn told() -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for path in fs::read_dir(root().join(GOLDEN)).expect("the golden files are there").flatten() {
        let path = path.path();
        if !path.to_string_lossy().ends_with(".out.yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a golden file is readable");
        for line in text.lines() {
            let Some(condition) = line.trim().strip_prefix("- \"") else { continue };
            let Some((condition, _)) = condition.split_once(" (") else { continue };
            if condition.contains('=') && condition.contains('/') && !condition.contains(' ') {
                told.insert(condition.to_owned());
            }
        }
    }
    assert!(told.len() > 40, "only {} conditions were found", told.len());
    told
}

fn rows() -> Vec<Row> {
    let text = read(REFERENCE);
    let rows: Vec<Row> = text
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
            let [text, _, function, becomes, tests] = cells[..] else {
                panic!("{line}: a row has five cells");
            };
            (text != "API").then(|| Row {
                text: text.to_owned(),
                function: quoted(function).concat(),
                becomes: quoted(becomes),
                tests: quoted(tests).iter().flat_map(|name| expanded(name)).collect(),
            })
        })
        .collect();
    assert!(rows.len() > 40, "only {} rows were found", rows.len());
    rows
}

/// What stands between backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// `a::{b, c}` is `a::b` and `a::c`.
fn expanded(name: &str) -> Vec<String> {
    let Some((begin, rest)) = name.split_once('{') else { return vec![name.to_owned()] };
    rest.trim_end_matches('}').split(", ").map(|end| format!("{begin}{end}")).collect()
}

/// Whether a test of that name, or a golden file, is there.
fn is_there(test: &str) -> bool {
    if test.ends_with(".in.yaml") {
        return root().join(GOLDEN).join(test).is_file();
    }
    if test.ends_with(".yaml") {
        return root().join(GOLDEN).join("broken").join(test).is_file();
    }
    let Some((module, function)) = test.rsplit_once("::") else { return false };
    let places = match module.split("::").collect::<Vec<_>>()[..] {
        ["blixt_core", file] => vec![format!("crates/blixt-core/tests/{file}.rs")],
        ["blixt", "controller", file, "tests"] => vec![format!("{CONTROLLER}/{file}.rs")],
        _ => vec![],
    };
    places.iter().any(|place| read(place).contains(&format!("fn {function}()")))
}

/// The functions of a source with their comments, without those of its tests.
fn functions(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut comment = String::new();
    for line in source.lines().map(str::trim).take_while(|line| *line != "#[cfg(test)]") {
        if let Some(text) = line.strip_prefix("///") {
            comment += text;
        } else if let Some(name) = function_name(line) {
            found.push((name.to_owned(), std::mem::take(&mut comment)));
        } else if !line.starts_with("#[") {
            comment.clear();
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

fn sources(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(directory)).expect("the sources are there");
    let sources: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    assert!(sources.len() > 10, "only {} sources were found", sources.len());
    sources
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies one directory below the root")
}
