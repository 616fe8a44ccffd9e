//! Which nodes must serve. Pure: time is told by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::watch::Seen;

/// A node whose agent's pod is gone must still serve for this long: a new pod is on its way when versions change.
const REPLACED_WITHIN: Duration = Duration::from_secs(60);

/// The nodes of the cluster, and the agents' pods.
#[derive(Debug, Default)]
pub struct Fleet {
    nodes: BTreeMap<String, bool>,
    agents: BTreeMap<String, String>,
    /// Nodes that had a pod, and until when they had it.
    left: BTreeMap<String, Instant>,
}

/// The nodes that are meant to run an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expected {
    /// These must serve.
    pub ready: Vec<String>,
    /// These need not now.
    pub not_ready: Vec<String>,
}

impl Fleet {
    /// Takes in what was seen of nodes and pods. Whether that makes a difference.
    pub fn see(&mut self, seen: &Seen, now: Instant) -> bool {
        match seen {
            Seen::Node { name, is_ready } => self.nodes.insert(name.clone(), *is_ready) != Some(*is_ready),
            Seen::NodeGone(name) => self.nodes.remove(name).is_some(),
            Seen::Agent { pod, node } => self.agents.insert(pod.clone(), node.clone()).as_ref() != Some(node),
            Seen::AgentGone(pod) => match self.agents.remove(pod) {
                Some(node) => self.left.insert(node, now).is_none(),
                None => false,
            },
            _ => false,
        }
    }

    /// A list begins: what it does not name is gone. Nodes and pods that are gone are rare, and nothing hangs on them for
    /// longer than a list takes.
    pub fn forget_nodes(&mut self) {
        self.nodes.clear();
    }

    /// The same for pods.
    pub fn forget_agents(&mut self, now: Instant) {
        let nodes = std::mem::take(&mut self.agents).into_values();
        self.left.extend(nodes.map(|node| (node, now)));
    }

    /// Who must serve.
    pub fn expected(&mut self, now: Instant) -> Expected {
        self.left.retain(|_, since| now.saturating_duration_since(*since) < REPLACED_WITHIN);
        let meant: BTreeSet<&String> = self.agents.values().chain(self.left.keys()).collect();
        let there = meant.into_iter().filter_map(|node| Some((node, *self.nodes.get(node)?)));
        let (ready, not_ready): (Vec<_>, Vec<_>) = there.partition(|(_, is_ready)| *is_ready);
        let names = |nodes: Vec<(&String, bool)>| nodes.into_iter().map(|(name, _)| name.clone()).collect();
        Expected { ready: names(ready), not_ready: names(not_ready) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(now: Instant) -> Fleet {
        let mut fleet = Fleet::default();
        for (name, is_ready) in [("node1", true), ("node2", true), ("node3", false), ("control", true)] {
            fleet.see(&Seen::Node { name: name.into(), is_ready }, now);
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
        assert_eq!(expected.ready, ["node1", "node2"]);
        assert_eq!(expected.not_ready, ["node3"]);
    }

    #[test]
    fn a_node_whose_agent_is_replaced_must_serve_meanwhile_but_not_for_ever() {
        let now = Instant::now();
        let mut fleet = fleet(now);
        fleet.see(&Seen::AgentGone("agent-node2".into()), now);
        assert_eq!(fleet.expected(now + Duration::from_secs(30)).ready, ["node1", "node2"]);
        assert_eq!(fleet.expected(now + Duration::from_secs(61)).ready, ["node1"]);
        fleet.see(&Seen::NodeGone("node1".into()), now);
        assert!(fleet.expected(now + Duration::from_secs(61)).ready.is_empty());
    }
}
