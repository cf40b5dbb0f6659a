//! `GET /health` and `GET /ready`

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use tokio::time::timeout;
use tracing::warn;

use super::api::Api;
use crate::actors::CheckWrite;
use crate::http::error::ApiError;

/// How long a durable write may take before the service is not ready: far beyond what a sound disk takes, and less
/// than the patience of what asks (ten seconds, commonly).
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The process answers.
pub(crate) async fn health() -> HttpResponse {
    #[derive(Serialize)]
    struct Health {
        ok: bool,
    }

    HttpResponse::Ok().json(Health { ok: true })
}

/// A durable write works.
pub(crate) async fn ready(api: Data<Api>) -> Result<HttpResponse, ApiError> {
    #[derive(Serialize)]
    struct Ready {
        ready: bool,
    }

    let not_ready = match timeout(CHECK_TIMEOUT, api.handles.operations.check_write.send(CheckWrite)).await {
        Ok(Ok(Ok(()))) => return Ok(HttpResponse::Ok().json(Ready { ready: true })),
        Ok(Ok(Err(cause))) => {
            let cause = cause.to_string();
            warn!(%cause, "a durable write does not work");
            without_paths(&cause)
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

/// What the system and the database write with a slash that is no path.
const NO_PATHS: [&str; 2] = ["I/O", "Input/output"];

/// A cause without the paths of this machine, which are nobody's business outside it. A path may hold spaces, so it
/// ends where the next part of the cause begins.
fn without_paths(cause: &str) -> String {
    let tells_a_path = |word: &str| {
        word.contains(['/', '\\']) && !NO_PATHS.contains(&word.trim_matches(|c: char| !c.is_alphanumeric()))
    };
    let parts = cause.split(": ").map(|part| {
        let mut words = part.split(' ').peekable();
        let mut told: Vec<_> = std::iter::from_fn(|| words.next_if(|word| !tells_a_path(word))).collect();
        if words.peek().is_some() {
            told.push("...");
        }
        told.join(" ")
    });
    parts.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stand_in::{StandIn, get};
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
        let unavailable = |cause: &str| CommitError::Unavailable(cause.to_owned());
        for (error, text) in [
            (unavailable("no space left on device"), "the store is unavailable: no space left on device"),
            (unavailable("cannot open /var/lib/x"), "the store is unavailable: cannot open ..."),
            (unavailable("cannot open /my data/x y: denied"), "the store is unavailable: cannot open ...: denied"),
            (unavailable(r"cannot open C:\x"), "the store is unavailable: cannot open ..."),
            (CommitError::Overloaded, "too many commits are waiting to be written"),
        ] {
            let answer = get(&with(Some(Err(error))), "/ready").await;
            assert_eq!(answer.failure(503), text);
        }
        let gone = StandIn { gone: true, ..StandIn::default() }.serving();
        assert_eq!(get(&gone, "/ready").await.failure(503), "the store is gone");
    }

    #[test]
    fn what_the_database_says_of_the_disk_is_told() {
        let disk = |code| redb::StorageError::Io(std::io::Error::from_raw_os_error(code)).to_string();
        assert_eq!(disk(28), "I/O error: No space left on device (os error 28)");
        assert_eq!(disk(5), "I/O error: Input/output error (os error 5)");
        for (code, told) in [(28, "No space left on device (os error 28)"), (30, "Read-only file system (os error 30)")]
        {
            assert_eq!(without_paths(&disk(code)), format!("I/O error: {told}"));
        }
        assert_eq!(without_paths(&disk(5)), "I/O error: Input/output error (os error 5)");
        for error in [
            redb::StorageError::PreviousIo,
            redb::StorageError::DatabaseClosed,
            redb::StorageError::Corrupted("page 7".to_owned()),
            redb::StorageError::ValueTooLarge(1),
        ] {
            assert_eq!(without_paths(&error.to_string()), error.to_string());
        }
        let elsewhere = redb::StorageError::LockPoisoned(std::panic::Location::caller()).to_string();
        assert_eq!(without_paths(&elsewhere), "Poisoned internal lock: ...");
    }

    #[actix_web::test]
    async fn it_is_not_ready_when_a_write_is_stuck() {
        let api = with(None);
        tokio::time::pause();
        let answer = timeout(CHECK_TIMEOUT * 2, get(&api, "/ready")).await.unwrap();
        assert_eq!(answer.failure(503), "a durable write takes more than 5 seconds");
    }
}
