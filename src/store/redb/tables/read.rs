//! The tables of the main file, as one read transaction sees them.

use std::cell::OnceCell;
use std::sync::Arc;

use redb::{Key, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, Value};

use super::failure::Failure;
use super::guarded::look_up;
use super::index::{self, TurnHasher};
use super::indexed::Indexed;
use super::meta::ReadMeta;
use super::record::damaged::{DamagedRecord, RecordFlaw};
use super::record::dropped::Dropped;
use super::record::erasure::Erasure;
use super::record::{self, conversation::ConversationRecord};
use super::rollups::ReadRollups;
use super::row::{Row, Rows};
use super::schema::{
    ACTIVITY, Activity, CONVERSATIONS, Conversations, DROPPED, DroppedTurns, ERASED, ERASURES, Erased, Erasures, INDEX,
    KEYS, Keys, OPEN_STEPS, OPEN_TURNS, OpenTurnSteps, OpenTurns, POSITIONS, Positions, StepKey, TURNS, Turns,
};
use super::turn_filter::TurnFilter;
use crate::store::contract::Life;
use crate::turn::{ConversationId, EpochMillis, Ordinal, StoredTurn, TurnId};

/// One consistent state of the tables. Each table is opened when it is first needed.
pub(crate) struct ReadTables {
    txn: ReadTransaction,
    hasher: TurnHasher,
    filter: Option<Arc<TurnFilter>>,
    keys: Lazy<&'static str, Row<Keys>>,
    conversations: Lazy<u64, Row<Conversations>>,
    turns: Lazy<(u64, u64), Row<Turns>>,
    index: Lazy<(u64, u64), Indexed>,
    open_turns: Lazy<(u64, &'static str), Row<OpenTurns>>,
    open_steps: Lazy<StepKey, Row<OpenTurnSteps>>,
    positions: Lazy<u64, Row<Positions>>,
    activity: Lazy<(u64, &'static str), Row<Activity>>,
    erased: Lazy<u64, Row<Erased>>,
    erasures: Lazy<u64, Row<Erasures>>,
    dropped: Lazy<u64, Row<DroppedTurns>>,
}

struct Lazy<K: Key + 'static, V: Value + 'static> {
    definition: TableDefinition<'static, K, V>,
    table: OnceCell<ReadOnlyTable<K, V>>,
}

impl<K: Key + 'static, V: Value + 'static> Lazy<K, V> {
    fn new(definition: TableDefinition<'static, K, V>) -> Self {
        Self { definition, table: OnceCell::new() }
    }

    fn of(&self, txn: &ReadTransaction) -> Result<&ReadOnlyTable<K, V>, Failure> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = txn.open_table(self.definition)?;
        Ok(self.table.get_or_init(|| table))
    }
}

impl ReadTables {
    pub(crate) fn new(txn: ReadTransaction, hasher: TurnHasher) -> Self {
        Self {
            txn,
            hasher,
            filter: None,
            keys: Lazy::new(KEYS),
            conversations: Lazy::new(CONVERSATIONS),
            turns: Lazy::new(TURNS),
            index: Lazy::new(INDEX),
            open_turns: Lazy::new(OPEN_TURNS),
            open_steps: Lazy::new(OPEN_STEPS),
            positions: Lazy::new(POSITIONS),
            activity: Lazy::new(ACTIVITY),
            erased: Lazy::new(ERASED),
            erasures: Lazy::new(ERASURES),
            dropped: Lazy::new(DROPPED),
        }
    }

    /// Adds a filter. Once the filter is complete, it has every turn of the index.
    pub(crate) fn with_filter(self, filter: Arc<TurnFilter>) -> Self {
        Self { filter: Some(filter), ..self }
    }

    pub(crate) fn turns(&self) -> Result<&ReadOnlyTable<(u64, u64), Row<Turns>>, Failure> {
        self.turns.of(&self.txn)
    }

    pub(crate) fn open_turns(&self) -> Result<&ReadOnlyTable<(u64, &'static str), Row<OpenTurns>>, Failure> {
        self.open_turns.of(&self.txn)
    }

    pub(crate) fn open_steps(&self) -> Result<&ReadOnlyTable<StepKey, Row<OpenTurnSteps>>, Failure> {
        self.open_steps.of(&self.txn)
    }

