//! The machine that was measured on.

pub use blixt_bars::Facts;
