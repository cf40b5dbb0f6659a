//! The only oracle of the tests: what a commit does, written as simply as possible and independently of the commit
//! rule.
//!
//! The oracle keeps whole turns and searches them, where the rule has counters and look-ups. The oracle must not use
//! [`rule`](super::rule), because tests compare both the rule and the engines with the oracle.

use std::collections::BTreeMap;

use super::{
    Commit, CommitError, Committed, ListedConversation, ReportQuestion, StagedChange, StagedTurn, TurnOutcome, Version,
};
use crate::report::{
    Breakdown, ConversationSums, Cost, Grouping, Period, PriceBook, Quarter, Rollup, Selection, report_time,
};
use crate::turn::{ConversationId, EpochMillis, OpenTurn, Ordinal, StoredTurn, TurnId, Usage};

/// The data that a store must have of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Oracle {
    pub(super) version: Version,
    /// The number of ordinals before that of the first turn: 0 unless that turn was imported.
    pub(super) begins_after: u64,
    /// The turns that were dropped because of their age. They come before `sealed`.
    pub(super) dropped: Vec<StoredTurn>,
    /// The sums over the dropped turns, with the costs that they had when they were dropped.
    pub(super) dropped_sums: ConversationSums,
    pub(super) sealed: Vec<StoredTurn>,
    pub(super) open: BTreeMap<TurnId, StagedTurn>,
}

impl Oracle {
    pub(super) fn ordinal_of(&self, turn_id: &TurnId) -> Option<Ordinal> {
        self.sealed.iter().find(|turn| turn.metrics.turn_id == *turn_id).map(|turn| turn.ordinal)
    }

    /// Erases the conversation. Returns whether there was anything to erase, and the turns that are gone.
    pub(super) fn erase(&mut self) -> (bool, Vec<StoredTurn>) {
        let erased = std::mem::take(self);
        (erased.version.0 > 0, erased.all().cloned().collect())
    }

    /// Drops the first turns, at most `at_most`, that were sealed before a moment. Returns how many.
    pub(super) fn drop_before(&mut self, before: EpochMillis, at_most: usize, book: &dyn PriceBook) -> usize {
        let old = self.sealed.iter().take(at_most).take_while(|turn| turn.sealed_at < before).count();
        for turn in self.sealed.drain(..old) {
            self.dropped_sums.add(&ConversationSums::of_turn(&turn, book));
            self.dropped.push(turn);
        }
        old
    }

    /// Returns the number of ordinals before that of the first stored turn.
    pub(super) fn missing(&self) -> u64 {
        self.begins_after + self.dropped.len() as u64
    }

    /// Returns the ordinal of the latest turn; 0 if no turn was ever sealed.
    pub(super) fn last_ordinal(&self) -> u64 {
        self.begins_after + self.all().count() as u64
    }

    /// Returns all turns that were ever sealed, in order.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &StoredTurn> {
        self.dropped.iter().chain(&self.sealed)
    }

    pub(super) fn last_sealed_at(&self) -> EpochMillis {
        self.all().next_back().map_or_else(EpochMillis::default, |last| last.sealed_at)
    }

    /// Returns how a store must list the conversation.
    pub(super) fn listing(&self, id: &ConversationId, book: &dyn PriceBook) -> Option<ListedConversation> {
        // A conversation whose turns were all dropped is not listed.
        self.sealed.first()?;
        let all: Vec<_> = self.all().cloned().collect();
        let mut listed = listing_of(id, &all, self.open.len(), book)?;
        listed.sums = self.dropped_sums.clone();
        self.sealed.iter().for_each(|turn| listed.sums.add(&ConversationSums::of_turn(turn, book)));
        Some(listed)
    }

    /// Makes the changes of the commit, and returns the answer that a store must give.
    pub(super) fn apply(&mut self, commit: &Commit) -> Result<Committed, CommitError> {
        let may_conflict = commit.imported_from.is_none() || !commit.staged.is_empty();
        if may_conflict && commit.expected_version != self.version {
            return Err(CommitError::Conflict { expected: commit.expected_version, actual: self.version });
        }
        let mut outcomes = Vec::new();
        for change in &commit.staged {
            let id = change.turn_id.clone();
            let outcome = if let Some(ordinal) = self.ordinal_of(&id) {
                TurnOutcome::Duplicate(ordinal)
            } else {
                let before = self.open.remove(&id);
                self.open.insert(id.clone(), changed(before, change));
                TurnOutcome::Staged
            };
            outcomes.push((id, outcome));
        }
        for sealed in &commit.sealed {
            let id = sealed.metrics.turn_id.clone();
            let outcome = if let Some(ordinal) = self.ordinal_of(&id) {
                TurnOutcome::Duplicate(ordinal)
            } else {
                if let Some(first) = commit.imported_from
                    && self.all().next().is_none()
                {
                    self.begins_after = first.get().min(Commit::MAX_IMPORTED_FROM) - 1;
                }
                let ordinal = Ordinal::after(self.last_ordinal());
                self.open.remove(&id);
                let mut turn = sealed.clone().at(ordinal);
                if commit.imported_from.is_none() {
                    turn.sealed_at = turn.sealed_at.max(self.last_sealed_at());
                }
                self.sealed.push(turn);
                TurnOutcome::Sealed(ordinal)
            };
            outcomes.push((id, outcome));
        }
        if outcomes.iter().any(|(_, outcome)| !matches!(outcome, TurnOutcome::Duplicate(_))) {
            self.version.0 += 1;
        }
        Ok(Committed { version: self.version, outcomes })
    }
}

