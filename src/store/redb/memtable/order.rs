use std::collections::VecDeque;

use crate::store::contract::Life;
use crate::store::redb::journal::entry::Entry;
use crate::turn::{ConversationId, Ordinal};

/// The turns that one commit sealed: their positions follow each other, and so do their ordinals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) conversation_id: ConversationId,
    /// The life of the conversation in which the turns were sealed.
    pub(crate) life: Life,
    /// The position of the first turn.
    first: u64,
    /// The number of turns of the conversation that were sealed before this run.
    sealed_before: u64,
    turns: u64,
}

impl Run {
    /// The approximate memory of a run.
    const BYTES: usize = 64;
    /// The approximate size of a position's row in the tables.
    const ROW_BYTES: usize = 24;

    /// Returns the run of an entry. `None` if the entry sealed no turns.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        (!entry.sealed.is_empty()).then(|| Self {
            conversation_id: entry.conversation.id.clone(),
            life: entry.conversation.life,
            first: entry.position,
            sealed_before: entry.sealed_before(),
            turns: entry.sealed.len() as u64,
        })
    }

    /// Returns the position of the last turn.
    pub(super) fn last(&self) -> u64 {
        self.first + (self.turns - 1)
    }

    /// Returns the positions and the ordinals of the turns.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u64, Ordinal)> + use<> {
        let (first, sealed_before) = (self.first, self.sealed_before);
        (0..self.turns).map(move |nth| (first + nth, Ordinal::after(sealed_before + nth)))
    }

    /// Returns the approximate size of the run in memory and of its rows in the tables.
    pub(crate) fn bytes(&self) -> usize {
        Self::BYTES + Self::ROW_BYTES * usize::try_from(self.turns).unwrap_or(usize::MAX / 2 / Self::ROW_BYTES)
    }
}

/// The order in which the turns of the memtable were sealed: the runs of the immutable table, then those of the active
/// one. The order has no records: these are in the pieces or, once the pieces are moved, in the tables.
#[derive(Debug, Default)]
pub(super) struct Order {
    runs: VecDeque<Run>,
    /// The number of runs of the immutable table, which come first.
    frozen: usize,
    bytes: usize,
}

impl Order {
    pub(super) fn push(&mut self, run: Run) {
        self.bytes += run.bytes();
        self.runs.push_back(run);
    }

    /// Makes all runs part of the immutable table.
    pub(super) fn freeze(&mut self) {
        self.frozen = self.runs.len();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn has_frozen(&self) -> bool {
        self.frozen > 0
    }

    pub(super) fn has_active(&self) -> bool {
        self.frozen < self.runs.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the first runs of the immutable table, of about this many bytes, and whether these are all of its runs.
    pub(super) fn frozen(&self, bytes: usize) -> (Vec<Run>, bool) {
        let mut size = 0;
        let runs = self.runs.iter().take(self.frozen);
        let runs: Vec<_> = runs.take_while(|run| (size < bytes, size += run.bytes()).0).cloned().collect();
        let is_all = runs.len() == self.frozen;
        (runs, is_all)
    }

    /// Drops this many of the first runs, which are in the tables now.
    pub(super) fn drop_first(&mut self, count: usize) {
        for run in self.runs.drain(..count) {
            self.bytes -= run.bytes();
        }
        self.frozen -= count;
    }

    /// Returns the first position of the first run.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.front().map(|run| run.first)
    }

    /// Returns the turns after a position, in order.
    pub(super) fn after(&self, position: u64) -> impl Iterator<Item = (u64, &Run, Ordinal)> {
        let passed = self.runs.partition_point(|run| run.last() <= position);
        let runs = self.runs.range(passed..);
        let turns = runs.flat_map(|run| run.places().map(move |(at, ordinal)| (at, run, ordinal)));
        turns.skip_while(move |(at, ..)| *at <= position)
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(conversation: &str, first: u64, turns: u64) -> Run {
        let conversation_id = ConversationId::new(conversation).unwrap();
        Run { conversation_id, life: Life(1), first, sealed_before: first + 100, turns }
    }

    fn order() -> Order {
        let mut order = Order::default();
        for run in [run("a", 5, 2), run("b", 7, 1), run("a", 8, 3)] {
            order.push(run);
        }
        order
    }

    #[test]
    fn the_turns_after_any_position_follow_each_other() {
        let order = order();
        for position in 0..=11 {
            let turns: Vec<_> = order
                .after(position)
                .map(|(at, run, ordinal)| (at, run.conversation_id.as_str(), ordinal.get()))
                .collect();
            let all = [(5, "a", 106), (6, "a", 107), (7, "b", 108), (8, "a", 109), (9, "a", 110), (10, "a", 111)];
            assert!(turns.iter().eq(all.iter().filter(|(at, ..)| *at > position)), "after {position}: {turns:?}");
        }
        assert_eq!(order.first(), Some(5));
    }

    #[test]
    fn only_runs_of_the_immutable_table_are_moved_and_the_bytes_are_those_of_the_rest() {
        let mut order = order();
        order.freeze();
        order.push(run("c", 11, 1));
        let bytes = |runs: &[Run]| runs.iter().map(Run::bytes).sum::<usize>();
        let all: Vec<_> = order.runs().cloned().collect();
        assert_eq!(order.frozen(usize::MAX), (all[..3].to_vec(), true));
        assert_eq!(order.frozen(1), (all[..1].to_vec(), false));
        assert_eq!(order.frozen(0), (Vec::new(), false));
        for dropped in 0..=3 {
            assert_eq!(order.bytes(), bytes(&all[dropped..]));
            assert_eq!((order.has_frozen(), order.has_active()), (dropped < 3, true));
            order.drop_first(usize::from(dropped < 3));
        }
        assert_eq!(order.frozen(usize::MAX), (Vec::new(), true));
        order.drop_first(0);
        assert!(!order.is_empty());
    }
}
