//! The API server's objects, as they are and as they change. Levels: what was missed while a watch was cut is in the list
//! that begins the next one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use backon::ExponentialBuilder;
use blixt_core::api::{Kind, Object, ObjectKey};
use blixt_core::manifest::typed;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ApiResource, GroupVersionKind};
use kube::runtime::watcher::{Config, Event, ExponentialBackoff};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::fetched::Fetched;

/// Objects a page of a list.
const PAGE: u32 = 500;

/// Something that was seen.
#[derive(Debug)]
pub enum Seen {
    /// A list of this source begins: what does not come until it is complete is gone.
    Begin(Source),
    /// An object is there.
    Object(Box<SeenObject>),
    /// An object is there that cannot be used.
    Unusable(ObjectKey, String),
    /// An object is gone.
    Gone(ObjectKey),
    /// A node is there.
    Node {
        /// Its name.
        name: String,
        /// Its condition `Ready`.
        is_ready: bool,
        /// Its addresses, inside and outside of the cluster.
        addresses: BTreeSet<IpAddr>,
    },
    /// A node is gone.
    NodeGone(String),
    /// A pod of the agents' DaemonSet is there.
    Agent {
        /// Its name.
        pod: String,
        /// The node that it is for.
        node: String,
    },
    /// Such a pod is gone.
    AgentGone(String),
    /// The list is complete.
    Complete(Source),
}

/// What is listed and watched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// Objects of a kind.
    Kind(Kind),
    /// Nodes.
    Nodes,
    /// Pods of agents.
    Agents,
}

/// An object, and what the API server knows of it beside its spec.
#[derive(Debug)]
pub struct SeenObject {
    /// The object.
    pub object: Object,
    /// What a write is compared with.
    pub resource_version: String,
    /// What was last written of it, by whomever.
    pub status: Option<Box<str>>,
}

/// Where objects of a kind are in the API.
pub fn resource(kind: Kind) -> ApiResource {
    let version = if kind == Kind::BlixtClass { "v1alpha1" } else { "v1" };
    let plural = kind.name().to_lowercase();
    let plural = if plural.ends_with('s') { plural + "es" } else { plural + "s" };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kind.group(), version, kind.name()), &plural)
}

/// Every source.
pub fn sources(kinds: &[Kind]) -> Vec<Source> {
    kinds.iter().copied().map(Source::Kind).chain([Source::Nodes, Source::Agents]).collect()
}

/// Watches until the set is dropped or nobody takes what was seen.
pub fn watch(
    client: &Client,
    kinds: &[Kind],
    namespace: &str,
    agents: &str,
    seen: &mpsc::Sender<Seen>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for kind in kinds.iter().copied() {
        let resource = resource(kind);
        let api: Api<Fetched> = Api::all_with(client.clone(), &resource);
        let put = move |object: Fetched| object_seen(kind, object);
        let gone = move |object: &Fetched| Some(Seen::Gone(key(kind, object)));
        let config = Config::default().page_size(PAGE);
        // Other Secrets are nobody's certificate, and nobody's business.
        let config = if kind == Kind::Secret { config.fields("type=kubernetes.io/tls") } else { config };
        let stream = watcher(api, config);
        tasks.spawn(follow(stream, Source::Kind(kind), put, gone, seen.clone()));
    }
    let nodes = watcher(Api::<Node>::all(client.clone()), Config::default().page_size(PAGE));
    let gone = |node: &Node| Some(Seen::NodeGone(node.name_any()));
    tasks.spawn(follow(nodes, Source::Nodes, node_seen, gone, seen.clone()));
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let pods = watcher(pods, Config::default().labels(agents));
    let gone = |pod: &Pod| Some(Seen::AgentGone(pod.name_any()));
    tasks.spawn(follow(pods, Source::Agents, agent_seen, gone, seen.clone()));
    tasks
}

/// When a watch that was cut, or could not be begun, is tried again: an API server that is back is heard after two seconds at most.
/// These are as few watches as there are kinds and controllers.
pub fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(1))
        .with_jitter()
        .without_max_times()
        .into()
}

async fn follow<K: Send>(
    stream: impl futures_util::Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    source: Source,
    put: impl Fn(K) -> Option<Seen> + Send,
    gone: impl Fn(&K) -> Option<Seen> + Send,
    seen: mpsc::Sender<Seen>,
) {
    let mut stream = Box::pin(stream.backoff(backoff()));
    let mut trouble = String::new();
    while let Some(event) = stream.next().await {
        let next = match event {
            Ok(event) => {
                trouble.clear();
                match event {
                    Event::Init => Some(Seen::Begin(source)),
                    Event::InitApply(object) | Event::Apply(object) => put(object),
                    Event::InitDone => Some(Seen::Complete(source)),
                    Event::Delete(object) => gone(&object),
                }
            }
            Err(error) => {
                let error = error.to_string();
                // A watch that is cut every few minutes is no trouble; one that cannot be begun is said once.
                if error != trouble {
                    let next = next_step(&error);
                    tracing::warn!(?source, error, next, "cannot watch, trying again");
                    trouble = error;
                }
                None
            }
        };
        if let Some(next) = next
            && seen.send(next).await.is_err()
        {
            return;
        }
    }
}

