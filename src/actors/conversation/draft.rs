//! The draft: the changes that a batch of work makes to a conversation's turns, before they are committed. This file is
//! pure: the actor sends the messages and waits for the answers.

use std::collections::{BTreeSet, HashMap};

use indexmap::IndexMap;

use super::known::{Extent, KnownTurns};
use super::observe::{ObserveError, Receipt, TurnReceipt};
use super::open_change::{Before, OpenChange};
use super::touched::{TouchedTurns, TurnState};
use crate::settings::{TURNS_AT_ONCE, TurnSettings};
use crate::store::{Commit, StaleBefore, TurnOutcome, Version};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenStep, OpenTurn, Ordinal, Progress, RunningTime, TurnEvent, TurnEventKind,
    TurnId, Warning,
};

/// The `reason` of a turn that was sealed because its events stopped coming.
const ABANDONED: &str = "abandoned";

/// The `reason` of a turn that was sealed because its last event was an `error`.
const FAILED: &str = "error";

/// The two times that a draft uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// The moment at which the draft seals turns. It is never before the conversation's latest sealing.
    pub(super) moment: EpochMillis,
    /// How long the service has run.
    pub(super) running: RunningTime,
}

/// A piece of work: something that changes a conversation's turns.
#[derive(Debug)]
pub(super) enum Work {
    /// Fold these events.
    Observe(Vec<TurnEvent>),
    /// Seal the turns of this list that are stale.
    Abandon { turn_ids: Vec<TurnId>, before: StaleBefore },
}

/// The limits that a draft checks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) open_turns: usize,
    pub(super) steps: usize,
    pub(super) turn_bytes: usize,
    pub(super) open_bytes: usize,
}

impl Limits {
    /// No limits, for work that has already been checked against them.
    pub(super) const NONE: Self =
        Self { open_turns: usize::MAX, steps: usize::MAX, turn_bytes: usize::MAX, open_bytes: usize::MAX };
}

impl From<&TurnSettings> for Limits {
    fn from(settings: &TurnSettings) -> Self {
        Self {
            open_turns: settings.max_open_turns,
            steps: settings.max_steps,
            turn_bytes: settings.max_turn_bytes,
            open_bytes: settings.max_open_bytes,
        }
    }
}

/// The reason why a draft refused a piece of work.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// The work has an `error` event of a turn that the actor does not know. Such a turn may be sealed, or new to the
    /// store. The list has every turn of the work that the actor has to look up in the store.
    UnknownFailures(Vec<TurnId>),
    /// The work would exceed a limit.
    OverLimit(ObserveError),
}

/// A change of a conversation that is not durable yet.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    conversation_id: &'a ConversationId,
    /// The durable state of the turns, as far as the actor knows it.
    known: &'a KnownTurns,
    limits: Limits,
    now: Now,
    turns: TouchedTurns,
    /// The number and bytes of the open turns after the draft's changes.
    open: Extent,
    /// The approximate size of the draft's commit.
    bytes: usize,
}

impl<'a> Draft<'a> {
    /// A draft with this many turns takes no further work. The remaining work becomes a later commit, so commits of
    /// other conversations come in between. The number is half of what the store takes at one time, so such commits fit
    /// into the same batch of the store.
    pub(super) const FULL_TURNS: usize = TURNS_AT_ONCE / 2;
    /// A draft whose commit has this many bytes takes no further work.
    pub(super) const FULL_BYTES: usize = 1024 * 1024;

    pub(super) fn new(conversation_id: &'a ConversationId, known: &'a KnownTurns, limits: Limits, now: Now) -> Self {
        let open = known.open.extent();
        Self { conversation_id, known, limits, now, turns: TouchedTurns::default(), open, bytes: 0 }
    }

    /// Returns whether further work has to wait for the next draft.
    pub(super) fn is_full(&self) -> bool {
        self.turns.len() >= Self::FULL_TURNS || self.bytes >= Self::FULL_BYTES
    }

    /// The number and bytes of the open turns after the draft's changes.
    pub(super) fn open(&self) -> Extent {
        self.open
    }

