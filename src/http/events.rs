//! `POST /events`

use actix::MailboxError;
use actix_web::web::{Data, Json, Payload};
use actix_web::{HttpRequest, web};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tracing::{debug, warn};

use super::api::Api;
use super::batch::Batch;
use super::body::{Body, overloaded};
use super::error::ApiError;
use crate::actors::{Observe, ObserveError, Receipt, TurnReceipt};
use crate::settings::CONVERSATIONS_AT_ONCE;
use crate::turn::{ConversationId, Ordinal, TurnId};

/// A larger body is parsed on the blocking pool: checking it takes so long (about a millisecond) that other requests
/// of the same worker would notice.
const PARSE_INLINE_BYTES: usize = 256 * 1024;

/// What was taken in and is durable.
#[derive(Debug, Serialize)]
pub(super) struct Acknowledged {
    accepted: usize,
    ignored: usize,
    sealed: Vec<SealedHere>,
}

/// A turn that is sealed, by this request or before it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SealedHere {
    conversation_id: ConversationId,
    turn_id: TurnId,
    ordinal: Ordinal,
    duplicate: bool,
}

/// Takes events in and answers when they are durable.
pub(super) async fn post(
    api: Data<Api>,
    request: HttpRequest,
    payload: Payload,
) -> Result<Json<Acknowledged>, ApiError> {
    if api.handles.load.is_full() {
        return Err(overloaded());
    }
    let Body { format, bytes, reservation } = Body::read(&request, payload, &api.settings, &api.budget).await?;
    let max_line_bytes = api.settings.max_line_bytes;
    let Batch { accepted, ignored, observes } = if bytes.len() <= PARSE_INLINE_BYTES {
        Batch::parse(format, &bytes, max_line_bytes)?
    } else {
        web::block(move || Batch::parse(format, &bytes, max_line_bytes)).await.map_err(|error| {
            warn!(%error, "a posted body could not be parsed");
            ApiError::Unavailable("nothing was taken in: send the same events again".to_owned())
        })??
    };
    let sealed = observe(&api, observes).await?;
    drop(reservation);
    Ok(Json(Acknowledged { accepted, ignored, sealed }))
}

/// Tells the conversations their events and gathers what they answer.
///
/// All of them are heard, whatever goes wrong with one. A client that is told to come again does so until everything
/// is durable but for what it is then told never will be.
async fn observe(api: &Api, observes: Vec<Observe>) -> Result<Vec<SealedHere>, ApiError> {
    let mut answers = stream::iter(observes)
        .map(|observe| async move {
            let conversation_id = observe.conversation_id.clone();
            (conversation_id, api.handles.observe.send(observe).await)
        })
        .buffered(CONVERSATIONS_AT_ONCE);
    let mut sealed = Vec::new();
    let mut refused = None;
    let mut unavailable = None;
    while let Some((conversation_id, answer)) = answers.next().await {
        match receipt(answer) {
            Ok(receipt) => sealed.extend(receipt.sealed.into_iter().map(|turn| {
                let TurnReceipt { turn_id, ordinal, duplicate } = turn;
                SealedHere { conversation_id: conversation_id.clone(), turn_id, ordinal, duplicate }
            })),
            Err(Unheard::ForGood(message)) => refused = refused.or(Some(message)),
            Err(Unheard::ForNow(why)) => unavailable = unavailable.or(Some(why)),
        }
    }
    match (unavailable, refused) {
        // Some events of the request may be durable, some not.
        (Some(why), _) => {
            Err(ApiError::Unavailable(format!("{why}, and the outcome is unknown: send the same events again later")))
        }
        (None, Some(message)) => Err(ApiError::Refused { message, sealed }),
        (None, None) => Ok(sealed),
    }
}

