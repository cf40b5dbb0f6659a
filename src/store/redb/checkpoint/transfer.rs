use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use redb::WriteTransaction;

use crate::store::redb::memtable::order::Run;
use crate::store::redb::memtable::piece::Change;
use crate::store::redb::memtable::piece::Piece;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::write::WriteTables;

/// What a transaction moves from the memtable into the tables.
pub(crate) struct Moving {
    pub(crate) pieces: Vec<Arc<Piece>>,
    /// A part of the order, whose turns are in the tables or among the pieces.
    pub(crate) runs: Vec<Run>,
    /// The row of the journal up to which the tables then hold everything, if that has changed.
    pub(crate) checkpoint: Option<JournalMark>,
    /// The newest row of the journal.
    pub(crate) newest: JournalMark,
}

impl Moving {
    /// Its approximate size in the memtable.
    pub(crate) fn bytes(&self) -> usize {
        let pieces = self.pieces.iter().map(|piece| piece.bytes());
        pieces.chain(self.runs.iter().map(Run::bytes)).sum()
    }

    /// Writes it to the tables. Returns the keys of the pieces' conversations.
    pub(crate) fn write(&self, txn: &WriteTransaction, hasher: TurnHasher) -> Result<Vec<u64>, Failure> {
        let mut tables = WriteTables::open(txn, hasher)?;
        let keys = self.pieces.iter().map(|piece| write_piece(&mut tables, piece)).collect::<Result<_, _>>()?;
        write_order(&mut tables, &self.runs)?;
        tables.finish(self.checkpoint, self.newest)?;
        Ok(keys)
    }
}

fn write_piece(tables: &mut WriteTables<'_>, piece: &Piece) -> Result<u64, Failure> {
    let key = tables.key_of(&piece.conversation.id)?;
    for (ordinal, record) in piece.sealed_after(0) {
        tables.put_turn(key, ordinal, record)?;
    }
    for (turn_id, change) in &piece.turns {
        match change {
            Change::Sealed(ordinal) => tables.mark_sealed(key, turn_id, *ordinal)?,
            Change::Open(open) => {
                tables.put_open_turn(key, turn_id, open.head(), open.step_count())?;
                for (place, record) in open.steps() {
                    tables.put_open_step(key, turn_id, place, record)?;
                }
            }
        }
    }
    tables.put_conversation(key, &piece.conversation)?;
    Ok(key)
}

fn write_order(tables: &mut WriteTables<'_>, runs: &[Run]) -> Result<(), Failure> {
    let mut keys = HashMap::new();
    for run in runs {
        let key = match keys.entry(&run.conversation_id) {
            Slot::Occupied(known) => *known.get(),
            Slot::Vacant(slot) => *slot.insert(tables.key_of(&run.conversation_id)?),
        };
        for (position, ordinal) in run.places() {
            tables.put_position(position, &AtPosition::Sealed { key, ordinal })?;
        }
    }
    Ok(())
}