fn next_step(error: &str) -> &'static str {
    if error.contains("404") || error.contains("not found") {
        "install the CRDs: of Gateway API v1.6.1 (standard channel), and of BlixtClass"
    } else if error.contains("403") || error.contains("forbidden") {
        "compare the ClusterRole with that of deploy/install.yaml"
    } else {
        "look at the API server"
    }
}

fn object_seen(kind: Kind, object: Fetched) -> Option<Seen> {
    let key = key(kind, &object);
    let resource_version = object.resource_version().unwrap_or_default();
    let Fetched { metadata, mut fields, status } = object;
    let metadata = json!({
        "name": metadata.name,
        "namespace": metadata.namespace.unwrap_or_default(),
        "uid": metadata.uid.unwrap_or_default(),
        "labels": metadata.labels.unwrap_or_default(),
        "annotations": metadata.annotations.unwrap_or_default(),
        "generation": metadata.generation.unwrap_or_default(),
        "creationTimestamp": metadata.creation_timestamp,
    });
    fields.insert("metadata".to_owned(), metadata);
    Some(match typed(kind, Value::Object(fields)) {
        Ok(object) => Seen::Object(Box::new(SeenObject { object, resource_version, status })),
        Err(error) => Seen::Unusable(key, error.to_string()),
    })
}

fn key(kind: Kind, object: &Fetched) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: object.namespace().unwrap_or_default().into(),
        name: object.name_any().into(),
    }
}

fn node_seen(node: Node) -> Option<Seen> {
    let name = node.name_any();
    let status = node.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let is_ready =
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    // Beside addresses there are names.
    let addresses = status.addresses.unwrap_or_default();
    let addresses = addresses.iter().filter_map(|address| address.address.parse().ok()).collect();
    Some(Seen::Node { name, is_ready, addresses })
}

fn agent_seen(pod: Pod) -> Option<Seen> {
    let node = node_of(&pod)?;
    Some(Seen::Agent { pod: pod.name_any(), node })
}

/// The node that a pod runs on, or that its DaemonSet made it for.
fn node_of(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = &spec.node_name {
        return Some(node.clone());
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    fields
        .filter(|field| field.key == "metadata.name" && field.operator == "In")
        .find_map(|field| field.values.as_ref()?.first().cloned())
}

/// What names an object in Events and owner references.
pub fn reference(object: &Object) -> k8s_openapi::api::core::v1::ObjectReference {
    let resource = resource(object.kind());
    let metadata = object.metadata();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some(resource.api_version.clone()),
        kind: Some(resource.kind.clone()),
        name: some(&metadata.name),
        namespace: some(&metadata.namespace),
        uid: some(&metadata.uid),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place_in_the_api() {
        let places: Vec<String> = Kind::ALL
            .into_iter()
            .map(resource)
            .map(|resource| format!("{} {}", resource.api_version, resource.plural))
            .collect();
        for place in [
            "blixt.dev/v1alpha1 blixtclasses",
            "gateway.networking.k8s.io/v1 gatewayclasses",
            "gateway.networking.k8s.io/v1 listenersets",
            "gateway.networking.k8s.io/v1 tcproutes",
            "gateway.networking.k8s.io/v1 referencegrants",
            "v1 services",
            "discovery.k8s.io/v1 endpointslices",
        ] {
            assert!(places.iter().any(|known| known == place), "{place} in {places:?}");
        }
    }

    #[test]
    fn a_pod_that_is_not_scheduled_yet_is_for_the_node_that_its_daemon_set_named() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "blixt-agent-x"},
            "spec": {"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node2"]}]}
                ]}
            }}}
        }))
        .unwrap();
        assert_eq!(node_of(&pod).as_deref(), Some("node2"));
    }

    #[test]
    fn an_object_keeps_its_status_apart_and_unknown_fields_are_no_trouble() {
        let object: Fetched = serde_json::from_str(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default", "resourceVersion": "7", "generation": 3},
            "spec": {"clusterIP": "10.96.0.7", "newField": true, "ports": [{"port": 80, "nodePort": 30080, "targetPort": 8080}]},
            "status": {"loadBalancer": {}}
        }).to_string())
        .unwrap();
        let Some(Seen::Object(seen)) = object_seen(Kind::Service, object) else { panic!() };
        assert_eq!(
            (seen.resource_version.as_str(), seen.status.as_deref()),
            ("7", Some(r#"{"loadBalancer":{}}"#))
        );
        assert_eq!(seen.object.metadata().name, "web");
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let object: Fetched = serde_json::from_str(
            &json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
                "spec": {"ports": 7}
            })
            .to_string(),
        )
        .unwrap();
        assert!(matches!(object_seen(Kind::Service, object), Some(Seen::Unusable(key, why))
            if key.name == "web" && !why.is_empty()));
    }
}
