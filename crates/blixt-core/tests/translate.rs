//! Golden files: what `translate` makes of manifests, and what the parser says of broken ones.
//!
//! `BLIXT_BLESS=1 cargo test -p blixt-core --test translate` writes the expectations anew: read the diff before
//! you commit it. Comments at the head of a file say what the manifests cannot:
//!
//! ```text
//! # machine: 192.0.2.1 2001:db8::1     its own addresses (these are the default)
//! # cluster: yes                     the objects are a cluster's, and there is no machine
//! # assigned: default/gateway 10.0.0.9  an address from a pool that the Gateway had before
//! # node: node1 192.0.2.1              a node of the cluster, with its addresses
//! # resting: 10.0.0.8                  an address that a Gateway had until lately
//! # report: none                       the data plane has not spoken; default: everything works
//! # report: 10.0.0.9:80/tcp error the map is full
//! # report: 10.0.0.9:80/tcp warning a process listens here too
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blixt_core::api::{EndpointSlice, Kind, Listener, Object, ObjectKey};
use blixt_core::compile::compile;
use blixt_core::config::{Backend, Config, Pool};
use blixt_core::host::{Device, Host};
use blixt_core::manifest::{self, Content};
use blixt_core::snapshot::Snapshot;
use blixt_core::status::{Condition, ListenerStatus, Status};
use blixt_core::tables::{BackendSlot, Limits, Tables};
use blixt_core::translate::{
    FrontendReport, Report, ServiceAccount, Touched, Translation, infrastructure, retell, retranslate,
    translate,
};
use smol_str::SmolStr;

const MACHINE: &str = "192.0.2.1 2001:db8::1";

#[test]
fn manifests_translate_as_their_golden_files_say() {
    let inputs = files("testdata", ".in.yaml");
    assert!(inputs.len() >= 40, "only {} golden files were found", inputs.len());
    let different: Vec<String> = inputs
        .iter()
        .filter_map(|input| {
            let text = fs::read_to_string(input).expect("a golden file is readable");
            let expected = input.to_string_lossy().replace(".in.yaml", ".out.yaml");
            compare(Path::new(&expected), &shown(&golden(&text)))
        })
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn broken_manifests_name_line_object_field_and_next_step() {
    let inputs = files("testdata/broken", ".yaml");
    assert!(inputs.len() >= 20, "only {} broken manifests were found", inputs.len());
    let different: Vec<String> = inputs
        .iter()
        .filter_map(|input| {
            let text = fs::read_to_string(input).expect("a broken manifest is readable");
            let problems: Vec<String> = manifest::parse(&text)
                .into_iter()
                .filter_map(|document| match document.content {
                    Content::Invalid(problems) => Some(problems),
                    _ => None,
                })
                .flatten()
                .inspect(|problem| assert!(!problem.next.is_empty(), "{problem} names no next step"))
                .map(|problem| problem.to_string())
                .collect();
            assert!(!problems.is_empty(), "{} is not broken", input.display());
            compare(&input.with_extension("problems"), &format!("{}\n", problems.join("\n")))
        })
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn every_example_is_valid_and_serves() {
    let mut inputs = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples"), ".yaml", &mut inputs);
    assert!(inputs.len() >= 7, "only {} examples were found", inputs.len());
    for input in inputs {
        let text = fs::read_to_string(&input).expect("an example is readable");
        let (translation, skipped) = translated(&text);
        let name = input.display();
        assert!(skipped.is_empty(), "{name} holds kinds that Blixt does not read: {skipped:?}");
        assert!(translation.notes.is_empty(), "{name}: {:?}", translation.notes);
        assert!(!translation.config.frontends.is_empty(), "{name} makes no frontend");
        for (key, status) in &translation.statuses {
            for (part, condition) in status.all_conditions() {
                assert!(!condition.is_trouble(), "{name}: {key} {part}: {}", line(condition));
            }
        }
        for (endpoint, frontend) in &translation.config.frontends {
            let serves = frontend.pool.shares.iter().any(|share| !share.backends.is_empty());
            assert!(serves, "{name}: {endpoint} has no backend");
        }
    }
}

#[test]
fn the_order_of_documents_makes_no_difference() {
    for input in files("testdata", ".in.yaml") {
        let text = fs::read_to_string(&input).expect("a golden file is readable");
        let (facts, _) = text.split_once("---").unwrap_or((&text, ""));
        let mut documents: Vec<&str> = text.split("\n---\n").skip(1).collect();
        documents.reverse();
        let reversed = format!("{facts}---\n{}", documents.join("\n---\n"));
        assert_eq!(translated(&text).0, translated(&reversed).0, "{}", input.display());
    }
}

/// They are parsed on several threads.
#[test]
fn many_documents_keep_their_order() {
    let document = |number| format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: n-{number}}}\n");
    let documents = manifest::parse(&(0..1500).map(document).collect::<String>());
    let names: Vec<_> = documents.into_iter().filter_map(|document| Some(document.key?.name)).collect();
    assert_eq!(names, (0..1500).map(|number| format!("n-{number}")).collect::<Vec<_>>());
}

