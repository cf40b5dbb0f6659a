use std::io;

use actix_cors::Cors;
use actix_web::http::{Method, Uri, header};

use super::request::REQUEST_ID;

/// How long a browser may remember what it was allowed, in seconds: an hour.
const MAX_AGE_SECONDS: usize = 3600;

/// Lets pages of the allowed origins read, and nothing else: events come from kernels, not from pages.
pub(super) fn cors(allowed_origins: &[String]) -> Cors {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::HEAD])
        .allow_any_header()
        .expose_headers([header::ETAG, REQUEST_ID])
        .max_age(MAX_AGE_SECONDS);
    if allowed_origins.is_empty() {
        return cors.allow_any_origin().send_wildcard();
    }
    allowed_origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// Refuses what is no origin. The layer itself would accept it and then match nothing, or fail in every worker.
pub(super) fn check_origins(allowed_origins: &[String]) -> io::Result<()> {
    match allowed_origins.iter().find(|origin| !is_origin(origin)) {
        Some(origin) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{origin}` is no origin: write it like `https://example.com` or `http://localhost:3000`"),
        )),
        None => Ok(()),
    }
}

/// Whether a browser would send this as an origin: scheme and host, perhaps a port, nothing after it.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    text == format!("{scheme}://{authority}") && !authority.as_str().contains('@')
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::super::stand_in::{Answer, StandIn, ask};
    use super::super::{Api, HttpSettings};
    use super::*;

    const PAGE: &str = "https://page.example";

    fn for_origins(allowed: &[&str]) -> Api {
        let allowed_origins = allowed.iter().map(ToString::to_string).collect();
        StandIn::default().start_with(HttpSettings { allowed_origins, ..HttpSettings::default() }).0
    }

    async fn get_from(api: &Api, origin: &str) -> Answer {
        ask(api, TestRequest::get().uri("/conversations/c/metrics").insert_header(("origin", origin))).await
    }

    async fn preflight(api: &Api, origin: &str, method: &str) -> Answer {
        let request = TestRequest::default()
            .method(Method::OPTIONS)
            .uri("/conversations/c/metrics")
            .insert_header(("origin", origin))
            .insert_header(("access-control-request-method", method))
            .insert_header(("access-control-request-headers", "if-none-match, x-request-id"));
        ask(api, request).await
    }

    fn list(answer: &Answer, header: &str) -> Vec<String> {
        let mut list: Vec<_> = answer.header(header).unwrap().split(',').map(|item| item.trim().to_owned()).collect();
        list.sort();
        list
    }

    #[actix_web::test]
    async fn pages_of_any_origin_may_read() {
        let api = for_origins(&[]);
        let answer = get_from(&api, PAGE).await;
        answer.success();
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(list(&answer, "access-control-expose-headers"), ["etag", "x-request-id"]);
        for method in ["GET", "HEAD"] {
            let answer = preflight(&api, PAGE, method).await;
            answer.success();
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            assert_eq!(list(&answer, "access-control-allow-methods"), ["GET", "HEAD"]);
            assert_eq!(list(&answer, "access-control-allow-headers"), ["if-none-match", "x-request-id"]);
        }
    }

    #[actix_web::test]
    async fn pages_may_not_post() {
        let answer = preflight(&for_origins(&[]), PAGE, "POST").await;
        assert_eq!(answer.failure(400), "Requested method is not allowed");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }

    #[actix_web::test]
    async fn named_origins_may_read_and_no_others() {
        let api = for_origins(&[PAGE, "http://localhost:3000"]);
        for origin in [PAGE, "http://localhost:3000"] {
            assert_eq!(get_from(&api, origin).await.header("access-control-allow-origin"), Some(origin));
            preflight(&api, origin, "GET").await.success();
        }
        let other = "https://page.example.org";
        assert_eq!(get_from(&api, other).await.header("access-control-allow-origin"), None);
        preflight(&api, other, "GET").await.failure(400);
    }

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_no_path() {
        for origin in ["https://example.com", "http://localhost:3000", "http://[::1]:8080"] {
            assert!(check_origins(&[origin.to_owned()]).is_ok(), "{origin}");
        }
        for origin in ["*", "", "null", "example.com", "https://example.com/", "https://a@b.c", "not an origin"] {
            let error = check_origins(&["https://example.com".to_owned(), origin.to_owned()]).unwrap_err();
            assert!(error.to_string().contains(&format!("`{origin}`")), "{error}");
        }
    }
}
