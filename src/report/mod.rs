//! Reports on many turns: periods, sums, figures and costs. Pure values, with no actor, clock or socket in sight.
//!
//! # Words
//!
//! A turn counts at its [report time](report_time), in a [`Quarter`] of an hour of UTC. It counts by **parts**: each step
//! that reported tokens counts for the model of the step, and what the turn's usage has beyond the sum of its steps counts
//! for the model of the turn. [`Rollup::of_turn`] and [`Cost::of_turn`] return what a turn adds, by the [`RollupLabel`]s of
//! its parts.
//!
//! # From turns to a report
//!
//! A store keeps the sums by [`Level`], start and label, and adds the parts of a turn to one row of each level when it first
//! writes the turn. A report splits its time into the [periods](Zone::periods) of a zone, [covers](Level::cover) each by few
//! rows, and adds those to a [`Breakdown`]. [`Figures`] are computed at the end, once for each row: no figure is an average
//! of figures.
//!
//! # Invariants
//!
//! - All sums are whole numbers, and add and subtract exactly in any order. So a report by hour adds up to the one by day,
//!   and a report by model to the total.
//! - The tokens of all parts of a turn sum to the turn's usage, counter by counter.
//! - The smallest and the largest value of a distribution cover every turn that was ever counted; nothing takes them back.
//! - A price is rounded once, for each step. What has no price is counted, and never 0.
//!
//! # Files
//!
//! - `quarter`: quarters of an hour, and periods of them.
//! - `level`: how long a row covers.
//! - `zone`: calendars.
//! - `label`: the properties that the parts of a row share, and by which a report is grouped.
//! - `histogram`: counts on an exponential scale, and percentiles.
//! - `part`: a turn, taken apart.
//! - `rollup`: sums over turns.
//! - `figures`: the numbers that a report computes from sums.
//! - `cost`: money, and what turns cost by a price book that is handed in.
//! - `contribution`: everything that a turn adds, to reports and to the sums of its conversation.
//! - `breakdown`: the rows of a report.
//! - `throughput`: Dispatch's report on throughput (feature `server`).
//! - `price`: a price book of published prices and an operator's own (feature `prices`).
//! - `properties`: property tests over generated turns.

mod breakdown;
mod contribution;
mod cost;
mod figures;
mod histogram;
mod label;
mod level;
mod part;
#[cfg(feature = "prices")]
pub mod price;
#[cfg(test)]
mod properties;
mod quarter;
mod rollup;
#[cfg(feature = "server")]
mod throughput;
mod zone;

pub use breakdown::{Breakdown, BreakdownRow};
pub(crate) use contribution::Contribution;
pub use contribution::ConversationSums;
pub use cost::{
    Cost, CostFigures, NoPrices, PicoDollars, PriceBook, PriceEdition, PricedStep, QuotedRates, SharedPriceBook,
};
pub use figures::{Figures, Percentiles, UsageSums, retention};
pub use label::{Grouping, ReasonClass, RollupLabel, Selection};
pub use level::Level;
pub use part::report_time;
pub use quarter::{InvalidPeriod, Period, Quarter};
pub use rollup::Rollup;
#[cfg(feature = "server")]
pub use throughput::{InvalidThroughputQuery, Throughput, ThroughputQuery, ThroughputReport};
pub use zone::{CalendarPeriod, PeriodUnit, UnknownZone, Zone};
