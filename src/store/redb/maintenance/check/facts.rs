//! The facts about the main file: which of them are damaged, and their mending.

use redb::{ReadableTable, TableHandle as _, WriteTransaction};

use super::flaw::Flaw;
use super::report::Violation;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::meta::{self, META, ReadMeta, WriteMeta};
use crate::store::redb::tables::read::decode_key;
use crate::store::redb::tables::record::open_turn::StagedHead;
use crate::store::redb::tables::schema::{
    CONVERSATIONS, ERASED, KEYS, LOST_JOURNAL_ROWS, LOST_OPEN_STEPS, LOST_OPEN_TURNS, LOST_TURNS, LOST_UNKNOWN,
    OPEN_TURNS, TURNS,
};
use crate::turn::RunningTime;

/// Returns which facts of a main file are damaged or missing. The inspection reports a missing id, lineage or next key.
pub(super) fn unsound(meta: &ReadMeta) -> Result<Vec<Violation>, Failure> {
    let damaged = meta.damaged()?.into_iter().map(|(name, damaged, _)| Flaw::Fact { name, damaged });
    let missing = meta.missing()?.into_iter().map(|name| Flaw::NoFact { name });
    Ok(damaged.chain(missing).map(Violation::File).collect())
}

/// Moves aside the facts whose checksums do not fit, and writes those anew that follow from other rows. Sums and the
/// number of bytes begin at 0: a repair computes them when the tables are complete.
///
/// Returns whether the note that the file needs a journal may be among the damaged facts.
pub(super) fn mend(txn: &WriteTransaction) -> Result<bool, Failure> {
    let (last_key, last_repair) = (last_key(txn)?, last_repair(txn)?);
    let mut facts = WriteMeta::write(txn)?;
    let damaged = facts.damaged()?;
    for (name, ..) in &damaged {
        facts.remove(name)?;
    }
    facts.complete(last_key.saturating_add(1), last_repair)?;
    if facts.running_time()? == RunningTime::default() {
        facts.set_running_time(last_event_of_open_turns(txn)?)?;
    }
    let repair = facts.next_repair()?;
    drop(facts);
    let may_need_journal = damaged.iter().any(|(name, ..)| meta::may_be_note_of_journal(name));
    for (name, _, bytes) in damaged {
        txn.open_table(LOST_UNKNOWN)?.insert((repair, META.name(), name.as_bytes()), &*bytes)?;
    }
    Ok(may_need_journal)
}

/// Returns the highest key of a conversation; 0 if there is none.
fn last_key(txn: &WriteTransaction) -> Result<u64, Failure> {
    // A damaged row may have any key, so only rows with right checksums count.
    let mut last = txn.open_table(LOST_TURNS)?.last()?.map_or(0, |(place, _)| place.value().0);
    for row in txn.open_table(ERASED)?.iter()?.rev() {
        let (key, note) = row?;
        if note.value().verify(&key.value()).is_ok() {
            last = last.max(key.value());
            break;
        }
    }
    for row in txn.open_table(KEYS)?.iter()? {
        let (id, key) = row?;
        last = last.max(key.value().verify(&id.value()).and_then(decode_key).unwrap_or_default());
    }
    for row in txn.open_table(CONVERSATIONS)?.iter()?.rev() {
        let (key, record) = row?;
        if record.value().verify(&key.value()).is_ok() {
            last = last.max(key.value());
            break;
        }
    }
    for row in txn.open_table(TURNS)?.iter()?.rev() {
        let (place, turn) = row?;
        if turn.value().verify(&place.value()).is_ok() {
            last = last.max(place.value().0);
            break;
        }
    }
    Ok(last)
}

/// Returns the number of the last repair that has moved rows aside; 0 if there is none.
fn last_repair(txn: &WriteTransaction) -> Result<u64, Failure> {
    let heads = txn.open_table(LOST_OPEN_TURNS)?.last()?.map(|(place, _)| place.value().0);
    let steps = txn.open_table(LOST_OPEN_STEPS)?.last()?.map(|(place, _)| place.value().0);
    let rows = txn.open_table(LOST_JOURNAL_ROWS)?.last()?.map(|(place, _)| place.value().0);
    let unknown = txn.open_table(LOST_UNKNOWN)?.last()?.map(|(place, _)| place.value().0);
    Ok([heads, steps, rows, unknown].into_iter().flatten().max().unwrap_or_default())
}

/// Returns the running time of the latest event of an open turn. The store has run at least so long.
fn last_event_of_open_turns(txn: &WriteTransaction) -> Result<RunningTime, Failure> {
    let mut last = RunningTime::default();
    for row in txn.open_table(OPEN_TURNS)?.iter()? {
        let (place, value) = row?;
        if let Ok(head) = value.value().verify(&place.value()).and_then(StagedHead::decode) {
            last = last.max(head.last_event_at);
        }
    }
    Ok(last)
}
