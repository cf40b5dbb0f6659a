use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use redb::WriteTransaction;

use crate::store::contract::Life;
use crate::store::redb::memtable::order::Run;
use crate::store::redb::memtable::piece::Change;
use crate::store::redb::memtable::piece::Piece;
use crate::store::redb::memtable::tally::{Tally, TallyKey};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::{CostState, PricedBy, RolledUp};
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::rollups::WriteRollups;
use crate::store::redb::tables::turn_filter::TurnFilter;
use crate::store::redb::tables::write::WriteTables;
use crate::turn::ConversationId;

/// The data that one transaction moves from the memtable into the tables.
pub(crate) struct Transfer {
    pub(crate) pieces: Vec<Arc<Piece>>,
    /// A part of the order, whose turns are in the tables or among the pieces.
    pub(crate) runs: Vec<Run>,
    /// The mark of the last row of the journal that the tables have in full after this transaction, if the transaction
    /// moves that mark.
    pub(crate) checkpoint: Option<JournalMark>,
    /// The mark of the newest row of the journal.
    pub(crate) newest: JournalMark,
    /// The number of the last row of the journal that has some of this data. All turns that the data erases are in rows
    /// up to this one.
    pub(crate) last_row: u64,
    /// The sums that turns of the tables or of these pieces add to reports.
    pub(crate) sums: Option<Sums>,
}

/// A part of a tally, to be added to the sums of the tables.
pub(crate) struct Sums {
    pub(crate) tally: Tally,
    /// The digest of the price book that the tally is priced by.
    pub(crate) digest: u64,
    /// How far the sums of the tables have come once the whole tally is added.
    pub(crate) rolled_up: RolledUp,
    /// The last key of this part of the tally, if further parts follow.
    pub(crate) to: Option<TallyKey>,
}

impl Sums {
    fn write(&self, txn: &WriteTransaction, tables: &mut WriteTables<'_>) -> Result<(), Failure> {
        let state = tables.meta().costs()?;
        let mut repricing = tables.meta().repricing()?;
        if repricing.is_some_and(|repricing| repricing.digest != self.digest) {
            // The costs of this repricing would be by two books, so it is given up. The store begins another one if its
            // prices differ.
            tables.meta().set_repricing(None)?;
            repricing = None;
        }
        let prices = match state.prices {
            PricedBy::Nothing => PricedBy::Book(self.digest),
            PricedBy::Book(digest) if digest != self.digest => PricedBy::Several,
            known => known,
        };
        tables.meta().set_costs(CostState { prices, ..state })?;
        let mut rollups = WriteRollups::open(txn)?;
        rollups.add_rollups(self.tally.parts().map(|(quarter, label, part)| (quarter, label, &part.rollup)))?;
        for generation in
            [Some(state.generation), repricing.map(|repricing| repricing.generation)].into_iter().flatten()
        {
            let costs = self.tally.parts().map(|(quarter, label, part)| (quarter, label, &part.cost));
            rollups.add_costs(generation, costs)?;
        }
        let mut conversations = Vec::new();
        for ((id, life), sums) in self.tally.conversations() {
            conversations.extend(tables.key_of_life(id, *life)?.map(|key| (key, sums)));
        }
        // Neighbours share pages.
        conversations.sort_unstable_by_key(|(key, _)| *key);
        for (key, sums) in conversations {
            rollups.add_to_conversation(state.generation, key, sums)?;
            if let Some(repricing) = repricing {
                rollups.add_to_conversation(repricing.generation, key, sums)?;
            }
        }
        tables.grow_by(rollups.growth());
        match &self.to {
            Some(key) => tables.meta().set_rolling_up(self.rolled_up.row, key),
            None => tables.meta().set_rolled_up(self.rolled_up),
        }
    }
}

impl Transfer {
    /// Returns the approximate size that the data has in the memtable.
    pub(crate) fn bytes(&self) -> usize {
        let pieces = self.pieces.iter().map(|piece| piece.bytes());
        let sums = self.sums.as_ref().map(|sums| sums.tally.bytes());
        pieces.chain(self.runs.iter().map(Run::bytes)).chain(sums).sum()
    }

    /// Writes the data to the tables. Returns the keys of the pieces' conversations. A piece of which nothing has to be
    /// stored has no key.
    pub(crate) fn write(&self, txn: &WriteTransaction, hasher: TurnHasher) -> Result<Vec<Option<u64>>, Failure> {
        let mut tables = WriteTables::open(txn, hasher)?;
        let mut keys = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            if let Some(life) = piece.erased {
                tables.erase(&piece.conversation.id, life, self.last_row)?;
            }
            let key = if piece.is_void() { None } else { Some(write_piece(&mut tables, piece)?) };
            keys.push(key);
        }
        let of_lives = self.pieces.iter().map(|piece| (&piece.conversation.id, piece.conversation.life)).zip(&keys);
        let known = of_lives.filter_map(|(life, key)| Some((life, Some((*key)?)))).collect();
        write_order(&mut tables, &self.runs, known)?;
        self.sums.as_ref().map_or(Ok(()), |sums| sums.write(txn, &mut tables))?;
        tables.finish(self.checkpoint, self.newest)?;
        Ok(keys)
    }
}

