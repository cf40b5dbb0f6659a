//! Recognizes the rows in the leaves of a main file, and stages them in the new file.
//!
//! A leaf that the walk has reached names its table. Any other leaf is tried with each table whose rows have checksums:
//! the checksum covers the name of the table, so a row fits one table only.

use redb::{Key, Table, TableDefinition, TableHandle, Value, WriteTransaction};
use uuid::Uuid;

use super::pages::{Leaf, PAGE_BYTES, PageFile, Widths};
use super::walk::{Reached, Wanted, disk};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::indexed::Indexed;
use crate::store::redb::tables::meta::{META, store_id_among};
use crate::store::redb::tables::row::{CheckedKey, Row, Rows, Stored};
use crate::store::redb::tables::schema::{
    ConversationSumRows, Costs, ErasedCosts, ErasedRollups, INDEX, ImportedSums, Positions, ROWS, Role, Rollups, TURNS,
    TableVisitor, visit_tables,
};

/// Rows of pages that no chain of sound pages leads to: name of the table, key, [`IN_PLACE`] or [`ELSEWHERE`], and the
/// checksum, which distinguishes different rows under one key. Such pages may be of an earlier time. The table is deleted
/// when the new file is complete.
pub(super) const FOUND: TableDefinition<(&str, &[u8], u8, u64), &[u8]> = TableDefinition::new("found_rows");

/// The row is in a page to which a pointer of the table leads: a damaged page, or one below a damaged page.
pub(super) const IN_PLACE: u8 = 0;
/// The row is in a page of which only its rows say what table it is of.
pub(super) const ELSEWHERE: u8 = 1;

/// The tables that are not salvaged, because they are computed anew from the turns.
const DERIVED: [&str; 3] = [Rollups::NAME, Costs::NAME, ConversationSumRows::NAME];

/// The tables whose rows change and do not say which of them is the latest, so a row is taken only from its place.
const TIMELESS: [&str; 3] = [ErasedRollups::NAME, ErasedCosts::NAME, ImportedSums::NAME];

fn widths<K: Key, V: Value>() -> Widths {
    Widths { key: K::fixed_width(), value: V::fixed_width() }
}

/// Returns the tables of a main file that are salvaged.
pub(super) fn wanted() -> Result<Vec<Wanted>, Failure> {
    struct List(Vec<Wanted>);
    impl TableVisitor for List {
        fn visit<K: Key + 'static, V: Value + 'static>(
            &mut self,
            table: TableDefinition<'static, K, V>,
            _: Role,
        ) -> Result<(), Failure> {
            if !DERIVED.contains(&table.name()) {
                self.0.push(Wanted { name: table.name().to_owned(), widths: widths::<K, V>() });
            }
            Ok(())
        }
    }
    let mut list = List(Vec::new());
    visit_tables(&mut list)?;
    Ok(list.0)
}

/// Stages the rows of a leaf to which the walk has come. `is_proved` says whether each page from the header down to it has
/// the checksum of its pointer. If not, the rows are staged among the found ones, and only those that fit their checksums.
pub(super) fn take_reached(
    txn: &WriteTransaction,
    table: &str,
    leaf: Leaf<'_>,
    is_proved: bool,
) -> Result<(), Failure> {
    if table == INDEX.name() && !is_proved {
        stage_index(&mut txn.open_table(FOUND)?, IN_PLACE, sound_index_rows(leaf))?;
    }
    visit_tables(&mut TakeReached { txn, table, leaf, is_proved })
}

fn stage_index(
    found: &mut FoundTable<'_>,
    rank: u8,
    rows: impl IntoIterator<Item = ((u64, u64), u64)>,
) -> Result<(), Failure> {
    for (place, ordinal) in rows {
        found.insert((INDEX.name(), <(u64, u64)>::as_bytes(&place).as_ref(), rank, ordinal), [].as_slice())?;
    }
    Ok(())
}

type FoundTable<'txn> = Table<'txn, (&'static str, &'static [u8], u8, u64), &'static [u8]>;

/// Returns the places and ordinals of those rows of a leaf of the index whose checksums fit.
fn sound_index_rows(leaf: Leaf<'_>) -> Vec<((u64, u64), u64)> {
    let places = leaf.entries().map(|(key, value)| (<(u64, u64)>::from_bytes(key), Indexed::from_bytes(value)));
    places.filter_map(|(place, ordinal)| Some((place, ordinal.verify(place).ok()?))).collect()
}

