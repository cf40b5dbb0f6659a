//! `POST /events`

use actix::MailboxError;
use actix_web::body::MessageBody;
use actix_web::web::{Data, Payload, Query};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use futures_util::{StreamExt, stream};
use indexmap::IndexMap;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::api::Api;
use super::parts::in_parts;
use crate::actors::{Observe, ObserveError, Receipt, TurnReceipt};
use crate::deceptive::plain;
use crate::http::acknowledged::{Acknowledged, Refused, SealedHere};
use crate::http::error::{ApiError, Unavailable};
use crate::http::intake::body::{Body, overloaded};
use crate::http::intake::body_events::{BadLines, BodyEvents, ConversationEvents};
use crate::http::intake::budget::Denied;
use crate::http::intake::refused::{MAX_NAMED, RefusedLines};
use crate::settings::{CONVERSATIONS_AT_ONCE, TURNS_AT_ONCE};
use crate::store::FaultKind;
use crate::turn::ConversationId;

/// Takes posted events in, and answers when they are durable.
pub(crate) async fn post(api: Data<Api>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    if api.handles.intake.load.is_full() {
        return Err(overloaded());
    }
    let bad_lines = asked_of_bad_lines(request.query_string())?;
    let read = Body::read(&request, payload, &api.settings, &api.budget, &api.long_work, bad_lines);
    let Body { events, mut reservation } = read.await?;
    let BodyEvents { accepted, ignored, conversations, refused } = events;
    // The receipts of many short turns take more memory than the events.
    let turns: usize = conversations.values().map(|of_one| of_one.events.turns()).sum();
    let bytes = reservation.bytes().saturating_add(turns.saturating_mul(RECEIPT_BYTES));
    reservation.resize(bytes).map_err(|denied| match denied {
        Denied::Exhausted => overloaded(),
        Denied::TooLarge => ApiError::TooManyTurns,
    })?;
    let combined = observe(&api, conversations).await?;
    combined.log();
    let answer = match combined.answer(accepted, ignored, refused, bad_lines) {
        Ok(acknowledged) => HttpResponse::Ok().json(acknowledged),
        Err(error) => error.error_response(),
    };
    // The receipts of many turns are as large as their events, so hold memory for the answer until the client has read
    // it.
    Ok(answer.map_body(|_, body| match body.try_into_bytes() {
        Ok(bytes) => {
            // Shrinking cannot fail, as the answer is no larger than the memory that was held for the events.
            let _ = reservation.resize(bytes.len());
            in_parts(bytes, reservation)
        }
        Err(body) => body,
    }))
}

/// Returns how the query wants bad lines to be handled.
fn asked_of_bad_lines(query: &str) -> Result<BadLines, ApiError> {
    let wrong = || ApiError::BadRequest("the query parameter `bad` must be `skip` or absent");
    let Query(parameters) = Query::<Vec<(String, String)>>::from_query(query).map_err(|_| wrong())?;
    let mut asked = BadLines::Refuse;
    for (_, value) in parameters.iter().filter(|(name, _)| name == "bad") {
        if value != "skip" {
            return Err(wrong());
        }
        asked = BadLines::Skip;
    }
    Ok(asked)
}

/// The receipts of all conversations of a request, combined.
#[derive(Default)]
struct CombinedReceipt {
    sealed: Vec<SealedHere>,
    late: u64,
    warnings: Vec<String>,
    /// The conversations over a limit.
    refused: Vec<Refused>,
    refused_events: u64,
}

impl CombinedReceipt {
    fn take(&mut self, conversation_id: &ConversationId, receipt: Receipt) {
        let Receipt { sealed, late, warnings } = receipt;
        self.late += late;
        self.sealed.extend(sealed.into_iter().map(|turn| {
            let TurnReceipt { turn_id, ordinal, duplicate } = turn;
            SealedHere { conversation_id: conversation_id.clone(), turn_id, ordinal, duplicate }
        }));
        let room = MAX_NAMED.saturating_sub(self.warnings.len());
        let warnings = warnings.iter().take(room);
        self.warnings.extend(warnings.map(|warning| format!("conversation `{conversation_id}`: {warning}")));
    }

