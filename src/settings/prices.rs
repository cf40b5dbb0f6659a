use std::path::PathBuf;

use super::section::section;

section! {
    /// Where the prices of models come from. When they change, the costs of all stored turns are derived anew.
    pub struct PriceSettings in "prices" {
        /// A file of your own prices, which win over the published ones: `[[price]]` with the model, perhaps its provider
        /// and `from` when, and dollars a million tokens for input, output and the cache. Empty: none.
        file: Option<PathBuf> = None;

        /// A file of published prices in the format of genai-prices, in place of those that are built in. Empty: those.
        data: Option<PathBuf> = None;
    }
}