struct TakeReached<'a> {
    txn: &'a WriteTransaction,
    table: &'a str,
    leaf: Leaf<'a>,
    is_proved: bool,
}

impl TableVisitor for TakeReached<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
        _: Role,
    ) -> Result<(), Failure> {
        if table.name() != self.table || !self.is_proved {
            return Ok(());
        }
        let mut rows = self.txn.open_table(table)?;
        for (key, value) in self.leaf.entries() {
            rows.insert(K::from_bytes(key), V::from_bytes(value))?;
        }
        Ok(())
    }

    fn visit_rows<T: Rows>(&mut self, table: TableDefinition<'static, T::Key, Row<T>>) -> Result<(), Failure> {
        if T::NAME != self.table {
            return Ok(());
        }
        if self.is_proved {
            return self.insert(table);
        }
        let mut found = self.txn.open_table(FOUND)?;
        for (key, value) in self.leaf.entries() {
            let row =
                if fits::<T>(key, value) { Some((key.to_vec(), value.to_vec())) } else { mended::<T>(key, value) };
            if let Some((key, value)) = row {
                let checksum = Stored::<T>::as_it_is(&value).checksum();
                found.insert((T::NAME, &*key, IN_PLACE, checksum), &*value)?;
            }
        }
        Ok(())
    }

    fn visit_other_rows<T: Rows>(
        &mut self,
        table: TableDefinition<'static, T::Key, Row<T>>,
        _: Role,
    ) -> Result<(), Failure> {
        if T::NAME == self.table { self.insert(table) } else { Ok(()) }
    }
}

impl TakeReached<'_> {
    /// Inserts the rows into the table itself.
    fn insert<T: Rows>(&self, table: TableDefinition<'static, T::Key, Row<T>>) -> Result<(), Failure> {
        let mut rows = self.txn.open_table(table)?;
        for (key, value) in self.leaf.entries() {
            if fits::<T>(key, value) {
                rows.insert(T::Key::from_bytes(key), Stored::as_it_is(value))?;
            } else if let Some((key, value)) = mended::<T>(key, value) {
                // A damaged row may have been written again, into a page whose checksum fits the damage.
                rows.insert(T::Key::from_bytes(&key), Stored::as_it_is(&value))?;
            } else if self.is_proved && T::Key::is_valid(key) {
                rows.insert(T::Key::from_bytes(key), Stored::as_it_is(value))?;
            }
        }
        Ok(())
    }
}

/// Removes the found rows that are not in a part of their table which the walk could not reach: the page that has them may
/// be in the place of another one.
pub(super) fn keep_lacking(txn: &WriteTransaction, reached: &Reached) -> Result<(), Failure> {
    struct Lacks<'a> {
        reached: &'a Reached,
        table: &'a str,
        key: &'a [u8],
        is_lacking: bool,
    }
    impl TableVisitor for Lacks<'_> {
        fn visit<K: Key + 'static, V: Value + 'static>(
            &mut self,
            table: TableDefinition<'static, K, V>,
            _: Role,
        ) -> Result<(), Failure> {
            self.is_lacking |=
                table.name() == self.table && self.reached.lacks_key(self.table, self.key, <K as Key>::compare);
            Ok(())
        }
    }
    Ok(txn.open_table(FOUND)?.retain(|(table, key, ..), _| {
        let mut lacks = Lacks { reached, table, key, is_lacking: false };
        visit_tables(&mut lacks).is_ok() && lacks.is_lacking
    })?)
}

/// Returns whether the bytes are a row of the table `T`.
fn fits<T: Rows>(key: &[u8], value: &[u8]) -> bool {
    T::Key::is_valid(key) && Stored::<T>::as_it_is(value).verify(&T::Key::from_bytes(key)).is_ok()
}

/// The largest row whose flipped bit is searched for.
const MAX_MENDED_BYTES: usize = 4096;

/// If one bit of a row was flipped, returns the row as it was.
fn mended<T: Rows>(key: &[u8], value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut row = [key, value].concat();
    if row.len() > MAX_MENDED_BYTES {
        return None;
    }
    for bit in 0..row.len() * 8 {
        row[bit / 8] ^= 1 << (bit % 8);
        let (key, value) = row.split_at(key.len());
        if fits::<T>(key, value) {
            return Some((key.to_vec(), value.to_vec()));
        }
        row[bit / 8] ^= 1 << (bit % 8);
    }
    None
}

