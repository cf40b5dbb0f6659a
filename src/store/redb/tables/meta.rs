//! The table `meta`, which both files have. It has the facts about a file. No other module uses its keys.
//!
//! Its rows have checksums as other rows have: a damaged id, mark or next key would do more harm than any other row.

use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::failure::Failure;
use super::guarded::look_up;
use super::journal_mark::JournalMark;
use super::record::damaged::DamagedRecord;
use super::row::{self, Row, Rows, Stored};
use super::store_file::StoreFile;
use crate::store::position::Lineage;
use crate::store::retention::TrustedClock;
use crate::turn::RunningTime;

/// The rows of [`META`].
#[derive(Debug)]
pub(crate) struct MetaRows;

impl Rows for MetaRows {
    type Key = &'static str;
    const NAME: &'static str = "meta";
    const WHAT: &'static str = "record of the store's own";
}

/// The key of a row is one of the `META_` names below.
pub(crate) const META: TableDefinition<&str, Row<MetaRows>> = TableDefinition::new(MetaRows::NAME);

/// Defines the names and the list of all of them.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* const $name: &str = $text;)*

        /// All names.
        const META_ALL: &[&str] = &[$($name),*];
    };
}

names! {
    /// Main file: the format of the file, as a little-endian `u32`.
    META_FORMAT = "format";
    /// Journal: the format of the file. It has another name than in the main file, so that neither file is mistaken for the
    /// other.
    META_JOURNAL_FORMAT = "journal_format";
    /// The id that the store drew when it was created, 16 bytes. It is the same in both files, which shows that they belong
    /// together.
    META_STORE_ID = "store_id";
    /// Main file: the store's lineage, 16 bytes. See [`Lineage`] for when it is drawn.
    META_LINEAGE = "lineage";
    /// Main file: present if the store begins a new lineage when it is opened next.
    META_NEW_LINEAGE = "new_lineage";
    /// Main file: the key of the next new conversation, as a little-endian `u64`.
    META_NEXT_KEY = "next_conversation_key";
    /// Main file: the mark of the last row of the journal that the tables have in full: its number and checksum, 16 bytes.
    META_CHECKPOINT = "checkpoint";
    /// Main file: the mark of the journal's newest row when the main file was last written. It shows that a journal is an
    /// older copy, even if the checkpoint has not passed the rows that the copy lacks.
    META_NEWEST = "newest_row";
    /// Journal: the base, which is the mark of the last row that was dropped, or of the row after which the journal begins.
    META_BASE = "base";
    /// Main file: the id of the journal that may have changes which the tables lack, 16 bytes; absent if there is no such
    /// journal.
    META_JOURNAL = "journal";
    /// Journal: the id that the journal drew when it was made, 16 bytes.
    META_JOURNAL_ID = "journal_id";
    /// Main file: the number of bytes of all rows of data, keys and values, as a little-endian `u64`.
    META_LIVE_BYTES = "live_bytes";
    /// Main file: the number of the latest repair, as a little-endian `u64`; absent before the first repair.
    META_REPAIRS = "repairs";
    /// Both files: a counter that a write check raises, to show that a durable write works.
    META_WRITE_CHECK = "write_check";
    /// Both files: the running time in milliseconds, as a little-endian `u64`; absent before the first tick. The value in
    /// the journal is never smaller than that in the main file.
    META_RUNNING_TIME = "running_time";
    /// Main file: how far the rollups have come. The value is the number of the last row of the journal whose turns the
    /// rollups count, and the position of the last of those turns, as little-endian `u64`s.
    META_ROLLED_UP = "rolled_up";
    /// Main file: present while the sums of a memtable's table are moved into the rollups part by part. The value is the
    /// number of that table's last row, and the key of the last part that was moved.
    META_ROLLING_UP = "rolling_up";
    /// Main file: the generation of the costs, and the prices that they are computed by. See [`CostState`].
    META_COSTS = "costs";
    /// Main file: what is known of the clock of the host. See [`TrustedClock`].
    META_CLOCK = "trusted_clock";
    /// Main file: the repricing that is under way, if one is. See [`Repricing`].
    META_REPRICING = "repricing";
}

/// How far the rollups have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RolledUp {
    /// The number of the last row of the journal whose turns the rollups count.
    pub(crate) row: u64,
    /// The position of the last of those turns.
    pub(crate) position: u64,
}

/// The generations of the costs in the tables, and the prices that they are computed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CostState {
    /// The generation that reads show.
    pub(crate) generation: u32,
    /// The latest generation that was begun. A generation that was given up may have left rows, so its number is not
    /// used again.
    pub(crate) latest: u32,
    /// The prices of the generation that is shown.
    pub(crate) prices: PricedBy,
}

