//! Sends pages.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use maud::html;

use super::layout::{Page, Place, root, whole};
use super::protection::PROTECTION;
use crate::http::error::{ApiError, Unavailable};
use crate::http::resources::api::Api;
use crate::http::resources::parts::in_parts;

/// Answers with a page. A failure is a page too.
pub(crate) fn answer(api: &Api, request: &HttpRequest, place: Place, page: Result<Page, ApiError>) -> HttpResponse {
    let root = root(request.uri().path());
    let written = page.and_then(|page| {
        let html = whole(&root, place, &page).into_string();
        let held = api.reads.try_hold(html.len()).ok_or(ApiError::Unavailable(Unavailable::TooMuchUnread))?;
        Ok((html, held))
    });
    let (mut response, body) = match written {
        Ok((html, held)) => (HttpResponse::Ok(), in_parts(html.into(), held)),
        Err(error) => {
            let page = whole(&root, place, &failure(&root, &error)).into_string();
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
    // A page shows the present state, so a browser asks again before it shows a stored copy.
    response.insert_header((header::CACHE_CONTROL, "no-cache"));
    response.content_type("text/html; charset=utf-8").body(body)
}

/// Returns the page for a failure.
fn failure(root: &str, error: &ApiError) -> Page {
    let (title, advice) = match error.status_code() {
        StatusCode::NOT_FOUND => ("Not found", "Check the address, or look it up in the list of conversations."),
        StatusCode::SERVICE_UNAVAILABLE => ("Busy", "Reload the page in a moment."),
        StatusCode::BAD_REQUEST => ("This cannot be shown", "Change the address, or choose another time above a page."),
        StatusCode::UNPROCESSABLE_ENTITY => {
            ("This cannot be shown", "The turns themselves can be read through the API.")
        }
        _ => ("This failed", "The log of the service has the cause."),
    };
    let body = html! {
        section class="card failure" role="alert" {
            h1 { (title) }
            p { (error.to_string()) "." }
            p class="advice" { (advice) }
            p {
                a class="button" href=(root) { "Overview" }
                " "
                a class="button" href={ (root) "ui/conversations" } { "Conversations" }
            }
        }
    };
    Page { title: title.to_owned(), carried: String::new(), zone: None, body }
}

/// Answers a request for an address below `/ui/` at which there is no page.
pub(crate) async fn nothing(api: Data<Api>, request: HttpRequest) -> HttpResponse {
    answer(&api, &request, Place::Conversation, Err(ApiError::NotFound))
}