    /// Logs how many turns were sealed. They may be very many, so their own lines have the level debug.
    fn log(&self) {
        let sealed = self.sealed.iter().filter(|turn| !turn.duplicate).count();
        if sealed > 0 {
            info!(sealed, "turns sealed");
        }
    }

    fn answer(
        self,
        accepted: u64,
        ignored: u64,
        mut refused: RefusedLines,
        bad_lines: BadLines,
    ) -> Result<Acknowledged, ApiError> {
        let Self { sealed, late, warnings, refused: conversations, refused_events } = self;
        let over_limit = conversations.first().map(|first| {
            let rest = "Events of other conversations may have been taken in, and sending them again is safe";
            format!("{}. {rest}", first.error)
        });
        // The warnings about turns without a refused line come first, because only this answer can report them.
        let mut told = refused.warnings(&sealed);
        told.extend(warnings);
        told.truncate(MAX_NAMED);
        refused.add_conversations(conversations);
        let RefusedLines { mut named, count, .. } = refused;
        // These texts quote ids and lines. The fields with ids are exact.
        for text in told.iter_mut().chain(named.iter_mut().map(|refused| &mut refused.error)) {
            *text = plain(text);
        }
        let is_told = bad_lines == BadLines::Skip || over_limit.is_some();
        let acknowledged = Acknowledged {
            accepted: accepted.saturating_sub(refused_events),
            ignored,
            late,
            sealed,
            warnings: told,
            refused: is_told.then_some(named),
            refused_count: is_told.then_some(count),
        };
        match over_limit {
            Some(message) if bad_lines == BadLines::Refuse => {
                Err(ApiError::Refused { message, rest: Box::new(acknowledged) })
            }
            _ => Ok(acknowledged),
        }
    }
}

/// The approximate memory of a turn's receipt while it is built and sent.
const RECEIPT_BYTES: usize = 256;

/// Sends the events to their conversations and combines the receipts.
///
/// If one conversation fails, the events of the others are still sent. A client that is told to send again does so
/// until every event is durable, except for the events of conversations over a limit.
async fn observe(
    api: &Api,
    conversations: IndexMap<ConversationId, ConversationEvents>,
) -> Result<CombinedReceipt, ApiError> {
    let permits = &Semaphore::new(TURNS_AT_ONCE);
    let mut answers = stream::iter(conversations)
        .map(|(conversation_id, ConversationEvents { first_line, events })| async move {
            let turns = u32::try_from(events.turns().min(TURNS_AT_ONCE)).unwrap_or(u32::MAX);
            let _permit = permits.acquire_many(turns).await;
            let (count, ends) = (events.len() as u64, events.ends().clone());
            let observe = Observe { conversation_id: conversation_id.clone(), events: events.into_vec().await };
            (conversation_id, first_line, count, ends, api.handles.intake.observe.send(observe).await)
        })
        .buffered(CONVERSATIONS_AT_ONCE);
    let mut combined = CombinedReceipt::default();
    let (mut unavailable, mut damaged) = (None, None);
    while let Some((conversation_id, line, events, ends, answer)) = answers.next().await {
        match receipt(answer) {
            Ok(receipt) => combined.take(&conversation_id, receipt),
            Err(ObserveFailure::OverLimit(error)) => {
                // A message of many events becomes several commits, so the first commit that is too large may come
                // after others.
                let taken =
                    if let ObserveError::CommitTooLarge { .. } = error { "not every event" } else { "no event" };
                let error =
                    format!("{error}: {taken} of conversation `{conversation_id}` was taken in{}", ends.stay_open());
                combined.refused.push(Refused { line, error, conversation_id: Some(conversation_id) });
                combined.refused_events += events;
            }
            Err(ObserveFailure::Temporary(why)) => unavailable = unavailable.or(Some(why)),
            Err(ObserveFailure::Damaged) => damaged = damaged.or(Some(conversation_id)),
        }
    }
    // While there is a temporary failure, sending again helps at least the conversations that are not damaged.
    let temporary = unavailable.map(Unavailable::OutcomeUnknown);
    match temporary.or(damaged.map(Unavailable::EventsDamaged)) {
        Some(why) => Err(ApiError::Unavailable(why)),
        None => Ok(combined),
    }
}

