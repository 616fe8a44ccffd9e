//! A lab of network namespaces: machines, wires and echo servers, for the demo, the tests and the benchmark.
