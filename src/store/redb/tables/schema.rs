//! The definitions of the tables of both files, and the only list of the tables of the main file.
//!
//! Operations on every table use the list in [`visit_tables`]. The front page of the store describes the layout, and
//! `CONTRIBUTING.md` has the steps that a new table needs.

use redb::{
    Key, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError, Value, WriteTransaction,
};

use super::failure::Failure;
use super::indexed::Indexed;
use super::meta::META;
use super::record::damaged::{DamagedRecord, RecordFlaw};
use super::row::{Row, Rows};

// The tables of the store's main file.

/// The rows of [`KEYS`].
#[derive(Debug)]
pub(crate) struct Keys;

impl Rows for Keys {
    type Key = &'static str;
    const NAME: &'static str = "conversation_keys";
    const WHAT: &'static str = "key of a conversation";
}

/// The rows of [`CONVERSATIONS`].
#[derive(Debug)]
pub(crate) struct Conversations;

impl Rows for Conversations {
    type Key = u64;
    const NAME: &'static str = "conversations";
    const WHAT: &'static str = "conversation";
}

/// The rows of [`TURNS`].
#[derive(Debug)]
pub(crate) struct Turns;

impl Rows for Turns {
    type Key = (u64, u64);
    const NAME: &'static str = "turns";
    const WHAT: &'static str = "sealed turn";
}

/// The rows of [`OPEN_TURNS`].
#[derive(Debug)]
pub(crate) struct OpenTurns;

