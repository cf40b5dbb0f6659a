use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, Value as _};

use super::set_up::{id, sound, staged, told};
use crate::report::NoPrices;
use crate::store::redb::maintenance::check::inspect::Inspection;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::tally::{Lacking, Recent, TurnsToCount};
use crate::store::redb::query::conversations::ConversationsQuery;
use crate::store::redb::query::order::OrderQuery;
use crate::store::redb::query::{LeftOut, StaleQuery, StateQuery, TurnsQuery};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::ReadMeta;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record;
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::open_turn::StagedHead;
use crate::store::redb::tables::row::{KeyOf, Row, Rows, Stored};
use crate::store::redb::tables::schema::{
    ACTIVITY, CONVERSATIONS, KEYS, OPEN_STEPS, OPEN_TURNS, POSITIONS, TURNS, copy_tables,
};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::{ConversationOrder, ConversationQuestion, Lineage, TurnRange};
use crate::turn::{ConversationId, Ordinal, RunningTime, TurnId};

/// The rows of one table, in a database that a test damages bit by bit.
struct Flips<'a, T: Rows> {
    database: &'a Database,
    table: TableDefinition<'static, T::Key, Row<T>>,
    /// Whether a value without its checksum can be read.
    decodes: fn(&[u8]) -> bool,
}

impl<T: Rows> Flips<'_, T> {
    fn change(&self, change: impl FnOnce(&mut redb::Table<'_, T::Key, Row<T>>)) {
        let txn = self.database.begin_write().unwrap();
        change(&mut txn.open_table(self.table).unwrap());
        txn.commit().unwrap();
    }

    /// Flips each bit of the row's key and value. `met` reads the row and returns whether the read saw the damage.
    fn each(&self, key: &KeyOf<'_, T>, met: impl Fn(&ReadTables, KeyOf<'_, T>) -> bool) {
        let key = T::Key::as_bytes(key).as_ref().to_vec();
        let mut value = Vec::new();
        self.change(|rows| {
            value = rows.get(T::Key::from_bytes(&key)).unwrap().unwrap().value().unverified().to_vec();
        });
        let mut unseen_without = 0;
        for bit in 0..(key.len() + value.len()) * 8 {
            let mut row = [&*key, &*value].concat();
            row[bit / 8] ^= 1 << (bit % 8);
            let (other, damaged) = row.split_at(key.len());
            // These bytes are not a valid key (not UTF-8, or of a wrong length), so no read can ask for them.
            if std::panic::catch_unwind(|| drop(T::Key::from_bytes(other))).is_err() {
                continue;
            }
            let mut is_another = false;
            self.change(|rows| {
                is_another = other != &*key && rows.get(T::Key::from_bytes(other)).unwrap().is_some();
                if !is_another {
                    rows.remove(T::Key::from_bytes(&key)).unwrap();
                    rows.insert(T::Key::from_bytes(other), Stored::as_it_is(damaged)).unwrap();
                }
            });
            if is_another {
                continue;
            }
            let txn = self.database.begin_read().unwrap();
            let violations = told(&Inspection::of(&txn).unwrap());
            let unfit = format!("a stored {} cannot be read: its checksum does not fit", T::WHAT);
            let is_found = |line: &String| line.ends_with(&unfit) || line.ends_with("0 is no ordinal");
            assert!(violations.iter().any(is_found), "bit {bit} of {}: {violations:?}", T::NAME);
            let store_id = ReadMeta::read(&txn).unwrap().store_id().unwrap();
            let tables = ReadTables::new(txn, TurnHasher::of(store_id));
            assert!(met(&tables, T::Key::from_bytes(other)), "bit {bit} of {} is read as sound", T::NAME);
            unseen_without += u32::from((self.decodes)(&damaged[..damaged.len() - 8]));
            self.change(|rows| {
                rows.remove(T::Key::from_bytes(other)).unwrap();
                rows.insert(T::Key::from_bytes(&key), Stored::as_it_is(&value)).unwrap();
            });
        }
        assert!(unseen_without > 0, "the control: without checksums each flip in {} would be seen too", T::NAME);
    }
}

