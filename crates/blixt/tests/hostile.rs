//! Files that hold anything: never a panic, and what cannot be understood takes nothing away.

#![expect(clippy::unwrap_used, reason = "a test that meets an error panics where it is")]

use std::fs;
use std::path::Path;

use blixt::source::Source;
use blixt::source::ahead::Ahead;
use blixt::source::pending::Changes;
use blixt_core::api::ObjectKey;
use blixt_core::compile::compile;
use blixt_core::host::Host;
use blixt_core::manifest::{self, Content};
use blixt_core::tables::{Limits, Tables};
use blixt_core::translate::translate;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tempfile::TempDir;

/// What is done to a file of manifests.
#[derive(Clone, Debug)]
enum Damage {
    /// A byte becomes another.
    Byte(Index, u8),
    /// The file ends here.
    End(Index),
    /// A part of it goes.
    Cut(Index, usize),
    /// A part of it comes twice.
    Twice(Index, usize),
    /// Words that mean something.
    Insert(Index, &'static str),
    /// All of it is something else.
    Replace(Vec<u8>),
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn damaged_files_take_nothing_away_that_they_do_not_leave_out(
        text in select(examples()), damages in vec(any_damage(), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("damaged.yaml");
        fs::write(&file, &text).unwrap();
        fs::write(directory.path().join("other.yaml"), OTHER).unwrap();
        let memory = directory.path().join("memory.jsonl");
        let mut source = open(&directory, &memory);
        let before = source.store().snapshot.clone();

        let damaged = damages.iter().fold(text.clone().into_bytes(), damage);
        fs::write(&file, &damaged).unwrap();
        refresh(&mut source);
        let documents = std::str::from_utf8(&damaged).ok().map(manifest::parse);
        let is_kept = |key: &ObjectKey| match &documents {
            // Nothing of it can be read.
            None => true,
            Some(documents) => {
                let is_of = |key: &ObjectKey, other: &Option<ObjectKey>| other.as_ref().is_none_or(|other| other == key);
                let is_defined = documents.iter().any(|document| matches!(&document.content, Content::Object(object) if object.key() == *key));
                let is_broken = documents.iter().any(|document| matches!(&document.content, Content::Invalid(_)) && is_of(key, &document.key));
                is_broken && !is_defined
            }
        };
        let store = source.store();
        for (key, known) in open(&directory, &directory.path().join("unused.jsonl")).store().known() {
            prop_assert!(store.origin(key).is_some(), "{key} of {} is not in force", known.file.display());
        }
        for key in manifest::parse(&text).iter().filter_map(|document| document.key.as_ref()) {
            if is_kept(key) {
                prop_assert_eq!(store.snapshot.get(key), before.get(key), "{} is not what it was", key);
            }
        }
        for key in manifest::parse(OTHER).iter().filter_map(|document| document.key.as_ref()) {
            prop_assert!(store.snapshot.get(key).is_some(), "{key} went with another file's");
        }
        serve(&source);

        // A process that starts now begins with the same.
        let again = open(&directory, &memory);
        prop_assert_eq!(&again.store().snapshot, &source.store().snapshot);
        prop_assert_eq!(again.store().problems(), source.store().problems());

        fs::write(&file, &text).unwrap();
        refresh(&mut source);
        for key in manifest::parse(&text).iter().filter_map(|document| document.key.as_ref()) {
            prop_assert!(store_has(&source, key), "{key} is not back");
        }
        prop_assert!(source.store().problems().is_empty());
    }

    #[test]
    fn a_memory_that_is_damaged_keeps_nobody_from_starting(
        text in select(examples()), damages in vec(any_damage(), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("good.yaml"), &text).unwrap();
        let memory = directory.path().join("memory.jsonl");
        let before = open(&directory, &memory);
        let damaged = damages.iter().fold(fs::read(&memory).unwrap(), damage);
        fs::write(&memory, damaged).unwrap();
        let after = open(&directory, &memory);
        prop_assert!(before.store().known().map(|(key, _)| key).eq(after.store().known().map(|(key, _)| key)));
        serve(&after);
    }
}

/// An object that nobody touches.
const OTHER: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {ports: [{port: 1}]}\n";

fn open(directory: &TempDir, memory: &Path) -> Source {
    let mut source = Source::open(&[directory.path().to_owned()], memory, Ahead::default()).unwrap();
    refresh(&mut source);
    source
}

fn refresh(source: &mut Source) {
    source.forget_all();
    source.refresh(&Changes::all());
}

fn store_has(source: &Source, key: &ObjectKey) -> bool {
    source.store().snapshot.get(key).is_some()
}

/// All that follows, up to the tables.
fn serve(source: &Source) {
    let translation = translate(&source.store().snapshot, None);
    compile(&translation.config, &Host::default(), &Tables::default(), &Limits::default());
}

fn examples() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|name| name == "yaml")).collect();
    files.sort();
    files.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn damage(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    let len = bytes.len();
    if len == 0 {
        return bytes;
    }
    let part = |at: &Index, length: usize| at.index(len)..(at.index(len) + length).min(len);
    match damage {
        Damage::Byte(at, value) => bytes[at.index(len)] = *value,
        Damage::End(at) => bytes.truncate(at.index(len)),
        Damage::Cut(at, length) => drop(bytes.drain(part(at, *length))),
        Damage::Twice(at, length) => {
            let again = bytes[part(at, *length)].to_vec();
            let at = at.index(len);
            bytes.splice(at..at, again);
        }
        Damage::Insert(at, words) => {
            let at = at.index(len);
            bytes.splice(at..at, words.bytes());
        }
        Damage::Replace(all) => bytes.clone_from(all),
    }
    bytes
}

fn any_damage() -> impl Strategy<Value = Damage> {
    let words = [
        "\n---\n",
        "\n- ",
        ": ",
        "*a",
        "&a ",
        "!!binary ",
        "{",
        "}",
        "[",
        "\"",
        "\n  ",
        "null",
        "99999999999",
        "-1",
        "1e99",
        "~",
        "\u{feff}",
        "\t",
        "#",
        "|",
        "kind: Gateway\n",
        "metadata: {name: x}\n",
        "weight: 4294967296\n",
        "<<: *a\n",
    ];
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Damage::Byte(at, value)),
        2 => any::<Index>().prop_map(Damage::End),
        4 => (any::<Index>(), 1_usize..200).prop_map(|(at, length)| Damage::Cut(at, length)),
        3 => (any::<Index>(), 1_usize..400).prop_map(|(at, length)| Damage::Twice(at, length)),
        6 => (any::<Index>(), select(words.to_vec())).prop_map(|(at, words)| Damage::Insert(at, words)),
        1 => vec(any::<u8>(), 0..300).prop_map(Damage::Replace),
    ]
}