    /// Adds a piece of work completely or not at all. `looked_up` says that the actor has asked the store about the
    /// turns of the work. Then an `error` event of a turn that is still unknown is ignored.
    pub(super) fn take(&mut self, work: &Work, looked_up: bool) -> Result<ReceiptBuilder, NotTaken> {
        let mut trial = Trial { draft: self, state: TrialState::of(self.open), is_check: false };
        match work {
            Work::Observe(events) => {
                events.iter().try_for_each(|event| trial.fold(event)).map_err(NotTaken::OverLimit)?;
            }
            Work::Abandon { turn_ids, before } => {
                for turn_id in turn_ids {
                    trial.abandon(turn_id, *before);
                }
            }
        }
        let state = trial.state;
        if !looked_up && !state.unknown_failures.is_empty() {
            // The look-up in the store replaces all that the actor knows of sealed turns. So it must ask not only about
            // the turns with these `error` events, but about all turns of the work that may be sealed.
            return Err(NotTaken::UnknownFailures(self.maybe_sealed_before(work)));
        }
        self.check(state.open).map_err(NotTaken::OverLimit)?;
        Ok(self.adopt(state))
    }

    /// Adds a part of a message to a draft without limits. The whole message was checked against the limits before.
    pub(super) fn take_part(&mut self, events: &[TurnEvent]) -> ReceiptBuilder {
        let mut trial = Trial { draft: self, state: TrialState::of(self.open), is_check: false };
        // This draft has no limits, so it refuses no event.
        let _ = events.iter().try_for_each(|event| trial.fold(event));
        let state = trial.state;
        self.adopt(state)
    }

    fn adopt(&mut self, state: TrialState) -> ReceiptBuilder {
        let TrialState { turns, open, bytes, receipt_builder, .. } = state;
        self.turns.extend(turns);
        (self.open, self.bytes) = (open, self.bytes + bytes);
        receipt_builder
    }

    /// Checks the next part of a message against the limits. `before` is the state that the check of the part before
    /// this one returned, or `None` for the first part. The draft does not change.
    pub(super) fn check_part(
        &self,
        before: Option<TrialState>,
        part: &[TurnEvent],
    ) -> Result<TrialState, ObserveError> {
        let state = before.unwrap_or_else(|| TrialState::of(self.open));
        let mut trial = Trial { draft: self, state, is_check: true };
        part.iter().try_for_each(|event| trial.fold(event))?;
        self.check(trial.state.open)?;
        Ok(TrialState { receipt_builder: ReceiptBuilder::default(), ..trial.state })
    }

    /// Refuses a change that would exceed a limit of the conversation. A limit may have been lowered below the present
    /// size. Then only further growth is refused.
    fn check(&self, open: Extent) -> Result<(), ObserveError> {
        let Limits { open_turns: max_open_turns, open_bytes: max_open_bytes, .. } = self.limits;
        let conversation_id = || self.conversation_id.clone();
        if open.turns > max_open_turns && open.turns > self.open.turns {
            return Err(ObserveError::TooManyOpenTurns { conversation_id: conversation_id(), limit: max_open_turns });
        }
        if open.bytes > max_open_bytes && open.bytes > self.open.bytes {
            return Err(ObserveError::OpenTurnsTooLarge { conversation_id: conversation_id(), limit: max_open_bytes });
        }
        Ok(())
    }

    /// Returns an open turn as the durable state and this draft have it.
    fn before(&self, id: &TurnId) -> Before<'_> {
        let earlier = match self.turns.get(id) {
            Some(TurnState::Open(change)) => Some(change.as_ref()),
            _ => None,
        };
        Before { known: self.known.open.get(id), earlier }
    }

    /// Returns the state of the turn from which new work continues, with no change in it yet. `None` if the turn is
    /// new.
    fn state(&self, id: &TurnId) -> Option<TurnState> {
        let open = || TurnState::Open(Box::new(OpenChange::to(self.before(id), self.now.running)));
        match self.turns.get(id) {
            Some(TurnState::Open(_)) => Some(open()),
            Some(TurnState::Sealed(_) | TurnState::SealedBefore) => Some(TurnState::SealedBefore),
            None if self.known.open.contains(id) => Some(open()),
            None => self.known.sealed.contains_key(id).then_some(TurnState::SealedBefore),
        }
    }

    /// Returns the turns of `work` that may have been sealed before it, as far as the actor knows: turns that are new
    /// to the actor, and sealed turns with late events.
    pub(super) fn maybe_sealed_before(&self, work: &Work) -> Vec<TurnId> {
        let Work::Observe(events) = work else { return Vec::new() };
        let ids: BTreeSet<&TurnId> = events.iter().map(|event| &event.turn_id).collect();
        let maybe = |id: &&TurnId| match self.turns.get(id) {
            Some(state) => matches!(state, TurnState::SealedBefore),
            None => !self.known.open.contains(id),
        };
        ids.into_iter().filter(maybe).cloned().collect()
    }

    /// Returns the draft's change as a commit; `None` if the draft changes nothing.
    pub(super) fn commit(self, expected_version: Version) -> Option<Commit> {
        let (staged, sealed) = self.turns.into_parts();
        let conversation_id = self.conversation_id.clone();
        let changes = !staged.is_empty() || !sealed.is_empty();
        changes.then_some(Commit { conversation_id, expected_version, staged, sealed, imported_from: None })
    }
}

