use std::ops::{Bound, ControlFlow};

use redb::{Key, ReadOnlyTable, ReadableTable, ReadableTableMetadata, TableHandle, Value};

use super::rows::{Place, Tables, Wrong};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::findings::Finding;
use crate::store::redb::tables::guarded::visit_from;
use crate::store::redb::tables::indexed::Indexed;
use crate::store::redb::tables::meta::MetaRows;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::row::{KeyOf, Row, Rows};
use crate::store::redb::tables::schema::{
    Activity, ConversationSumRows, Conversations, Costs, INDEX, Keys, Labels, OpenTurnSteps, OpenTurns, Positions,
    Rollups, Turns,
};
use crate::store::redb::unwind;

/// A walk over all rows of the tables, in steps. Each step may see another snapshot.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// The table that the next step reads, by its place in [`Pass::TABLES`].
    table: usize,
    /// The key of the last sound row that was read, as bytes. `None` at the beginning of a table.
    after: Option<Vec<u8>>,
    rows: u64,
}

type Step = fn(&mut Walk<'_>, &Tables) -> Result<(), Failure>;

impl Pass {
    /// The tables in the order in which a pass reads them, each with how its rows are checked.
    const TABLES: [(&'static str, Step); 13] = [
        (MetaRows::NAME, |walk, tables| {
            walk.table(&tables.meta, |name| Place::of(format!("`{name}` of the store")), |_, _| Ok(()))
        }),
        (Keys::NAME, |walk, tables| walk.table(&tables.keys, |id| Place::of_id(id), |id, key| tables.key(id, key))),
        (Conversations::NAME, |walk, tables| {
            walk.table(
                &tables.conversations,
                |key| Place::of_key("", *key),
                |key, record| tables.conversation(*key, record),
            )
        }),
        (Turns::NAME, |walk, tables| {
            let place = |(key, ordinal): &(u64, u64)| Place::of_key(&format!("turn {ordinal} of "), *key);
            walk.table(&tables.turns, place, |(key, ordinal), record| tables.turn(*key, *ordinal, record))
        }),
        ("turn_index", |walk, tables| walk.index(tables)),
        (OpenTurns::NAME, |walk, tables| {
            let place = |(key, turn_id): &(u64, &str)| Place::of_key(&format!("open turn {turn_id} of "), *key);
            walk.table(&tables.open_turns, place, |(key, turn_id), head| tables.open_turn(*key, turn_id, head))
        }),
        (OpenTurnSteps::NAME, |walk, tables| {
            let place = |(key, turn_id, step): &(u64, &str, u32)| {
                Place::of_key(&format!("step {step} of open turn {turn_id} of "), *key)
            };
            walk.table(&tables.open_steps, place, |(key, turn_id, step), _| tables.open_step(*key, turn_id, *step))
        }),
        (Activity::NAME, |walk, tables| {
            walk.table(&tables.activity, |(_, id)| Place::of_id(id), |place, key| tables.activity(*place, key))
        }),
        (Positions::NAME, |walk, tables| {
            let place = |position: &u64| Place::of(format!("position {position}"));
            walk.table(&tables.positions, place, |position, at| tables.position(*position, at))?;
            walk.end_of_positions(tables)
        }),
        (Labels::NAME, |walk, tables| {
            walk.table(
                &tables.rollups.labels,
                |hash| Place::of(format!("label {hash:016x}")),
                |_, label| Tables::label(label),
            )
        }),
        (Rollups::NAME, |walk, tables| {
            let place = |key: &(u8, i64, u64)| Place::of(format!("rollup {key:?}"));
            walk.table(&tables.rollups.rollups, place, |key, rollup| tables.rollup(*key, rollup))
        }),
        (Costs::NAME, |walk, tables| {
            let place = |key: &(u32, u8, i64, u64)| Place::of(format!("cost {key:?}"));
            walk.table(&tables.rollups.costs, place, |key, cost| tables.cost(*key, cost))
        }),
        (ConversationSumRows::NAME, |walk, tables| {
            let place = |(_, key): &(u32, u64)| Place::of(format!("the sums of conversation #{key}"));
            walk.table(&tables.rollups.conversations, place, |(_, key), sums| tables.conversation_sums(*key, sums))
        }),
    ];

    pub(crate) fn is_done(&self) -> bool {
        self.table == Self::TABLES.len()
    }

    /// Returns how many rows were read.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the name of the table that the next step reads.
    pub(super) fn table(&self) -> String {
        Self::TABLES.get(self.table).map_or_else(String::new, |(name, _)| format!("the table {name}"))
    }

    /// Goes on with the next table.
    pub(super) fn skip_table(&mut self) {
        (self.table, self.after) = (self.table + 1, None);
    }

    /// Reads the next rows, of about so many bytes. Returns the bytes that were read.
    pub(super) fn step(&mut self, tables: &Tables, budget: usize, found: &mut Vec<Finding>) -> Result<usize, Failure> {
        let Some((_, step)) = Self::TABLES.get(self.table) else { return Ok(0) };
        let mut walk =
            Walk { after: self.after.clone(), last: None, is_at_end: false, budget, bytes: 0, rows: 0, found };
        step(&mut walk, tables)?;
        self.rows += walk.rows;
        let (bytes, is_at_end, last) = (walk.bytes, walk.is_at_end, walk.last);
        if is_at_end {
            self.skip_table();
        } else {
            self.after = last;
        }
        Ok(bytes)
    }
}

/// Checks a row. Damage elsewhere can make the check of a row panic.
fn caught(check: impl FnOnce() -> Result<(), Wrong>) -> Result<(), Wrong> {
    unwind::caught(check).unwrap_or_else(|panic| Err(Wrong::Told { text: panic.to_string(), key: None }))
}

/// One step through one table.
pub(super) struct Walk<'a> {
    /// The key of the last row of the step before.
    after: Option<Vec<u8>>,
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
        table: &ReadOnlyTable<T::Key, Row<T>>,
        place: impl Fn(&KeyOf<'_, T>) -> Place,
        check: impl Fn(&KeyOf<'_, T>, &[u8]) -> Result<(), Wrong>,
    ) -> Result<(), Failure> {
        let after = self.after.clone();
        let mut visit = |key: &KeyOf<'_, T>, value: Result<&[u8], DamagedRecord>| -> Result<ControlFlow<()>, Failure> {
            let bytes = T::Key::as_bytes(key).as_ref().to_vec();
            if after.as_ref() == Some(&bytes) {
                return Ok(ControlFlow::Continue(()));
            }
            let is_in_order =
                self.last.as_ref().or(after.as_ref()).is_none_or(|last| T::Key::compare(last, &bytes).is_lt());
            let is_sound = value.is_ok() && is_in_order;
            self.bytes += value.as_ref().map_or(0, |value| value.len());
            let checked = value.map_err(Wrong::from).and_then(|value| {
                if !is_in_order {
                    return Err(DamagedRecord::new(T::WHAT, RecordFlaw::Hidden).into());
                }
                caught(|| {
                    let found = table.get(key)?;
                    if found.is_some() {
                        check(key, value)
                    } else {
                        Err(DamagedRecord::new(T::WHAT, RecordFlaw::Hidden).into())
                    }
                })
            });
            self.tell(|| place(key), checked)?;
            Ok(self.go_on(bytes, is_sound))
        };
        match &after {
            None => {
                for row in table.iter()? {
                    let (key, value) = row?;
                    if visit(&key.value(), value.value().verify(&key.value()))?.is_break() {
                        return Ok(());
                    }
                }
            }
            Some(after) => {
                let mut is_cut = false;
                visit_from::<T>(table, &T::Key::from_bytes(after), |key, value| {
                    let flow = visit(key, value)?;
                    is_cut = flow.is_break();
                    Ok(flow)
                })?;
                if is_cut {
                    return Ok(());
                }
            }
        }
        self.end(T::NAME, table.len()?);
        Ok(())
    }

    /// Reads rows of the index.
    fn index(&mut self, tables: &Tables) -> Result<(), Failure> {
        let after = self.after.as_deref().map(<(u64, u64)>::from_bytes);
        let mut rows =
            tables.index.range::<(u64, u64)>((after.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded))?;
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
        self.last = Some(key);
        if self.bytes >= self.budget { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Notes that the table has no more rows. If this step has read the whole table, their number is known.
    fn end(&mut self, table: &str, rows: u64) {
        self.is_at_end = true;
        if self.after.is_none() && self.rows != rows {
            let text = format!("the table {table}: it says that it has {rows} rows, and has {}", self.rows);
            self.found.push(Finding { text, key: None, id: None });
        }
    }

    /// Checks that no position at the end of the order is missing.
    fn end_of_positions(&mut self, tables: &Tables) -> Result<(), Failure> {
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
