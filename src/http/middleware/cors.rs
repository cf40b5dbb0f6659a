use std::rc::Rc;

use actix_cors::Cors;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::http::{Method, header};
use actix_web::{Error, Result};
use futures_util::future::LocalBoxFuture;

use super::trace::REQUEST_ID;
use crate::http::access::PageAccess;
use crate::settings::WebOrigin;

/// How long a browser may remember the answer to a preflight request, in seconds: an hour.
const MAX_AGE_SECONDS: usize = 3600;

/// Lets pages of the allowed origins read the routes that are open to other origins.
pub(crate) struct ConversationCors(Cors);

impl ConversationCors {
    pub(crate) fn new(allowed_origins: &[WebOrigin]) -> Self {
        let cors = Cors::default()
            .allowed_methods([Method::GET, Method::HEAD])
            .allow_any_header()
            .expose_headers([header::ETAG, REQUEST_ID])
            .max_age(MAX_AGE_SECONDS);
        Self(if allowed_origins.is_empty() {
            cors.allow_any_origin().send_wildcard()
        } else {
            allowed_origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin.as_str()))
        })
    }
}

type CorsOf<S> = <Cors as Transform<Rc<S>, ServiceRequest>>::Transform;

impl<S, B> Transform<S, ServiceRequest> for ConversationCors
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = ConversationCorsService<S, CorsOf<S>>;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let bare = Rc::new(service);
        let with_cors = self.0.new_transform(Rc::clone(&bare));
        Box::pin(async move { Ok(ConversationCorsService { bare, with_cors: with_cors.await? }) })
    }
}

/// The application twice: once with CORS around it and once without.
pub(crate) struct ConversationCorsService<S, C> {
    bare: Rc<S>,
    with_cors: C,
}

impl<S, C, B> Service<ServiceRequest> for ConversationCorsService<S, C>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    C: Service<ServiceRequest, Response = ServiceResponse<EitherBody<B>>, Error = Error>,
    C::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response>>;

    forward_ready!(bare);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        if PageAccess::of(request.match_info().as_str()) == PageAccess::OfAllowedOrigins {
            return Box::pin(self.with_cors.call(request));
        }
        let answer = self.bare.call(request);
        Box::pin(async move { Ok(answer.await?.map_into_left_body()) })
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::http::Api;
    use crate::http::stand_in::{Answer, StandIn, ask};
    use crate::settings::HttpSettings;

    const PAGE: &str = "https://page.example";

    fn for_origins(allowed: &[&str]) -> Api {
        let allowed_origins = allowed.iter().map(|origin| origin.parse().unwrap()).collect();
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
}
