//! The time and the zone that a page shows.

use jiff::Span;
use maud::{Markup, html};

use super::charts::chart::Slot;
use super::figure::{input_value, moment, now};
use super::link;
use crate::http::error::ApiError;
use crate::http::resources::api::Api;
use crate::http::resources::query::Query;
use crate::report::{Period, Zone};

/// The spans of time that a link chooses: the value of the parameter `range`, and the name.
const RANGES: [(&str, &str); 5] =
    [("today", "Today"), ("yesterday", "Yesterday"), ("7d", "7 days"), ("30d", "30 days"), ("all", "All time")];

/// The range of a page about a limited time, if its address names none.
const DEFAULT_RANGE: &str = "7d";

/// The length of the longest time that a page shows in periods.
const MAX_YEARS: i64 = 20;

const QUARTER: i64 = 15 * 60 * 1000;
const HOUR: i64 = 4 * QUARTER;
const DAY: i64 = 24 * HOUR;

/// Zones that the form proposes. Every name of a zone is allowed.
const ZONES: [&str; 14] = [
    "UTC",
    "America/Los_Angeles",
    "America/Denver",
    "America/Chicago",
    "America/New_York",
    "America/Sao_Paulo",
    "Europe/London",
    "Europe/Berlin",
    "Europe/Kyiv",
    "Asia/Dubai",
    "Asia/Kolkata",
    "Asia/Shanghai",
    "Asia/Tokyo",
    "Australia/Sydney",
];

/// The time and the zone that a page shows.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) zone: Zone,
    /// The name of the zone, if the reader chose it; else empty.
    named_zone: String,
    /// One of [`RANGES`]; empty if the reader chose days.
    range: &'static str,
    /// The chosen days; empty if the reader chose a range.
    first: String,
    last: String,
    /// The first moment and the moment after the last one, in milliseconds since 1970. `None` for all time.
    pub(crate) bounds: Option<(i64, i64)>,
    /// The moment at which the page is made, in milliseconds since 1970.
    now: i64,
}

