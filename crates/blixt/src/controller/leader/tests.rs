//! A leader whose objects are told by hand and whose writes are looked at.

use blixt_core::api::{Kind, Object};
use blixt_core::manifest::typed;
use serde_json::{Value, json};

use super::super::watch::SeenObject;
use super::*;
use crate::sync::report::NodeReport;

/// A leader and all that it says.
struct Stage {
    leader: Leader,
    connected: Connected,
    published: watch::Receiver<Published>,
    resting: watch::Receiver<BTreeSet<IpAddr>>,
    worked: mpsc::Receiver<Result<Worked, String>>,
    writes: mpsc::UnboundedReceiver<(ObjectKey, Box<str>)>,
    events: mpsc::Receiver<(Object, crate::status::book::Transition)>,
}

const KINDS: [Kind; 6] =
    [Kind::BlixtClass, Kind::GatewayClass, Kind::Gateway, Kind::TcpRoute, Kind::Service, Kind::EndpointSlice];

impl Stage {
    fn new() -> Self {
        Self::after(&Handover { generation: 1001, resting: BTreeSet::new() })
    }

    /// What the leader before left.
    fn after(before: &Handover) -> Self {
        let sources = super::super::watch::sources(&KINDS);
        let connected = Connected::default();
        let (publish, published) = watch::channel(Published::default());
        let (work, worked) = mpsc::channel(1);
        let (write, writes) = mpsc::unbounded_channel();
        let (accounts, _) = watch::channel(Vec::new());
        let (rest, resting) = watch::channel(BTreeSet::new());
        let (events, kept) = Events::kept();
        let outlets =
            Outlets { published: publish, worked: work, writes: write, resting: rest, accounts, events };
        let leader = Leader::new(&sources, before, connected.clone(), outlets);
        Self { leader, connected, published, resting, worked, writes, events: kept }
    }

    fn see(&mut self, kind: Kind, object: Value, status: Option<String>) {
        let object = typed(kind, object).unwrap();
        let seen = SeenObject { object, resource_version: "1".to_owned(), status: status.map(Into::into) };
        self.leader.see(Seen::Object(Box::new(seen)));
    }

    fn see_class(&mut self, status: Option<String>) {
        self.see(
            Kind::GatewayClass,
            json!({"metadata": {"name": "blixt", "generation": 1},
                   "spec": {"controllerName": "gateway.networking.k8s.io/blixt", "parametersRef":
                            {"group": "blixt.dev", "kind": "BlixtClass", "name": "settings"}}}),
            status,
        );
        self.see(
            Kind::BlixtClass,
            json!({"metadata": {"name": "settings"},
                   "spec": {"addressPools": [{"name": "test", "addresses": ["192.0.2.0/24"]}]}}),
            None,
        );
    }

