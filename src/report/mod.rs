//! Reports on many turns: periods, sums, figures and costs. All of it is pure: no actor, clock or socket.
//!
//! # Words
//!
//! A turn counts at its [report time](report_time), in a [`Quarter`] of an hour of UTC. Reports count the **parts** of
//! a turn. Each step that reported tokens is a part, for the model of the step. The usage of the turn beyond the sum of
//! its steps is another part, for the model of the turn. [`Rollup::of_turn`] and [`Cost::of_turn`] return what a turn
//! adds to the sums, by the [`RollupLabel`]s of its parts.
//!
//! # From turns to a report
//!
//! A store keeps rows of sums. A row stands for a [`Level`], a start and a label. When the store first writes a turn,
//! it adds the turn's parts to one row of each level. A report splits its time into the [periods](Zone::periods) of a
//! zone, [covers](Level::cover) each period with few rows, and adds the rows to a [`Breakdown`]. At the end,
//! [`Figures`] are computed from each row's sums. So no figure is an average of figures.
//!
//! # Invariants
//!
//! - All sums are whole numbers. They add and subtract exactly, in any order. So the rows of a report by hour add up to
//!   those of a report by day, and the rows by model add up to the total.
//! - The tokens of all parts of a turn sum to the turn's usage, counter by counter.
//! - The smallest and the largest value of a distribution cover every turn that was ever counted. Subtracting a turn
//!   does not change them.
//! - The price of a step is rounded once. Tokens without a price are counted as unpriced; their price is never taken as
//!   0.
//!
//! # Files
//!
//! The time:
//!
//! - `quarter`: quarters of an hour, and periods of them.
//! - `level`: the length of time that a row covers.
//! - `zone`: time zones and their calendars.
//!
//! From a turn to a report:
//!
//! - `part`: splits a turn into its parts.
//! - `label`: the properties that the parts in a row share, and by which a report is grouped.
//! - `histogram`: counts on an exponential scale, and percentiles.
//! - `rollup`: sums over turns.
//! - `cost`: money, and the cost of turns by the prices of a given price book.
//! - `contribution`: everything that a turn adds, both to reports and to the sums of its conversation.
//! - `breakdown`: the rows of a report.
//! - `figures`: the numbers that a report computes from sums.
//! - `plausible`: the limits of sums that come from outside.
//!
//! Beside that:
//!
//! - `price`: a price book of published prices and an operator's own prices (feature `prices`).
//! - `throughput`: Dispatch's report on throughput (feature `server`).
//! - `properties`: property tests over generated turns.

mod breakdown;
mod contribution;
mod cost;
mod figures;
mod histogram;
mod label;
mod level;
mod part;
mod plausible;
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
#[cfg(feature = "server")]
pub(crate) use cost::as_text as dollars_as_text;
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