impl Rows for OpenTurns {
    type Key = (u64, &'static str);
    const NAME: &'static str = "open_turns";
    const WHAT: &'static str = "open turn";
}

/// The key of a conversation, the id of an open turn, and the place of a step in the turn, from 0.
pub(crate) type StepKey = (u64, &'static str, u32);

/// The number of a repair, and the key that the row had in [`OPEN_STEPS`].
pub(crate) type LostStepKey = (u64, u64, &'static str, u32);

/// The rows of [`OPEN_STEPS`].
#[derive(Debug)]
pub(crate) struct OpenTurnSteps;

impl Rows for OpenTurnSteps {
    type Key = StepKey;
    const NAME: &'static str = "open_steps";
    const WHAT: &'static str = "step of an open turn";
}

/// The rows of [`ACTIVITY`].
#[derive(Debug)]
pub(crate) struct Activity;

impl Rows for Activity {
    type Key = (u64, &'static str);
    const NAME: &'static str = "activity";
    const WHAT: &'static str = "place by activity";
}

/// The rows of [`POSITIONS`].
#[derive(Debug)]
pub(crate) struct Positions;

impl Rows for Positions {
    type Key = u64;
    const NAME: &'static str = "positions";
    const WHAT: &'static str = "position";
}

/// The rows of [`LABELS`].
#[derive(Debug)]
pub(crate) struct Labels;

impl Rows for Labels {
    type Key = u64;
    const NAME: &'static str = "labels";
    const WHAT: &'static str = "label of rollups";
}

/// A level, the first quarter of an hour that the row covers, and a label. See `rollups`.
pub(crate) type RollupKey = (u8, i64, u64);

/// The rows of [`ROLLUPS`].
#[derive(Debug)]
pub(crate) struct Rollups;

impl Rows for Rollups {
    type Key = RollupKey;
    const NAME: &'static str = "rollups";
    const WHAT: &'static str = "rollup";
}

/// A generation of costs, and the key of a rollup.
pub(crate) type CostKey = (u32, u8, i64, u64);

/// The rows of [`COSTS`].
#[derive(Debug)]
pub(crate) struct Costs;

impl Rows for Costs {
    type Key = CostKey;
    const NAME: &'static str = "costs";
    const WHAT: &'static str = "cost";
}

/// The rows of [`CONVERSATION_SUMS`].
#[derive(Debug)]
pub(crate) struct ConversationSumRows;

impl Rows for ConversationSumRows {
    type Key = (u32, u64);
    const NAME: &'static str = "conversation_sums";
    const WHAT: &'static str = "sums of a conversation";
}

/// The rows of [`ERASED`].
#[derive(Debug)]
pub(crate) struct Erased;

impl Rows for Erased {
    type Key = u64;
    const NAME: &'static str = "erased";
    const WHAT: &'static str = "note of an erased conversation";
}

/// The rows of [`ERASURES`].
#[derive(Debug)]
pub(crate) struct Erasures;

impl Rows for Erasures {
    type Key = u64;
    const NAME: &'static str = "erasures";
    const WHAT: &'static str = "erasure";
}

/// The rows of [`DROPPED`].
#[derive(Debug)]
pub(crate) struct DroppedTurns;

impl Rows for DroppedTurns {
    type Key = u64;
    const NAME: &'static str = "dropped";
    const WHAT: &'static str = "note of dropped turns";
}

/// The rows of [`ERASED_ROLLUPS`].
#[derive(Debug)]
pub(crate) struct ErasedRollups;

impl Rows for ErasedRollups {
    type Key = RollupKey;
    const NAME: &'static str = "erased_rollups";
    const WHAT: &'static str = "rollup of erased turns";
}

/// The rows of [`ERASED_COSTS`].
#[derive(Debug)]
pub(crate) struct ErasedCosts;

impl Rows for ErasedCosts {
    type Key = RollupKey;
    const NAME: &'static str = "erased_costs";
    const WHAT: &'static str = "cost of erased turns";
}

/// The rows of [`IMPORTED_SUMS`].
#[derive(Debug)]
pub(crate) struct ImportedSums;

impl Rows for ImportedSums {
    type Key = &'static str;
    const NAME: &'static str = "imported_sums";
    const WHAT: &'static str = "note of imported sums";
}

/// From a conversation's id to its key. Ids are long, and most keys below need the conversation, so they have this
/// short key instead.
pub(crate) const KEYS: TableDefinition<&str, Row<Keys>> = TableDefinition::new(Keys::NAME);
/// From a conversation's key to its record.
pub(crate) const CONVERSATIONS: TableDefinition<u64, Row<Conversations>> = TableDefinition::new(Conversations::NAME);
/// From (conversation, ordinal) to a sealed turn. A conversation's turns are one range, in order.
pub(crate) const TURNS: TableDefinition<(u64, u64), Row<Turns>> = TableDefinition::new(Turns::NAME);
/// From (conversation, hash of a turn id) to the ordinal of a sealed turn. This index is why a turn is sealed only
/// once. See `index`.
pub(crate) const INDEX: TableDefinition<(u64, u64), Indexed> = TableDefinition::new("turn_index");
/// From (conversation, turn id) to the head of an open turn. The head says how many steps the turn has.
pub(crate) const OPEN_TURNS: TableDefinition<(u64, &str), Row<OpenTurns>> = TableDefinition::new(OpenTurns::NAME);
/// From (conversation, turn id, place from 0) to a step of an open turn.
pub(crate) const OPEN_STEPS: TableDefinition<StepKey, Row<OpenTurnSteps>> = TableDefinition::new(OpenTurnSteps::NAME);
/// From (moment of the latest activity, counted down from the largest number; conversation id) to the conversation's
/// key. So the conversations with a sealed turn are in the order of a list: the latest first, and by id if their
/// moments are equal.
pub(crate) const ACTIVITY: TableDefinition<(u64, &str), Row<Activity>> = TableDefinition::new(Activity::NAME);
/// From a position in the order of all turns to a turn, or to the note that it was erased. New rows are appended at the
/// end.
pub(crate) const POSITIONS: TableDefinition<u64, Row<Positions>> = TableDefinition::new(Positions::NAME);
/// From the hash of a label to the label. Labels are long, so the keys below have the hash instead.
pub(crate) const LABELS: TableDefinition<u64, Row<Labels>> = TableDefinition::new(Labels::NAME);
/// From (level, first quarter, label) to the sums over the parts of turns in that time.
pub(crate) const ROLLUPS: TableDefinition<RollupKey, Row<Rollups>> = TableDefinition::new(Rollups::NAME);
/// From (generation, level, first quarter, label) to the costs of the same parts.
pub(crate) const COSTS: TableDefinition<CostKey, Row<Costs>> = TableDefinition::new(Costs::NAME);
/// From (generation, conversation) to the cost and other sums of the conversation.
pub(crate) const CONVERSATION_SUMS: TableDefinition<(u32, u64), Row<ConversationSumRows>> =
    TableDefinition::new(ConversationSumRows::NAME);

/// From the key of a conversation that was erased to the number of its sealed turns. The rows stay, because positions
/// lead to these turns.
pub(crate) const ERASED: TableDefinition<u64, Row<Erased>> = TableDefinition::new(Erased::NAME);
/// From a life that was erased to the key of its conversation. The rows of the key are still to be removed; then this
/// row goes too.
pub(crate) const ERASURES: TableDefinition<u64, Row<Erasures>> = TableDefinition::new(Erasures::NAME);
/// From the key of a conversation to what is known of its first turns, which were dropped because of their age.
pub(crate) const DROPPED: TableDefinition<u64, Row<DroppedTurns>> = TableDefinition::new(DroppedTurns::NAME);
/// Like [`ROLLUPS`], for turns that were erased or dropped.
pub(crate) const ERASED_ROLLUPS: TableDefinition<RollupKey, Row<ErasedRollups>> =
    TableDefinition::new(ErasedRollups::NAME);
/// Like [`COSTS`], for turns that were erased or dropped. They keep the costs that they had, so the rows have no generation.
pub(crate) const ERASED_COSTS: TableDefinition<RollupKey, Row<ErasedCosts>> = TableDefinition::new(ErasedCosts::NAME);
/// From the id of sums of erased turns of another store to the sums that were taken in under this id. They are among those of
/// [`ERASED_ROLLUPS`] and [`ERASED_COSTS`] too.
pub(crate) const IMPORTED_SUMS: TableDefinition<&str, Row<ImportedSums>> = TableDefinition::new(ImportedSums::NAME);

/// From (conversation, ordinal) to the row that a repair took out of [`TURNS`], or to nothing if the turn was missing.
/// The table exists only after a repair that needed it. The ordinals in it are not given again.
pub(crate) const LOST_TURNS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("lost_turns");
/// From (repair, conversation, turn id) to the row that a repair took out of [`OPEN_TURNS`]. The number of the repair,
/// here and below, keeps the rows of different repairs apart.
pub(crate) const LOST_OPEN_TURNS: TableDefinition<(u64, u64, &str), &[u8]> = TableDefinition::new("lost_open_turns");
/// From (repair, conversation, turn id, place) to the row that a repair took out of [`OPEN_STEPS`].
pub(crate) const LOST_OPEN_STEPS: TableDefinition<LostStepKey, &[u8]> = TableDefinition::new("lost_open_steps");
/// From (repair, number of a row of the journal) to the row that a repair took out of the journal.
pub(crate) const LOST_JOURNAL_ROWS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("lost_journal_rows");
/// From (repair, table, key as bytes) to a row that a repair took out because its checksum does not fit. Its key may be
/// wrong too.
pub(crate) const LOST_UNKNOWN: TableDefinition<(u64, &str, &[u8]), &[u8]> = TableDefinition::new("lost_unknown_rows");

/// The rows of [`FINDINGS`].
#[derive(Debug)]
pub(crate) struct Findings;

impl Rows for Findings {
    type Key = &'static str;
    const NAME: &'static str = "findings";
    const WHAT: &'static str = "finding of a scrub";
}

/// From the text of a finding of a scrub to the conversation that takes nothing new because of it. The table exists
/// only after a scrub has found damage; a repair removes it. See `findings`.
pub(crate) const FINDINGS: TableDefinition<&str, Row<Findings>> = TableDefinition::new(Findings::NAME);

// The journal, in a file of its own.

/// The rows of [`ROWS`].
#[derive(Debug)]
pub(crate) struct JournalRows;

impl Rows for JournalRows {
    type Key = u64;
    const NAME: &'static str = "rows";
    const WHAT: &'static str = "row of the journal";
}

/// From the number of a row, which rises by one, to the commits that one transaction made durable, in their order.
pub(crate) const ROWS: TableDefinition<u64, Row<JournalRows>> = TableDefinition::new(JournalRows::NAME);

/// The purpose of a table of the main file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The facts about the file.
    Meta,
    /// The data of conversations. The table exists from the start, and its rows count as live bytes.
    Data,
    /// Rows that a repair moved aside, or what a scrub found. The table exists after the first repair or scrub that
    /// needed it.
    Lost,
}

/// An operation on every table of the main file.
pub(crate) trait TableVisitor {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
        role: Role,
    ) -> Result<(), Failure>;

    /// Visits a table of data whose rows have checksums.
    fn visit_rows<T: Rows>(&mut self, table: TableDefinition<'static, T::Key, Row<T>>) -> Result<(), Failure> {
        self.visit(table, Role::Data)
    }

    /// Visits another table whose rows have checksums.
    fn visit_other_rows<T: Rows>(
        &mut self,
        table: TableDefinition<'static, T::Key, Row<T>>,
        role: Role,
    ) -> Result<(), Failure> {
        self.visit(table, role)
    }
}

/// Visits the tables of the main file.
pub(crate) fn visit_tables(visitor: &mut impl TableVisitor) -> Result<(), Failure> {
    visitor.visit_other_rows(META, Role::Meta)?;
    visitor.visit_rows(KEYS)?;
    visitor.visit_rows(CONVERSATIONS)?;
    visitor.visit_rows(TURNS)?;
    visitor.visit(INDEX, Role::Data)?;
    visitor.visit_rows(OPEN_TURNS)?;
    visitor.visit_rows(OPEN_STEPS)?;
    visitor.visit_rows(ACTIVITY)?;
    visitor.visit_rows(POSITIONS)?;
    visitor.visit_rows(LABELS)?;
    visitor.visit_rows(ROLLUPS)?;
    visitor.visit_rows(COSTS)?;
    visitor.visit_rows(CONVERSATION_SUMS)?;
    visitor.visit_rows(ERASED)?;
    visitor.visit_rows(ERASURES)?;
    visitor.visit_rows(DROPPED)?;
    visitor.visit_rows(ERASED_ROLLUPS)?;
    visitor.visit_rows(ERASED_COSTS)?;
    visitor.visit_rows(IMPORTED_SUMS)?;
    visitor.visit(LOST_TURNS, Role::Lost)?;
    visitor.visit(LOST_OPEN_TURNS, Role::Lost)?;
    visitor.visit(LOST_OPEN_STEPS, Role::Lost)?;
    visitor.visit(LOST_JOURNAL_ROWS, Role::Lost)?;
    visitor.visit(LOST_UNKNOWN, Role::Lost)?;
    visitor.visit_other_rows(FINDINGS, Role::Lost)
}

/// Makes the tables that a main file has from the start, because a reader can only open tables and not make them.
pub(crate) fn make_tables(txn: &WriteTransaction) -> Result<(), Failure> {
    struct Make<'a>(&'a WriteTransaction);
    impl TableVisitor for Make<'_> {
        fn visit<K: Key + 'static, V: Value + 'static>(
            &mut self,
            table: TableDefinition<'static, K, V>,
            role: Role,
        ) -> Result<(), Failure> {
            if role != Role::Lost {
                self.0.open_table(table)?;
            }
            Ok(())
        }
    }
    visit_tables(&mut Make(txn))
}