/// The reason why a conversation did not take its events.
enum ObserveFailure {
    /// The events are over a limit. They will be so each time they are sent.
    OverLimit(ObserveError),
    /// The failure is temporary: sending the events again later may help.
    Temporary(&'static str),
    /// Stored records are damaged. Sending the events again helps after a repair.
    Damaged,
}

fn receipt(answer: Result<Result<Receipt, ObserveError>, MailboxError>) -> Result<Receipt, ObserveFailure> {
    let error = match answer {
        Ok(Ok(receipt)) => return Ok(receipt),
        Ok(Err(error)) => error,
        Err(error) => {
            warn!(%error, "the directory did not answer");
            return Err(ObserveFailure::Temporary("the service could not answer"));
        }
    };
    Err(match error {
        ObserveError::TooManyOpenTurns { .. }
        | ObserveError::TooManySteps { .. }
        | ObserveError::TurnTooLarge { .. }
        | ObserveError::OpenTurnsTooLarge { .. }
        | ObserveError::CommitTooLarge { .. } => ObserveFailure::OverLimit(error),
        ObserveError::Overloaded => {
            debug!("events were refused: overload");
            ObserveFailure::Temporary("too much is being worked on")
        }
        ObserveError::ShuttingDown => ObserveFailure::Temporary("the service is shutting down"),
        ObserveError::Contended => {
            warn!("events were refused: other processes keep changing their conversation");
            ObserveFailure::Temporary("the conversation is being changed by others")
        }
        ObserveError::StoreUnavailable(fault) => {
            warn!(cause = fault.in_full(), "events could not be made durable");
            match fault.kind() {
                FaultKind::Damaged => ObserveFailure::Damaged,
                _ => ObserveFailure::Temporary("the store is unavailable"),
            }
        }
        ObserveError::ActorGone => {
            warn!("a conversation's actor went away before it answered");
            ObserveFailure::Temporary("the service could not answer")
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use actix_web::test::TestRequest;
    use tokio::time::timeout;

    use super::*;
    use crate::http::stand_in::{StandIn, ask, done, get, observed, post, sealed_turns};
    use crate::settings::HttpSettings;
    use crate::store::Fault;
    use crate::turn::TurnEventKind;
    use crate::turn::TurnId;

    fn delta(conversation: &str) -> String {
        format!(r#"{{"type":"text-delta","conversationId":"{conversation}","turnId":"t","delta":"x"}}"#)
    }

    fn lines(lines: &[String]) -> String {
        lines.join("\n")
    }

    #[actix_web::test]
    async fn events_are_observed_by_conversation_and_acknowledged_in_the_order_of_the_body() {
        let system = StandIn { turns: sealed_turns(2), ..StandIn::default() };
        let (api, seen) = system.start_with(HttpSettings::default());
        let body = lines(&[done("b", "t9"), delta("z"), done("a", "t2"), String::new(), done("b", "t1")]);
        let answer = post(&api, body).await;
        assert_eq!(
            answer.success(),
            r#"{"accepted":3,"ignored":1,"sealed":[{"conversationId":"b","turnId":"t9","ordinal":3,"duplicate":false},{"conversationId":"b","turnId":"t1","ordinal":1,"duplicate":true},{"conversationId":"a","turnId":"t2","ordinal":2,"duplicate":true}]}"#
        );
        assert_eq!(seen.lock().unwrap().observes, [observed("b", &["t9", "t1"]), observed("a", &["t2"])]);
    }

    #[actix_web::test]
    async fn conversations_are_worked_on_side_by_side() {
        let (api, _) =
            StandIn { waits_for: Some(("a", "b")), ..StandIn::default() }.start_with(HttpSettings::default());
        tokio::time::pause();
        let body = lines(&[done("a", "1"), done("b", "1")]);
        let answer = timeout(Duration::from_hours(1), post(&api, body)).await.unwrap();
        let (a, b) = (answer.success().find(r#""a""#), answer.success().find(r#""b""#));
        assert!(a < b, "the answers stand in the order of the body, not in that of their coming");
    }

    #[actix_web::test]
    async fn one_event_may_come_as_json() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        for media_type in ["application/json", "Application/JSON; charset=utf-8"] {
            let event = done("c", "t").replace(',', ",\n  ");
            let request = TestRequest::post().uri("/events").insert_header(("content-type", media_type));
            ask(&api, request.set_payload(event)).await.success();
        }
        assert_eq!(seen.lock().unwrap().observes, [observed("c", &["t"]), observed("c", &["t"])]);
    }

    #[actix_web::test]
    async fn an_empty_body_is_nothing_accepted() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let post_as = async |media_type: &'static str, body: &'static str| {
            let request = TestRequest::post().uri("/events").insert_header(("content-type", media_type));
            ask(&api, request.set_payload(body)).await
        };
        for body in ["", "\r\n \n"] {
            let answer = post_as("application/x-ndjson; charset=utf-8", body).await;
            assert_eq!(answer.success(), r#"{"accepted":0,"ignored":0,"sealed":[]}"#);
            // A JSON body must be exactly one event.
            post_as("application/json", body).await.failure(400);
        }
        assert!(seen.lock().unwrap().observes.is_empty());
    }

    #[actix_web::test]
    async fn one_bad_line_refuses_the_whole_body() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/bad-events.json")).unwrap();
        for case in cases["cases"].as_array().unwrap() {
            let bad = case["line"].as_str().unwrap().to_owned();
            let answer = post(&api, lines(&[done("c", "1"), delta("c"), bad, done("c", "2")])).await;
            answer.failure(400);
            assert!(answer.body.unwrap().ends_with(r#","line":3}"#), "{}", case["name"]);
        }
        assert!(seen.lock().unwrap().observes.is_empty(), "nothing of them was taken in");
    }

    #[actix_web::test]
    async fn a_body_of_many_slices_is_read_like_one_of_one() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let filler = " ".repeat(1_000_000);
        post(&api, format!("{}{filler}\n{}", done("c", "1"), done("c", "2"))).await.success();
        assert_eq!(seen.lock().unwrap().observes, [observed("c", &["1", "2"])]);
        let bad = post(&api, format!("{}{filler}\n{{}}\n{filler}", done("c", "1"))).await;
        assert!(bad.failure(400).starts_with("line 2: "));
    }

    /// Posts a body with `?bad=skip` and returns the answer.
    async fn post_skipping(api: &Api, body: String) -> serde_json::Value {
        let request = TestRequest::post().uri("/events?bad=skip").insert_header(crate::http::stand_in::NDJSON);
        serde_json::from_str(ask(api, request.set_payload(body)).await.success()).unwrap()
    }

    #[actix_web::test]
    async fn bad_lines_that_are_skipped_are_told_and_the_others_taken() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let bad = r#"{"type":"usage","conversationId":"c","turnId":"t1","usage":7}"#.to_owned();
        let lost = done("c", "t2").replace("\"stop\"", "7");
        let answer = post_skipping(&api, lines(&[done("b", "t"), bad, done("c", "t1"), lost, delta("c")])).await;
        assert_eq!(
            answer,
            serde_json::json!({
                "accepted": 2,
                "ignored": 1,
                "sealed": [
                    {"conversationId": "b", "turnId": "t", "ordinal": 1, "duplicate": false},
                    {"conversationId": "c", "turnId": "t1", "ordinal": 1, "duplicate": false},
                ],
                "warnings": [
                    "conversation `c`: turn `t1` was sealed without line 2, which was refused",
                    "conversation `c`: line 4, which was refused, would have ended turn `t2`; if no other `done` has, the turn stays open",
                ],
                "refused": [
                    {"line": 2, "error": "`usage` must be an object, not a number"},
                    {"line": 4, "error": "`reason` must be a string, not a number"},
                ],
                "refusedCount": 2,
            })
        );
        assert_eq!(seen.lock().unwrap().observes, [observed("b", &["t"]), observed("c", &["t1"])]);
        let answer = post_skipping(&api, done("c", "t3")).await;
        assert_eq!((&answer["refused"], &answer["refusedCount"]), (&serde_json::json!([]), &serde_json::json!(0)));
    }

    #[actix_web::test]
    async fn the_first_100_of_what_is_refused_are_named_and_all_counted() {
        let api = StandIn::default().serving();
        let answer = post_skipping(&api, "bad\n".repeat(250)).await;
        assert_eq!(answer["refused"].as_array().unwrap().len(), 100);
        assert_eq!(answer["refused"][99]["line"], 100);
        assert_eq!(answer["refusedCount"], 250);
    }

    #[actix_web::test]
    async fn a_conversation_over_a_limit_is_one_refusal_when_bad_lines_are_skipped() {
        let limit = ObserveError::TooManyOpenTurns { conversation_id: ConversationId::new("many").unwrap(), limit: 5 };
        let refusals = HashMap::from([("many", limit)]);
        let api = StandIn { refusals, ..StandIn::default() }.serving();
        let body = lines(&["bad".into(), done("many", "1"), done("c", "1"), done("many", "2"), "bad".into()]);
        let answer = post_skipping(&api, body).await;
        assert_eq!((&answer["accepted"], &answer["refusedCount"]), (&1.into(), &3.into()));
        let refused = answer["refused"].as_array().unwrap();
        assert_eq!(refused.iter().map(|refused| refused["line"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 5]);
        assert_eq!(refused[1]["conversationId"], "many");
        let error = refused[1]["error"].as_str().unwrap();
        assert!(error.contains("5 open turns") && error.contains("turn `1` and 1 more, which it would"), "{error}");
        assert_eq!(answer["sealed"].as_array().unwrap().len(), 1);
    }

    #[actix_web::test]
    async fn another_word_for_bad_lines_is_a_bad_request() {
        let api = StandIn::default().serving();
        let ask_with = async |query: &str| {
            let request = TestRequest::post().uri(&format!("/events?{query}"));
            ask(&api, request.insert_header(crate::http::stand_in::NDJSON).set_payload(done("c", "t"))).await
        };
        for query in ["bad=keep", "bad=", "bad", "bad=skip&bad=no", "x=1&bad=Skip", "b%61d=%73", "bad=%ff"] {
            assert!(ask_with(query).await.failure(400).contains("`skip`"), "{query}");
        }
        for query in ["bad=%73kip", "b%61d=ski%70&bad=skip", "x=%zz&bad=skip"] {
            assert!(ask_with(query).await.success().contains("refusedCount"), "{query}");
        }
        assert!(!ask_with("x=bad%3Dkeep").await.success().contains("refusedCount"));
    }

    #[actix_web::test]
    async fn late_events_and_warnings_are_told() {
        let warning = crate::turn::Warning::UsageDiffers { turn_id: TurnId::new("t").unwrap() };
        let api = StandIn { late: 2, warnings: vec![warning], ..StandIn::default() }.serving();
        let answer = post(&api, lines(&[done("a", "t"), done("b", "t")])).await;
        let answer: serde_json::Value = serde_json::from_str(answer.success()).unwrap();
        assert_eq!(answer["late"], 4);
        let told = |id: &str| {
            format!("conversation `{id}`: turn `t`: the usage of its `done` differs from the sum of its steps")
        };
        assert_eq!(answer["warnings"], serde_json::json!([told("a"), told("b")]));
    }

    #[actix_web::test]
    async fn each_case_of_framing_has_its_status_and_its_turns() {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/framing.json")).unwrap();
        for case in cases["cases"].as_array().unwrap() {
            let (api, seen) = StandIn::default().start_with(HttpSettings::default());
            let header = ("content-type", case["contentType"].as_str().unwrap());
            let request = TestRequest::post().uri("/events").insert_header(header);
            let answer = ask(&api, request.set_payload(case["body"].as_str().unwrap().to_owned())).await;
            assert_eq!(u64::from(answer.status), case["status"].as_u64().unwrap(), "{}", case["name"]);
            let observes = &seen.lock().unwrap().observes;
            let done = observes.iter().flat_map(|observe| &observe.events);
            let done = done.filter(|event| matches!(event.kind, TurnEventKind::Done(_)));
            let turns: Vec<_> = done.map(|event| event.turn_id.as_str()).collect();
            assert_eq!(serde_json::json!(turns), case["turns"], "{}", case["name"]);
        }
    }

    #[actix_web::test]
    async fn a_refusal_is_told_with_its_reason_once_everything_else_is_in() {
        let refusals = HashMap::from([
            (
                "many",
                ObserveError::TooManyOpenTurns { conversation_id: ConversationId::new("many").unwrap(), limit: 5 },
            ),
            ("long", ObserveError::TooManySteps { turn_id: TurnId::new("t").unwrap(), limit: 6 }),
        ]);
        let (api, seen) = StandIn { refusals, ..StandIn::default() }.start_with(HttpSettings::default());
        let answer = post(&api, lines(&[done("many", "1"), done("other", "1")])).await;
        let text = answer.failure(422);
        assert!(text.contains("`many` would have more than 5 open turns") && text.contains("safe"), "{text}");
        assert_eq!(answer.header("retry-after"), None);
        let body: serde_json::Value = serde_json::from_str(answer.body.as_deref().unwrap()).unwrap();
        let receipt = serde_json::json!([{"conversationId": "other", "turnId": "1", "ordinal": 1, "duplicate": false}]);
        assert_eq!(body["sealed"], receipt, "what was sealed of the rest is told");
        assert_eq!((&body["refused"][0]["line"], &body["refused"][0]["conversationId"]), (&1.into(), &"many".into()));
        assert!(text.contains("turn `1`, which it would have ended, stays open"), "{text}");
        assert_eq!(seen.lock().unwrap().observes.len(), 2, "the other conversation was heard");
        assert!(post(&api, done("long", "t")).await.failure(422).contains("more than 6 steps"));
    }

    #[actix_web::test]
    async fn a_temporary_failure_is_503_and_hides_its_cause() {
        let failing = Fault::new(FaultKind::Disk, "the disk failed").caused_by("I/O error at /var/lib/secret");
        let refusals = HashMap::from([
            ("overloaded", ObserveError::Overloaded),
            ("ending", ObserveError::ShuttingDown),
            ("failing", ObserveError::StoreUnavailable(failing)),
            ("contended", ObserveError::Contended),
            ("dead", ObserveError::ActorGone),
            ("long", ObserveError::TooManySteps { turn_id: TurnId::new("t").unwrap(), limit: 6 }),
        ]);
        let api = StandIn { refusals, ..StandIn::default() }.serving();
        for conversation in ["overloaded", "ending", "failing", "contended", "dead"] {
            // The conversation that is refused for good must not keep the client from sending the others again.
            let answer = post(&api, lines(&[done("long", "t"), done(conversation, "t")])).await;
            let text = answer.failure(503);
            assert!(text.contains("send the same events again"), "{text}");
            assert!(!text.contains("secret"), "{text}");
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        let api = StandIn { gone: true, ..StandIn::default() }.serving();
        let answer = post(&api, done("c", "t")).await;
        answer.failure(503);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }

    #[actix_web::test]
    async fn damage_is_503_and_names_the_conversation_and_the_repair() {
        let damaged = Fault::new(FaultKind::Damaged, "damaged").caused_by("a page of /var/lib/secret");
        let refusals =
            HashMap::from([("c`\u{202e}", ObserveError::StoreUnavailable(damaged)), ("dead", ObserveError::ActorGone)]);
        let (api, seen) = StandIn { refusals, ..StandIn::default() }.start_with(HttpSettings::default());
        let answer = post(&api, lines(&[done("c`\u{202e}", "t"), done("other", "t")])).await;
        assert_eq!(
            answer.failure(503),
            "stored records that conversation `c`\\u{202e}` needs are damaged: stop the service, run `turn-metrics check \
             --repair`, and send the same events again after that"
        );
        assert_eq!(answer.header("retry-after"), None, "retrying does not help");
        assert_eq!(seen.lock().unwrap().observes.len(), 2, "the other conversation was heard");
        // Sending again helps the conversation whose failure is temporary.
        let answer = post(&api, lines(&[done("c`\u{202e}", "t"), done("dead", "t")])).await;
        assert!(answer.failure(503).contains("the outcome is unknown"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }

    #[actix_web::test]
    async fn a_full_system_refuses_a_body_before_it_is_read() {
        let (api, seen) = StandIn { full: true, ..StandIn::default() }.start_with(HttpSettings::default());
        // If the server read the body, the answer would be "bad request".
        let answer = post(&api, "no event".to_owned()).await;
        assert!(answer.failure(503).contains("nothing was taken in"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(seen.lock().unwrap().observes.is_empty());
    }

    #[actix_web::test]
    async fn events_are_only_posted() {
        let api = StandIn::default().serving();
        let answer = get(&api, "/events").await;
        answer.failure(405);
        assert_eq!(answer.header("allow"), Some("POST"));
    }
}
