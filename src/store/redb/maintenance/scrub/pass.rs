use std::ops::{Bound, ControlFlow};

use redb::{Key, Range, ReadableTable, ReadableTableMetadata, TableHandle, Value};

use super::rows::{Place, RawTable, Tables, Wrong};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::findings::{Finding, Unread};
use crate::store::redb::tables::indexed::Indexed;
use crate::store::redb::tables::meta::MetaRows;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::row::{CheckedKey as _, KeyOf, RawKey, Row, Rows, Stored};
use crate::store::redb::tables::schema::{
    Activity, ConversationSumRows, Conversations, Costs, DroppedTurns, Erased, ErasedCosts, ErasedRollups, Erasures,
    INDEX, ImportedSums, Keys, Labels, OpenTurnSteps, OpenTurns, Positions, RollupKey, Rollups, Turns,
};
use crate::store::redb::unwind;

/// A walk over all rows of the tables, in steps. Each step may see another snapshot.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// The table that the next step reads, by its place in [`Pass::TABLES`].
    table: usize,
    /// The key of the last sound row that was read, as bytes. `None` at the beginning of a table.
    after: Option<Vec<u8>>,
    /// The rows that could not be read, if the next step begins behind them.
    gap: Option<Gap>,
    rows: u64,
    /// The I/O error that has ended the steps since the last one that read rows, and how many it has ended.
    failing: Option<(String, u32)>,
}

/// How many steps fail with the same I/O error at one place until the rows there count as unreadable. Between two such
/// errors the store was opened again, which takes reads and synced writes. So the disk as a whole works, and only this
/// place cannot be read.
const MAX_FAILURES: u32 = 3;

/// The name of the table `INDEX`.
const TURN_INDEX: &str = "turn_index";

/// Rows of a table that cannot be read. The next step begins behind them.
#[derive(Debug)]
struct Gap {
    /// The first conversation that may have such rows.
    from: u64,
    /// The conversation with which the next step begins.
    at: u64,
    /// How much further it begins if that fails too.
    stride: u64,
    cause: String,
}

type Step = fn(&mut Walk<'_>, &Tables<'_>) -> Result<(), Failure>;

