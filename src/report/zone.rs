use std::fmt;

use jiff::civil::Date;
#[cfg(feature = "server")]
use jiff::civil::DateTime;
#[cfg(feature = "server")]
use jiff::tz::Offset;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp};

use super::quarter::{Period, Quarter};

/// The length of the periods of a report. All but quarters follow the clock and the calendar of a [`Zone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeriodUnit {
    /// A quarter of an hour.
    Quarter,
    /// An hour by the zone's clock. A change of the zone's offset ends the hour early, so no hour is longer than 60
    /// minutes.
    Hour,
    /// A day of the zone. It has 23 or 25 hours if the clocks are changed.
    Day,
    /// A week of the zone, from Monday.
    Week,
    /// A month of the zone.
    Month,
    /// One period: the whole time of the report.
    All,
}

/// A time zone of the IANA database. It decides when a day begins.
///
/// Zones come from the system's database, or from the one in the crate `jiff` if the system has none of that name.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// No time zone has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no time zone is named `{0}`; one has a name such as `Europe/Berlin` or `UTC`")]
pub struct UnknownZone(String);

impl Zone {
    /// The zone of Coordinated Universal Time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// Looks a zone up by its name, such as `Europe/Berlin`.
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        let found = TimeZone::get(name).or_else(|_| TimeZoneDatabase::bundled().get(name));
        found.map(Self).map_err(|_| UnknownZone(name.to_owned()))
    }

    /// Reads a moment and returns it in milliseconds since 1970. The text may be a date, which stands for its first
    /// moment in the zone, or milliseconds since 1970, or RFC 3339 with an offset. Returns `None` for any other text.
    pub fn moment(&self, text: &str) -> Option<i64> {
        let day = || Some(self.day(text)?.start);
        let rfc_3339 = || Some(text.parse::<Timestamp>().ok()?.as_millisecond());
        day().or_else(|| text.parse().ok()).or_else(rfc_3339)
    }

    /// Returns the date and time in the zone at a moment in milliseconds since 1970. Returns `None` if the moment is
    /// outside the years of the calendar.
    #[cfg(feature = "server")]
    pub(crate) fn clock(&self, millis: i64) -> Option<DateTime> {
        Some(self.0.to_datetime(Timestamp::from_millisecond(millis).ok()?))
    }

    /// Returns the offset from UTC at a moment, if the zone's clock shows this time twice because the clock is put
    /// back.
    #[cfg(feature = "server")]
    pub(crate) fn offset_if_repeated(&self, millis: i64) -> Option<Offset> {
        let at = Timestamp::from_millisecond(millis).ok()?;
        let offset = self.0.to_ambiguous_timestamp(self.0.to_datetime(at)).offset();
        matches!(offset, AmbiguousOffset::Fold { .. }).then(|| self.0.to_offset(at))
    }

    /// Returns the name of the zone.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// Splits `whole` into the periods of the zone's calendar, in order and without a gap. The first and the last
    /// period are cut to the part within `whole`.
    ///
    /// A boundary in the middle of a quarter is moved to the start of that quarter.
    ///
    /// ```
    /// use turn_metrics::report::{Period, PeriodUnit, Zone};
    ///
    /// let zone = Zone::named("Europe/Berlin")?;
    /// let march = zone.month("2026-03").unwrap();
    /// let whole = Period::around(march.start, march.end)?;
    /// let days = zone.periods(PeriodUnit::Day, whole).map(|day| day.end().get() - day.start().get());
    /// // The clocks were put forward on the 29th.
    /// assert!(days.eq((1..=31).map(|day| if day == 29 { 4 * 23 } else { 4 * 24 })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn periods(&self, unit: PeriodUnit, whole: Period) -> impl Iterator<Item = Period> {
        let mut start = whole.start();
        std::iter::from_fn(move || {
            (start < whole.end()).then_some(())?;
            let end = self.boundary_after(unit, start).map_or(whole.end(), |end| end.min(whole.end()));
            // The bounds are within `whole`, and the period is not empty.
            let period = Period::new(start, end).ok()?;
            start = end;
            Some(period)
        })
    }

    /// Returns the first boundary of a unit after the start of a quarter. `None` if there is none.
    fn boundary_after(&self, unit: PeriodUnit, quarter: Quarter) -> Option<Quarter> {
        let at = Timestamp::from_millisecond(quarter.start_millis()).ok()?;
        let of = |moment: Timestamp| Quarter::of_millis(moment.as_millisecond());
        match unit {
            PeriodUnit::Quarter => Some(Quarter::new(quarter.get() + 1)),
            PeriodUnit::All => None,
            PeriodUnit::Hour => {
                let mut moment = at;
                while of(moment) <= quarter {
                    moment = self.next_hour(moment)?;
                }
                Some(of(moment))
            }
            PeriodUnit::Day | PeriodUnit::Week | PeriodUnit::Month => {
                let mut date = first_date(unit, self.0.to_datetime(at).date())?;
                let mut boundary = quarter;
                // If the clock was put back over midnight, or a day is missing, the next day may have begun already. So
                // look further.
                while boundary <= quarter {
                    date = next_date(unit, date)?;
                    boundary = of(self.start_of(date)?);
                }
                Some(boundary)
            }
        }
    }

    /// Returns the next full hour by the clock, or the next change of the offset if that comes first.
    fn next_hour(&self, moment: Timestamp) -> Option<Timestamp> {
        const HOUR: i64 = 3600;
        let offset = self.0.to_offset(moment);
        let local = moment.as_second() + i64::from(offset.seconds());
        let full = Timestamp::from_second(moment.as_second() + HOUR - local.rem_euclid(HOUR)).ok()?;
        let change = self.0.following(moment).next().filter(|change| change.offset() != offset);
        Some(change.map_or(full, |change| change.timestamp().min(full)))
    }

    /// Returns the first moment of a date: midnight, or the first moment after it if midnight is skipped. If midnight
    /// comes twice, returns the earlier one.
    fn start_of(&self, date: Date) -> Option<Timestamp> {
        let midnight = self.0.to_ambiguous_timestamp(date.at(0, 0, 0, 0));
        let is_skipped = matches!(midnight.offset(), AmbiguousOffset::Gap { .. });
        let start = midnight.compatible().ok()?;
        if !is_skipped {
            return Some(start);
        }
        // `start` is as long after the change of the clocks as the skipped midnight would have been after it. The
        // change itself is the first moment of the date.
        let change = self.0.preceding(start.checked_add(Span::new().seconds(1)).ok()?).next()?;
        Some(change.timestamp())
    }

    /// Returns the day `YYYY-MM-DD`. `None` if the text is not a date of the years 0100 to 9998, or the zone has no
    /// such day.
    pub fn day(&self, date: &str) -> Option<CalendarPeriod> {
        let date = self.existing(read_date(date)?)?;
        self.calendar_period(date, date.tomorrow().ok()?)
    }

    /// Returns the week, from Monday, that contains the day `YYYY-MM-DD`. `None` as for [`Zone::day`].
    pub fn week(&self, date: &str) -> Option<CalendarPeriod> {
        let monday = first_date(PeriodUnit::Week, self.existing(read_date(date)?)?)?;
        self.calendar_period(monday, next_date(PeriodUnit::Week, monday)?)
    }

    /// Returns the month `YYYY-MM`. `None` if the text is not a month of the years 0100 to 9998.
    pub fn month(&self, month: &str) -> Option<CalendarPeriod> {
        let first = read_date(&format!("{month}-01"))?;
        self.calendar_period(first, next_date(PeriodUnit::Month, first)?)
    }

    /// Returns the date if the zone's calendar has it. A zone that moved over the date line skipped a date.
    fn existing(&self, date: Date) -> Option<Date> {
        (self.0.to_datetime(self.start_of(date)?).date() == date).then_some(date)
    }

    fn calendar_period(&self, first: Date, after: Date) -> Option<CalendarPeriod> {
        let millis = |date| Some(self.start_of(date)?.as_millisecond());
        Some(CalendarPeriod { start: millis(first)?, end: millis(after)? })
    }
}

