use std::path::PathBuf;

use super::section::section;

section! {
    /// Where the prices of models come from. When the prices change, the costs of all stored turns are computed anew.
    pub struct PriceSettings in "prices" {
        /// A file of your own prices, which have precedence over the published ones. It has a `[[price]]` for each
        /// model: the model, optionally its provider and a start date `from`, and the price of a million tokens in
        /// dollars for input, output and the cache. Empty: none.
        file: Option<PathBuf> = None;

        /// A file of published prices in the format of genai-prices, which replaces the built-in prices. Empty: the
        /// built-in prices.
        data: Option<PathBuf> = None;
    }
}
