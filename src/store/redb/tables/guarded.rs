//! Look-ups and ranges that notice damaged keys.
//!
//! A look-up is a binary search, so one flipped bit in a key can hide sound rows: the search goes the wrong way and
//! finds nothing, or a range begins too late or ends too early. redb does not notice that. The functions here do: the
//! rows next to the place where a search ended must have right checksums, and must be before and after the key that was
//! searched for. If a bit of a row's key is flipped, or of a key in an inner page, one of the two neighbours of that
//! place does not fit.
//!
//! A page of an earlier moment has sound rows, and may have rows that other pages have too. So a row of a range whose key
//! does not follow the one before it is damaged: no range has a row twice.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ops::{Bound, ControlFlow};

use redb::{AccessGuard, Key, ReadableTable, StorageError, Value};

use super::failure::Failure;
use super::record::damaged::{DamagedRecord, RecordFlaw};
use super::row::{KeyOf, Row, Rows, Stored};

/// Returns the row of a key. `None` if there is certainly no such row. An error says that damage may hide the row.
pub(crate) fn look_up<'t, T: Rows>(
    table: &'t impl ReadableTable<T::Key, Row<T>>,
    key: &KeyOf<'_, T>,
) -> Result<Option<AccessGuard<'t, Row<T>>>, Failure> {
    let found = table.get(key)?;
    if found.is_none() {
        check_gap(table, key)?;
    }
    Ok(found)
}

/// Checks that a search which found no row of this key went the right way.
pub(crate) fn check_gap<T: Rows>(
    table: &impl ReadableTable<T::Key, Row<T>>,
    key: &KeyOf<'_, T>,
) -> Result<(), Failure> {
    let bytes = T::Key::as_bytes(key);
    let before = table
        .range((Bound::Unbounded, Bound::Excluded(T::Key::from_bytes(bytes.as_ref()))))?
        .next_back()
        .transpose()?;
    let after =
        table.range((Bound::Included(T::Key::from_bytes(bytes.as_ref())), Bound::Unbounded))?.next().transpose()?;
    for (row, expected) in [(before, Ordering::Less), (after, Ordering::Greater)] {
        if let Some((place, value)) = row {
            value.value().verify(&place.value())?;
            if compare::<T::Key>(&place.value(), key) != expected {
                return Err(DamagedRecord::new(T::WHAT, RecordFlaw::Hidden).into());
            }
        }
    }
    Ok(())
}

pub(crate) fn compare<K: Key>(one: &K::SelfType<'_>, other: &K::SelfType<'_>) -> Ordering {
    K::compare(K::as_bytes(one).as_ref(), K::as_bytes(other).as_ref())
}