impl Pass {
    /// The tables in the order in which a pass reads them, each with how its rows are checked.
    const TABLES: [(&'static str, Step); 19] = [
        (MetaRows::NAME, |walk, tables| {
            walk.table::<MetaRows>(tables, |name| Place::of(format!("`{name}` of the store")), |_, _| Ok(()))
        }),
        (Keys::NAME, |walk, tables| walk.table::<Keys>(tables, |id| Place::of_id(id), |id, key| tables.key(id, key))),
        (Conversations::NAME, |walk, tables| {
            walk.table::<Conversations>(
                tables,
                |key| Place::of_key("", *key),
                |key, record| tables.conversation(*key, record),
            )
        }),
        (Turns::NAME, |walk, tables| {
            let place = |(key, ordinal): &(u64, u64)| Place::of_key(&format!("turn {ordinal} of "), *key);
            walk.table::<Turns>(tables, place, |(key, ordinal), record| tables.turn(*key, *ordinal, record))
        }),
        (TURN_INDEX, |walk, tables| walk.index(tables)),
        (OpenTurns::NAME, |walk, tables| {
            let place = |(key, turn_id): &(u64, &str)| Place::of_key(&format!("open turn {turn_id} of "), *key);
            walk.table::<OpenTurns>(tables, place, |(key, turn_id), head| tables.open_turn(*key, turn_id, head))
        }),
        (OpenTurnSteps::NAME, |walk, tables| {
            let place = |(key, turn_id, step): &(u64, &str, u32)| {
                Place::of_key(&format!("step {step} of open turn {turn_id} of "), *key)
            };
            walk.table::<OpenTurnSteps>(tables, place, |(key, turn_id, step), _| tables.open_step(*key, turn_id, *step))
        }),
        (Activity::NAME, |walk, tables| {
            walk.table::<Activity>(tables, |(_, id)| Place::of_id(id), |place, key| tables.activity(*place, key))
        }),
        (Positions::NAME, |walk, tables| {
            let place = |position: &u64| Place::of(format!("position {position}"));
            walk.table::<Positions>(tables, place, |position, at| tables.position(*position, at))?;
            walk.end_of_positions(tables)
        }),
        (Labels::NAME, |walk, tables| {
            walk.table::<Labels>(
                tables,
                |hash| Place::of(format!("label {hash:016x}")),
                |_, label| Tables::label(label),
            )
        }),
        (Rollups::NAME, |walk, tables| {
            let place = |key: &RollupKey| Place::of(format!("rollup {key:?}"));
            walk.table::<Rollups>(tables, place, |key, rollup| tables.rollup(*key, rollup))
        }),
        (Costs::NAME, |walk, tables| {
            let place = |key: &(u32, u8, i64, u64)| Place::of(format!("cost {key:?}"));
            walk.table::<Costs>(tables, place, |(_, _, _, label), cost| tables.cost(*label, cost))
        }),
        (ConversationSumRows::NAME, |walk, tables| {
            let place = |(_, key): &(u32, u64)| Place::of(format!("the sums of conversation #{key}"));
            walk.table::<ConversationSumRows>(tables, place, |(_, key), sums| tables.conversation_sums(*key, sums))
        }),
        (Erased::NAME, |walk, tables| {
            walk.table::<Erased>(
                tables,
                |key| Place::of_key("the erased ", *key),
                |key, note| tables.erased(*key, note),
            )
        }),
        (Erasures::NAME, |walk, tables| {
            let place = |life: &u64| Place::of(format!("the erasure {life:016x}"));
            walk.table::<Erasures>(tables, place, |life, erasure| tables.erasure(*life, erasure))
        }),
        (DroppedTurns::NAME, |walk, tables| {
            let place = |key: &u64| Place::of_key("the dropped turns of ", *key);
            walk.table::<DroppedTurns>(tables, place, |key, note| tables.dropped(*key, note))
        }),
        (ErasedRollups::NAME, |walk, tables| {
            let place = |key: &RollupKey| Place::of(format!("rollup of erased turns {key:?}"));
            walk.table::<ErasedRollups>(tables, place, |key, rollup| tables.rollup(*key, rollup))
        }),
        (ErasedCosts::NAME, |walk, tables| {
            let place = |key: &RollupKey| Place::of(format!("cost of erased turns {key:?}"));
            walk.table::<ErasedCosts>(tables, place, |(_, _, label), cost| tables.cost(*label, cost))
        }),
        (ImportedSums::NAME, |walk, tables| {
            let place = |id: &&str| Place::of(format!("the sums imported as {id}"));
            walk.table::<ImportedSums>(tables, place, |_, note| Tables::imported(note))
        }),
    ];

    pub(crate) fn is_done(&self) -> bool {
        self.table == Self::TABLES.len()
    }

    /// Returns how many rows were read.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Goes on with the next table.
    pub(super) fn skip_table(&mut self) {
        (self.table, self.after, self.gap) = (self.table + 1, None, None);
    }

    /// Counts a failed step. Returns whether the place where it failed cannot be read for good.
    pub(super) fn is_for_good(&mut self, failure: &Failure) -> bool {
        if !failure.is_first_of_the_disk() {
            return false;
        }
        let cause = failure.to_string();
        let before = self.failing.take().filter(|(earlier, _)| *earlier == cause).map_or(0, |(_, count)| count);
        let (_, count) = self.failing.insert((cause, before + 1));
        *count >= MAX_FAILURES
    }

    /// Returns the bytes of a key of the tables that are in the order of conversations and whose rows decide whether a
    /// turn is sealed.
    fn key_bytes(table: &str) -> Option<usize> {
        match table {
            Conversations::NAME => Some(8),
            Turns::NAME | TURN_INDEX => Some(16),
            _ => None,
        }
    }

    /// Reads the next rows, of about so many bytes. Returns the bytes that were read.
    pub(super) fn step(
        &mut self,
        tables: &Tables<'_>,
        budget: usize,
        found: &mut Vec<Finding>,
    ) -> Result<usize, Failure> {
        let Some((name, step)) = Self::TABLES.get(self.table) else { return Ok(0) };
        let key_bytes = Self::key_bytes(name);
        let from = self.gap.as_ref().zip(key_bytes).map(|(gap, key_bytes)| {
            let mut key = gap.at.to_le_bytes().to_vec();
            key.resize(key_bytes, 0);
            key
        });
        let mut walk = Walk {
            after: self.after.clone(),
            from,
            first: None,
            last: None,
            is_at_end: false,
            budget,
            bytes: 0,
            rows: 0,
            found,
        };
        let stepped = unwind::caught(|| step(&mut walk, tables));
        let cause = match stepped {
            Ok(Ok(())) => {
                self.failing = None;
                None
            }
            Ok(Err(failure)) if failure.may_pass() && !self.is_for_good(&failure) => return Err(failure),
            Ok(Err(failure)) => Some(failure.to_string()),
            Err(panic) => Some(panic.to_string()),
        };
        let Walk { first, last, is_at_end, bytes, rows, .. } = walk;
        self.rows += rows;
        if first.is_some() || is_at_end {
            // The first row behind the gap may have other rows of its conversation in the gap.
            let gap = self.gap.take();
            found.extend(gap.map(|gap| {
                let to = first.as_deref().map_or(u64::MAX, |first| conversation_of(first).max(gap.at));
                gap.end(name, to)
            }));
        }
        match (cause, key_bytes) {
            (None, _) if is_at_end => self.skip_table(),
            (None, _) => self.after = last,
            (Some(cause), None) => {
                found.push(Finding { text: format!("the table {name}: {cause}"), key: None, id: None, unread: None });
                self.skip_table();
            }
            (Some(cause), Some(_)) => {
                let read = last.or(self.after.take());
                let gap = self.gap.take().unwrap_or_else(|| {
                    let from = read.as_deref().map_or(0, conversation_of);
                    Gap { from, at: from, stride: 1, cause }
                });
                if let Some(at) = gap.at.checked_add(gap.stride) {
                    self.gap = Some(Gap { at, stride: gap.stride.saturating_mul(2), ..gap });
                } else {
                    found.push(gap.end(name, u64::MAX));
                    self.skip_table();
                }
            }
        }
        Ok(bytes)
    }
}

impl Gap {
    /// Returns the finding of a gap that ends with this conversation.
    fn end(self, table: &str, to: u64) -> Finding {
        let Self { from, cause, .. } = self;
        let of = if to == u64::MAX { format!("from #{from} on") } else { format!("#{from} to #{to}") };
        let text = format!("the table {table}: rows of the conversations {of} cannot be read: {cause}");
        // A conversation without a record is known only by its row in the table of keys, which may be missing as well.
        let are_ids_unknown = table == Conversations::NAME;
        Finding { text, key: None, id: None, unread: Some(Unread { from, to, are_ids_unknown }) }
    }
}

/// Returns the key of the conversation with which the key of a row begins.
fn conversation_of(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |key| u64::from_le_bytes(*key))
}