impl CostState {
    /// Returns whether the costs that reads show are by other prices than those of this price book.
    pub(crate) fn is_repricing(&self, digest: u64) -> bool {
        ![PricedBy::Nothing, PricedBy::Book(digest)].contains(&self.prices)
    }
}

/// The prices that some costs are computed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PricedBy {
    /// There are no costs yet.
    Nothing,
    /// The price book with this digest.
    Book(u64),
    /// Several price books. The next opening of the store computes the costs anew.
    Several,
}

/// A repricing that is under way: all costs are computed anew, while reads show the generation before. Turns that are
/// rolled up meanwhile add to both generations, both times at the new prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repricing {
    pub(crate) generation: u32,
    /// The digest of the price book.
    pub(crate) digest: u64,
    /// The position of the last turn that has to be priced anew.
    pub(crate) last: u64,
    /// The position of the last turn that was priced anew.
    pub(crate) done: u64,
}

/// The format of the files. After a release, each change of the format raises this number, even if it only adds a
/// table.
pub(crate) const FORMAT: u32 = 1;

/// Returns the name under which a file has its format.
fn format_name(file: StoreFile) -> &'static str {
    match file {
        StoreFile::Main => META_FORMAT,
        StoreFile::Journal => META_JOURNAL_FORMAT,
    }
}

/// What a file is: new, a file of a store, or a file of another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// A new file without any table.
    Blank,
    /// A file of a store, with this format.
    Format(u32),
    /// A database of another program.
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
        // A format without a checksum is of a program before the present format, whatever its number.
        if let Some(row) = meta.get(format_name(file))?
            && let Ok(format) = row.value().unverified().try_into()
        {
            let format = u32::from_le_bytes(format);
            return Ok(Self::Format(if format == FORMAT { 0 } else { format }));
        }
        let meta = Meta(meta);
        let format = meta.bytes(format_name(file))?.and_then(|bytes| bytes.try_into().ok());
        Ok(format.map(u32::from_le_bytes).map_or(Self::Foreign, Self::Format))
    }
}

/// Returns the store's id, if it is among these rows, whose table is unknown.
pub(crate) fn store_id_among<'a>(mut rows: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Uuid> {
    let id = rows.find_map(|(name, row)| {
        let row = Stored::<MetaRows>::as_it_is(row);
        if name == META_STORE_ID.as_bytes() { row.verify(&META_STORE_ID).ok() } else { None }
    });
    id.and_then(|id| Uuid::from_slice(id).ok())
}

/// Returns whether a damaged row with this name may be the note that the main file needs a journal.
pub(crate) fn may_be_note_of_journal(name: &str) -> bool {
    name == META_JOURNAL || !META_ALL.contains(&name)
}

/// The failure of a main file whose newest row of the journal contradicts its checkpoint.
pub(crate) fn newest_is_damaged() -> Failure {
    Failure::Meta(META_NEWEST)
}

/// The table `meta` of a file, open to read or write.
pub(crate) struct Meta<T>(T);

/// The table `meta` for reading, in one state of a file.
pub(crate) type ReadMeta = Meta<ReadOnlyTable<&'static str, Row<MetaRows>>>;
/// The table `meta` for writing, in a write transaction. The table stays open until this is dropped.
pub(crate) type WriteMeta<'txn> = Meta<Table<'txn, &'static str, Row<MetaRows>>>;

impl ReadMeta {
    pub(crate) fn read(txn: &ReadTransaction) -> Result<Self, Failure> {
        Ok(Self(txn.open_table(META)?))
    }

    /// Reads the file as it is now.
    pub(crate) fn of(database: &Database) -> Result<Self, Failure> {
        Self::read(&database.begin_read()?)
    }
}

/// A table with the rows of `meta` that can at least be read.
pub(crate) trait MetaTable: ReadableTable<&'static str, Row<MetaRows>> {}

impl<T: ReadableTable<&'static str, Row<MetaRows>>> MetaTable for T {}

impl<T: MetaTable> Meta<T> {
    /// Returns a value, if it is present.
    fn bytes(&self, name: &'static str) -> Result<Option<Vec<u8>>, Failure> {
        match look_up::<MetaRows>(&self.0, &name) {
            Ok(Some(row)) => Ok(Some(row.value().verify(&name).map_err(|_| Failure::Meta(name))?.to_vec())),
            Ok(None) => Ok(None),
            Err(Failure::Record(_)) => Err(Failure::Meta(name)),
            Err(failure) => Err(failure),
        }
    }

