//! Lines of a benchmark: what was measured in each round, held against its bar, with the machine that it was measured on.
//!
//! `cargo xtask bench` and `cargo xtask cluster bench` measure; here it is decided whether a bar is held, and said.

mod facts;
mod json;
mod line;
mod misses;
mod table;

pub use facts::Facts;
pub use json::json;
pub use line::{Bar, Line, Part, median, quantile, ratios};
pub use misses::Misses;
pub use table::{number, parts, parts_of, table};
