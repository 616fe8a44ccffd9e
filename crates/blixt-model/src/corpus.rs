//! Stories that found something, or are the shortest ones to meet a decision: `corpus/NAME.story`, played before any new one.

use std::fs;
use std::path::Path;

use crate::story::Script;

/// All of them, by name.
pub fn corpus() -> Vec<(String, Script)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = fs::read_dir(&directory).expect("the corpus lies beside the crate");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    let script = |path: &Path| {
        let text = fs::read_to_string(path).expect("a story can be read");
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let script = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (name, script)
    };
    files.iter().map(|path| script(path)).collect()
}