/// What a status says is what the next translation, or the one after a restart, starts from.
#[test]
fn addresses_that_were_given_stay() {
    let mut gateways = 0;
    for input in files("testdata", ".in.yaml") {
        let text = fs::read_to_string(&input).expect("a golden file is readable");
        let mut snapshot = snapshot(&text).0;
        let first = translate(&snapshot, None);
        snapshot.assigned = first
            .statuses
            .iter()
            .filter_map(|(key, status)| match status {
                Status::Gateway(status) => Some((key.clone(), &status.addresses)),
                _ => None,
            })
            .map(|(key, addresses)| {
                let parsed = addresses.iter().map(|address| address.value.parse().expect("an address"));
                (key, parsed.collect())
            })
            .collect();
        gateways += snapshot.assigned.len();
        assert_eq!(translate(&snapshot, None), first, "{}", input.display());
    }
    assert!(gateways >= 80, "only {gateways} Gateways were looked at");
}

/// Endpoints change all the time: what they do not touch is not translated anew.
#[test]
fn retranslating_endpoints_is_translating_everything() {
    let mut changes = 0;
    for input in files("testdata", ".in.yaml") {
        let text = fs::read_to_string(&input).expect("a golden file is readable");
        let before = snapshot(&text).0;
        let Translation { config, statuses, .. } = translate(&before, None);
        for (key, slice) in before.endpoint_slices() {
            let mut smaller = EndpointSlice::clone(slice);
            smaller.spec.endpoints = smaller.spec.endpoints.iter().skip(1).cloned().collect();
            let mut elsewhere = EndpointSlice::clone(slice);
            elsewhere.metadata.labels =
                BTreeMap::from([("kubernetes.io/service-name".into(), "elsewhere".into())]).into();
            for after in [None, Some(smaller), Some(elsewhere)] {
                let after = after.map(|slice| Object::EndpointSlice(Arc::new(slice)));
                let mut touched = Touched::default();
                touched.add(Some(&Object::EndpointSlice(slice.clone())), after.as_ref());
                let mut snapshot = before.clone();
                snapshot.remove(key);
                after.into_iter().for_each(|object| snapshot.insert(object));
                let Touched::Services(services) = touched else { panic!("a slice touches Services alone") };
                let whole = translate(&snapshot, None);
                let input = input.display();
                assert_eq!(retranslate(&snapshot, &config, &services), whole.config, "{input}: {key}");
                let mut told = statuses.clone();
                told.extend(retell(&snapshot, None, &services));
                assert_eq!(told, whole.statuses, "{input}: {key}");
                changes += usize::from(whole.config != config);
            }
        }
    }
    assert!(changes >= 40, "only {changes} changes of slices changed a Config");
}

