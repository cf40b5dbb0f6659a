//! Tests that a check finds each kind of damage and that a repair mends it. No other tests damage rows of tables and
//! journals.
//!
//! - `set_up`: makes stores, and damages them.
//! - `files`: files that are sound, in use, missing, empty or linked, and the copies that a repair makes.
//! - `disagreements`: sound rows of the tables that contradict each other.
//! - `open_turns`: heads and steps of open turns.
//! - `order`: positions, in the tables and in the journal.
//! - `lost_keys`: conversations whose keys or records are damaged.
//! - `damaged_rows`: rows that do not decode, or stand under a wrong key.
//! - `flipped_bits`: each single flipped bit of a row, for the tables with checksums that commits fill.
//! - `each_table`: one spoiled row of each table of data, so that no table lacks a check and a repair.
//! - `facts`: damaged facts about the files.
//! - `losses`: what a repair in place loses is named.
//! - `journal`: rows of the journal that are damaged, replaced or missing.
//! - `older_copies`: an older copy of one file beside the other.

mod damaged_rows;
mod disagreements;
pub(in crate::store::redb::maintenance) mod each_table;
mod facts;
mod files;
mod flipped_bits;
mod journal;
mod losses;
mod lost_keys;
mod older_copies;
mod open_turns;
mod order;
pub(in crate::store::redb::maintenance) mod set_up;