#[tokio::test]
async fn each_flipped_bit_of_a_row_is_found_by_the_check_and_by_the_read_that_meets_it() {
    let directory = sound().await;
    let file = Database::open(directory.path().join(StoreFile::Main.name())).unwrap();
    let database = &redb::Builder::new().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
    let txn = database.begin_write().unwrap();
    copy_tables(&file.begin_read().unwrap(), &txn).unwrap();
    txn.commit().unwrap();

    let none = Memtable::default();
    let at = Ordinal::after(0);
    Flips { database, table: TURNS, decodes: |value| record::decode_sealed(Ordinal::after(0), value).is_ok() }.each(
        &(1, 2),
        |tables, (key, ordinal)| {
            let range = TurnRange::after(id("a"), 0, 9);
            let mut left_out = LeftOut::default();
            TurnsQuery::of(&none, &range).read(Some(tables), &range, &mut left_out).unwrap();
            // No conversation has another key, so no read finds the row there.
            key != 1 || ordinal < at.get() || left_out.count == 1
        },
    );
    Flips { database, table: OPEN_TURNS, decodes: |value| StagedHead::decode(value).is_ok() }.each(
        &(1, "open"),
        |tables, (key, _)| {
            let (mut stale, mut of_a) = (LeftOut::default(), LeftOut::default());
            let before = RunningTime::new(9).into();
            StaleQuery::of(&none).stale_turns(tables, before, None, 9, &mut stale).unwrap();
            StateQuery::of(&none, &id("a")).read(tables, &id("a"), &[], &mut of_a).unwrap();
            stale.count == 1 && (key != 1 || of_a.count == 1)
        },
    );
    let is_step = |value: &[u8]| record::decode_step(&TurnId::new("open").unwrap(), 1, value).is_ok();
    Flips { database, table: OPEN_STEPS, decodes: is_step }.each(&(1, "open", 1), |tables, _| {
        // Whatever key the row has now, the turn lacks this step.
        let mut left_out = LeftOut::default();
        let state = StateQuery::of(&none, &id("a")).read(tables, &id("a"), &[], &mut left_out).unwrap();
        left_out.count == 1 && state.open_turns == [staged("other", 0)]
    });
    Flips { database, table: CONVERSATIONS, decodes: |value| ConversationRecord::decode(value).is_ok() }
        .each(&1, |tables, key| matches!(tables.conversation(key), Err(Failure::Record(_))));
    Flips { database, table: KEYS, decodes: |_| true }.each(&"a", |tables, name| {
        // Not every text is an id.
        ConversationId::new(name).map_or(true, |id| matches!(tables.key_of(&id), Err(Failure::Record(_))))
    });
    Flips { database, table: ACTIVITY, decodes: |_| true }.each(&(u64::MAX - 2, "a"), |tables, (_, name)| {
        let mut left_out = LeftOut::default();
        let uncounted = TurnsToCount::default();
        let query = ConversationsQuery::of(Vec::new(), &Recent::default(), uncounted, &Lacking::Nothing);
        let question = ConversationQuestion::first(ConversationOrder::Recent, 9);
        query.read(tables, &question, &NoPrices, &mut left_out).unwrap();
        ConversationId::new(name).is_err() || left_out.count == 1
    });
    Flips { database, table: POSITIONS, decodes: |value| AtPosition::decode(value).is_ok() }.each(
        &2,
        |tables, position| {
            // No read asks for position 0.
            let Some(after) = position.checked_sub(1) else { return true };
            let (given, mut left_out) = (Memtable::at(JournalMark::default(), position), LeftOut::default());
            let query = OrderQuery::of(&given, after, 1).unwrap();
            query.read(Lineage(uuid::Uuid::nil()), Some(tables), &mut left_out).unwrap();
            left_out.count == 1
        },
    );
}