    /// Returns a value of a known length.
    fn value<const N: usize>(&self, name: &'static str) -> Result<[u8; N], Failure> {
        let bytes = self.bytes(name)?.and_then(|bytes| bytes.try_into().ok());
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

    /// Returns the names of the rows whose checksums do not fit, each with what is wrong and its bytes.
    pub(crate) fn damaged(&self) -> Result<Vec<(String, DamagedRecord, Vec<u8>)>, Failure> {
        let mut all = Vec::new();
        for row in self.0.iter()? {
            let (name, row) = row?;
            if let Err(damaged) = row.value().verify(&name.value()) {
                all.push((name.value().to_owned(), damaged, row.value().unverified().to_vec()));
            }
        }
        Ok(all)
    }

    /// Main file: returns the names of the values that every main file has and that this one lacks. Not among them are
    /// the ids, the lineage and the next key.
    pub(crate) fn missing(&self) -> Result<Vec<&'static str>, Failure> {
        let all = [
            self.value::<4>(META_FORMAT).map(drop),
            self.checkpoint().map(drop),
            self.newest().map(drop),
            self.rolled_up().map(drop),
            self.costs().map(drop),
            self.live_bytes().map(drop),
        ];
        let mut missing = Vec::new();
        for read in all {
            match read {
                Err(Failure::Meta(name)) => missing.push(name),
                read => read?,
            }
        }
        Ok(missing)
    }

    /// Returns an error if a value is damaged, or if a value is missing that every such file has.
    pub(crate) fn verify(&self, file: StoreFile) -> Result<(), Failure> {
        if let Some((name, damaged, _)) = self.damaged()?.into_iter().next() {
            let known = META_ALL.iter().find(|known| **known == name);
            return Err(known.map_or(Failure::Record(damaged), |name| Failure::Meta(name)));
        }
        self.store_id()?;
        self.running_time()?;
        match file {
            StoreFile::Main => {
                self.lineage()?;
                self.bound_journal()?;
                self.next_key()?;
                self.next_repair()?;
                self.repricing()?;
                self.missing()?.into_iter().try_for_each(|name| Err(Failure::Meta(name)))
            }
            StoreFile::Journal => {
                self.value::<4>(META_JOURNAL_FORMAT)?;
                self.journal_id()?;
                self.base().map(drop)
            }
        }
    }

    /// Both files: returns the store's id.
    pub(crate) fn store_id(&self) -> Result<Uuid, Failure> {
        self.id(META_STORE_ID)
    }

    /// Main file: returns the store's lineage.
    pub(crate) fn lineage(&self) -> Result<Lineage, Failure> {
        self.id(META_LINEAGE).map(Lineage)
    }

    /// Journal: returns the journal's id.
    pub(crate) fn journal_id(&self) -> Result<Uuid, Failure> {
        self.id(META_JOURNAL_ID)
    }

    /// Main file: returns the id of the journal that may have changes which the tables lack, if there is one.
    pub(crate) fn bound_journal(&self) -> Result<Option<Uuid>, Failure> {
        let is_bound = self.bytes(META_JOURNAL)?.is_some();
        is_bound.then(|| self.id(META_JOURNAL)).transpose()
    }

    /// Main file: returns the mark of the last row of the journal that the tables have in full.
    pub(crate) fn checkpoint(&self) -> Result<JournalMark, Failure> {
        self.mark(META_CHECKPOINT)
    }

    /// Main file: returns the mark of the journal's newest row when the main file was last written.
    pub(crate) fn newest(&self) -> Result<JournalMark, Failure> {
        self.mark(META_NEWEST)
    }

    /// Journal: returns the mark of the row after which the journal begins.
    pub(crate) fn base(&self) -> Result<JournalMark, Failure> {
        self.mark(META_BASE)
    }

    /// Main file: returns the bytes of all rows of data.
    pub(crate) fn live_bytes(&self) -> Result<u64, Failure> {
        self.number(META_LIVE_BYTES)
    }

    /// Main file: returns the key of the next new conversation.
    pub(crate) fn next_key(&self) -> Result<u64, Failure> {
        self.number(META_NEXT_KEY)
    }

    /// Main file: returns how far the rollups have come.
    pub(crate) fn rolled_up(&self) -> Result<RolledUp, Failure> {
        let bytes: [u8; 16] = self.value(META_ROLLED_UP)?;
        let number = |at: usize| {
            let bytes = bytes[at..].first_chunk().ok_or(Failure::Meta(META_ROLLED_UP))?;
            Ok::<_, Failure>(u64::from_le_bytes(*bytes))
        };
        Ok(RolledUp { row: number(0)?, position: number(8)? })
    }

