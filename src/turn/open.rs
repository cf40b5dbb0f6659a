use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    Done, EpochMillis, Label, Millis, Progress, SealedTurn, StepDetails, StepId, StepMetrics, TokenCount, TurnId,
    TurnLabels, TurnMetrics, UsageReport, UsageReports, Warning,
};

/// The three times of a step, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StepTimes {
    /// From the start of the stream to its first text or reasoning token; absent if there was none.
    #[serde(rename = "ttftMs", default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<Millis>,
    /// From the first token to the end of the stream.
    #[serde(rename = "decodeMs", default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<Millis>,
    /// From the start of the stream to its end.
    #[serde(rename = "genTotalMs", default, skip_serializing_if = "Option::is_none")]
    pub gen_total: Option<Millis>,
}

/// A step of an open turn: everything that was reported about the step so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenStep {
    /// The step.
    pub id: StepId,
    /// The usage reports of the step.
    pub reports: UsageReports,
    /// The times of its latest `step-complete`.
    pub times: StepTimes,
    /// The model of its latest `step-complete` that named a model.
    pub model: Option<Label>,
    /// The provider of its latest `step-complete` that named a provider.
    pub provider: Option<Label>,
}

impl OpenStep {
    /// The bytes that a step counts besides its texts: about its memory, with its entry in the index of places.
    pub(crate) const BASE_BYTES: usize = 512;

    /// Returns a step without any report.
    pub fn new(id: StepId) -> Self {
        Self { id, reports: UsageReports::default(), times: StepTimes::default(), model: None, provider: None }
    }

    /// Returns the bytes that limits count for the step: 512 and the bytes of its texts (id, model, provider). This is
    /// about its memory, and the same on every machine.
    pub fn bytes(&self) -> usize {
        Self::BASE_BYTES + self.text_bytes()
    }

    /// Returns the number of bytes of its texts.
    pub(crate) fn text_bytes(&self) -> usize {
        self.id.as_str().len() + label_bytes(self.model.as_ref()) + label_bytes(self.provider.as_ref())
    }

    /// Folds the part of an event that is about this step.
    pub fn fold(&mut self, progress: &Progress) {
        match progress {
            Progress::Usage { report, is_final, .. } => self.reports.take(*report, *is_final),
            Progress::StepComplete { times, model, provider, .. } => {
                self.times = *times;
                rename(&mut self.model, model.as_ref());
                rename(&mut self.provider, provider.as_ref());
            }
            Progress::Start(_) | Progress::Failed => {}
        }
    }

    /// Returns the facts about the step besides its metrics. The model and the provider are left out if they are the
    /// turn's.
    fn details(&self, turn_model: Option<&Label>, turn_provider: Option<&Label>) -> Option<StepDetails> {
        let model = self.model.as_ref().filter(|model| Some(*model) != turn_model);
        let provider = self.provider.as_ref().filter(|provider| Some(*provider) != turn_provider);
        let cache_write_1h_tokens = self.reports.joined().and_then(|report| report.cache_write_1h_tokens);
        let is_known = model.is_some() || provider.is_some() || cache_write_1h_tokens.is_some();
        is_known.then(|| StepDetails {
            step_id: self.id.clone(),
            model: model.cloned(),
            provider: provider.cloned(),
            cache_write_1h_tokens,
        })
    }
}

/// The steps of an open turn, in the order in which they were first seen. Each can be found by its id.
#[derive(Debug, Clone, Default)]
pub struct OpenSteps {
    steps: Vec<OpenStep>,
    /// The place of each step by its id. Empty until there are more than [`OpenSteps::SEARCHED`] steps.
    places: HashMap<StepId, u32>,
    /// The sum of the bytes of all steps.
    bytes: usize,
}

impl OpenSteps {
    /// The largest number of steps that are searched one by one, which is faster for so few and needs less memory.
    /// Nearly all turns have fewer steps.
    const SEARCHED: usize = 32;

    /// Returns whether the turn has this step.
    pub fn contains(&self, id: &StepId) -> bool {
        self.place(id).is_some()
    }

