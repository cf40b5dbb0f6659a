use serde::{Deserialize, Serialize};

use super::TokenCount;

/// The tokens of a step or a turn, as a front-end shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Tokens of the whole prompt, including cached ones.
    pub input_tokens: TokenCount,
    /// Tokens that the model wrote.
    pub output_tokens: TokenCount,
    /// Prompt tokens that were read from the provider's cache; `None` if not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<TokenCount>,
    /// Prompt tokens that were written to the provider's cache; `None` if not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<TokenCount>,
}

impl Usage {
    /// Returns the sum of two usages. A cache counter is present if either has it; each counter saturates at
    /// [`TokenCount::MAX`].
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_read_tokens: add_reported(self.cache_read_tokens, other.cache_read_tokens),
            cache_write_tokens: add_reported(self.cache_write_tokens, other.cache_write_tokens),
        }
    }

    /// Returns the sum of prompt and output: the number of tokens of the model's context window that are in use after
    /// the step.
    pub fn context_size(self) -> TokenCount {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// Returns whether the cache counters together exceed the prompt. Then the kernel counts the prompt without its
    /// cached part.
    pub fn has_more_cached_than_input(self) -> bool {
        let cached = self.cache_read_tokens.unwrap_or_default();
        // The sum of two counts is below 2^54.
        cached.get() + self.cache_write_tokens.unwrap_or_default().get() > self.input_tokens.get()
    }
}

fn add_reported(a: Option<TokenCount>, b: Option<TokenCount>) -> Option<TokenCount> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (one, None) | (None, one) => one,
    }
}

/// The tokens of a step or a turn as one event reports them. Any counter may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UsageReport {
    /// Tokens of the whole prompt, including cached ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<TokenCount>,
    /// Tokens that the model wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<TokenCount>,
    /// Prompt tokens that were read from the provider's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<TokenCount>,
    /// Prompt tokens that were written to the provider's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<TokenCount>,
    /// The part of `cache_write_tokens` with a lifetime of an hour, which costs more.
    #[serde(rename = "cacheWrite1hTokens", skip_serializing_if = "Option::is_none")]
    pub cache_write_1h_tokens: Option<TokenCount>,
}

impl From<Usage> for UsageReport {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: Some(usage.input_tokens),
            output_tokens: Some(usage.output_tokens),
            cache_read_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            cache_write_1h_tokens: None,
        }
    }
}

impl UsageReport {
    /// Joins two reports of the same step or turn: each counter becomes the larger of the two. A counter that only one
    /// report has is kept.
    ///
    /// Providers report a prompt first and a cumulative output later. A sum of the reports would count tokens twice,
    /// and the last report alone would lack the prompt. A join avoids both, in whatever order and however often the
    /// reports arrive.
    ///
    /// ```
    /// # use turn_metrics::turn::UsageReport;
    /// let prompt = UsageReport { input_tokens: Some(900.into()), ..UsageReport::default() };
    /// let output = UsageReport { output_tokens: Some(120.into()), ..UsageReport::default() };
    /// let step = UsageReport { output_tokens: Some(120.into()), ..prompt };
    /// assert_eq!(prompt.join(output), step);
    /// assert_eq!(output.join(prompt).join(prompt), step);
    /// ```
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        // `None` orders before every `Some`.
        self.by_counter(other, Ord::max)
    }

    /// Returns the sum of the reports of two steps. A counter is present if either report has it; each counter
    /// saturates at [`TokenCount::MAX`].
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        self.by_counter(other, add_reported)
    }

    fn by_counter(
        self,
        other: Self,
        each: impl Fn(Option<TokenCount>, Option<TokenCount>) -> Option<TokenCount>,
    ) -> Self {
        Self {
            input_tokens: each(self.input_tokens, other.input_tokens),
            output_tokens: each(self.output_tokens, other.output_tokens),
            cache_read_tokens: each(self.cache_read_tokens, other.cache_read_tokens),
            cache_write_tokens: each(self.cache_write_tokens, other.cache_write_tokens),
            cache_write_1h_tokens: each(self.cache_write_1h_tokens, other.cache_write_1h_tokens),
        }
    }

    /// Returns whether the report has neither an input nor an output counter. Such a report is ignored, even if it has
    /// cache counters: a provider that reported nothing must not erase earlier reports.
    pub fn is_silent(&self) -> bool {
        self.input_tokens.is_none() && self.output_tokens.is_none()
    }

    /// Returns whether any counter is more than 0.
    pub(super) fn is_positive(&self) -> bool {
        let Self { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens } = self;
        [input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens]
            .into_iter()
            .any(|count| count.is_some_and(|count| count > TokenCount::ZERO))
    }

    /// Returns this report, with a missing input or output counter taken from `known`.
    pub(super) fn or_unsaid(self, known: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.or(known.input_tokens),
            output_tokens: self.output_tokens.or(known.output_tokens),
            ..self
        }
    }

    /// Returns the usage as it is shown: a missing input or output counter is 0.
    pub fn usage(self) -> Usage {
        Usage {
            input_tokens: self.input_tokens.unwrap_or_default(),
            output_tokens: self.output_tokens.unwrap_or_default(),
            cache_read_tokens: self.cache_read_tokens,
            cache_write_tokens: self.cache_write_tokens,
        }
    }
}

/// All reports of one step or turn, joined. Final reports replace the reports that are not final.
///
/// Some providers end with a report that is lower than their first one, and the last one is right. Joining the two
/// kinds separately keeps the result commutative, associative and idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct UsageReports {
    /// The join of the reports that are not final; `None` if there are none.
    pub interim: Option<UsageReport>,
    /// The join of the final reports; `None` if there are none.
    pub finals: Option<UsageReport>,
}

impl UsageReports {
    /// Adds a report. A report without input and output tokens changes nothing.
    pub fn take(&mut self, report: UsageReport, is_final: bool) {
        if !report.is_silent() {
            let known = if is_final { &mut self.finals } else { &mut self.interim };
            *known = Some(known.map_or(report, |known| known.join(report)));
        }
    }

    /// Returns the combined report, or `None` without reports. If the final reports lack an input or output counter,
    /// the other reports supply it.
    pub fn joined(&self) -> Option<UsageReport> {
        match (self.interim, self.finals) {
            (Some(interim), Some(finals)) => Some(finals.or_unsaid(interim)),
            (one, None) | (None, one) => one,
        }
    }
}
