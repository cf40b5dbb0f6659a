//! The table `meta`, which both files have: the facts about a file. No other module uses its keys.

use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::failure::Failure;
use super::journal_mark::JournalMark;
use super::store_file::StoreFile;
use crate::store::position::Lineage;
use crate::turn::RunningTime;

/// A name, one of the `META_` names, to its value.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Main file: its format, as a little-endian `u32`.
const META_FORMAT: &str = "format";
/// Journal: the same, under a name of its own, so that neither file is taken for the other.
const META_JOURNAL_FORMAT: &str = "journal_format";
/// The id that the store drew when it was created, 16 bytes. The same in both files, which shows that they belong
/// together.
const META_STORE_ID: &str = "store_id";
/// Main file: the store's lineage, 16 bytes. See [`Lineage`] for when it is drawn.
const META_LINEAGE: &str = "lineage";
/// Main file: present if the store begins a new lineage when it is opened next.
const META_NEW_LINEAGE: &str = "new_lineage";
/// Main file: the key of the next new conversation, as a little-endian `u64`.
const META_NEXT_KEY: &str = "next_conversation_key";
/// Main file: the journal's last row of which everything is in the tables, by its number and checksum, 16 bytes.
const META_CHECKPOINT: &str = "checkpoint";
/// Main file: the journal's newest row when the main file was last written, likewise. With it an older copy of the
/// journal is recognized even before the checkpoint has passed the rows that the copy lacks.
const META_NEWEST: &str = "newest_row";
/// Journal: the last row that was dropped from it, or the one after which it begins, likewise.
const META_BASE: &str = "base";
/// Main file: the id of the journal that may hold what the tables do not, 16 bytes; absent if there is none.
const META_JOURNAL: &str = "journal";
/// Journal: its id, drawn when it is made, 16 bytes.
const META_JOURNAL_ID: &str = "journal_id";
/// Main file: the bytes of all rows of the tables by conversation, keys and values, as a little-endian `u64`.
const META_LIVE_BYTES: &str = "live_bytes";
/// Main file: the number of the latest repair, as a little-endian `u64`; absent before the first.
const META_REPAIRS: &str = "repairs";
/// Both files: overwritten to show that a durable write works.
const META_WRITE_CHECK: &str = "write_check";
/// Both files: the running time in milliseconds, as a little-endian `u64`; absent before the first tick. The value in
/// the journal is never the smaller one.
const META_RUNNING_TIME: &str = "running_time";

/// Main file: how far the rollups have come: the number of the journal's last row whose turns they have, and the position
/// of the last of those turns, as little-endian `u64`s.
const META_ROLLED_UP: &str = "rolled_up";
/// Main file: while the turns of some rows are moved into the rollups part by part: the number of the last of those rows,
/// and the key of the last part.
const META_ROLLING_UP: &str = "rolling_up";
/// Main file: the generation of the costs, and by which prices they are. See [`CostState`].
const META_COSTS: &str = "costs";
/// Main file: the generation of costs that is being derived, if one is. See [`Repricing`].
const META_REPRICING: &str = "repricing";

/// How far the rollups have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RolledUp {
    /// The number of the journal's last row whose turns they have.
    pub(crate) row: u64,
    /// The position of the last of those turns.
    pub(crate) position: u64,
}

/// What the costs in the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CostState {
    /// The generation that is shown.
    pub(crate) generation: u32,
    /// The latest generation that was begun. What is left of one that was given up must not be taken for another.
    pub(crate) latest: u32,
    /// By which prices they are.
    pub(crate) prices: PricedBy,
}

/// By which prices some costs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PricedBy {
    /// There are no costs yet.
    Nothing,
    /// By the price book of this digest.
    Book(u64),
    /// By several books: whoever opens the store derives them anew.
    Several,
}

/// Costs that are being derived anew, while those of the generation before are shown. Turns that are rolled up meanwhile
/// add to both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repricing {
    pub(crate) generation: u32,
    /// The digest of the price book.
    pub(crate) digest: u64,
    /// The position of the last turn that has to be priced anew.
    pub(crate) last: u64,
    /// The position of the last turn that was.
    pub(crate) done: u64,
}

/// The format of the files. To be raised once a released version differs: with a new table of data, too.
pub(crate) const FORMAT: u32 = 1;

/// The name of the format of a file.
fn format_name(file: StoreFile) -> &'static str {
    match file {
        StoreFile::Main => META_FORMAT,
        StoreFile::Journal => META_JOURNAL_FORMAT,
    }
}

