//! A layer-4 load balancer: Gateway API in, eBPF out.

use std::process::ExitCode;

fn main() -> ExitCode {
    blixt::cli::main()
}
