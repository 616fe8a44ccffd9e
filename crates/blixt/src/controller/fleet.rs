//! Which nodes must serve. Pure: time is told by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::watch::{Seen, Source};

/// A node whose agent's pod is gone must still serve for this long: a new pod is on its way when versions change.
const REPLACED_WITHIN: Duration = Duration::from_secs(60);

/// The nodes of the cluster, and the agents' pods.
#[derive(Debug, Default)]
pub struct Fleet {
    nodes: BTreeMap<String, Node>,
    agents: BTreeMap<String, String>,
    /// Nodes that had a pod, and until when they had it.
    left: BTreeMap<String, Instant>,
    /// Since when a node must serve.
    since: BTreeMap<String, Instant>,
    /// Nodes and pods that a list which began has not named yet.
    missing_nodes: BTreeSet<String>,
    missing_agents: BTreeSet<String>,
}

/// A node as it was seen last.
#[derive(Debug)]
struct Node {
    is_ready: bool,
    addresses: BTreeSet<IpAddr>,
}

/// The nodes that are meant to run an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expected {
    /// These must serve, since then.
    pub ready: BTreeMap<String, Instant>,
    /// These need not now.
    pub not_ready: Vec<String>,
}

impl Fleet {
    /// Takes in what was seen of nodes and pods. What a list does not name is gone when it is complete, not before.
    /// Whether it may make a difference.
    pub fn see(&mut self, seen: &Seen, now: Instant) -> bool {
        match seen {
            Seen::Begin(Source::Nodes) => self.missing_nodes = self.nodes.keys().cloned().collect(),
            Seen::Begin(Source::Agents) => self.missing_agents = self.agents.keys().cloned().collect(),
            Seen::Node { name, is_ready, addresses } => {
                self.missing_nodes.remove(name);
                self.nodes.insert(name.clone(), Node { is_ready: *is_ready, addresses: addresses.clone() });
            }
            Seen::Agent { pod, node } => {
                self.missing_agents.remove(pod);
                self.agents.insert(pod.clone(), node.clone());
            }
            Seen::NodeGone(name) => drop(self.nodes.remove(name)),
            Seen::AgentGone(pod) => self.remove_agent(pod, now),
            Seen::Complete(Source::Nodes) => {
                for name in std::mem::take(&mut self.missing_nodes) {
                    self.nodes.remove(&name);
                }
            }
            Seen::Complete(Source::Agents) => {
                for pod in std::mem::take(&mut self.missing_agents) {
                    self.remove_agent(&pod, now);
                }
            }
            _ => return false,
        }
        true
    }

    /// There is a node of this name.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// The addresses of all nodes, and whose each is.
    pub fn node_addresses(&self) -> BTreeMap<IpAddr, String> {
        let of = |(name, node): (&String, &Node)| {
            node.addresses.iter().map(|address| (*address, name.clone())).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// Who must serve.
    pub fn expected(&mut self, now: Instant) -> Expected {
        self.left.retain(|_, since| now.saturating_duration_since(*since) < REPLACED_WITHIN);
        let meant: BTreeSet<&String> = self.agents.values().chain(self.left.keys()).collect();
        let there = meant.into_iter().filter_map(|node| Some((node.clone(), self.nodes.get(node)?.is_ready)));
        let (ready, not_ready): (Vec<_>, Vec<_>) = there.partition(|(_, is_ready)| *is_ready);
        // A node that came, or came back, has time to connect.
        let since = |name: String| (self.since.get(&name).copied().unwrap_or(now), name);
        self.since =
            ready.into_iter().map(|(name, _)| since(name)).map(|(since, name)| (name, since)).collect();
        Expected {
            ready: self.since.clone(),
            not_ready: not_ready.into_iter().map(|(name, _)| name).collect(),
        }
    }

    fn remove_agent(&mut self, pod: &str, now: Instant) {
        if let Some(node) = self.agents.remove(pod) {
            self.left.insert(node, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(now: Instant) -> Fleet {
        let mut fleet = Fleet::default();
        for (name, is_ready) in [("node1", true), ("node2", true), ("node3", false), ("control", true)] {
            fleet.see(&Seen::Node { name: name.into(), is_ready, addresses: BTreeSet::new() }, now);
        }
        for node in ["node1", "node2", "node3", "removed"] {
            fleet.see(&Seen::Agent { pod: format!("agent-{node}"), node: node.into() }, now);
        }
        fleet
    }

    #[test]
    fn ready_nodes_that_run_an_agent_must_serve_and_others_not() {
        let now = Instant::now();
        let expected = fleet(now).expected(now);
        assert!(expected.ready.keys().eq(["node1", "node2"]));
        assert_eq!(expected.not_ready, ["node3"]);
    }

    #[test]
    fn a_node_whose_agent_is_replaced_must_serve_meanwhile_but_not_for_ever() {
        let now = Instant::now();
        let mut fleet = fleet(now);
        fleet.see(&Seen::AgentGone("agent-node2".into()), now);
        assert!(fleet.expected(now + Duration::from_secs(30)).ready.keys().eq(["node1", "node2"]));
        assert!(fleet.expected(now + Duration::from_secs(61)).ready.keys().eq(["node1"]));
        fleet.see(&Seen::NodeGone("node1".into()), now);
        assert!(fleet.expected(now + Duration::from_secs(61)).ready.is_empty());
    }

    #[test]
    fn a_list_that_begins_anew_takes_no_node_away_before_it_is_complete() {
        let now = Instant::now();
        let mut fleet = fleet(now);
        let before = fleet.expected(now);
        fleet.see(&Seen::Begin(Source::Nodes), now);
        fleet.see(&Seen::Begin(Source::Agents), now);
        assert_eq!(fleet.expected(now), before);
        fleet.see(&Seen::Node { name: "node2".into(), is_ready: true, addresses: BTreeSet::new() }, now);
        fleet.see(&Seen::Complete(Source::Nodes), now);
        assert!(fleet.expected(now).ready.keys().eq(["node2"]));
    }

    #[test]
    fn a_node_that_comes_back_must_serve_from_then_on() {
        let now = Instant::now();
        let mut fleet = fleet(now);
        assert_eq!(fleet.expected(now).ready["node1"], now);
        fleet.see(&Seen::Node { name: "node1".into(), is_ready: false, addresses: BTreeSet::new() }, now);
        fleet.expected(now + Duration::from_secs(5));
        fleet.see(&Seen::Node { name: "node1".into(), is_ready: true, addresses: BTreeSet::new() }, now);
        let later = now + Duration::from_secs(90);
        assert_eq!(fleet.expected(later).ready["node1"], later);
        assert_eq!(fleet.expected(later + Duration::from_secs(1)).ready["node1"], later);
    }
}
