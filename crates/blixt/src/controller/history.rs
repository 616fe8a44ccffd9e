//! Since when each frontend is as it is, and what the nodes' reports come to. Pure: time is told by the caller.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use blixt_core::config::{Config, Endpoint, Frontend, Generation};
use blixt_core::translate::{FrontendReport, Nodes, Report};

use super::fleet::Expected;
use crate::sync::server::Said;

/// A Ready node that is behind for this long makes what it does not serve yet not programmed, by its name.
pub const LAG: Duration = Duration::from_secs(10);
/// A leader that has just begun gives nodes this long to find it: their connections to the one before it have to end first.
const FIRST: Duration = Duration::from_secs(30);

/// Since when each frontend is as it is.
#[derive(Debug, Default)]
pub struct History {
    since: BTreeMap<Endpoint, Since>,
    /// When each generation was published that somebody may not have yet.
    published: VecDeque<(Generation, Instant)>,
    /// When the first one was.
    began: Option<Instant>,
}

/// Since when a frontend is as it is.
#[derive(Clone, Copy, Debug)]
struct Since {
    /// All of it.
    content: Generation,
    /// All but its backends.
    shape: Generation,
}

impl History {
    /// Takes in what is published next.
    pub fn publish(&mut self, last: &Config, next: &Config, generation: Generation, now: Instant) {
        self.published.push_back((generation, now));
        self.began.get_or_insert(now);
        let (old, new) = (&last.frontends, &next.frontends);
        self.since.retain(|endpoint, _| new.contains_key(endpoint));
        for (endpoint, frontend) in new {
            let known = old.get(endpoint).filter(|_| self.since.contains_key(endpoint));
            let shape_stays = known.is_some_and(|known| is_same_shape(known, frontend));
            let content_stays = shape_stays && known.is_some_and(|known| known.pool == frontend.pool);
            if content_stays {
                continue;
            }
            let since =
                self.since.entry(*endpoint).or_insert(Since { content: generation, shape: generation });
            since.content = generation;
            if !shape_stays {
                since.shape = generation;
            }
        }
    }

    /// What the nodes that must serve have come to, and when that may change though nobody says anything.
    pub fn report(
        &mut self,
        expected: &Expected,
        said: &BTreeMap<String, Said>,
        now: Instant,
    ) -> (Report, Option<Instant>) {
        let nodes: Vec<NodeState<'_>> = expected
            .ready
            .iter()
            .map(|(name, since)| self.state(name, *since, said.get(name), now))
            .collect();
        self.forget(nodes.iter().map(|node| node.acknowledged).min(), now);
        let next = nodes.iter().filter_map(|node| node.deadline).filter(|deadline| *deadline > now).min();
        let frontends = self.since.iter().filter_map(|(endpoint, since)| {
            let mut report = FrontendReport { generation: Some(since.shape), ..FrontendReport::default() };
            let mut is_pending = false;
            for node in &nodes {
                match node.outcome(endpoint, since.content) {
                    Outcome::Serves(warnings) => report.warnings.extend(warnings),
                    Outcome::Fails(error) => report.error = report.error.or(Some(error)),
                    Outcome::Pending => is_pending = true,
                }
            }
            (report.error.is_some() || !is_pending).then_some((*endpoint, report))
        });
        let frontends = if nodes.is_empty() { BTreeMap::new() } else { frontends.collect() };
        let nodes = Nodes { serving: nodes.len(), not_ready: expected.not_ready.clone() };
        (Report { frontends, nodes: Some(nodes) }, next)
    }

    fn state<'a>(
        &self,
        name: &'a str,
        expected: Instant,
        said: Option<&'a Said>,
        now: Instant,
    ) -> NodeState<'a> {
        let latest = self.published.back().map_or(Generation(0), |(generation, _)| *generation);
        // What another leader published is not known here.
        let said = said.filter(|said| said.report.generation <= latest);
        let acknowledged = said.map_or(Generation(0), |said| said.report.generation);
        let next = self.published.partition_point(|(generation, _)| *generation <= acknowledged);
        let behind = self.published.get(next).map(|(_, at)| (*at).max(expected) + LAG);
        let away = match said {
            Some(said) => said.away_since.map(|since| since.max(expected) + LAG),
            None => self.began.map(|began| (began + FIRST).max(expected + LAG)),
        };
        // Who was never heard of has not had its time yet.
        let behind = if said.is_none() { away } else { behind };
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        NodeState {
            name,
            said,
            acknowledged,
            lags: is_over(behind),
            is_away: is_over(away),
            deadline: behind.into_iter().chain(away).filter(|deadline| *deadline > now).min(),
        }
    }

    /// What everybody has acknowledged need not be remembered, and of what is older than [`LAG`] the last suffices: whoever
    /// has not got it lags.
    fn forget(&mut self, acknowledged: Option<Generation>, now: Instant) {
        while self.published.get(1).is_some_and(|(generation, at)| {
            Some(*generation) <= acknowledged || now.saturating_duration_since(*at) > LAG
        }) {
            self.published.pop_front();
        }
    }
}

