use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;

use super::acknowledged::Acknowledged;

/// Why a request was refused, or failed. Displays what the client is told, which never holds the cause within the
/// service: whoever makes one of these logs that.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// An event that was posted is no event.
    #[error("line {line}: {message}")]
    BadEvent { line: u64, message: String },
    /// Something else about the request is wrong.
    #[error("{0}")]
    BadRequest(String),
    #[error("there is nothing at this path")]
    NotFound,
    #[error("this method is not allowed here: use {allowed}")]
    MethodNotAllowed { allowed: &'static str },
    #[error("the body took longer than {limit_ms} ms to arrive: send less at once, or faster")]
    BodyTimeout { limit_ms: u128 },
    #[error("the events of the body take more than {limit_bytes} bytes: send it in parts")]
    BodyTooLarge { limit_bytes: usize },
    #[error("a line nests its brackets too deeply: at most {limit} may be open at once")]
    BodyTooDeep { limit: usize },
    #[error("the body is longer than {limit_bytes} bytes: send it in parts")]
    TransferTooLarge { limit_bytes: usize },
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The request was understood and refused: sending it again does not help. `rest` says what became of its other
    /// events.
    #[error("{message}")]
    Refused { message: String, rest: Box<Acknowledged> },
    #[error("Failed to load conversation metrics")]
    LoadFailed,
    /// Not now: sending the same again helps.
    #[error("{0}")]
    Unavailable(String),
}

/// How long a client is told to wait before it sends a refused request again.
const RETRY_AFTER_SECONDS: &str = "1";

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::BadEvent { .. } | Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } | Self::BodyTooDeep { .. } | Self::TransferTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Refused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::LoadFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status_code());
        match self {
            Self::MethodNotAllowed { allowed } => {
                response.insert_header((header::ALLOW, *allowed));
            }
            // What is still to come of the body would be read as the next request.
            Self::BodyTimeout { .. } => {
                response.force_close();
            }
            Self::Unavailable(_) => {
                response.insert_header((header::RETRY_AFTER, RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        let error = self.to_string();
        let mut body = ErrorBody::new(&error);
        match self {
            Self::BadEvent { line, .. } => body.line = Some(*line),
            Self::Refused { rest, .. } => body.rest = Some(rest),
            _ => {}
        }
        response.json(body)
    }
}

/// The body of every failure.
#[derive(Serialize)]
pub(crate) struct ErrorBody<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    rest: Option<&'a Acknowledged>,
}

impl<'a> ErrorBody<'a> {
    pub(crate) fn new(error: &'a str) -> Self {
        Self { error, line: None, rest: None }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    #[actix_web::test]
    async fn a_failure_is_json_with_its_status_and_headers() {
        let not_allowed = ApiError::MethodNotAllowed { allowed: "POST" }.error_response();
        assert_eq!(not_allowed.status(), 405);
        assert_eq!(not_allowed.headers().get("allow").unwrap(), "POST");
        assert_eq!(not_allowed.headers().get("content-type").unwrap(), "application/json");

        let unavailable = ApiError::Unavailable("later".to_owned()).error_response();
        assert_eq!(unavailable.headers().get("retry-after").unwrap(), "1");
        assert_eq!(to_bytes(unavailable.into_body()).await.unwrap(), r#"{"error":"later"}"#);

        let bad = ApiError::BadEvent { line: 3, message: "no".to_owned() }.error_response();
        assert_eq!(bad.status(), 400);
        assert_eq!(to_bytes(bad.into_body()).await.unwrap(), r#"{"error":"line 3: no","line":3}"#);

        let timeout = ApiError::BodyTimeout { limit_ms: 5 }.error_response();
        assert!(!timeout.head().keep_alive(), "the connection is of no more use");
    }
}
