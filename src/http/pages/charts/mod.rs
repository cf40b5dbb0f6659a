//! Charts as SVG. All of it is pure: from numbers to markup.
//!
//! A chart is as wide as its place: positions across are in percent and positions down are in pixels, so that text
//! keeps its size on a phone. Colours, lines and sizes of text are in the style sheet, because the content security
//! policy of the pages allows no styles in the markup. The pages show the numbers of each chart as a table too.
//!
//! - `scale`: the values of an axis, with round ticks.
//! - `chart`: what a chart shows, and the frame around it.
//! - `bars`: stacked bars.
//! - `lines`: one line for each series.
//! - `waterfall`: the times of a turn, step below step.
//! - `meter`: one value as a short bar, for the cell of a table.
//! - `samples`: what the tests of charts share.

pub(crate) mod bars;
pub(crate) mod chart;
pub(crate) mod lines;
pub(crate) mod meter;
#[cfg(test)]
mod samples;
pub(crate) mod scale;
pub(crate) mod waterfall;