    /// Main file: returns the number of the last row whose turns are being moved into the rollups, and the key of the
    /// last part that was moved.
    pub(crate) fn rolling_up<K: DeserializeOwned>(&self) -> Result<Option<(u64, K)>, Failure> {
        self.optional(META_ROLLING_UP)
    }

    /// Main file: the generations and the prices of the costs.
    pub(crate) fn costs(&self) -> Result<CostState, Failure> {
        self.optional(META_COSTS)?.ok_or(Failure::Meta(META_COSTS))
    }

    /// Main file: the repricing that is under way, if one is.
    pub(crate) fn repricing(&self) -> Result<Option<Repricing>, Failure> {
        self.optional(META_REPRICING)
    }

    /// Main file: what is known of the clock of the host, if turns were to be dropped before.
    pub(crate) fn clock(&self) -> Result<Option<TrustedClock>, Failure> {
        self.optional(META_CLOCK)
    }

    /// Returns a value in the encoding of records, if it is present.
    fn optional<V: DeserializeOwned>(&self, name: &'static str) -> Result<Option<V>, Failure> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        postcard::from_bytes(&bytes).map(Some).map_err(|_| Failure::Meta(name))
    }

    /// Main file: returns the number of the next repair.
    pub(crate) fn next_repair(&self) -> Result<u64, Failure> {
        let is_first = self.bytes(META_REPAIRS)?.is_none();
        Ok(if is_first { 1 } else { self.number(META_REPAIRS)?.saturating_add(1) })
    }

    /// Both files: returns the running time.
    pub(crate) fn running_time(&self) -> Result<RunningTime, Failure> {
        let is_known = self.bytes(META_RUNNING_TIME)?.is_some();
        Ok(if is_known { RunningTime::new(self.number(META_RUNNING_TIME)?) } else { RunningTime::default() })
    }
}

impl<'txn> WriteMeta<'txn> {
    pub(crate) fn write(txn: &'txn WriteTransaction) -> Result<Self, Failure> {
        Ok(Self(txn.open_table(META)?))
    }

    fn set(&mut self, name: &'static str, value: &[u8]) -> Result<(), Failure> {
        self.0.insert(name, row::seal(&name, &mut value.to_vec()))?;
        Ok(())
    }