/// Visits rows one by one. A row with a wrong checksum is visited with the damage; its key may be wrong too.
pub(crate) trait Visit<T: Rows>:
    FnMut(&KeyOf<'_, T>, Result<&[u8], DamagedRecord>) -> Result<ControlFlow<()>, Failure>
{
}

impl<T: Rows, F> Visit<T> for F where
    F: FnMut(&KeyOf<'_, T>, Result<&[u8], DamagedRecord>) -> Result<ControlFlow<()>, Failure>
{
}

/// Checks that each key of a range follows the one before it.
pub(crate) struct Ascending<K> {
    /// How a key compares with the one after it.
    order: Ordering,
    /// The last key that was in order, as bytes. Empty before the first one.
    last: Vec<u8>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key> Ascending<K> {
    pub(crate) fn new() -> Self {
        Self { order: Ordering::Less, last: Vec::new(), key: PhantomData }
    }

    /// For a range that is read from its end.
    fn descending() -> Self {
        Self { order: Ordering::Greater, ..Self::new() }
    }

    /// Returns whether this key follows the last one that did.
    pub(crate) fn follows(&mut self, key: &K::SelfType<'_>) -> bool {
        let bytes = K::as_bytes(key);
        if !self.last.is_empty() && K::compare(&self.last, bytes.as_ref()) != self.order {
            return false;
        }
        self.last.clear();
        self.last.extend_from_slice(bytes.as_ref());
        true
    }
}

/// Visits a sound row as damage if it does not follow the one before it.
fn visit_in_order<T: Rows>(mut order: Ascending<T::Key>, mut visit: impl Visit<T>) -> impl Visit<T> {
    move |key: &KeyOf<'_, T>, row: Result<&[u8], DamagedRecord>| {
        let is_in_order = row.is_err() || order.follows(key);
        visit(key, if is_in_order { row } else { Err(DamagedRecord::new(T::WHAT, RecordFlaw::Order)) })
    }
}

/// Visits the rows from a key on, in the order of their keys.
pub(crate) fn visit_from<T: Rows>(
    table: &impl ReadableTable<T::Key, Row<T>>,
    from: &KeyOf<'_, T>,
    visit: impl Visit<T>,
) -> Result<(), Failure> {
    let mut visit = visit_in_order::<T>(Ascending::new(), visit);
    let bytes = T::Key::as_bytes(from);
    let before = table.range((Bound::Unbounded, Bound::Excluded(T::Key::from_bytes(bytes.as_ref()))))?.rev();
    if visit_hidden::<T>(before, from, Ordering::Less, &mut visit)?.is_break() {
        return Ok(());
    }
    let rows = table.range((Bound::Included(T::Key::from_bytes(bytes.as_ref())), Bound::Unbounded))?;
    visit_inside::<T>(rows, from, Ordering::Less, visit)
}

/// Visits the rows up to a key and with it, in the descending order of their keys.
pub(crate) fn visit_back_from<T: Rows>(
    table: &impl ReadableTable<T::Key, Row<T>>,
    from: &KeyOf<'_, T>,
    visit: impl Visit<T>,
) -> Result<(), Failure> {
    let mut visit = visit_in_order::<T>(Ascending::descending(), visit);
    let bytes = T::Key::as_bytes(from);
    let after = table.range((Bound::Excluded(T::Key::from_bytes(bytes.as_ref())), Bound::Unbounded))?;
    if visit_hidden::<T>(after, from, Ordering::Greater, &mut visit)?.is_break() {
        return Ok(());
    }
    let rows = table.range((Bound::Unbounded, Bound::Included(T::Key::from_bytes(bytes.as_ref()))))?.rev();
    visit_inside::<T>(rows, from, Ordering::Greater, visit)
}

/// A row as redb returns it.
type Found<'a, T> = Result<(AccessGuard<'a, <T as Rows>::Key>, AccessGuard<'a, Row<T>>), StorageError>;

/// Visits the rows that belong to a range and stand outside it, because the search for its end went the wrong way.
/// `rows` are those outside, the nearest first; compared with the end of the range they should be `outside`.
fn visit_hidden<'a, T: Rows>(
    rows: impl Iterator<Item = Found<'a, T>>,
    end: &KeyOf<'_, T>,
    outside: Ordering,
    visit: &mut impl Visit<T>,
) -> Result<ControlFlow<()>, Failure> {
    let (mut hidden, mut neighbour) = (Vec::new(), None);
    for row in rows {
        let (key, value) = row?;
        if value.value().verify(&key.value()).is_ok() && compare::<T::Key>(&key.value(), end) == outside {
            neighbour = Some(T::Key::as_bytes(&key.value()).as_ref().to_vec());
            break;
        }
        hidden.push(owned::<T>(&key, &value));
    }
    for (place, value) in hidden.iter().rev() {
        let key = T::Key::from_bytes(place);
        let verified = Stored::<T>::as_it_is(value).verify(&key);
        // A damaged row whose key fits between its neighbours, outside the range.
        let fits = neighbour.as_ref().is_some_and(|neighbour| T::Key::compare(neighbour, place) == outside)
            && compare::<T::Key>(&key, end) == outside;
        if verified.is_err() && fits {
            neighbour = Some(place.clone());
        } else if visit(&key, verified)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Visits the rows of a range, but for sound ones that are `outside` its end: the search for the end went too far.
fn visit_inside<'a, T: Rows>(
    rows: impl Iterator<Item = Found<'a, T>>,
    end: &KeyOf<'_, T>,
    outside: Ordering,
    mut visit: impl Visit<T>,
) -> Result<(), Failure> {
    for row in rows {
        let (key, value) = row?;
        let (key, value) = (key.value(), value.value());
        let verified = value.verify(&key);
        let is_outside = verified.is_ok() && compare::<T::Key>(&key, end) == outside;
        if !is_outside && visit(&key, verified)?.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

fn owned<T: Rows>(key: &AccessGuard<'_, T::Key>, value: &AccessGuard<'_, Row<T>>) -> (Vec<u8>, Vec<u8>) {
    (T::Key::as_bytes(&key.value()).as_ref().to_vec(), value.value().unverified().to_vec())
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase};

    use super::*;
    use crate::simulate::random::Random;
    use crate::store::redb::tables::row;
    use crate::store::redb::tables::schema::{TURNS, Turns};
    use crate::store::redb::unwind;

    const ROWS: u64 = 400;

    /// Returns the bytes of a file with some leaves and an inner page of turns.
    fn file() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let database = Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        {
            let mut turns = txn.open_table(TURNS).unwrap();
            for nth in 1..=ROWS {
                let key = (nth / 9, nth);
                turns.insert(key, row::seal(&key, &mut vec![7; 40])).unwrap();
            }
        }
        txn.commit().unwrap();
        database.close().unwrap();
        std::fs::read(path).unwrap()
    }

    /// Returns how many rows a plain look-up does not find, and for how many of these [`look_up`] reports damage.
    /// Asserts that it reports damage or finds the row in each case, and that no range leaves out a sound row without
    /// reporting damage.
    fn hidden(bytes: &[u8]) -> (usize, usize) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let database = Database::open(&path).unwrap();
        let turns = database.begin_read().unwrap().open_table(TURNS).unwrap();
        let (mut hidden, mut told) = (0, 0);
        for nth in 1..=ROWS {
            let key = (nth / 9, nth);
            hidden += usize::from(turns.get(key).unwrap().is_none());
            match look_up::<Turns>(&turns, &key) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{key:?} is taken for a row that was never there"),
                Err(_) => told += 1,
            }
            // A range reads all rows, so few ranges are enough.
            if nth % 23 > 0 {
                continue;
            }
            let (mut forward, mut back, mut damaged) = (0, 0, 0);
            let mut count = |sound: &mut u64, row: Result<&[u8], DamagedRecord>| {
                *if row.is_ok() { sound } else { &mut damaged } += 1;
                Ok(ControlFlow::Continue(()))
            };
            visit_from::<Turns>(&turns, &key, |_, row| count(&mut forward, row)).unwrap();
            visit_back_from::<Turns>(&turns, &key, |_, row| count(&mut back, row)).unwrap();
            let all = ROWS + 1;
            assert!(
                forward + back == all || damaged > 0 && forward + back + 2 >= all,
                "{forward} and {back} from {key:?}"
            );
        }
        (hidden, told)
    }

    /// Returns the place of a leaf whose rows are the turns `range` of conversation 1.
    fn leaf(bytes: &[u8], is_it: impl Fn(u64, u64) -> bool) -> Vec<usize> {
        let number = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        let is_leaf = |at: &usize| {
            let count = usize::from(u16::from_le_bytes([bytes[at + 2], bytes[at + 3]]));
            let (first, last) = (at + 4 + 4 * count, at + 4 + 4 * count + 16 * count.saturating_sub(1));
            bytes[*at] == 1
                && (2..200).contains(&count)
                && number(first) == 1
                && number(last) == 1
                && is_it(number(first + 8), number(last + 8))
        };
        (4096..bytes.len()).step_by(4096).filter(is_leaf).collect()
    }

    #[test]
    fn rows_of_an_earlier_page_are_damage_where_other_pages_have_them_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let database = Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        {
            let mut turns = txn.open_table(TURNS).unwrap();
            for nth in 1..=300 {
                turns.insert((1, nth), row::seal(&(1, nth), &mut vec![7; 40])).unwrap();
            }
        }
        txn.commit().unwrap();
        database.close().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let first = leaf(&bytes, |first, _| first == 1)[0];
        let later = leaf(&bytes, |first, last| first > 60 && last < 240);
        assert!(!later.is_empty());
        for later in later {
            bytes.copy_within(first..first + 4096, later);
        }
        std::fs::write(&path, bytes).unwrap();
        let database = Database::open(&path).unwrap();
        let turns = database.begin_read().unwrap().open_table(TURNS).unwrap();
        let plain: Vec<u64> = turns.iter().unwrap().map(|row| row.unwrap().0.value().1).collect();
        assert!(!plain.is_sorted(), "the control: the table has rows twice");
        for is_back in [false, true] {
            let (mut sound, mut damaged) = (Vec::new(), 0);
            let visit = |place: &(u64, u64), row: Result<&[u8], DamagedRecord>| {
                if row.is_ok() {
                    sound.push(place.1);
                } else {
                    damaged += 1;
                }
                Ok(ControlFlow::Continue(()))
            };
            if is_back {
                visit_back_from::<Turns>(&turns, &(1, 300), visit).unwrap();
                sound.reverse();
            } else {
                visit_from::<Turns>(&turns, &(1, 1), visit).unwrap();
            }
            assert!(sound.is_sorted_by(|one, next| one < next), "{sound:?}");
            assert!(damaged > 0 && sound.len() + damaged == plain.len(), "{damaged} and {sound:?} of {plain:?}");
        }
    }

    #[test]
    fn a_flipped_bit_of_a_key_hides_no_row_from_a_look_up_or_a_range_without_being_told() {
        let file = file();
        assert_eq!(hidden(&file), (0, 0));
        let mut random = Random::new(1);
        let (mut all_hidden, mut most) = (0, 0);
        for _ in 0..60 {
            let nth = 1 + random.below(usize::try_from(ROWS).unwrap()) as u64;
            let key = [(nth / 9).to_le_bytes(), nth.to_le_bytes()].concat();
            let mut bytes = file.clone();
            // The key stands in a leaf, and perhaps in an inner page.
            let places: Vec<_> = (0..file.len() - 16).filter(|at| file[*at..].starts_with(&key)).collect();
            bytes[places[random.below(places.len())] + random.below(16)] ^= 1 << random.below(8);
            let Ok((hidden, told)) = unwind::caught(|| hidden(&bytes)) else { panic!("a flip in {key:?}") };
            assert!(hidden <= told, "{hidden} rows are hidden, and {told} are told");
            (all_hidden, most) = (all_hidden + hidden, most.max(hidden));
        }
        assert!(
            all_hidden > 60 && most > 1,
            "the control: a plain look-up misses {all_hidden} rows, and at most {most} at once"
        );
    }
}
