use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::{Error, HttpRequest, HttpResponse};

use crate::http::error::ErrorBody;

/// Middleware around every request. It refuses a request whose `Expect` header has any other value than `100-continue`,
/// because the server can meet only that expectation.
pub(crate) async fn refuse_expectations<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Result<ServiceResponse<B>, Error>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if !can_be_met(request.request()) {
        let error = "the header `Expect` may only say `100-continue`";
        return Ok(request.into_response(HttpResponse::ExpectationFailed().json(ErrorBody::new(error))));
    }
    Ok(next(request).await?.map_into_boxed_body())
}

fn can_be_met(request: &HttpRequest) -> bool {
    let mut expected =
        request.headers().get_all(header::EXPECT).flat_map(|value| value.as_bytes().split(|b| *b == b','));
    expected.all(|one| one.trim_ascii().is_empty() || one.trim_ascii().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::http::stand_in::{StandIn, ask};

    #[actix_web::test]
    async fn only_what_can_be_met_may_be_expected() {
        let api = StandIn::default().serving();
        for (expected, status) in [
            ("100-continue", 200),
            ("100-Continue", 200),
            ("100-continue, 100-continue", 200),
            ("", 200),
            ("200-ok", 417),
            ("100-continue, more", 417),
            ("100-continued", 417),
            ("\"100-continue\"", 417),
        ] {
            let request = TestRequest::get().uri("/health").insert_header((header::EXPECT, expected));
            let answer = ask(&api, request).await;
            assert_eq!(answer.status, status, "{expected}");
            if status == 417 {
                assert!(answer.failure(417).contains("100-continue"));
            }
        }
    }
}
