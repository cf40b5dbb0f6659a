use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Done, EpochMillis, Label, Millis, Progress, SealedTurn, StepId, StepMetrics, TurnId, TurnMetrics, Usage};

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

/// A step of an open turn: what has been reported of it so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenStep {
    /// The step.
    pub id: StepId,
    /// The join of its usage reports; `None` before the first.
    pub usage: Option<Usage>,
    /// The times of its latest `step-complete`.
    pub times: StepTimes,
}

/// The steps of an open turn, in the order in which they were first seen, each found by its id.
#[derive(Debug, Clone, Default)]
pub struct OpenSteps {
    steps: Vec<OpenStep>,
    /// Where each step stands, once there are more than [`OpenSteps::SEARCHED`].
    places: HashMap<StepId, usize>,
}

impl OpenSteps {
    /// So many steps are searched one by one, which is faster and smaller; nearly all turns have fewer.
    const SEARCHED: usize = 32;

    /// Whether anything has been reported of the step.
    pub fn contains(&self, id: &StepId) -> bool {
        self.place(id).is_some()
    }

    fn place(&self, id: &StepId) -> Option<usize> {
        if self.steps.len() > Self::SEARCHED {
            return self.places.get(id).copied();
        }
        // The step in progress is the last one, so the search starts there.
        self.steps.iter().rposition(|step| step.id == *id)
    }

    /// The step, added at the end if it is new.
    fn entry(&mut self, id: &StepId) -> &mut OpenStep {
        let place = self.place(id).unwrap_or_else(|| {
            self.push(OpenStep { id: id.clone(), usage: None, times: StepTimes::default() });
            self.steps.len() - 1
        });
        &mut self.steps[place]
    }

    fn push(&mut self, step: OpenStep) {
        self.steps.push(step);
        // The one that makes them too many has all before it noted too.
        let noted = if self.steps.len() == Self::SEARCHED + 1 { 0 } else { self.steps.len() - 1 };
        if self.steps.len() > Self::SEARCHED {
            self.places.extend(self.steps.iter().enumerate().skip(noted).map(|(place, step)| (step.id.clone(), place)));
        }
    }
}

impl std::ops::Deref for OpenSteps {
    type Target = [OpenStep];

    fn deref(&self) -> &[OpenStep] {
        &self.steps
    }
}

impl FromIterator<OpenStep> for OpenSteps {
    /// The steps as they are given; of two with one id the first one counts.
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

// The places follow from the steps.
impl PartialEq for OpenSteps {
    fn eq(&self, other: &Self) -> bool {
        self.steps == other.steps
    }
}

impl Eq for OpenSteps {}

/// A turn in progress: the fold of its events so far.
///
/// Folding the same events again, in order, from any point on, changes nothing, so a sender in doubt sends again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTurn {
    /// The turn.
    pub id: TurnId,
    /// The model of the latest event that named one.
    pub model: Option<Label>,
    /// Its steps, in the order in which they were first seen.
    pub steps: OpenSteps,
    /// The join of the usage reports that named no step; `None` before the first.
    pub unlabelled_usage: Option<Usage>,
}

impl OpenTurn {
    /// A turn of which nothing has been reported yet.
    pub fn new(id: TurnId) -> Self {
        Self { id, model: None, steps: OpenSteps::default(), unlabelled_usage: None }
    }

    /// Takes one event of this turn in.
    pub fn fold(&mut self, progress: &Progress) {
        match progress {
            Progress::Start { model } => self.take_model(model.as_ref()),
            Progress::Usage { step_id: Some(id), usage } => join_into(&mut self.steps.entry(id).usage, *usage),
            Progress::Usage { step_id: None, usage } => join_into(&mut self.unlabelled_usage, *usage),
            Progress::StepComplete { step_id, times, model } => {
                self.take_model(model.as_ref());
                self.steps.entry(step_id).times = *times;
            }
        }
    }

    /// Ends the turn: what it has become. Total, whatever was folded before.
    pub fn seal(&self, done: &Done, sealed_at: EpochMillis) -> SealedTurn {
        let usage = done.usage.unwrap_or_else(|| self.total_usage());
        let context_size = done.context_size.or_else(|| self.steps.last()?.usage.map(Usage::context_size));
        let steps = self.steps.iter().map(|step| StepMetrics {
            step_id: step.id.clone(),
            usage: step.usage.unwrap_or_default(),
            times: step.times,
        });
        SealedTurn {
            sealed_at,
            reason: done.reason.clone(),
            model: done.model.as_ref().or(self.model.as_ref()).cloned(),
            metrics: TurnMetrics {
                turn_id: self.id.clone(),
                usage,
                steps: steps.collect(),
                duration: done.duration,
                context_size,
            },
        }
    }

    /// The turn's tokens where `done` does not tell them.
    fn total_usage(&self) -> Usage {
        let of_steps = self.steps.iter().filter_map(|step| step.usage).reduce(Usage::saturating_add);
        of_steps.or(self.unlabelled_usage).unwrap_or_default()
    }