impl View {
    /// Reads the parameters `range`, `first`, `last` and `tz` of a query. An empty parameter is an absent one, as forms
    /// send them. `default` is the range if the query names none.
    pub(crate) fn read(api: &Api, query: &Query, default: &'static str) -> Result<Self, ApiError> {
        let given = |name| query.text(name).filter(|text| !text.is_empty());
        let named_zone = given("tz").unwrap_or_default().to_owned();
        let zone = match &*named_zone {
            "" => api.zone.clone(),
            _ => query.zone(api)?,
        };
        let now = i64::try_from(api.clock.now().get()).unwrap_or(i64::MAX);
        // Days that the reader chose outrank a range, but a bad range is told beside them too.
        let range = match given("range") {
            Some(_) => query.choice("range", &RANGES.map(|(range, _)| (range, range)))?.unwrap_or(default),
            None => default,
        };
        if given("first").is_none() && given("last").is_none() {
            return Ok(Self::of_range(zone, named_zone, range, now));
        }
        let today = date_before(now, 0, &zone);
        let day = |name: &'static str, other: &str| {
            let text = given(name).unwrap_or(other).to_owned();
            let bad = || ApiError::BadParameter { name, allowed: "a date such as 2026-01-31".to_owned() };
            Ok::<_, ApiError>((zone.day(&text).ok_or_else(bad)?, text))
        };
        let (last_day, last) = day("last", &today)?;
        let (first_day, first) = day("first", &last)?;
        let bounds = (first_day.start, last_day.end);
        if bounds.1 <= bounds.0 || bounds.1 - bounds.0 > MAX_YEARS * 366 * DAY {
            let allowed = format!("a date that is not before `first`, and at most {MAX_YEARS} years after it");
            return Err(ApiError::BadParameter { name: "last", allowed });
        }
        Ok(Self { zone, named_zone, range: "", first, last, bounds: Some(bounds), now })
    }

    /// Returns the view of a range that ends at the moment `now`, or with the day before it.
    fn of_range(zone: Zone, named_zone: String, range: &'static str, now: i64) -> Self {
        let bounds = bounds_of(range, now, &zone);
        Self { zone, named_zone, range, first: String::new(), last: String::new(), bounds, now }
    }

    /// Reads what is valid of a query: the time, the zone or both. What is not valid is the default.
    pub(crate) fn read_valid(api: &Api, query: &str) -> Self {
        const KEPT: [&[&str]; 3] = [&["range", "first", "last", "tz"], &["range", "first", "last"], &["tz"]];
        let read = |kept| Self::read(api, &Query::read_known(query, kept).ok()?, DEFAULT_RANGE).ok();
        KEPT.into_iter().find_map(read).unwrap_or_else(|| {
            let now = i64::try_from(api.clock.now().get()).unwrap_or(i64::MAX);
            Self::of_range(api.zone.clone(), String::new(), DEFAULT_RANGE, now)
        })
    }

    /// Like [`Self::read`], for a page that cannot show all time.
    pub(crate) fn read_bounded(api: &Api, query: &Query) -> Result<Self, ApiError> {
        let view = Self::read(api, query, DEFAULT_RANGE)?;
        if view.bounds.is_none() {
            let ranges: Vec<_> = RANGES.iter().map(|(range, _)| *range).filter(|range| *range != "all").collect();
            let allowed = format!("one of {} on this page", ranges.join(", "));
            return Err(ApiError::BadParameter { name: "range", allowed });
        }
        Ok(view)
    }

    /// Moves the bounds outward to whole quarters of an hour, as reports do, so that a range ends at the same moment on all
    /// pages.
    pub(crate) fn outward(mut self) -> Self {
        if let Some(Ok(whole)) = self.bounds.map(|(from, to)| Period::around(from, to)) {
            self.bounds = Some((whole.start().start_millis(), whole.end().start_millis()));
        }
        self
    }

    /// Returns the query with which another page shows the same time and zone. All time is left to the one page that
    /// can show it.
    pub(crate) fn query(&self) -> String {
        if self.bounds.is_none() { self.zone_query() } else { self.query_with(&[]) }
    }

    /// Returns the query of the same time and zone, with further parameters.
    pub(crate) fn query_with(&self, more: &[(&str, &str)]) -> String {
        link::query(&[more, &self.parameters()].concat())
    }

    /// Returns the parameters that choose this time and zone.
    pub(crate) fn parameters(&self) -> [(&'static str, &str); 4] {
        [("range", self.range), ("first", &self.first), ("last", &self.last), ("tz", &self.named_zone)]
    }

    /// Returns the query of all time in the same zone, with further parameters.
    pub(crate) fn query_of_all_time(&self, more: &[(&str, &str)]) -> String {
        link::query(&[more, &[("range", "all"), ("tz", &*self.named_zone)]].concat())
    }

    /// Returns the query that chooses only the zone.
    pub(crate) fn zone_query(&self) -> String {
        link::query(&[("tz", &*self.named_zone)])
    }

    /// Returns the query that chooses the zone, and a page of turns before an ordinal.
    pub(crate) fn query_at(&self, before: u64) -> String {
        link::query(&[("before", &before.to_string()), ("tz", &self.named_zone)])
    }

    /// Returns the query for a report on this time.
    pub(crate) fn report_query(&self, bucket: &str, by: &str) -> String {
        let (from, to) = self.bounds.unwrap_or((0, 0));
        let (from, to) = (from.to_string(), to.to_string());
        link::query(&[("from", &*from), ("to", &*to), ("bucket", bucket), ("by", by), ("tz", self.zone.name())])
    }

    /// Returns the bucket that splits the time into a readable number of periods.
    pub(crate) fn bucket(&self) -> Bucket {
        let (from, to) = self.bounds.unwrap_or((0, 0));
        match to - from {
            // Two days, one of which may have 25 hours.
            ..=176_400_000 => Bucket::Hour,
            length if length <= 100 * DAY => Bucket::Day,
            length if length <= 2 * 366 * DAY => Bucket::Week,
            _ => Bucket::Month,
        }
    }

    /// Returns the links and the form that choose the time and the zone. `more` are parameters of the page to keep.
    /// `has_all` says whether the page can show all time.
    pub(crate) fn controls(&self, more: &[(&str, &str)], has_all: bool) -> Markup {
        let ranges = RANGES.into_iter().filter(|(range, _)| has_all || *range != "all");
        html! {
            div class="controls" {
                ul class="ranges" aria-label="Time" {
                    @for (range, name) in ranges {
                        li {
                            a href={ "?" (link::query(&[more, &[("range", range), ("tz", &*self.named_zone)]].concat())) }
                                aria-current=[(self.range == range).then_some("true")] { (name) }
                        }
                    }
                }
                details open[self.range.is_empty()] {
                    summary { "Other days or zone" }
                    form {
                        @for (name, value) in more.iter().filter(|(_, value)| !value.is_empty()) {
                            input type="hidden" name=(name) value=(input_value(value));
                        }
                        label { "First day" input type="date" name="first" value=(self.first); }
                        label { "Last day" input type="date" name="last" value=(self.last); }
                        label {
                            "Time zone" input name="tz" list="zones" value=(self.named_zone) placeholder=(self.zone.name()) autocomplete="off";
                        }
                        datalist id="zones" { @for zone in ZONES { option value=(zone) {} } }
                        // Without days, the form keeps the range.
                        @if !self.range.is_empty() { input type="hidden" name="range" value=(self.range); }
                        button { "Show" }
                    }
                }
                p class="period" {
                    @if let Some((from, to)) = self.bounds {
                        // Reports count whole quarters of an hour, so a time up to now ends a little later.
                        @let is_until_now = to > self.now && to - self.now <= QUARTER;
                        "From " (moment(from, &self.zone)) " to "
                        @if is_until_now { (now(to, &self.zone)) } @else { (moment(to, &self.zone)) }
                        ", "
                    }
                    "zone " strong { (self.zone.name()) }
                }
            }
        }
    }
}

