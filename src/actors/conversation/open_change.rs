//! The change of one open turn, kept apart from the durable state of the turn. So an event of a turn with thousands of
//! steps copies only one step, and a change that exceeds a limit can be dropped. Pure.

use std::collections::BTreeMap;

use crate::store::{StagedChange, StagedTurn};
use crate::turn::{OpenHead, OpenStep, OpenSteps, OpenTurn, Progress, RunningTime, StepId, TurnId};

/// An open turn before a change: its durable state, and an earlier change that is not durable yet. Either may be
/// missing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before<'a> {
    pub(super) known: Option<&'a StagedTurn>,
    pub(super) earlier: Option<&'a OpenChange>,
}

impl<'a> Before<'a> {
    fn step_count(&self) -> u32 {
        let known = || self.known.map_or(0, |known| known.turn.steps.count());
        self.earlier.map_or_else(known, OpenChange::step_count)
    }

    fn steps_bytes(&self) -> usize {
        let known = || self.known.map_or(0, |known| known.turn.steps.bytes());
        self.earlier.map_or_else(known, |earlier| earlier.steps_bytes)
    }

    fn place(&self, id: &StepId) -> Option<u32> {
        let earlier = self.earlier.and_then(|earlier| earlier.place_of_new(id));
        earlier.or_else(|| self.known?.turn.steps.place(id))
    }

    fn step(&self, place: u32) -> Option<&'a OpenStep> {
        let earlier = self.earlier.and_then(|earlier| earlier.step(place));
        earlier.or_else(|| self.known?.turn.steps.at(place))
    }
}

/// A change of an open turn. It does not contain the turn before the change; functions that need that take it as a
/// parameter.
#[derive(Debug)]
pub(super) struct OpenChange {
    /// The head after the change.
    pub(super) head: OpenHead,
    /// The running time at the latest event.
    pub(super) last_event_at: RunningTime,
    /// How many steps the turn had before the change.
    steps_before: u32,
    /// The steps from before that have changed, by their places.
    changed: BTreeMap<u32, OpenStep>,
    /// The new steps. Their places begin at `steps_before`.
    new: OpenSteps,
    /// The bytes of all steps of the turn after the change.
    steps_bytes: usize,
}

impl OpenChange {
    /// Returns a change that changes nothing yet. A new turn begins at the running time `now`.
    pub(super) fn to(before: Before<'_>, now: RunningTime) -> Self {
        let known = || before.known.map(|known| (known.turn.head.clone(), known.last_event_at));
        let earlier = before.earlier.map(|earlier| (earlier.head.clone(), earlier.last_event_at));
        let (head, last_event_at) = earlier.or_else(known).unwrap_or_else(|| (OpenHead::default(), now));
        let (changed, new) = (BTreeMap::new(), OpenSteps::default());
        let (steps_before, steps_bytes) = (before.step_count(), before.steps_bytes());
        Self { head, last_event_at, steps_before, changed, new, steps_bytes }
    }

    /// Returns the bytes of the turn after the change.
    pub(super) fn bytes(&self, id: &TurnId) -> usize {
        OpenTurn::bytes_of(id, &self.head, self.steps_bytes)
    }

    /// Returns how many steps the turn has after the change.
    pub(super) fn step_count(&self) -> u32 {
        self.steps_before.saturating_add(self.new.count())
    }

    /// Returns whether the turn has the step.
    pub(super) fn has_step(&self, before: Before<'_>, id: &StepId) -> bool {
        self.new.contains(id) || before.place(id).is_some()
    }

    fn place_of_new(&self, id: &StepId) -> Option<u32> {
        self.new.place(id).map(|place| self.steps_before.saturating_add(place))
    }

    /// Returns the step at this place, if it has changed or is new.
    fn step(&self, place: u32) -> Option<&OpenStep> {
        match place.checked_sub(self.steps_before) {
            Some(place) => self.new.at(place),
            None => self.changed.get(&place),
        }
    }

    /// Folds an event of the turn, as [`OpenTurn::fold`] does.
    pub(super) fn fold(&mut self, before: Before<'_>, progress: &Progress, now: RunningTime) {
        self.last_event_at = now;
        self.head.fold(progress);
        let Some(id) = progress.step_id() else { return };
        let known = before.place(id).and_then(|place| Some((place, before.step(place)?)));
        let (bytes_before, bytes_after) = if let Some((place, step)) = known {
            let step = self.changed.entry(place).or_insert_with(|| step.clone());
            let bytes_before = step.bytes();
            step.fold(progress);
            (bytes_before, step.bytes())
        } else {
            let bytes_before = self.new.bytes();
            self.new.fold(id, progress);
            (bytes_before, self.new.bytes())
        };
        self.steps_bytes = self.steps_bytes - bytes_before + bytes_after;
    }

    /// Merges a later change into this one. `later` was made on top of this change.
    pub(super) fn extend(&mut self, later: Self) {
        (self.head, self.last_event_at) = (later.head, later.last_event_at);
        self.steps_bytes = later.steps_bytes;
        let new = (later.steps_before..).zip(later.new);
        for (place, step) in later.changed.into_iter().chain(new) {
            match place.checked_sub(self.steps_before) {
                Some(place) => self.new.put(place, step),
                None => drop(self.changed.insert(place, step)),
            }
        }
    }

    /// Returns the turn after the change.
    pub(super) fn whole(mut self, id: TurnId, before: Before<'_>) -> OpenTurn {
        let steps = if self.steps_before == 0 {
            self.new
        } else {
            let changed = &mut self.changed;
            let old = (0..self.steps_before)
                .filter_map(|place| changed.remove(&place).or_else(|| before.step(place).cloned()));
            old.chain(self.new).collect()
        };
        OpenTurn { id, head: self.head, steps }
    }

