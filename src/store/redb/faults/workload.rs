use std::collections::BTreeMap;

use crate::simulate::random::Random;
use crate::store::oracle::{Oracle, change};
use crate::store::{Commit, StagedTurn, Version};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenTurn, Ordinal, Progress, RunningTime, SealedTurn, StepId, TurnId, Usage,
};

/// An operation on the store. Further kinds can be added without a change of the checks.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// Commits that wait together, for one conversation or several.
    Commits(Vec<Commit>),
    /// Commits that are made together, in their order, until one is refused.
    Series(Vec<Commit>),
    /// The erasure of a conversation.
    Erase(ConversationId),
    /// Turns that were sealed before this moment are dropped.
    Drop(EpochMillis),
    /// Sums of erased turns of another store are taken in. Each number is the place of sums and how many turns they have.
    TakeSums(Vec<(u64, u64)>),
    /// A write check: a durable write of nothing.
    CheckWrite,
    /// This many flushes of the checkpoint, run while no commit waits for a flush.
    Checkpoint(usize),
    /// A pass of the scrub, which must find nothing.
    Scrub,
    /// The owner of the store ends without closing it, and the store is opened again.
    Restart,
    /// The store is closed in order, which moves everything into the tables, and is opened again.
    Close,
}

/// Returns a commit that seals a turn of this model for each id and moment, and stages another turn.
pub(super) fn sealing(
    name: &str,
    version: u64,
    model: &str,
    sealed: impl Iterator<Item = (String, EpochMillis)>,
) -> Commit {
    let turn = |id: String| {
        let mut turn = OpenTurn::new(TurnId::new(id).unwrap());
        let usage = Usage { input_tokens: 900.into(), output_tokens: 20.into(), ..Usage::default() };
        let step_id = Some(StepId::new(format!("{}#0", turn.id)).unwrap());
        turn.fold(&Progress::Usage { step_id, report: usage.into(), is_final: false });
        turn
    };
    let done = Done { model: Some(model.into()), ..Done::because("stop") };
    let staged = StagedTurn { turn: turn(format!("open-{version}")), last_event_at: RunningTime::new(1) };
    Commit {
        conversation_id: ConversationId::new(name).unwrap(),
        expected_version: Version(version),
        staged: vec![staged.into()],
        sealed: sealed.map(|(id, at)| turn(id).seal(&done, at)).collect(),
        imported_from: None,
    }
}

/// Draws operations from a seed.
pub(super) struct Workload {
    random: Random,
    /// The number of turns begun so far, in all conversations.
    turns: u64,
}

const CONVERSATIONS: [&str; 4] = ["a", "b", "c", "an id that is longer than the others"];