/// Returns the date of the day that is this number of days before a moment.
fn date_before(millis: i64, days: i32, zone: &Zone) -> String {
    let clock = zone.clock(millis);
    let date = clock.and_then(|clock| clock.date().checked_sub(Span::new().days(days)).ok());
    date.map(|date| date.to_string()).unwrap_or_default()
}

/// Returns the bounds of a range. All but `yesterday` end now.
fn bounds_of(range: &str, now: i64, zone: &Zone) -> Option<(i64, i64)> {
    let days_before = match range {
        "today" => 0,
        "yesterday" => 1,
        "7d" => 6,
        "30d" => 29,
        _ => return None,
    };
    // A zone that moved over the date line has no such day. Then the day before it is the first one.
    let first = [days_before, days_before + 1].into_iter().find_map(|days| zone.day(&date_before(now, days, zone)));
    let start = first.map_or(now.saturating_sub(i64::from(days_before) * DAY), |day| day.start);
    let end = first.filter(|_| range == "yesterday").map_or(now.saturating_add(1), |day| day.end);
    Some((start, end))
}

/// The periods of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bucket {
    Hour,
    Day,
    Week,
    Month,
}

impl Bucket {
    /// Returns the name in a query of the API, which is also what people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// Returns how a chart names a period.
    pub(crate) fn slot(self, period: Period, zone: &Zone) -> Slot {
        let start = zone.clock(period.start().start_millis());
        let text = |format: &str| start.map(|start| start.strftime(format).to_string()).unwrap_or_default();
        let (label, name) = match self {
            Self::Hour => (text("%H:%M"), text("%Y-%m-%d %H:%M")),
            Self::Day => (text("%b %-d"), text("%a %Y-%m-%d")),
            Self::Week => (text("%b %-d"), text("week of %Y-%m-%d")),
            Self::Month => (text("%b %Y"), text("%B %Y")),
        };
        Slot { label, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stand_in::StandIn;

    const KNOWN: &[&str] = &["range", "first", "last", "tz"];

    fn api() -> Api {
        StandIn::default().serving().with_time_zone(Zone::named("Europe/Berlin").unwrap())
    }

    fn view(query: &str) -> Result<View, ApiError> {
        View::read(&api(), &Query::read(query, KNOWN).unwrap(), "7d")
    }

    fn dates(view: &View) -> Vec<String> {
        let (from, to) = view.bounds.unwrap();
        [from, to].map(|at| view.zone.clock(at).unwrap().to_string()).to_vec()
    }

    #[actix_web::test]
    async fn days_are_those_of_the_zone_and_include_the_last_one() {
        let chosen = view("first=2026-03-28&last=2026-03-29").unwrap();
        assert_eq!(dates(&chosen), ["2026-03-28T00:00:00", "2026-03-30T00:00:00"]);
        assert_eq!(chosen.query(), "first=2026-03-28&last=2026-03-29");
        let (from, to) = chosen.bounds.unwrap();
        assert_eq!(to - from, 47 * HOUR, "the clocks were put forward");
        let there = view("first=2026-03-28&last=2026-03-29&tz=Asia%2FTokyo&range=").unwrap();
        assert_eq!(there.zone.name(), "Asia/Tokyo");
        assert_eq!(there.query(), "first=2026-03-28&last=2026-03-29&tz=Asia%2FTokyo");
        assert_eq!(dates(&view("first=2026-03-28&last=2026-03-28").unwrap())[1], "2026-03-29T00:00:00");
    }

    #[actix_web::test]
    async fn a_range_ends_now_and_begins_at_midnight() {
        for (range, days) in [("today", 1), ("7d", 7), ("30d", 30)] {
            let view = view(&format!("range={range}&first=&last=&tz=")).unwrap();
            let (from, to) = view.bounds.unwrap();
            assert!(view.zone.clock(from).unwrap().to_string().ends_with("T00:00:00"));
            assert!(to - from <= days * DAY + HOUR && to - from > (days - 1) * DAY - HOUR, "{range}");
            assert_eq!(view.query(), format!("range={range}"));
        }
        let yesterday = view("range=yesterday").unwrap().bounds.unwrap();
        assert_eq!(yesterday.1, view("range=today").unwrap().bounds.unwrap().0, "it ends where today begins");
        assert!((23 * HOUR..=25 * HOUR).contains(&(yesterday.1 - yesterday.0)));
        assert_eq!(view("").unwrap().range, "7d");
        let all = view("range=all&tz=UTC").unwrap();
        assert_eq!((all.bounds, &*all.query(), &*all.query_with(&[])), (None, "tz=UTC", "range=all&tz=UTC"));
    }

    #[actix_web::test]
    async fn a_bad_value_is_answered_with_what_is_allowed() {
        for (query, message) in [
            ("range=1y", "`range` must be one of today, yesterday, 7d, 30d, all"),
            ("range=1y&first=2026-03-01", "`range` must be one of today, yesterday, 7d, 30d, all"),
            ("first=2026-02-30&last=2026-03-01", "`first` must be a date"),
            ("first=x", "`first` must be a date"),
            ("first=2026-03-02&last=2026-03-01", "`last` must be a date that is not before `first`"),
            ("first=1990-01-01&last=2026-03-01", "at most 20 years"),
            ("tz=Mars%2FBase", "`tz` must be the name of a time zone"),
        ] {
            let error = view(query).unwrap_err().to_string();
            assert!(error.contains(message), "{query}: {error}");
        }
    }

    #[actix_web::test]
    async fn what_is_valid_of_a_query_is_kept() {
        for (query, kept) in [
            ("first=2026-03-01&last=2026-03-02&tz=UTC&order=x", "first=2026-03-01&last=2026-03-02&tz=UTC"),
            ("range=30d&tz=Mars", "range=30d"),
            ("range=1y&tz=UTC", "range=7d&tz=UTC"),
            ("first=x&tz=Mars", "range=7d"),
            ("tz=UTC&tz=UTC&range=30d", "range=30d"),
            ("", "range=7d"),
        ] {
            assert_eq!(View::read_valid(&api(), query).query(), kept, "{query}");
        }
    }

    #[actix_web::test]
    async fn a_time_is_split_into_a_readable_number_of_periods() {
        for (query, bucket, slots) in [
            ("first=2026-03-01&last=2026-03-01", Bucket::Hour, 24),
            ("first=2026-10-24&last=2026-10-25", Bucket::Hour, 49),
            ("first=2026-03-01&last=2026-03-31", Bucket::Day, 31),
            ("first=2026-01-01&last=2026-12-31", Bucket::Week, 53),
            ("first=2016-01-01&last=2025-12-31", Bucket::Month, 120),
        ] {
            let view = view(query).unwrap();
            let (from, to) = view.bounds.unwrap();
            let unit = match view.bucket() {
                Bucket::Hour => crate::report::PeriodUnit::Hour,
                Bucket::Day => crate::report::PeriodUnit::Day,
                Bucket::Week => crate::report::PeriodUnit::Week,
                Bucket::Month => crate::report::PeriodUnit::Month,
            };
            let count = view.zone.periods(unit, Period::around(from, to).unwrap()).count();
            assert_eq!((view.bucket(), count), (bucket, slots), "{query}");
        }
    }

    #[actix_web::test]
    async fn a_time_that_ends_in_the_present_quarter_of_an_hour_ends_now() {
        // 2026-05-28T20:26:40Z.
        let api = api().with_clock(std::sync::Arc::new(crate::testing::TestClock::at(1_780_000_000_000)));
        for (query, is_until_now) in [
            ("range=today", true),
            ("range=30d", true),
            ("range=yesterday", false),
            ("first=2026-05-28&last=2026-05-28", false),
        ] {
            let view = View::read(&api, &Query::read(query, KNOWN).unwrap(), "7d").unwrap().outward();
            let html = view.controls(&[], true).into_string();
            let end = "until the end of this quarter of an hour: 2026-05-28 22:30:00.000 Europe/Berlin";
            let now = format!(r#" to <time datetime="2026-05-28T20:30:00Z" title="{end}">now</time>, "#);
            assert_eq!(html.contains(&now), is_until_now, "{query}: {html}");
            assert_eq!(html.contains(">now<"), is_until_now, "{query}: {html}");
        }
    }

    #[actix_web::test]
    async fn the_form_keeps_the_parameters_of_its_page() {
        let html =
            view("range=today").unwrap().controls(&[("prefix", "\"><script>"), ("order", "")], true).into_string();
        assert!(html.contains(r#"<input type="hidden" name="prefix" value="&quot;&gt;&lt;script&gt;">"#), "{html}");
        assert!(html.contains(r#"href="?prefix=%22%3E%3Cscript%3E&amp;range=30d""#), "{html}");
        assert!(!html.contains("order"), "{html}");
    }
}
