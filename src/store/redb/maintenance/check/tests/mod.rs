//! Damage of each kind, found by a check and repaired. These tests alone damage tables and journals by their rows.
//!
//! - `set_up`: stores to be damaged, and ways to damage them.
//! - `files`: whole files: sound ones, those in use, missing, empty or linked, and the copies of a repair.
//! - `disagreements`: sound rows of the tables that contradict each other.
//! - `open_turns`: heads and steps of open turns.
//! - `order`: positions, in the tables and in the journal.
//! - `lost_keys`: conversations whose keys or records are damaged.
//! - `damaged_rows`: rows that do not decode, or stand under another key.
//! - `flipped_bits`: each bit of a row of each table.
//! - `journal`: rows of the journal that are damaged, exchanged or gone.
//! - `older_copies`: an older copy of one file beside the other.

mod damaged_rows;
mod disagreements;
mod files;
mod flipped_bits;
mod journal;
mod lost_keys;
mod older_copies;
mod open_turns;
mod order;
mod set_up;