    /// Returns the change in the form that the store takes. It leaves out the steps that did not change.
    pub(super) fn staged(self, turn_id: TurnId) -> StagedChange {
        let step_count = self.step_count();
        let new = (self.steps_before..).zip(self.new);
        let steps = self.changed.into_iter().chain(new).collect();
        StagedChange { turn_id, head: self.head, step_count, steps, last_event_at: self.last_event_at }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::turn::{Label, StepTimes, TurnLabels, Usage};

    fn turn_id() -> TurnId {
        TurnId::new("t").unwrap()
    }

    fn now(nth: usize) -> RunningTime {
        RunningTime::new(nth as u64)
    }

    fn progress() -> impl Strategy<Value = Progress> {
        // The first range is below the number of steps that are searched one by one, and repeats ids often. The second
        // range exceeds it.
        let step_id = || prop_oneof![0..6_u32, 0..60_u32].prop_map(|n| StepId::new(format!("t#{n}")).unwrap());
        let label = || prop::option::of("[ab]").prop_map(|text| text.map(|text| Label::from(text.as_str())));
        prop_oneof![
            1 => label().prop_map(|model| Progress::Start(TurnLabels { model, ..TurnLabels::default() })),
            4 => (prop::option::weighted(0.8, step_id()), 0..9_u32, any::<bool>()).prop_map(|(step_id, tokens, is_final)| {
                let usage = Usage { input_tokens: tokens.into(), ..Usage::default() };
                Progress::Usage { step_id, report: usage.into(), is_final }
            }),
            3 => (step_id(), label(), 0..99_u32).prop_map(|(step_id, model, time)| {
                let times = StepTimes { gen_total: Some(time.into()), ..StepTimes::default() };
                Progress::StepComplete { step_id, times, model, provider: None }
            }),
            1 => Just(Progress::Failed),
        ]
    }

    /// Returns the turn that all events fold to.
    fn folded(events: &[Progress]) -> StagedTurn {
        let mut turn = OpenTurn::new(turn_id());
        for event in events {
            turn.fold(event);
        }
        StagedTurn { turn, last_event_at: now(events.len()) }
    }

    /// Cuts the events into those staged before, those of an earlier change, and those of a later change.
    fn cut(events: &[Progress], cuts: [prop::sample::Index; 2]) -> [&[Progress]; 3] {
        let mut cuts = cuts.map(|cut| cut.index(events.len() + 1));
        cuts.sort_unstable();
        [&events[..cuts[0]], &events[cuts[0]..cuts[1]], &events[cuts[1]..]]
    }

    proptest! {
        #[test]
        fn changes_over_changes_are_the_turn_that_all_events_fold_to(
            events in vec(progress(), 0..120),
            cuts in any::<[prop::sample::Index; 2]>(),
        ) {
            let [known, first, second] = cut(&events, cuts);
            let staged = folded(known);
            let mut nth = known.len();
            let mut changed = |before: Before<'_>, events: &[Progress]| {
                let mut change = OpenChange::to(before, now(nth));
                for event in events {
                    nth += 1;
                    let added = event.step_id().is_some_and(|id| !change.has_step(before, id));
                    let count = change.step_count();
                    change.fold(before, event, now(nth));
                    assert_eq!(change.step_count(), count + u32::from(added));
                }
                change
            };
            let before = Before { known: Some(&staged), earlier: None };
            let mut earlier = changed(before, first);
            let before_second = Before { earlier: Some(&earlier), ..before };
            let second_change = changed(before_second, second);
            let bytes = second_change.bytes(&turn_id());
            let whole = second_change.whole(turn_id(), before_second);
            prop_assert_eq!(&whole, &folded(&events).turn);
            prop_assert_eq!(bytes, whole.bytes());

            nth = known.len() + first.len();
            let later = {
                let mut change = OpenChange::to(before_second, now(nth));
                for event in second {
                    nth += 1;
                    change.fold(before_second, event, now(nth));
                }
                change
            };
            earlier.extend(later);
            prop_assert_eq!(earlier.bytes(&turn_id()), bytes);
            let change = earlier.staged(turn_id());
            let of_events: std::collections::BTreeSet<_> =
                first.iter().chain(second).filter_map(Progress::step_id).collect();
            prop_assert_eq!(change.steps.len(), of_events.len(), "a step that no event names is staged");
            prop_assert_eq!(StagedTurn::after(Some(staged), &change), folded(&events));
        }

        #[test]
        fn staging_step_by_step_in_any_cut_is_staging_whole(
            events in vec(progress(), 0..120),
            lengths in vec(1..9_usize, 0..40),
        ) {
            let (mut known, mut rest, mut nth) = (None, &events[..], 0);
            for length in lengths.into_iter().chain([events.len()]) {
                let (events, after) = rest.split_at(length.min(rest.len()));
                let before = Before { known: known.as_ref(), earlier: None };
                let mut change = OpenChange::to(before, now(nth));
                for event in events {
                    nth += 1;
                    change.fold(before, event, now(nth));
                }
                let change = change.staged(turn_id());
                let staged = StagedTurn::after(known, &change);
                // A sender that got no answer may send the same change again.
                prop_assert_eq!(&StagedTurn::after(Some(staged.clone()), &change), &staged);
                (known, rest) = (Some(staged), after);
            }
            prop_assert_eq!(StagedTurn::after(None, &folded(&events).into()), folded(&events));
            prop_assert_eq!(known.unwrap(), folded(&events));
        }
    }
}
