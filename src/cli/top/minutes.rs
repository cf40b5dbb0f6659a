//! The turns of the last minutes, minute by minute, by their report times. Pure.

use std::collections::BTreeMap;

use crate::cli::figures::sum_of_costs;
use crate::report::{CostFigures, PicoDollars};
use crate::turn::Usage;

/// How many minutes are kept.
pub(super) const WINDOW: i64 = 60;

pub(super) const MINUTE_MS: i64 = 60_000;

/// The sums over the turns of one minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Minute {
    pub(super) turns: u64,
    /// The tokens of the prompts and of the output.
    pub(super) tokens: i128,
    /// The costs that are known.
    pub(super) cost: CostFigures,
    /// How many turns have a cost that has not come from the server.
    pub(super) uncosted: u64,
}

/// The mean of a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mean {
    pub(super) minutes: i64,
    /// How many turns the minutes have, all together.
    pub(super) turns: u64,
    pub(super) tokens: i128,
    pub(super) cost: CostFigures,
    pub(super) uncosted: u64,
}

/// The minutes of the window. A minute in which this program did not follow the server is unknown, and has no sums.
#[derive(Debug)]
pub(super) struct Minutes {
    /// The minutes that have a turn, by their number since 1970.
    with_turns: BTreeMap<i64, Minute>,
    /// The moment from which on every turn is known, in milliseconds since 1970.
    since: i64,
    /// The moment up to which every turn is known; `None` while turns are followed.
    until: Option<i64>,
}

impl Minute {
    fn empty() -> Self {
        Self { turns: 0, tokens: 0, cost: sum_of_costs([]), uncosted: 0 }
    }
}

impl Minutes {
    /// Returns minutes of which the turns from `now` on are known.
    pub(super) fn since(now: i64) -> Self {
        Self { with_turns: BTreeMap::new(), since: now, until: None }
    }

    /// Notes that the turns after `now` are not known, until [`Self::resume`] is called.
    pub(super) fn pause(&mut self, now: i64) {
        self.until.get_or_insert(now);
    }

    /// Notes that turns are followed again. Those sealed meanwhile are still added.
    pub(super) fn resume(&mut self) {
        self.until = None;
    }

    /// Adds a turn whose cost is not known yet. Returns the minute in which it counts; `None` if that is not in the
    /// window. A kernel's clock may be fast, so a turn of the future counts now.
    pub(super) fn add(&mut self, report_time: i64, usage: Usage, now: i64) -> Option<i64> {
        let at = report_time.min(now).div_euclid(MINUTE_MS);
        self.with_turns = self.with_turns.split_off(&first(now));
        if at < first(now) {
            return None;
        }
        let minute = self.with_turns.entry(at).or_insert_with(Minute::empty);
        minute.turns += 1;
        minute.tokens += i128::from(usage.input_tokens.get()) + i128::from(usage.output_tokens.get());
        minute.uncosted += 1;
        Some(at)
    }

    /// Adds the cost of a turn that was added before.
    pub(super) fn add_cost(&mut self, at: i64, cost: &CostFigures) {
        if let Some(minute) = self.with_turns.get_mut(&at) {
            minute.cost = sum_of_costs([&minute.cost, cost]);
            minute.uncosted = minute.uncosted.saturating_sub(1);
        }
    }

    /// Returns the latest minutes, the present one last. `None` stands for a minute that is not known.
    pub(super) fn latest(&self, count: i64, now: i64) -> Vec<Option<Minute>> {
        let last = now.div_euclid(MINUTE_MS);
        (last + 1 - count.min(WINDOW)..=last).map(|at| self.at(at)).collect()
    }

    fn at(&self, at: i64) -> Option<Minute> {
        let is_known =
            at >= self.since.div_euclid(MINUTE_MS) && self.until.is_none_or(|until| at < until.div_euclid(MINUTE_MS));
        is_known.then(|| self.with_turns.get(&at).cloned().unwrap_or_else(Minute::empty))
    }

    /// Returns the mean of the whole minutes of the window; `None` if none is known from its beginning to its end.
    pub(super) fn mean(&self, now: i64) -> Option<Mean> {
        let present = now.div_euclid(MINUTE_MS);
        let first = first(now).max((self.since + MINUTE_MS - 1).div_euclid(MINUTE_MS));
        let end = self.until.map_or(present, |until| until.div_euclid(MINUTE_MS)).min(present);
        let minutes = end - first;
        if minutes <= 0 {
            return None;
        }
        let whole: Vec<_> = self.with_turns.range(first..end).map(|(_, minute)| minute).collect();
        let mut cost = sum_of_costs(whole.iter().map(|minute| &minute.cost));
        cost.usd = cost.usd.map(|usd| PicoDollars::new(usd.get() / i128::from(minutes)));
        let tokens = whole.iter().map(|minute| minute.tokens).sum::<i128>() / i128::from(minutes);
        let turns = whole.iter().map(|minute| minute.turns).sum();
        Some(Mean { minutes, turns, tokens, cost, uncosted: whole.iter().map(|minute| minute.uncosted).sum() })
    }
}

