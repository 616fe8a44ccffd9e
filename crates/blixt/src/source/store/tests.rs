use super::*;
use blixt_core::manifest::parse;
use jiff::ToSpan;

/// A Service whose port tells one spec from another.
fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - {{name: p, port: {port}}}\n"
    )
}

/// Valid YAML, valid name, wrong field.
fn wrong(name: &str) -> String {
    service(name, 80).replace("port: 80", "port: many")
}

const NOT_YAML: &str = "kind: [Service\n";

fn documents(documents: &[String]) -> String {
    documents.join("---\n")
}

fn text(text: &str) -> Reading {
    Reading::Text(text.to_owned(), parse(text))
}

fn unreadable() -> Reading {
    Reading::Unreadable(Problem {
        line: 0,
        object: String::new(),
        field: String::new(),
        message: "it cannot be read".into(),
        next: String::new(),
    })
}

#[derive(Default)]
struct World {
    store: Store,
    remembered: BTreeMap<ObjectKey, (String, Known)>,
    steps: i64,
}

impl World {
    fn step<const N: usize>(&mut self, readings: [(&str, Reading); N]) -> bool {
        self.steps += 1;
        let now = Timestamp::UNIX_EPOCH + self.steps.seconds();
        let readings = readings.into_iter().map(|(file, reading)| (file.into(), reading)).collect();
        let remembered = self.remembered.clone();
        let update = self.store.update(readings, now, &mut |key| {
            let (text, _) = remembered.get(key)?;
            parse(text).into_iter().find_map(|document| match document.content {
                Content::Object(object) if object.key() == *key => Some(object),
                _ => None,
            })
        });
        for record in update.records {
            match record {
                Record::Put(text, objects) => {
                    for (key, known) in objects {
                        self.remembered.insert(key, (text.clone(), known));
                    }
                }
                Record::Remove(key) => drop(self.remembered.remove(&key)),
            }
        }
        !update.touched.is_nothing()
    }

    fn restart(&mut self) {
        let known = self.remembered.iter().map(|(key, (_, known))| (key.clone(), known.clone())).collect();
        self.store = Store::remembering(known);
    }

    /// `name:port/generation@seconds`
    fn services(&self) -> String {
        let services = self.store.snapshot.services.iter().map(|(key, service)| {
            let known = self.store.origin(key).unwrap();
            assert_eq!(service.metadata.generation, known.generation);
            assert_eq!(
                service.metadata.creation_timestamp.as_deref(),
                Some(&*format!("{:.6}", known.created))
            );
            let port = service.spec.ports[0].port;
            format!("{}:{port}/{}@{}", key.name, known.generation, known.created.as_second())
        });
        services.collect::<Vec<_>>().join(" ")
    }

    fn problems(&self) -> Vec<String> {
        self.store.problems().iter().map(ToString::to_string).collect()
    }
}

#[test]
fn the_order_of_documents_and_files_makes_no_difference() {
    let (a, b) = (service("a", 1), service("b", 2));
    let mut one = World::default();
    one.step([("x.yaml", text(&documents(&[a.clone(), b.clone()])))]);
    let mut two = World::default();
    two.step([("x.yaml", text(&b)), ("y.yaml", text(&a))]);
    assert_eq!(one.services(), "a:1/1@1 b:2/1@1");
    assert_eq!(one.services(), two.services());
    assert_eq!(one.store.snapshot, two.store.snapshot);
}

#[test]
fn a_generation_counts_changes_of_the_spec_and_nothing_else() {
    let mut world = World::default();
    assert!(world.step([("x.yaml", text(&service("a", 1)))]));
    assert!(!world.step([("x.yaml", text(&format!("# a comment\n{}", service("a", 1))))]));
    assert_eq!(world.services(), "a:1/1@1");
    assert!(world.step([("x.yaml", text(&service("a", 2)))]));
    assert_eq!(world.services(), "a:2/2@1");
}

#[test]
fn a_wrong_document_keeps_the_last_good_state_of_its_object_alone() {
    let mut world = World::default();
    world.step([("x.yaml", text(&documents(&[service("a", 1), service("b", 2), service("c", 3)])))]);
    assert!(world.step([("x.yaml", text(&documents(&[wrong("a"), service("b", 9)])))]));
    assert_eq!(world.services(), "a:1/1@1 b:9/2@1");
    let problems = world.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("x.yaml:7: Service default/a: spec.ports[0].port: "), "{problems:?}");
    assert!(world.store.kept().contains(&(Path::new("x.yaml"), "Service default/a".to_owned())));
}

#[test]
fn what_was_wrong_from_the_start_keeps_nothing() {
    let mut world = World::default();
    world.step([("x.yaml", text(&wrong("a"))), ("y.yaml", text(NOT_YAML))]);
    assert_eq!(world.problems().len(), 2);
    assert!(world.store.kept().is_empty());
}

#[test]
fn a_file_that_is_no_yaml_keeps_all_of_its_objects() {
    let mut world = World::default();
    world.step([("x.yaml", text(&documents(&[service("a", 1), service("b", 2)])))]);
    assert!(!world.step([("x.yaml", text(NOT_YAML))]));
    assert_eq!(world.services(), "a:1/1@1 b:2/1@1");
    assert_eq!(world.problems().len(), 1);
    assert!(world.step([("x.yaml", text(&service("b", 2)))]));
    assert_eq!(world.services(), "b:2/1@1");
    assert!(world.problems().is_empty());
}

