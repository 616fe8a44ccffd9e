//! What the measuring program says, as lines with bars. Pure.

use anyhow::{Context, Result, bail};
use blixt_bars::{Bar, Line, Part, median, quantile, ratios};
use serde_json::Value;

/// Changes of an EndpointSlice: each counts when the connections by every node obey it.
pub fn of_changes(measured: &Value) -> Result<Vec<Line>> {
    let rounds = list(measured)?;
    let blixt = each(rounds, |round| by_every_node(&round["blixt"]))?;
    let proxy = each(rounds, |round| by_every_node(&round["kube-proxy"]))?;
    let of = |times: &[Vec<f64>], share: f64| {
        times.iter().map(|times| quantile(times, share)).collect::<Vec<f64>>()
    };
    let of_node = |whose: &str, key: &str, node: &str| -> Result<Part> {
        let medians = each(rounds, |round| Ok(median(&numbers(&round[key][node])?)))?;
        Ok(Part::new(format!("{whose}, by {node} alone, p50"), "ms", medians))
    };
    let failed = |whose: &str, service: &str| -> Result<Part> {
        let failed = each(rounds, |round| number(&round["failed"][service]))?;
        Ok(Part::new(format!("{whose}, connections that failed meanwhile"), "connections", failed))
    };
    let (p50, p99) = (of(&blixt, 0.5), of(&blixt, 0.99));
    let (proxy_p50, proxy_p99) = (of(&proxy, 0.5), of(&proxy, 0.99));
    Ok(vec![
        Line {
            what: "EndpointSlice change to the first connections that obey it by both nodes, p50 of 50 changes",
            unit: "ms",
            bar: Bar::AtMost(100.0),
            stretch: None,
            rounds: p50.clone(),
            parts: vec![of_node("Blixt", "blixt", "node1")?, of_node("Blixt", "blixt", "node2")?],
        },
        Line {
            what: "the same, p99 of 50 changes",
            unit: "ms",
            bar: Bar::AtMost(500.0),
            stretch: None,
            rounds: p99.clone(),
            parts: vec![
                Part::new("kube-proxy, p99", "ms", proxy_p99),
                failed("Blixt", "balanced")?,
                failed("kube-proxy", "proxied")?,
            ],
        },
        Line {
            what: "the same, p50 against kube-proxy's in the same run",
            unit: "x",
            bar: Bar::AtMost(1.0),
            stretch: None,
            rounds: ratios(&p50, &proxy_p50),
            parts: vec![
                Part::new("Blixt, p50", "ms", p50),
                Part::new("kube-proxy, p50", "ms", proxy_p50),
                of_node("kube-proxy", "kube-proxy", "node1")?,
                of_node("kube-proxy", "kube-proxy", "node2")?,
            ],
        },
    ])
}

/// Bulk TCP by two paths.
pub fn of_paths(measured: &Value) -> Result<Vec<Line>> {
    let rounds = list(measured)?;
    let gateway = each(rounds, |round| number(&round["gateway"]))?;
    let direct = each(rounds, |round| number(&round["direct"]))?;
    Ok(vec![Line::ratio(
        "bulk TCP through a Gateway to a pod on the receiving node, against the pod's own address",
        Bar::AtLeast(0.95),
        Part::new("the Gateway's address", "Gbit/s", gateway),
        Part::new("the pod's own address", "Gbit/s", direct),
    )])
}