#[test]
fn whatever_is_no_slice_touches_everything() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tcp.in.yaml"));
    let snapshot = snapshot(&text.expect("the golden file is readable")).0;
    let service = snapshot.services.values().next().expect("a Service").clone();
    let mut touched = Touched::default();
    assert!(touched.is_nothing());
    touched.add(None, Some(&Object::Service(service)));
    assert_eq!(touched, Touched::Everything);
    touched.merge(Touched::default());
    assert_eq!(touched, Touched::Everything);
}

/// The schema refuses such a Gateway in a file; where a schema of another version let it in, the rule still holds:
/// "the implementation MUST NOT pick one conflicting Listener as the winner".
#[test]
fn two_tcp_listeners_on_one_port_are_both_conflicted() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tcp.in.yaml"));
    let mut snapshot = snapshot(&text.expect("the golden file is readable")).0;
    for gateway in snapshot.gateways.values_mut() {
        let listeners = &mut Arc::make_mut(gateway).spec.listeners;
        let twin = Listener { name: "twin".into(), ..listeners[0].clone() };
        *listeners = listeners.iter().cloned().chain([twin]).collect();
    }
    let translation = translate(&snapshot, None);
    assert!(translation.config.frontends.is_empty(), "a conflicted listener serves");
    let key = ObjectKey { kind: Kind::Gateway, namespace: "default".into(), name: "gateway".into() };
    let Status::Gateway(status) = &translation.statuses[&key] else { panic!("a Gateway has another status") };
    for listener in &status.listeners {
        let lines: Vec<String> = listener.conditions.iter().map(line).collect();
        assert!(lines[0].starts_with("Accepted=False/ProtocolConflict (3)"), "{lines:?}");
        assert!(lines[1].starts_with("Conflicted=True/ProtocolConflict (3)"), "{lines:?}");
    }
    assert!(line(&status.conditions[0]).starts_with("Accepted=False/ListenersNotValid (3)"));
}

#[test]
fn statuses_are_serialised_as_the_api_has_them() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tcp.in.yaml"));
    let (translation, _) = translated(&text.expect("the golden file is readable"));
    let key = ObjectKey { kind: Kind::Gateway, namespace: "default".into(), name: "gateway".into() };
    let json = serde_json::to_value(&translation.statuses[&key]).expect("a status is serialisable");
    assert_eq!(json["addresses"][0], serde_json::json!({ "type": "IPAddress", "value": "10.99.0.1" }));
    assert_eq!(json["listeners"][0]["attachedRoutes"], 1);
    assert_eq!(json["listeners"][0]["supportedKinds"][0]["kind"], "TCPRoute");
    assert_eq!(
        json["conditions"][0],
        serde_json::json!({ "type": "Accepted", "status": "True", "reason": "Accepted",
            "message": "every listener is valid", "observedGeneration": 3 })
    );
}

/// The suite runs the tests of these features, and no others.
#[test]
fn a_class_names_the_features_that_it_has() {
    let features = |l7_listeners: &str| -> Vec<String> {
        let text = format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{ name: blixt }}\n\
             spec:\n  controllerName: gateway.networking.k8s.io/blixt\n  \
             parametersRef: {{ group: blixt.dev, kind: BlixtClass, name: settings }}\n\
             ---\napiVersion: blixt.dev/v1alpha1\nkind: BlixtClass\nmetadata: {{ name: settings }}\n\
             spec: {{ l7Listeners: {l7_listeners} }}\n"
        );
        let translation = translated(&text).0;
        let Some(Status::GatewayClass(status)) = translation.statuses.into_values().next() else {
            panic!("a GatewayClass has another status")
        };
        status.supported_features.into_iter().map(|feature| feature.name.into_owned()).collect()
    };
    let mut expected = vec![
        "Gateway",
        "GatewayAddressEmpty",
        "GatewayInfrastructurePropagation",
        "GatewayPort8080",
        "GatewayStaticAddresses",
        "ListenerSet",
        "ReferenceGrant",
        "TCPRoute",
        "UDPRoute",
    ];
    assert_eq!(features("Passthrough"), expected);
    expected.retain(|name| *name != "GatewayPort8080");
    assert_eq!(features("Refuse"), expected);
}

