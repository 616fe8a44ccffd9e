//! Set-up, builds, tests, benchmarks and code generation of Blixt.

fn main() {}
