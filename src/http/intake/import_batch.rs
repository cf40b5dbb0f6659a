use crate::actors::ImportedTurn;
use crate::settings::TURNS_AT_ONCE;
use crate::store::ErasedSums;
use crate::turn::{StepDetails, StepMetrics};

/// Turns and sums that are imported together, in the order of the body.
#[derive(Debug, Default)]
pub(crate) struct ImportBatch {
    turns: Vec<ImportedTurn>,
    /// The number of the line of each turn.
    lines: Vec<u64>,
    /// Sums of erased turns.
    sums: Vec<ErasedSums>,
    /// The number of the first line with sums.
    sums_line: Option<u64>,
    memory_bytes: usize,
}

impl ImportBatch {
    /// The number of turns with which a batch is full. The store makes them durable in some steps, and other commits
    /// come in between.
    const FULL_TURNS: usize = 4 * TURNS_AT_ONCE;
    /// The memory with which a batch is full.
    const FULL_BYTES: usize = 2 * 1024 * 1024;

    /// Returns whether the batch is to be imported before it gets another turn.
    pub(crate) fn is_full(&self) -> bool {
        self.turns.len() >= Self::FULL_TURNS
            || self.sums.len() >= ErasedSums::AT_ONCE
            || self.memory_bytes >= Self::FULL_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.sums.is_empty()
    }

    /// Returns the number of the first line of the batch.
    pub(crate) fn first_line(&self) -> Option<u64> {
        self.lines.first().copied().into_iter().chain(self.sums_line).min()
    }

    /// Returns the approximate memory of the turns and sums, and of a copy of them on the way to the store.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Adds the turn of a line that has `line_bytes` bytes.
    pub(crate) fn add(&mut self, line: u64, line_bytes: usize, imported: ImportedTurn) {
        let steps = imported.turn.metrics.steps.len() * size_of::<StepMetrics>();
        let details = imported.turn.step_details.len() * size_of::<StepDetails>();
        self.memory_bytes += line_bytes + 2 * (size_of::<ImportedTurn>() + steps + details);
        self.lines.push(line);
        self.turns.push(imported);
    }

    /// Adds the sums of a line that has `line_bytes` bytes.
    pub(crate) fn add_sums(&mut self, line: u64, line_bytes: usize, sums: ErasedSums) {
        // The counts of a distribution take up to some times as many bytes as in the line.
        self.memory_bytes += 8 * line_bytes;
        self.sums_line.get_or_insert(line);
        self.sums.push(sums);
    }

    /// Takes the batch apart: the turns, the numbers of their lines, and the sums.
    pub(crate) fn into_parts(self) -> (Vec<ImportedTurn>, Vec<u64>, Vec<ErasedSums>) {
        (self.turns, self.lines, self.sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stand_in::sealed_turns;
    use crate::turn::{ConversationId, EpochMillis, SealedTurn, StoredTurn};

    fn imported() -> ImportedTurn {
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
        ImportedTurn { conversation_id: ConversationId::new("c").unwrap(), ordinal: None, turn }
    }

    #[test]
    fn a_batch_is_full_at_some_turns_or_bytes() {
        let mut batch = ImportBatch::default();
        assert_eq!(batch.first_line(), None);
        for line in 1..=ImportBatch::FULL_TURNS as u64 {
            assert!(!batch.is_full());
            batch.add(line + 6, 1, imported());
        }
        assert!(batch.is_full());
        assert_eq!(batch.first_line(), Some(7));
        let mut batch = ImportBatch::default();
        assert!(batch.is_empty() && !batch.is_full());
        batch.add(1, ImportBatch::FULL_BYTES, imported());
        assert!(batch.is_full() && batch.memory_bytes() >= ImportBatch::FULL_BYTES);
    }
}
