use std::path::PathBuf;

use super::section::section;

section! {
    /// Where the prices of models come from. When the prices change, the costs of all stored turns are computed anew.
    pub struct PriceSettings in "prices" {
        /// A file of your own prices, which have precedence over the published ones. It has a `[[price]]` for each
        /// model, with the price of a million tokens in dollars, such as `model = "my-model*"`, `provider = "me"`,
        /// `from = 2026-01-01`, `input = 3`, `output = 15`, `cache_read = 0.3`, `cache_write = 3.75`,
        /// `cache_write_1h = 6`. A `*` at the end of a model stands for any rest. The model, `input` and `output` are
        /// required; without `cache_read` and `cache_write`, such tokens cost as much as input. A `[[price.tier]]`
        /// with `above = 200_000` has the prices of steps whose prompt is longer. Empty: none.
        file: Option<PathBuf> = None;

        /// A file of published prices in the format of genai-prices, which replaces the built-in prices. Empty: the
        /// built-in prices.
        data: Option<PathBuf> = None;
    }
}
