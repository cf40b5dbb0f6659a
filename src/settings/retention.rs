use std::time::Duration;

use super::section::section;

section! {
    /// How long turns are kept.
    pub struct RetentionSettings in "retention" {
        /// How long turns are kept after they were sealed: "forever", or a duration such as "90d". Older turns are
        /// dropped in the background, in the order of their conversation. They are searched for every hundredth of this
        /// time, and at least every hour. Ordinals are not given again, and reports keep the tokens and the costs. If a
        /// dropped turn is sent again, it is stored as a new turn. Nothing is dropped while costs are computed anew.
        /// Nothing is dropped either if the clock has jumped ahead by more than a day, or if the service was stopped for
        /// more than a day: dropping goes on when the clock is set right, or after a day of running time.
        turns: Option<Duration> = None;
    }
}
