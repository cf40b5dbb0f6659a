//! Splits a turn into the parts that reports count.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::label::{ReasonClass, RollupLabel};
use crate::turn::{EpochMillis, Label, StepDetails, StepMetrics, StoredTurn, Usage};

/// Returns the moment at which a turn counts in reports: when it ended by its kernel's clock, or else when it was
/// sealed.
pub fn report_time(turn: &StoredTurn) -> EpochMillis {
    turn.ended_at.unwrap_or(turn.sealed_at)
}

/// The reported tokens of a step, or of a turn whose steps reported none.
pub(super) struct TokenPart<'a> {
    pub(super) model: Option<&'a Label>,
    pub(super) provider: Option<&'a Label>,
    pub(super) usage: Usage,
    /// The tokens of the whole prompt. Cached tokens are included, even if the kernel leaves them out of the input.
    pub(super) prompt_tokens: i128,
    /// Those tokens of the cache writes that were written for an hour.
    pub(super) cache_write_1h_tokens: u64,
}

/// The steps of a turn, each with its model. Every step counts as a step, and its times count, whether or not it
/// reported tokens.
pub(super) struct StepPart<'a> {
    pub(super) model: Option<&'a Label>,
    pub(super) provider: Option<&'a Label>,
    pub(super) step: &'a StepMetrics,
}

/// Sums of usage counters. A cache counter may be absent from a usage, so the sums also count how often it was
/// reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct UsageSums {
    pub(super) input_tokens: i128,
    pub(super) output_tokens: i128,
    pub(super) cache_read_tokens: i128,
    pub(super) cache_read_reports: i128,
    pub(super) cache_write_tokens: i128,
    pub(super) cache_write_reports: i128,
}

/// A turn, split into its parts.
pub(super) struct Parts<'a> {
    pub(super) turn: &'a StoredTurn,
    pub(super) steps: Vec<StepPart<'a>>,
    pub(super) tokens: Vec<TokenPart<'a>>,
    /// The turn's usage minus the sum of its steps, counter by counter. A number may be negative. The number of reports
    /// of a cache counter is one if the turn reported it, minus one for each step that reported it. So over all parts
    /// of a turn, the reports add up to one if the turn's usage has the counter, else to zero.
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
            // A step that reported nothing has only zeros.
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
        // If a kernel leaves the cached tokens out of the prompt in one step, it does so in all of them.
        let leaves_cached_out = tokens.iter().any(|part| part.usage.has_more_cached_than_input());
        for part in &mut tokens {
            let Usage { input_tokens, cache_read_tokens, cache_write_tokens, .. } = part.usage;
            let cached = cache_read_tokens.unwrap_or_default().get() + cache_write_tokens.unwrap_or_default().get();
            let left_out = if leaves_cached_out { cached } else { 0 };
            part.prompt_tokens = i128::from(input_tokens.get()) + i128::from(left_out);
        }
        Self { turn, steps, tokens, difference }
    }

    /// Returns the label of the turn itself: its model, provider and project, and the class of its reason.
    pub(super) fn own_label(&self) -> RollupLabel {
        self.label(self.turn.model.as_ref(), self.turn.provider.as_ref())
    }

    /// Returns the label of a part: the part's model and provider, and the turn's project and class of reason.
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
    /// Returns the counters of one usage as sums.
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

    /// Returns how many tokens of the turn no step accounts for. They have no price, because a price depends on the
    /// step.
    pub(super) fn unpriced_tokens(&self) -> i128 {
        self.input_tokens.max(0) + self.output_tokens.max(0)
    }
}

/// The sums over the parts of a turn, by label. Each step may have a label of its own.
pub(super) struct ByLabel<T> {
    rows: IndexMap<RollupLabel, T>,
    /// The place of the label that was asked for last. Most parts of a turn have the label of the part before, and comparing
    /// two labels is faster than looking one up.
    last: usize,
}

impl<T: Default> ByLabel<T> {
    pub(super) fn new() -> Self {
        Self { rows: IndexMap::with_capacity(1), last: 0 }
    }

    pub(super) fn of(&mut self, label: RollupLabel) -> &mut T {
        if self.rows.get_index(self.last).is_none_or(|(known, _)| *known != label) {
            let entry = self.rows.entry(label);
            self.last = entry.index();
            entry.or_default();
        }
        &mut self.rows[self.last]
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.rows.values()
    }

    pub(super) fn into_vec(self) -> Vec<(RollupLabel, T)> {
        self.rows.into_iter().collect()
    }
}