impl Workload {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), turns: 0 }
    }

    /// Returns the next operation on a store with the conversations `models`.
    pub(super) fn next(&mut self, models: &BTreeMap<ConversationId, Oracle>) -> Operation {
        match self.random.below(31) {
            0 => Operation::CheckWrite,
            1 => Operation::Restart,
            2 => Operation::Close,
            24 => Operation::Erase(ConversationId::new(self.random.pick(&CONVERSATIONS)).unwrap()),
            3..=5 | 25 => Operation::Checkpoint(1 + self.random.below(3)),
            26 => Operation::Scrub,
            27 | 28 => Operation::Drop(self.moment(models)),
            29 | 30 => {
                let (first, count) = (self.random.below(6) as u64, 1 + self.random.below(4) as u64);
                let turns = |random: &mut Random| 1 + random.below(5) as u64;
                Operation::TakeSums((first..first + count).map(|place| (place, turns(&mut self.random))).collect())
            }
            6..=10 => {
                // Each commit is made for the state that the commits before it will leave.
                let mut expected = models.clone();
                let mut burst = Vec::new();
                for _ in 0..2 + self.random.below(9) {
                    let commit = self.commit(&expected);
                    let _ = expected.entry(commit.conversation_id.clone()).or_default().apply(&commit);
                    burst.push(commit);
                }
                if self.random.once_in(3) { Operation::Series(burst) } else { Operation::Commits(burst) }
            }
            _ => Operation::Commits(vec![self.commit(models)]),
        }
    }

    /// Returns a moment just after one of the stored turns was sealed.
    fn moment(&mut self, models: &BTreeMap<ConversationId, Oracle>) -> EpochMillis {
        let sealed: Vec<_> = models.values().flat_map(|model| &model.sealed).map(|turn| turn.sealed_at.get()).collect();
        let place = self.random.below(sealed.len().max(1));
        EpochMillis::new(sealed.get(place).map_or(0, |at| at + 1))
    }

    fn commit(&mut self, models: &BTreeMap<ConversationId, Oracle>) -> Commit {
        let id = ConversationId::new(self.random.pick(&CONVERSATIONS)).unwrap();
        let blank = Oracle::default();
        let model = models.get(&id).unwrap_or(&blank);
        let mut commit = Commit {
            conversation_id: id,
            expected_version: model.version,
            staged: Vec::new(),
            sealed: Vec::new(),
            imported_from: None,
        };
        if self.random.once_in(5) {
            commit.imported_from = Ordinal::new(self.random.within(1..=3).into());
        }
        // Each open turn changes at most once in a commit.
        let mut open: Vec<_> = model.open.values().collect();
        for _ in 0..=self.random.below(3) {
            match self.random.below(9) {
                // A new turn, whole.
                0..=2 => {
                    let turn = self.new_turn();
                    commit.sealed.push(self.seal(&turn));
                }
                // A new turn that stays open.
                3 => {
                    let turn = self.new_turn();
                    commit.staged.push(self.stage(turn).into());
                }
                // An open turn gets another event, or ends.
                4 | 5 if !open.is_empty() => {
                    let before = open.swap_remove(self.random.below(open.len()));
                    let mut turn = before.turn.clone();
                    self.go_on(&mut turn);
                    if self.random.once_in(3) {
                        commit.sealed.push(self.seal(&turn));
                    } else {
                        commit.staged.push(change(Some(before), self.stage(turn)));
                    }
                }
                // A sealed turn that is sent again, as by a client that had no answer. Its content differs, so that a
                // test notices if it replaces the first. A turn that was dropped is sealed anew.
                6 if model.all().next().is_some() => {
                    let known: Vec<_> = model.all().map(|turn| &turn.metrics.turn_id).collect();
                    let known = known[self.random.below(known.len())];
                    // The turn may have been dropped, and opened anew since. It begins anew once more.
                    open.retain(|staged| staged.turn.id != *known);
                    let turn = OpenTurn::new(known.clone());
                    if self.random.once_in(2) {
                        commit.sealed.push(self.seal(&turn));
                    } else {
                        commit.staged.push(self.stage(turn).into());
                    }
                }
                // An open turn that begins anew, as happens if its staged rows cannot be read.
                8 if !open.is_empty() => {
                    let mut turn = OpenTurn::new(open.swap_remove(self.random.below(open.len())).turn.id.clone());
                    self.go_on(&mut turn);
                    commit.staged.push(self.stage(turn).into());
                }
                // A commit that expects a wrong version.
                7 => commit.expected_version = Version(model.version.0.wrapping_add(1)),
                _ => {}
            }
        }
        commit
    }

    fn new_turn(&mut self) -> OpenTurn {
        self.turns += 1;
        let mut turn = OpenTurn::new(TurnId::new(format!("t{}", self.turns)).unwrap());
        // Most turns are small, and some are larger than a page.
        let steps = if self.random.once_in(12) { 150 } else { self.random.below(3) };
        for _ in 0..steps {
            self.go_on(&mut turn);
        }
        turn
    }

    fn go_on(&mut self, turn: &mut OpenTurn) {
        // Most events belong to a new step, and some to an earlier step.
        let most = turn.steps.len();
        let step = if self.random.once_in(4) { self.random.below(most + 1) } else { most };
        let step = StepId::new(format!("{}#{step}", turn.id)).unwrap();
        let usage = Usage { input_tokens: self.random.within(0..=u32::MAX).into(), ..Usage::default() };
        turn.fold(&Progress::Usage { step_id: Some(step), report: usage.into(), is_final: false });
    }

    fn stage(&mut self, turn: OpenTurn) -> StagedTurn {
        StagedTurn { turn, last_event_at: RunningTime::new(self.random.within(1..=1_000_000).into()) }
    }

    fn seal(&mut self, turn: &OpenTurn) -> SealedTurn {
        let done = Done { duration: Some(self.random.within(0..=u32::MAX).into()), ..Done::because("stop") };
        let model = ["m", "dear", "unknown"].get(turn.steps.len() % 4).map(|model| (*model).into());
        let done = Done { model, ..done };
        turn.seal(&done, EpochMillis::new(self.random.within(1..=1_000_000).into()))
    }
}
