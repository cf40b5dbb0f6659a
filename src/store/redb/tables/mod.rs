//! The tables of the two redb files: their definitions, and the code that reads and writes their rows.
//!
//! Invariant: nothing outside this engine uses a key of a conversation.
//!
//! - `record`: the encoding of values as bytes.
//! - `failure`: why a transaction failed.
//! - `store_file`: the two files and their names.
//! - `journal_mark`: identifies a row of the journal by its number and checksum.
//! - `meta`: the table `meta` of both files. No other module uses the names in it.
//! - `row`: a row with a checksum.
//! - `guarded`: look-ups and ranges that notice damaged keys.
//! - `schema`: the list of all tables, and the operations on all of them: make, copy, count.
//! - `index`: finds out whether a turn is sealed, and at which ordinal.
//! - `indexed`: the value of a row of the index.
//! - `turn_filter`: a filter in memory that says which turns are certainly not in the index.
//! - `rollups`: adds to the sums of reports, and reads them.
//! - `findings`: the damage that scrubs have found.
//! - `read`: the tables of the main file, as a read transaction sees them.
//! - `write`: the tables that commits fill, as a write transaction changes them.

pub(crate) mod failure;
pub(crate) mod findings;
pub(crate) mod guarded;
pub(crate) mod index;
pub(crate) mod indexed;
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
