//! Retention: the guard against clocks, which keeps a wrong clock from dropping turns. Pure, so that all engines can
//! share it.
//!
//! Turns are dropped by their age, and the age depends on the clock of the host. A clock that jumps ahead by a year would
//! make every turn old. So the store keeps a moment at which the clock was right, and the running time at that moment.
//! Since then the clock may have gained a day more than the running time. If it has gained more, either the clock is
//! wrong or the service was stopped for long, and nobody can tell which. Then nothing is dropped until the clock has gone
//! on evenly for a day of running time, in which an operator has time to set it right.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::turn::{EpochMillis, RunningTime};

/// How much more than the running time the clock may gain, and how long a clock that has gained more is not trusted.
const MARGIN_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// A moment by the clock of the host and by the running time of the store, both in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    clock: u64,
    running: u64,
}

impl Moment {
    pub(crate) fn new(clock: EpochMillis, running: RunningTime) -> Self {
        Self { clock: clock.get(), running: running.get() }
    }

    /// Returns by how many milliseconds the clock has gained on the running time since an earlier moment.
    fn gained_since(self, earlier: Self) -> u64 {
        let running = self.running.saturating_sub(earlier.running);
        self.clock.saturating_sub(earlier.clock.saturating_add(running))
    }
}

/// What the store knows of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrustedClock {
    /// The last moment at which the clock was trusted.
    trusted: Moment,
    /// The moment at which it was first found too far ahead since.
    suspected: Option<Moment>,
}

impl TrustedClock {
    /// Returns what is known at the first look if the latest turn was sealed at `sealed_at`: at that moment, the clock was
    /// trusted. `None` without a turn.
    pub(crate) fn since(sealed_at: EpochMillis, now: Moment) -> Option<Self> {
        let trusted = Moment { clock: sealed_at.get(), ..now };
        (trusted.clock > 0).then_some(Self { trusted, suspected: None })
    }

    /// Looks at the clock. `before` is what was known before; without that, the clock is trusted. Returns what is known now,
    /// and by how much the clock is ahead if it is not trusted.
    pub(crate) fn look(before: Option<Self>, now: Moment) -> (Self, Option<Duration>) {
        let trusting = (Self { trusted: now, suspected: None }, None);
        let Some(Self { trusted, suspected }) = before else { return trusting };
        let gained = now.gained_since(trusted);
        if gained <= MARGIN_MILLIS {
            // A clock behind the time that was trusted does not change what is trusted. Otherwise its return would look
            // like a jump ahead.
            let is_behind = now.clock < trusted.clock;
            return if is_behind { (Self { trusted, suspected: None }, None) } else { trusting };
        }
        // A clock that has jumped again is suspected anew.
        let since = suspected.filter(|since| now.gained_since(*since) <= MARGIN_MILLIS && now.clock >= since.clock);
        match since {
            Some(since) if now.running.saturating_sub(since.running) >= MARGIN_MILLIS => trusting,
            since => {
                let suspected = Some(since.unwrap_or(now));
                (Self { trusted, suspected }, Some(Duration::from_millis(gained)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 60 * 60 * 1000;

    fn at(clock: u64, running: u64) -> Moment {
        Moment { clock, running }
    }

    /// Looks at these moments one after the other. Returns whether the clock was trusted at each.
    fn looks(moments: &[(u64, u64)]) -> Vec<bool> {
        let mut known = None;
        let look = |(clock, running): &(u64, u64)| {
            let (next, ahead) = TrustedClock::look(known, at(*clock, *running));
            known = Some(next);
            ahead.is_none()
        };
        moments.iter().map(look).collect()
    }

    #[test]
    fn a_clock_that_has_jumped_by_more_than_a_day_is_trusted_after_a_day_of_running_time() {
        let month = 30 * 24 * HOUR;
        let seen = looks(&[
            (HOUR, 0),
            (2 * HOUR, HOUR),
            (month, 2 * HOUR),
            (month + HOUR, 3 * HOUR),
            (month + 23 * HOUR, 25 * HOUR),
            (month + 24 * HOUR, 26 * HOUR),
            (month + 25 * HOUR, 27 * HOUR),
        ]);
        assert_eq!(seen, [true, true, false, false, false, true, true]);
    }

    #[test]
    fn a_clock_that_is_set_right_is_trusted_at_once_and_a_second_jump_begins_anew() {
        let month = 30 * 24 * HOUR;
        assert_eq!(
            looks(&[(0, 0), (month, HOUR), (2 * HOUR, 2 * HOUR), (3 * HOUR, 3 * HOUR)]),
            [true, false, true, true]
        );
        let jumps = [(0, 0), (month, HOUR), (3 * month, 20 * HOUR), (3 * month + 6 * HOUR, 26 * HOUR)];
        assert_eq!(looks(&jumps), [true, false, false, false], "six hours after the second jump");
    }

    #[test]
    fn a_clock_that_was_behind_may_come_back_and_small_steps_are_trusted() {
        assert_eq!(looks(&[(900 * HOUR, 0), (HOUR, HOUR), (902 * HOUR, 2 * HOUR)]), [true, true, true]);
        assert_eq!(looks(&[(0, 0), (24 * HOUR, 0), (48 * HOUR, 0), (72 * HOUR + 1, 0)]), [true, true, true, false]);
    }

    #[test]
    fn the_first_look_compares_the_clock_with_the_latest_turn() {
        let look = |sealed_at: u64, now: Moment| {
            TrustedClock::look(TrustedClock::since(EpochMillis::new(sealed_at), now), now).1.is_none()
        };
        let now = at(1000 * HOUR, HOUR);
        assert_eq!([0, 999 * HOUR, 976 * HOUR, 975 * HOUR].map(|sealed| look(sealed, now)), [true, true, true, false]);
    }

    proptest! {
        #[test]
        fn a_trusted_clock_has_gained_a_day_at_most_or_has_gone_on_evenly_for_a_day(
            steps in proptest::collection::vec((0..60u64, 0..40u64), 1..40),
        ) {
            let (mut known, mut clock, mut running) = (None::<TrustedClock>, 0, 0);
            let mut seen: Vec<Moment> = Vec::new();
            for (by_clock, by_running) in steps {
                clock += by_clock * HOUR;
                running += by_running * HOUR;
                let now = at(clock, running);
                let (next, ahead) = TrustedClock::look(known, now);
                if let (Some(before), None) = (known, ahead) {
                    let is_even = seen.iter().any(|then| {
                        now.running - then.running >= MARGIN_MILLIS && now.gained_since(*then) <= MARGIN_MILLIS
                    });
                    prop_assert!(now.gained_since(before.trusted) <= MARGIN_MILLIS || is_even);
                }
                seen.push(now);
                known = Some(next);
            }
        }
    }
}