impl Transfer {
    /// Adds the sealed turns to the filter. `keys` are the keys that [`Transfer::write`] returned.
    pub(crate) fn add_to(&self, filter: &TurnFilter, keys: &[Option<u64>], hasher: TurnHasher) {
        for (piece, key) in self.pieces.iter().zip(keys) {
            let Some(key) = *key else { continue };
            piece.sealed_ids().for_each(|turn_id| filter.add(key, hasher.hash(turn_id)));
        }
    }
}

fn write_piece(tables: &mut WriteTables<'_>, piece: &Piece) -> Result<u64, Failure> {
    let key = piece.key.map_or_else(|| tables.key_of(&piece.conversation.id), Ok)?;
    for (ordinal, record) in piece.sealed_after(0) {
        tables.put_turn(key, ordinal, record)?;
    }
    for (turn_id, change) in piece.changes() {
        match change {
            Change::Sealed(ordinal) => tables.mark_sealed(key, turn_id, ordinal)?,
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

/// The keys of conversations' lives that are known already. `None` stands for a life without rows.
type Keys<'a> = HashMap<(&'a ConversationId, Life), Option<u64>>;

fn write_order<'a>(tables: &mut WriteTables<'_>, runs: &'a [Run], mut keys: Keys<'a>) -> Result<(), Failure> {
    for run in runs {
        let key = match keys.entry((&run.conversation_id, run.life)) {
            Slot::Occupied(known) => *known.get(),
            Slot::Vacant(slot) => *slot.insert(tables.key_of_life(&run.conversation_id, run.life)?),
        };
        for (position, ordinal) in run.places() {
            let at = key.map_or(AtPosition::Erased, |key| AtPosition::Sealed { key, ordinal });
            tables.put_position(position, &at)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use redb::{ReadableTable, Value};

    use super::*;
    use crate::store::Version;
    use crate::store::contract::{StagedChange, StagedTurn};
    use crate::store::oracle::change;
    use crate::store::redb::files::location::Location;
    use crate::store::redb::journal::entry::Entry;
    use crate::store::redb::memtable::Memtable;
    use crate::store::redb::tables::meta::WriteMeta;
    use crate::store::redb::tables::record;
    use crate::store::redb::tables::record::conversation::ConversationRecord;
    use crate::store::redb::tables::record::open_turn::StagedRecords;
    use crate::store::redb::tables::row::Rows;
    use crate::store::redb::tables::schema::{Role, TableVisitor, count_live_bytes, visit_tables};
    use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, Progress, RunningTime, StepId, StepTimes, TurnId};

    /// Returns an open turn with an event of each of these steps.
    fn staged(id: &str, steps: &[u32]) -> StagedTurn {
        let mut turn = OpenTurn::new(TurnId::new(id).unwrap());
        for (nth, step) in (0..).zip(steps) {
            let step_id = StepId::new(format!("{id}#{step}")).unwrap();
            let times = StepTimes { decode: Some(u32::into(nth)), ..StepTimes::default() };
            turn.fold(&Progress::StepComplete { step_id, times, model: None, provider: None });
        }
        StagedTurn { turn, last_event_at: RunningTime::new(steps.len() as u64) }
    }

    /// Returns the pieces of some commits to one conversation, one commit in each piece: a turn gets events, begins
    /// anew, gets events and ends.
    fn pieces() -> Vec<Arc<Piece>> {
        let states: [&[u32]; 5] = [&[0, 1, 2], &[0, 1, 2, 1, 3], &[0], &[0, 1], &[0, 1, 1]];
        let mut before: Option<StagedTurn> = None;
        let changes = states.map(|steps| {
            let after = staged("t", steps);
            let is_anew = before.as_ref().is_some_and(|before| before.turn.steps.len() > after.turn.steps.len());
            let made = if is_anew { StagedChange::from(after.clone()) } else { change(before.as_ref(), after.clone()) };
            before = Some(after);
            (vec![made, staged("u", &[5, 6]).into()], Vec::new())
        });
        let end = staged("t", states[4]).turn.seal(&Done::because("stop"), EpochMillis::new(1));
        let sealed = vec![record::encode_sealed(&end).unwrap().into()];
        let mut memtable = Memtable::default();
        for (version, (staged, sealed)) in (1..).zip(changes.into_iter().chain([(Vec::new(), sealed)])) {
            let id = ConversationId::new("c").unwrap();
            let sealed_turns = sealed.len() as u64;
            let conversation = ConversationRecord {
                life: Life(1),
                version: Version(version),
                sealed_turns,
                ..ConversationRecord::begin(id)
            };
            let staged = staged.iter().map(|change| StagedRecords::encode(change).unwrap()).collect();
            memtable
                .take_in_pieces(Entry { conversation, erased: None, key: None, position: 1, sealed, staged }, 1)
                .unwrap();
        }
        memtable.contents().all().cloned().collect()
    }

    type Dump = Vec<(&'static str, Vec<u8>, Vec<u8>)>;

    /// Returns all rows of the tables after these pieces were moved one by one, in the order given.
    fn moved(pieces: &[Arc<Piece>], order: impl Iterator<Item = usize>) -> Dump {
        struct DumpRows<'a>(&'a WriteTransaction, Dump);
        impl TableVisitor for DumpRows<'_> {
            fn visit<K: redb::Key + 'static, V: Value + 'static>(
                &mut self,
                _: redb::TableDefinition<'static, K, V>,
                _: Role,
            ) -> Result<(), Failure> {
                Ok(())
            }

            fn visit_rows<T: Rows>(
                &mut self,
                table: redb::TableDefinition<'static, T::Key, crate::store::redb::tables::row::Row<T>>,
            ) -> Result<(), Failure> {
                for row in self.0.open_table(table)?.iter()? {
                    let (key, value) = row?;
                    let key = T::Key::as_bytes(&key.value()).as_ref().to_vec();
                    self.1.push((T::NAME, key, value.value().unverified().to_vec()));
                }
                Ok(())
            }
        }
        let files = Location::Memory.open(1 << 20).unwrap();
        for nth in order {
            let pieces = vec![Arc::clone(&pieces[nth])];
            let txn = files.write_tables().unwrap();
            let newest = JournalMark::default();
            Transfer { pieces, runs: Vec::new(), checkpoint: None, newest, last_row: 0, sums: None }
                .write(&txn, files.hasher())
                .unwrap();
            txn.commit().unwrap();
        }
        let txn = files.write_tables().unwrap();
        let mut rows = DumpRows(&txn, Vec::new());
        visit_tables(&mut rows).unwrap();
        let counted = count_live_bytes(&txn).unwrap();
        assert_eq!(WriteMeta::write(&txn).unwrap().live_bytes().unwrap(), counted, "the noted live bytes are wrong");
        rows.1
    }

    #[test]
    fn pieces_that_are_moved_again_change_nothing_whatever_was_moved_after_them() {
        let pieces = pieces();
        assert_eq!(pieces.len(), 6);
        for end in 1..=pieces.len() {
            let once = moved(&pieces, 0..end);
            for from in 0..end {
                assert!(moved(&pieces, (0..end).chain(from..end)) == once, "{from}..{end} again");
            }
        }
        let rows_of = |end: usize, table: &str| moved(&pieces, 0..end).iter().filter(|row| row.0 == table).count();
        let steps: Vec<_> = (1..=6).map(|end| rows_of(end, "open_steps")).collect();
        assert_eq!(
            steps,
            [3 + 2, 4 + 2, 1 + 2, 2 + 2, 2 + 2, 2],
            "the last count is that without steps of the sealed turn"
        );
        assert_eq!(rows_of(6, "open_turns"), 1);
    }

    #[test]
    fn positions_lead_to_the_turns_of_their_conversation_and_the_marks_are_noted_with_them() {
        let pieces = pieces();
        let files = Location::Memory.open(1 << 20).unwrap();
        let mark = |number| JournalMark { number, checksum: number + 1 };
        let entry = Entry {
            conversation: pieces[5].conversation.clone(),
            erased: None,
            key: None,
            position: 9,
            sealed: pieces[5].sealed_after(0).map(|(_, record)| Arc::clone(record)).collect(),
            staged: Vec::new(),
        };
        let mut memtable = Memtable::at(mark(0), 8);
        memtable.take(entry).unwrap();
        let runs = memtable.runs().cloned().collect();
        let steps = [
            Transfer { pieces, runs: Vec::new(), checkpoint: None, newest: mark(3), last_row: 3, sums: None },
            Transfer { pieces: Vec::new(), runs, checkpoint: Some(mark(2)), newest: mark(4), last_row: 4, sums: None },
        ];
        let before = files.memtable().checkpoint();
        for (moving, checkpoint) in steps.into_iter().zip([before, mark(2)]) {
            let txn = files.write_tables().unwrap();
            let keys = moving.write(&txn, files.hasher()).unwrap();
            assert_eq!(keys.len(), moving.pieces.len());
            let meta = WriteMeta::write(&txn).unwrap();
            assert_eq!((meta.checkpoint().unwrap(), meta.newest().unwrap()), (checkpoint, moving.newest));
            drop(meta);
            txn.commit().unwrap();
        }
        let tables = files.read_tables().unwrap();
        let row = tables.positions().unwrap().get(9).unwrap().unwrap();
        let AtPosition::Sealed { key, ordinal } = AtPosition::decode(row.value().verify(&9).unwrap()).unwrap() else {
            panic!("it was erased")
        };
        assert_eq!(tables.search_id_of(key).unwrap().as_str(), "c");
        assert_eq!(tables.turn(key, ordinal).unwrap().metrics.turn_id.as_str(), "t");
    }
}
