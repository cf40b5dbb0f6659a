//! `GET /feed`: sealed turns as they become durable, and open turns as they change, as server-sent events.
//!
//! # Words
//!
//! - **hub**: the part of a worker that follows the sealed turns for all readers of this worker. It writes each turn as
//!   text once, however many readers there are.
//! - **ring**: the latest lines of a hub, from which its readers take theirs.
//! - **seat**: the place of one reader at its hub.
//! - **behind**: a reader is behind if the ring no longer has the next line for it. It then reads the store until it
//!   has reached the hub again.
//!
//! # Invariants
//!
//! - A reader gets every sealed turn that it asked for once, in the order of the positions. It takes its seat before
//!   it reads the store, and passes over the lines of turns that it already has.
//! - Neither the writer nor a hub ever waits for a reader. A reader holds no more than one line, or one page of the
//!   store, whose bytes come from the budget for answers.
//! - A hub works only while it has readers.
//!
//! # Files
//!
//! - `line`: the events as text. Pure.
//! - `ring`: the latest lines. Pure.
//! - `hang_up`: closes the connection of a client that has left, or that reads nothing when its stream has to end.
//! - `hub`: follows turns for the readers of one worker.
//! - `reader`: the stream of one reader.
//! - `tests`: streams of the whole application.

pub(crate) mod hang_up;
pub(crate) mod hub;
mod line;
mod reader;
mod ring;
#[cfg(test)]
mod tests;

use actix_web::http::header::{self, HeaderName};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;

use self::hang_up::HangUp;
use self::hub::Hub;
use self::reader::Reader;
use super::api::{Api, ask_sealed};
use super::query::Query;
use crate::actors::ListSealed;
use crate::http::error::{ApiError, Unavailable};
use crate::store::Position;
use crate::turn::ConversationId;

const PARAMETERS: &[&str] = &["after", "conversation"];

/// The position that a browser sends when it connects again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells a proxy such as nginx not to hold the events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The events from a position on, or from now on.
pub(crate) async fn get(api: Data<Api>, hub: Data<Hub>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let Asked { start, conversation_id } = Asked::of(&request)?;
    let place = api.feed.enter().ok_or(ApiError::Unavailable(Unavailable::TooManyReaders))?;
    let asked = match &start {
        Start::Now | Start::Unknown => None,
        Start::After(position) => Some(*position),
    };
    let (latest, is_known) = match latest(&api, asked).await {
        Err(ApiError::OtherLineage) => (latest(&api, None).await?, false),
        latest => (latest?, !matches!(start, Start::Unknown)),
    };
    let after = asked.filter(|_| is_known).unwrap_or(latest);
    let hang_up = request.conn_data::<HangUp>().cloned();
    if let Some(hang_up) = &hang_up {
        hang_up.when_client_leaves();
    }
    let seat = hub.enter(&api, conversation_id, latest, hang_up);
    let reader = Reader::new(api, seat, place, after, is_known);
    let events = stream::unfold(reader, |mut reader| async move {
        let bytes = reader.next().await?;
        Some((Ok::<_, ApiError>(bytes), reader))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((X_ACCEL_BUFFERING, "no"))
        .streaming(events))
}

/// Returns the position of the latest turn of the store. Fails if the store has not given the position `after`.
async fn latest(api: &Api, after: Option<Position>) -> Result<Position, ApiError> {
    let page = ask_sealed(&api.handles.reads.list_sealed, ListSealed { after, limit: 0 }).await?;
    Ok(page.latest)
}

/// Where a stream begins.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Now,
    After(Position),
    /// After an event whose id is no position, so it was not sent by a store.
    Unknown,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    start: Start,
    conversation_id: Option<ConversationId>,
}

impl Asked {
    fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let query = Query::read(request.query_string(), PARAMETERS)?;
        let allowed = "the position of a sealed turn, as the feed and `GET /turns` return it";
        let after = query.parsed("after", allowed, |text| text.parse().ok())?;
        let conversation_id =
            query.parsed("conversation", "the id of a conversation", |text| ConversationId::new(text).ok())?;
        // A browser that connects again sends the query that it began with, so the header has the newer position.
        let last = request.headers().get(LAST_EVENT_ID).filter(|last| !last.is_empty());
        let start = match (last, after) {
            (Some(last), _) => {
                let position = last.to_str().ok().and_then(|text| text.parse().ok());
                position.map_or(Start::Unknown, Start::After)
            }
            (None, Some(position)) => Start::After(position),
            (None, None) => Start::Now,
        };
        Ok(Self { start, conversation_id })
    }
}
