use std::collections::BTreeSet;

use redb::{ReadableTable, Table, TableError, Value as _, WriteTransaction};

use super::loss::Loss;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::{self, TurnHasher};
use crate::store::redb::tables::meta::WriteMeta;
use crate::store::redb::tables::read::decode_key;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::row::{Row, Rows as _, Stored};
use crate::store::redb::tables::schema::{
    CONVERSATIONS, Conversations, INDEX, KEYS, Keys, LOST_OPEN_STEPS, LOST_OPEN_TURNS, LOST_TURNS, LOST_UNKNOWN,
    OPEN_TURNS, OpenTurns, TURNS,
};

/// Consecutive lost turns of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The key of the conversation.
    pub(super) key: u64,
    /// The ordinal of the first of the turns.
    pub(super) first: u64,
    /// The ordinal of the last of the turns.
    pub(super) last: u64,
}

impl Range {
    /// Returns the parts of the ranges `all` that are in none of the ranges `without`. Both are in order.
    pub(super) fn without(all: Vec<Self>, without: &[Self]) -> Vec<Self> {
        let mut left = Vec::new();
        let mut others = without.iter().peekable();
        for mut range in all {
            while others.next_if(|other| (other.key, other.last) < (range.key, range.first)).is_some() {}
            let mut is_left = true;
            while let Some(other) = others.peek().filter(|other| (other.key, other.first) <= (range.key, range.last)) {
                if other.first > range.first {
                    left.push(Self { last: other.first - 1, ..range });
                }
                if other.last >= range.last {
                    is_left = false;
                    break;
                }
                range.first = other.last + 1;
                others.next();
            }
            if is_left {
                left.push(range);
            }
        }
        left
    }
}

/// Returns the turns that repairs moved aside or noted as missing, in order.
pub(super) fn lost_ranges(txn: &WriteTransaction) -> Result<Vec<Range>, Failure> {
    let mut ranges: Vec<Range> = Vec::new();
    let lost = match txn.open_table(LOST_TURNS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(ranges),
        lost => lost?,
    };
    for row in lost.iter()? {
        let (key, ordinal) = row?.0.value();
        match ranges.last_mut() {
            Some(range) if range.key == key && range.last.checked_add(1) == Some(ordinal) => range.last = ordinal,
            _ => ranges.push(Range { key, first: ordinal, last: ordinal }),
        }
    }
    Ok(ranges)
}

/// Names the turns that are lost, and neither were lost `before` nor are `erased`.
pub(super) fn lost_turns(txn: &WriteTransaction, before: &[Range], erased: &[Range]) -> Result<Vec<Loss>, Failure> {
    let names = Names::of(txn)?;
    let ranges = Range::without(Range::without(lost_ranges(txn)?, before), erased).into_iter();
    ranges.map(|Range { key, first, last }| Ok(Loss::Turns { conversation: names.name(key)?, first, last })).collect()
}

/// Names the conversations whose ids the repair with this number has moved aside because they led to another conversation.
pub(super) fn lost_names(txn: &WriteTransaction, repair: u64) -> Result<Vec<Loss>, Failure> {
    let (names, keys, mut losses) = (Names::of(txn)?, txn.open_table(KEYS)?, Vec::new());
    for row in txn.open_table(LOST_UNKNOWN)?.range((repair, Keys::NAME, [].as_slice())..)? {
        let (place, value) = row?;
        let (of, table, id) = place.value();
        if (of, table) != (repair, Keys::NAME) {
            break;
        }
        // A damaged row names no conversation. The repair may have given an id another key; then the id is not lost.
        if let Ok(id) = str::from_utf8(id)
            && keys.get(id)?.is_none()
            && let Ok(key) = Stored::<Keys>::as_it_is(value.value()).verify(&id).and_then(decode_key)
        {
            losses.push(Loss::Name { conversation: id.to_owned(), of: names.name(key)? });
        }
    }
    Ok(losses)
}

