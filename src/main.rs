//! The `turn-metrics` program.

fn main() {}