/// Whether a file is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// No table at all: a new file.
    Blank,
    /// Ours, of this format.
    Format(u32),
    /// A database, but of another program.
    Foreign,
}

impl Stamp {
    pub(crate) fn of(database: &Database, file: StoreFile) -> Result<Self, Failure> {
        let txn = database.begin_read()?;
        let meta = match txn.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::TableDoesNotExist(_)) if txn.list_tables()?.next().is_none() => return Ok(Self::Blank),
            Err(TableError::Storage(error)) => return Err(error.into()),
            Err(_) => return Ok(Self::Foreign),
        };
        let format = meta.get(format_name(file))?.and_then(|bytes| bytes.value().try_into().ok());
        Ok(format.map(u32::from_le_bytes).map_or(Self::Foreign, Self::Format))
    }
}

/// The failure of a main file whose newest row of the journal contradicts its checkpoint.
pub(crate) fn newest_is_damaged() -> Failure {
    Failure::Meta(META_NEWEST)
}

/// The table `meta` of a file, open to read or write.
pub(crate) struct Meta<T>(T);

/// For reading, in one state of a file.
pub(crate) type ReadMeta = Meta<ReadOnlyTable<&'static str, &'static [u8]>>;
/// For writing, in a write transaction. The table stays open until this is dropped.
pub(crate) type WriteMeta<'txn> = Meta<Table<'txn, &'static str, &'static [u8]>>;

impl ReadMeta {
    pub(crate) fn read(txn: &ReadTransaction) -> Result<Self, Failure> {
        Ok(Self(txn.open_table(META)?))
    }

    /// As the file is now.
    pub(crate) fn of(database: &Database) -> Result<Self, Failure> {
        Self::read(&database.begin_read()?)
    }
}

/// A table with the rows of `meta`, to be read at least.
pub(crate) trait MetaTable: ReadableTable<&'static str, &'static [u8]> {}

impl<T: ReadableTable<&'static str, &'static [u8]>> MetaTable for T {}

impl<T: MetaTable> Meta<T> {
    /// One of the values of a known length.
    fn value<const N: usize>(&self, name: &'static str) -> Result<[u8; N], Failure> {
        let bytes = self.0.get(name)?.and_then(|bytes| bytes.value().try_into().ok());
        bytes.ok_or(Failure::Meta(name))
    }

    fn id(&self, name: &'static str) -> Result<Uuid, Failure> {
        self.value(name).map(Uuid::from_bytes)
    }

    fn number(&self, name: &'static str) -> Result<u64, Failure> {
        self.value(name).map(u64::from_le_bytes)
    }

    fn mark(&self, name: &'static str) -> Result<JournalMark, Failure> {
        self.value(name).map(JournalMark::from_bytes)
    }

    /// Both files: the store's id.
    pub(crate) fn store_id(&self) -> Result<Uuid, Failure> {
        self.id(META_STORE_ID)
    }

    /// Main file: the store's lineage.
    pub(crate) fn lineage(&self) -> Result<Lineage, Failure> {
        self.id(META_LINEAGE).map(Lineage)
    }

    /// Journal: its own id.
    pub(crate) fn journal_id(&self) -> Result<Uuid, Failure> {
        self.id(META_JOURNAL_ID)
    }

    /// Main file: the id of the journal that may hold what the tables do not, if one does.
    pub(crate) fn bound_journal(&self) -> Result<Option<Uuid>, Failure> {
        let is_bound = self.0.get(META_JOURNAL)?.is_some();
        is_bound.then(|| self.id(META_JOURNAL)).transpose()
    }

    /// Main file: the last row of the journal of which everything is in the tables.
    pub(crate) fn checkpoint(&self) -> Result<JournalMark, Failure> {
        self.mark(META_CHECKPOINT)
    }

    /// Main file: the newest row of the journal when it was last written to.
    pub(crate) fn newest(&self) -> Result<JournalMark, Failure> {
        self.mark(META_NEWEST)
    }

    /// Journal: the row after which it begins.
    pub(crate) fn base(&self) -> Result<JournalMark, Failure> {
        self.mark(META_BASE)
    }

    /// Main file: the bytes of all rows of data.
    pub(crate) fn live_bytes(&self) -> Result<u64, Failure> {
        self.number(META_LIVE_BYTES)
    }

    /// Main file: the key of the next new conversation.
    pub(crate) fn next_key(&self) -> Result<u64, Failure> {
        self.number(META_NEXT_KEY)
    }