/// Names the open turns that the repair with this number has moved aside.
pub(super) fn lost_open_turns(txn: &WriteTransaction, repair: u64) -> Result<Vec<Loss>, Failure> {
    let heads = txn.open_table(OPEN_TURNS)?;
    let mut lost = BTreeSet::new();
    for row in txn.open_table(LOST_OPEN_TURNS)?.range((repair, 0, "")..)? {
        let (place, _) = row?;
        let (of, key, turn_id) = place.value();
        if of != repair {
            break;
        }
        lost.insert((key, turn_id.to_owned()));
    }
    for row in txn.open_table(LOST_OPEN_STEPS)?.range((repair, 0, "", 0)..)? {
        let (place, _) = row?;
        let (of, key, turn_id, _) = place.value();
        if of != repair {
            break;
        }
        // The head of the step's turn may be missing.
        if heads.get((key, turn_id))?.is_none() {
            lost.insert((key, turn_id.to_owned()));
        }
    }
    let (index, turns) = (txn.open_table(INDEX)?, txn.open_table(TURNS)?);
    let hasher = TurnHasher::of(WriteMeta::write(txn)?.store_id()?);
    let mut has_unknown = false;
    for row in txn.open_table(LOST_UNKNOWN)?.range((repair, OpenTurns::NAME, [].as_slice())..)? {
        let (place, _) = row?;
        let (of, table, place) = place.value();
        if (of, table) != (repair, OpenTurns::NAME) {
            break;
        }
        let (key, turn_id) = <(u64, &str)>::from_bytes(place);
        let is_sealed = index::find(&index, &turns, key, |id| hasher.hash(id), turn_id)?.is_some();
        if !is_sealed && heads.get((key, turn_id))?.is_none() {
            // No other row confirms the key of a damaged head, which may be of another turn.
            has_unknown |= lost.insert((key, turn_id.to_owned()));
        }
    }
    let names = Names::of(txn)?;
    let name = |(key, turn_id): (u64, String)| Ok(Loss::OpenTurn { conversation: names.name(key)?, turn_id });
    let mut losses = lost.into_iter().map(name).collect::<Result<Vec<_>, Failure>>()?;
    losses.extend(has_unknown.then_some(Loss::UnknownOpenTurns));
    Ok(losses)
}

/// Names conversations by their records.
pub(super) struct Names<'txn>(Table<'txn, u64, Row<Conversations>>);

impl<'txn> Names<'txn> {
    pub(super) fn of(txn: &'txn WriteTransaction) -> Result<Self, Failure> {
        Ok(Self(txn.open_table(CONVERSATIONS)?))
    }

    /// Returns the id of a conversation, or `#` and its key if the id is lost.
    pub(super) fn name(&self, key: u64) -> Result<String, Failure> {
        let record = self.0.get(key)?;
        let record = record.and_then(|row| ConversationRecord::decode(row.value().verify(&key).ok()?).ok());
        Ok(record.map_or_else(|| format!("#{key}"), |record| record.id.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_before_is_taken_out_of_a_range() {
        let of = |ranges: &[(u64, u64, u64)]| -> Vec<Range> {
            ranges.iter().map(|(key, first, last)| Range { key: *key, first: *first, last: *last }).collect()
        };
        let all = of(&[(1, 1, 9), (2, 3, 3), (2, 5, 8), (4, 1, 2)]);
        for (before, left) in [
            (&[][..], &[(1, 1, 9), (2, 3, 3), (2, 5, 8), (4, 1, 2)][..]),
            (&[(1, 1, 9), (2, 3, 3), (2, 5, 8), (4, 1, 2)], &[]),
            (&[(1, 1, 2), (1, 4, 4), (2, 7, 8)], &[(1, 3, 3), (1, 5, 9), (2, 3, 3), (2, 5, 6), (4, 1, 2)]),
            (&[(0, 1, 9), (3, 1, 9), (4, 2, 2)], &[(1, 1, 9), (2, 3, 3), (2, 5, 8), (4, 1, 1)]),
        ] {
            assert_eq!(Range::without(all.clone(), &of(before)), of(left), "{before:?}");
        }
    }
}
