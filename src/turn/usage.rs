use serde::{Deserialize, Serialize};

use super::TokenCount;

/// The tokens of a step or a turn, as a model's provider reported them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Tokens of the whole prompt, cached ones included.
    pub input_tokens: TokenCount,
    /// Tokens that the model wrote.
    pub output_tokens: TokenCount,
    /// Those of the prompt that were read from the provider's cache; `None` if nobody reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<TokenCount>,
    /// Those of the prompt that were written to the provider's cache; `None` if nobody reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<TokenCount>,
}

impl Usage {
    /// Joins two reports of the same thing: each counter becomes the larger of the two, and a counter that only one
    /// reports is that one's.
    ///
    /// Providers report a prompt first and a cumulative output later: adding them counts twice, keeping the last
    /// loses the prompt. A join does neither, in whatever order and however often the reports come.
    ///
    /// ```
    /// # use turn_metrics::turn::Usage;
    /// let prompt = Usage { input_tokens: 900.into(), output_tokens: 1.into(), ..Usage::default() };
    /// let output = Usage { output_tokens: 120.into(), ..Usage::default() };
    /// let step = Usage { input_tokens: 900.into(), output_tokens: 120.into(), ..Usage::default() };
    /// assert_eq!(prompt.join(output), step);
    /// assert_eq!(output.join(prompt).join(prompt), step);
    /// ```
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.max(other.input_tokens),
            output_tokens: self.output_tokens.max(other.output_tokens),
            // `None` orders before every `Some`.
            cache_read_tokens: self.cache_read_tokens.max(other.cache_read_tokens),
            cache_write_tokens: self.cache_write_tokens.max(other.cache_write_tokens),
        }
    }

    /// The sum of two different things. A cache counter is present if at least one of them has it; each counter
    /// stays at [`TokenCount::MAX`] where it would pass it.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_read_tokens: add_reported(self.cache_read_tokens, other.cache_read_tokens),
            cache_write_tokens: add_reported(self.cache_write_tokens, other.cache_write_tokens),
        }
    }

    /// Prompt and output together: how much of the model's context window is taken after the step.
    pub fn context_size(self) -> TokenCount {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

fn add_reported(a: Option<TokenCount>, b: Option<TokenCount>) -> Option<TokenCount> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (one, None) | (None, one) => one,
    }
}