/// "The labels that SHOULD be applied to any resources created in response to this Gateway."
#[test]
fn each_gateway_has_a_service_account_with_its_labels_and_annotations() {
    let text = "---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: { name: blixt }
spec: { controllerName: gateway.networking.k8s.io/blixt }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: web, uid: 5e1f }
spec:
  gatewayClassName: blixt
  infrastructure:
    labels: { team: shop, gateway.networking.k8s.io/gateway-name: another }
    annotations: { example.com/cost: low }
  listeners: [{ name: web, protocol: TCP, port: 80 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: plain, namespace: other }
spec:
  gatewayClassName: blixt
  listeners: [{ name: web, protocol: TCP, port: 80 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: refused }
spec:
  gatewayClassName: blixt
  infrastructure: { parametersRef: { group: example.com, kind: Settings, name: any } }
  listeners: [{ name: web, protocol: TCP, port: 80 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: not-ours }
spec:
  gatewayClassName: another
  listeners: [{ name: web, protocol: TCP, port: 80 }]
";
    let (snapshot, _) = snapshot(text);
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<SmolStr, SmolStr> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    };
    let account = |namespace: &str, gateway: &str, uid: &str, labels, annotations| ServiceAccount {
        name: format!("{gateway}-blixt"),
        namespace: namespace.into(),
        labels,
        annotations,
        gateway: ObjectKey { kind: Kind::Gateway, namespace: namespace.into(), name: gateway.into() },
        gateway_uid: uid.into(),
    };
    let name = "gateway.networking.k8s.io/gateway-name";
    let expected = [
        account(
            "default",
            "web",
            "5e1f",
            map(&[(name, "web"), ("team", "shop")]),
            map(&[("example.com/cost", "low")]),
        ),
        account("other", "plain", "", map(&[(name, "plain")]), map(&[])),
    ];
    assert_eq!(infrastructure(&snapshot), expected);
}

fn golden(text: &str) -> serde_json::Value {
    let (translation, skipped) = translated(text);
    let statuses = translation.statuses.iter().map(|(key, status)| (key.to_string(), status_lines(status)));
    let notes =
        translation.notes.iter().map(|note| format!("{}: {}: {}", note.object, note.field, note.message));
    serde_json::json!({
        "config": config_lines(&translation.config),
        "tables": table_lines(&translation.config),
        "statuses": statuses.collect::<serde_json::Map<_, _>>(),
        "notes": notes.collect::<Vec<_>>(),
        "skipped": skipped,
    })
}

/// The objects of a text with the facts at its head, and what was skipped.
fn snapshot(text: &str) -> (Snapshot, Vec<String>) {
    let mut snapshot = Snapshot::default();
    let mut skipped = Vec::new();
    for document in manifest::parse(text) {
        match document.content {
            Content::Object(object) => snapshot.insert(object),
            Content::Skipped(name) => skipped.push(name),
            Content::Invalid(problems) => panic!("{}", problems[0]),
        }
    }
    snapshot.is_cluster = facts(text, "cluster").any(|cluster| cluster == "yes");
    let machine = if snapshot.is_cluster { "" } else { MACHINE };
    let machine = facts(text, "machine").next().unwrap_or(machine);
    snapshot.machine.default_addresses = addresses(machine);
    snapshot.machine.addresses = addresses(machine).into_iter().collect();
    for node in facts(text, "node") {
        let (name, own) = node.split_once(' ').expect("a node and its addresses");
        snapshot.node_addresses.extend(addresses(own).into_iter().map(|address| (address, name.to_owned())));
    }
    snapshot.resting = facts(text, "resting").flat_map(addresses).collect();
    for assigned in facts(text, "assigned") {
        let (gateway, address) = assigned.split_once(' ').expect("a Gateway and an address");
        let (namespace, name) = gateway.split_once('/').expect("a namespace and a name");
        let key = ObjectKey { kind: Kind::Gateway, namespace: namespace.into(), name: name.into() };
        snapshot.assigned.entry(key).or_default().insert(address.parse().expect("an address"));
    }
    (snapshot, skipped)
}

/// Translates as an instance does: once for the Config, again with what the data plane said of it.
fn translated(text: &str) -> (Translation, Vec<String>) {
    let (snapshot, skipped) = snapshot(text);
    let first = translate(&snapshot, None);
    if facts(text, "report").any(|report| report == "none") {
        return (first, skipped);
    }
    let frontends = first.config.frontends.keys().map(|endpoint| (*endpoint, FrontendReport::default()));
    let mut report = Report { frontends: frontends.collect(), nodes: None };
    for words in facts(text, "report") {
        let mut words = words.splitn(3, ' ');
        let endpoint = words.next().expect("an endpoint");
        let (kind, message) = (words.next().expect("error or warning"), words.next().expect("a message"));
        let known = report.frontends.iter_mut().find(|(known, _)| known.to_string() == endpoint);
        let (_, frontend) = known.expect("the endpoint is a frontend");
        match kind {
            "error" => frontend.error = Some(message.to_owned()),
            _ => frontend.warnings.push(message.to_owned()),
        }
    }
    let second = translate(&snapshot, Some(&report));
    assert_eq!(first.config, second.config, "the report changes the Config");
    (second, skipped)
}

fn facts<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let head = format!("# {name}: ");
    text.lines().filter_map(move |line| line.strip_prefix(&head))
}