/// Why a conversation did not take its events in.
enum Unheard {
    /// They are over a limit, and always will be.
    ForGood(String),
    /// Something that passes.
    ForNow(&'static str),
}

fn receipt(answer: Result<Result<Receipt, ObserveError>, MailboxError>) -> Result<Receipt, Unheard> {
    let error = match answer {
        Ok(Ok(receipt)) => return Ok(receipt),
        Ok(Err(error)) => error,
        Err(error) => {
            warn!(%error, "the directory did not answer");
            return Err(Unheard::ForNow("the service could not answer"));
        }
    };
    Err(match error {
        ObserveError::TooManyOpenTurns { .. } | ObserveError::TooManySteps { .. } => Unheard::ForGood(format!(
            "{error}: no event of that conversation was taken in. Those of other conversations may have been, and \
             sending them again is safe"
        )),
        ObserveError::Overloaded => {
            debug!("events were refused: overload");
            Unheard::ForNow("too much is being worked on")
        }
        ObserveError::ShuttingDown => Unheard::ForNow("the service is shutting down"),
        ObserveError::StoreUnavailable(cause) => {
            warn!(%cause, "events could not be made durable");
            Unheard::ForNow("the store is unavailable")
        }
        ObserveError::ActorGone => {
            warn!("a conversation's actor went away before it answered");
            Unheard::ForNow("the service could not answer")
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use actix_web::test::TestRequest;
    use tokio::time::timeout;

    use super::super::stand_in::{StandIn, ask, done, get, observed, post, sealed_turns};
    use super::*;
    use crate::settings::HttpSettings;

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
        for media_type in ["application/json", "application/x-ndjson; charset=utf-8"] {
            for body in ["", "\r\n \n"] {
                let request = TestRequest::post().uri("/events").insert_header(("content-type", media_type));
                let answer = ask(&api, request.set_payload(body)).await;
                assert_eq!(answer.success(), r#"{"accepted":0,"ignored":0,"sealed":[]}"#);
            }
        }
        assert!(seen.lock().unwrap().observes.is_empty());
    }

    #[actix_web::test]
    async fn one_bad_line_refuses_the_whole_body() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/bad-events.json")).unwrap();
        for case in cases["cases"].as_array().unwrap() {
            let bad = case["line"].as_str().unwrap().to_owned();
            let answer = post(&api, lines(&[done("c", "1"), delta("c"), bad, done("c", "2")])).await;
            answer.failure(400);
            assert!(answer.body.unwrap().ends_with(r#","line":3}"#), "{}", case["name"]);
        }
        assert!(seen.lock().unwrap().observes.is_empty(), "nothing of them was taken in");
    }

    #[actix_web::test]
    async fn a_large_body_is_read_like_a_small_one() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let filler = " ".repeat(PARSE_INLINE_BYTES);
        post(&api, format!("{}{filler}\n{}", done("c", "1"), done("c", "2"))).await.success();
        assert_eq!(seen.lock().unwrap().observes, [observed("c", &["1", "2"])]);
        let bad = post(&api, format!("{}{filler}\n{{}}", done("c", "1"))).await;
        assert!(bad.failure(400).starts_with("line 2: "));
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
        let receipt = r#""sealed":[{"conversationId":"other","turnId":"1","ordinal":1,"duplicate":false}]}"#;
        assert!(answer.body.unwrap().ends_with(receipt), "what was sealed of the rest is told");
        assert_eq!(seen.lock().unwrap().observes.len(), 2, "the other conversation was heard");
        assert!(post(&api, done("long", "t")).await.failure(422).contains("more than 6 steps"));
    }

    #[actix_web::test]
    async fn what_may_work_later_is_unavailable_and_hides_its_cause() {
        let secret = "I/O error at /var/lib/secret";
        let refusals = HashMap::from([
            ("overloaded", ObserveError::Overloaded),
            ("ending", ObserveError::ShuttingDown),
            ("failing", ObserveError::StoreUnavailable(secret.to_owned())),
            ("dead", ObserveError::ActorGone),
            ("long", ObserveError::TooManySteps { turn_id: TurnId::new("t").unwrap(), limit: 6 }),
        ]);
        let api = StandIn { refusals, ..StandIn::default() }.serving();
        for conversation in ["overloaded", "ending", "failing", "dead"] {
            // One that is refused for good does not keep the client from coming again.
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
    async fn what_a_full_system_would_refuse_is_refused_before_it_is_read() {
        let (api, seen) = StandIn { full: true, ..StandIn::default() }.start_with(HttpSettings::default());
        // Had it been read, it would be a bad request.
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
