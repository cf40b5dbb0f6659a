//! The tables of the two redb files: their definitions, and what reads and writes their rows.
//!
//! Invariant: nothing outside this engine knows a key.
//!
//! - `record`: the values, as bytes.
//! - `failure`: why a transaction failed.
//! - `store_file`: the two files and their names.
//! - `journal_mark`: a row of the journal, by its number and checksum.
//! - `meta`: the table `meta` of both files. Nothing else knows the names in it.
//! - `row`: a row with a checksum.
//! - `schema`: the list of all tables, and what is done with all of them: made, copied, counted.
//! - `index`: whether a turn is sealed, and at which ordinal.
//! - `turn_filter`: which turns are certainly not in the index, from memory.
//! - `rollups`: the sums of reports: what adds to them, and what reads them.
//! - `read`: the tables by conversation, as a read transaction sees them.
//! - `write`: the same, as a write transaction changes them.

pub(crate) mod failure;
pub(crate) mod index;
pub(crate) mod journal_mark;
pub(crate) mod meta;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod rollups;
pub(crate) mod row;
pub(crate) mod schema;
pub(crate) mod store_file;
pub(crate) mod turn_filter;
pub(crate) mod write;