    /// Main file: how far the rollups have come.
    pub(crate) fn rolled_up(&self) -> Result<RolledUp, Failure> {
        let bytes: [u8; 16] = self.value(META_ROLLED_UP)?;
        let number = |at: usize| {
            let bytes = bytes[at..].first_chunk().ok_or(Failure::Meta(META_ROLLED_UP))?;
            Ok::<_, Failure>(u64::from_le_bytes(*bytes))
        };
        Ok(RolledUp { row: number(0)?, position: number(8)? })
    }

    /// Main file: the number of the last row whose turns are being moved into the rollups, and the key of the last part that
    /// was.
    pub(crate) fn rolling_up<K: DeserializeOwned>(&self) -> Result<Option<(u64, K)>, Failure> {
        self.optional(META_ROLLING_UP)
    }

    /// Main file: what the costs are.
    pub(crate) fn costs(&self) -> Result<CostState, Failure> {
        self.optional(META_COSTS)?.ok_or(Failure::Meta(META_COSTS))
    }

    /// Main file: the costs that are being derived, if some are.
    pub(crate) fn repricing(&self) -> Result<Option<Repricing>, Failure> {
        self.optional(META_REPRICING)
    }

    /// A value in the encoding of records.
    fn optional<V: DeserializeOwned>(&self, name: &'static str) -> Result<Option<V>, Failure> {
        let Some(bytes) = self.0.get(name)? else { return Ok(None) };
        postcard::from_bytes(bytes.value()).map(Some).map_err(|_| Failure::Meta(name))
    }

    /// Main file: the number of a repair that is under way.
    pub(crate) fn next_repair(&self) -> Result<u64, Failure> {
        let is_first = self.0.get(META_REPAIRS)?.is_none();
        Ok(if is_first { 1 } else { self.number(META_REPAIRS)?.saturating_add(1) })
    }

    /// Both files: the running time.
    pub(crate) fn running_time(&self) -> Result<RunningTime, Failure> {
        let is_known = self.0.get(META_RUNNING_TIME)?.is_some();
        Ok(if is_known { RunningTime::new(self.number(META_RUNNING_TIME)?) } else { RunningTime::default() })
    }
}

impl<'txn> WriteMeta<'txn> {
    pub(crate) fn write(txn: &'txn WriteTransaction) -> Result<Self, Failure> {
        Ok(Self(txn.open_table(META)?))
    }

    fn set(&mut self, name: &'static str, value: &[u8]) -> Result<(), Failure> {
        self.0.insert(name, value)?;
        Ok(())
    }

    fn set_number(&mut self, name: &'static str, value: u64) -> Result<(), Failure> {
        self.set(name, &value.to_le_bytes())
    }

    /// Makes a blank file the main file of a new store.
    pub(crate) fn stamp_main(&mut self) -> Result<(), Failure> {
        self.set(META_FORMAT, &FORMAT.to_le_bytes())?;
        self.set(META_STORE_ID, Uuid::new_v4().as_bytes())?;
        self.draw_lineage()?;
        self.set_next_key(1)?;
        self.advance_checkpoint(JournalMark::default())?;
        self.note_newest(JournalMark::default())?;
        self.set_rolled_up(RolledUp::default())?;
        self.set_costs(CostState { generation: 1, latest: 1, prices: PricedBy::Nothing })?;
        self.set_live_bytes(0)
    }

    /// Main file: begins a new lineage, so that earlier positions and revisions no longer match its contents.
    pub(crate) fn draw_lineage(&mut self) -> Result<(), Failure> {
        self.set(META_LINEAGE, Uuid::new_v4().as_bytes())
    }

    /// Makes a blank file a journal of the store, whose first row follows `base`.
    pub(crate) fn stamp_journal(&mut self, store_id: Uuid, base: JournalMark) -> Result<(), Failure> {
        self.set(META_JOURNAL_FORMAT, &FORMAT.to_le_bytes())?;
        self.set(META_STORE_ID, store_id.as_bytes())?;
        self.set(META_JOURNAL_ID, Uuid::new_v4().as_bytes())?;
        self.set_base(base)
    }

    /// Main file: removes the lineage, as only damage can.
    #[cfg(test)]
    pub(crate) fn forget_lineage(&mut self) {
        self.0.remove(META_LINEAGE).unwrap();
    }

    /// Main file: has a new lineage begin when this file, or a copy of it, is opened next.
    pub(crate) fn draw_lineage_when_opened(&mut self) -> Result<(), Failure> {
        self.set(META_NEW_LINEAGE, b"")
    }