    /// Removes a row.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Failure> {
        self.0.remove(name)?;
        Ok(())
    }

    /// Main file: adds what a file with damaged values lacks, as far as these values follow from the rest of the file:
    /// from the next key, and from the number of the last repair that has left rows. Draws a new id and a new lineage
    /// if these are lost. The sums begin anew.
    pub(crate) fn complete(&mut self, next_key: u64, last_repair: u64) -> Result<(), Failure> {
        self.set(META_FORMAT, &FORMAT.to_le_bytes())?;
        if self.store_id().is_err() {
            self.set(META_STORE_ID, Uuid::new_v4().as_bytes())?;
        }
        if self.lineage().is_err() {
            self.draw_lineage()?;
        }
        if self.next_key().is_err() {
            self.set_next_key(next_key)?;
        }
        if self.next_repair()? <= last_repair {
            self.set_number(META_REPAIRS, last_repair)?;
        }
        if self.rolled_up().is_err() {
            self.set_rolled_up(RolledUp::default())?;
        }
        if self.costs().is_err() {
            self.set_costs(CostState { generation: 1, latest: 1, prices: PricedBy::Nothing })?;
        }
        if self.live_bytes().is_err() {
            self.set_live_bytes(0)?;
        }
        Ok(())
    }

    /// Both files: writes a row of the table as it was in another file.
    pub(crate) fn restore(&mut self, name: &str, row: Stored<'_, MetaRows>) -> Result<(), Failure> {
        self.0.insert(name, row)?;
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

    /// Main file: sets the id of a store whose file is built anew.
    pub(crate) fn set_store_id(&mut self, id: Uuid) -> Result<(), Failure> {
        self.set(META_STORE_ID, id.as_bytes())
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

    /// Main file: removes the lineage. Outside of tests, only damage can do that.
    #[cfg(test)]
    pub(crate) fn forget_lineage(&mut self) {
        self.0.remove(META_LINEAGE).unwrap();
    }

    /// Main file: makes the next opening of this file, or of a copy of it, begin a new lineage.
    pub(crate) fn draw_lineage_when_opened(&mut self) -> Result<(), Failure> {
        self.set(META_NEW_LINEAGE, b"")
    }

    /// Main file: notes that the store is open. From now on this journal may have changes which the tables lack.
    pub(crate) fn bind_journal(&mut self, id: Uuid) -> Result<(), Failure> {
        if self.0.remove(META_NEW_LINEAGE)?.is_some() {
            self.draw_lineage()?;
        }
        self.set(META_JOURNAL, id.as_bytes())
    }

    /// Main file: notes that the file needs no journal, as the tables have everything. The next journal continues after
    /// `last`.
    pub(crate) fn release_journal(&mut self, last: JournalMark) -> Result<(), Failure> {
        self.advance_checkpoint(last)?;
        self.note_newest(last)?;
        self.0.remove(META_JOURNAL)?;
        Ok(())
    }

    /// Main file: notes that the tables have everything up to this row of the journal.
    pub(crate) fn advance_checkpoint(&mut self, row: JournalMark) -> Result<(), Failure> {
        self.set(META_CHECKPOINT, &row.to_bytes())
    }

    /// Main file: notes that the journal has durable rows up to this one.
    pub(crate) fn note_newest(&mut self, row: JournalMark) -> Result<(), Failure> {
        self.set(META_NEWEST, &row.to_bytes())
    }

    /// Main file: notes that the rollups count all turns up to this row and position.
    pub(crate) fn set_rolled_up(&mut self, rolled_up: RolledUp) -> Result<(), Failure> {
        let bytes = [rolled_up.row, rolled_up.position].map(u64::to_le_bytes);
        self.set(META_ROLLED_UP, bytes.as_flattened())?;
        self.0.remove(META_ROLLING_UP)?;
        Ok(())
    }

    /// Main file: notes that the rollups have a part of the sums of the turns up to this row: the sums up to this key.
    pub(crate) fn set_rolling_up(&mut self, row: u64, key: &impl Serialize) -> Result<(), Failure> {
        self.set_optional(META_ROLLING_UP, Some(&(row, key)))
    }

    /// Main file: the generations and the prices of the costs.
    pub(crate) fn set_costs(&mut self, costs: CostState) -> Result<(), Failure> {
        self.set_optional(META_COSTS, Some(&costs))
    }

    /// Main file: the repricing that is under way, if one is.
    pub(crate) fn set_repricing(&mut self, repricing: Option<Repricing>) -> Result<(), Failure> {
        self.set_optional(META_REPRICING, repricing.as_ref())
    }

    /// Main file: what is known of the clock of the host.
    pub(crate) fn set_clock(&mut self, clock: TrustedClock) -> Result<(), Failure> {
        self.set_optional(META_CLOCK, Some(&clock))
    }

    fn set_optional(&mut self, name: &'static str, value: Option<&impl Serialize>) -> Result<(), Failure> {
        let Some(value) = value else {
            self.0.remove(name)?;
            return Ok(());
        };
        let bytes = postcard::to_stdvec(value).map_err(|_| Failure::Meta(name))?;
        self.set(name, &bytes)
    }

    /// Main file: notes that the next repair is done.
    pub(crate) fn end_repair(&mut self) -> Result<(), Failure> {
        let repair = self.next_repair()?;
        self.set_number(META_REPAIRS, repair)
    }

    /// Journal: notes that the journal begins after this row.
    pub(crate) fn set_base(&mut self, row: JournalMark) -> Result<(), Failure> {
        self.set(META_BASE, &row.to_bytes())
    }

    /// Main file: adds to the bytes of all rows of data.
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

    /// Both files: sets the running time.
    pub(crate) fn set_running_time(&mut self, running: RunningTime) -> Result<(), Failure> {
        self.set_number(META_RUNNING_TIME, running.get())
    }

    /// Changes a value. If the change can be committed, writes work.
    pub(crate) fn touch(&mut self) -> Result<(), Failure> {
        let previous = self.bytes(META_WRITE_CHECK)?.and_then(|bytes| bytes.try_into().ok());
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
        assert!(
            matches!(Stamp::of(&main, StoreFile::Main), Ok(Stamp::Foreign)),
            "a value of another length is no format"
        );
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
        assert_eq!(asked, first, "the lineage changed before the opening");
        let second = opened(&database);
        assert_ne!(second, first);
        assert_eq!(opened(&database), second, "once");
    }

    #[test]
    fn the_id_of_a_store_is_found_among_rows_of_any_table() {
        let id = Uuid::from_u128(7);
        let mut row = id.as_bytes().to_vec();
        row::seal::<MetaRows>(&META_STORE_ID, &mut row);
        let rows: [(&[u8], &[u8]); 3] = [(b"store", b"x"), (b"store_id", b"short"), (b"store_id", &row)];
        assert_eq!(store_id_among(rows.into_iter()), Some(id));
        assert_eq!(store_id_among(rows[..2].iter().copied()), None);
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