fn config_lines(config: &Config) -> serde_json::Value {
    let frontends = config.frontends.iter().map(|(endpoint, frontend)| {
        let route = frontend.route.as_ref().map_or("none".to_owned(), ToString::to_string);
        let mut lines =
            vec![format!("listener {}, route {route}, {:?}", frontend.listener, frontend.forwarding)];
        lines.extend(pool_lines(&frontend.pool));
        (endpoint.to_string(), lines.into())
    });
    serde_json::json!({
        "addresses": config.addresses,
        "frontends": frontends.collect::<serde_json::Map<_, _>>(),
    })
}

/// What the config compiles to on a machine that reaches every backend over one router: how many slots of its
/// ring each backend of a frontend has.
fn table_lines(config: &Config) -> serde_json::Value {
    let backends = config.frontends.values().flat_map(|frontend| {
        let serving = frontend.pool.shares.iter().flat_map(|share| &share.backends);
        serving.chain(&frontend.pool.draining).map(|backend| backend.address)
    });
    let path = |address: IpAddr| {
        let v4 = address.is_ipv4();
        let next_hop = if v4 { "192.0.2.254" } else { "2001:db8::fe" };
        let source = if v4 { "192.0.2.1" } else { "2001:db8::1" };
        let path = blixt_core::host::Path {
            device: 2,
            next_hop: next_hop.parse().expect("an address"),
            source: source.parse().expect("an address"),
            mtu: 1500,
            local: address == addresses(MACHINE)[0],
        };
        (address, path)
    };
    let host = Host {
        addresses: addresses(MACHINE).into_iter().collect(),
        devices: BTreeMap::from([(2, Device { name: "eth0".into(), mtu: 1500, ..Device::default() })]),
        paths: Arc::new(backends.map(path).collect()),
        ..Host::default()
    };
    let compilation = compile(config, &host, &Tables::default(), &Limits::default());
    assert!(compilation.problems.is_empty(), "{:?}", compilation.problems);
    let tables = compilation.tables;
    let frontends = tables.frontends.iter().map(|(endpoint, frontend)| {
        let mut slots: BTreeMap<String, u32> = BTreeMap::new();
        let ring =
            tables.rings.get(&frontend.ring).and_then(|ring| ring.slots.as_deref()).unwrap_or_default();
        for id in ring {
            let slot = BackendSlot { family: endpoint.address.into(), slot: id.slot() };
            let backend = tables.backends.get(&slot).map(|backend| backend.endpoint.to_string());
            *slots.entry(backend.unwrap_or_else(|| "refused".to_owned())).or_default() += 1;
        }
        (endpoint.to_string(), serde_json::json!(slots))
    });
    frontends.collect::<serde_json::Map<_, _>>().into()
}

