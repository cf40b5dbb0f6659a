use std::time::Duration;

use super::section::section;

section! {
    /// How long turns are kept.
    pub struct RetentionSettings in "retention" {
        /// Turns that were sealed longer ago are dropped: "forever", or a duration such as "90d". They are dropped in the
        /// order of their conversation, step by step beside the traffic, about a hundredth of this time late, at most an
        /// hour. Ordinals are not given again, and reports and lists keep the tokens and the costs. A clock that is more
        /// than a day ahead of the running time since it was last right stops this, until it is set right or has gone on
        /// for a day of running time; so does a stop of the service for more than a day.
        turns: Option<Duration> = None;
    }
}
