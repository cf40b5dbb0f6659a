//! The parts of a turn that a report counts.

use std::collections::HashMap;

use super::label::{ReasonClass, RollupLabel};
use crate::turn::{EpochMillis, Label, StepDetails, StepMetrics, StoredTurn, Usage};

/// The moment at which a turn counts in reports: when it ended by its kernel's clock, else when it was sealed.
pub fn report_time(turn: &StoredTurn) -> EpochMillis {
    turn.ended_at.unwrap_or(turn.sealed_at)
}

/// Tokens of one round-trip to a model, as far as they were reported: of a step, or of a turn without such steps.
pub(super) struct TokenPart<'a> {
    pub(super) model: Option<&'a Label>,
    pub(super) provider: Option<&'a Label>,
    pub(super) usage: Usage,
    /// The whole prompt: with the cached tokens, also where the kernel leaves them out of the input.
    pub(super) prompt_tokens: i128,
    /// Of the cache writes, those for an hour.
    pub(super) cache_write_1h_tokens: u64,
}

/// A step with its model: all its steps count as steps, and their times as times, whether they reported tokens or not.
pub(super) struct StepPart<'a> {
    pub(super) model: Option<&'a Label>,
    pub(super) provider: Option<&'a Label>,
    pub(super) step: &'a StepMetrics,
}

/// Sums of the counters of some usages, and how often each cache counter was reported: it may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct UsageSums {
    pub(super) input_tokens: i128,
    pub(super) output_tokens: i128,
    pub(super) cache_read_tokens: i128,
    pub(super) cache_read_reports: i128,
    pub(super) cache_write_tokens: i128,
    pub(super) cache_write_reports: i128,
}

/// A turn, taken apart.
pub(super) struct Parts<'a> {
    pub(super) turn: &'a StoredTurn,
    pub(super) steps: Vec<StepPart<'a>>,
    pub(super) tokens: Vec<TokenPart<'a>>,
    /// What the turn's usage has beyond the sum of its steps, counter by counter: negative where it has less. The number
    /// of reports of a cache counter is one if the turn has it, minus one for each step that has it. So the sum over all
    /// parts of a turn is reported as often as the turn's usage reports it: once or never.
    pub(super) difference: UsageSums,
}

impl<'a> Parts<'a> {
    pub(super) fn of(turn: &'a StoredTurn) -> Self {
        let details: HashMap<_, &StepDetails> =
            turn.step_details.iter().map(|details| (&details.step_id, details)).collect();
        let (mut steps, mut tokens) = (Vec::with_capacity(turn.metrics.steps.len()), Vec::new());
        for step in &turn.metrics.steps {
            let details = details.get(&step.step_id);
            let model = details.and_then(|details| details.model.as_ref()).or(turn.model.as_ref());
            let provider = details.and_then(|details| details.provider.as_ref()).or(turn.provider.as_ref());
            steps.push(StepPart { model, provider, step });
            // A step that reported nothing has zeros.
            if step.usage != Usage::default() {
                let hour = details.and_then(|details| details.cache_write_1h_tokens);
                let cache_write_1h_tokens = hour.unwrap_or_default().get();
                tokens.push(TokenPart { model, provider, usage: step.usage, prompt_tokens: 0, cache_write_1h_tokens });
            }
        }
        let difference =
            if tokens.is_empty() { UsageSums::default() } else { UsageSums::difference(turn.metrics.usage, &tokens) };
        if tokens.is_empty() && turn.metrics.usage != Usage::default() {
            tokens.push(TokenPart {
                model: turn.model.as_ref(),
                provider: turn.provider.as_ref(),
                usage: turn.metrics.usage,
                prompt_tokens: 0,
                cache_write_1h_tokens: turn.cache_write_1h_tokens.unwrap_or_default().get(),
            });
        }
        // A kernel that counts a prompt without its cached part in one step does so in each of them.
        let leaves_cached_out = tokens.iter().any(|part| part.usage.has_more_cached_than_input());
        for part in &mut tokens {
            let Usage { input_tokens, cache_read_tokens, cache_write_tokens, .. } = part.usage;
            let cached = cache_read_tokens.unwrap_or_default().get() + cache_write_tokens.unwrap_or_default().get();
            let left_out = if leaves_cached_out { cached } else { 0 };
            part.prompt_tokens = i128::from(input_tokens.get()) + i128::from(left_out);
        }
        Self { turn, steps, tokens, difference }
    }

    /// The label of the turn's own row.
    pub(super) fn own_label(&self) -> RollupLabel {
        self.label(self.turn.model.as_ref(), self.turn.provider.as_ref())
    }

    /// The label of a part: its model and provider, with the project and the reason of the turn.
    pub(super) fn label(&self, model: Option<&Label>, provider: Option<&Label>) -> RollupLabel {
        RollupLabel {
            model: model.cloned(),
            provider: provider.cloned(),
            project: self.turn.project.clone(),
            reason: Some(ReasonClass::of(&self.turn.reason)),
        }
    }
}

impl UsageSums {
    /// The sums of one usage.
    pub(super) fn of(usage: &Usage) -> Self {
        let mut sums = Self::default();
        sums.count(usage, 1);
        sums
    }

    fn difference(whole: Usage, steps: &[TokenPart<'_>]) -> Self {
        let mut difference = Self::of(&whole);
        for step in steps {
            difference.count(&step.usage, -1);
        }
        difference
    }

    fn count(&mut self, usage: &Usage, sign: i128) {
        self.input_tokens += sign * i128::from(usage.input_tokens.get());
        self.output_tokens += sign * i128::from(usage.output_tokens.get());
        if let Some(tokens) = usage.cache_read_tokens {
            self.cache_read_tokens += sign * i128::from(tokens.get());
            self.cache_read_reports += sign;
        }
        if let Some(tokens) = usage.cache_write_tokens {
            self.cache_write_tokens += sign * i128::from(tokens.get());
            self.cache_write_reports += sign;
        }
    }

    /// Tokens of the turn that no step accounts for. They have no price: it would depend on the steps.
    pub(super) fn unpriced_tokens(&self) -> i128 {
        self.input_tokens.max(0) + self.output_tokens.max(0)
    }
}

/// The sum of something over the parts of a turn, by their labels: a turn has few.
pub(super) struct ByLabel<T>(Vec<(RollupLabel, T)>);

impl<T: Default> ByLabel<T> {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(1))
    }

    pub(super) fn of(&mut self, label: RollupLabel) -> &mut T {
        let at = self.0.iter().position(|(known, _)| *known == label);
        let at = at.unwrap_or_else(|| {
            self.0.push((label, T::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    pub(super) fn into_vec(self) -> Vec<(RollupLabel, T)> {
        self.0
    }
}