    fn take_model(&mut self, model: Option<&Label>) {
        if let Some(model) = model {
            self.model = Some(model.clone());
        }
    }
}

fn join_into(known: &mut Option<Usage>, report: Usage) {
    *known = Some(known.map_or(report, |known| known.join(report)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{KernelEvent, TokenCount, TurnEventKind, parse_line};

    /// Folds the lines, the last of which is a `done`.
    fn sealed(lines: &[&str]) -> SealedTurn {
        let mut turn = OpenTurn::new(TurnId::new("t").unwrap());
        for line in lines {
            let line = line.replacen('{', r#"{"conversationId":"c","turnId":"t","#, 1);
            let KernelEvent { event, .. } = parse_line(line.as_bytes()).unwrap().unwrap();
            match event.kind {
                TurnEventKind::Progress(progress) => turn.fold(&progress),
                TurnEventKind::Done(done) => return turn.seal(&done, EpochMillis::new(1)),
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
    fn rule_1_steps_stand_in_the_order_first_seen() {
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
    fn rule_2_usage_of_one_step_joins() {
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
    fn rule_4_a_step_without_usage_has_zeros_and_one_without_timing_no_times() {
        let turn = metrics(&[
            r#"{"type":"step-complete","stepId":"a","genTotalMs":9}"#,
            r#"{"type":"usage","stepId":"b","usage":{"inputTokens":1,"outputTokens":1}}"#,
            DONE,
        ]);
        assert_eq!(turn.steps[0].usage, Usage::default());
        assert_eq!(turn.steps[1].times, StepTimes::default());
    }

    #[test]
    fn rule_5_the_turns_usage_is_dones_then_the_sum_of_steps_then_the_join_of_unlabelled_then_zeros() {
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
        assert_eq!(metrics(&[timed, unlabelled, DONE]).usage, usage(70, 9), "a step without usage is no sum");
        assert_eq!(metrics(&[DONE]).usage, Usage::default());
    }

    #[test]
    fn rule_6_duration_is_dones() {
        assert_eq!(metrics(&[DONE]).duration, None);
        let turn = metrics(&[r#"{"type":"done","reason":"stop","durationMs":5}"#]);
        assert_eq!(turn.duration, Some(5.into()));
    }

    #[test]
    fn rule_7_context_size_is_dones_else_the_last_steps_else_absent() {
        let used = r#"{"type":"usage","stepId":"a","usage":{"inputTokens":1,"outputTokens":2}}"#;
        let timed = r#"{"type":"step-complete","stepId":"b","genTotalMs":9}"#;
        let told = r#"{"type":"done","reason":"stop","contextSize":99}"#;
        let unlabelled = r#"{"type":"usage","usage":{"inputTokens":70,"outputTokens":9}}"#;
        assert_eq!(metrics(&[used, told]).context_size, Some(99.into()));
        assert_eq!(metrics(&[timed, used, DONE]).context_size, Some(3.into()));
        assert_eq!(metrics(&[used, timed, DONE]).context_size, None, "the last step has no usage");
        assert_eq!(metrics(&[unlabelled, DONE]).context_size, None, "no step has");
    }

    #[test]
    fn rule_8_any_reason_seals() {
        for reason in ["stop", "aborted", "error", "max-steps", "", "something new"] {
            let done = format!(r#"{{"type":"done","reason":"{reason}"}}"#);
            assert_eq!(sealed(&[&done]).reason.as_str(), reason);
        }
    }

    #[test]
    fn the_latest_model_named_is_the_turns() {
        let turn = sealed(&[
            r#"{"type":"turn-start","model":"m1"}"#,
            r#"{"type":"step-complete","stepId":"a","model":"m2"}"#,
            r#"{"type":"turn-start"}"#,
            DONE,
        ]);
        assert_eq!(turn.model, Some("m2".into()));
    }

    #[test]
    fn many_steps_are_found_like_few() {
        let mut turn = OpenTurn::new(TurnId::new("t").unwrap());
        let report = |n: u32, tokens| Progress::Usage {
            step_id: Some(StepId::new(format!("t#{n}")).unwrap()),
            usage: usage(tokens, 0),
        };
        for n in 0..100 {
            turn.fold(&report(n, 1));
            // Each step so far again, the first one among them.
            turn.fold(&report(n / 2, n));
        }
        let steps: Vec<_> = turn.steps.iter().map(|step| step.id.to_string()).collect();
        assert_eq!(steps, (0..100).map(|n| format!("t#{n}")).collect::<Vec<_>>());
        assert_eq!(turn.steps[20].usage, Some(usage(41, 0)));
        let collected: OpenSteps = turn.steps.iter().cloned().collect();
        assert_eq!(collected, turn.steps);
        assert!(
            collected.contains(&StepId::new("t#0").unwrap()) && !collected.contains(&StepId::new("t#100").unwrap())
        );
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