    /// Returns the number of steps.
    pub fn count(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// Returns the sum of the bytes that the steps count. The sum is updated with each change, so this reads no step.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the place of the step, from 0.
    pub(crate) fn place(&self, id: &StepId) -> Option<u32> {
        if self.steps.len() > Self::SEARCHED {
            return self.places.get(id).copied();
        }
        // The step in progress is the last one, so the search starts there.
        self.steps.iter().rposition(|step| step.id == *id).and_then(|place| u32::try_from(place).ok())
    }

    /// Returns the step at this place.
    pub(crate) fn at(&self, place: u32) -> Option<&OpenStep> {
        self.steps.get(usize::try_from(place).ok()?)
    }

    /// Folds the part of an event that is about the step. A new step is added at the end.
    pub(crate) fn fold(&mut self, id: &StepId, progress: &Progress) {
        let place = self.place(id).and_then(|place| usize::try_from(place).ok()).unwrap_or_else(|| {
            self.push(OpenStep::new(id.clone()));
            self.steps.len() - 1
        });
        let step = &mut self.steps[place];
        self.bytes -= step.bytes();
        step.fold(progress);
        self.bytes += step.bytes();
    }

    /// Replaces the step at a place. If there is no step at this place, adds the step at the end.
    pub(crate) fn put(&mut self, place: u32, step: OpenStep) {
        let Some(there) = usize::try_from(place).ok().and_then(|place| self.steps.get_mut(place)) else {
            return self.push(step);
        };
        self.bytes = self.bytes - there.bytes() + step.bytes();
        let is_another = there.id != step.id;
        *there = step;
        if is_another {
            self.note_places(0);
        }
    }

    /// Drops all steps but the first `count`.
    pub(crate) fn truncate(&mut self, count: u32) {
        if count < self.count() {
            let gone = self.steps.drain(usize::try_from(count).unwrap_or(usize::MAX)..);
            self.bytes -= gone.map(|step| step.bytes()).sum::<usize>();
            self.note_places(0);
        }
    }

    fn push(&mut self, step: OpenStep) {
        self.bytes += step.bytes();
        self.steps.push(step);
        // The first step beyond the limit also adds all steps before it to the index.
        self.note_places(if self.steps.len() == Self::SEARCHED + 1 { 0 } else { self.steps.len() - 1 });
    }

    /// Adds the steps from this place on to the index. From 0, rebuilds the whole index.
    fn note_places(&mut self, from: usize) {
        if from == 0 {
            self.places.clear();
        }
        if self.steps.len() > Self::SEARCHED {
            let steps = (0..).zip(&self.steps).skip(from);
            self.places.extend(steps.map(|(place, step)| (step.id.clone(), place)));
        }
    }
}

impl std::ops::Deref for OpenSteps {
    type Target = [OpenStep];

    fn deref(&self) -> &[OpenStep] {
        &self.steps
    }
}

impl IntoIterator for OpenSteps {
    type Item = OpenStep;
    type IntoIter = std::vec::IntoIter<OpenStep>;

    fn into_iter(self) -> Self::IntoIter {
        self.steps.into_iter()
    }
}

impl FromIterator<OpenStep> for OpenSteps {
    /// Collects the steps in the given order. If two have the same id, the first one is kept.
    fn from_iter<I: IntoIterator<Item = OpenStep>>(steps: I) -> Self {
        let mut collected = Self::default();
        for step in steps {
            if !collected.contains(&step.id) {
                collected.push(step);
            }
        }
        collected
    }
}

// The other fields follow from the steps, so only the steps are compared.
impl PartialEq for OpenSteps {
    fn eq(&self, other: &Self) -> bool {
        self.steps == other.steps
    }
}

impl Eq for OpenSteps {}

/// The parts of an open turn besides its steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenHead {
    /// The labels of its `turn-start` events: the latest value of each.
    pub labels: TurnLabels,
    /// The usage reports without a step.
    pub unlabelled: UsageReports,
    /// Whether its latest event was an `error`.
    pub has_failed: bool,
}

impl OpenHead {
    /// Returns the number of bytes of its texts.
    pub(crate) fn text_bytes(&self) -> usize {
        let TurnLabels { model, provider, project } = &self.labels;
        [model, provider, project].into_iter().map(|label| label_bytes(label.as_ref())).sum()
    }

    /// Folds the part of an event that is about the turn itself.
    pub fn fold(&mut self, progress: &Progress) {
        self.has_failed = matches!(progress, Progress::Failed);
        match progress {
            Progress::Start(TurnLabels { model, provider, project }) => {
                rename(&mut self.labels.model, model.as_ref());
                rename(&mut self.labels.provider, provider.as_ref());
                rename(&mut self.labels.project, project.as_ref());
            }
            // A report without tokens changes nothing.
            Progress::Usage { step_id: None, report, is_final } if !report.is_silent() => {
                self.unlabelled.take(*report, *is_final);
            }
            Progress::Usage { .. } | Progress::StepComplete { .. } | Progress::Failed => {}
        }
    }
}

