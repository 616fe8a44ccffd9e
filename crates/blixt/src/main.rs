//! A layer-4 load balancer: Gateway API in, eBPF out.

fn main() {}