/// Many objects.
pub fn of_scale(measured: &Value) -> Result<Vec<Line>> {
    let starts = list(&measured["starts"])?;
    let one = |name: &str| Ok::<_, anyhow::Error>(vec![number(&measured[name])?]);
    let (rest, leases) = (number(&measured["rest-seconds"])?, number(&measured["leases"])?);
    // The leader renews its Lease every 2 seconds: where half of that is not seen, nothing else would be seen.
    if leases < rest / 4.0 {
        bail!(
            "the audit log has {leases} renewals of the Lease in {rest} s at rest: it does not see every write"
        );
    }
    let others = list(&measured["others"])?;
    for other in others.iter().take(20) {
        eprintln!("written at rest: {other}");
    }
    let memory = |what, rounds, parts| Line {
        what,
        unit: "MiB",
        bar: Bar::AtMost(300.0),
        stretch: None,
        rounds,
        parts,
    };
    Ok(vec![
        Line {
            what: "10 000 routes and 100 000 endpoints: from the Lease to the first full Config",
            unit: "s",
            bar: Bar::AtMost(10.0),
            stretch: None,
            rounds: each(starts, |start| number(&start["seconds"]))?,
            parts: vec![Part::new(
                "other writes than of the Lease after a start",
                "writes",
                each(starts, |start| number(&start["writes"]))?,
            )],
        },
        memory("the same: the controller's memory at rest", one("rest-memory")?, vec![]),
        memory("the same: its most at a start", each(starts, |start| number(&start["peak"]))?, vec![]),
        memory(
            "the same: its most while all of it is created",
            one("create-peak")?,
            vec![
                Part::new("until all objects were created", "s", one("create-seconds")?),
                Part::new("until the last status was written", "s", one("quiet-seconds")?),
                Part::new("statuses and other writes", "writes", one("create-writes")?),
            ],
        ),
        Line {
            what: "the same: writes to the API server at rest, but renewals of the Lease",
            unit: "writes",
            bar: Bar::AtMost(0.0),
            stretch: None,
            rounds: vec![others.len() as f64],
            parts: vec![
                Part::new("at rest for", "s", vec![rest]),
                Part::new("renewals of the Lease", "writes", vec![leases]),
            ],
        },
    ])
}

/// For each change the time of the slowest node.
fn by_every_node(times: &Value) -> Result<Vec<f64>> {
    let nodes = times.as_object().with_context(|| format!("{times}: no times by node"))?;
    let nodes = nodes.values().map(numbers).collect::<Result<Vec<_>>>()?;
    let count = nodes.iter().map(Vec::len).min().unwrap_or(0);
    Ok((0..count).map(|change| nodes.iter().map(|times| times[change]).fold(0.0, f64::max)).collect())
}

fn each<T>(rounds: &[Value], of: impl Fn(&Value) -> Result<T>) -> Result<Vec<T>> {
    rounds.iter().map(of).collect()
}

fn list(value: &Value) -> Result<&[Value]> {
    Ok(value.as_array().with_context(|| format!("{value}: no list"))?)
}

fn numbers(value: &Value) -> Result<Vec<f64>> {
    list(value)?.iter().map(number).collect()
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value}: no number"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_counts_when_the_slowest_node_obeys_it() {
        let round = json!({
            "blixt": { "node1": [10.0, 20.0], "node2": [30.0, 5.0] },
            "kube-proxy": { "node1": [40.0, 40.0], "node2": [10.0, 10.0] },
            "failed": { "balanced": 0, "proxied": 3 },
        });
        let lines = of_changes(&json!([round])).unwrap();
        assert_eq!((lines[0].rounds.as_slice(), lines[1].rounds.as_slice()), (&[20.0][..], &[30.0][..]));
        assert_eq!(lines[2].rounds, [0.5]);
        assert!(lines.iter().all(Line::is_held));
    }

    #[test]
    fn a_round_that_says_nothing_holds_no_bar() {
        let nothing = json!({ "node1": [], "node2": [] });
        let failed = json!({ "balanced": 0, "proxied": 0 });
        let empty = of_changes(&json!([{ "blixt": nothing, "kube-proxy": nothing, "failed": failed }]));
        assert!(empty.unwrap().iter().all(|line| !line.is_held()));
        assert!(of_paths(&json!([{ "gateway": 1.0 }])).is_err());
    }

    fn scaled(leases: u32, others: &[&str]) -> Value {
        json!({
            "create-seconds": 60.0, "quiet-seconds": 90.0, "create-writes": 11000, "create-peak": 310.0,
            "starts": [{ "seconds": 6.0, "peak": 280.0, "writes": 3 }],
            "rest-seconds": 600.0, "rest-memory": 140.0, "leases": leases, "others": others,
        })
    }

    #[test]
    fn one_write_at_rest_or_one_mebibyte_too_many_misses_the_bar() {
        let held = |measured| of_scale(&measured).unwrap().iter().map(Line::is_held).collect::<Vec<_>>();
        assert_eq!(held(scaled(300, &[])), [true, true, true, false, true]);
        assert_eq!(held(scaled(300, &["patch gateways/status a/b"])), [true, true, true, false, false]);
    }

    #[test]
    fn a_log_that_does_not_see_the_leases_counts_nothing() {
        let error = of_scale(&scaled(3, &[])).unwrap_err().to_string();
        assert!(error.contains("does not see every write"), "{error}");
    }
}