/// A day, a week or a month of a zone: a half-open range that is exact to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalendarPeriod {
    /// The first moment of the period in milliseconds since 1970; negative before 1970.
    pub start: i64,
    /// The first moment after the period.
    pub end: i64,
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({:?})", self.name())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns the first date of the day, week or month that contains a date.
fn first_date(unit: PeriodUnit, date: Date) -> Option<Date> {
    match unit {
        PeriodUnit::Week => {
            let since_monday = i64::from(date.weekday().to_monday_zero_offset());
            date.checked_sub(Span::new().days(since_monday)).ok()
        }
        PeriodUnit::Month => Some(date.first_of_month()),
        _ => Some(date),
    }
}

/// Returns the first date of the next day, week or month.
fn next_date(unit: PeriodUnit, first: Date) -> Option<Date> {
    let length = match unit {
        PeriodUnit::Week => Span::new().weeks(1),
        PeriodUnit::Month => Span::new().months(1),
        _ => Span::new().days(1),
    };
    first.checked_add(length).ok()
}

/// Reads a date of exactly the form `YYYY-MM-DD`, in the years 0100 to 9998.
fn read_date(text: &str) -> Option<Date> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let is_whole = (year.len(), month.len(), day.len(), parts.next()) == (4, 2, 2, None);
    let year = number(year).filter(|year| is_whole && (100..=9998).contains(year))?;
    Date::new(year, number(month)?.try_into().ok()?, number(day)?.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(moment: &str) -> i64 {
        moment.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn zone(name: &str) -> Zone {
        Zone::named(name).unwrap()
    }

    /// Returns the periods between two moments: the start of each, and its number of quarters.
    fn periods(zone_name: &str, unit: PeriodUnit, from: &str, to: &str) -> Vec<(String, i64)> {
        let whole = Period::around(millis(from), millis(to)).unwrap();
        let zone = zone(zone_name);
        let periods = zone.periods(unit, whole).map(|period| {
            let start = Timestamp::from_millisecond(period.start().start_millis()).unwrap();
            (start.to_string(), period.end().get() - period.start().get())
        });
        periods.collect()
    }

    fn is(start: &str, quarters: i64) -> (String, i64) {
        (start.to_owned(), quarters)
    }

    #[test]
    fn a_zone_is_known_by_its_name_alone() {
        assert_eq!(zone("Asia/Kolkata").to_string(), "Asia/Kolkata");
        assert_eq!(Zone::UTC.name(), "UTC");
        for name in ["Mars/Olympus", "", "+02:00"] {
            assert_eq!(Zone::named(name).unwrap_err(), UnknownZone(name.to_owned()));
        }
    }

    #[test]
    fn a_moment_is_a_date_of_the_zone_or_milliseconds_or_rfc_3339() {
        let berlin = zone("Europe/Berlin");
        for (text, moment) in [
            ("2026-05-01", Some(millis("2026-04-30T22:00Z"))),
            ("1780000000000", Some(1_780_000_000_000)),
            ("-5", Some(-5)),
            ("2026-05-01T00:00:00Z", Some(millis("2026-05-01T00:00Z"))),
            ("2026-05-01T00:00:00+02:00", Some(millis("2026-04-30T22:00Z"))),
            ("2026-05-01T00:00:00", None),
            ("2026-02-30", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(berlin.moment(text), moment, "{text}");
        }
    }

    #[test]
    fn days_have_23_or_25_hours_at_a_change_of_the_clocks() {
        use PeriodUnit::Day;
        assert_eq!(
            periods("Europe/Berlin", Day, "2026-03-28T00:00Z", "2026-03-30T12:00Z"),
            [
                is("2026-03-28T00:00:00Z", 4 * 23), // cut at what was asked for
                is("2026-03-28T23:00:00Z", 4 * 23),
                is("2026-03-29T22:00:00Z", 4 * 14), // cut too
            ]
        );
        assert_eq!(
            periods("America/New_York", Day, "2026-11-01T04:00Z", "2026-11-02T05:00Z"),
            [is("2026-11-01T04:00:00Z", 4 * 25)]
        );
        // The offset changes by half an hour.
        assert_eq!(
            periods("Australia/Lord_Howe", Day, "2026-04-04T13:00Z", "2026-04-05T13:30Z"),
            [is("2026-04-04T13:00:00Z", 4 * 24 + 2)]
        );
    }

    #[test]
    fn a_day_without_midnight_begins_at_its_first_moment() {
        use PeriodUnit::Day;
        assert_eq!(
            periods("America/Sao_Paulo", Day, "2015-10-17T03:00Z", "2015-10-19T02:00Z"),
            [is("2015-10-17T03:00:00Z", 4 * 24), is("2015-10-18T03:00:00Z", 4 * 23)]
        );
        // The clock goes from 23:30 to 00:30.
        assert_eq!(
            periods("America/Toronto", Day, "1919-03-30T05:00Z", "1919-04-01T04:00Z"),
            [is("1919-03-30T05:00:00Z", 4 * 23 + 2), is("1919-03-31T04:30:00Z", 4 * 23 + 2)]
        );
        // The clock goes from 00:01 back to 23:01 of the day before. The day begins at the first of its two midnights.
        assert_eq!(
            periods("America/St_Johns", Day, "2010-11-06T02:30Z", "2010-11-08T03:30Z"),
            [is("2010-11-06T02:30:00Z", 4 * 24), is("2010-11-07T02:30:00Z", 4 * 25)]
        );
    }

    #[test]
    fn a_day_that_a_zone_skipped_is_no_period() {
        assert_eq!(
            periods("Pacific/Apia", PeriodUnit::Day, "2011-12-29T10:00Z", "2011-12-31T10:00Z"),
            [is("2011-12-29T10:00:00Z", 4 * 24), is("2011-12-30T10:00:00Z", 4 * 24)]
        );
        let apia = zone("Pacific/Apia");
        assert_eq!((apia.day("2011-12-30"), apia.week("2011-12-30")), (None, None));
        assert_eq!(
            apia.day("2011-12-31"),
            Some(CalendarPeriod { start: millis("2011-12-30T10:00Z"), end: millis("2011-12-31T10:00Z") })
        );
    }

    #[test]
    fn an_hour_is_one_of_the_zones_clock() {
        use PeriodUnit::Hour;
        assert_eq!(
            periods("Asia/Kolkata", Hour, "2026-06-01T00:00Z", "2026-06-01T02:00Z"),
            [is("2026-06-01T00:00:00Z", 2), is("2026-06-01T00:30:00Z", 4), is("2026-06-01T01:30:00Z", 2)]
        );
        assert_eq!(
            periods("Asia/Kathmandu", Hour, "2026-06-01T00:15Z", "2026-06-01T01:15Z"),
            [is("2026-06-01T00:15:00Z", 4)]
        );
        // The hour that the clock shows twice counts as two hours.
        assert_eq!(
            periods("Europe/Berlin", Hour, "2026-10-25T00:00Z", "2026-10-25T02:00Z"),
            [is("2026-10-25T00:00:00Z", 4), is("2026-10-25T01:00:00Z", 4)]
        );
        assert_eq!(
            periods("Australia/Lord_Howe", Hour, "2026-04-04T14:00Z", "2026-04-04T16:30Z"),
            [is("2026-04-04T14:00:00Z", 4), is("2026-04-04T15:00:00Z", 2), is("2026-04-04T15:30:00Z", 4)]
        );
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        assert_eq!(
            periods("UTC", PeriodUnit::Week, "2026-01-01T00:00Z", "2026-01-20T00:00Z"),
            [
                is("2026-01-01T00:00:00Z", 96 * 4),
                is("2026-01-05T00:00:00Z", 96 * 7),
                is("2026-01-12T00:00:00Z", 96 * 7),
                is("2026-01-19T00:00:00Z", 96),
            ]
        );
        assert_eq!(
            periods("Europe/Berlin", PeriodUnit::Month, "2026-02-28T23:00Z", "2026-04-30T22:00Z"),
            [is("2026-02-28T23:00:00Z", 96 * 31 - 4), is("2026-03-31T22:00:00Z", 96 * 30)]
        );
    }

    #[test]
    fn a_boundary_within_a_quarter_counts_at_its_start() {
        // Berlin's local time was 53 minutes and 28 seconds ahead of UTC, so its midnight came at 23:06:32 UTC.
        assert_eq!(
            periods("Europe/Berlin", PeriodUnit::Day, "1880-05-01T23:00Z", "1880-05-03T23:00Z"),
            [is("1880-05-01T23:00:00Z", 96), is("1880-05-02T23:00:00Z", 96)]
        );
        assert_eq!(
            periods("Europe/Berlin", PeriodUnit::Hour, "1880-05-01T23:00Z", "1880-05-02T01:00Z"),
            [is("1880-05-01T23:00:00Z", 4), is("1880-05-02T00:00:00Z", 4)]
        );
        // A period of the calendar is exact to the millisecond.
        let day = zone("Europe/Berlin").day("1880-05-02").unwrap();
        assert_eq!(day.start, millis("1880-05-01T23:06:32Z"));
    }

    #[test]
    fn the_years_100_to_9998_have_days_weeks_and_months() {
        for name in ["UTC", "Pacific/Apia", "Pacific/Kiritimati", "Pacific/Midway", "America/New_York"] {
            let zone = zone(name);
            for (year, is_known) in [("0099", false), ("0100", true), ("9998", true), ("9999", false), ("0000", false)]
            {
                for day in ["01-01", "12-31"] {
                    let date = format!("{year}-{day}");
                    let found = [zone.day(&date), zone.week(&date), zone.month(&date[..7])];
                    for period in found {
                        assert_eq!(period.is_some(), is_known, "{date} in {name}");
                        if let Some(period) = period {
                            let period = Period::around(period.start, period.end).unwrap();
                            assert_eq!(
                                zone.periods(PeriodUnit::Quarter, period).next().unwrap().start(),
                                period.start()
                            );
                        }
                    }
                }
            }
        }
    }

    fn any_zone() -> impl Strategy<Value = Zone> {
        // Use the list within `jiff`, so that a failing test fails on every machine.
        let names: Vec<_> = TimeZoneDatabase::bundled().available().map(|name| name.to_string()).collect();
        proptest::sample::select(names).prop_map(|name| zone(&name))
    }

    proptest! {
        #[test]
        fn the_periods_of_every_zone_have_each_quarter_once(
            zone in any_zone(),
            unit in proptest::sample::select(vec![
                PeriodUnit::Quarter, PeriodUnit::Hour, PeriodUnit::Day, PeriodUnit::Week, PeriodUnit::Month, PeriodUnit::All,
            ]),
            start in prop_oneof![-4_000_000i64..4_000_000, Quarter::FIRST.get()..Quarter::LAST.get()],
            length in 1i64..5_000,
        ) {
            let end = (start + length).min(Quarter::LAST.get());
            let whole = Period::new(Quarter::new(start), Quarter::new(end)).unwrap();
            let mut at = whole.start();
            for period in zone.periods(unit, whole) {
                prop_assert_eq!(period.start(), at);
                prop_assert!(!period.is_empty());
                at = period.end();
            }
            prop_assert_eq!(at, whole.end());
        }

        /// All quarters of a day have the date that the clock shows in them, except for a quarter that two dates share.
        #[test]
        fn the_days_of_every_zone_are_its_dates(zone in any_zone(), start in -4_000_000i64..4_000_000) {
            let whole = Period::new(Quarter::new(start), Quarter::new(start + 500)).unwrap();
            for day in zone.periods(PeriodUnit::Day, whole).skip(1) {
                let date = |quarter: i64| {
                    let last = Timestamp::from_millisecond(Quarter::new(quarter).start_millis() + Quarter::MILLIS - 1);
                    zone.0.to_datetime(last.unwrap()).date()
                };
                // Two dates may share the last quarter. The first quarter belongs to the day that begins in it.
                let (first, last) = (date(day.start().get()), date(day.end().get() - 1));
                let is_one = first == last || zone.0.following(
                    Timestamp::from_millisecond(day.start().start_millis()).unwrap(),
                ).next().is_some_and(|change| change.timestamp().as_millisecond() < day.end().start_millis());
                prop_assert!(is_one, "{zone}: {first} to {last}");
            }
        }
    }
}
