//! What the data plane made of a Config, for the statuses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use blixt_core::compile::Problem;
use blixt_core::config::{Config, Endpoint};
use blixt_core::tables::Tables;
use blixt_core::translate::{FrontendReport, Report};
use blixt_loader::host::Listening;

/// Tells of each frontend that the maps hold, or cannot hold. One that is only on its way is left out.
pub fn report(
    config: &Config,
    tables: &Tables,
    problems: &[Problem],
    apply_error: Option<&str>,
    unhooked: Option<&str>,
    unanswered: &BTreeMap<IpAddr, String>,
    listening: &Listening,
) -> Report {
    let mut by_frontend: BTreeMap<&Endpoint, Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        if let Some(frontend) = problem.frontend() {
            by_frontend.entry(frontend).or_default().push(problem);
        }
    }
    let frontends = config.frontends.keys().filter_map(|endpoint| {
        let problems = by_frontend.get(endpoint).map_or(&[][..], Vec::as_slice);
        let fatal = problems.iter().find(|problem| problem.is_fatal()).map(ToString::to_string);
        let is_there = tables.frontends.contains_key(endpoint);
        let missing = apply_error.filter(|_| !is_there).map(str::to_owned);
        let error = fatal.or(missing).or_else(|| unhooked.map(str::to_owned));
        if error.is_none() && !is_there {
            return None;
        }
        let mut warnings: Vec<String> =
            problems.iter().filter(|problem| !problem.is_fatal()).map(ToString::to_string).collect();
        if listening.holds(endpoint) && !tables.addresses.contains_key(&endpoint.address) {
            warnings.push(format!(
                "a process of this machine listens on {endpoint} too and gets no connection from outside any more; \
                 stop it, or give the listener another port"
            ));
        }
        if let Some(device) = unanswered.get(&endpoint.address) {
            warnings.push(format!(
                "clients on the link of {device} cannot find {}: ARP and NDP are answered on interfaces that carry blixt; \
                 let `--interface` match {device} too",
                endpoint.address
            ));
        }
        Some((*endpoint, FrontendReport { error, warnings, generation: None }))
    });
    Report { frontends: frontends.collect(), nodes: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use blixt_core::config::{Forwarding, Frontend, Pool, Protocol};
    use blixt_core::tables::FrontendEntry;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { address: [10, 0, 0, 1].into(), port, protocol: Protocol::Tcp }
    }

    fn config(ports: &[u16]) -> Config {
        let frontend = Frontend {
            listener: "default/web/http".into(),
            route: None,
            forwarding: Forwarding::Nat,
            pool: Pool::default(),
        };
        let frontends = ports.iter().map(|port| (endpoint(*port), Arc::new(frontend.clone()))).collect();
        Config { frontends, ..Config::default() }
    }

    fn tables(ports: &[u16]) -> Tables {
        let entry = FrontendEntry { ring: 0, slots: 0, route: 0 };
        let frontends = ports.iter().map(|port| (endpoint(*port), entry.clone())).collect();
        Tables { frontends, ..Tables::default() }
    }

    #[test]
    fn a_frontend_that_is_not_written_yet_is_not_reported() {
        let report = report(
            &config(&[80, 81]),
            &tables(&[80]),
            &[],
            None,
            None,
            &BTreeMap::new(),
            &Listening::default(),
        );
        assert_eq!(report.frontends, BTreeMap::from([(endpoint(80), FrontendReport::default())]));
    }

    #[test]
    fn a_frontend_that_cannot_be_written_says_why() {
        let report = report(
            &config(&[80, 81]),
            &tables(&[80]),
            &[],
            Some("map full"),
            None,
            &BTreeMap::new(),
            &Listening::default(),
        );
        assert_eq!(report.frontends[&endpoint(80)].error, None);
        assert_eq!(report.frontends[&endpoint(81)].error.as_deref(), Some("map full"));
    }

    #[test]
    fn an_address_on_the_link_of_a_device_that_is_not_hooked_is_a_warning() {
        let unanswered = BTreeMap::from([([10, 0, 0, 1].into(), "eth1".to_owned())]);
        let report =
            report(&config(&[80]), &tables(&[80]), &[], None, None, &unanswered, &Listening::default());
        let FrontendReport { error, warnings, .. } = &report.frontends[&endpoint(80)];
        assert_eq!(*error, None);
        assert!(warnings[0].contains("let `--interface` match eth1 too"), "{warnings:?}");
    }

    #[test]
    fn without_a_hooked_interface_no_frontend_takes_connections() {
        let report = report(
            &config(&[80]),
            &tables(&[80]),
            &[],
            None,
            Some("no interface"),
            &BTreeMap::new(),
            &Listening::default(),
        );
        assert_eq!(report.frontends[&endpoint(80)].error.as_deref(), Some("no interface"));
    }

    #[test]
    fn a_backend_without_a_route_is_a_warning_of_its_frontend() {
        let problem = Problem::NoPath {
            frontend: endpoint(80),
            listener: "default/web/http".into(),
            backend: endpoint(8080),
        };
        let report = report(
            &config(&[80]),
            &tables(&[80]),
            &[problem],
            None,
            None,
            &BTreeMap::new(),
            &Listening::default(),
        );
        let report = &report.frontends[&endpoint(80)];
        assert_eq!(report.error, None);
        assert!(
            report.warnings[0].contains("no route to backend 10.0.0.1:8080/tcp"),
            "{:?}",
            report.warnings
        );
    }
}
