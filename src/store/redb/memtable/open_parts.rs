use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::redb::tables::record::open_turn::StagedRecords;

/// The part of an open turn in a piece: its head, and the steps that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenParts {
    head: Arc<[u8]>,
    /// The number of steps in the head.
    step_count: u32,
    /// The records of the changed steps, by their places. All places are below the number of steps.
    steps: BTreeMap<u32, Arc<[u8]>>,
    bytes: usize,
}

impl OpenParts {
    /// The approximate memory of a step without its record.
    const STEP_BYTES: usize = 64;

    /// Returns the parts of the first change.
    pub(super) fn of(records: StagedRecords) -> Self {
        let mut new = Self { head: Arc::default(), step_count: 0, steps: BTreeMap::new(), bytes: 0 };
        new.take(records);
        new
    }

    /// Takes in the next change.
    pub(super) fn take(&mut self, StagedRecords { step_count, head, steps, .. }: StagedRecords) {
        let of_step = |record: &Arc<[u8]>| record.len() + Self::STEP_BYTES;
        self.bytes = self.bytes + head.len() - self.head.len();
        if step_count < self.step_count {
            // The turn has begun anew.
            let gone = self.steps.split_off(&step_count);
            self.bytes -= gone.values().map(of_step).sum::<usize>();
        }
        for (place, record) in steps.into_iter().filter(|(place, _)| *place < step_count) {
            self.bytes += of_step(&record);
            self.bytes -= self.steps.insert(place, record).as_ref().map_or(0, of_step);
        }
        (self.head, self.step_count) = (head, step_count);
    }

    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(crate) fn step_count(&self) -> u32 {
        self.step_count
    }

    /// Returns the records of the steps that changed, by their places.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.steps.iter().map(|(place, record)| (*place, &**record))
    }

    /// Returns the approximate memory of the records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::TurnId;

    fn records(step_count: u32, head: &[u8], steps: &[(u32, &[u8])]) -> StagedRecords {
        let steps = steps.iter().map(|(place, record)| (*place, (*record).into()));
        StagedRecords { turn_id: TurnId::new("t").unwrap(), step_count, head: head.into(), steps: steps.collect() }
    }

    fn seen(open: &OpenParts) -> Vec<(u32, &[u8])> {
        open.steps().collect()
    }

    #[test]
    fn a_later_change_replaces_the_head_and_the_steps_that_it_has_and_counts_their_bytes() {
        let mut open = OpenParts::of(records(3, b"one", &[(0, b"a"), (2, b"ccc")]));
        open.take(records(4, b"second", &[(2, b"CC"), (3, b"d")]));
        assert_eq!((open.head(), open.step_count()), (&b"second"[..], 4));
        assert_eq!(seen(&open), [(0, &b"a"[..]), (2, b"CC"), (3, b"d")]);
        assert_eq!(open.bytes(), 6 + 4 + 3 * OpenParts::STEP_BYTES);
        assert_eq!(open, OpenParts::of(records(4, b"second", &[(0, b"a"), (2, b"CC"), (3, b"d")])));
    }

    #[test]
    fn a_turn_that_begins_anew_has_no_step_of_its_earlier_life() {
        let mut open = OpenParts::of(records(3, b"h", &[(0, b"a"), (1, b"b"), (2, b"c")]));
        open.take(records(1, b"h", &[(0, b"A"), (1, b"beyond")]));
        assert_eq!(seen(&open), [(0, &b"A"[..])]);
        assert_eq!(open.bytes(), 2 + OpenParts::STEP_BYTES);
    }
}