    pub(crate) fn conversations(&self) -> Result<&ReadOnlyTable<u64, Row<Conversations>>, Failure> {
        self.conversations.of(&self.txn)
    }

    pub(crate) fn positions(&self) -> Result<&ReadOnlyTable<u64, Row<Positions>>, Failure> {
        self.positions.of(&self.txn)
    }

    pub(crate) fn activity(&self) -> Result<&ReadOnlyTable<(u64, &'static str), Row<Activity>>, Failure> {
        self.activity.of(&self.txn)
    }

    /// Returns the facts about the file.
    pub(crate) fn meta(&self) -> Result<ReadMeta, Failure> {
        ReadMeta::read(&self.txn)
    }

    /// Returns the tables with the sums of reports.
    pub(crate) fn rollups(&self) -> Result<ReadRollups, Failure> {
        ReadRollups::open(&self.txn)
    }

    /// Returns the last position in the tables; 0 if there is none.
    ///
    /// The key of a damaged row may be wrong as well. Then the number of rows shows how many positions were given.
    pub(crate) fn last_position(&self) -> Result<u64, Failure> {
        let positions = self.positions()?;
        let mut least = 0;
        for row in positions.iter()?.rev() {
            let (position, value) = row?;
            if value.value().verify(&position.value()).is_ok() {
                return Ok(position.value().max(least));
            }
            least = positions.len()?;
        }
        Ok(least)
    }

    /// Returns the conversation's key; `None` if it has no key. An error says that its row is damaged or hidden by
    /// damage.
    pub(crate) fn key_of(&self, id: &ConversationId) -> Result<Option<u64>, Failure> {
        let keys = self.keys.of(&self.txn)?;
        match read_key(keys, id) {
            // A damaged row is where this id would be. It may be the row of this id or of another one.
            Err(Failure::Record(damaged)) if keys.get(id.as_str())?.is_none() => {
                let found = search_key(self.conversations.of(&self.txn)?, self.activity()?, id)?;
                found.map_or(Ok(None), |_| Err(damaged.into()))
            }
            key => key,
        }
    }

    /// Returns the key of this life of a conversation; `None` if it has no key, also if it was erased.
    pub(crate) fn key_of_life(&self, id: &ConversationId, life: Life) -> Result<Option<u64>, Failure> {
        let Some(key) = self.key_of(id)? else { return Ok(None) };
        Ok((self.conversation(key)?.life == life).then_some(key))
    }

    /// Returns whether the conversation with this key was erased.
    pub(crate) fn is_erased(&self, key: u64) -> Result<bool, Failure> {
        Ok(look_up::<Erased>(self.erased.of(&self.txn)?, &key)?.is_some())
    }

    /// Returns whether the tables have the erasure of this life, whose rows are not all removed yet.
    pub(crate) fn has_erasure(&self, life: Life) -> Result<bool, Failure> {
        Ok(look_up::<Erasures>(self.erasures.of(&self.txn)?, &life.0)?.is_some())
    }

    /// Returns the moment of the last sealing in the conversation with the latest activity. The beginning of 1970 if there
    /// is none.
    pub(crate) fn last_sealing(&self) -> Result<EpochMillis, Failure> {
        for row in self.activity()?.iter()? {
            let (place, key) = row?;
            // Damaged rows are passed over.
            let key = key.value().verify(&place.value()).and_then(decode_key);
            if let Ok(record) = key.map_err(Failure::from).and_then(|key| self.conversation(key)) {
                return Ok(record.last_sealed_at);
            }
        }
        Ok(EpochMillis::default())
    }

    /// Returns whether the row of a turn can be removed from the index: no row that a search meets is damaged.
    pub(crate) fn can_leave_index(&self, key: u64, turn_id: &str) -> Result<bool, Failure> {
        let (index, turns) = (self.index.of(&self.txn)?, self.turns()?);
        match index::run_of(index, turns, key, &|id: &str| self.hasher.hash(id), turn_id) {
            Err(Failure::Record(_)) => Ok(false),
            run => run.map(|_| true),
        }
    }

    /// Returns what is known of the first turns of a conversation, if some of them were dropped.
    pub(crate) fn dropped(&self, key: u64) -> Result<Option<Dropped>, Failure> {
        let dropped = self.dropped.of(&self.txn)?;
        let row = look_up::<DroppedTurns>(dropped, &key)?;
        row.map(|row| Ok(Dropped::decode(row.value().verify(&key)?)?)).transpose()
    }

