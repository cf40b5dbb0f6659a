//! The store: keeps the turns of all conversations, and answers a commit only when it is durable.
//!
//! # Constraints
//!
//! The code relies on these constraints, and the tests try to break them:
//!
//! - A commit is atomic: either the whole commit becomes durable, or nothing of it.
//! - The turns of a conversation have the ordinals 1, 2, 3, ... without a gap. No ordinal is given twice.
//! - A turn id is sealed at most once in a conversation. Sealing it again answers with its ordinal and changes nothing.
//! - Each sealed turn has a position: 1, 2, 3, ... over all conversations, without a gap, in the order in which turns
//!   become durable. A position never changes within a lineage, so a reader who has seen a position has missed nothing
//!   before it.
//! - A commit that changes something raises the version of its conversation by one. A commit that expects another
//!   version changes nothing.
//! - After a failed write the outcome is unknown, and the answer says so. The files are then closed and opened again.
//! - A damaged row costs that row alone: reads leave it out, and a check names it. A row is damaged if its bytes are
//!   not those that were written under its key. A backup and a compaction of a damaged store are refused, because the
//!   copy would have new checksums of its pages and so hide the damage.
//! - Only the writer's thread appends to the journal. While the store runs, only flushes of the checkpoint move turns
//!   into the tables, one flush at a time.
//! - The sums of reports count each sealed turn once, either in the tables or in the memtable. A report shows one
//!   moment, and counts every turn that was acknowledged before that moment.
//! - Everything in memory is bounded: the queue, the turns in it, the memtable and therefore the journal.
//! - Integers in rows of `meta` are little-endian on every machine.
//!
//! # Words
//!
//! - **tables**: the tables of the main file, most of them keyed by conversation.
//! - **journal**: the second file; each commit appends to it first (a write-ahead log).
//! - **row**: one transaction of the journal: the commits that one fsync made durable.
//! - **entry**: the part of a row that has the changes of one commit.
//! - **memtable**: the changes that are in the journal and not in the tables yet, in memory. Commits go to its
//!   *active* table; the checkpoint moves its *immutable* table.
//! - **piece**: the changes of some consecutive commits to one conversation in the memtable. A flush moves whole
//!   pieces.
//! - **mark**: identifies a row of the journal by its number and checksum. Each row has the checksum of the row before
//!   it, so a mark identifies all rows up to its own row.
//! - **checkpoint**: the part that moves pieces into the tables; also the mark of the last row that the tables have in
//!   full.
//! - **flush**: one transaction of the checkpoint, which moves some pieces.
//! - **key**: the number that stands for a conversation's id in the tables. The id itself is in `conversation_keys`,
//!   `conversations` and `activity` only.
//! - **order**: which turn has which position. The memtable keeps the order in *runs*; a run is the turns that one
//!   commit sealed.
//! - **rollup**: sums over the parts of turns that count for a *label* (model, provider, project, class of the reason)
//!   in a quarter of an hour, an hour, six hours or a day. See `report`.
//! - **tally**: the sums that the turns of one of the memtable's tables add to rollups and costs.
//! - **generation**: the costs of all turns by one price book. When the prices change, the costs are computed anew as
//!   the next generation.
//! - **lineage**: a random id of the store's history, part of each position and revision outside. A new store, a
//!   restored backup and a repaired store each draw a new lineage.
//! - **life**: a random number that a conversation draws with its first commit. An id that begins anew draws another
//!   number.
//! - **erasure**: the end of a life. Its turns are in no read any more, and only the sums of reports keep what they have
//!   added.
//! - **drop**: to remove the first turns of a conversation because of their age. The sums of reports and of the
//!   conversation keep what they have added.
//! - **erased sums**: what the erased and dropped turns of one label have added to reports in one quarter of an hour. Each has
//!   an id in the history of its store, so that another store can take it in any number of times.
//! - **head of a turn**: an open turn without its steps. Each event writes the head, and writes a step only if the
//!   event changes that step.
//! - **record**: a conversation, a sealed turn, the head or a step of an open turn, as bytes.
//! - **checksum**: 8 bytes at the end of a row, over the table's name, the key and the rest of the value. A row of the
//!   index has a shorter one, of 24 bits.
//! - **scrub**: reads all rows of a running store in the background and compares them with each other. Damage that it
//!   finds is a *finding*. Commits to the conversation of a finding are refused until a repair.
//!
//! # The files
//!
//! ```text
//! turn-metrics.redb           the main file: the tables
//!   meta                      name                    -> format, store id, lineage, next key, journal id, live bytes,
//!                                                        running time, number of repairs; the marks of the
//!                                                        checkpoint and of the journal's newest row; how far the
//!                                                        rollups have come; the generations of costs; the last
//!                                                        moment at which the clock was trusted
//!   conversation_keys         conversation id         -> key, checksum
//!   conversations             key                     -> id, life, version, number of sealed turns, last sealing,
//!                                                        first and latest report time, model, project and context
//!                                                        size of the latest turn, usage; checksum
//!   turns                     (key, ordinal)          -> sealed turn, checksum
//!   turn_index                (key, hash of turn id)  -> ordinal of 40 bits, checksum of 24 bits
//!   open_turns                (key, turn id)          -> head of an open turn, with the number of its steps; checksum
//!   open_steps                (key, turn id, place)   -> step of an open turn, checksum
//!   activity                  (moment inverted, id)   -> key: conversations by their latest turn; checksum
//!   positions                 position                -> (key, ordinal), or that it was erased; checksum. The key may be one
//!                                                        of `erased`
//!   labels                    hash of the label       -> model, provider, project, class of the reason; checksum
//!   rollups                   (level, quarter, label) -> sums, sparse histograms, extremes; checksum
//!   costs                     (generation, level, quarter, label)
//!                                                     -> pico-dollars, unpriced tokens and models; checksum
//!   conversation_sums         (generation, key)       -> cost, tokens that the cache rate is computed of; checksum
//!   erased                    key                     -> number of sealed turns of a conversation that was erased; checksum
//!   erasures                  life                    -> key of an erased conversation whose rows are still to be removed;
//!                                                        a row of the journal; checksum
//!   dropped                   key                     -> record and sums of the first turns of a conversation, which were
//!                                                        dropped because of their age; checksum
//!   erased_rollups            (level, quarter, label) -> like rollups, for turns that were erased or dropped; checksum
//!   erased_costs              (level, quarter, label) -> like costs, for turns that were erased or dropped; checksum
//!   imported_sums             id of erased sums       -> the sums of erased turns of another store that were taken in under
//!                                                        this id; checksum
//!
//!   only after a repair:
//!   lost_turns                (key, ordinal)          -> a turn that was moved aside; its ordinal is not given again
//!   lost_open_turns, lost_open_steps, lost_journal_rows
//!                             (repair, former key)    -> a row that a repair moved aside from that table
//!   lost_unknown_rows         (repair, table, key)    -> a row that was moved aside because its checksum did not fit
//!
//!   only after a scrub that found damage, until a repair:
//!   findings                  text of the finding     -> conversation that takes nothing new; checksum
//!
//! turn-metrics.journal.redb   the journal: there while the store runs, and after a crash
//!   meta                      name                    -> format, store id, journal id, running time; base: the mark
//!                                                        of the last row that was dropped
//!   rows                      row number              -> version byte, then one entry for each commit or erasure, with the
//!                                                        position of the first turn that it seals; checksum of the row
//!                                                        before; checksum
//! ```
//!
//! Keys and values are integers, tuples, strings and bytes. A record is one byte, the version of its encoding, then
//! postcard. The hash in the index is SipHash-1-3 under the store's id; if another turn has the slot, the next free
//! slot is used. A checksum is SipHash-1-3 under a key of zeros. Rows of `meta` have checksums too.
//!
//! The main file names the journal that may have changes which the tables lack. If it names no journal, the main file
//! alone is the whole store, as after an orderly stop and in a backup.
//!
//! # A commit
//!
//! 1. The caller's thread asks admission for a permit. If too many turns wait already, the commit is refused at once.
//!    Otherwise it joins the writer's queue.
//! 2. The writer waits for the checkpoint if the memtable is filling up, then gathers a batch from the queue. If many
//!    turns wait, the writer refuses commits that have waited too long.
//! 3. The writer builds the write set of the batch. For each commit it loads the conversation from the memtable or else
//!    the tables, and looks up which of the turns are sealed. Then the commit rule compares the version, and gives each
//!    newly sealed turn its ordinal, the place in its conversation. The write set gives it its position, the place in
//!    the order of all turns. Later commits of the batch see what earlier ones changed.
//! 4. The writer appends the entries as one row, in one transaction of the journal with one fsync. The same transaction
//!    drops some rows that the checkpoint has passed. From here on the commits are durable.
//! 5. The entries go into the active table of the memtable, where reads see them.
//! 6. The writer checks that the names of both files still lead to them. Only then is each caller answered.
//!
//! # A read
//!
//! Under one short lock a read copies what it needs from the memtable and begins a read transaction on the tables. The
//! copy and the transaction together show one state of the store. Then the read goes on without a lock. It reads the
//! rows of the tables, overlaid by the immutable table and then by the active one. A piece may be both in the tables
//! and in the memtable: overlaying such a piece changes nothing. A read that the memtable can answer alone begins no
//! transaction.
//!
//! A read of sums also adds the tally of the memtable's turns. The writer does not count turns: it only lists the turns
//! that enter the memtable. The checkpoint's thread counts them. A report first counts all turns that are left, for all
//! reads; a list of conversations counts only those of the conversations that it shows, for itself. While turns are
//! counted, no lock is held that a commit or another read needs. The tallies have their own lock, which is taken before
//! the memtable's lock, and only to add or to copy sums. The tables say how far their sums have come, so a reader knows
//! which part of the immutable table's tally is not in them yet.
//!
//! A page of the order takes the positions before the memtable's first run from the tables, and the others from the
//! runs. The record of a turn whose piece was moved is read from the tables.
//!
//! # A checkpoint
//!
//! 1. When the active table has half of `store.redb.journal_bytes` and there is no immutable table, the active table
//!    becomes the immutable one.
//! 2. The checkpoint's own thread moves the immutable table in flushes of some milliseconds. Each flush is one
//!    transaction on the main file. A flush moves pieces in the order of their keys. It writes their turns, index, open
//!    turns and steps, the conversation as the piece left it, and its place by activity.
//! 3. When all pieces are moved, further flushes append the table's part of the order to `positions`. So these rows are
//!    written in order, and each leads to a turn in the tables.
//! 4. Then further flushes add the table's tally to the labels, rollups, costs and sums of conversations, so that each
//!    of these rows is written once for a whole table and not in each flush. Adding is not idempotent, so each of these
//!    transactions also notes the last key that it added, and the last of them notes the number of the table's last row
//!    in the journal.
//! 5. Each flush also writes the mark of the journal's newest row. When the flush is durable, its pieces and runs are
//!    dropped from the memtable.
//! 6. The last flush writes the mark of the table's last row as the checkpoint. Later appends drop the rows of the
//!    journal up to this mark.
//!
//! Between two flushes, the same thread computes all costs anew if the price book has changed. See
//! `redb/checkpoint/repricing`.
//!
//! Every few seconds the same thread notes the newest row in the main file if no flush has done so.
//!
//! An orderly stop flushes until the memtable is empty, takes the journal's name out of the main file and removes
//! the journal.
//!
//! # An erasure
//!
//! 1. The writer appends an entry that names the life which ends, and begins the next one with an empty record of version
//!    0. In the memtable the entry begins a new piece. Reads use the pieces of the present life only, and the rows of the
//!    tables only if their record has that life. Commits that expect the version of the earlier life are conflicts.
//! 2. Pieces, runs and sums of the erased life that are in the memtable already are moved like all others, under the key of
//!    that life. The flush that moves the erasure removes the id, the record and the place by activity, and notes the key
//!    in `erased` and `erasures`. A later life gets another key. Runs and sums that are moved after that find the key of
//!    their life in `erasures`.
//! 3. When the checkpoint has passed the erasure, the checkpoint's thread removes the rows of the key in small transactions.
//!    Each of them also moves the sums that its turns have added to the sums of erased turns. Reports add up both. See
//!    `redb/checkpoint/erasing`.
//! 4. Positions keep leading to the key, of which `erased` says that it leads nowhere. So no position is written again.
//!
//! # An export and its import
//!
//! Reports are sums over the stored turns and over those that were erased or dropped, so an export has both: first the
//! erased sums, by quarter of an hour and label, and then the stored turns by position.
//!
//! 1. Before an export begins, the sums of conversations that were erased before are moved to their place. As long as the
//!    export is being sent, no turn is dropped, or it would be in neither part. A conversation that is erased meanwhile
//!    lacks the turns that were not sent yet; their sums are in the next export.
//! 2. Another store adds the difference between the sums that come and those that it has taken in under the same id, and
//!    notes the sums under the id in `imported_sums`. Both are one transaction, between two flushes. So a crash leaves all
//!    of it or nothing, and the same sums may be sent again.
//! 3. Sums that were taken in are among the erased sums of the store, which it exports with ids of its own.
//!
//! # Opening after a crash
//!
//! 1. Both files are inspected without changing them. A file of another program or format, a lost main file, a missing
//!    journal, or the journal of another store is refused.
//! 2. All bytes of the journal are written once more and synced: an earlier sync may have failed, and after a failed
//!    sync Linux shows bytes that are not on the disk.
//! 3. redb undoes the transaction that was cut short in each file. Then a journal that is older or newer than the main
//!    file is refused: base <= checkpoint <= newest row <= last row must hold, and both files must have the same marks
//!    for the same rows.
//! 4. The rows after the checkpoint are read into the memtable. Flushes may have moved some of their pieces already, so
//!    an entry whose version is in the tables is skipped. Its positions are skipped only if the tables have them too.
//!    An entry of a life that is in `erasures` is skipped too.
//!    Its turns are skipped for sums only if the tables have counted them: the tables note up to which row all turns
//!    are counted, and up to which row a part of them is.
//! 5. Each row must have the checksum of the row before it, the entries of each conversation must follow each other
//!    without a gap, version by version, and the positions must follow those before them. A row that does not fit is
//!    damage: the store does not open, and `repair` moves the row aside.
//!
//! # The rooms
//!
//! A room uses only the rooms before it.
//!
//! - `fault`: why a store could not do what it was asked. The displayed text is made of fixed words, codes and numbers,
//!   so it has no path.
//! - `position`: the place of a turn in the order of all turns, as a text.
//! - `erased_sums`: the sums of erased turns, and their text in a line of an export.
//! - `contract`: the questions to a store and its answers. It mentions no engine: no file, no key, no redb.
//! - `rule`: what a commit does. Pure.
//! - `retention`: keeps a wrong clock from dropping turns. Pure.
//! - `engine`: the trait that an engine implements. It does not say which threads an engine uses.
//! - `redb`: the engine that keeps a store in two redb files.
//! - `conformance`: the tests that every store passes.
//! - `oracle`: a simple model of commits. Tests compare stores with it.

