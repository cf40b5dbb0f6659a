//! The turns of an import become one commit, or several if they are too many for one. Pure.

use super::draft::Draft;
use super::import::ImportReceipt;
use crate::store::{Commit, TurnOutcome, Version};
use crate::turn::{ConversationId, Ordinal, SealedTurn, TurnId};

/// The progress of an import.
#[derive(Debug)]
pub(super) struct ImportParts {
    turns: Vec<SealedTurn>,
    /// The ordinal of the first turn where it comes from.
    from: Ordinal,
    /// The turns before this place are durable.
    next: usize,
    /// The maximum number of turns in the next commit.
    most: usize,
    receipt: ImportReceipt,
}

impl ImportParts {
    pub(super) fn new(turns: Vec<SealedTurn>, from: Ordinal) -> Self {
        Self { turns, from, next: 0, most: Draft::FULL_TURNS, receipt: ImportReceipt::default() }
    }

    /// Returns what became of the turns that are durable.
    pub(super) fn receipt(&self) -> ImportReceipt {
        self.receipt
    }

    /// Returns the commit of the next turns: as many as fill a draft, but at least one. `None` after the last turn.
    pub(super) fn commit(&self, conversation_id: &ConversationId, expected_version: Version) -> Option<Commit> {
        let rest = self.turns.get(self.next..).filter(|rest| !rest.is_empty())?;
        let mut bytes = 0;
        let fits = |turn: &&SealedTurn| {
            bytes += Commit::sealed_bytes(turn);
            bytes <= Draft::FULL_BYTES
        };
        let count = rest.iter().take(self.most).take_while(fits).count().max(1);
        Some(Commit {
            conversation_id: conversation_id.clone(),
            expected_version,
            staged: Vec::new(),
            // The turns stay here too, in case that the commit has to be made again.
            sealed: rest[..count].to_vec(),
            imported_from: Some(Ordinal::after((self.from.get() - 1).saturating_add(self.next as u64))),
        })
    }

    /// Makes the next commits smaller, because one with this many turns was too large. If it had a single turn, returns
    /// the turn.
    pub(super) fn shrink(&mut self, turns: usize) -> Result<(), TurnId> {
        if turns <= 1 {
            return Err(self.turns[self.next].metrics.turn_id.clone());
        }
        self.most = turns / 2;
        Ok(())
    }

    /// Counts the turns of a durable commit. After the last one, returns the receipt of the whole import.
    pub(super) fn took(&mut self, outcomes: &[(TurnId, TurnOutcome)]) -> Option<ImportReceipt> {
        let is_new = |(_, outcome): &&(TurnId, TurnOutcome)| matches!(outcome, TurnOutcome::Sealed(_));
        let imported = outcomes.iter().filter(is_new).count();
        self.receipt.imported += imported as u64;
        self.receipt.duplicates += (outcomes.len() - imported) as u64;
        self.next += outcomes.len();
        (self.next >= self.turns.len()).then_some(self.receipt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{Done, EpochMillis, OpenTurn, StepId, StepMetrics, StepTimes, Usage};

    fn turn(nth: usize, steps: usize) -> SealedTurn {
        let id = TurnId::new(format!("t{nth}")).unwrap();
        let mut turn = OpenTurn::new(id).seal(&Done::because("stop"), EpochMillis::new(5));
        let step = |nth| StepMetrics {
            step_id: StepId::new(format!("{nth}")).unwrap(),
            usage: Usage::default(),
            times: StepTimes::default(),
        };
        turn.metrics.steps = (0..steps).map(step).collect();
        turn
    }

    /// Returns the number of turns in each commit, and the ordinal where its first turn comes from.
    fn commits(mut parts: ImportParts, max_bytes: usize) -> Result<Vec<(usize, u64)>, TurnId> {
        let id = ConversationId::new("c").unwrap();
        let mut commits = Vec::new();
        while let Some(commit) = parts.commit(&id, Version(7)) {
            assert_eq!((commit.expected_version, commit.staged.len()), (Version(7), 0));
            if commit.bytes() > max_bytes {
                parts.shrink(commit.sealed.len())?;
                continue;
            }
            let outcomes: Vec<_> =
                commit.turn_ids().map(|id| (id.clone(), TurnOutcome::Sealed(Ordinal::after(0)))).collect();
            commits.push((commit.sealed.len(), commit.imported_from.unwrap().get()));
            parts.took(&outcomes);
        }
        let taken = commits.iter().map(|(count, _)| *count as u64).sum();
        assert_eq!(parts.receipt(), ImportReceipt { imported: taken, duplicates: 0 });
        Ok(commits)
    }

    fn parts(turns: impl Iterator<Item = SealedTurn>) -> ImportParts {
        ImportParts::new(turns.collect(), Ordinal::new(5).unwrap())
    }

    #[test]
    fn a_commit_has_at_most_some_turns_and_bytes_and_at_least_one_turn() {
        let full = Draft::FULL_TURNS;
        assert_eq!(commits(parts(std::iter::empty()), usize::MAX), Ok(vec![]));
        assert_eq!(commits(parts((0..full).map(|nth| turn(nth, 0))), usize::MAX), Ok(vec![(full, 5)]));
        let more = parts((0..=2 * full).map(|nth| turn(nth, 0)));
        let at = |count: usize| 5 + count as u64;
        assert_eq!(commits(more, usize::MAX), Ok(vec![(full, 5), (full, at(full)), (1, at(2 * full))]));
        // A step counts some 180 bytes, so two of these turns are too large for one commit.
        let long = parts((0..3).map(|nth| turn(nth, 4000)));
        assert_eq!(commits(long, usize::MAX), Ok(vec![(1, 5), (1, 6), (1, 7)]));
    }

    #[test]
    fn a_commit_that_is_too_large_is_made_with_fewer_turns_and_one_turn_alone_is_told() {
        let short = || (0..4).map(|nth| turn(nth, 1));
        assert_eq!(commits(parts(short()), 1500), Ok(vec![(2, 5), (2, 7)]));
        assert_eq!(commits(parts(short().chain([turn(9, 20)])), 1500), Err(TurnId::new("t9").unwrap()));
    }

    #[test]
    fn turns_that_were_sealed_before_are_counted_as_duplicates() {
        let mut parts = parts((0..3).map(|nth| turn(nth, 0)));
        let one = Ordinal::after(0);
        let outcomes = [TurnOutcome::Sealed(one), TurnOutcome::Duplicate(one), TurnOutcome::Sealed(one)];
        let outcomes = outcomes.map(|outcome| (TurnId::new("t").unwrap(), outcome));
        assert_eq!(parts.took(&outcomes), Some(ImportReceipt { imported: 2, duplicates: 1 }));
    }
}
