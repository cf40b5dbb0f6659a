use std::cell::RefCell;
use std::time::Instant;

use actix_cors::CorsError;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{Error, HttpResponse, HttpResponseBuilder};
use tracing::{Instrument, debug, info_span};
use uuid::Uuid;

use crate::http::error::ErrorBody;

/// The response header with the id of a request. The log has the same id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum number of bytes in a request id that a client chose.
const MAX_REQUEST_ID_BYTES: usize = 128;

thread_local! {
    /// The generator of request ids, seeded by the operating system. Ids have to be unique, not unguessable. A system
    /// call for each id would take as long as the rest of this middleware.
    static RANDOM: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::with_seed(Uuid::new_v4().as_u64_pair().0));
}

/// Middleware around every request. It gives a request an id and a span, and turns every failure into JSON.
pub(crate) async fn trace<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Result<ServiceResponse<B>, Error>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let span = info_span!(
        "request",
        method = %request.method(),
        // The log gets the pattern and not the path, because an id in the path may be confidential.
        path = request.match_pattern().as_deref().unwrap_or("unknown"),
        requestId = request_id.to_str().unwrap_or_default(),
    );
    async move {
        let (status, answer) = match next(request).await {
            Ok(response) => {
                let mut response = failure_as_json(response.map_into_boxed_body());
                response.headers_mut().insert(REQUEST_ID, request_id);
                (response.status(), Ok(response))
            }
            // An inner middleware failed without an answer.
            Err(error) => {
                let mut response = json_failure(&error.error_response(), None);
                response.headers_mut().insert(REQUEST_ID, request_id);
                (response.status(), Err(InternalError::from_response(error, response).into()))
            }
        };
        let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
        debug!(status = status.as_u16(), milliseconds, "answered");
        answer
    }
    .instrument(span)
    .await
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let chosen = headers
        .get(REQUEST_ID)
        .filter(|id| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    if let Some(id) = chosen {
        return id.clone();
    }
    let random = RANDOM.with_borrow_mut(|random| random.u128(..));
    let id = uuid::Builder::from_random_bytes(random.to_ne_bytes()).into_uuid();
    let text = id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned();
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Turns a failure of the framework or of the CORS middleware into JSON. They answer in plain text.
fn failure_as_json(response: ServiceResponse) -> ServiceResponse {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    // The framework and the middleware write neither JSON nor HTML, so such a failure was written by a resource or a
    // page.
    let is_own = content_type.is_some_and(|content_type| {
        [&b"application/json"[..], b"text/html"].iter().any(|own| content_type.as_bytes().starts_with(own))
    });
    if is_own || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (request, response) = response.into_parts();
    // Any other text may contain a cause that is not for clients.
    let text = response.error().and_then(|error| error.as_error::<CorsError>()).map(ToString::to_string);
    let response = json_failure(&response, text);
    ServiceResponse::new(request, response)
}

/// Returns a failure with the status and headers of `plain`, and a JSON body.
fn json_failure(plain: &HttpResponse, text: Option<String>) -> HttpResponse {
    let status = plain.status();
    let error = text.unwrap_or_else(|| status.canonical_reason().unwrap_or("the request failed").to_owned());
    let mut response = HttpResponseBuilder::new(status);
    for (name, value) in plain.headers() {
        if !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH) {
            response.append_header((name, value));
        }
    }
    response.json(ErrorBody::new(&error))
}

#[cfg(test)]
mod tests {
    use actix_web::dev::Service;
    use actix_web::middleware::{Next, from_fn};
    use actix_web::test::{self, TestRequest};
    use actix_web::{App, web};

    use super::*;
    use crate::http::stand_in::{Log, StandIn, ask, done, get, post};

    #[actix_web::test]
    async fn a_request_id_comes_back() {
        let api = StandIn::default().serving();
        let longest = "x".repeat(MAX_REQUEST_ID_BYTES);
        for path in ["/health", "/nowhere"] {
            for id in ["7f3a", "~!\"#", &*longest] {
                let answer = ask(&api, TestRequest::get().uri(path).insert_header((REQUEST_ID, id))).await;
                assert_eq!(answer.header("x-request-id"), Some(id));
            }
        }
    }

    #[actix_web::test]
    async fn a_request_without_a_good_id_gets_a_fresh_one() {
        let api = StandIn::default().serving();
        let too_long = "x".repeat(MAX_REQUEST_ID_BYTES + 1);
        let mut ids = Vec::new();
        for id in ["", "two words", "tab\there", "é", &*too_long] {
            let request = TestRequest::get().uri("/health").insert_header((REQUEST_ID, id.as_bytes()));
            let answer = ask(&api, request).await;
            ids.push(answer.header("x-request-id").unwrap().parse::<Uuid>().expect(id));
        }
        ids.push(get(&api, "/health").await.header("x-request-id").unwrap().parse().unwrap());
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6, "each is another");
    }

    async fn traced(
        request: ServiceRequest,
        next: Next<impl MessageBody + 'static>,
    ) -> Result<ServiceResponse<BoxBody>, Error> {
        trace(request, |request| next.call(request)).await
    }

    #[actix_web::test]
    async fn every_failure_of_a_layer_within_is_json() {
        let plain = || async { HttpResponse::Conflict().insert_header(("x-kept", "yes")).body("a secret cause") };
        let app = App::new().route("/plain", web::get().to(plain)).wrap(from_fn(traced));
        let app = test::init_service(app).await;
        let response = test::call_service(&app, TestRequest::get().uri("/plain").to_request()).await;
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers().get("x-kept").unwrap(), "yes");
        assert_eq!(test::read_body(response).await, r#"{"error":"Conflict"}"#);
    }

    #[actix_web::test]
    async fn a_layer_within_that_gives_up_is_answered_for() {
        let app = App::new()
            .wrap_fn(|_, _| async { Err::<ServiceResponse, _>(actix_web::error::ErrorBadGateway("a secret cause")) })
            .wrap(from_fn(traced));
        let app = test::init_service(app).await;
        let error = app.call(TestRequest::get().insert_header((REQUEST_ID, "7")).to_request()).await.unwrap_err();
        let response = error.error_response();
        assert_eq!(
            (response.status().as_u16(), response.headers().get(REQUEST_ID).unwrap().as_bytes()),
            (502, &b"7"[..])
        );
        let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        assert_eq!(body, r#"{"error":"Bad Gateway"}"#);
    }

    #[actix_web::test]
    async fn the_log_tells_the_request_and_nothing_of_its_content() {
        let log = Log::start();
        let api = StandIn::default().serving();
        let request = TestRequest::get().uri("/conversations/private/metrics?private=1");
        ask(&api, request.insert_header((REQUEST_ID, "abc-7"))).await.success();
        get(&api, "/private").await.failure(404);
        post(&api, done("private", "private")).await.success();
        post(&api, r#"{"type":"usage","private":1,"usage":"private"}"#).await.failure(400);
        let log = log.end();
        assert!(!log.contains("private"), "{log}");
        for part in [
            r#"request{method=GET path="/conversations/{id}/metrics" requestId="abc-7"}"#,
            "path=\"/events\"",
            "path=\"unknown\"",
            "status=200 milliseconds=",
            "status=404",
            "status=400",
        ] {
            assert!(log.contains(part), "{part} is missing in\n{log}");
        }
    }
}