/// A turn in progress: the fold of its events so far.
///
/// Folding the same events again, in order, from any point on, changes nothing. So a sender that does not know whether
/// its events arrived may send them again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTurn {
    /// The turn.
    pub id: TurnId,
    /// The parts of the turn besides its steps.
    pub head: OpenHead,
    /// Its steps, in the order in which they were first seen.
    pub steps: OpenSteps,
}

impl OpenTurn {
    /// Returns a turn without any event.
    pub fn new(id: TurnId) -> Self {
        Self { id, head: OpenHead::default(), steps: OpenSteps::default() }
    }

    /// The bytes that a turn counts besides its steps and texts: about its memory.
    const BASE_BYTES: usize = 512;

    /// Returns the bytes that limits count for the turn: 512, the bytes of its texts (id, model, provider, project),
    /// and the bytes of its steps. This is about its memory. Reads no step.
    ///
    /// ```
    /// # use turn_metrics::turn::{OpenTurn, Progress, StepId, TurnId, Usage};
    /// let mut turn = OpenTurn::new(TurnId::new("t")?);
    /// assert_eq!(turn.bytes(), 512 + 1);
    /// let step_id = Some(StepId::new("t#0")?);
    /// turn.fold(&Progress::Usage { step_id, report: Usage::default().into(), is_final: false });
    /// assert_eq!(turn.bytes(), 512 + 1 + 512 + 3);
    /// # Ok::<(), turn_metrics::turn::InvalidId>(())
    /// ```
    pub fn bytes(&self) -> usize {
        Self::bytes_of(&self.id, &self.head, self.steps.bytes())
    }

    /// Returns the bytes of a turn whose steps have `steps_bytes`.
    pub(crate) fn bytes_of(id: &TurnId, head: &OpenHead, steps_bytes: usize) -> usize {
        Self::BASE_BYTES + id.as_str().len() + head.text_bytes() + steps_bytes
    }

    /// Folds one event into this turn. The event changes the head and at most one step: the step of
    /// [`Progress::step_id`].
    pub fn fold(&mut self, progress: &Progress) {
        self.head.fold(progress);
        if let Some(id) = progress.step_id() {
            self.steps.fold(id, progress);
        }
    }

    /// Ends the turn and returns the result. It cannot fail, whatever was folded before.
    pub fn seal(&self, done: &Done, sealed_at: EpochMillis) -> SealedTurn {
        let usage = self.usage_with(done);
        let last_step = self.steps.last().and_then(|step| step.reports.joined());
        let last_step = last_step.map(|report| report.usage().context_size());
        let of_last = |of: fn(&OpenStep) -> Option<&Label>| self.steps.iter().rev().find_map(of);
        let model =
            done.model.as_ref().or(self.head.labels.model.as_ref()).or_else(|| of_last(|step| step.model.as_ref()));
        let provider = done.provider.as_ref().or(self.head.labels.provider.as_ref());
        let provider = provider.or_else(|| of_last(|step| step.provider.as_ref()));
        let steps = self.steps.iter().map(|step| StepMetrics {
            step_id: step.id.clone(),
            usage: step.reports.joined().unwrap_or_default().usage(),
            times: step.times,
        });
        SealedTurn {
            sealed_at,
            ended_at: done.ended_at.and_then(|moment| moment.plausible(sealed_at)),
            reason: done.reason.clone(),
            model: model.cloned(),
            provider: provider.cloned(),
            project: self.head.labels.project.clone(),
            cache_write_1h_tokens: usage.cache_write_1h_tokens,
            step_details: self.steps.iter().filter_map(|step| step.details(model, provider)).collect(),
            metrics: TurnMetrics {
                turn_id: self.id.clone(),
                usage: usage.usage(),
                steps: steps.collect(),
                duration: done.duration,
                // A context size of 0 means unknown.
                context_size: [last_step, done.context_size]
                    .into_iter()
                    .flatten()
                    .find(|size| *size > TokenCount::ZERO),
            },
        }
    }

    /// Returns the turn as if it had ended with what is known of it so far: without a reason, a duration and moments.
    pub fn so_far(&self) -> SealedTurn {
        self.seal(&Done::because(""), EpochMillis::new(0))
    }

