//! `docs/kernels.md`: what was measured on each kernel, and what later runs are compared with.

use anyhow::{Context, Result};

use crate::vm_test::results;
use crate::workspace;

const BEGIN: &str = "<!-- kernels: written by `cargo xtask vm-test --bless` -->\n\n";
const END: &str = "\n<!-- end of kernels -->";

/// Puts the rows into the file; rows of series that were not tested stay.
pub fn write(rows: &[results::Row]) -> Result<()> {
    let file = workspace::root().join("docs/kernels.md");
    let text = std::fs::read_to_string(&file).context("docs/kernels.md: cannot be read")?;
    let text = rewrite(&text, rows).context("docs/kernels.md: no markers for the table of kernels")?;
    std::fs::write(&file, text).context("docs/kernels.md: cannot be written")
}

fn rewrite(text: &str, rows: &[results::Row]) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (table, after) = rest.split_once(END)?;
    let mut kept = results::rows(table);
    for row in rows {
        kept.retain(|old| old.series() != row.series());
        kept.push(row.clone());
    }
    kept.sort_by_key(results::Row::version);
    Some(format!("{before}{BEGIN}{}{END}{after}", results::table(&kept)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_row_is_replaced_by_a_newer_one_of_its_series_and_others_stay() {
        let row = |release: &str, cell: &str| results::Row(vec![release.to_owned(), cell.to_owned()]);
        let old = format!(
            "words\n\n{BEGIN}{}{END}\n\nmore\n",
            results::table(&[row("6.12.1+deb12", "a"), row("6.18.3", "b")])
        );
        let text = rewrite(&old, &[row("6.12.9+deb13", "c"), row("6.1.0-56", "d")]).unwrap_or_default();
        let releases: Vec<_> =
            results::rows(&text).into_iter().map(|results::Row(cells)| cells[0].clone()).collect();
        assert_eq!(releases, ["6.1.0-56", "6.12.9+deb13", "6.18.3"]);
        assert!(text.starts_with("words\n") && text.ends_with("\nmore\n"), "{text}");
    }
}