/// Checks a row. Damage elsewhere can make the check of a row panic.
fn caught(check: impl FnOnce() -> Result<(), Wrong>) -> Result<(), Wrong> {
    unwind::caught(check).unwrap_or_else(|panic| Err(Wrong::Told { text: panic.to_string(), key: None }))
}

/// Visits rows until `visit` breaks.
fn visit_all<T: Rows>(
    rows: Range<'_, RawKey<T::Key>, Row<T>>,
    mut visit: impl FnMut(&[u8], Stored<'_, T>) -> Result<ControlFlow<()>, Failure>,
) -> Result<ControlFlow<()>, Failure> {
    for row in rows {
        let (key, value) = row?;
        if visit(key.value(), value.value())?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Visits the rows from a key on until `visit` breaks. First come the rows before that place back to a sound row that
/// belongs before it: a damaged key can hide the rows in between from the search.
fn visit_from<T: Rows>(
    table: &RawTable<T>,
    from: &[u8],
    mut visit: impl FnMut(&[u8], Stored<'_, T>) -> Result<ControlFlow<()>, Failure>,
) -> Result<ControlFlow<()>, Failure> {
    let is_before = |key: &[u8], value: Stored<'_, T>| {
        value.verify_raw(key).is_ok() && RawKey::<T::Key>::compare(key, from).is_lt()
    };
    let (mut hidden, mut outside) = (Vec::new(), None);
    for row in table.range::<&[u8]>((Bound::Unbounded, Bound::Excluded(from)))?.rev() {
        let (key, value) = row?;
        if is_before(key.value(), value.value()) {
            outside = Some(key.value().to_vec());
            break;
        }
        hidden.push((key.value().to_vec(), value.value().unverified().to_vec()));
    }
    for (key, value) in hidden.iter().rev() {
        let value = Stored::as_it_is(value);
        let compare = RawKey::<T::Key>::compare;
        let is_between =
            outside.as_ref().is_some_and(|outside| compare(outside, key).is_lt()) && compare(key, from).is_lt();
        // The step before has read a damaged row whose key fits there.
        if value.verify_raw(key).is_err() && is_between {
            outside = Some(key.clone());
        } else if visit(key, value)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    visit_all::<T>(table.range::<&[u8]>((Bound::Included(from), Bound::Unbounded))?, |key, value| {
        // A sound row before the beginning: the search has ended too early.
        if is_before(key, value) { Ok(ControlFlow::Continue(())) } else { visit(key, value) }
    })
}

/// One step through one table.
pub(super) struct Walk<'a> {
    /// The key of the last row of the step before.
    after: Option<Vec<u8>>,
    /// The key with which the step begins, if rows before it cannot be read.
    from: Option<Vec<u8>>,
    /// The key of the first sound row.
    first: Option<Vec<u8>>,
    /// The key of the last sound row so far.
    last: Option<Vec<u8>>,
    is_at_end: bool,
    budget: usize,
    bytes: usize,
    rows: u64,
    found: &'a mut Vec<Finding>,
}

impl Walk<'_> {
    /// Reads rows whose checksums cover the whole row.
    fn table<T: Rows>(
        &mut self,
        tables: &Tables<'_>,
        place: impl Fn(&KeyOf<'_, T>) -> Place,
        check: impl Fn(&KeyOf<'_, T>, &[u8]) -> Result<(), Wrong>,
    ) -> Result<(), Failure> {
        let table = tables.raw::<T>()?;
        let (from, after) = (self.from.clone(), self.after.clone());
        let mut visit = |bytes: &[u8], value: Stored<'_, T>| -> Result<ControlFlow<()>, Failure> {
            if after.as_deref() == Some(bytes) {
                return Ok(ControlFlow::Continue(()));
            }
            let last = self.last.as_ref().or(after.as_ref());
            let is_in_order = last.is_none_or(|last| RawKey::<T::Key>::compare(last, bytes).is_lt());
            let verified = value.verify_raw(bytes);
            let is_sound = verified.is_ok() && is_in_order;
            self.bytes += value.unverified().len();
            let checked = verified.map_err(Wrong::from).and_then(|value| {
                if !is_in_order {
                    return Err(DamagedRecord::new(T::WHAT, RecordFlaw::Hidden).into());
                }
                caught(|| {
                    let found = table.get(bytes)?;
                    if found.is_some() {
                        check(&T::Key::from_bytes(bytes), value)
                    } else {
                        Err(DamagedRecord::new(T::WHAT, RecordFlaw::Hidden).into())
                    }
                })
            });
            let place = || {
                if T::Key::is_valid(bytes) {
                    return place(&T::Key::from_bytes(bytes));
                }
                Place::of(format!("the row of the table {} under the bytes {}", T::NAME, bytes.escape_ascii()))
            };
            self.tell(place, checked)?;
            Ok(self.go_on(bytes.to_vec(), is_sound))
        };
        let flow = match (&from, &after) {
            (Some(from), _) => visit_all::<T>(table.range::<&[u8]>(from.as_slice()..)?, visit)?,
            (None, None) => visit_all::<T>(table.iter()?, visit)?,
            (None, Some(after)) => visit_from(&table, after, &mut visit)?,
        };
        if flow.is_continue() {
            self.end(T::NAME, table.len()?);
        }
        Ok(())
    }

    /// Reads rows of the index.
    fn index(&mut self, tables: &Tables<'_>) -> Result<(), Failure> {
        let after = self.after.as_deref().map(<(u64, u64)>::from_bytes);
        let from = self.from.as_deref().map(<(u64, u64)>::from_bytes).or(after);
        let mut rows =
            tables.index.range::<(u64, u64)>((from.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded))?;
        let mut last = after;
        if let Some(after) = after
            && rows.next().transpose()?.is_none_or(|(found, _)| found.value() != after)
        {
            // No row leaves the index.
            let hidden = DamagedRecord::new(Indexed::WHAT, RecordFlaw::Hidden).into();
            self.tell(|| Place::of_key(&format!("the index at {:016x} of ", after.1), after.0), Err(hidden))?;
        }
        for row in rows {
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            self.bytes += 24;
            let is_in_order = last.is_none_or(|last| last < key);
            let verified = value.verify(key);
            let is_sound = verified.is_ok() && is_in_order;
            let checked = verified.map_err(Wrong::from).and_then(|ordinal| {
                if !is_in_order {
                    return Err(DamagedRecord::new(Indexed::WHAT, RecordFlaw::Hidden).into());
                }
                caught(|| tables.index_row(key, ordinal))
            });
            self.tell(|| Place::of_key(&format!("the index at {:016x} of ", key.1), key.0), checked)?;
            if is_sound {
                last = Some(key);
            }
            if self.go_on(<(u64, u64)>::as_bytes(&key), is_sound).is_break() {
                return Ok(());
            }
        }
        self.end(INDEX.name(), tables.index.len()?);
        Ok(())
    }

    /// Counts a row, and returns whether the step has time for another one. A step ends with a sound row, because the
    /// next step searches for the key of that row.
    fn go_on(&mut self, key: Vec<u8>, is_sound: bool) -> ControlFlow<()> {
        self.rows += 1;
        self.bytes += key.len();
        if !is_sound {
            return ControlFlow::Continue(());
        }
        self.first.get_or_insert_with(|| key.clone());
        self.last = Some(key);
        if self.bytes >= self.budget { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Notes that the table has no more rows. If this step has read the whole table, their number is known.
    fn end(&mut self, table: &str, rows: u64) {
        self.is_at_end = true;
        if self.after.is_none() && self.from.is_none() && self.rows != rows {
            let text = format!("the table {table}: it says that it has {rows} rows, and has {}", self.rows);
            self.found.push(Finding { text, key: None, id: None, unread: None });
        }
    }

    /// Checks that no position at the end of the order is missing.
    fn end_of_positions(&mut self, tables: &Tables<'_>) -> Result<(), Failure> {
        if self.is_at_end {
            let checked = tables.last_position();
            self.tell(|| Place::of("the order of all turns".into()), checked)?;
        }
        Ok(())
    }

    /// Adds a finding, if there is one.
    fn tell(&mut self, place: impl FnOnce() -> Place, checked: Result<(), Wrong>) -> Result<(), Failure> {
        match checked {
            Ok(()) => Ok(()),
            Err(Wrong::Failed(failure)) if failure.may_pass() => Err(failure),
            Err(wrong) => {
                self.found.push(place().finding(wrong));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use redb::TableDefinition;

    use super::*;
    use crate::store::redb::tables::schema::{Role, TableVisitor, visit_tables};

    #[test]
    fn a_pass_reads_every_table_but_those_of_rows_moved_aside() {
        struct Names(Vec<String>);
        impl TableVisitor for Names {
            fn visit<K: Key + 'static, V: Value + 'static>(
                &mut self,
                table: TableDefinition<'static, K, V>,
                role: Role,
            ) -> Result<(), Failure> {
                self.0.extend((role != Role::Lost).then(|| table.name().to_owned()));
                Ok(())
            }
        }
        let mut names = Names(Vec::new());
        visit_tables(&mut names).unwrap();
        let mut read = Pass::TABLES.map(|(name, _)| name.to_owned());
        names.0.sort();
        read.sort();
        assert_eq!(names.0, read);
    }
}
