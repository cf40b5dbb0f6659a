//! Refuses requests that pages in a browser may not make.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{Error, HttpRequest, HttpResponse};

use crate::http::access::PageAccess;
use crate::http::error::ErrorBody;

/// The header in which a browser states how the page that caused a request is related to this server. A browser sends
/// it only to a server on the same machine or behind TLS.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The header in which a browser states what the answer is for, such as an image. It sends it where it sends the other.
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Middleware around CORS. It refuses the requests of pages that may not make them, before CORS can allow them.
pub(crate) async fn refuse_pages<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Result<ServiceResponse<B>, Error>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    // The path is decoded as for routing, because the client may have escaped parts of it.
    let refusal = refusal(request.request(), request.match_info().as_str());
    Ok(match refusal {
        Some(error) => request.into_response(forbidden(error)),
        None => next(request).await?.map_into_boxed_body(),
    })
}

/// Returns the reason why the request is refused; `None` if it is not refused.
fn refusal(request: &HttpRequest, path: &str) -> Option<&'static str> {
    let is_refused = match PageAccess::of(path) {
        PageAccess::Programs if is_of_browser(request) => return Some(NO_BROWSERS),
        PageAccess::None if is_for_no_page(request) => return Some(NO_PAGES),
        PageAccess::Programs | PageAccess::None | PageAccess::OfOwnOrigin => is_of_another_origin(request),
        PageAccess::OfAllowedOrigins if is_embedded_elsewhere(request) => return Some(NOT_EMBEDDED),
        PageAccess::OfAllowedOrigins | PageAccess::Unread => {
            !request.method().is_safe() && is_of_another_origin(request)
        }
    };
    is_refused.then_some("pages of other origins may read conversations, reports and prices, and nothing else")
}

const NO_PAGES: &str = "web pages may not use this path";

const NOT_EMBEDDED: &str = "pages of other origins may read this, but not embed it";

const NO_BROWSERS: &str = "browsers may not use this path: use `turn-metrics backup`";

/// Refuses a backup to a browser. Returns `None` for a request of another program.
pub(crate) fn refuse_backup(request: &HttpRequest) -> Option<HttpResponse> {
    is_of_browser(request).then(|| forbidden(NO_BROWSERS))
}

fn forbidden(error: &str) -> HttpResponse {
    HttpResponse::Forbidden().json(ErrorBody::new(error))
}

/// Returns whether a browser sent the request. A redirect of a page looks as if a person had typed the address, so it does
/// not matter what the browser says about the page.
///
/// To a server that is neither on the same machine nor behind TLS, a browser that follows a link sends nothing about the
/// page. But every browser begins its name in the same way, and a page cannot change that without asking first.
fn is_of_browser(request: &HttpRequest) -> bool {
    let headers = request.headers();
    let has_name_of_browser = |agent: &HeaderValue| agent.as_bytes().starts_with(b"Mozilla/");
    headers.contains_key(header::ORIGIN)
        || headers.contains_key(SEC_FETCH_SITE)
        || headers.get_all(header::USER_AGENT).any(has_name_of_browser)
}

/// Returns whether a page of another origin embeds the answer as an image, an object or the like. A page cannot read such
/// an answer, but it can see whether there is one.
fn is_embedded_elsewhere(request: &HttpRequest) -> bool {
    let is_embedded = |kind: &HeaderValue| !matches!(kind.as_bytes(), b"document" | b"empty");
    request.headers().get_all(SEC_FETCH_DEST).any(is_embedded) && is_of_another_origin(request)
}

/// Returns whether a page could read the answer, or a page of another origin caused the request.
fn is_for_no_page(request: &HttpRequest) -> bool {
    // Browsers send `Origin` whenever a page could read the answer; other programs do not send it.
    request.headers().contains_key(header::ORIGIN) || is_of_another_origin(request)
}

/// Returns whether a page of another origin caused the request. An opaque origin (`null`) counts as another origin.
fn is_of_another_origin(request: &HttpRequest) -> bool {
    let headers = request.headers();
    let is_foreign = !headers.get_all(header::ORIGIN).all(|origin| is_own(origin.as_bytes(), request));
    // The value `none` means that the user typed the address.
    let is_from_elsewhere =
        !headers.get_all(SEC_FETCH_SITE).all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    is_foreign || is_from_elsewhere
}