/// Stages the rows of a page that the walk has not reached among the found rows, if it is a leaf of a table that is
/// lacking rows. Returns the number of bytes of the page if it is longer than these.
pub(super) fn take_found(
    txn: &WriteTransaction,
    reached: &Reached,
    page: &[u8],
    store_ids: &mut Vec<Uuid>,
) -> Result<Option<usize>, Failure> {
    let mut take = TakeFound { txn, reached, page, is_known: false, bytes: None };
    visit_tables(&mut take)?;
    let (is_known, bytes) = (take.is_known, take.bytes);
    if !is_known && reached.lacks(INDEX.name()) {
        take_index(txn, Leaf::of(page, widths::<(u64, u64), Indexed>()))?;
    }
    if !is_known && reached.lacks(META.name()) {
        store_ids.extend(store_id_in(page));
    }
    Ok(bytes)
}

/// Returns the id of a store, if the page is a leaf with facts about a file.
pub(super) fn store_id_in(page: &[u8]) -> Option<Uuid> {
    store_id_among(Leaf::of(page, widths::<&str, &[u8]>()).entries())
}

struct TakeFound<'a> {
    txn: &'a WriteTransaction,
    reached: &'a Reached,
    page: &'a [u8],
    /// Whether a row of the page fits a table.
    is_known: bool,
    bytes: Option<usize>,
}

impl TableVisitor for TakeFound<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        _: TableDefinition<'static, K, V>,
        _: Role,
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn visit_rows<T: Rows>(&mut self, _: TableDefinition<'static, T::Key, Row<T>>) -> Result<(), Failure> {
        // The positions of a lacking turn may say that it was erased.
        let of_lacking_turns = T::NAME == Positions::NAME && self.reached.lacks(TURNS.name());
        let is_taken = !DERIVED.contains(&T::NAME) && !TIMELESS.contains(&T::NAME);
        let is_wanted = is_taken && self.reached.lacks(T::NAME) || of_lacking_turns;
        if self.is_known || !is_wanted {
            return Ok(());
        }
        let leaf = Leaf::of(self.page, widths::<T::Key, Row<T>>());
        self.bytes = self.bytes.max(leaf.end_beyond());
        let rows: Vec<_> = leaf.entries().filter(|(key, value)| fits::<T>(key, value)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.is_known = true;
        let mut found = self.txn.open_table(FOUND)?;
        for (key, value) in rows {
            if of_lacking_turns || self.reached.lacks_key(T::NAME, key, <T::Key as Key>::compare) {
                let checksum = Stored::<T>::as_it_is(value).checksum();
                found.insert((T::NAME, key, ELSEWHERE, checksum), value)?;
            }
        }
        Ok(())
    }
}

/// Stages the rows of the index whose checksums fit. These checksums are short, so a page counts as a leaf of the index
/// only if it has two such rows.
fn take_index(txn: &WriteTransaction, leaf: Leaf<'_>) -> Result<(), Failure> {
    let rows = sound_index_rows(leaf);
    if rows.len() < 2 {
        return Ok(());
    }
    stage_index(&mut txn.open_table(FOUND)?, ELSEWHERE, rows)
}

/// Returns whether any page of a file has a row of a store, or the id of one.
pub(super) fn has_rows(file: &PageFile) -> Result<bool, Failure> {
    struct Recognize<'a>(&'a [u8], bool);
    impl TableVisitor for Recognize<'_> {
        fn visit<K: Key + 'static, V: Value + 'static>(
            &mut self,
            _: TableDefinition<'static, K, V>,
            _: Role,
        ) -> Result<(), Failure> {
            Ok(())
        }

        fn visit_rows<T: Rows>(&mut self, _: TableDefinition<'static, T::Key, Row<T>>) -> Result<(), Failure> {
            let leaf = Leaf::of(self.0, widths::<T::Key, Row<T>>());
            self.1 = self.1 || leaf.entries().any(|(key, value)| fits::<T>(key, value));
            Ok(())
        }
    }
    for number in 1..file.blocks() {
        let page = file.read(number * PAGE_BYTES as u64, PAGE_BYTES).map_err(disk)?;
        let mut recognize = Recognize(&page, false);
        visit_tables(&mut recognize)?;
        recognize.visit_rows(ROWS)?;
        if recognize.1 || store_id_in(&page).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
