//! Whether pages lead where they say, and are shown as they are meant.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut lost = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page is readable");
        for link in links(&text) {
            let path = link.split('#').next().unwrap_or_default();
            let is_elsewhere = link.contains("://") || path.is_empty();
            if !is_elsewhere && !page.with_file_name(path).exists() {
                lost.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// Rows behind a blank line, without a head of their own, are shown as text.
#[test]
fn every_table_has_a_head() {
    let mut torn = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page is readable");
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let begins = line.starts_with("| ") && (at == 0 || !lines[at - 1].starts_with('|'));
            if begins && !lines.get(at + 1).is_some_and(|next| next.starts_with("|-")) {
                torn.push(format!("{}:{}: {line}", page.display(), at + 1));
            }
        }
    }
    assert!(torn.is_empty(), "{}", torn.join("\n"));
}

fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for place in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs", "deploy", "tests", "examples"] {
        collect(&root().join(place), &mut pages);
    }
    assert!(pages.len() > 10, "only {} pages were found", pages.len());
    pages
}

/// What stands between `](` and `)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
}

fn collect(place: &Path, pages: &mut Vec<PathBuf>) {
    if place.is_file() {
        pages.extend(place.extension().is_some_and(|extension| extension == "md").then(|| place.to_owned()));
        return;
    }
    for entry in fs::read_dir(place).expect("a directory is readable").flatten() {
        collect(&entry.path(), pages);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies one directory below the root")
}
