use std::collections::BTreeMap;

use super::*;
use crate::status::view::{HookView, InstanceView, ProblemView, RouteView, Versions};
use jiff::Timestamp;
use serde_json::json;

fn view() -> View {
    View {
        instance: InstanceView {
            name: "4026531833-1".into(),
            pid: 42,
            started: Timestamp::UNIX_EPOCH,
            ready: true,
            taken_over: false,
            generation: 3,
            applied_generation: 3,
            flow_capacity: 1024,
            flows: 7,
            flow_entries_evicted: 0,
        },
        versions: Versions {
            blixt: "0.1.0".into(),
            map_layout: 1,
            gateway_api: "v1.6.1".into(),
            kernel: "6.18.0".into(),
        },
        objects: vec![
            ObjectView {
                kind: "Gateway".into(),
                namespace: "default".into(),
                name: "web".into(),
                generation: 2,
                file: "web.yaml".into(),
                line: 7,
                conditions: vec![
                    json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}),
                    json!({"type": "Programmed", "status": "False", "reason": "Invalid", "message": "no address"}),
                ],
                status: json!({"listeners": [
                    {"name": "http", "conditions": [
                        {"type": "Conflicted", "status": "True", "reason": "ProtocolConflict", "message": "twice"},
                    ]},
                ]}),
            },
            ObjectView {
                kind: "Service".into(),
                namespace: "default".into(),
                name: "web".into(),
                generation: 1,
                file: "web.yaml".into(),
                line: 20,
                conditions: vec![],
                status: Value::Null,
            },
        ],
        frontends: vec![FrontendView {
            endpoint: "10.0.0.1:80/tcp".into(),
            listener: "default/web/http".into(),
            route: Some("TCPRoute/default/web".into()),
            forwarding: "Nat".into(),
            ring_slots: 251,
            refused_percent: 25.0,
            backends: vec![BackendView {
                endpoint: "10.1.0.1:8080/tcp".into(),
                state: "serving".into(),
                way: Some("nat".into()),
                device: Some("eth1".into()),
                nat_from: Vec::new(),
                weight: 3,
                percent: 75.0,
                connections: 12,
            }],
            error: None,
            warnings: vec!["a process listens too".into()],
        }],
        routes: vec![RouteView {
            route: "TCPRoute/default/web".into(),
            connections: 12,
            refused: 4,
            request_packets: 100,
            request_bytes: 6000,
            reply_packets: 90,
            reply_bytes: 5400,
        }],
        drops: BTreeMap::from([("refused".into(), 4)]),
        hooks: vec![HookView {
            device: "eth0".into(),
            ifindex: 2,
            hook: "tc".into(),
            egress: false,
            error: None,
        }],
        problems: vec![ProblemView {
            file: "web.yaml".into(),
            line: Some(9),
            object: "Gateway default/web".into(),
            field: "spec".into(),
            message: "wrong".into(),
            next: "put it right".into(),
        }],
    }
}

#[test]
fn a_person_sees_what_matters_and_what_is_wrong() {
    let expected = "\
blixt 0.1.0, ready, config 3, pid 42, since 1970-01-01T00:00:00Z, about 7 of 1024 flows, instance 4026531833-1

Problems
  web.yaml:9: Gateway default/web: spec: wrong; put it right

Objects
  KIND      NAMESPACE   NAME   CONDITIONS
  Gateway   default     web    Accepted, Programmed=False (Invalid: no address), listener http: Conflicted=True (ProtocolConflict: twice)

Frontends
  FRONTEND          ROUTE                  BACKEND             STATE     WAY   SHARE   CONNECTIONS
  10.0.0.1:80/tcp   TCPRoute/default/web   10.1.0.1:8080/tcp   serving   nat   75.0%   12
  10.0.0.1:80/tcp   TCPRoute/default/web   -                   refused   -     25.0%   -
  10.0.0.1:80/tcp   TCPRoute/default/web   warning: a process listens too

Routes
  ROUTE                  CONNECTIONS   REFUSED   PACKETS IN   PACKETS OUT
  TCPRoute/default/web   12            4         100          90

Drops
  REASON    PACKETS
  refused   4

Hooks
  DEVICE   HOOK   EGRESS
  eth0     tc     no
";
    assert_eq!(render(&view(), false), expected);
}

#[test]
fn a_full_table_says_how_many_entries_gave_way() {
    let mut view = view();
    view.instance.flow_entries_evicted = 12;
    let text = render(&view, false);
    assert!(text.contains("about 7 of 1024 flows (12 entries evicted), "), "{text}");
}

#[test]
fn a_way_says_whose_it_is_not() {
    let mut view = view();
    let backend = &mut view.frontends[0].backends[0];
    backend.way = Some("local".into());
    backend.nat_from = vec!["cni0".into(), "this machine".into()];
    let text = render(&view, false);
    assert!(text.contains("local (nat from cni0, this machine)"), "{text}");
}

#[test]
fn wide_tables_have_every_object_and_column() {
    let text = render(&view(), true);
    for part in ["Service", "web.yaml:20", "default/web/http", "eth1", "251", "6000"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn yaml_and_json_are_the_same_document() {
    let yaml: Value = serde_saphyr::from_str(&serde_saphyr::to_string(&view()).unwrap()).unwrap();
    let json: Value = serde_json::to_value(view()).unwrap();
    assert_eq!(yaml, json);
}