/// Returns the first minute of the window.
fn first(now: i64) -> i64 {
    now.div_euclid(MINUTE_MS) + 1 - WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::TokenCount;

    fn usage(input: u32, output: u32) -> Usage {
        Usage { input_tokens: input.into(), output_tokens: output.into(), ..Usage::default() }
    }

    fn cost(usd: i128) -> CostFigures {
        CostFigures { usd: Some(PicoDollars::new(usd)), ..sum_of_costs([]) }
    }

    /// 2026-11-26T14:00:00Z
    const BEGIN: i64 = 1_795_701_600_000;

    fn tokens(minutes: &Minutes, count: i64, now: i64) -> Vec<Option<i128>> {
        minutes.latest(count, now).into_iter().map(|minute| minute.map(|minute| minute.tokens)).collect()
    }

    #[test]
    fn a_turn_counts_in_the_minute_of_its_report_time() {
        let now = BEGIN + 3 * MINUTE_MS + 5_000;
        let mut minutes = Minutes::since(BEGIN);
        minutes.add(BEGIN, usage(1, 1), now);
        minutes.add(BEGIN + MINUTE_MS - 1, usage(10, 0), now);
        minutes.add(BEGIN + MINUTE_MS, usage(100, 0), now);
        minutes.add(BEGIN + 9 * MINUTE_MS, usage(1000, 0), now);
        assert_eq!(tokens(&minutes, 4, now), [Some(12), Some(100), Some(0), Some(1000)]);
        assert_eq!(minutes.latest(4, now)[0].as_ref().unwrap().turns, 2);
        assert_eq!(minutes.add(BEGIN - WINDOW * MINUTE_MS, usage(1, 1), now), None, "long ago");
    }

    #[test]
    fn minutes_that_nobody_followed_are_unknown_and_not_empty() {
        let mut minutes = Minutes::since(BEGIN + 30_000);
        let now = BEGIN + 2 * MINUTE_MS;
        assert_eq!(tokens(&minutes, 4, now), [None, Some(0), Some(0), Some(0)]);
        minutes.pause(now);
        minutes.pause(now + 5 * MINUTE_MS);
        let now = now + 2 * MINUTE_MS;
        assert_eq!(tokens(&minutes, 4, now), [Some(0), None, None, None], "the minute of the loss is not whole");
        assert_eq!(minutes.mean(now).unwrap().minutes, 1);
        minutes.resume();
        minutes.add(now - MINUTE_MS, usage(7, 0), now);
        assert_eq!(tokens(&minutes, 4, now), [Some(0), Some(0), Some(7), Some(0)]);
    }

    #[test]
    fn the_window_has_a_fixed_length() {
        let mut minutes = Minutes::since(BEGIN);
        for minute in 0..WINDOW * 3 {
            let now = BEGIN + minute * MINUTE_MS;
            minutes.add(now, usage(1, 0), now);
        }
        let now = BEGIN + (WINDOW * 3 - 1) * MINUTE_MS;
        assert_eq!(minutes.with_turns.len(), 60);
        assert_eq!(tokens(&minutes, 1000, now), [Some(1); 60]);
    }

    #[test]
    fn a_mean_is_over_whole_minutes() {
        let mut minutes = Minutes::since(BEGIN + 1);
        assert_eq!(minutes.mean(BEGIN + MINUTE_MS * 2 - 1), None, "the first minute is not whole");
        for (minute, input) in [(0, 1000), (1, 3), (3, 6), (4, 1000)] {
            let at = BEGIN + minute * MINUTE_MS + 1;
            let counts_in = minutes.add(at, usage(input, 0), at).unwrap();
            minutes.add_cost(counts_in, &cost(i128::from(input) * 10));
        }
        let mean = minutes.mean(BEGIN + 4 * MINUTE_MS + 2).unwrap();
        assert_eq!((mean.minutes, mean.tokens, mean.cost), (3, 3, cost(30)));
        let few = BEGIN + 10 * MINUTE_MS;
        let mean = minutes.mean(few).unwrap();
        assert_eq!((mean.minutes, mean.turns), (9, 3));
        let mut minutes = Minutes::since(BEGIN);
        minutes.add(BEGIN, usage(1, 0), BEGIN);
        let mean = minutes.mean(few).unwrap();
        assert_eq!((mean.tokens, mean.turns, mean.uncosted), (0, 1, 1), "the cost is unknown, and not 0");
    }

    #[test]
    fn a_cost_that_has_not_come_is_told_and_one_that_comes_later_is_added() {
        let mut minutes = Minutes::since(BEGIN);
        let at = minutes.add(BEGIN, usage(1, 0), BEGIN).unwrap();
        minutes.add(BEGIN, usage(1, 0), BEGIN);
        let of = |minutes: &Minutes| minutes.latest(1, BEGIN)[0].clone().unwrap();
        assert_eq!((of(&minutes).cost.usd, of(&minutes).uncosted), (None, 2));
        minutes.add_cost(at, &cost(5));
        minutes.add_cost(at - 1, &cost(100));
        assert_eq!((of(&minutes).cost, of(&minutes).uncosted), (cost(5), 1));
    }

    #[test]
    fn the_largest_counts_are_summed() {
        let mut minutes = Minutes::since(BEGIN);
        let most = Usage { input_tokens: TokenCount::MAX, ..Usage::default() };
        minutes.add(BEGIN, most, BEGIN);
        minutes.add(BEGIN, most, BEGIN);
        assert_eq!(tokens(&minutes, 1, BEGIN), [Some(2 * i128::from(TokenCount::MAX.get()))]);
    }
}
