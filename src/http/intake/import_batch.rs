use indexmap::IndexMap;

use super::import_line::ImportedTurn;
use crate::settings::TURNS_AT_ONCE;
use crate::store::ErasedSums;
use crate::turn::{ConversationId, Ordinal, SealedTurn, StepDetails, StepMetrics};

/// Turns and sums that are imported together. Conversations come in the order in which the body mentions them.
#[derive(Debug, Default)]
pub(crate) struct ImportBatch {
    pub(crate) conversations: IndexMap<ConversationId, TurnsToImport>,
    /// Sums of erased turns, each with the number of its line.
    pub(crate) sums: Vec<(u64, ErasedSums)>,
    turns: usize,
    memory_bytes: usize,
}

/// The turns of one conversation in a batch, in the order of the body.
#[derive(Debug, Default)]
pub(crate) struct TurnsToImport {
    /// The turns, each with the number of its line.
    pub(crate) turns: Vec<(u64, SealedTurn)>,
    /// The ordinal of the first turn where it comes from, if it has one.
    from: Option<Ordinal>,
}

impl TurnsToImport {
    /// Returns the ordinal where the turn at a place comes from. Turns without an ordinal are counted from 1.
    pub(crate) fn from(&self, place: usize) -> Ordinal {
        let first = self.from.map_or(1, Ordinal::get);
        Ordinal::after((first - 1).saturating_add(place as u64))
    }
}

impl ImportBatch {
    /// The number of turns with which a batch is full. A conversation's turns in a batch need several commits then, and
    /// each commit of many conversations has few turns, so that the store writes many of them with one fsync.
    const FULL_TURNS: usize = 4 * TURNS_AT_ONCE;
    /// The memory with which a batch is full.
    const FULL_BYTES: usize = 2 * 1024 * 1024;

    /// Returns whether the batch is to be imported before it gets another turn.
    pub(crate) fn is_full(&self) -> bool {
        self.turns >= Self::FULL_TURNS
            || self.sums.len() >= ErasedSums::AT_ONCE
            || self.memory_bytes >= Self::FULL_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns == 0 && self.sums.is_empty()
    }

    /// Returns the number of the first line of the batch.
    pub(crate) fn first_line(&self) -> Option<u64> {
        let turns = self.conversations.values().filter_map(|of_one| of_one.turns.first());
        turns.map(|(line, _)| *line).chain(self.sums.first().map(|(line, _)| *line)).min()
    }

    /// Returns the approximate memory of the turns and sums, and of a copy of them on the way to the store.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Adds the turn of a line that has `line_bytes` bytes.
    pub(crate) fn add(&mut self, line: u64, line_bytes: usize, imported: ImportedTurn) {
        let ImportedTurn { conversation_id, ordinal, turn } = imported;
        let steps = turn.metrics.steps.len() * size_of::<StepMetrics>();
        let details = turn.step_details.len() * size_of::<StepDetails>();
        self.memory_bytes += line_bytes + 2 * (size_of::<SealedTurn>() + steps + details);
        self.turns += 1;
        let of_one = self.conversations.entry(conversation_id).or_insert_with(|| {
            self.memory_bytes += 2 * size_of::<(ConversationId, TurnsToImport)>();
            TurnsToImport { turns: Vec::new(), from: ordinal }
        });
        of_one.turns.push((line, turn));
    }

    /// Adds the sums of a line that has `line_bytes` bytes.
    pub(crate) fn add_sums(&mut self, line: u64, line_bytes: usize, sums: ErasedSums) {
        // The counts of a distribution take up to some times as many bytes as in the line.
        self.memory_bytes += 8 * line_bytes;
        self.sums.push((line, sums));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stand_in::sealed_turns;
    use crate::turn::{EpochMillis, StoredTurn};

    fn imported(conversation: &str, ordinal: Option<u64>) -> ImportedTurn {
        let StoredTurn { reason, metrics, .. } = sealed_turns(1).remove(0);
        let turn = SealedTurn {
            sealed_at: EpochMillis::new(5),
            ended_at: None,
            reason,
            model: None,
            provider: None,
            project: None,
            cache_write_1h_tokens: None,
            step_details: Vec::new(),
            metrics,
        };
        let conversation_id = ConversationId::new(conversation).unwrap();
        ImportedTurn { conversation_id, ordinal: ordinal.and_then(Ordinal::new), turn }
    }

    #[test]
    fn turns_are_grouped_by_conversation_and_keep_their_order_lines_and_first_ordinal() {
        let mut batch = ImportBatch::default();
        for (line, conversation, ordinal) in [(2, "b", Some(7)), (3, "a", None), (5, "b", Some(8)), (6, "a", Some(4))] {
            batch.add(line, 100, imported(conversation, ordinal));
        }
        let grouped: Vec<_> = batch
            .conversations
            .iter()
            .map(|(id, of_one)| {
                let lines: Vec<_> = of_one.turns.iter().map(|(line, _)| *line).collect();
                (id.as_str(), lines, of_one.from(0).get(), of_one.from(1).get())
            })
            .collect();
        assert_eq!(grouped, [("b", vec![2, 5], 7, 8), ("a", vec![3, 6], 1, 2)]);
    }

    #[test]
    fn a_batch_is_full_at_some_turns_or_bytes() {
        let mut batch = ImportBatch::default();
        for line in 1..=ImportBatch::FULL_TURNS as u64 {
            assert!(!batch.is_full());
            batch.add(line, 1, imported("c", None));
        }
        assert!(batch.is_full());
        let mut batch = ImportBatch::default();
        assert!(batch.is_empty() && !batch.is_full());
        batch.add(1, ImportBatch::FULL_BYTES, imported("c", None));
        assert!(batch.is_full() && batch.memory_bytes() >= ImportBatch::FULL_BYTES);
    }
}