/// Returns whether an origin is this server's own, judged by the host that the request names. The scheme is not
/// compared, because a proxy in front of the server may use another one.
fn is_own(origin: &[u8], request: &HttpRequest) -> bool {
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    let own = match request.uri().authority() {
        Some(target) => Some(target.as_str().as_bytes()),
        None => request.headers().get(header::HOST).map(HeaderValue::as_bytes),
    };
    matches!((authority, own), (Some(authority), Some(own)) if authority.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;
    use actix_web::test::TestRequest;

    use super::*;
    use crate::http::stand_in::{Answer, StandIn, ask, done, routes};

    /// The own origins of the stand-in, which is reached as `localhost`.
    const OWN: [&str; 3] = ["http://localhost", "https://localhost", "http://LOCALHOST"];

    const FOREIGN: [&str; 11] = [
        "null",
        "",
        "https://page.example",
        "http://localhost.page.example",
        "http://localhost:3000",
        "http://127.0.0.1",
        "http://xlocalhost",
        "http://localhost/",
        "http://localhost http://page.example",
        "file://localhost",
        "localhost",
    ];

    async fn answer(method: &Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let api = StandIn { check: Some(Ok(())), ..StandIn::default() }.serving();
        let request = TestRequest::with_uri(path).method(method.clone());
        ask(&api, headers.iter().fold(request, |request, header| request.append_header(*header))).await
    }

    fn assert_no_leave(answer: &Answer) {
        let granted = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(granted, None);
    }

    #[actix_web::test]
    async fn no_page_of_another_origin_changes_anything() {
        let unsafe_methods = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, "PURGE".parse().unwrap()];
        for path in routes().map(|(_, path)| path).chain(["/%65vents".to_owned()]) {
            for method in &unsafe_methods {
                for origin in FOREIGN {
                    let refused = answer(method, &path, &[("origin", origin)]).await;
                    refused.failure(403);
                    assert_no_leave(&refused);
                }
                for site in ["cross-site", "same-site", "elsewhere"] {
                    answer(method, &path, &[("sec-fetch-site", site)]).await.failure(403);
                }
                // Here no single header shows a page of another origin.
                let both = [("origin", OWN[0]), ("origin", FOREIGN[2])];
                answer(method, &path, &both).await.failure(403);
            }
        }
    }

    #[actix_web::test]
    async fn a_refused_post_is_not_taken_in_and_one_of_a_program_or_of_the_own_origin_is() {
        let (api, seen) = StandIn::default().start_with(crate::settings::HttpSettings::default());
        let post = |headers: &[(&'static str, &'static str)]| {
            let request = TestRequest::post().uri("/events").set_payload(done("c", "t"));
            let request = request.insert_header(("content-type", "application/json"));
            headers.iter().fold(request, |request, header| request.append_header(*header))
        };
        ask(&api, post(&[("origin", "https://page.example")])).await.failure(403);
        assert!(seen.lock().unwrap().observes.is_empty());
        ask(&api, post(&[])).await.success();
        for origin in OWN {
            ask(&api, post(&[("origin", origin), ("sec-fetch-site", "same-origin")])).await.success();
        }
        ask(&api, post(&[("sec-fetch-site", "none")])).await.success();
        let proxied = TestRequest::post().insert_header(("host", "app.example"));
        assert!(!is_of_another_origin(&proxied.insert_header(("origin", "https://app.example")).to_http_request()));
        assert_eq!(seen.lock().unwrap().observes.len(), 5);
    }

    #[actix_web::test]
    async fn backups_and_readiness_checks_are_not_for_pages_of_other_origins() {
        let foreign_sites = ["cross-site", "same-site", "elsewhere"].map(|site| ("sec-fetch-site", site));
        let foreign = FOREIGN.map(|origin| ("origin", origin)).into_iter().chain(foreign_sites);
        for header in foreign {
            for path in ["/backup", "/%62ackup", "/backup?x=y", "/ready", "/read%79"] {
                for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                    let refused = answer(&method, path, &[header]).await;
                    assert_eq!(refused.status, 403, "{method} {path} with {header:?}");
                    assert_no_leave(&refused);
                }
            }
        }
        for site in ["same-origin", "none"] {
            answer(&Method::GET, "/ready", &[("sec-fetch-site", site)]).await.success();
            answer(&Method::GET, "/backup", &[("sec-fetch-site", site)]).await.failure(403);
        }
        answer(&Method::GET, "/ready", &[("origin", OWN[0])]).await.success();
        answer(&Method::GET, "/backup", &[("origin", OWN[0])]).await.failure(403);
        let browser =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36";
        answer(&Method::GET, "/backup", &[("user-agent", browser)]).await.failure(403);
        // Control: the request of a program reaches the store, which has no copy here.
        answer(&Method::GET, "/backup", &[]).await.failure(503);
        answer(&Method::GET, "/backup", &[("user-agent", "curl/8.5.0")]).await.failure(503);
    }

    #[actix_web::test]
    async fn a_page_of_another_origin_cannot_embed_what_it_may_read() {
        for (method, path) in routes().filter(|(_, path)| PageAccess::of(path) == PageAccess::OfAllowedOrigins) {
            let mut answers = Vec::new();
            for (site, kind) in [
                ("cross-site", "object"),
                ("cross-site", "image"),
                ("same-site", "iframe"),
                ("same-origin", "image"),
                ("cross-site", "document"),
                ("cross-site", "empty"),
            ] {
                let headers = [("sec-fetch-site", site), ("sec-fetch-dest", kind)];
                answers.push(answer(&method, &path, &headers).await.status == 403);
            }
            assert_eq!(answers, [true, true, true, false, false, false], "{method} {path}");
        }
    }

    #[actix_web::test]
    async fn only_routes_for_pages_of_allowed_origins_are_open_to_other_origins() {
        for (method, path) in routes() {
            let is_open = PageAccess::of(&path) == PageAccess::OfAllowedOrigins;
            for (method, asked) in [(method, None), (Method::OPTIONS, Some("GET")), (Method::OPTIONS, Some("POST"))] {
                let preflight = asked.map(|asked| ("access-control-request-method", asked));
                let headers: Vec<_> = [("origin", "https://page.example")].into_iter().chain(preflight).collect();
                let answer = answer(&method, &path, &headers).await;
                let granted = answer.header("access-control-allow-origin");
                assert_eq!(granted, (is_open && asked != Some("POST")).then_some("*"), "{method} {path} {asked:?}");
            }
        }
    }
}