/// Returns the turn after a change: each step is taken from the change, or else from the turn before.
fn changed(before: Option<StagedTurn>, change: &StagedChange) -> StagedTurn {
    let before: Vec<_> = before.map_or_else(Vec::new, |before| before.turn.steps.to_vec());
    let mut steps: BTreeMap<_, _> = (0..).zip(before).collect();
    steps.extend(change.steps.iter().cloned());
    steps.retain(|place, _| *place < change.step_count);
    let turn = OpenTurn { id: change.turn_id.clone(), head: change.head.clone(), steps: steps.into_values().collect() };
    StagedTurn { turn, last_event_at: change.last_event_at }
}

/// Returns the change that makes the turn `after` of the turn `before`. It has only the steps that differ.
pub(super) fn change(before: Option<&StagedTurn>, after: StagedTurn) -> StagedChange {
    let mut change = StagedChange::from(after);
    let before = before.map_or(&[][..], |before| &before.turn.steps);
    change.steps.retain(|(place, step)| before.get(*place as usize) != Some(step));
    change
}

/// Returns how a store must list a conversation that has these turns.
pub(crate) fn listing_of(
    conversation_id: &ConversationId,
    sealed: &[StoredTurn],
    open_turns: usize,
    book: &dyn PriceBook,
) -> Option<ListedConversation> {
    let (first, latest) = (sealed.first()?, sealed.last()?);
    let mut sums = ConversationSums::default();
    for turn in sealed {
        sums.add(&ConversationSums::of_turn(turn, book));
    }
    Some(ListedConversation {
        conversation_id: conversation_id.clone(),
        sealed_turns: sealed.len() as u64,
        open_turns,
        total_usage: sealed.iter().fold(Usage::default(), |sum, turn| sum.saturating_add(turn.metrics.usage)),
        first_at: report_time(first),
        last_at: report_time(latest),
        model: latest.model.clone(),
        project: latest.project.clone(),
        context_size: latest.metrics.context_size,
        sums,
    })
}

/// Returns the report that a store of these turns must answer with. The turns are added up one by one.
pub(crate) fn breakdown_of<'a>(
    turns: impl IntoIterator<Item = &'a StoredTurn>,
    question: &ReportQuestion,
    book: &dyn PriceBook,
) -> Breakdown {
    let mut breakdown = Breakdown::new(question.grouping, question.selection.clone());
    for turn in turns {
        let quarter = Quarter::of(report_time(turn));
        for period in question.periods.iter().filter(|period| period.contains(quarter)) {
            for (label, rollup) in Rollup::of_turn(turn) {
                breakdown.add(*period, &label, &rollup);
            }
            for (label, cost) in Cost::of_turn(turn, book) {
                breakdown.add_cost(*period, &label, &cost);
            }
        }
    }
    breakdown
}

/// A question about the first days of 1970, grouped by all labels. The turns of most tests are in these days.
pub(crate) fn question_of_1970() -> ReportQuestion {
    let periods = [(0, 1), (1, 4), (4, 7), (7, 200)];
    let periods = periods.map(|(start, end)| Period::new(Quarter::new(start), Quarter::new(end)).unwrap());
    let grouping = Grouping { model: true, provider: true, project: true, reason: true };
    ReportQuestion { periods: periods.into(), grouping, selection: Selection::default() }
}
