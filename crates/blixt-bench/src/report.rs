//! The result as a page for `docs/performance/`.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use blixt_bars::{Facts, Line, Misses, parts_of, table};

use crate::plot;

/// Writes the page and its pictures.
pub fn write(docs: &Path, lines: &[Line], misses: &Misses, facts: &Facts) -> Result<()> {
    fs::create_dir_all(docs).with_context(|| format!("{}: cannot be made", docs.display()))?;
    let write = |name: &str, text: &str| {
        let path = docs.join(name);
        fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))
    };
    write("README.md", &page(lines, misses, facts))?;
    write(BARS, &plot::bars(lines))?;
    for (index, line) in lines.iter().enumerate() {
        write(&rounds_file(index), &plot::rounds(line))?;
    }
    Ok(())
}

/// The picture of all lines.
const BARS: &str = "bars.svg";

/// The picture of one line.
fn rounds_file(index: usize) -> String {
    format!("line-{}.svg", index + 1)
}

fn page(lines: &[Line], misses: &Misses, facts: &Facts) -> String {
    let mut text = String::from(INTRODUCTION);
    let _ = write!(text, "\n## Result\n\n{}\n![Each median against its bar]({BARS})\n", table(lines, misses));
    let _ = write!(text, "\n## Machine\n\n{facts}\n{METHOD}## What the lines are made of\n");
    for (index, line) in lines.iter().enumerate() {
        let (parts, file) = (parts_of(line), rounds_file(index));
        let _ = write!(text, "\n### {}\n\n{parts}\n![Rounds]({file})\n", line.what);
    }
    text
}

const INTRODUCTION: &str = "\
# Performance

Written by `cargo xtask bench`, which measures Blixt against its bars and ends with 1 if a median misses one twice and [misses.md](misses.md)
does not say why.
The bars are ratios of one run wherever there is something to compare with: figures of two machines are not comparable, and
those of a busy machine not even with themselves. A bar must be held; a stretch is where the median would rather lie, and
nothing fails by it. [path.md](path.md) says what each step of a packet's way takes; `cargo xtask cluster bench` measures in
Kubernetes.
";

const METHOD: &str = "\
## Method

- Every line is the median of interleaved rounds. Within a round what is compared takes turns, each more than once where it is
  short, and the least disturbed try of each counts.
- **Where others are measured** (`generator`, `bulk`, `connections`) Blixt never ran, nor anything else that made a policy rule: from the first one on the kernel looks routes up in one table after another in that network
  namespace, also when the rule is gone, and its own routing and nftables forward a third fewer packets there. `blixt run` adds a rule for what the machine itself dials.
- **A packet of an established flow.** `BPF_PROG_TEST_RUN` of the program that is attached in TC, over 65 536 established
  TCP flows, eight packets of each, in a scattered order, so that the flow table and not the first-level cache is what is
  measured. A driver program makes each packet another flow's and tail-calls the program; the driver with a program that does nothing
  is subtracted. Processor time of the thread. The floor parses, looks one LRU entry up (the same keys, values, number of entries and size of
  table) and rewrites addresses and ports with the checksum helpers: no TCP states, counters, clock, time to live, next hops or backends that may be gone.
- **Paths of a packet** (`--only path`; `cargo xtask bench smoke` for a first look). The same at both hooks: one to 524 288 flows, new flows, UDP, IPv6 and packets for
  somebody else, against floors that do one step each and write checksums directly. Stricter than the line above. A flood is new flows that nobody
  confirms, beside a floor that puts one half of each into a full table. Flows of 10 000 listeners are as many as those of one: every listener has a route, and so counters, of its own.
- **Sizes.** Instructions are those that the verifier says it looked at. The time to load runs from nothing to all three programs in the kernel. A connection's memory is what the kernel charges for the flow table
  (`memlock`): by how much a table for 1 048 576 connections exceeds one for 262 144, for each connection between.
- **A ring** is filled for 1 000 backends of equal weight; processor time of the thread, the least of 20 in a round. The bar is 2 ms, or four fifths of what the paper's loop takes
  in turns with it. That loop is given its hashes; Blixt hashes its backends' names, and its turns may be weighted.
- **Generator.** `BPF_PROG_TEST_RUN` with live frames: the driver above writes UDP of one flow after another, in frames of 80 bytes, and the frames leave the client's veth device; behind the
  balancer the raw table of nftables on the backend counts and drops them, and what it counted is the figure. No socket is involved, and all of it happens on one processor. Processor time of a packet is that of the
  generator, both wires and the drop included. nftables does DNAT alone; Blixt does full NAT, to four backends behind one device, since more flows have one of them than an address has ports. XDP is measured between devices
  that have XDP programs at their other ends, which it needs and which would cost the others something.
- **Bulk TCP.** iperf3 with one stream or four, client and backend in network namespaces with the balancer's between them; Blixt, plain routing,
  nftables (DNAT, with and without masquerade), HAProxy and nginx (one thread each) take turns. Everything on one processor:
  throughput is the inverse of what the transfer costs. Frames carry offloads as they do between virtual machines on a host. As on a wire: no device cuts segments or finishes checksums for its sender; Blixt is the faster of
  its hooks then.
- **Connections.** Connect, a request and a response of 64 bytes, close; one after the other, all on one processor. nftables is one
  rule of DNAT to one backend, with and without masquerade; HAProxy and nginx forward TCP to one backend. With 10 000 listeners each connection goes to another one, with three
  backends of its own. What a connection adds is its processor time, of client, server and kernel, less that by plain routing. Requests and responses of 64 bytes follow each other in one connection.
- **Small datagrams.** Bursts of 64 in one flow, taken from the other end before the next burst is sent, all on one processor; those count that arrived.
- **Changes and cold start.** 10 000 TCPRoutes with a listener, a Service and three backends each (30 000 addresses, behind three nodes).
  A change replaces one backend in the file of one EndpointSlice; the time runs from the rename of the file until the pinned maps, looked at
  from outside, hold the new backend and a new ring and not the old backend. A cold start has no pins; the time runs from the start of
  the process until a client gets a backend's greeting through the last frontend. nftables has the chains of kube-proxy for as many services, in a network namespace of its own: 40 000 chains behind
  a map of verdicts. Its time is that of `nft -f`, with a file that loads everything, or one that replaces a backend's chain; of its changes, which take turns with Blixt's, the median counts.
- **Memory** is `VmRSS` of the process, three seconds after that, with 10 000 routes and with one; maps belong to the kernel and are not in it.

";
