//! `GET /backup`

use std::io::Read;
use std::thread;
use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, timeout_at};
use tracing::{error, warn};

use super::api::Api;
use crate::actors::BackUp;
use crate::http::error::{ApiError, Unavailable};
use crate::http::middleware::origin::refuse_backup;
use crate::store::BackupError;

/// How many bytes of the file are read at once. The connection holds a copy of them until the client has read them.
const PART_BYTES: usize = 64 * 1024;

/// The stack of the thread that reads a copy. The thread needs little.
const STACK_BYTES: usize = 1024 * 1024;

/// The longest time for a backup, short enough that adding it to a moment does not overflow.
const MAX_TIMEOUT: Duration = Duration::from_hours(365 * 24);

/// Sends a copy of the whole database as it is at one moment. A copy is built on the server's disk, beside the
/// database, before it is sent. One copy is built at a time: the next one has to wait until the last one is sent, which
/// has a time limit.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    // The server checks this too. This check is for an application that mounts the resource without the server's
    // checks.
    if let Some(refusal) = refuse_backup(&request) {
        return Ok(refusal);
    }
    let due = Instant::now() + api.settings.backup_timeout.min(MAX_TIMEOUT);
    let copy = match timeout_at(due, api.handles.operations.back_up.send(BackUp)).await {
        Err(_) => return Err(ApiError::Unavailable(Unavailable::SlowBackup)),
        Ok(Ok(Ok(copy))) => copy,
        Ok(Ok(Err(refused @ (BackupError::Busy | BackupError::DiskNearlyFull { .. } | BackupError::InMemory)))) => {
            return Err(ApiError::Unavailable(Unavailable::Backup(refused)));
        }
        Ok(Ok(Err(damaged @ BackupError::Damaged(_)))) => {
            error!(cause = damaged.in_full(), "no backup was made, as the store is damaged");
            return Err(ApiError::Unavailable(Unavailable::Backup(damaged)));
        }
        Ok(Ok(Err(error))) => {
            error!(cause = error.in_full(), "no backup was made");
            return Err(ApiError::Unavailable(Unavailable::BackupFailed));
        }
        Ok(Err(error)) => {
            error!(%error, "the store did not answer");
            return Err(ApiError::Unavailable(Unavailable::StoreGone));
        }
    };
    let (sender, received) = mpsc::channel(1);
    let (bytes, length) = (copy.bytes, copy.length);
    let runtime = Handle::current();
    let send = move || runtime.block_on(send_parts(bytes, length, sender, due));
    thread::Builder::new().name("backup".into()).stack_size(STACK_BYTES).spawn(send).map_err(|cause| {
        error!(%cause, "no thread to read the copy could be started");
        ApiError::Unavailable(Unavailable::NoThread)
    })?;
    let parts = stream::try_unfold((received, length), |(mut received, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        // The head is sent by now. If reading fails, the answer breaks off, so that the client sees that it is
        // incomplete.
        let part = received.recv().await.ok_or(ApiError::LoadFailed)?;
        let left = left.saturating_sub(part.len() as u64);
        Ok::<_, ApiError>(Some((part, (received, left))))
    });
    // The length lets a client detect a truncated backup, even in an answer without chunks.
    let body = SizedStream::new(length, parts);
    Ok(HttpResponse::Ok().content_type("application/octet-stream").body(body))
}

/// Reads a copy part by part, as fast as the client takes the parts. Ends if the client takes no more parts or the time
/// is over. The copy is removed then; after a success it is removed before the last part is sent, so that a client that
/// has received everything can ask for another backup at once.
async fn send_parts(bytes: Box<dyn Read + Send>, length: u64, parts: Sender<Bytes>, due: Instant) {
    let (mut copy, mut left) = (Some(bytes), length);
    while let Some(bytes) = &mut copy {
        let mut part = Vec::with_capacity(PART_BYTES);
        match bytes.take(PART_BYTES as u64).read_to_end(&mut part) {
            Ok(0) => return,
            Ok(_) => left = left.saturating_sub(part.len() as u64),
            Err(cause) => {
                warn!(%cause, "the copy could not be read");
                return;
            }
        }
        if left == 0 {
            copy = None;
        }
        match timeout_at(due, parts.send(part.into())).await {
            Ok(Ok(())) => {}
            // The client has gone.
            Ok(Err(_)) => return,
            Err(_) => {
                warn!("a backup was broken off: its client did not read all of it in time");
                return;
            }
        }
    }
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
        assert_eq!(get(&api, "/backup").await.failure(503), "a backup is being made or sent already");
        for error in [BackupError::Write, BackupError::Read] {
            let api = StandIn { backup: Some(Err(error(fault()))), ..StandIn::default() }.serving();
            let log = Log::start();
            assert_eq!(get(&api, "/backup").await.failure(503), "no backup could be made; the log says why");
            assert!(log.end().contains("/var/lib/secret"), "the log does not say why");
        }
        let api = StandIn { backup: Some(Err(BackupError::Damaged(fault()))), ..StandIn::default() }.serving();
        let log = Log::start();
        let told = get(&api, "/backup").await.failure(503);
        assert!(told.contains("check --repair") && !told.contains("secret"), "{told}");
        assert!(log.end().contains("/var/lib/secret"), "the log does not say why");
    }
}