fn pool_lines(pool: &Pool) -> Vec<String> {
    let names = |backends: &[Backend]| {
        let names = backends.iter().map(|backend| {
            let node = backend.node.as_ref().map(|node| format!("@{node}")).unwrap_or_default();
            format!("{}{node}", std::net::SocketAddr::new(backend.address, backend.port))
        });
        let names: Vec<String> = names.collect();
        if names.is_empty() { "refuse".to_owned() } else { names.join(" ") }
    };
    let mut lines: Vec<String> = pool
        .shares
        .iter()
        .map(|share| format!("weight {}: {}", share.weight, names(&share.backends)))
        .collect();
    if !pool.draining.is_empty() {
        lines.push(format!("draining: {}", names(&pool.draining)));
    }
    lines
}

fn status_lines(status: &Status) -> serde_json::Value {
    let own: Vec<String> = status.conditions().iter().map(line).collect();
    match status {
        Status::GatewayClass(_) => own.into(),
        Status::Gateway(status) => serde_json::json!({
            "addresses": status.addresses.iter().map(|address| &address.value).collect::<Vec<_>>(),
            "attachedListenerSets": status.attached_listener_sets,
            "conditions": own,
            "listeners": listener_lines(&status.listeners),
        }),
        Status::ListenerSet(status) => {
            serde_json::json!({ "conditions": own, "listeners": listener_lines(&status.listeners) })
        }
        Status::Route(status) => status
            .parents
            .iter()
            .map(|parent| {
                let reference = &parent.parent_ref;
                let conditions: Vec<String> = parent.conditions.iter().map(line).collect();
                serde_json::json!({ "parent": format!("{} {}", reference.kind, reference.name),
                    "section": reference.section_name, "port": reference.port, "conditions": conditions })
            })
            .collect(),
    }
}

fn listener_lines(listeners: &[ListenerStatus]) -> serde_json::Value {
    let listeners = listeners.iter().map(|listener| {
        let kinds: Vec<&str> = listener.supported_kinds.iter().map(|kind| kind.kind.as_str()).collect();
        let mut lines = vec![format!("attached {}, kinds [{}]", listener.attached_routes, kinds.join(", "))];
        lines.extend(listener.conditions.iter().map(line));
        (listener.name.clone(), lines.into())
    });
    listeners.collect::<serde_json::Map<_, _>>().into()
}

fn line(condition: &Condition) -> String {
    format!(
        "{}={:?}/{} ({}): {}",
        condition.condition_type,
        condition.status,
        condition.reason,
        condition.observed_generation,
        condition.message
    )
}

fn shown(value: &serde_json::Value) -> String {
    serde_saphyr::to_string(value).expect("a golden file is serialisable")
}

fn addresses(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(|address| address.parse().expect("an address")).collect()
}

/// Compares with a file, or writes it; gives the first difference.
fn compare(path: &Path, found: &str) -> Option<String> {
    if std::env::var_os("BLIXT_BLESS").is_some() {
        fs::write(path, found).expect("an expectation is writable");
        return None;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == found {
        return None;
    }
    let differs = |(expected, found): &(&str, &str)| expected != found;
    let pairs = expected.lines().chain(std::iter::repeat("(end)")).zip(found.lines().chain(["(end)"]));
    let (expected, found) = pairs.into_iter().find(differs).unwrap_or(("(more)", "(end)"));
    Some(format!("{}:\n  expected {expected}\n  found    {found}", path.display()))
}

fn files(directory: &str, suffix: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(&directory).expect("the directory is readable");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the entry is readable").path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    files.sort();
    files
}

fn collect(directory: &Path, suffix: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the directory is readable") {
        let path = entry.expect("the entry is readable").path();
        if path.is_dir() {
            collect(&path, suffix, found);
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
}