#[cfg(test)]
pub(crate) mod conformance;
mod contract;
mod engine;
mod erased_sums;
mod fault;
#[cfg(test)]
mod oracle;
mod position;
mod redb;
pub(crate) mod retention;
pub(crate) mod rule;

pub use self::contract::{
    Backup, BackupError, Commit, CommitError, CommitSeries, Committed, CommittedSeries, ConversationOrder,
    ConversationPlace, ConversationQuestion, ConversationState, DamageReport, DropError, DropTurns, DroppedTurns,
    ExportHold, Life, ListSealedError, ListedConversation, OpenTurns, PositionedTurn, RangeEnd, Report, ReportError,
    ReportQuestion, RepricingProgress, Revision, SealedPage, StagedChange, StagedTurn, StaleBefore, StaleTurn,
    StoreSizes, TurnOutcome, TurnRange, Version,
};
pub use self::erased_sums::{ErasedSums, ErasedSumsId, ErasedSumsPage, InvalidErasedSums};
pub use self::fault::{Fault, FaultKind};
pub use self::position::{InvalidPosition, Lineage, Position};
pub use self::redb::files::location::Location;
pub use self::redb::files::misfit::Misfit;
pub use self::redb::files::open_error::OpenError;
pub use self::redb::files::replay::RowFlaw;
#[cfg(any(test, feature = "testing"))]
pub use self::redb::files::storage::Storage;
pub use self::redb::maintenance::check::error::CheckError;
pub use self::redb::maintenance::check::flaw::Flaw;
pub use self::redb::maintenance::check::loss::Loss;
pub use self::redb::maintenance::check::report::{CheckReport, Violation};
pub use self::redb::maintenance::check::{check, repair};
pub use self::redb::maintenance::compact::{CompactError, Compaction, compact};
pub use self::redb::tables::record::damaged::DamagedRecord;
pub use self::redb::tables::store_file::StoreFile;
#[cfg(all(test, feature = "server"))]
pub(crate) use self::redb::unwind::caught;
#[cfg(feature = "server")]
pub(crate) use self::redb::unwind::{is_catching, keep_quiet};

pub(crate) use self::contract::Health;
pub(crate) use self::engine::{Answer, Engine};
pub(crate) use self::redb::engine::RedbEngine;