    /// Returns probable mistakes of the kernel in the turn that `done` seals.
    pub fn warnings(&self, done: &Done, sealed_at: EpochMillis) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let turn_id = || self.id.clone();
        if done.ended_at.is_some_and(|moment| moment.plausible(sealed_at).is_none()) {
            warnings.push(Warning::ImplausibleEnd { turn_id: turn_id() });
        }
        let mut beyond = self
            .steps
            .iter()
            .filter(|step| step.reports.joined().is_some_and(|report| report.usage().has_more_cached_than_input()));
        if let Some(OpenStep { id, .. }) = beyond.next() {
            let (step_id, steps) = (id.clone(), 1 + beyond.count());
            warnings.push(Warning::CachedBeyondInput { turn_id: turn_id(), step_id, steps });
        }
        if let Some(sum) = self.sum_of_steps()
            && sum.usage() != self.usage_with(done).usage()
        {
            warnings.push(Warning::UsageDiffers { turn_id: turn_id() });
        }
        warnings
    }

    /// Returns the turn's tokens: the usage of `done` if any of its counters is above 0, else the sum of the steps,
    /// else the joined reports without a step.
    fn usage_with(&self, done: &Done) -> UsageReport {
        let of_done = done.usage.filter(|report| !report.is_silent());
        let of_reports = self.sum_of_steps().or_else(|| self.head.unlabelled.joined());
        match of_done {
            Some(of_done) if of_done.is_positive() => of_done.or_unsaid(of_reports.unwrap_or_default()),
            of_done => of_reports.or(of_done).unwrap_or_default(),
        }
    }

    /// Returns the sum over the steps that reported tokens; `None` if no step did.
    fn sum_of_steps(&self) -> Option<UsageReport> {
        self.steps.iter().filter_map(|step| step.reports.joined()).reduce(UsageReport::saturating_add)
    }
}

pub(super) fn label_bytes(label: Option<&Label>) -> usize {
    label.map_or(0, |label| label.as_str().len())
}

