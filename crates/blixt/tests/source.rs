//! Files are followed on a real file system, whatever way they are changed in.

#![expect(clippy::unwrap_used, reason = "a test that meets an error panics where it is")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blixt::source::Source;
use blixt::source::ahead::Ahead;
use blixt::source::pending::Changes;
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than any change may take to be seen, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    directory: TempDir,
    source: Source,
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

impl World {
    /// Follows `root` of a fresh directory that `prepare` has filled.
    fn new(root: &str, prepare: impl FnOnce(&Path)) -> Self {
        let directory = TempDir::new().unwrap();
        prepare(directory.path());
        let mut world = Self { source: open(&directory, root), directory };
        world.source.refresh(&Changes::all());
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `name:port` of every Service.
    fn services(&self) -> String {
        let services = &self.source.store().snapshot.services;
        let text =
            services.iter().map(|(key, service)| format!("{}:{}", key.name, service.spec.ports[0].port));
        text.collect::<Vec<_>>().join(" ")
    }

    /// Follows until the Services are these.
    async fn expect(&mut self, expected: &str) {
        let begun = Instant::now();
        while self.services() != expected {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let changes = timeout(left, self.source.changes()).await;
            let changes = changes.unwrap_or_else(|_| panic!("{} is not {expected}", self.services()));
            self.source.refresh(&changes.unwrap());
        }
    }

    /// Takes in what happens for a while: nothing may come of it.
    async fn expect_still(&mut self, expected: &str) {
        let until = Instant::now() + Duration::from_millis(400);
        while let Ok(changes) =
            timeout(until.saturating_duration_since(Instant::now()), self.source.changes()).await
        {
            self.source.refresh(&changes.unwrap());
            assert_eq!(self.services(), expected);
        }
        assert_eq!(self.services(), expected);
    }
}

fn open(directory: &TempDir, root: &str) -> Source {
    Source::open(&[directory.path().join(root)], &directory.path().join("memory.jsonl"), Ahead::default())
        .unwrap()
}

fn move_over(from: &Path, content: &str, to: &Path) {
    fs::write(from, content).unwrap();
    fs::rename(from, to).unwrap();
}

#[tokio::test]
async fn a_file_that_is_written_moved_or_deleted_is_followed() {
    let mut world = World::new("d", |path| fs::create_dir(path.join("d")).unwrap());
    fs::write(world.path("d/a.yaml"), service("a", 1)).unwrap();
    world.expect("a:1").await;
    move_over(&world.path("beside"), &service("a", 2), &world.path("d/a.yaml"));
    world.expect("a:2").await;
    fs::rename(world.path("d/a.yaml"), world.path("d/b.yaml")).unwrap();
    world.expect_still("a:2").await;
    fs::remove_file(world.path("d/b.yaml")).unwrap();
    world.expect("").await;
}

#[tokio::test]
async fn directories_that_come_later_are_followed_with_all_below_them() {
    let mut world = World::new("d", |path| fs::create_dir(path.join("d")).unwrap());
    fs::create_dir_all(world.path("d/e/f")).unwrap();
    fs::write(world.path("d/e/f/a.yaml"), service("a", 1)).unwrap();
    world.expect("a:1").await;
    fs::write(
        world.path("d/e/f/b.json"),
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"},"spec":{"ports":[{"port":2}]}}"#,
    )
    .unwrap();
    world.expect("a:1 b:2").await;
    fs::remove_dir_all(world.path("d/e")).unwrap();
    world.expect("").await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_yet_is_waited_for() {
    let mut world = World::new("not/yet", |_| {});
    assert_eq!(world.source.store().problems().len(), 1);
    fs::create_dir_all(world.path("not/yet")).unwrap();
    fs::write(world.path("not/yet/a.yaml"), service("a", 1)).unwrap();
    world.expect("a:1").await;
    assert!(world.source.store().problems().is_empty());
}

#[tokio::test]
async fn a_directory_that_is_moved_away_keeps_its_objects_until_it_is_there_again() {
    let mut world = World::new("d", |path| {
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/a.yaml"), service("a", 1)).unwrap();
    });
    fs::rename(world.path("d"), world.path("old")).unwrap();
    world.expect_still("a:1").await;
    fs::create_dir(world.path("d")).unwrap();
    fs::write(world.path("d/b.yaml"), service("b", 2)).unwrap();
    world.expect("b:2").await;
    fs::write(world.path("d/c.yaml"), service("c", 3)).unwrap();
    world.expect("b:2 c:3").await;
}

#[tokio::test]
async fn a_config_map_turns_to_its_next_version_at_once() {
    let version = |path: &Path, name: &str, port: u16| {
        fs::create_dir(path.join(name)).unwrap();
        fs::write(path.join(name).join("a.yaml"), service("a", port)).unwrap();
        symlink(name, path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    };
    let mut world = World::new("d", |path| {
        fs::create_dir(path.join("d")).unwrap();
        version(&path.join("d"), "..2026_1", 1);
        symlink("..data/a.yaml", path.join("d/a.yaml")).unwrap();
    });
    assert_eq!(world.services(), "a:1");
    version(&world.path("d"), "..2026_2", 2);
    fs::remove_dir_all(world.path("d/..2026_1")).unwrap();
    world.expect("a:2").await;
    version(&world.path("d"), "..2026_3", 3);
    world.expect("a:3").await;
}

#[tokio::test]
async fn a_single_file_is_followed_over_moves_and_links() {
    let mut world = World::new("a.yaml", |path| fs::write(path.join("a.yaml"), service("a", 1)).unwrap());
    move_over(&world.path("a.yaml.swp"), &service("a", 2), &world.path("a.yaml"));
    world.expect("a:2").await;
    fs::remove_file(world.path("a.yaml")).unwrap();
    world.expect_still("a:2").await;
    fs::write(world.path("elsewhere.yaml"), service("a", 3)).unwrap();
    symlink("elsewhere.yaml", world.path("a.yaml")).unwrap();
    world.expect("a:3").await;
    fs::write(world.path("elsewhere.yaml"), service("a", 4)).unwrap();
    world.expect("a:4").await;
}

#[tokio::test]
async fn a_deployment_that_swaps_a_link_above_is_followed_at_once() {
    for root in ["current/a.yaml", "current"] {
        let mut world = World::new(root, |path| {
            for (release, port) in [("1", 1), ("2", 2)] {
                fs::create_dir_all(path.join("releases").join(release)).unwrap();
                fs::write(path.join("releases").join(release).join("a.yaml"), service("a", port)).unwrap();
            }
            symlink("releases/1", path.join("newest")).unwrap();
            symlink("newest", path.join("current")).unwrap();
        });
        assert_eq!(world.services(), "a:1");
        symlink("releases/2", world.path("beside")).unwrap();
        fs::rename(world.path("beside"), world.path("newest")).unwrap();
        world.expect("a:2").await;
        symlink("releases/1", world.path("beside")).unwrap();
        fs::rename(world.path("beside"), world.path("current")).unwrap();
        world.expect("a:1").await;
    }
}

#[tokio::test]
async fn a_half_written_file_is_not_read() {
    use std::io::Write;
    let mut world = World::new("d", |path| {
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/a.yaml"), service("a", 1) + "---\n" + &service("b", 2)).unwrap();
    });
    let mut file = fs::File::create(world.path("d/a.yaml")).unwrap();
    file.write_all(service("a", 9).as_bytes()).unwrap();
    let until = Instant::now() + Duration::from_millis(200);
    while let Ok(changes) =
        timeout(until.saturating_duration_since(Instant::now()), world.source.changes()).await
    {
        world.source.refresh(&changes.unwrap());
        assert_eq!(world.services(), "a:1 b:2");
    }
    file.write_all(("---\n".to_owned() + &service("b", 8)).as_bytes()).unwrap();
    drop(file);
    world.expect("a:9 b:8").await;
}

#[tokio::test]
async fn swap_files_and_backups_of_editors_are_nothing() {
    let mut world = World::new("d", |path| {
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/a.yaml"), service("a", 1)).unwrap();
    });
    for name in [".a.yaml.swp", "4913", "a.yaml~", "#a.yaml#", ".#a.yaml"] {
        fs::write(world.path("d").join(name), service("b", 2)).unwrap();
    }
    world.expect_still("a:1").await;
    // As vim does with `backupcopy=no`.
    fs::rename(world.path("d/a.yaml"), world.path("d/a.yaml~")).unwrap();
    fs::write(world.path("d/a.yaml"), service("a", 2)).unwrap();
    world.expect("a:2").await;
}

#[tokio::test]
async fn a_broken_file_takes_nothing_down_not_even_over_a_restart() {
    let mut world = World::new("d", |path| {
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/a.yaml"), service("a", 1)).unwrap();
    });
    for broken in [
        &b"kind: ["[..],
        b"\xff\xfe",
        b"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 7}\n",
    ] {
        fs::write(world.path("d/a.yaml"), broken).unwrap();
        world.expect_still("a:1").await;
        let problems = world.source.store().problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        world.source = open(&world.directory, "d");
        world.source.refresh(&Changes::all());
        assert_eq!(world.services(), "a:1");
    }
    fs::write(world.path("d/a.yaml"), service("a", 2)).unwrap();
    world.expect("a:2").await;
    assert!(world.source.store().problems().is_empty());
}
