//! The commit rule: what a commit does to its conversation. The rule is pure, so that all engines can share it.
//!
//! An engine looks up which turns of the commit are sealed, calls [`decide`], and makes the decision durable. No other
//! commit may change the conversation in between.
//!
//! The turns of a commit are taken one after the other: first the staged ones, then the sealed ones, each in the order
//! given. A turn may be in a commit more than once. If it is staged twice, the second change applies to the result of
//! the first. If it is staged and sealed, it is sealed. If it is sealed twice, the second time is a duplicate.

use std::collections::HashMap;

use super::contract::{Commit, CommitError, Committed, StagedChange, TurnOutcome, Version};
use crate::turn::{EpochMillis, Ordinal, SealedTurn, TurnId};

/// The part of a conversation's state that the rule needs. The default is a conversation without commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ConversationHead {
    /// The conversation's version.
    pub(crate) version: Version,
    /// The number of its sealed turns: the ordinal of the latest one.
    pub(crate) sealed_turns: u64,
    /// The moment at which its latest turn was sealed; the beginning of 1970 if no turn is sealed.
    pub(crate) last_sealed_at: EpochMillis,
}

impl ConversationHead {
    /// Refuses a commit that expects another version. [`decide`] does this too. An engine that calls this first saves
    /// the look-ups of a refused commit.
    pub(crate) fn check(&self, commit: &Commit) -> Result<(), Conflict> {
        let expected = commit.expected_version;
        let fits = expected == self.version || commit.fits_any_version();
        if fits { Ok(()) } else { Err(Conflict { expected, actual: self.version }) }
    }
}

/// The commit expected another version than the conversation has, so it changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The version that the commit expected.
    pub(crate) expected: Version,
    /// The version that the conversation has.
    pub(crate) actual: Version,
}

impl Conflict {
    /// Returns the answer to the commit.
    pub(crate) fn into_error(self) -> CommitError {
        CommitError::Conflict { expected: self.expected, actual: self.actual }
    }
}

/// The changes of a commit, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The conversation's version, the number of its sealed turns and the moment of its latest sealing, after the
    /// commit.
    pub(crate) head: ConversationHead,
    /// Whether the commit changes anything. If not, there is nothing to write.
    pub(crate) changes: bool,
    /// The outcome of each turn of the commit: the staged turns, then the sealed turns.
    outcomes: Vec<(TurnId, TurnOutcome)>,
    /// The moment at which each newly sealed turn is sealed: never earlier than the moment of the turn before it in the
    /// conversation, unless the turn is imported.
    sealed_at: Vec<EpochMillis>,
}

impl Decision {
    /// Returns the changes of open turns to write. They must be made one after the other.
    pub(crate) fn staged<'a>(&'a self, commit: &'a Commit) -> impl Iterator<Item = &'a StagedChange> {
        let turns = commit.staged.iter().zip(&self.outcomes);
        turns.filter_map(|(turn, (_, outcome))| matches!(outcome, TurnOutcome::Staged).then_some(turn))
    }

    /// Returns the turns to seal, in order, each with its ordinal and the moment of its sealing. These turns are no
    /// longer open, even if this commit staged them.
    pub(crate) fn sealed<'a>(
        &'a self,
        commit: &'a Commit,
    ) -> impl Iterator<Item = (&'a SealedTurn, Ordinal, EpochMillis)> {
        let outcomes = self.outcomes.iter().skip(commit.staged.len());
        let new = commit.sealed.iter().zip(outcomes).filter_map(|(turn, (_, outcome))| match outcome {
            TurnOutcome::Sealed(ordinal) => Some((turn, *ordinal)),
            TurnOutcome::Staged | TurnOutcome::Duplicate(_) => None,
        });
        new.zip(&self.sealed_at).map(|((turn, ordinal), sealed_at)| (turn, ordinal, *sealed_at))
    }

    /// Returns the answer to give once the decision is durable.
    pub(crate) fn into_committed(self) -> Committed {
        Committed { version: self.head.version, outcomes: self.outcomes }
    }
}

impl Commit {
    /// Returns whether the commit depends on nothing that the conversation has.
    fn fits_any_version(&self) -> bool {
        self.imported_from.is_some() && self.staged.is_empty()
    }

    /// Returns the ids of the commit's turns in the order in which the rule takes them: the staged turns, then the
    /// sealed turns.
    pub(crate) fn turn_ids(&self) -> impl Iterator<Item = &TurnId> {
        let sealed = self.sealed.iter().map(|turn| &turn.metrics.turn_id);
        self.staged.iter().map(|change| &change.turn_id).chain(sealed)
    }
}