    /// Returns the notes of dropped turns.
    pub(crate) fn all_dropped(&self) -> Result<&ReadOnlyTable<u64, Row<DroppedTurns>>, Failure> {
        self.dropped.of(&self.txn)
    }

    /// Returns the first erasure whose rows can be removed: the tables and their sums have everything up to the row
    /// `last` of the journal.
    pub(crate) fn next_erasure(&self, last: u64) -> Result<Option<Erasure>, Failure> {
        for row in self.erasures.of(&self.txn)?.iter()? {
            let (life, value) = row?;
            // A repair makes a damaged row anew.
            let erasure =
                value.value().verify(&life.value()).and_then(|bytes| Erasure::decode(Life(life.value()), bytes));
            if let Some(erasure) = erasure.ok().filter(|erasure| erasure.row <= last) {
                return Ok(Some(erasure));
            }
        }
        Ok(None)
    }

    /// Like [`ReadTables::key_of`], but also finds a key whose row is damaged.
    pub(crate) fn search_key_of(&self, id: &ConversationId) -> Result<Option<u64>, Failure> {
        match read_key(self.keys.of(&self.txn)?, id) {
            Err(Failure::Record(_)) => search_key(self.conversations.of(&self.txn)?, self.activity()?, id),
            key => key,
        }
    }

    /// Returns the id of the conversation with this key, even if the conversation's record is damaged.
    pub(crate) fn search_id_of(&self, key: u64) -> Result<ConversationId, Failure> {
        match self.conversation(key) {
            Err(Failure::Record(damaged)) => search_id(self.keys.of(&self.txn)?, key)?.ok_or(Failure::Record(damaged)),
            conversation => Ok(conversation?.id),
        }
    }

    /// Returns the record of the conversation with this key.
    pub(crate) fn conversation(&self, key: u64) -> Result<ConversationRecord, Failure> {
        read_conversation(self.conversations.of(&self.txn)?, key)
    }

    /// Returns a sealed turn. `None` if its record is longer than this.
    pub(crate) fn turn_within(
        &self,
        key: u64,
        ordinal: Ordinal,
        record_bytes: usize,
    ) -> Result<Option<StoredTurn>, Failure> {
        let place = (key, ordinal.get());
        let record = self.turns()?.get(place)?.ok_or_else(|| DamagedRecord::new("sealed turn", RecordFlaw::Missing))?;
        let record = record.value().verify(&place)?;
        Ok(if record.len() > record_bytes { None } else { Some(record::decode_sealed(ordinal, record)?) })
    }

    /// Returns a sealed turn.
    #[cfg(test)]
    pub(crate) fn turn(&self, key: u64, ordinal: Ordinal) -> Result<StoredTurn, Failure> {
        Ok(self.turn_within(key, ordinal, usize::MAX)?.expect("any record is short enough"))
    }

    /// Adds the next rows of the index to the filter.
    pub(crate) fn fill(&self, filter: &TurnFilter, limit: usize) -> Result<(), Failure> {
        filter.read(self.index.of(&self.txn)?, limit)
    }