    /// Main file: the store is open. From now on this journal may hold what the tables do not.
    pub(crate) fn bind_journal(&mut self, id: Uuid) -> Result<(), Failure> {
        if self.0.remove(META_NEW_LINEAGE)?.is_some() {
            self.draw_lineage()?;
        }
        self.set(META_JOURNAL, id.as_bytes())
    }

    /// Main file: it needs no journal any more, as the tables hold everything. The next journal continues after `last`.
    pub(crate) fn release_journal(&mut self, last: JournalMark) -> Result<(), Failure> {
        self.advance_checkpoint(last)?;
        self.note_newest(last)?;
        self.0.remove(META_JOURNAL)?;
        Ok(())
    }

    /// Main file: the tables hold everything up to this row of the journal.
    pub(crate) fn advance_checkpoint(&mut self, row: JournalMark) -> Result<(), Failure> {
        self.set(META_CHECKPOINT, &row.to_bytes())
    }

    /// Main file: the journal has durable rows up to this one.
    pub(crate) fn note_newest(&mut self, row: JournalMark) -> Result<(), Failure> {
        self.set(META_NEWEST, &row.to_bytes())
    }

    /// Main file: the rollups have all turns up to here.
    pub(crate) fn set_rolled_up(&mut self, rolled_up: RolledUp) -> Result<(), Failure> {
        let bytes = [rolled_up.row, rolled_up.position].map(u64::to_le_bytes);
        self.set(META_ROLLED_UP, bytes.as_flattened())?;
        self.0.remove(META_ROLLING_UP)?;
        Ok(())
    }

    /// Main file: of the turns up to this row, the rollups have the parts up to this key.
    pub(crate) fn set_rolling_up(&mut self, row: u64, key: &impl Serialize) -> Result<(), Failure> {
        self.set_optional(META_ROLLING_UP, Some(&(row, key)))
    }

    /// Main file: what the costs are.
    pub(crate) fn set_costs(&mut self, costs: CostState) -> Result<(), Failure> {
        self.set_optional(META_COSTS, Some(&costs))
    }

    /// Main file: the costs that are being derived, if some are.
    pub(crate) fn set_repricing(&mut self, repricing: Option<Repricing>) -> Result<(), Failure> {
        self.set_optional(META_REPRICING, repricing.as_ref())
    }

    fn set_optional(&mut self, name: &'static str, value: Option<&impl Serialize>) -> Result<(), Failure> {
        let Some(value) = value else {
            self.0.remove(name)?;
            return Ok(());
        };
        let bytes = postcard::to_stdvec(value).map_err(|_| Failure::Meta(name))?;
        self.set(name, &bytes)
    }

    /// Main file: the repair is done.
    pub(crate) fn end_repair(&mut self) -> Result<(), Failure> {
        let repair = self.next_repair()?;
        self.set_number(META_REPAIRS, repair)
    }

    /// Journal: it begins after this row.
    pub(crate) fn set_base(&mut self, row: JournalMark) -> Result<(), Failure> {
        self.set(META_BASE, &row.to_bytes())
    }

    /// Main file: the rows of data have grown by so many bytes.
    pub(crate) fn add_live_bytes(&mut self, growth: i64) -> Result<(), Failure> {
        let live_bytes = self.live_bytes()?.saturating_add_signed(growth);
        self.set_live_bytes(live_bytes)
    }

    pub(crate) fn set_live_bytes(&mut self, live_bytes: u64) -> Result<(), Failure> {
        self.set_number(META_LIVE_BYTES, live_bytes)
    }

    pub(crate) fn set_next_key(&mut self, key: u64) -> Result<(), Failure> {
        self.set_number(META_NEXT_KEY, key)
    }

    /// Both files.
    pub(crate) fn set_running_time(&mut self, running: RunningTime) -> Result<(), Failure> {
        self.set_number(META_RUNNING_TIME, running.get())
    }

    /// Writes a value so that a durable commit of it shows that writes work.
    pub(crate) fn touch(&mut self) -> Result<(), Failure> {
        let previous = self.0.get(META_WRITE_CHECK)?.and_then(|bytes| bytes.value().try_into().ok());
        let count = previous.map_or(0, u64::from_le_bytes).wrapping_add(1);
        self.set_number(META_WRITE_CHECK, count)
    }
}

#[cfg(test)]
mod tests {
    use redb::Builder;
    use redb::backends::InMemoryBackend;

    use super::*;

    fn blank() -> Database {
        Builder::new().create_with_backend(InMemoryBackend::new()).unwrap()
    }

