use std::sync::Arc;

use redb::WriteTransaction;

use crate::store::redb::memtable::piece::Change;
use crate::store::redb::memtable::piece::Piece;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::write::WriteTables;

/// Writes pieces to the tables, the journal's newest row, and the row up to which the tables hold everything, if that
/// has changed. Returns the conversations' keys.
pub(crate) fn move_conversations(
    txn: &WriteTransaction,
    hasher: TurnHasher,
    pieces: &[Arc<Piece>],
    checkpoint: Option<JournalMark>,
    newest: JournalMark,
) -> Result<Vec<u64>, Failure> {
    let mut tables = WriteTables::open(txn, hasher)?;
    let keys = pieces.iter().map(|piece| write(&mut tables, piece)).collect::<Result<_, _>>()?;
    tables.finish(checkpoint, newest)?;
    Ok(keys)
}

fn write(tables: &mut WriteTables<'_>, piece: &Piece) -> Result<u64, Failure> {
    let key = tables.key_of(&piece.conversation.id)?;
    for (ordinal, record) in piece.sealed_after(0) {
        tables.put_turn(key, ordinal, record)?;
    }
    for (turn_id, change) in &piece.turns {
        match change {
            Change::Sealed(ordinal) => tables.mark_sealed(key, turn_id, *ordinal)?,
            Change::Open(record) => tables.put_open_turn(key, turn_id, record)?,
        }
    }
    tables.put_conversation(key, &piece.conversation)?;
    Ok(key)
}
