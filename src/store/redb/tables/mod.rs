//! The tables of the two redb files: their definitions, and what reads and writes their rows.
//!
//! Nothing outside this engine knows a key.
//!
//! - `record`: the values, as bytes.
//! - `failure`: why a transaction did not go through.
//! - `store_file`: the two files and their names.
//! - `meta`: the table `meta` of both files.
//! - `index`: whether a turn is sealed, and at which ordinal.
//! - `read`: the tables by conversation, as a read transaction sees them.
//! - `write`: the same, as a write transaction changes them.
//! - `copy`: all tables of a main file, row by row, into another.

pub(crate) mod copy;
pub(crate) mod failure;
pub(crate) mod index;
pub(crate) mod meta;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod store_file;
pub(crate) mod write;

use redb::TableDefinition;

// The tables by conversation, in the store's main file.

/// A conversation's id to its key: ids are long and stand in every key below, so each is interned once.
pub(crate) const KEYS: TableDefinition<&str, u64> = TableDefinition::new("conversation_keys");
/// A conversation's key to its record.
pub(crate) const CONVERSATIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("conversations");
/// (conversation, ordinal) to a sealed turn: a conversation's turns are one range, in order.
pub(crate) const TURNS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("turns");
/// (conversation, hash of a turn id) to the ordinal of a sealed turn: what makes sealing happen once. See `index`.
pub(crate) const INDEX: TableDefinition<(u64, u64), u64> = TableDefinition::new("turn_index");
/// (conversation, turn id) to an open turn.
pub(crate) const OPEN_TURNS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("open_turns");

/// (moment of the latest activity, counted down from the largest number; conversation id) to the conversation's key. So
/// the conversations with a sealed turn stand in the order of a list: the latest first, those of one moment by id.
pub(crate) const ACTIVITY: TableDefinition<(u64, &str), u64> = TableDefinition::new("activity");
/// A position in the order of all turns to what stands there. Written at the end, in order.
pub(crate) const POSITIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("positions");

/// (conversation, ordinal) to what a repair took out of [`TURNS`], or nothing where nothing was left. There only once a
/// repair was needed. An ordinal that stands here is not given again.
pub(crate) const LOST_TURNS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("lost_turns");
/// (conversation, turn id) to what a repair took out of [`OPEN_TURNS`].
pub(crate) const LOST_OPEN_TURNS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("lost_open_turns");
/// The number of a journal's row to what a repair took out of it.
pub(crate) const LOST_ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("lost_journal_rows");

// The journal, in a file of its own.

/// A rising number to what one transaction made durable: some commits, in their order.
pub(crate) const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("rows");