    fn change(database: &Database, change: impl FnOnce(&mut WriteMeta<'_>) -> Result<(), Failure>) -> ReadMeta {
        let txn = database.begin_write().unwrap();
        change(&mut WriteMeta::write(&txn).unwrap()).unwrap();
        txn.commit().unwrap();
        ReadMeta::of(database).unwrap()
    }

    #[test]
    fn each_file_is_known_by_its_own_name_of_the_format() {
        let (main, journal) = (blank(), blank());
        let of = |database: &Database| [StoreFile::Main, StoreFile::Journal].map(|file| Stamp::of(database, file));
        assert!(matches!(of(&main), [Ok(Stamp::Blank), Ok(Stamp::Blank)]));
        change(&main, |meta| meta.stamp_main());
        change(&journal, |meta| meta.stamp_journal(Uuid::from_u128(1), JournalMark::default()));
        assert!(matches!(of(&main), [Ok(Stamp::Format(FORMAT)), Ok(Stamp::Foreign)]));
        assert!(matches!(of(&journal), [Ok(Stamp::Foreign), Ok(Stamp::Format(FORMAT))]));
        change(&main, |meta| meta.set(META_FORMAT, &7u32.to_le_bytes()));
        assert!(matches!(Stamp::of(&main, StoreFile::Main), Ok(Stamp::Format(7))));
        change(&main, |meta| meta.set(META_FORMAT, b"7"));
        assert!(matches!(Stamp::of(&main, StoreFile::Main), Ok(Stamp::Foreign)), "that is no format");
    }

    #[test]
    fn a_value_that_is_missing_or_of_another_length_is_damaged_and_named() {
        let database = blank();
        let meta = change(&database, |meta| meta.set(META_LIVE_BYTES, b"short"));
        for (read, name) in [
            (meta.live_bytes().map(drop), "live_bytes"),
            (meta.next_key().map(drop), "next_conversation_key"),
            (meta.checkpoint().map(drop), "checkpoint"),
            (meta.newest().map(drop), "newest_row"),
            (meta.base().map(drop), "base"),
            (meta.store_id().map(drop), "store_id"),
            (meta.lineage().map(drop), "lineage"),
            (meta.journal_id().map(drop), "journal_id"),
        ] {
            assert!(matches!(read, Err(Failure::Meta(found)) if found == name), "{name}: {read:?}");
        }
        assert_eq!(meta.running_time().unwrap(), RunningTime::default(), "before the first tick");
        assert_eq!(meta.bound_journal().unwrap(), None);
        assert_eq!(meta.next_repair().unwrap(), 1);
    }

    #[test]
    fn a_copy_begins_a_new_lineage_when_it_is_opened_and_only_then() {
        let database = blank();
        let first = change(&database, |meta| meta.stamp_main()).lineage().unwrap();
        let opened =
            |database: &Database| change(database, |meta| meta.bind_journal(Uuid::from_u128(7))).lineage().unwrap();
        assert_eq!(opened(&database), first);
        let asked = change(&database, |meta| meta.draw_lineage_when_opened()).lineage().unwrap();
        assert_eq!(asked, first, "until it is opened");
        let second = opened(&database);
        assert_ne!(second, first);
        assert_eq!(opened(&database), second, "once");
    }

    #[test]
    fn a_journal_that_is_released_leaves_its_last_row_as_both_marks() {
        let database = blank();
        change(&database, |meta| meta.stamp_main());
        let bound = change(&database, |meta| meta.bind_journal(Uuid::from_u128(7)));
        assert_eq!(bound.bound_journal().unwrap(), Some(Uuid::from_u128(7)));
        let last = JournalMark { number: 4, checksum: 5 };
        let released = change(&database, |meta| meta.release_journal(last));
        assert_eq!(released.bound_journal().unwrap(), None);
        assert_eq!((released.checkpoint().unwrap(), released.newest().unwrap()), (last, last));
    }

    #[test]
    fn repairs_are_numbered_and_live_bytes_never_fall_below_none() {
        let database = blank();
        change(&database, |meta| meta.stamp_main());
        for repair in 1..=3 {
            assert_eq!(ReadMeta::of(&database).unwrap().next_repair().unwrap(), repair);
            change(&database, |meta| meta.end_repair());
        }
        for (growth, expected) in [(100, 100), (-40, 60), (-100, 0)] {
            assert_eq!(change(&database, |meta| meta.add_live_bytes(growth)).live_bytes().unwrap(), expected);
        }
    }
}
