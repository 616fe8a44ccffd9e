//! Whether what is installed into a cluster is what the pages say of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const INSTALL: &str = "deploy/install.yaml";
const CLEANUP: &str = "deploy/cleanup.yaml";
const SECURITY: &str = "docs/kubernetes/security.md";
/// The roles in the order of the page's tables.
const ROLES: [[&str; 2]; 3] =
    [["Role", "blixt-agent"], ["ClusterRole", "blixt-controller"], ["Role", "blixt-controller"]];

/// Resources, in lower case, each with a verb.
type Rights = BTreeSet<(String, String)>;

#[test]
fn every_right_of_a_role_is_on_the_security_page_and_no_other() {
    let install = read(INSTALL);
    let security = read(SECURITY);
    let (_, section) = security.split_once("## What it may ask of the API server").expect("it has a section");
    let tables: Vec<&str> = section.split("| objects | verbs | why |\n").skip(1).collect();
    assert_eq!(tables.len(), ROLES.len(), "{SECURITY}: a table for each role");
    for ([kind, name], table) in ROLES.into_iter().zip(tables) {
        let head = format!("kind: {kind}\nmetadata:\n  name: {name}\n");
        let role = install.split("---\n").find(|document| document.contains(&head)).expect("it has the role");
        assert_eq!(granted(role), documented(table), "{kind} {name}: left {INSTALL}, right {SECURITY}");
    }
}

#[test]
fn the_pod_that_cleans_a_node_up_is_what_an_agent_is() {
    let install = read(INSTALL);
    let agent = install.split("---\n").find(|document| document.contains("kind: DaemonSet\n"));
    let agent = words(agent.expect("it has the agents"));
    for line in read(CLEANUP).lines().filter(|line| line.starts_with("      ") && !line.contains("args:")) {
        let (line, _) = line.split_once(" #").unwrap_or((line, ""));
        let wanted = line.trim().trim_start_matches("- ");
        // A name is the pod's own, a list may be written in one line.
        if wanted == "name: cleanup" {
            continue;
        }
        let is_there = |word: &str| agent.contains(&word);
        let list = wanted.strip_prefix("add: [").and_then(|list| list.strip_suffix(']'));
        let is_the_agents = list.map_or(is_there(wanted), |list| list.split(", ").all(is_there));
        assert!(is_the_agents, "{CLEANUP}: `{wanted}` is not the agents'");
    }
}

/// The lines of a document without their indentation.
fn words(document: &str) -> Vec<&str> {
    document.lines().map(|line| line.trim().trim_start_matches("- ")).collect()
}

/// What the rules of a role allow.
fn granted(role: &str) -> Rights {
    let (_, rules) = role.split_once("\nrules:\n").expect("a role has rules");
    let mut granted = Rights::new();
    for rule in rules.split("- apiGroups:").skip(1) {
        let verbs = list(rule, "verbs");
        for resource in list(rule, "resources") {
            granted.extend(verbs.iter().map(|verb| (resource.clone(), verb.clone())));
        }
    }
    granted
}

/// A list of a rule, in one line or in several.
fn list(rule: &str, key: &str) -> Vec<String> {
    let (_, rest) = rule.split_once(&format!("    {key}:")).expect("a rule has resources and verbs");
    if let Some((line, _)) = rest.strip_prefix(" [").and_then(|rest| rest.split_once(']')) {
        return line.split(", ").map(str::to_owned).collect();
    }
    let items = rest.lines().skip(1).map_while(|line| line.strip_prefix("      - "));
    items.map(str::to_owned).collect()
}

/// What the rows of a table say, without what only a value of the chart grants.
fn documented(table: &str) -> Rights {
    let mut documented = Rights::new();
    for row in table.lines().skip(1).map_while(|line| line.strip_prefix("| ")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [objects, verbs, why] = cells[..] else { panic!("{row}: a row has three cells") };
        if why.starts_with("only with `secrets.read=true`") {
            continue;
        }
        for object in objects.to_lowercase().split(", ") {
            documented.extend(verbs.split(", ").map(|verb| (object.to_owned(), verb.to_owned())));
        }
    }
    documented
}

fn read(path: &str) -> String {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies one directory below the root");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
