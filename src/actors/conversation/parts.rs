//! Messages of many events are worked on in parts, so that other conversations get their turn in between. Pure.
//!
//! First all parts are checked against the limits, which changes nothing. So a message over a limit is refused as a
//! whole. Then each part becomes a commit of its own.

use std::collections::{HashMap, HashSet};

use super::draft::{Draft, TrialState};
use super::observe::Receipt;
use crate::turn::{Ordinal, TurnEvent, TurnId};

/// The maximum number of turns in a part, which fills a draft.
pub(super) const PART_TURNS: usize = Draft::FULL_TURNS;

/// The maximum number of events in a part, whatever their turns.
const PART_EVENTS: usize = 1024;

/// Returns the end of the part that begins at `begin`. The end comes early if the events change often from turn to
/// turn.
pub(super) fn end_of_part(events: &[TurnEvent], begin: usize) -> usize {
    let most = events.len().min(begin + PART_EVENTS);
    let mut turns = 1;
    for place in begin + 1..most {
        if events[place].turn_id != events[place - 1].turn_id {
            turns += 1;
            if turns > PART_TURNS {
                return place;
            }
        }
    }
    most
}

/// The progress of a message of several parts.
pub(super) enum Parts {
    /// The parts before `next` are within the limits.
    Checking { next: usize, state: Option<TrialState> },
    /// The parts before `next` are durable.
    Taking {
        next: usize,
        receipt: Receipt,
        duplicates: HashSet<TurnId>,
        /// Sealed turns of which the next parts may have late events.
        sealed: HashMap<TurnId, Ordinal>,
    },
}

impl Parts {
    /// Returns the progress before the first part; `None` if the message has a single part.
    pub(super) fn of(events: &[TurnEvent]) -> Option<Self> {
        (end_of_part(events, 0) < events.len()).then(Self::checking)
    }

    pub(super) fn checking() -> Self {
        Self::Checking { next: 0, state: None }
    }

    pub(super) fn taking() -> Self {
        Self::Taking { next: 0, receipt: Receipt::default(), duplicates: HashSet::new(), sealed: HashMap::new() }
    }

    /// Remembers that these turns are sealed, for the parts that are not committed yet.
    pub(super) fn remember(&mut self, turns: impl IntoIterator<Item = (TurnId, Ordinal)>) {
        if let Self::Taking { sealed, .. } = self {
            sealed.extend(turns);
        }
    }

    /// Adds the receipt of the next part. After the last part, returns the receipt of the whole message.
    pub(super) fn took(&mut self, events: &[TurnEvent], of_part: Receipt) -> Option<Receipt> {
        let Self::Taking { next, receipt, duplicates, .. } = self else { return Some(of_part) };
        *next = end_of_part(events, *next);
        // If several parts have late events of a turn, the receipt lists the turn once.
        let sealed = of_part.sealed.into_iter();
        receipt.sealed.extend(sealed.filter(|turn| !turn.duplicate || duplicates.insert(turn.turn_id.clone())));
        receipt.late += of_part.late;
        receipt.warnings.extend(of_part.warnings);
        receipt.warnings.truncate(Receipt::MAX_WARNINGS);
        (*next >= events.len()).then(|| std::mem::take(receipt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::TurnReceipt;
    use crate::testing::TurnScript;

    fn events(turns: usize, of_each: u32) -> Vec<TurnEvent> {
        let turn =
            |nth| (0..of_each).fold(TurnScript::new("c", &format!("t{nth}")), |turn, step| turn.usage(step, 1, 1));
        (0..turns).flat_map(|nth| turn(nth).events()).collect()
    }

    fn lengths(events: &[TurnEvent]) -> Vec<usize> {
        let (mut begin, mut lengths) = (0, Vec::new());
        while begin < events.len() {
            let end = end_of_part(events, begin);
            lengths.push(end - begin);
            begin = end;
        }
        lengths
    }

    #[test]
    fn a_part_ends_after_some_turns_or_events() {
        assert_eq!(lengths(&events(PART_TURNS, 2)), [PART_TURNS * 2]);
        assert_eq!(lengths(&events(PART_TURNS * 2 + 1, 2)), [PART_TURNS * 2, PART_TURNS * 2, 2]);
        assert_eq!(lengths(&events(1, 3000)), [PART_EVENTS, PART_EVENTS, 3000 - 2 * PART_EVENTS]);
        assert!(Parts::of(&events(PART_TURNS, 2)).is_none() && Parts::of(&events(PART_TURNS + 1, 1)).is_some());
        assert!(Parts::of(&[]).is_none());
    }

    #[test]
    fn the_receipts_of_the_parts_become_one_that_tells_each_late_turn_once() {
        let events = events(PART_TURNS * 3, 1);
        let told = |id: &str, duplicate| TurnReceipt {
            turn_id: TurnId::new(id).unwrap(),
            ordinal: Ordinal::after(0),
            duplicate,
        };
        let part = |sealed: &[TurnReceipt]| Receipt { sealed: sealed.to_vec(), late: 1, warnings: Vec::new() };
        let mut parts = Parts::taking();
        assert_eq!(parts.took(&events, part(&[told("a", false), told("b", true)])), None);
        assert_eq!(parts.took(&events, part(&[told("a", true), told("b", true)])), None);
        let whole = parts.took(&events, part(&[told("a", true), told("c", false)])).unwrap();
        assert_eq!(whole.sealed, [told("a", false), told("b", true), told("a", true), told("c", false)]);
        assert_eq!(whole.late, 3);
    }
}