/// One piece of work applied on top of a draft. If it exceeds a limit, the trial is dropped and the draft stays as it
/// was.
struct Trial<'d, 'a> {
    draft: &'d Draft<'a>,
    state: TrialState,
    /// Whether the trial only checks that the work fits. Then the turns that it seals are not kept.
    is_check: bool,
}

/// The changes that a trial has made so far.
#[derive(Debug)]
pub(super) struct TrialState {
    turns: TouchedTurns,
    /// The number and bytes of the open turns after the changes of the draft and the trial.
    open: Extent,
    /// The approximate number of bytes that the trial adds to the commit.
    bytes: usize,
    receipt_builder: ReceiptBuilder,
    /// Turns that have an `error` event and are neither open nor known to be sealed.
    unknown_failures: BTreeSet<TurnId>,
}

impl TrialState {
    fn of(open: Extent) -> Self {
        let (turns, receipt_builder) = (TouchedTurns::default(), ReceiptBuilder::default());
        Self { turns, open, bytes: 0, receipt_builder, unknown_failures: BTreeSet::new() }
    }

    /// Returns whether the work has an `error` event of a turn that the actor does not know.
    pub(super) fn has_unknown_failures(&self) -> bool {
        !self.unknown_failures.is_empty()
    }
}

impl Trial<'_, '_> {
    fn fold(&mut self, event: &TurnEvent) -> Result<(), ObserveError> {
        let Limits { steps: max_steps, turn_bytes: max_turn_bytes, .. } = self.draft.limits;
        let Now { moment, running } = self.draft.now;
        let id = &event.turn_id;
        if event.kind == TurnEventKind::Progress(Progress::Failed)
            && self.state.turns.get(id).is_none()
            && self.draft.state(id).is_none()
        {
            self.state.unknown_failures.insert(id.clone());
            return Ok(());
        }
        let before = self.draft.before(id);
        let open = &mut self.state.open;
        let state = self.state.turns.touch(id, || {
            self.draft.state(id).unwrap_or_else(|| {
                let change = OpenChange::to(before, running);
                open.add(change.bytes(id));
                TurnState::Open(Box::new(change))
            })
        });
        match (state, &event.kind) {
            (TurnState::Sealed(_) | TurnState::SealedBefore, _) => self.state.receipt_builder.of(id).late += 1,
            (TurnState::Open(change), TurnEventKind::Progress(progress)) => {
                if let Some(step_id) = progress.step_id()
                    && change.step_count() as usize >= max_steps
                    && !change.has_step(before, step_id)
                {
                    return Err(ObserveError::TooManySteps { turn_id: id.clone(), limit: max_steps });
                }
                let bytes_before = change.bytes(id);
                change.fold(before, progress, running);
                let bytes = change.bytes(id);
                if bytes > max_turn_bytes && bytes > bytes_before {
                    return Err(ObserveError::TurnTooLarge { turn_id: id.clone(), limit: max_turn_bytes });
                }
                self.state.open.resize(bytes_before, bytes);
                self.state.bytes += OpenTurn::bytes_of(id, &change.head, OpenStep::BASE_BYTES);
                let tally = self.state.receipt_builder.of(id);
                tally.in_time += 1;
                tally.warn(cut(id, progress.cut_labels()));
            }
            (state @ TurnState::Open(_), TurnEventKind::Done(done)) => {
                // The turn counts as sealed from here on. Unless this is a check, `seal` below stores the sealed turn.
                let TurnState::Open(change) = std::mem::replace(state, TurnState::SealedBefore) else { return Ok(()) };
                if self.is_check {
                    self.state.open.remove(change.bytes(id));
                    return Ok(());
                }
                let turn = change.whole(id.clone(), before);
                let warnings = self.seal(&turn, done, moment);
                let tally = self.state.receipt_builder.of(id);
                tally.in_time += 1;
                tally.warn(cut(id, done.cut_labels()).chain(warnings));
            }
        }
        Ok(())
    }