/// What one node said, looked at now.
struct NodeState<'a> {
    name: &'a str,
    said: Option<&'a Said>,
    acknowledged: Generation,
    lags: bool,
    is_away: bool,
    deadline: Option<Instant>,
}

enum Outcome {
    Serves(Vec<String>),
    Fails(String),
    Pending,
}

impl NodeState<'_> {
    fn outcome(&self, endpoint: &Endpoint, content: Generation) -> Outcome {
        let name = self.name;
        if self.is_away {
            return Outcome::Fails(format!(
                "the agent of node {name} is not connected; see its pod: kubectl get pods -A -o wide --field-selector spec.nodeName={name}"
            ));
        }
        if self.acknowledged < content {
            if self.lags {
                return Outcome::Fails(format!(
                    "node {name} has not taken generation {} within {} s; its agent's log says why",
                    content.0,
                    LAG.as_secs()
                ));
            }
            return Outcome::Pending;
        }
        let Some(report) = self.said.and_then(|said| said.report.frontends.get(endpoint)) else {
            return Outcome::Serves(Vec::new());
        };
        match &report.error {
            Some(error) => Outcome::Fails(format!("node {name}: {error}")),
            None => Outcome::Serves(
                report.warnings.iter().map(|warning| format!("node {name}: {warning}")).collect(),
            ),
        }
    }
}