    /// Returns the ordinal of a turn if it is sealed.
    pub(crate) fn ordinal_of(&self, key: u64, turn_id: &TurnId) -> Result<Option<Ordinal>, Failure> {
        let hash = |id: &str| self.hasher.hash(id);
        if self.filter.as_ref().is_some_and(|filter| filter.excludes(key, hash(turn_id.as_str()))) {
            return Ok(None);
        }
        index::find(self.index.of(&self.txn)?, self.turns()?, key, hash, turn_id.as_str())
    }
}

/// Returns the key of a conversation; `None` if it certainly has no row in the table of keys.
pub(crate) fn read_key(
    keys: &impl ReadableTable<&'static str, Row<Keys>>,
    id: &ConversationId,
) -> Result<Option<u64>, Failure> {
    let Some(row) = look_up::<Keys>(keys, &id.as_str())? else { return Ok(None) };
    Ok(Some(decode_key(row.value().verify(&id.as_str())?)?))
}

/// Decodes the value of a row of the table of keys.
pub(crate) fn decode_key(value: &[u8]) -> Result<u64, DamagedRecord> {
    let bytes = value.try_into().map_err(|_| DamagedRecord::new(Keys::WHAT, RecordFlaw::Length));
    bytes.map(u64::from_le_bytes)
}

/// Searches for the key of a conversation whose row in the table of keys is damaged. The conversation's record and its
/// row by activity have its id too. This reads all conversations.
pub(crate) fn search_key(
    conversations: &impl ReadableTable<u64, Row<Conversations>>,
    activity: &impl ReadableTable<(u64, &'static str), Row<Activity>>,
    id: &ConversationId,
) -> Result<Option<u64>, Failure> {
    for row in conversations.iter()? {
        let (key, record) = row?;
        let found = record.value().verify(&key.value()).and_then(ConversationRecord::decode);
        if found.is_ok_and(|found| found.id == *id) {
            return Ok(Some(key.value()));
        }
    }
    for row in activity.iter()? {
        let (place, key) = row?;
        let place = place.value();
        if place.1 == id.as_str()
            && let Ok(key) = key.value().verify(&place).and_then(decode_key)
        {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Searches all rows for the id of a key.
fn search_id(keys: &impl ReadableTable<&'static str, Row<Keys>>, key: u64) -> Result<Option<ConversationId>, Failure> {
    for row in keys.iter()? {
        let (id, of_id) = row?;
        if of_id.value().verify(&id.value()).and_then(decode_key).is_ok_and(|of_id| of_id == key) {
            return Ok(ConversationId::new(id.value()).ok());
        }
    }
    Ok(None)
}

/// Returns the key and the record of a conversation.
pub(crate) fn find_conversation(
    keys: &impl ReadableTable<&'static str, Row<Keys>>,
    conversations: &impl ReadableTable<u64, Row<Conversations>>,
    id: &ConversationId,
) -> Result<Option<(u64, ConversationRecord)>, Failure> {
    let Some(key) = read_key(keys, id)? else { return Ok(None) };
    Ok(Some((key, read_conversation(conversations, key)?)))
}

/// Returns what is known of the first turns of a conversation, if some of them were dropped.
pub(crate) fn read_dropped(
    dropped: &impl ReadableTable<u64, Row<DroppedTurns>>,
    key: u64,
) -> Result<Option<Dropped>, Failure> {
    let row = dropped.get(key)?;
    row.map(|row| Ok(Dropped::decode(row.value().verify(&key)?)?)).transpose()
}

/// Returns the record of the conversation with this key.
pub(crate) fn read_conversation(
    conversations: &impl ReadableTable<u64, Row<Conversations>>,
    key: u64,
) -> Result<ConversationRecord, Failure> {
    let record = conversations.get(key)?.ok_or_else(|| DamagedRecord::new("conversation", RecordFlaw::Missing))?;
    Ok(ConversationRecord::decode(record.value().verify(&key)?)?)
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database, ReadableDatabase, WriteTransaction};
    use uuid::Uuid;

    use super::*;
    use crate::store::contract::Version;
    use crate::store::redb::tables::journal_mark::JournalMark;
    use crate::store::redb::tables::meta::WriteMeta;
    use crate::store::redb::tables::record::at_position::AtPosition;
    use crate::store::redb::tables::row::{self, Stored};
    use crate::store::redb::tables::schema::make_tables;
    use crate::store::redb::tables::write::WriteTables;
    use crate::turn::{Done, EpochMillis, OpenTurn};

    fn hasher() -> TurnHasher {
        TurnHasher::of(Uuid::from_u128(7))
    }

    fn id(name: &str) -> ConversationId {
        ConversationId::new(name).unwrap()
    }

    fn turn_id(name: &str) -> TurnId {
        TurnId::new(name).unwrap()
    }

    fn change(database: &Database, change: impl FnOnce(&WriteTransaction)) -> ReadTables {
        let txn = database.begin_write().unwrap();
        change(&txn);
        txn.commit().unwrap();
        ReadTables::new(database.begin_read().unwrap(), hasher())
    }

    /// Returns a database with the conversation `a` under the key 1. Its only turn `x` has the position 1.
    fn one_turn() -> Database {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        change(&database, |txn| {
            WriteMeta::write(txn).unwrap().stamp_main().unwrap();
            make_tables(txn).unwrap();
            let mut tables = WriteTables::open(txn, hasher()).unwrap();
            let key = tables.key_of(&id("a")).unwrap();
            let ordinal = Ordinal::after(0);
            let turn = OpenTurn::new(turn_id("x")).seal(&Done::because("stop"), EpochMillis::new(5));
            tables.put_turn(key, ordinal, &record::encode_sealed(&turn).unwrap()).unwrap();
            tables.mark_sealed(key, "x", ordinal).unwrap();
            tables.put_position(1, &AtPosition::Sealed { key, ordinal }).unwrap();
            let conversation = ConversationRecord {
                version: Version(1),
                sealed_turns: 1,
                last_sealed_at: EpochMillis::new(5),
                last_at: EpochMillis::new(5),
                first_at: EpochMillis::new(5),
                ..ConversationRecord::begin(id("a"))
            };
            tables.put_conversation(key, &conversation).unwrap();
            tables.finish(None, JournalMark::default()).unwrap();
        });
        database
    }

    #[test]
    fn the_last_position_is_never_below_the_number_of_positions_however_their_rows_are_damaged() {
        let put = |txn: &WriteTransaction, position: u64, bytes: &[u8]| {
            txn.open_table(POSITIONS).unwrap().insert(position, Stored::as_it_is(bytes)).unwrap();
        };
        let database = one_turn();
        assert_eq!(change(&database, |_| ()).last_position().unwrap(), 1);
        // The key of a damaged row may be wrong as well.
        assert_eq!(change(&database, |txn| put(txn, 1 << 60, b"nonsense")).last_position().unwrap(), 2);
        let sound = |txn: &WriteTransaction| {
            let mut record = AtPosition::Erased.encode().unwrap();
            txn.open_table(POSITIONS).unwrap().insert(9, row::seal(&9, &mut record)).unwrap();
        };
        assert_eq!(change(&database, sound).last_position().unwrap(), 9);
        let none = change(&database, |txn| {
            for position in [1, 9] {
                put(txn, position, b"");
            }
        });
        assert_eq!(none.last_position().unwrap(), 3);
    }

    #[test]
    fn a_conversation_is_found_by_any_row_that_still_leads_to_it() {
        let break_key = |txn: &WriteTransaction| {
            txn.open_table(KEYS).unwrap().insert("a", Stored::as_it_is(&[1; 16])).unwrap();
        };
        let break_record = |txn: &WriteTransaction| {
            txn.open_table(CONVERSATIONS).unwrap().insert(1, Stored::as_it_is(b"nonsense")).unwrap();
        };
        let database = one_turn();
        let tables = change(&database, break_record);
        assert!(matches!(tables.conversation(1), Err(Failure::Record(_))));
        assert_eq!(tables.search_id_of(1).unwrap(), id("a"), "found by its row in the table of keys");

        let database = one_turn();
        let tables = change(&database, break_key);
        assert!(matches!(tables.key_of(&id("a")), Err(Failure::Record(_))));
        assert_eq!(tables.search_key_of(&id("a")).unwrap(), Some(1), "found by its record");
        let tables = change(&database, break_record);
        assert_eq!(tables.search_key_of(&id("a")).unwrap(), Some(1), "found by its row by activity");
        let tables = change(&database, |txn| txn.open_table(ACTIVITY).unwrap().retain(|_, _| false).unwrap());
        assert_eq!(tables.search_key_of(&id("a")).unwrap(), None);
        assert!(tables.search_id_of(1).is_err());
        assert_eq!(tables.search_key_of(&id("b")).unwrap(), None, "a conversation that does not exist");
    }

    #[test]
    fn a_turn_that_is_named_and_not_there_is_damage_and_not_an_unsealed_turn() {
        let database = one_turn();
        let tables = change(&database, |_| ());
        assert_eq!(tables.turn(1, Ordinal::after(0)).unwrap().metrics.turn_id, turn_id("x"));
        assert_eq!(tables.ordinal_of(1, &turn_id("x")).unwrap(), Some(Ordinal::after(0)));
        assert_eq!(tables.ordinal_of(1, &turn_id("y")).unwrap(), None);
        let tables = change(&database, |txn| drop(txn.open_table(TURNS).unwrap().remove((1, 1)).unwrap()));
        assert!(matches!(tables.turn(1, Ordinal::after(0)), Err(Failure::Record(_))));
        assert_eq!(
            tables.ordinal_of(1, &turn_id("x")).unwrap(),
            Some(Ordinal::after(0)),
            "the turn could be sealed again"
        );
    }
}
