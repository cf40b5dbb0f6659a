//! `DELETE /conversations/{id}`

use actix::MailboxError;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, rt};
use tracing::{debug, warn};

use super::api::Api;
use super::path_id::ErasedPathId;
use super::query::Query;
use crate::actors::{Erase, EraseError};
use crate::http::error::{ApiError, Unavailable};
use crate::store::FaultKind;

/// Erases a conversation: what was acknowledged before the answer is gone, but for what it has added to the sums of
/// reports.
pub(crate) async fn delete(
    api: Data<Api>,
    ErasedPathId(id): ErasedPathId,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    Query::read(request.query_string(), &[])?;
    // A task of its own comes to its end even if the client goes away.
    let erasing = rt::spawn(async move {
        let answer = api.handles.intake.erase.send(Erase { conversation_id: id.clone() }).await;
        // Nobody gets the cached answer any more, as it is of another revision. It must not stay in memory either.
        api.bodies.remove(&id);
        answer
    });
    let Ok(answer) = erasing.await else {
        warn!("an erasure ended by a panic");
        return Err(ApiError::Unavailable(Unavailable::ErasureUnknown("the service could not answer")));
    };
    match answer {
        Ok(Ok(true)) => Ok(HttpResponse::NoContent().finish()),
        Ok(Ok(false)) => Err(ApiError::NothingToErase),
        Ok(Err(error)) => Err(ApiError::Unavailable(refusal(&error))),
        Err(error) => Err(ApiError::Unavailable(no_answer(error))),
    }
}

fn refusal(error: &EraseError) -> Unavailable {
    match error {
        EraseError::Overloaded => {
            debug!("an erasure was refused: overload");
            Unavailable::Overloaded
        }
        EraseError::ShuttingDown => Unavailable::ErasureUnknown("the service is shutting down"),
        EraseError::StoreUnavailable(fault) => {
            warn!(cause = fault.in_full(), "an erasure could not be made durable");
            match fault.kind() {
                FaultKind::Damaged => Unavailable::ErasureDamaged,
                _ => Unavailable::ErasureUnknown("the store is unavailable"),
            }
        }
        EraseError::ActorGone => {
            warn!("a conversation's actor went away before it answered");
            Unavailable::ErasureUnknown("the service could not answer")
        }
    }
}

fn no_answer(error: MailboxError) -> Unavailable {
    warn!(%error, "the directory did not answer");
    Unavailable::ErasureUnknown("the service could not answer")
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::http::stand_in::{Answer, StandIn, ask, get, sealed_turns};
    use crate::settings::HttpSettings;
    use crate::store::Fault;
    use crate::turn::ConversationId;

    async fn erase(api: &Api, path: &str) -> Answer {
        ask(api, TestRequest::delete().uri(path)).await
    }

    #[actix_web::test]
    async fn a_conversation_is_erased_and_the_answer_has_no_body() {
        let stand_in = StandIn { erasure: Some(Ok(true)), turns: sealed_turns(2), ..StandIn::default() };
        let (api, seen) = stand_in.start_with(HttpSettings::default());
        get(&api, "/conversations/a%2Fb/metrics").await.success();
        let id = ConversationId::new("a/b").unwrap();
        assert!(api.bodies.get(&id).is_some());
        let answer = erase(&api, "/conversations/a%2Fb").await;
        assert_eq!((answer.status, answer.body.as_deref()), (204, Some("")));
        assert!(api.bodies.get(&id).is_none(), "the turns are still in the cache");
        assert_eq!(seen.lock().unwrap().erased, [id]);
    }

    #[actix_web::test]
    async fn a_conversation_that_is_not_there_is_not_found() {
        let api = StandIn { erasure: Some(Ok(false)), ..StandIn::default() }.serving();
        assert_eq!(erase(&api, "/conversations/c").await.failure(404), "there is no such conversation");
        assert!(erase(&api, "/conversations/c?really=yes").await.failure(400).contains("`really`"));
        erase(&api, "/conversations/").await.failure(404);
    }

    #[actix_web::test]
    async fn a_failure_says_whether_the_outcome_is_known() {
        let disk = Fault::new(FaultKind::Disk, "the disk failed").caused_by("/secret/path");
        for (error, told) in [
            (EraseError::Overloaded, "too much is being worked on, and nothing was taken in: send it again later"),
            (
                EraseError::StoreUnavailable(disk),
                "the store is unavailable, and it is unknown whether the conversation is erased: ask again later",
            ),
            (
                EraseError::ActorGone,
                "the service could not answer, and it is unknown whether the conversation is erased: ask again later",
            ),
        ] {
            let api = StandIn { erasure: Some(Err(error)), ..StandIn::default() }.serving();
            let answer = erase(&api, "/conversations/c").await;
            assert_eq!((answer.failure(503), answer.header("retry-after")), (told.to_owned(), Some("1")));
        }
        let damaged = EraseError::StoreUnavailable(Fault::new(FaultKind::Damaged, "damaged"));
        let answer =
            erase(&StandIn { erasure: Some(Err(damaged)), ..StandIn::default() }.serving(), "/conversations/c").await;
        let told = "stored records that the conversation needs are damaged: stop the service, run `turn-metrics check \
                    --repair`, and erase the conversation after that";
        assert_eq!(
            (answer.failure(503), answer.header("retry-after")),
            (told.to_owned(), None),
            "retrying does not help"
        );
        let gone = StandIn { gone: true, ..StandIn::default() }.serving();
        erase(&gone, "/conversations/c").await.failure(503);
    }
}
