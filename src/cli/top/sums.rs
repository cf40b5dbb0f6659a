//! The sums that the server answers: of today, and of the last hour, as a whole and by model.

use jiff::fmt::rfc2822;

use super::minutes::{MINUTE_MS, WINDOW};
use crate::cli::answers::ReportAnswer;
use crate::cli::client::{Client, ClientError, Query};
use crate::cli::output::plain_json;
use crate::clock::{Clock, SystemClock};
use crate::report::{PicoDollars, Zone};

/// Clocks that differ by less than this are taken as equal. The server tells its time in whole seconds.
const SAME_TIME_MS: i64 = 2000;

/// Answers of `GET /stats`.
#[derive(Debug)]
pub(super) struct Sums {
    /// The moment at which they were asked for, by the server's clock.
    pub(super) asked_at: i64,
    /// How far the server's clock is ahead of the clock of this computer, in milliseconds.
    pub(super) ahead_ms: i64,
    /// The zone whose day is meant.
    pub(super) zone: Zone,
    /// One row at most, as of `hour`.
    pub(super) today: ReportAnswer,
    pub(super) hour: ReportAnswer,
    /// The rows of the models in the same hour, the dearest first.
    pub(super) models: ReportAnswer,
    /// All of them as JSON on one line.
    pub(super) json: String,
}

/// The time of this computer.
pub(super) fn local_now() -> i64 {
    i64::try_from(SystemClock.now().get()).unwrap_or(i64::MAX)
}

impl Sums {
    /// Asks the server. Its day is that of `zone`, or else of the server's own zone.
    pub(super) fn ask(client: &Client, zone: Option<&Zone>) -> Result<Self, ClientError> {
        let ahead_ms = client.date()?.and_then(|date| ahead_ms(&date, local_now())).unwrap_or_default();
        let now = local_now().saturating_add(ahead_ms);
        let query =
            Query::default().with("bucket", Some("all")).with("from", Some(now - WINDOW * MINUTE_MS)).with("tz", zone);
        let (hour_json, hour) = client.ask::<ReportAnswer>("/stats", &query)?;
        let (models_json, mut models) = client.ask::<ReportAnswer>("/stats", &query.with("by", Some("model")))?;
        // A server may know a zone that this system does not.
        let zone = zone.cloned().or_else(|| Zone::named(&hour.time_zone).ok()).unwrap_or(Zone::UTC);
        let date = zone.clock(now).map(|clock| clock.strftime("%Y-%m-%d").to_string());
        let query = Query::default().with("bucket", Some("all")).with("from", date).with("tz", Some(&zone));
        let (today_json, today) = client.ask("/stats", &query)?;
        models.rows.sort_by_key(|row| {
            let tokens = row.usage.input_tokens.saturating_add(row.usage.output_tokens);
            std::cmp::Reverse((row.cost.usd.map(PicoDollars::get), tokens))
        });
        let json = format!(
            r#"{{"at":{now},"today":{},"lastHour":{},"lastHourByModel":{}}}"#,
            on_one_line(&today_json),
            on_one_line(&hour_json),
            on_one_line(&models_json)
        );
        Ok(Self { asked_at: now, ahead_ms, zone, today, hour, models, json })
    }
}

/// Returns how far a clock that shows `date` is ahead of one that shows `now`.
fn ahead_ms(date: &str, now: i64) -> Option<i64> {
    let date = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?.as_millisecond();
    let ahead = date.saturating_sub(now);
    Some(if ahead.abs() < SAME_TIME_MS { 0 } else { ahead })
}

/// A line break between two values of a JSON text has no meaning.
fn on_one_line(json: &str) -> String {
    plain_json(&json.replace(['\r', '\n'], " "))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{HOUR, MODELS, TODAY};
    use super::*;
    use crate::cli::testing::{Script, answer};

    #[test]
    fn the_servers_clock_counts_if_it_differs() {
        let at = 1_795_701_600_000;
        for (now, ahead) in [(at, 0), (at + 1999, 0), (at - 1999, 0), (at + 2000, -2000), (at - 7_200_000, 7_200_000)] {
            assert_eq!(ahead_ms("Thu, 26 Nov 2026 14:00:00 GMT", now), Some(ahead));
        }
        assert_eq!(ahead_ms("soon", at), None);
    }

    #[test]
    fn the_questions_are_by_the_clock_and_the_zone_of_the_server() {
        let dated = "HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2026 23:30:00 GMT\r\nContent-Length: 2\r\n\r\n{}";
        let script = Script::play(vec![
            Some(dated.to_owned()),
            answer(200, HOUR),
            answer(200, MODELS),
            answer(200, &TODAY.replace(',', ",\r\n")),
        ]);
        let sums = Sums::ask(&Client::new(script.url()), None).unwrap();
        let requests: Vec<_> =
            script.requests().iter().map(|request| request.lines().next().unwrap().to_owned()).collect();
        // The clock of this computer has gone on by some milliseconds since the server was asked for its time.
        let from = sums.asked_at - WINDOW * MINUTE_MS;
        assert_eq!(
            requests,
            [
                "GET /health HTTP/1.1".to_owned(),
                format!("GET /stats?bucket=all&from={from} HTTP/1.1"),
                format!("GET /stats?bucket=all&from={from}&by=model HTTP/1.1"),
                "GET /stats?bucket=all&from=2026%2D11%2D27&tz=Europe%2FBerlin HTTP/1.1".to_owned(),
            ]
        );
        let models: Vec<_> = sums.models.rows.iter().map(|row| row.model.as_ref().unwrap().as_str()).collect();
        assert_eq!(models, ["dear", "cheap", "unpriced"]);
        assert!(!sums.json.contains(['\r', '\n']), "{}", sums.json);
        let json: serde_json::Value = serde_json::from_str(&sums.json).unwrap();
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(json["at"], sums.asked_at);
        assert_eq!(json["today"], parsed(TODAY));
        assert_eq!((&json["lastHour"], &json["lastHourByModel"]), (&parsed(HOUR), &parsed(MODELS)));
    }
}