fn is_same_shape(a: &Frontend, b: &Frontend) -> bool {
    (&a.listener, &a.route, a.forwarding) == (&b.listener, &b.route, b.forwarding)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blixt_core::config::{Backend, Forwarding, Pool, Protocol, Share};

    use super::*;
    use crate::sync::report::NodeReport;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { address: [10, 0, 0, 1].into(), port, protocol: Protocol::Tcp }
    }

    fn config(ports: &[(u16, u8)]) -> Config {
        let frontend = |last: u8| {
            let backend = Backend { address: [10, 1, 0, last].into(), port: 80, node: None };
            let pool =
                Pool { shares: vec![Share { weight: 1, backends: [backend].into() }], ..Pool::default() };
            Arc::new(Frontend { listener: "a/b/c".into(), route: None, forwarding: Forwarding::Nat, pool })
        };
        let frontends = ports.iter().map(|(port, last)| (endpoint(*port), frontend(*last))).collect();
        Config { frontends, ..Config::default() }
    }

    fn expected() -> Expected {
        // They have been there for long.
        let since = Instant::now() - Duration::from_secs(1000);
        let ready = ["node1", "node2"].map(|name| (name.to_owned(), since));
        Expected { ready: ready.into(), not_ready: vec!["node3".into()] }
    }

    fn said(generations: [u64; 2]) -> BTreeMap<String, Said> {
        let said = |generation| Said {
            report: Arc::new(NodeReport { generation: Generation(generation), ..NodeReport::default() }),
            away_since: None,
        };
        [("node1".to_owned(), said(generations[0])), ("node2".to_owned(), said(generations[1]))].into()
    }

    /// Two frontends published as generation 1, and the second one's backend changed in 2.
    fn history(now: Instant) -> History {
        let mut history = History::default();
        let (first, second) = (config(&[(80, 1), (81, 1)]), config(&[(80, 1), (81, 2)]));
        history.publish(&Config::default(), &first, Generation(1), now);
        history.publish(&first, &second, Generation(2), now + Duration::from_secs(5));
        history
    }

    #[test]
    fn a_frontend_is_programmed_when_every_node_has_acknowledged_its_own_last_change() {
        let now = Instant::now();
        let mut history = history(now);
        let at = |history: &mut History, generations| {
            let (report, _) = history.report(&expected(), &said(generations), now + Duration::from_secs(6));
            report.frontends.into_iter().map(|(endpoint, report)| (endpoint.port, report)).collect::<Vec<_>>()
        };
        let served = FrontendReport { generation: Some(Generation(1)), ..FrontendReport::default() };
        assert_eq!(at(&mut history, [1, 0]), []);
        assert_eq!(at(&mut history, [2, 1]), [(80, served.clone())]);
        assert_eq!(at(&mut history, [2, 2]), [(80, served.clone()), (81, served)]);
    }

    #[test]
    fn a_ready_node_that_lags_for_ten_seconds_is_named_and_only_where_it_lags() {
        let now = Instant::now();
        let mut history = history(now);
        let (report, next) = history.report(&expected(), &said([2, 1]), now + Duration::from_secs(14));
        assert_eq!((report.frontends.len(), next), (1, Some(now + Duration::from_secs(15))));
        let (report, _) = history.report(&expected(), &said([2, 1]), now + Duration::from_secs(15));
        assert_eq!(report.frontends[&endpoint(80)].error, None);
        let error = report.frontends[&endpoint(81)].error.clone().unwrap();
        assert!(error.contains("node2") && error.contains("generation 2"), "{error}");
        assert_eq!(report.nodes.unwrap(), Nodes { serving: 2, not_ready: vec!["node3".into()] });
    }

    #[test]
    fn an_agent_that_is_away_for_ten_seconds_is_named_and_one_that_comes_back_in_time_is_not() {
        let now = Instant::now();
        let mut history = history(now);
        let mut said = said([2, 2]);
        let later = now + Duration::from_secs(60);
        said.get_mut("node1").unwrap().away_since = Some(later);
        let (report, next) = history.report(&expected(), &said, later + Duration::from_secs(9));
        assert!(
            report.frontends.values().all(|report| report.error.is_none()) && report.frontends.len() == 2
        );
        assert_eq!(next, Some(later + LAG));
        let (report, _) = history.report(&expected(), &said, later + LAG);
        let error = report.frontends[&endpoint(80)].error.clone().unwrap();
        assert!(error.contains("agent of node node1 is not connected"), "{error}");
    }

    #[test]
    fn a_leader_that_has_just_begun_waits_for_nodes_that_did_not_come_yet() {
        let now = Instant::now();
        let mut history = history(now);
        let (report, next) = history.report(&expected(), &BTreeMap::new(), now + Duration::from_secs(6));
        assert!(report.frontends.is_empty() && next == Some(now + FIRST));
        let (report, _) = history.report(&expected(), &BTreeMap::new(), now + FIRST);
        assert!(report.frontends.values().all(|report| report.error.is_some()), "{report:?}");
    }

    #[test]
    fn errors_and_warnings_name_their_node() {
        let now = Instant::now();
        let mut history = history(now);
        let mut said = said([2, 2]);
        let failed = FrontendReport { error: Some("table full".into()), ..FrontendReport::default() };
        let warned = FrontendReport { warnings: vec!["no route".into()], ..FrontendReport::default() };
        let report = &mut said.get_mut("node2").unwrap().report;
        Arc::make_mut(report).frontends.extend([(endpoint(80), failed), (endpoint(81), warned)]);
        let (report, _) = history.report(&expected(), &said, now);
        assert_eq!(report.frontends[&endpoint(80)].error.as_deref(), Some("node node2: table full"));
        assert_eq!(report.frontends[&endpoint(81)].warnings, ["node node2: no route"]);
    }

    #[test]
    fn what_all_have_acknowledged_is_forgotten() {
        let now = Instant::now();
        let mut history = history(now);
        let last = config(&[(80, 1), (81, 2)]);
        for generation in 3..1000 {
            history.publish(&last, &last, Generation(generation), now);
            history.report(&expected(), &said([generation, generation]), now);
        }
        assert!(history.published.len() <= 2, "{}", history.published.len());
    }

    #[test]
    fn a_node_that_comes_has_ten_seconds_whatever_was_published_before() {
        let now = Instant::now();
        let mut history = history(now);
        let later = now + Duration::from_secs(1000);
        let mut expected = expected();
        expected.ready.insert("node4".to_owned(), later);
        let (report, next) = history.report(&expected, &said([2, 2]), later + Duration::from_secs(9));
        assert!(report.frontends.is_empty() && next == Some(later + LAG));
        let (report, _) = history.report(&expected, &said([2, 2]), later + LAG);
        assert!(report.frontends.values().all(|report| report.error.as_ref().unwrap().contains("node4")));
    }

    #[test]
    fn what_another_leader_published_is_no_acknowledgement() {
        let now = Instant::now();
        let mut history = history(now);
        let (report, _) = history.report(&expected(), &said([5003, 2]), now + Duration::from_secs(6));
        assert!(report.frontends.is_empty());
    }

    #[test]
    fn what_a_node_never_takes_is_not_remembered_for_ever() {
        let now = Instant::now();
        let mut history = history(now);
        let last = config(&[(80, 1), (81, 2)]);
        for generation in 3..1000 {
            let at = now + Duration::from_secs(generation);
            history.publish(&last, &last, Generation(generation), at);
            let (report, _) = history.report(&expected(), &said([generation, 1]), at);
            assert!(generation < 20 || report.frontends[&endpoint(81)].error.is_some(), "{generation}");
        }
        assert!(history.published.len() <= 20, "{}", history.published.len());
    }
}