    fn abandon(&mut self, id: &TurnId, before: StaleBefore) {
        // The list may name a turn twice. A turn that this work has sealed is no longer open.
        if self.state.turns.get(id).is_none()
            && let Some(TurnState::Open(change)) = self.draft.state(id)
            && before.is_stale(change.last_event_at, &change.head)
        {
            let done = Done::because(if change.head.has_failed { FAILED } else { ABANDONED });
            let turn = change.whole(id.clone(), self.draft.before(id));
            let warnings = self.seal(&turn, &done, self.draft.now.moment);
            self.state.receipt_builder.of(id).warn(warnings);
        }
    }

    /// Seals the turn, and returns the probable mistakes in it.
    fn seal(&mut self, turn: &OpenTurn, done: &Done, moment: EpochMillis) -> Vec<Warning> {
        self.state.open.remove(turn.bytes());
        self.state.bytes += turn.bytes();
        self.state.turns.seal(turn.seal(done, moment));
        self.state.receipt_builder.of(&turn.id).seals = true;
        turn.warnings(done, moment)
    }
}

/// Returns one warning for each label of the event that was cut.
fn cut(id: &TurnId, fields: impl Iterator<Item = &'static str>) -> impl Iterator<Item = Warning> {
    fields.map(|field| Warning::LabelCut { turn_id: id.clone(), field })
}

/// Counts the events of each turn in a piece of work, in the order in which the work mentions the turns, and builds the
/// receipt.
#[derive(Debug, Default)]
pub(super) struct ReceiptBuilder(IndexMap<TurnId, TurnTally>);

#[derive(Debug, Default)]
struct TurnTally {
    /// Whether the work has the `done` that seals the turn.
    seals: bool,
    /// How many events of the turn come before or with its `done`.
    in_time: u64,
    /// How many events of the turn came after it was sealed.
    late: u64,
    /// Probable mistakes in the events up to the turn's end.
    warnings: Vec<Warning>,
}

impl TurnTally {
    /// Adds warnings, up to the limit of a receipt.
    fn warn(&mut self, warnings: impl IntoIterator<Item = Warning>) {
        let room = Receipt::MAX_WARNINGS.saturating_sub(self.warnings.len());
        self.warnings.extend(warnings.into_iter().take(room));
    }
}

impl ReceiptBuilder {
    fn of(&mut self, turn_id: &TurnId) -> &mut TurnTally {
        self.0.entry(turn_id.clone()).or_default()
    }

