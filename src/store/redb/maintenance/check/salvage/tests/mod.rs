//! Tests of repairs. Each test damages the files of a store, and asserts that a repair saves every turn as it was or
//! names it as lost.
//!
//! - `world`: a store with many pages, and the comparison.
//! - `flips`: single flipped bits.
//! - `heaps`: many damaged pages at once.
//! - `index`: a damaged page of the index.
//! - `erased`: erased turns that freed pages still have.
//! - `strayed`: a page of another table in the place of a page.
//! - `laundering`: copies that would hide damage.

mod erased;
mod flips;
mod heaps;
mod index;
mod laundering;
mod strayed;
mod world;

use std::path::Path;

use crate::store::redb::maintenance::check::check;

/// Returns the number of damaged files in a run of a test, which an environment variable sets.
fn damages(usual: u64) -> u64 {
    std::env::var("TURN_METRICS_TEST_DAMAGES").map_or(usual, |number| number.parse().unwrap())
}

fn is_clean(directory: &Path) -> bool {
    check(directory).is_ok_and(|report| report.violations.is_empty())
}
