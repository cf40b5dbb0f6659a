//! `GET /backup`

use std::io::Read;

use actix_web::body::SizedStream;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, rt};
use futures_util::stream;
use tracing::{error, warn};

use super::api::Api;
use crate::actors::BackUp;
use crate::http::error::{ApiError, Unavailable};
use crate::http::middleware::origin::refuse_backup;
use crate::store::BackupError;

/// How much of the file is read at once.
const PART_BYTES: usize = 256 * 1024;

/// Sends a copy of the whole database as it is at one moment. Copies are built one at a time, on the server's disk
/// beside the database, before they are sent.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    // Checked here too, for an application that mounts this resource without the checks of the server.
    if let Some(refusal) = refuse_backup(&request) {
        return Ok(refusal);
    }
    let copy = match api.handles.operations.back_up.send(BackUp).await {
        Ok(Ok(copy)) => copy,
        Ok(Err(refused @ (BackupError::Busy | BackupError::InMemory))) => {
            return Err(ApiError::Unavailable(Unavailable::Backup(refused)));
        }
        Ok(Err(error)) => {
            error!(cause = error.in_full(), "no backup was made");
            return Err(ApiError::Unavailable(Unavailable::BackupFailed));
        }
        Err(error) => {
            error!(%error, "the store did not answer");
            return Err(ApiError::Unavailable(Unavailable::StoreGone));
        }
    };
    let parts = stream::try_unfold(copy.bytes, |bytes| async move {
        // By now the head is sent. After a failure the answer breaks off, so that the client sees that it is
        // incomplete.
        let read = rt::task::spawn_blocking(move || read_part(bytes)).await;
        match read {
            Ok(Ok((part, _))) if part.is_empty() => Ok(None),
            Ok(Ok(read)) => Ok(Some(read)),
            Ok(Err(cause)) => {
                warn!(%cause, "the copy could not be read");
                Err(ApiError::LoadFailed)
            }
            Err(_) => Err(ApiError::LoadFailed),
        }
    });
    // The length lets a client detect a truncated backup, even without chunks.
    let body = SizedStream::new(copy.length, parts);
    Ok(HttpResponse::Ok().content_type("application/octet-stream").body(body))
}

fn read_part(mut bytes: Box<dyn Read + Send>) -> std::io::Result<(Bytes, Box<dyn Read + Send>)> {
    let mut part = Vec::with_capacity(PART_BYTES);
    bytes.by_ref().take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok((part.into(), bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use actix_web::body::to_bytes;
    use actix_web::test::{TestRequest, call_service, init_service};

    use super::*;
    use crate::http::stand_in::{Log, StandIn, fault, get, local_hosts};
    use crate::http::transport::server::app;
    use crate::store::Backup;

    #[actix_web::test]
    async fn the_copy_comes_in_one_piece_however_long_it_is() {
        for length in [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 7] {
            let content: Vec<_> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
            let copy = Backup { bytes: Box::new(Cursor::new(content.clone())), length: length as u64 };
            let api = StandIn { backup: Some(Ok(copy)), ..StandIn::default() }.serving();
            let app = init_service(app(&api, &local_hosts())).await;
            let request = TestRequest::get().uri("/backup").insert_header(("host", "localhost")).to_request();
            let answer = call_service(&app, request).await;
            assert_eq!(answer.status(), 200);
            assert!(to_bytes(answer.into_body()).await.ok().unwrap() == content, "{length} bytes");
        }
    }

    #[actix_web::test]
    async fn without_a_copy_it_is_told_why_but_nothing_of_the_disk() {
        let api = StandIn::default().serving();
        assert_eq!(get(&api, "/backup").await.failure(503), "a backup is being made already");
        for error in [BackupError::Write, BackupError::Read] {
            let api = StandIn { backup: Some(Err(error(fault()))), ..StandIn::default() }.serving();
            let log = Log::start();
            assert_eq!(get(&api, "/backup").await.failure(503), "no backup could be made; the log says why");
            assert!(log.end().contains("/var/lib/secret"), "the log does not say why");
        }
    }
}
