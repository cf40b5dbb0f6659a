//! `GET /health` and `GET /ready`

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use tokio::time::timeout;
use tracing::warn;

use super::api::Api;
use crate::actors::{CheckWrite, InspectStore};
use crate::http::error::{ApiError, Unavailable};
use crate::store::DamageReport;

/// How long a durable write may take before the service counts as not ready. A sound disk is far faster than this, and
/// the usual timeout of a health check (ten seconds) is longer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// What to do about damage.
pub(crate) const DAMAGE_ADVICE: &str =
    "stop the service and run `turn-metrics check --repair`; the log names what is damaged";

/// Answers, so that a health check sees that the process runs.
pub(crate) async fn health() -> HttpResponse {
    #[derive(Serialize)]
    struct HealthBody {
        ok: bool,
    }

    HttpResponse::Ok().json(HealthBody { ok: true })
}

/// Answers whether the store can make a durable write.
pub(crate) async fn ready(api: Data<Api>) -> Result<HttpResponse, ApiError> {
    #[derive(Serialize)]
    struct ReadyBody {
        ready: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        damage: Option<DamageBody>,
    }

    check(&api).await.map_err(ApiError::Unavailable)?;
    Ok(HttpResponse::Ok().json(ReadyBody { ready: true, damage: damage(&api).await }))
}

/// Makes a durable write. If it does not work, returns the reason.
pub(crate) async fn check(api: &Api) -> Result<(), Unavailable> {
    Err(match timeout(CHECK_TIMEOUT, api.handles.operations.check_write.send(CheckWrite)).await {
        Ok(Ok(Ok(()))) => return Ok(()),
        Ok(Ok(Err(error))) => {
            warn!(cause = error.in_full(), "a durable write does not work");
            Unavailable::Write(error)
        }
        Ok(Err(error)) => {
            warn!(%error, "the store did not answer");
            Unavailable::StoreGone
        }
        Err(_) => {
            warn!(timeout = ?CHECK_TIMEOUT, "a durable write takes too long");
            Unavailable::SlowWrite { seconds: CHECK_TIMEOUT.as_secs() }
        }
    })
}

/// The damage that `/ready` reports with status 200: the store works, except for the damaged records and
/// conversations.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DamageBody {
    left_out_records: u64,
    findings: u64,
    scrub_passes: u64,
    advice: &'static str,
}

/// Returns what the store knows of damage, if there is any.
async fn damage(api: &Api) -> Option<DamageBody> {
    let inspected = timeout(CHECK_TIMEOUT, api.handles.operations.inspect_store.send(InspectStore)).await;
    let damage = inspected.ok()?.ok()?.damage;
    damage.is_any().then(|| {
        let DamageReport { left_out_records, findings, scrub_passes, .. } = damage;
        DamageBody { left_out_records, findings, scrub_passes, advice: DAMAGE_ADVICE }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stand_in::{Log, StandIn, get};
    use crate::store::{CommitError, Fault, FaultKind};

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
    async fn damage_is_told_though_a_write_works() {
        for (left_out_records, findings) in [(3, 0), (0, 2)] {
            let damage = DamageReport { left_out_records, findings, scrub_passes: 1, scrubbed_rows: 9 };
            let api = StandIn { check: Some(Ok(())), damage, ..StandIn::default() }.serving();
            assert_eq!(
                get(&api, "/ready").await.success(),
                format!(
                    r#"{{"ready":true,"damage":{{"leftOutRecords":{left_out_records},"findings":{findings},"scrubPasses":1,"advice":"stop the service and run `turn-metrics check --repair`; the log names what is damaged"}}}}"#
                )
            );
        }
    }

    #[actix_web::test]
    async fn it_is_not_ready_when_a_write_fails_and_says_why_without_a_path() {
        let disk = Fault::new(FaultKind::Disk, "the disk failed");
        let full = std::io::Error::from_raw_os_error(28);
        let full = disk.clone().of_io(&full).caused_by("/my data/x y: no space left");
        let panicked = Fault::panicked("a panic: cannot open /my data/x y");
        for (error, text, logged) in [
            (disk, "the store is unavailable: the disk failed", "the disk failed"),
            (
                full,
                "the store is unavailable: the disk failed: No space left on device (os error 28)",
                "/my data/x y: no space left",
            ),
            (panicked, "the store is unavailable: the store's code panicked", "a panic: cannot open /my data/x y"),
            (Fault::closed(), "the store is unavailable: the store was closed", "the store was closed"),
        ] {
            let log = Log::start();
            let answer = get(&with(Some(Err(CommitError::Unavailable(error)))), "/ready").await;
            assert_eq!(answer.failure(503), text);
            let log = log.end();
            assert!(log.contains(logged), "{log}");
        }
        let overloaded = get(&with(Some(Err(CommitError::Overloaded))), "/ready").await;
        assert_eq!(overloaded.failure(503), "too many commits are waiting to be written");
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