fn rename(label: &mut Option<Label>, named: Option<&Label>) {
    if let Some(named) = named {
        *label = Some(named.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{KernelEvent, TurnEventKind, Usage, parse_line};

    /// Folds the lines. The last line must be a `done`.
    fn sealed(lines: &[&str]) -> SealedTurn {
        let (turn, done) = folded(lines);
        turn.seal(&done, EpochMillis::new(SEALED_AT))
    }

    fn warned(lines: &[&str]) -> Vec<String> {
        let (turn, done) = folded(lines);
        let warnings = turn.warnings(&done, EpochMillis::new(SEALED_AT));
        warnings.iter().map(ToString::to_string).collect()
    }

    const SEALED_AT: u64 = 1_780_000_000_000;

    fn folded(lines: &[&str]) -> (OpenTurn, Done) {
        let mut turn = OpenTurn::new(TurnId::new("t").unwrap());
        for line in lines {
            let line = line.replacen('{', r#"{"conversationId":"c","turnId":"t","#, 1);
            let KernelEvent { event, .. } = parse_line(line.as_bytes()).unwrap().unwrap();
            match event.kind {
                TurnEventKind::Progress(progress) => turn.fold(&progress),
                TurnEventKind::Done(done) => return (turn, done),
            }
        }
        panic!("no done");
    }

    fn metrics(lines: &[&str]) -> TurnMetrics {
        sealed(lines).metrics
    }

    fn usage(input: u32, output: u32) -> Usage {
        Usage { input_tokens: input.into(), output_tokens: output.into(), ..Usage::default() }
    }

    const DONE: &str = r#"{"type":"done","reason":"stop"}"#;

    #[test]
    fn rule_1_steps_have_the_order_in_which_they_were_first_seen() {
        let turn = metrics(&[
            r#"{"type":"step-complete","stepId":"b"}"#,
            r#"{"type":"usage","stepId":"a","usage":{"inputTokens":1,"outputTokens":1}}"#,
            r#"{"type":"usage","stepId":"b","usage":{"inputTokens":1,"outputTokens":1}}"#,
            DONE,
        ]);
        let order: Vec<_> = turn.steps.iter().map(|step| step.step_id.as_str()).collect();
        assert_eq!(order, ["b", "a"]);
    }

    #[test]
    fn rule_2_usage_reports_of_one_step_join() {
        let turn = metrics(&[
            r#"{"type":"usage","stepId":"a","usage":{"inputTokens":900,"outputTokens":1}}"#,
            r#"{"type":"usage","stepId":"a","usage":{"inputTokens":0,"outputTokens":120,"cacheReadTokens":3}}"#,
            DONE,
        ]);
        assert_eq!(turn.steps[0].usage, Usage { cache_read_tokens: Some(3.into()), ..usage(900, 120) });
    }

    #[test]
    fn rule_3_a_later_step_complete_replaces_all_three_times() {
        let turn = metrics(&[
            r#"{"type":"step-complete","stepId":"a","ttftMs":1,"decodeMs":2,"genTotalMs":3}"#,
            r#"{"type":"step-complete","stepId":"a","genTotalMs":9}"#,
            DONE,
        ]);
        assert_eq!(turn.steps[0].times, StepTimes { gen_total: Some(9.into()), ..StepTimes::default() });
    }

    #[test]
    fn rule_4_a_step_without_usage_has_zeros_and_a_step_without_times_has_none() {
        let turn = metrics(&[
            r#"{"type":"step-complete","stepId":"a","genTotalMs":9}"#,
            r#"{"type":"usage","stepId":"b","usage":{"inputTokens":1,"outputTokens":1}}"#,
            DONE,
        ]);
        assert_eq!(turn.steps[0].usage, Usage::default());
        assert_eq!(turn.steps[1].times, StepTimes::default());
    }

    #[test]
    fn rule_5_the_usage_of_a_turn_is_from_done_else_the_steps_else_reports_without_a_step_else_zeros() {
        let step_a = r#"{"type":"usage","stepId":"a","usage":{"inputTokens":1,"outputTokens":2,"cacheReadTokens":3}}"#;
        let step_b = r#"{"type":"usage","stepId":"b","usage":{"inputTokens":10,"outputTokens":20}}"#;
        let unlabelled = r#"{"type":"usage","usage":{"inputTokens":70,"outputTokens":9}}"#;
        let again = r#"{"type":"usage","usage":{"inputTokens":7,"outputTokens":30}}"#;
        let done = r#"{"type":"done","reason":"stop","usage":{"inputTokens":5,"outputTokens":5}}"#;

        assert_eq!(metrics(&[step_a, step_b, unlabelled, done]).usage, usage(5, 5));
        let summed = Usage { cache_read_tokens: Some(3.into()), ..usage(11, 22) };
        assert_eq!(metrics(&[step_a, unlabelled, step_b, DONE]).usage, summed);
        assert_eq!(metrics(&[unlabelled, again, DONE]).usage, usage(70, 30));
        let timed = r#"{"type":"step-complete","stepId":"a","genTotalMs":9}"#;
        assert_eq!(
            metrics(&[timed, unlabelled, DONE]).usage,
            usage(70, 9),
            "a step without usage must not count as a sum"
        );
        assert_eq!(metrics(&[DONE]).usage, Usage::default());
    }

    #[test]
    fn rule_6_the_duration_is_from_done() {
        assert_eq!(metrics(&[DONE]).duration, None);
        let turn = metrics(&[r#"{"type":"done","reason":"stop","durationMs":5}"#]);
        assert_eq!(turn.duration, Some(5.into()));
    }

    #[test]
    fn rule_7_the_context_size_is_from_the_last_step_else_from_done_and_never_0() {
        let used = r#"{"type":"usage","stepId":"a","usage":{"inputTokens":1,"outputTokens":2}}"#;
        let nothing = r#"{"type":"usage","stepId":"b","usage":{"inputTokens":0,"outputTokens":0}}"#;
        let timed = r#"{"type":"step-complete","stepId":"b","genTotalMs":9}"#;
        let told = r#"{"type":"done","reason":"stop","contextSize":99}"#;
        let told_zero = r#"{"type":"done","reason":"stop","contextSize":0}"#;
        let unlabelled = r#"{"type":"usage","usage":{"inputTokens":70,"outputTokens":9}}"#;
        assert_eq!(metrics(&[used, told]).context_size, Some(3.into()));
        assert_eq!(metrics(&[timed, used, DONE]).context_size, Some(3.into()));
        for silent in [timed, nothing] {
            assert_eq!(
                metrics(&[used, silent, told]).context_size,
                Some(99.into()),
                "the last step reported no tokens"
            );
            assert_eq!(metrics(&[used, silent, told_zero]).context_size, None);
            assert_eq!(metrics(&[used, silent, DONE]).context_size, None);
        }
        assert_eq!(metrics(&[unlabelled, DONE]).context_size, None, "no step has a context size");
    }

    #[test]
    fn rule_8_a_done_with_any_reason_seals() {
        for reason in ["stop", "aborted", "error", "max-steps", "", "something new"] {
            let done = format!(r#"{{"type":"done","reason":"{reason}"}}"#);
            assert_eq!(sealed(&[&done]).reason.as_str(), reason);
        }
    }

    #[test]
    fn rule_10_an_error_marks_the_turn_as_failed_until_its_next_event() {
        let event = |kind: &str| {
            let line = format!(r#"{{"type":"{kind}","conversationId":"c","turnId":"t","stepId":"s"}}"#);
            match parse_line(line.as_bytes()).unwrap().unwrap().event.kind {
                TurnEventKind::Progress(progress) => progress,
                TurnEventKind::Done(done) => panic!("{done:?}"),
            }
        };
        let mut turn = OpenTurn::new(TurnId::new("t").unwrap());
        for (kind, has_failed) in [("turn-start", false), ("error", true), ("error", true), ("step-complete", false)] {
            turn.fold(&event(kind));
            assert_eq!(turn.head.has_failed, has_failed, "{kind}");
        }
    }

    #[test]
    fn the_model_of_a_turn_is_from_done_else_turn_start_else_the_last_step_that_names_one() {
        let start = r#"{"type":"turn-start","model":"of start","provider":"P"}"#;
        let step = |id: &str, model: &str| format!(r#"{{"type":"step-complete","stepId":"{id}","model":"{model}"}}"#);
        let (a, b) = (step("a", "of a"), step("b", "of b"));
        let silent = r#"{"type":"step-complete","stepId":"c"}"#;
        let done = r#"{"type":"done","reason":"stop","model":"of done"}"#;
        let model = |lines: &[&str]| sealed(lines).model.map(|model| model.to_string());
        assert_eq!(model(&[start, &a, done]).as_deref(), Some("of done"));
        assert_eq!(model(&[start, &a, r#"{"type":"turn-start"}"#, DONE]).as_deref(), Some("of start"));
        assert_eq!(
            model(&[&b, &a, silent, DONE]).as_deref(),
            Some("of a"),
            "the last step must count, not the last event"
        );
        assert_eq!(model(&[&b, &a, &b, DONE]).as_deref(), Some("of a"));
        assert_eq!(model(&[silent, DONE]), None);
        assert_eq!(
            sealed(&[start, done]).provider,
            Some("P".into()),
            "model and provider must be looked up separately"
        );
    }

    #[test]
    fn step_details_are_its_hour_part_and_the_labels_that_differ_from_the_turn() {
        let turn = sealed(&[
            r#"{"type":"turn-start","model":"big","provider":"A","project":"old"}"#,
            r#"{"type":"turn-start","project":"new"}"#,
            r#"{"type":"step-complete","stepId":"a","model":"big","provider":"A"}"#,
            r#"{"type":"step-complete","stepId":"b","model":"small","provider":"A"}"#,
            r#"{"type":"step-complete","stepId":"c","provider":"B"}"#,
            r#"{"type":"usage","stepId":"d","usage":{"inputTokens":9,"outputTokens":1,"cacheWrite1hTokens":0}}"#,
            r#"{"type":"usage","stepId":"e","usage":{"inputTokens":9,"outputTokens":1,"cacheWrite1hTokens":4}}"#,
            DONE,
        ]);
        let details = |id: &str| StepDetails {
            step_id: StepId::new(id).unwrap(),
            model: None,
            provider: None,
            cache_write_1h_tokens: None,
        };
        assert_eq!(
            turn.step_details,
            [
                StepDetails { model: Some("small".into()), ..details("b") },
                StepDetails { provider: Some("B".into()), ..details("c") },
                StepDetails { cache_write_1h_tokens: Some(0.into()), ..details("d") },
                StepDetails { cache_write_1h_tokens: Some(4.into()), ..details("e") },
            ]
        );
        assert_eq!((turn.cache_write_1h_tokens, turn.project), (Some(4.into()), Some("new".into())));
    }

    #[test]
    fn the_hour_part_of_a_turn_follows_rule_5() {
        let step = r#"{"type":"usage","stepId":"a","usage":{"inputTokens":9,"outputTokens":1,"cacheWrite1hTokens":4}}"#;
        let loose = r#"{"type":"usage","usage":{"inputTokens":9,"outputTokens":1,"cacheWrite1hTokens":3}}"#;
        let told = r#"{"type":"done","reason":"stop","usage":{"inputTokens":9,"cacheWrite1hTokens":2}}"#;
        let silent = r#"{"type":"done","reason":"stop","usage":{"inputTokens":9,"outputTokens":1}}"#;
        let hour = |lines: &[&str]| sealed(lines).cache_write_1h_tokens.map(TokenCount::get);
        assert_eq!(hour(&[step, step, loose, DONE]), Some(4));
        assert_eq!(hour(&[loose, DONE]), Some(3));
        assert_eq!(hour(&[step, told]), Some(2));
        assert_eq!(hour(&[step, silent]), None, "the usage of `done` must count as a whole");
    }

    #[test]
    fn probable_mistakes_are_warned_of() {
        let exclusive = |id: &str| {
            format!(
                r#"{{"type":"usage","stepId":"{id}","usage":{{"inputTokens":9,"outputTokens":1,"cacheReadTokens":5,"cacheWriteTokens":5}}}}"#
            )
        };
        let inclusive = exclusive("a").replace('9', "10");
        assert_eq!(warned(&[&inclusive, DONE]), [""; 0]);
        let told = warned(&[&inclusive, &exclusive("b"), &exclusive("c"), DONE]);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("turn `t`: 2 of its steps, first `b`"), "{told:?}");

        let step = r#"{"type":"usage","stepId":"a","usage":{"inputTokens":9,"outputTokens":1}}"#;
        let done = |usage: &str| format!(r#"{{"type":"done","reason":"stop","usage":{usage}}}"#);
        for equal in [r#"{"inputTokens":9,"outputTokens":1}"#, r#"{"inputTokens":9}"#, r#"{"inputTokens":0}"#] {
            assert_eq!(warned(&[step, &done(equal)]), [""; 0], "{equal}");
        }
        for other in [r#"{"inputTokens":8}"#, r#"{"inputTokens":9,"outputTokens":1,"cacheReadTokens":1}"#] {
            assert!(warned(&[step, &done(other)])[0].contains("differs"), "{other}");
        }
        assert_eq!(warned(&[&done(r#"{"inputTokens":8}"#)]), [""; 0], "there is no sum to differ from");

        let ended = |at: &str| format!(r#"{{"type":"done","reason":"stop","endedAt":{at}}}"#);
        assert_eq!(warned(&[&ended("1780000000000")]), [""; 0]);
        assert_eq!(sealed(&[&ended("1779999999999.5")]).ended_at, Some(EpochMillis::new(1_779_999_999_999)));
        for bad in ["-1", "1780000000", "1790000000000"] {
            assert!(warned(&[&ended(bad)])[0].contains("`endedAt`"), "{bad}");
            assert_eq!(sealed(&[&ended(bad)]).ended_at, None, "{bad}");
        }
    }

    /// Runs the test vectors of the fold. Each case is one conversation.
    #[test]
    fn the_contracts_cases() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/fold.json")).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 39);
        for case in cases {
            let mut open: Vec<OpenTurn> = Vec::new();
            let mut sealed = Vec::new();
            for event in case["events"].as_array().unwrap() {
                let Some(event) = parse_line(event.to_string().as_bytes()).unwrap() else { continue };
                let event = event.event;
                let known = open.iter().position(|turn| turn.id == event.turn_id);
                let is_late = sealed.iter().any(|turn: &TurnMetrics| turn.turn_id == event.turn_id);
                if is_late || (known.is_none() && event.kind == TurnEventKind::Progress(Progress::Failed)) {
                    continue;
                }
                let at = known.unwrap_or_else(|| {
                    open.push(OpenTurn::new(event.turn_id));
                    open.len() - 1
                });
                match event.kind {
                    TurnEventKind::Progress(progress) => open[at].fold(&progress),
                    TurnEventKind::Done(done) => {
                        sealed.push(open.remove(at).seal(&done, EpochMillis::new(SEALED_AT)).metrics);
                    }
                }
            }
            let metrics = case["metrics"].as_object().unwrap();
            if metrics.len() == 1 {
                let expected = metrics.values().next().unwrap().to_string();
                assert_eq!(serde_json::to_string(&sealed).unwrap(), expected, "case {}", case["name"]);
            }
        }
    }

    #[test]
    fn many_steps_are_found_as_reliably_as_few() {
        let mut turn = OpenTurn::new(TurnId::new("t").unwrap());
        let report = |n: u32, tokens| Progress::Usage {
            step_id: Some(StepId::new(format!("t#{n}")).unwrap()),
            report: usage(tokens, 0).into(),
            is_final: false,
        };
        for n in 0..100 {
            turn.fold(&report(n, 1));
            // Reports an earlier step once more.
            turn.fold(&report(n / 2, n));
        }
        let steps: Vec<_> = turn.steps.iter().map(|step| step.id.to_string()).collect();
        assert_eq!(steps, (0..100).map(|n| format!("t#{n}")).collect::<Vec<_>>());
        assert_eq!(turn.steps[20].reports.joined(), Some(usage(41, 0).into()));
        let collected: OpenSteps = turn.steps.iter().cloned().collect();
        assert_eq!(collected, turn.steps);
        assert!(
            collected.contains(&StepId::new("t#0").unwrap()) && !collected.contains(&StepId::new("t#100").unwrap())
        );
    }

    #[test]
    fn steps_are_found_after_others_are_put_and_dropped() {
        let id = |n: u32| StepId::new(format!("t#{n}")).unwrap();
        let found = |steps: &OpenSteps| {
            let places = (0..200).filter_map(|n| Some((steps.place(&id(n))?, n)));
            places.collect::<std::collections::BTreeMap<_, _>>().into_iter().collect::<Vec<_>>()
        };
        let mut steps = OpenSteps::default();
        (0..40).for_each(|n| steps.put(n, OpenStep::new(id(n))));
        assert_eq!(found(&steps), (0..40).map(|n| (n, n)).collect::<Vec<_>>());
        let timed =
            OpenStep { times: StepTimes { decode: Some(7.into()), ..StepTimes::default() }, ..OpenStep::new(id(7)) };
        steps.put(7, timed.clone());
        assert_eq!((steps.at(7), steps.count()), (Some(&timed), 40));
        steps.put(7, OpenStep::new(id(107)));
        assert_eq!((steps.place(&id(7)), steps.place(&id(107))), (None, Some(7)), "another step replaced it");
        steps.truncate(36);
        assert_eq!((steps.place(&id(36)), steps.place(&id(35)), steps.at(36)), (None, Some(35), None));
        steps.truncate(5);
        steps.truncate(9);
        assert_eq!(found(&steps), (0..5).map(|n| (n, n)).collect::<Vec<_>>());
        (5..50).for_each(|n| steps.put(n, OpenStep::new(id(n))));
        assert_eq!(found(&steps), (0..50).map(|n| (n, n)).collect::<Vec<_>>());
    }

    #[test]
    fn the_bytes_of_a_turn_are_kept_with_each_change() {
        let counted = |steps: &OpenSteps| steps.iter().map(OpenStep::bytes).sum::<usize>();
        let named = |n: u32, model: &str| OpenStep {
            model: Some(model.into()),
            ..OpenStep::new(StepId::new(format!("t#{n}")).unwrap())
        };
        let mut steps = OpenSteps::default();
        (0..40).for_each(|n| steps.put(n, named(n, "large")));
        assert_eq!(steps.bytes(), counted(&steps));
        steps.put(7, named(7, "larger by far"));
        steps.put(8, named(1008, "x"));
        assert_eq!(steps.bytes(), counted(&steps), "steps that are replaced");
        steps.truncate(36);
        assert_eq!(steps.bytes(), counted(&steps), "steps that are dropped");
        assert_eq!(steps.clone().into_iter().collect::<OpenSteps>().bytes(), steps.bytes());

        let mut turn = OpenTurn { steps, ..OpenTurn::new(TurnId::new("t").unwrap()) };
        for model in ["a name", "a much longer name", ""] {
            let step_id = StepId::new("t#3").unwrap();
            let (times, model) = (StepTimes::default(), Some(Label::from(model)));
            turn.fold(&Progress::Start(TurnLabels { project: model.clone(), ..TurnLabels::default() }));
            turn.fold(&Progress::StepComplete { step_id, times, model: model.clone(), provider: model.clone() });
            let labels = model.map_or(0, |model| model.as_str().len());
            assert_eq!(turn.bytes(), 512 + 1 + labels + counted(&turn.steps));
        }
    }

    #[test]
    fn sums_of_the_largest_counts_stay_in_range() {
        let max = r#"{"type":"usage","stepId":"ID","usage":{"inputTokens":9007199254740991,"outputTokens":9007199254740991,"cacheReadTokens":9007199254740991}}"#;
        let turn = metrics(&[&max.replace("ID", "a"), &max.replace("ID", "b"), DONE]);
        assert_eq!(turn.usage.input_tokens, TokenCount::MAX);
        assert_eq!(turn.usage.cache_read_tokens, Some(TokenCount::MAX));
        assert_eq!(turn.context_size, Some(TokenCount::MAX));
    }
}
