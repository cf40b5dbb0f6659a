//! Sends pages.

use std::io::Write;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, AcceptEncoding, ContentEncoding, Encoding, Header};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use flate2::Compression;
use flate2::write::GzEncoder;
use maud::html;

use super::layout::{Page, Place, root, whole};
use super::link::with_query;
use super::protection::PROTECTION;
use super::view::View;
use crate::http::error::{ApiError, Unavailable};
use crate::http::resources::api::Api;
use crate::http::resources::held_bytes::HeldBytes;
use crate::http::resources::parts::in_parts;

/// Answers with a page. A failure is a page too.
pub(crate) async fn answer(
    api: &Api,
    request: &HttpRequest,
    place: Place,
    page: Result<Page, ApiError>,
) -> HttpResponse {
    let root = root(request.uri().path());
    let written = match page {
        Ok(page) => written(api, request, whole(&root, place, &page).into_string()).await,
        Err(error) => Err(error),
    };
    let (mut response, body) = match written {
        Ok((bytes, encoding, held)) => {
            let mut response = HttpResponse::Ok();
            if let Some(encoding) = encoding {
                response.insert_header(encoding);
            }
            (response, in_parts(bytes, held))
        }
        Err(error) => {
            let view = View::read_valid(api, request.query_string());
            let page = whole(&root, place, &failure(&root, place, &view, &error)).into_string();
            let failed = error.error_response();
            let mut response = HttpResponse::build(failed.status());
            for name in [header::RETRY_AFTER, header::ALLOW] {
                if let Some(value) = failed.headers().get(&name) {
                    response.insert_header((name, value));
                }
            }
            (response, in_parts(page.into(), ()))
        }
    };
    for protection in PROTECTION {
        response.insert_header(protection);
    }
    response.insert_header((header::VARY, "accept-encoding"));
    // A page shows the present state, and a browser must not show it again when a conversation was erased.
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    response.content_type("text/html; charset=utf-8").body(body)
}

/// Returns the bytes of a page, and their encoding if they are compressed.
async fn written(
    api: &Api,
    request: &HttpRequest,
    html: String,
) -> Result<(Bytes, Option<ContentEncoding>, HeldBytes), ApiError> {
    let (bytes, encoding): (Bytes, _) = match gzip(request, html.as_bytes()).await {
        Some(compressed) => (compressed.into(), Some(ContentEncoding::Gzip)),
        None => (html.into(), None),
    };
    let held = api.reads.try_hold(bytes.len()).ok_or(ApiError::Unavailable(Unavailable::TooMuchUnread))?;
    Ok((bytes, encoding, held))
}

/// Compresses a page, if its client takes gzip. A large page shrinks to a seventh. Compressing may take some milliseconds,
/// so other requests may run on this thread meanwhile.
async fn gzip(request: &HttpRequest, html: &[u8]) -> Option<Vec<u8>> {
    /// Compressing so many bytes takes less than a millisecond.
    const BYTES_AT_ONCE: usize = 32 * 1024;

    let gzip = Encoding::gzip();
    let accepted = AcceptEncoding::parse(request).ok()?.negotiate([&gzip].into_iter());
    accepted.filter(|encoding| *encoding == gzip)?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for part in html.chunks(BYTES_AT_ONCE) {
        encoder.write_all(part).ok()?;
        tokio::task::yield_now().await;
    }
    encoder.finish().ok()
}

/// Returns the page for a failure. Its links and its form keep what is valid of the chosen time and zone.
fn failure(root: &str, place: Place, view: &View, error: &ApiError) -> Page {
    let has_time = matches!(place, Place::Overview | Place::Conversations | Place::Models);
    let can_choose = has_time && error.status_code() == StatusCode::BAD_REQUEST;
    let (title, advice) = match error.status_code() {
        StatusCode::NOT_FOUND => ("Not found", "Check the address, or look it up in the list of conversations."),
        StatusCode::SERVICE_UNAVAILABLE => ("Busy", "Reload the page in a moment."),
        StatusCode::BAD_REQUEST if can_choose => {
            ("This cannot be shown", "Choose another time above, or change the address.")
        }
        StatusCode::BAD_REQUEST => ("This cannot be shown", "Change the address, or begin at one of these pages."),
        StatusCode::UNPROCESSABLE_ENTITY => {
            ("This cannot be shown", "The turns themselves can be read through the API.")
        }
        _ => ("This failed", "The log of the service has the cause."),
    };
    let carried = if has_time || place == Place::Service { view.query() } else { view.zone_query() };
    let body = html! {
        @if can_choose { (view.controls(&[], place == Place::Conversations)) }
        section class="card failure" role="alert" {
            h1 { (title) }
            p { (error.message()) "." }
            p class="advice" { (advice) }
            p {
                a class="button" href=(with_query(root, &carried)) { "Overview" }
                " "
                a class="button" href={ (root) (with_query("ui/conversations", &carried)) } { "Conversations" }
            }
        }
    };
    let zone = can_choose.then(|| view.zone.name().to_owned());
    Page { title: title.to_owned(), carried, zone, body }
}

/// Answers a request for an address below `/ui/` at which there is no page.
pub(crate) async fn nothing(api: Data<Api>, request: HttpRequest) -> HttpResponse {
    answer(&api, &request, Place::Conversation, Err(ApiError::NotFound)).await
}
