//! The result as a page: `docs/performance/cluster.md`.

use std::fs;

use anyhow::{Context, Result};
use blixt_bars::{Facts, Line, Misses, parts_of, table};

use crate::workspace;

/// Writes the page.
pub fn write(lines: &[Line], misses: &Misses, facts: &Facts, rest: u32) -> Result<()> {
    let file = workspace::results().join("cluster.md");
    fs::write(&file, page(lines, misses, facts, rest))
        .with_context(|| format!("{}: cannot be written", file.display()))?;
    println!("written to {}", file.display());
    Ok(())
}

fn page(lines: &[Line], misses: &Misses, facts: &Facts, rest: u32) -> String {
    let parts = lines.iter().filter(|line| !line.parts.is_empty());
    let parts: String = parts.map(|line| format!("\n### {}\n\n{}", line.what, parts_of(line))).collect();
    let method = METHOD.replace("REST", &rest.to_string());
    format!(
        "{INTRODUCTION}\n## Result\n\n{}\n## Machine\n\n{facts}\n{method}\n## What the lines are made of\n{parts}",
        table(lines, misses)
    )
}

const INTRODUCTION: &str = "\
# Performance in Kubernetes

Written by `cargo xtask cluster bench --report`, which brings a real cluster of two nodes up on one machine, installs Blixt in it, measures it against its bars
and ends with 1 if a median misses one for no [known reason](misses.md). API server, etcd, kubelets, kube-proxy, controllers, agents, clients and servers share the machine's processors: times are
those of a busy cluster. Packets and the standalone program: [Performance](README.md).
";

const METHOD: &str = "\
## Method

- Every line is the median of rounds, or of starts; those of memory while objects are created and of writes at rest are measured once.
- **Changes.** A Service without a selector, whose EndpointSlice is written by hand, so that no kubelet's delay is in it, moves between a server on one node and
  one on the other. Clients outside the cluster open connections all the time, 2 ms apart, by both nodes: to two Gateways of one route, whose addresses are routed to one node each. The time runs
  from the API server's answer to the write until the first connection is greeted by the new server, after which 20 in a row are; of the two nodes the slower one
  counts. A connection that is still open to the server that was taken away is reset by Blixt, and so may fail. kube-proxy does the same for a NodePort Service of its own, by turns with Blixt. It takes changes in at most once a second: its own are 1.2 s
  apart, so that this is not measured. Its servers are pods of their own. Blixt's Service is headless, and its slice labelled so: kube-proxy has nothing to do with it.
- **Paths.** One TCP stream from a client outside to a server in a pod, until the server says that it has every byte: by the address of the Gateway whose way in is the pod's
  own node, and by the pod's own address. Both take turns, four tries of a second each in a round, and the least disturbed try of each counts.
- **Many objects.** 1 000 Gateways with ten listeners, 10 000 TCPRoutes, and for each of these a Service with one EndpointSlice of ten endpoints, in the real API server; no pods. They are created
  16 at a time, route after route with what belongs to it, while both replicas of the controller and both agents run.
- **Memory** is the controller's `VmRSS`, and `VmHWM` where it says \"most\": all pages that the process has, those of the program's file too.
- **Starts.** The leader's pod is deleted, and the replica that waited takes over. The time runs between its log lines \"leading\" and \"published\", as the container runtime stamped them; the
  Config must have all 10 000 frontends.
- **Writes at rest** are counted for REST s by the API server's audit log, which has every request of Blixt's ServiceAccounts that writes: whether anything changed by it or not, and whether it was granted or not.
  A log with too few renewals of the Lease is refused as a count that does not see.
";

#[cfg(test)]
mod tests {
    use super::*;
    use blixt_bars::{Bar, Part};

    #[test]
    fn the_page_has_every_line_and_says_how_long_writes_were_counted() {
        let line = |what, parts| Line {
            what,
            unit: "x",
            bar: Bar::AtLeast(0.95),
            stretch: None,
            rounds: vec![1.0],
            parts,
        };
        let lines = [line("one", vec![]), line("two", vec![Part::new("a part", "s", vec![2.0])])];
        let page = page(&lines, &Misses::default(), &Facts::gather(1), 600);
        for text in
            ["| one | at least 0.95 x | 1.00 x |", "### two", "| a part | 2.00 s |", "counted for 600 s by"]
        {
            assert!(page.contains(text), "{text} in\n{page}");
        }
        assert!(!page.contains("### one"), "{page}");
    }
}