/// Copies every table of a main file, byte for byte, so a damaged row is damaged in the copy too. The rows are written
/// in the order of their keys, and so fill their pages.
pub(crate) fn copy_tables(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), Failure> {
    visit_tables(&mut Copy { from, to, demand: Demand::Nothing })
}

/// Like [`copy_tables`], and returns an error if a table lacks rows.
pub(crate) fn copy_whole_tables(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), Failure> {
    visit_tables(&mut Copy { from, to, demand: Demand::AllRows })
}

/// Like [`copy_whole_tables`], and returns an error if a row does not fit its checksum.
pub(crate) fn copy_sound_tables(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), Failure> {
    visit_tables(&mut Copy { from, to, demand: Demand::SoundRows })
}

/// What a copy demands of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    Nothing,
    /// Each table has as many rows as its definition says.
    AllRows,
    /// Also each row fits its checksum.
    SoundRows,
}

struct Copy<'a> {
    from: &'a ReadTransaction,
    to: &'a WriteTransaction,
    demand: Demand,
}

impl Copy<'_> {
    /// Copies a table whose rows are right if `verify` returns no error for them.
    fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        verify: impl Fn(&K::SelfType<'_>, &V::SelfType<'_>) -> Result<(), DamagedRecord>,
    ) -> Result<(), Failure> {
        let from = match self.from.open_table(table) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            opened => opened?,
        };
        let mut to = self.to.open_table(table)?;
        let mut copied = 0;
        for row in from.iter()? {
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            if self.demand == Demand::SoundRows {
                verify(&key, &value)?;
            }
            to.insert(key, value)?;
            copied += 1;
        }
        let said = from.len()?;
        if self.demand != Demand::Nothing && copied != said {
            return Err(DamagedRecord::new("table", RecordFlaw::RowCount { found: copied, said }).into());
        }
        Ok(())
    }
}

