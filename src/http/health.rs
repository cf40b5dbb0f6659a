//! `GET /health` and `GET /ready`

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use tokio::time::timeout;
use tracing::warn;

use super::api::Api;
use super::error::ApiError;
use crate::actors::CheckWrite;

/// How long a durable write may take before the service is not ready: far beyond what a sound disk takes, and less
/// than the patience of what asks (ten seconds, commonly).
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The process answers.
pub(super) async fn health() -> HttpResponse {
    #[derive(Serialize)]
    struct Health {
        ok: bool,
    }

    HttpResponse::Ok().json(Health { ok: true })
}

/// A durable write works.
pub(super) async fn ready(api: Data<Api>) -> Result<HttpResponse, ApiError> {
    #[derive(Serialize)]
    struct Ready {
        ready: bool,
    }

    let not_ready = match timeout(CHECK_TIMEOUT, api.handles.check_write.send(CheckWrite)).await {
        Ok(Ok(Ok(()))) => return Ok(HttpResponse::Ok().json(Ready { ready: true })),
        Ok(Ok(Err(cause))) => {
            let cause = cause.to_string();
            warn!(%cause, "a durable write does not work");
            if tells_a_path(&cause) { "the store is unavailable".to_owned() } else { cause }
        }
        Ok(Err(error)) => {
            warn!(%error, "the store did not answer");
            "the store is gone".to_owned()
        }
        Err(_) => {
            warn!(timeout = ?CHECK_TIMEOUT, "a durable write takes too long");
            format!("a durable write takes more than {} seconds", CHECK_TIMEOUT.as_secs())
        }
    };
    Err(ApiError::Unavailable(not_ready))
}

/// Whether a text may hold a path of this machine, which is nobody's business outside it.
fn tells_a_path(text: &str) -> bool {
    // "I/O error" is how nearly every failure of a disk begins, and the slash in it leads nowhere.
    text.replace("I/O", "").contains(['/', '\\'])
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::{StandIn, get};
    use super::*;
    use crate::store::CommitError;

    fn with(check: Option<Result<(), CommitError>>) -> Api {
        StandIn { check, ..StandIn::default() }.serving()
    }

    #[actix_web::test]
    async fn the_process_is_healthy_whatever_the_store_does() {
        let api = StandIn { gone: true, ..StandIn::default() }.serving();
        assert_eq!(get(&api, "/health").await.success(), r#"{"ok":true}"#);
    }

    #[actix_web::test]
    async fn it_is_ready_when_a_write_works() {
        assert_eq!(get(&with(Some(Ok(()))), "/ready").await.success(), r#"{"ready":true}"#);
    }

    #[actix_web::test]
    async fn it_is_not_ready_when_a_write_fails_and_says_why_without_a_path() {
        let disk_full = CommitError::Unavailable("no space left on device".to_owned());
        for (error, text) in [
            (disk_full, "the store is unavailable: no space left on device"),
            (
                CommitError::Unavailable("I/O error: No space left on device (os error 28)".to_owned()),
                "the store is unavailable: I/O error: No space left on device (os error 28)",
            ),
            (CommitError::Unavailable("I/O error at /var/lib/x".to_owned()), "the store is unavailable"),
            (CommitError::Unavailable("cannot open /var/lib/x".to_owned()), "the store is unavailable"),
            (CommitError::Unavailable(r"cannot open C:\x".to_owned()), "the store is unavailable"),
            (CommitError::Overloaded, "too many commits are waiting to be written"),
        ] {
            let answer = get(&with(Some(Err(error))), "/ready").await;
            assert_eq!(answer.failure(503), text);
        }
        let gone = StandIn { gone: true, ..StandIn::default() }.serving();
        assert_eq!(get(&gone, "/ready").await.failure(503), "the store is gone");
    }

    #[actix_web::test]
    async fn it_is_not_ready_when_a_write_is_stuck() {
        let api = with(None);
        tokio::time::pause();
        let answer = timeout(CHECK_TIMEOUT * 2, get(&api, "/ready")).await.unwrap();
        assert_eq!(answer.failure(503), "a durable write takes more than 5 seconds");
    }
}
