//! Whether pages lead where they say.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut pages = Vec::new();
    for place in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs", "deploy", "tests", "examples"] {
        collect(&root().join(place), &mut pages);
    }
    assert!(pages.len() > 10, "only {} pages were found", pages.len());
    let mut lost = Vec::new();
    for page in pages {
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