    fn see_gateway(&mut self, generation: i64, ports: &[u16]) {
        let listeners: Vec<Value> = ports.iter().map(|port| listener("TCP", *port)).collect();
        self.see(
            Kind::Gateway,
            json!({"metadata": {"name": "web", "namespace": "default", "generation": generation},
                   "spec": {"gatewayClassName": "blixt", "listeners": listeners,
                            "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]}}),
            None,
        );
    }

    fn complete(&mut self) {
        for kind in KINDS {
            self.leader.see(Seen::Complete(Source::Kind(kind)));
        }
        self.leader.see(Seen::Complete(Source::Nodes));
        self.leader.see(Seen::Complete(Source::Agents));
    }

    fn see_node(&mut self, name: &str) {
        self.leader.see(Seen::Node { name: name.to_owned(), is_ready: true, addresses: BTreeSet::new() });
        self.leader.see(Seen::Agent { pod: format!("agent-{name}"), node: name.to_owned() });
    }

    /// Goes on until nothing is due any more; gives what was written.
    async fn settle(&mut self) -> Vec<(String, Value)> {
        loop {
            self.leader.converge();
            let Some(due) = self.leader.statuses_due() else { break };
            tokio::time::sleep_until(due.into()).await;
            self.leader.work();
            let worked = self.worked.recv().await.unwrap();
            self.leader.take_worked(worked);
        }
        let mut written = Vec::new();
        while let Ok((key, body)) = self.writes.try_recv() {
            written.push((key.kind.name().to_owned(), serde_json::from_str(&body).unwrap()));
        }
        written
    }

    fn acknowledge(&mut self, node: &str, generation: u64) {
        let stream = self.connected.enter(node);
        let report = NodeReport { generation: Generation(generation), ..NodeReport::default() };
        assert!(self.connected.say(node, stream, report));
        self.leader.hear();
    }
}

/// As the API server completes it.
fn listener(protocol: &str, port: u16) -> Value {
    json!({"name": format!("tcp-{port}"), "protocol": protocol, "port": port,
           "allowedRoutes": {"namespaces": {"from": "Same"}}})
}

fn names(written: &[(String, Value)]) -> Vec<&str> {
    written.iter().map(|(kind, _)| kind.as_str()).collect()
}

#[tokio::test]
async fn nothing_is_published_or_written_before_every_list_is_complete() {
    let mut stage = Stage::new();
    stage.see_class(None);
    stage.see_gateway(1, &[80]);
    stage.leader.see(Seen::Complete(Source::Kind(Kind::Gateway)));
    assert!(stage.settle().await.is_empty());
    assert_eq!(stage.published.borrow().generation, Generation(0));
    stage.complete();
    assert_eq!(names(&stage.settle().await), ["GatewayClass", "Gateway"]);
    let published = stage.published.borrow();
    assert_eq!((published.generation, published.config.frontends.len()), (Generation(1001), 1));
}

#[tokio::test]
async fn a_gateway_is_programmed_once_every_node_has_acknowledged_and_not_told_of_before() {
    let mut stage = Stage::new();
    stage.see_class(None);
    stage.see_gateway(1, &[80]);
    stage.see_node("node1");
    stage.see_node("node2");
    stage.complete();
    assert_eq!(names(&stage.settle().await), ["GatewayClass"]);
    stage.acknowledge("node1", 1001);
    assert_eq!(names(&stage.settle().await), [""; 0]);
    stage.acknowledge("node2", 1001);
    let written = stage.settle().await;
    assert_eq!(names(&written), ["Gateway"]);
    let programmed = written[0].1["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|condition| condition["type"] == "Programmed")
        .unwrap();
    assert_eq!(programmed["status"], "True");
    assert!(
        programmed["message"].as_str().unwrap().ends_with("2/2 nodes at generation 1001"),
        "{programmed}"
    );
    // And nothing more at rest, or when a node says the same again.
    stage.acknowledge("node2", 1001);
    assert_eq!(names(&stage.settle().await), [""; 0]);
}

#[tokio::test]
async fn a_status_that_could_not_be_written_is_written_again() {
    let mut stage = Stage::new();
    stage.see_class(None);
    stage.complete();
    let written = stage.settle().await;
    assert_eq!(names(&written), ["GatewayClass"]);
    let key = ObjectKey { kind: Kind::GatewayClass, namespace: "".into(), name: "blixt".into() };
    for failure in [Failure::Conflict, Failure::Other("429 Too Many Requests".to_owned())] {
        stage.leader.take_outcome(Outcome { key: key.clone(), result: Err(failure) });
        let retry = stage.leader.due().expect("it is tried again");
        tokio::time::sleep_until(retry.into()).await;
        stage.leader.work();
        assert_eq!(names(&stage.settle().await), ["GatewayClass"]);
        stage.leader.take_outcome(Outcome { key: key.clone(), result: Ok(()) });
    }
    stage.leader.take_outcome(Outcome { key, result: Err(Failure::Gone) });
    assert!(stage.leader.due().is_none() && stage.settle().await.is_empty());
}

#[tokio::test]
async fn a_status_that_somebody_overwrote_is_written_again_and_ones_own_is_not() {
    let mut stage = Stage::new();
    stage.see_class(None);
    stage.complete();
    let written = stage.settle().await;
    let own = written[0].1["status"].clone();
    stage.see_class(Some(own.to_string()));
    assert!(stage.settle().await.is_empty());
    stage.see_class(Some(json!({"conditions": []}).to_string()));
    assert_eq!(names(&stage.settle().await), ["GatewayClass"]);
}

#[tokio::test]
async fn a_gateway_that_goes_takes_its_frontends_along_and_its_address_rests() {
    let resting = BTreeSet::from(["192.0.2.9".parse().unwrap()]);
    let mut stage = Stage::after(&Handover { generation: 1001, resting });
    stage.see_class(None);
    stage.see_gateway(1, &[80, 81]);
    stage.complete();
    stage.settle().await;
    let key = ObjectKey { kind: Kind::Gateway, namespace: "default".into(), name: "web".into() };
    stage.leader.see(Seen::Gone(key));
    stage.settle().await;
    assert!(stage.published.borrow().config.frontends.is_empty());
    assert_eq!(stage.published.borrow().generation, Generation(1002));
    let resting = &stage.leader.objects.snapshot.resting;
    assert!(resting.iter().map(ToString::to_string).eq(["192.0.2.1", "192.0.2.9"]));
    // The next leader is told.
    assert_eq!(*stage.resting.borrow(), *resting);
}

#[tokio::test]
async fn an_address_of_a_node_is_no_gateways() {
    let mut stage = Stage::new();
    stage.see_class(None);
    stage.see_gateway(1, &[80]);
    stage.complete();
    stage.settle().await;
    assert_eq!(stage.published.borrow().config.frontends.len(), 1);
    let addresses = BTreeSet::from(["192.0.2.1".parse().unwrap()]);
    stage.leader.see(Seen::Node { name: "node1".into(), is_ready: true, addresses });
    let written = stage.settle().await;
    assert!(stage.published.borrow().config.frontends.is_empty());
    let gateway = &written.iter().find(|(kind, _)| kind == "Gateway").unwrap().1;
    assert!(gateway["status"].to_string().contains("192.0.2.1 is an address of node node1"), "{gateway}");
}

#[tokio::test]
async fn a_list_that_begins_anew_removes_what_it_does_not_name_only_when_it_is_complete() {
    let mut stage = Stage::new();
    stage.see_class(None);
    stage.see_gateway(1, &[80]);
    stage.complete();
    stage.settle().await;
    stage.leader.see(Seen::Begin(Source::Kind(Kind::Gateway)));
    stage.settle().await;
    assert_eq!(stage.published.borrow().config.frontends.len(), 1);
    stage.leader.see(Seen::Complete(Source::Kind(Kind::Gateway)));
    stage.settle().await;
    assert!(stage.published.borrow().config.frontends.is_empty());
}

#[tokio::test]
async fn a_condition_that_turns_is_an_event_of_its_object() {
    let mut stage = Stage::new();
    stage.see_class(None);
    stage.see_gateway(1, &[80]);
    stage.complete();
    let written = stage.settle().await;
    let status = written.iter().find(|(kind, _)| kind == "Gateway").unwrap().1["status"].to_string();
    while stage.events.try_recv().is_ok() {}
    // Its port is taken away: the Gateway has no listener that is valid.
    stage.see(
        Kind::Gateway,
        json!({"metadata": {"name": "web", "namespace": "default", "generation": 2},
               "spec": {"gatewayClassName": "blixt",
                        "listeners": [listener("HTTP", 80)],
                        "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]}}),
        Some(status),
    );
    stage.settle().await;
    let (object, transition) = stage.events.try_recv().expect("an event");
    assert_eq!((object.kind(), transition.status), (Kind::Gateway, "False"));
}