    /// Returns the receipt of the work. `outcomes` says what the commit did with each turn that was not sealed before.
    pub(super) fn receipt(
        &self,
        outcomes: &HashMap<TurnId, TurnOutcome>,
        sealed_before: &HashMap<TurnId, Ordinal>,
    ) -> Receipt {
        let mut sealed = Vec::new();
        let (mut all_late, mut told) = (0, Vec::new());
        for (turn_id, TurnTally { seals, in_time, late, warnings }) in &self.0 {
            all_late += late;
            let mut tell =
                |ordinal, duplicate| sealed.push(TurnReceipt { turn_id: turn_id.clone(), ordinal, duplicate });
            let before = || sealed_before.get(turn_id).copied().map(TurnOutcome::Duplicate);
            match outcomes.get(turn_id).copied().or_else(before) {
                // The actor did not know that the turn was sealed: it folded the events, and the store dropped them.
                Some(TurnOutcome::Duplicate(ordinal)) => {
                    all_late += in_time;
                    tell(ordinal, true);
                }
                Some(TurnOutcome::Sealed(ordinal)) => {
                    told.extend_from_slice(warnings);
                    if *seals {
                        tell(ordinal, false);
                    }
                    if *late > 0 {
                        tell(ordinal, true);
                    }
                }
                Some(TurnOutcome::Staged) | None => told.extend_from_slice(warnings),
            }
        }
        told.truncate(Receipt::MAX_WARNINGS);
        Receipt { sealed, late: all_late, warnings: told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StagedTurn;
    use crate::testing::TurnScript;
    use crate::turn::OpenHead;

    const LIMITS: Limits = Limits { open_turns: 2, steps: 3, turn_bytes: usize::MAX, open_bytes: usize::MAX };

    fn now() -> Now {
        Now { moment: EpochMillis::new(9), running: RunningTime::new(70) }
    }

    fn id(id: &str) -> TurnId {
        TurnId::new(id).unwrap()
    }

    fn turn(turn_id: &str) -> TurnScript {
        TurnScript::new("c", turn_id)
    }

    fn work(scripts: &[TurnScript]) -> Work {
        Work::Observe(scripts.iter().flat_map(TurnScript::events).collect())
    }

    /// Returns the ids of the staged turns and those of the sealed turns.
    fn ids(commit: Option<Commit>) -> (Vec<String>, Vec<String>) {
        let Some(commit) = commit else { return (Vec::new(), Vec::new()) };
        let staged = commit.staged.iter().map(|change| change.turn_id.to_string());
        let sealed = commit.sealed.iter().map(|turn| turn.metrics.turn_id.to_string());
        (staged.collect(), sealed.collect())
    }

    fn open(turn_id: &str, has_failed: bool, last_event_at: u64) -> StagedTurn {
        let head = OpenHead { has_failed, ..OpenHead::default() };
        let turn = OpenTurn { head, ..OpenTurn::new(id(turn_id)) };
        StagedTurn { turn, last_event_at: RunningTime::new(last_event_at) }
    }

    #[test]
    fn a_commit_stages_turns_by_id_and_seals_them_in_the_order_of_their_dones() {
        let (conversation_id, known) = (ConversationId::new("c").unwrap(), KnownTurns::default());
        let mut draft = Draft::new(&conversation_id, &known, LIMITS, now());
        let done = |turn_id| turn(turn_id).done("stop");
        draft.take(&work(&[turn("y").start(), done("z"), done("a")]), false).unwrap();
        draft.take(&work(&[turn("b").start(), done("m"), done("z")]), false).unwrap();
        let (staged, sealed) = ids(draft.commit(Version(4)));
        assert_eq!((staged, sealed), (vec!["b".into(), "y".into()], vec!["z".into(), "a".into(), "m".into()]));
    }

    #[test]
    fn work_over_a_limit_leaves_nothing_of_itself_in_the_draft() {
        let (conversation_id, known) = (ConversationId::new("c").unwrap(), KnownTurns::default());
        let steps = |count| (0..count).fold(turn("a"), |turn, step| turn.usage(step, 1, 1));
        let taken = |refused: &[Work]| {
            let mut draft = Draft::new(&conversation_id, &known, LIMITS, now());
            draft.take(&work(&[steps(2)]), false).unwrap();
            for work in refused {
                assert!(matches!(draft.take(work, false), Err(NotTaken::OverLimit(_))), "{work:?}");
            }
            draft.take(&work(&[steps(3), turn("b").start()]), false).unwrap();
            draft.commit(Version(0))
        };
        let too_many_steps = work(&[turn("a").usage(0, 99, 99).usage(7, 1, 1).usage(8, 1, 1)]);
        let too_many_turns = work(&[turn("a").fail(), turn("x").start(), turn("y").start()]);
        assert_eq!(taken(&[too_many_steps, too_many_turns]), taken(&[]));
    }

    #[test]
    fn bytes_over_a_limit_are_refused_and_what_fits_exactly_is_taken() {
        let conversation_id = ConversationId::new("c").unwrap();
        let bytes_of = |steps: usize| 512 + 1 + steps * (512 + 3);
        let steps = |id: &str, count: u32| (0..count).fold(turn(id), |turn, step| turn.usage(step, 1, 1));
        let of_two_steps = StagedTurn {
            turn: {
                let mut open = OpenTurn::new(id("k"));
                for step in ["k#0", "k#1"] {
                    let step_id = crate::turn::StepId::new(step).unwrap();
                    let report = crate::turn::Usage::default().into();
                    open.fold(&Progress::Usage { step_id: Some(step_id), report, is_final: false });
                }
                open
            },
            last_event_at: RunningTime::new(1),
        };
        let known = KnownTurns { open: [of_two_steps].into_iter().collect(), ..KnownTurns::default() };
        let wide = Limits { open_turns: 9, steps: 9, ..LIMITS };

        let limits = Limits { turn_bytes: bytes_of(3), ..wide };
        let mut draft = Draft::new(&conversation_id, &known, limits, now());
        draft.take(&work(&[steps("a", 3)]), false).unwrap();
        for script in [steps("b", 4), steps("a", 4), steps("k", 4)] {
            let Err(NotTaken::OverLimit(error)) = draft.take(&work(&[script]), false) else { panic!("it was taken") };
            assert!(matches!(error, ObserveError::TurnTooLarge { limit, .. } if limit == bytes_of(3)), "{error}");
            assert!(error.to_string().contains("`turns.max_turn_bytes`"), "{error}");
        }
        draft.take(&work(&[steps("k", 3), steps("b", 3).done("stop")]), false).unwrap();

        let limits = Limits { open_bytes: bytes_of(2) + bytes_of(3), ..wide };
        let mut draft = Draft::new(&conversation_id, &known, limits, now());
        draft.take(&work(&[steps("a", 3)]), false).unwrap();
        let refused = |draft: &mut Draft<'_>, scripts: &[TurnScript]| {
            let refusal = draft.take(&work(scripts), false);
            let Err(NotTaken::OverLimit(error)) = refusal else { panic!("it was taken: {:?}", draft.open()) };
            assert!(matches!(error, ObserveError::OpenTurnsTooLarge { .. }), "{error}");
            assert!(error.to_string().contains("`turns.max_open_bytes`"), "{error}");
        };
        refused(&mut draft, &[turn("b").start()]);
        refused(&mut draft, &[steps("a", 4)]);
        draft.take(&work(&[steps("a", 3), steps("k", 2)]), false).unwrap();
        draft.take(&work(&[turn("k").done("stop"), steps("b", 2)]), false).unwrap();
        refused(&mut draft, &[turn("d").start()]);
        assert_eq!(draft.open(), Extent { turns: 2, bytes: bytes_of(2) + bytes_of(3) });
    }

    #[test]
    fn a_limit_of_bytes_that_was_lowered_stops_what_grows_and_nothing_else() {
        let conversation_id = ConversationId::new("c").unwrap();
        let known = KnownTurns { open: [open("a", false, 1)].into_iter().collect(), ..KnownTurns::default() };
        for limits in [Limits { turn_bytes: 1, ..LIMITS }, Limits { open_bytes: 1, ..LIMITS }] {
            let mut draft = Draft::new(&conversation_id, &known, limits, now());
            draft.take(&work(&[turn("a").start()]), false).unwrap();
            assert!(matches!(draft.take(&work(&[turn("a").usage(0, 1, 1)]), true), Err(NotTaken::OverLimit(_))));
            draft.take(&work(&[turn("a").done("stop")]), false).unwrap();
        }
    }

    #[test]
    fn the_work_of_a_draft_grows_with_its_turns_and_not_with_their_square() {
        const WORKS: usize = 100;
        const TURNS: usize = 200;
        let conversation_id = ConversationId::new("c").unwrap();
        let held = (0..TURNS).map(|nth| open(&format!("held-{nth}"), false, 1));
        let known = KnownTurns { open: held.collect(), ..KnownTurns::default() };
        let limits = Limits { open_turns: WORKS * TURNS * 2, ..LIMITS };
        let mut draft = Draft::new(&conversation_id, &known, limits, now());
        for nth in 0..WORKS {
            let scripts: Vec<_> = (0..TURNS)
                .map(|turn_nth| {
                    let script = turn(&format!("{nth}-{turn_nth}")).start();
                    if turn_nth % 2 == 0 { script.done("stop") } else { script }
                })
                .collect();
            draft.take(&work(&scripts), false).unwrap();
        }
        assert_eq!(draft.open().turns, TURNS + WORKS * TURNS / 2);
        let (turns, looks) = (WORKS * TURNS, draft.turns.looks());
        assert!((turns..turns * 8).contains(&looks), "{looks} looks at {turns} turns");
    }

    #[test]
    fn a_draft_is_full_at_some_turns_or_bytes() {
        let (conversation_id, known) = (ConversationId::new("c").unwrap(), KnownTurns::default());
        let limits = Limits { steps: 4096, ..LIMITS };
        let mut draft = Draft::new(&conversation_id, &known, limits, now());
        let done = |nth: usize| turn(&format!("t{nth}")).done("stop");
        draft.take(&work(&(1..Draft::FULL_TURNS).map(done).collect::<Vec<_>>()), false).unwrap();
        assert!(!draft.is_full());
        draft.take(&work(&[done(Draft::FULL_TURNS)]), false).unwrap();
        assert!(draft.is_full());

        let mut draft = Draft::new(&conversation_id, &known, limits, now());
        let steps =
            |turn: TurnScript, range: std::ops::Range<u32>| range.fold(turn, |turn, step| turn.usage(step, 1, 1));
        draft.take(&work(&[steps(turn("t"), 0..900)]), false).unwrap();
        assert!(!draft.is_full());
        draft.take(&work(&[steps(turn("t"), 900..1100)]), false).unwrap();
        assert!(draft.is_full());
    }

    #[test]
    fn a_look_up_asks_for_every_turn_of_the_work_that_may_be_sealed() {
        let conversation_id = ConversationId::new("c").unwrap();
        let known = KnownTurns { open: [open("open", false, 1)].into_iter().collect(), ..KnownTurns::default() };
        let mut draft = Draft::new(&conversation_id, &known, LIMITS, now());
        draft.take(&work(&[turn("drafted").start()]), false).unwrap();
        let failing = work(&["unknown", "open", "drafted"].map(|id| turn(id).fail()));
        let Err(NotTaken::UnknownFailures(asked)) = draft.take(&failing, false) else { panic!("it was taken") };
        assert_eq!(asked, [id("unknown")]);
        draft.take(&failing, true).unwrap();
        assert_eq!(ids(draft.commit(Version(0))).0, ["drafted", "open"], "an error opens no turn");
    }

    #[test]
    fn a_receipt_names_turns_in_the_order_of_their_first_mention_and_counts_what_was_late() {
        let conversation_id = ConversationId::new("c").unwrap();
        let sealed = HashMap::from([(id("old"), Ordinal::after(0))]);
        let known = KnownTurns { sealed, ..KnownTurns::default() };
        let mut draft = Draft::new(&conversation_id, &known, LIMITS, now());
        let events = [
            turn("new").start(),
            turn("raced").usage(0, 1, 1).done("stop"),
            turn("old").start(),
            turn("new").done("stop").usage(0, 1, 1),
        ];
        let mentions = draft.take(&work(&events), false).unwrap();
        let outcomes = HashMap::from([
            (id("new"), TurnOutcome::Sealed(Ordinal::after(2))),
            // Another process sealed the turn in the meantime.
            (id("raced"), TurnOutcome::Duplicate(Ordinal::after(1))),
        ]);
        let receipt = mentions.receipt(&outcomes, &known.sealed);
        let told: Vec<_> =
            receipt.sealed.iter().map(|turn| (turn.turn_id.as_str(), turn.ordinal.get(), turn.duplicate)).collect();
        assert_eq!(told, [("new", 3, false), ("new", 3, true), ("raced", 2, true), ("old", 1, true)]);
        assert_eq!(receipt.late, 1 + 2 + 1);
    }

    #[test]
    fn stale_turns_are_sealed_once_and_those_that_failed_say_so() {
        let conversation_id = ConversationId::new("c").unwrap();
        let turns = [open("quiet", false, 5), open("failed", true, 20), open("fresh", false, 10)];
        let known = KnownTurns { open: turns.into_iter().collect(), ..KnownTurns::default() };
        let mut draft = Draft::new(&conversation_id, &known, LIMITS, now());
        let turn_ids = ["quiet", "quiet", "failed", "fresh", "unknown"].map(id).into();
        let before = StaleBefore { open: RunningTime::new(10), failed: RunningTime::new(21) };
        draft.take(&Work::Abandon { turn_ids, before }, false).unwrap();
        let commit = draft.commit(Version(0)).unwrap();
        let sealed: Vec<_> =
            commit.sealed.iter().map(|turn| (turn.metrics.turn_id.as_str(), turn.reason.as_str())).collect();
        assert_eq!((sealed, commit.staged.len()), (vec![("quiet", ABANDONED), ("failed", FAILED)], 0));
    }
}