#[test]
fn a_file_that_cannot_be_read_keeps_all_of_its_objects() {
    let mut world = World::default();
    world.step([("x.yaml", text(&service("a", 1)))]);
    assert!(!world.step([("x.yaml", unreadable())]));
    assert_eq!(world.services(), "a:1/1@1");
    assert_eq!(world.problems(), ["x.yaml: it cannot be read"]);
    assert!(!world.step([("x.yaml", Reading::Unknown)]));
    assert_eq!(world.services(), "a:1/1@1");
    assert!(!world.step([("x.yaml", text(&service("a", 1)))]));
    assert!(world.step([("x.yaml", Reading::Gone)]));
    assert_eq!(world.services(), "");
}

#[test]
fn an_object_that_moves_to_another_file_stays_what_it_was() {
    let mut world = World::default();
    world.step([("x.yaml", text(&service("a", 1)))]);
    assert!(!world.step([("x.yaml", Reading::Gone), ("y.yaml", text(&service("a", 1)))]));
    assert_eq!(world.services(), "a:1/1@1");
    assert!(world.step([("y.yaml", Reading::Gone)]));
    assert!(world.step([("x.yaml", text(&service("a", 1)))]));
    assert_eq!(world.services(), "a:1/1@4");
}

#[test]
fn of_two_definitions_the_one_in_force_stays_until_it_goes() {
    let mut world = World::default();
    world.step([("y.yaml", text(&service("a", 1)))]);
    assert!(!world.step([("x.yaml", text(&service("a", 2)))]));
    assert_eq!(world.services(), "a:1/1@1");
    assert_eq!(
        world.problems(),
        ["x.yaml:1: Service default/a: metadata.name: it is defined already on line 1 of y.yaml, \
          which is in force; remove or rename one of the two"]
    );
    assert!(world.step([("y.yaml", Reading::Gone)]));
    assert_eq!(world.services(), "a:2/2@1");
    assert!(world.problems().is_empty());
}

#[test]
fn two_definitions_that_want_the_same_are_no_problem() {
    let mut world = World::default();
    world.step([("x.yaml", text(&service("a", 1))), ("y.yaml", text(&service("a", 1)))]);
    assert!(world.problems().is_empty());
    assert!(!world.step([("x.yaml", Reading::Gone)]));
    assert_eq!(world.services(), "a:1/1@1");
}

/// A slice finds its Service by a label, and a selector a namespace.
#[test]
fn two_definitions_that_differ_in_labels_are_a_problem() {
    let namespace = |team: &str| {
        text(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: a, labels: {{team: {team}}}}}\n"))
    };
    let mut world = World::default();
    world.step([("x.yaml", namespace("red")), ("y.yaml", namespace("blue"))]);
    assert_eq!(world.problems().len(), 1);
    assert!(world.problems()[0].starts_with("y.yaml:1: Namespace a: metadata.name: it is defined already"));
}

#[test]
fn a_definition_twice_in_one_file_is_a_problem_and_the_first_counts() {
    let mut world = World::default();
    world.step([("x.yaml", text(&documents(&[service("a", 1), service("a", 2)])))]);
    assert_eq!(world.services(), "a:1/1@1");
    assert!(
        world.problems()[0].starts_with("x.yaml:9: Service default/a: metadata.name: it is defined already")
    );
}

#[test]
fn an_object_that_leaves_a_broken_file_for_a_good_one_is_the_good_ones() {
    let mut world = World::default();
    world.step([("x.yaml", text(&service("a", 1)))]);
    world.step([("x.yaml", text(NOT_YAML)), ("y.yaml", text(&service("a", 2)))]);
    assert_eq!(world.services(), "a:2/2@1");
    assert!(world.step([("y.yaml", Reading::Gone)]));
    assert_eq!(world.services(), "");
}

#[test]
fn a_restart_remembers_generations_and_ages() {
    let mut world = World::default();
    world.step([("x.yaml", text(&service("a", 1)))]);
    world.step([("x.yaml", text(&service("a", 2)))]);
    world.restart();
    assert_eq!(world.services(), "");
    world.step([("x.yaml", text(&service("a", 2)))]);
    assert_eq!(world.services(), "a:2/2@1");
    world.restart();
    world.step([("x.yaml", text(&format!("# changed while away\n{}", service("a", 3))))]);
    assert_eq!(world.services(), "a:3/3@1");
}

#[test]
fn a_restart_with_a_broken_file_brings_the_last_good_state_back() {
    let mut world = World::default();
    world.step([("x.yaml", text(&documents(&[service("a", 1), service("b", 2)])))]);
    world.restart();
    assert!(world.step([("x.yaml", text(&documents(&[wrong("a"), service("b", 3)])))]));
    assert_eq!(world.services(), "a:1/1@1 b:3/2@1");
    world.restart();
    assert!(world.step([("x.yaml", unreadable())]));
    assert_eq!(world.services(), "a:1/1@1 b:3/2@1");
    world.restart();
    assert!(!world.step([("x.yaml", Reading::Gone)]));
    assert_eq!(world.services(), "");
    assert!(world.remembered.is_empty());
}