impl TableVisitor for Copy<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
        _: Role,
    ) -> Result<(), Failure> {
        self.table(table, |_, _| Ok(()))
    }

    fn visit_rows<T: Rows>(&mut self, table: TableDefinition<'static, T::Key, Row<T>>) -> Result<(), Failure> {
        self.table(table, |key, value| value.verify(key).map(drop))
    }

    fn visit_other_rows<T: Rows>(
        &mut self,
        table: TableDefinition<'static, T::Key, Row<T>>,
        _: Role,
    ) -> Result<(), Failure> {
        self.visit_rows(table)
    }
}

/// Counts the bytes of all rows of data, keys and values.
pub(crate) fn count_live_bytes(txn: &WriteTransaction) -> Result<u64, Failure> {
    struct Count<'a>(&'a WriteTransaction, usize);
    impl TableVisitor for Count<'_> {
        fn visit<K: Key + 'static, V: Value + 'static>(
            &mut self,
            table: TableDefinition<'static, K, V>,
            role: Role,
        ) -> Result<(), Failure> {
            if role != Role::Data {
                return Ok(());
            }
            for row in self.0.open_table(table)?.iter()? {
                let (key, value) = row?;
                self.1 += K::as_bytes(&key.value()).as_ref().len() + V::as_bytes(&value.value()).as_ref().len();
            }
            Ok(())
        }
    }
    let mut count = Count(txn, 0);
    visit_tables(&mut count)?;
    Ok(count.1 as u64)
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database, ReadableDatabase, TableHandle};

    use super::*;

    /// Puts one row of zero bytes into every table of the list, and counts the bytes of data. The visitor knows only
    /// the types of the key and the value.
    struct Fill<'a> {
        txn: &'a WriteTransaction,
        tables: Vec<String>,
        data_bytes: u64,
    }

    impl TableVisitor for Fill<'_> {
        fn visit<K: Key + 'static, V: Value + 'static>(
            &mut self,
            table: TableDefinition<'static, K, V>,
            role: Role,
        ) -> Result<(), Failure> {
            let bytes = [0; 64];
            // A key of a step ends with a number, so it must have exactly this width.
            let width = match table.name() {
                "open_steps" => 13,
                "lost_open_steps" => 21,
                _ => 17,
            };
            let (key, value) = (&bytes[..K::fixed_width().unwrap_or(width)], &bytes[..V::fixed_width().unwrap_or(5)]);
            self.txn.open_table(table)?.insert(K::from_bytes(key), V::from_bytes(value))?;
            self.tables.push(table.name().to_owned());
            if role == Role::Data {
                self.data_bytes += (key.len() + value.len()) as u64;
            }
            Ok(())
        }
    }

    fn in_memory() -> Database {
        Builder::new().create_with_backend(InMemoryBackend::new()).unwrap()
    }

    fn names(database: &Database) -> Vec<String> {
        let mut names: Vec<_> =
            database.begin_read().unwrap().list_tables().unwrap().map(|table| table.name().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_table_of_the_list_is_copied_and_one_of_data_is_made_and_counted() {
        let (from, to, new) = (in_memory(), in_memory(), in_memory());
        let txn = from.begin_write().unwrap();
        let mut fill = Fill { txn: &txn, tables: Vec::new(), data_bytes: 0 };
        visit_tables(&mut fill).unwrap();
        let (mut expected, data) = (fill.tables, fill.data_bytes);
        assert_eq!(count_live_bytes(&txn).unwrap(), data);
        txn.commit().unwrap();
        expected.sort();
        assert_eq!(names(&from), expected);

        let txn = to.begin_write().unwrap();
        copy_tables(&from.begin_read().unwrap(), &txn).unwrap();
        assert_eq!(count_live_bytes(&txn).unwrap(), data);
        txn.commit().unwrap();
        assert_eq!(names(&to), expected);

        // The rows of zero bytes have no checksums that fit.
        let other = in_memory();
        let txn = other.begin_write().unwrap();
        let refused = copy_sound_tables(&from.begin_read().unwrap(), &txn);
        assert!(matches!(refused, Err(Failure::Record(_))), "{refused:?}");

        let txn = new.begin_write().unwrap();
        make_tables(&txn).unwrap();
        txn.commit().unwrap();
        expected.retain(|name| !name.starts_with("lost_") && name != "findings");
        assert_eq!(names(&new), expected);
    }
}