/// Decides what `commit` does to the conversation.
///
/// `sealed` has an entry for each of [`Commit::turn_ids`]: the ordinal of the turn if it was sealed before this commit.
pub(crate) fn decide(
    head: &ConversationHead,
    sealed: &[Option<Ordinal>],
    commit: &Commit,
) -> Result<Decision, Conflict> {
    debug_assert_eq!(sealed.len(), commit.turn_ids().count(), "each turn of the commit must be looked up");
    head.check(commit)?;
    let mut head = *head;
    let mut sealed = sealed.iter().copied();
    let mut outcomes = Vec::with_capacity(sealed.len());
    for change in &commit.staged {
        let outcome = sealed.next().flatten().map_or(TurnOutcome::Staged, TurnOutcome::Duplicate);
        outcomes.push((change.turn_id.clone(), outcome));
    }
    let mut sealed_at = Vec::with_capacity(commit.sealed.len());
    // Most commits seal at most one turn, so they need no map.
    let may_repeat = commit.sealed.len() > 1;
    let mut sealed_here = HashMap::with_capacity(if may_repeat { commit.sealed.len() } else { 0 });
    for turn in &commit.sealed {
        let id = &turn.metrics.turn_id;
        let outcome = if let Some(ordinal) = sealed.next().flatten().or_else(|| sealed_here.get(id).copied()) {
            TurnOutcome::Duplicate(ordinal)
        } else {
            if head.sealed_turns == 0
                && let Some(first) = commit.imported_from
            {
                head.sealed_turns = first.get().min(Commit::MAX_IMPORTED_FROM) - 1;
            }
            let ordinal = Ordinal::after(head.sealed_turns);
            head.sealed_turns = ordinal.get();
            let keeps_moment = commit.imported_from.is_some();
            head.last_sealed_at = if keeps_moment { turn.sealed_at } else { head.last_sealed_at.max(turn.sealed_at) };
            sealed_at.push(head.last_sealed_at);
            if may_repeat {
                sealed_here.insert(id, ordinal);
            }
            TurnOutcome::Sealed(ordinal)
        };
        outcomes.push((id.clone(), outcome));
    }
    let changes = outcomes.iter().any(|(_, outcome)| !matches!(outcome, TurnOutcome::Duplicate(_)));
    head.version.0 += u64::from(changes);
    Ok(Decision { head, changes, outcomes, sealed_at })
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::store::contract::StagedTurn;
    use crate::store::oracle::Oracle;
    use crate::turn::{ConversationId, Done, OpenTurn, Progress, RunningTime, StepId, StepTimes, StoredTurn};

    /// A model of a conversation that only applies decisions.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    struct ModelConversation {
        head: ConversationHead,
        open: HashMap<TurnId, StagedTurn>,
        sealed: Vec<StoredTurn>,
    }

    impl ModelConversation {
        fn ordinal_of(&self, id: &TurnId) -> Option<Ordinal> {
            self.sealed.iter().find(|turn| turn.metrics.turn_id == *id).map(|turn| turn.ordinal)
        }

        fn decide(&self, commit: &Commit) -> Result<Decision, Conflict> {
            let sealed: Vec<_> = commit.turn_ids().map(|id| self.ordinal_of(id)).collect();
            decide(&self.head, &sealed, commit)
        }

        fn commit(&mut self, commit: &Commit) -> Result<Committed, CommitError> {
            let decision = self.decide(commit).map_err(Conflict::into_error)?;
            for change in decision.staged(commit) {
                let before = self.open.remove(&change.turn_id);
                self.open.insert(change.turn_id.clone(), StagedTurn::after(before, change));
            }
            for (turn, ordinal, sealed_at) in decision.sealed(commit) {
                self.open.remove(&turn.metrics.turn_id);
                self.sealed.push(SealedTurn { sealed_at, ..turn.clone() }.at(ordinal));
            }
            self.head = decision.head;
            Ok(decision.into_committed())
        }

        /// Applies the commit with the present version as its expected version.
        fn commit_next(&mut self, mut commit: Commit) -> Committed {
            commit.expected_version = self.head.version;
            self.commit(&commit).unwrap()
        }
    }

    fn staged(turn: u8, at: u64) -> StagedTurn {
        let mut turn = OpenTurn::new(TurnId::new(format!("t{turn}")).unwrap());
        for step in 0..at % 4 {
            let step_id = StepId::new(format!("{at}-{step}")).unwrap();
            turn.fold(&Progress::StepComplete { step_id, times: StepTimes::default(), model: None, provider: None });
        }
        StagedTurn { turn, last_event_at: RunningTime::new(at) }
    }

    fn sealed(turn: u8, at: u64) -> SealedTurn {
        staged(turn, 0).turn.seal(&Done::because("stop"), EpochMillis::new(at))
    }

    fn commit_of(version: u64, staged: Vec<StagedTurn>, sealed: Vec<SealedTurn>) -> Commit {
        let conversation_id = ConversationId::new("c").unwrap();
        let staged = staged.into_iter().map(StagedChange::from).collect();
        Commit { conversation_id, expected_version: Version(version), staged, sealed, imported_from: None }
    }

    /// A commit of a few possible turns, so that turns often repeat, within a commit or in different commits.
    fn commit() -> impl Strategy<Value = Commit> {
        let turns = || vec((0..6_u8, 0..9_u64), 0..4);
        let imported_from = prop_oneof![3 => Just(None), 1 => (1..4_u64).prop_map(Ordinal::new)];
        (turns(), turns(), imported_from).prop_map(|(open, ended, imported_from)| {
            let open = open.into_iter().map(|(turn, at)| staged(turn, at));
            let ended = ended.into_iter().map(|(turn, at)| sealed(turn, at));
            Commit { imported_from, ..commit_of(0, open.collect(), ended.collect()) }
        })
    }

    /// A model of a conversation after some commits.
    fn conversation() -> impl Strategy<Value = ModelConversation> {
        vec(commit(), 0..5).prop_map(|commits| {
            let mut conversation = ModelConversation::default();
            for commit in commits {
                conversation.commit_next(commit);
            }
            conversation
        })
    }

    proptest! {
        #[test]
        fn the_rule_does_what_the_oracle_does(commits in vec((commit(), prop_oneof![5 => Just(0), 1 => 1..3_u64]), 0..9)) {
            let (mut conversation, mut oracle) = (ModelConversation::default(), Oracle::default());
            for (mut commit, off) in commits {
                commit.expected_version = Version(oracle.version.0 + off);
                prop_assert_eq!(conversation.commit(&commit), oracle.apply(&commit));
                prop_assert_eq!(conversation.head.version, oracle.version);
                prop_assert_eq!(&conversation.sealed, &oracle.sealed);
                let open: HashMap<_, _> = oracle.open.clone().into_iter().collect();
                prop_assert_eq!(&conversation.open, &open);
            }
        }

        #[test]
        fn ordinals_have_no_gap_and_each_turn_has_one(mut conversation in conversation(), commit in commit()) {
            conversation.commit_next(commit);
            let ordinals: Vec<_> = conversation.sealed.iter().map(|turn| turn.ordinal.get()).collect();
            let first = ordinals.first().copied().unwrap_or(1);
            prop_assert_eq!(ordinals, (first..=conversation.head.sealed_turns).collect::<Vec<_>>());
            let turns: HashSet<_> = conversation.sealed.iter().map(|turn| &turn.metrics.turn_id).collect();
            prop_assert_eq!(turns.len(), conversation.sealed.len());
            prop_assert!(turns.iter().all(|id| !conversation.open.contains_key(*id)), "a sealed turn is open");
        }

        #[test]
        fn a_sealing_that_is_sent_again_changes_nothing_and_is_told_the_same_ordinals(
            mut conversation in conversation(),
            mut commit in commit(),
        ) {
            commit.staged.clear();
            conversation.commit_next(commit.clone());
            let before = conversation.clone();
            let again = conversation.commit_next(commit);
            prop_assert_eq!(&conversation, &before);
            for (id, outcome) in again.outcomes {
                prop_assert_eq!(Some(outcome), before.ordinal_of(&id).map(TurnOutcome::Duplicate));
            }
        }

        #[test]
        fn the_version_rises_by_one_if_anything_changes_and_only_then(
            mut conversation in conversation(),
            commit in commit(),
        ) {
            let before = conversation.clone();
            let commit = Commit { expected_version: before.head.version, ..commit };
            let changes = conversation.decide(&commit).unwrap().changes;
            let committed = conversation.commit(&commit).unwrap();
            let is_new = |(_, outcome): &(TurnId, TurnOutcome)| !matches!(outcome, TurnOutcome::Duplicate(_));
            prop_assert_eq!(changes, committed.outcomes.iter().any(is_new));
            prop_assert_eq!(conversation.head.version.0, before.head.version.0 + u64::from(changes));
            prop_assert!(changes || conversation == before);
        }

        #[test]
        fn the_moment_of_sealing_falls_only_by_an_import_and_is_never_before_the_turns_own(
            mut conversation in conversation(),
            commit in commit(),
        ) {
            let before = conversation.sealed.len();
            let latest = conversation.head.last_sealed_at;
            let keeps_moment = commit.imported_from.is_some();
            conversation.commit_next(commit.clone());
            let new = &conversation.sealed[before..];
            prop_assert!(keeps_moment || new.is_sorted_by_key(|turn| turn.sealed_at));
            prop_assert!(keeps_moment || new.first().is_none_or(|turn| turn.sealed_at >= latest));
            let last = conversation.sealed.last().map_or_else(EpochMillis::default, |turn| turn.sealed_at);
            prop_assert_eq!(conversation.head.last_sealed_at, last);
            for turn in new {
                let sent = commit.sealed.iter().find(|sent| sent.metrics.turn_id == turn.metrics.turn_id);
                let is_right = |sent: &SealedTurn| {
                    if keeps_moment { sent.sealed_at == turn.sealed_at } else { sent.sealed_at <= turn.sealed_at }
                };
                prop_assert!(sent.is_some_and(is_right));
            }
        }

        #[test]
        fn a_commit_in_two_parts_does_what_the_whole_does(
            conversation in conversation(),
            whole in commit(),
            at in any::<prop::sample::Index>(),
        ) {
            let at = at.index(whole.turn_ids().count() + 1);
            let (mut first, mut second) = (whole.clone(), whole.clone());
            second.staged = first.staged.split_off(at.min(first.staged.len()));
            second.sealed = first.sealed.split_off(at.saturating_sub(whole.staged.len()));
            // What is sealed by a later part has a later ordinal where it comes from.
            second.imported_from = whole.imported_from.map(|from| Ordinal::after(from.get() - 1 + first.sealed.len() as u64));
            let (mut at_once, mut in_parts) = (conversation.clone(), conversation);
            let answer = at_once.commit_next(whole);
            let answers = [in_parts.commit_next(first), in_parts.commit_next(second)];
            prop_assert_eq!(answer.outcomes, answers.map(|answer| answer.outcomes).concat());
            in_parts.head.version = at_once.head.version;
            prop_assert_eq!(in_parts, at_once);
        }

        #[test]
        fn a_commit_from_another_version_is_a_conflict_unless_it_has_only_imported_turns(
            conversation in conversation(),
            commit in commit(),
            expected in 0..9_u64,
        ) {
            let (expected, actual) = (Version(expected), conversation.head.version);
            let fits = expected == actual || commit.imported_from.is_some() && commit.staged.is_empty();
            let decided = conversation.decide(&Commit { expected_version: expected, ..commit });
            prop_assert_eq!(decided.err(), (!fits).then_some(Conflict { expected, actual }));
        }
    }

    #[test]
    fn imported_turns_keep_their_ordinals_only_if_no_turn_was_sealed_before() {
        let import = |version, from, ids: &[u8]| {
            let ended = ids.iter().map(|id| sealed(*id, 10 - u64::from(*id))).collect();
            Commit { imported_from: Ordinal::new(from), ..commit_of(version, Vec::new(), ended) }
        };
        let mut conversation = ModelConversation::default();
        conversation.commit(&commit_of(0, vec![staged(9, 1), staged(2, 1)], Vec::new())).unwrap();
        conversation.commit(&import(1, 5, &[1, 2])).unwrap();
        conversation.commit(&import(2, 90, &[2, 3])).unwrap();
        conversation.commit(&commit_of(3, Vec::new(), vec![sealed(4, 2)])).unwrap();
        let told: Vec<_> = conversation.sealed.iter().map(|turn| (turn.ordinal.get(), turn.sealed_at.get())).collect();
        assert_eq!(told, [(5, 9), (6, 8), (7, 7), (8, 7)]);
        assert_eq!(conversation.open.keys().map(TurnId::as_str).collect::<Vec<_>>(), ["t9"]);
        let mut highest = ModelConversation::default();
        highest.commit(&import(0, u64::MAX, &[1])).unwrap();
        assert_eq!(highest.head.sealed_turns, Commit::MAX_IMPORTED_FROM);
    }

    #[test]
    fn a_turn_that_stands_in_a_commit_more_than_once_is_taken_in_order() {
        let commit = commit_of(0, vec![staged(1, 5), staged(2, 6), staged(2, 7)], vec![sealed(1, 9), sealed(1, 8)]);
        let mut conversation = ModelConversation::default();
        let committed = conversation.commit(&commit).unwrap();
        let one = Ordinal::after(0);
        let outcomes: Vec<_> = committed.outcomes.iter().map(|(id, outcome)| (id.as_str(), *outcome)).collect();
        assert_eq!(
            outcomes,
            [
                ("t1", TurnOutcome::Staged),
                ("t2", TurnOutcome::Staged),
                ("t2", TurnOutcome::Staged),
                ("t1", TurnOutcome::Sealed(one)),
                ("t1", TurnOutcome::Duplicate(one))
            ]
        );
        assert_eq!(conversation.sealed, [sealed(1, 9).at(one)]);
        assert_eq!(conversation.open.into_values().collect::<Vec<_>>(), [staged(2, 7)]);
    }
}
