use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;

use super::acknowledged::Acknowledged;
use crate::deceptive::plain;
use crate::report::InvalidThroughputQuery;
use crate::store::{BackupError, CommitError, Report};
use crate::turn::{ConversationId, InvalidId};

/// The text of the answer to the erasure of a conversation that is not there. By this text, the command knows the answer
/// of this program from that of another one.
pub(crate) const NOTHING_TO_ERASE: &str = "there is no such conversation";

/// The reason why a request was refused or failed. Its text is for the client, so it never contains an internal cause.
/// The code that makes the error logs the cause.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// A posted line is not an event.
    #[error("line {line}: {message}")]
    BadEvent { line: u64, message: String },
    /// The request is wrong in another way.
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("the conversation id in the path is not valid: {0}")]
    BadPathId(BadPathId),
    #[error("the query parameter `{name}` must be a whole number from {first} to {last}")]
    BadNumber { name: &'static str, first: u64, last: u64 },
    #[error("the query parameter `{name}` must be {allowed}")]
    BadParameter { name: &'static str, allowed: String },
    #[error("`{name}` is no query parameter here: there {}", if .known.is_empty() { "is none".into() } else { format!("are {}", .known.join(", ")) })]
    UnknownParameter { name: String, known: &'static [&'static str] },
    #[error("the query parameter `{name}` may stand once")]
    RepeatedParameter { name: &'static str },
    #[error(
        "the answer would have more than {} rows, or look at more than {max_periods} periods: ask for a larger bucket or a \
         shorter time",
        Report::MAX_ROWS
    )]
    TooManyRows { max_periods: usize },
    /// The text of the error is the one that Dispatch sends.
    #[error(transparent)]
    BadThroughputQuery(InvalidThroughputQuery),
    #[error(
        "the turns of this conversation name more than {max_models} models, or their times differ too much for one summary"
    )]
    TooManyModels { max_models: usize },
    /// Readers know a conversation from its first sealed turn on.
    #[error("no turn of this conversation is sealed")]
    UnknownConversation,
    /// The position comes from another store, or from a time before the store was restored or repaired.
    #[error(
        "the position is not of this store's history: the store was restored or repaired, or is another one; read from the beginning"
    )]
    OtherLineage,
    #[error("{NOTHING_TO_ERASE}")]
    NothingToErase,
    #[error("there is nothing at this path")]
    NotFound,
    #[error("this method is not allowed here: use {allowed}")]
    MethodNotAllowed { allowed: &'static str },
    #[error("the body took longer than {limit_ms} ms to arrive: send less at once, or faster")]
    BodyTimeout { limit_ms: u128 },
    #[error("for {limit_ms} ms less than {bytes_per_second} bytes a second of the body arrived: send it faster")]
    BodyStalled { limit_ms: u128, bytes_per_second: usize },
    #[error("the events of the body take more than {limit_bytes} bytes: send it in parts")]
    BodyTooLarge { limit_bytes: usize },
    #[error("a line nests its brackets too deeply: at most {limit} may be open at once")]
    BodyTooDeep { limit: usize },
    #[error("the body has too many turns: send it in parts")]
    TooManyTurns,
    #[error("the body is longer than {limit_bytes} bytes: send it in parts")]
    TransferTooLarge { limit_bytes: usize },
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The request was understood and refused. Sending it again does not help. `rest` says what became of the other
    /// events.
    #[error("{message}")]
    Refused { message: String, rest: Box<Acknowledged> },
    /// An import ended at this line. All lines before it are imported, and the counts say what became of them.
    #[error("line {line}: {why}")]
    ImportEnded { line: u64, why: ImportEnd, imported: u64, duplicates: u64 },
    #[error("Failed to load conversation metrics")]
    LoadFailed,
    #[error("the store could not be read; the log says why")]
    ReadFailed,
    #[error("Failed to aggregate throughput")]
    ThroughputFailed,
    /// The service cannot serve the request now. Sending the same request again later helps, unless records are damaged.
    #[error(transparent)]
    Unavailable(Unavailable),
}

/// The reason why an import ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportEnd {
    #[error("{0}")]
    BadLine(String),
    /// The text names the setting.
    #[error("{0}")]
    TurnTooLarge(String),
    #[error("the line needs more memory than all bodies together may have (`http.max_buffered_bytes`)")]
    TooLarge,
    #[error(
        "{0}, and it is unknown whether this line and some after it were imported: import the same lines again later"
    )]
    Unavailable(&'static str),
    #[error(
        "stored records that the conversation of this line needs are damaged: stop the service, run \
         `turn-metrics check --repair`, and import the same lines again after that"
    )]
    Damaged,
    #[error(
        "for {limit_ms} ms less than {bytes_per_second} bytes a second of the body arrived: import the same lines again, \
         faster"
    )]
    Stalled { limit_ms: u128, bytes_per_second: usize },
    #[error("the body ended too early: import the same lines again")]
    Broken,
    #[error("the gzip body is cut off, so this line and all lines after it are missing")]
    CutGzip,
    #[error("the body is not valid gzip, so this line and all lines after it cannot be trusted")]
    InvalidGzip,
}

impl ImportEnd {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::BadLine(_) | Self::Broken | Self::CutGzip | Self::InvalidGzip => StatusCode::BAD_REQUEST,
            Self::TurnTooLarge(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable(_) | Self::Damaged => StatusCode::SERVICE_UNAVAILABLE,
            Self::Stalled { .. } => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

/// The reason why a segment of a path is not the id of a conversation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadPathId {
    #[error("a `%` without two hexadecimal digits; write the character `%` as `%25`")]
    Escape,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// The reason why the service cannot serve a request at the moment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    #[error("too much is being worked on, and nothing was taken in: send it again later")]
    Overloaded,
    #[error("too much of other answers is waiting to be read by their clients: ask again later")]
    TooMuchUnread,
    #[error("too many others ask for reports: ask again later")]
    TooManyReports,
    #[error("too many others import turns (`http.max_imports`), and nothing was imported: send it again later")]
    TooManyImports,
    #[error("too many others read the feed (`http.max_feed_readers`): ask again later")]
    TooManyReaders,
    /// Some events of the request may be durable and others not.
    #[error("{0}, and the outcome is unknown: send the same events again later")]
    OutcomeUnknown(&'static str),
    #[error("{0}, and it is unknown whether the conversation is erased: ask again later")]
    ErasureUnknown(&'static str),
    /// Only a repair helps. Events of other conversations may be durable.
    #[error(
        "stored records that conversation `{0}` needs are damaged: stop the service, run `turn-metrics check --repair`, and \
         send the same events again after that"
    )]
    EventsDamaged(ConversationId),
    #[error(
        "stored records that the conversation needs are damaged: stop the service, run `turn-metrics check --repair`, and \
         erase the conversation after that"
    )]
    ErasureDamaged,
    #[error("the store is gone")]
    StoreGone,
    #[error(transparent)]
    Write(CommitError),
    #[error("a durable write takes more than {seconds} seconds")]
    SlowWrite { seconds: u64 },
    #[error(transparent)]
    Backup(BackupError),
    #[error("the backup took too long")]
    SlowBackup,
    #[error("no thread could be started: the process has reached a limit of the system")]
    NoThread,
    #[error("no backup could be made; the log says why")]
    BackupFailed,
}

impl Unavailable {
    /// Returns whether the same request may succeed without a repair.
    fn may_pass(&self) -> bool {
        !matches!(self, Self::EventsDamaged(_) | Self::ErasureDamaged)
    }
}

impl ApiError {
    /// Returns the text for a client. It may quote the request, so deceptive characters in it are escaped.
    pub(crate) fn message(&self) -> String {
        plain(&self.to_string())
    }
}

/// The value of the `Retry-After` header.
const RETRY_AFTER_SECONDS: &str = "1";

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::BadEvent { .. }
            | Self::BadRequest(_)
            | Self::BadPathId(_)
            | Self::BadNumber { .. }
            | Self::BadParameter { .. }
            | Self::UnknownParameter { .. }
            | Self::RepeatedParameter { .. }
            | Self::TooManyRows { .. }
            | Self::BadThroughputQuery(_) => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::UnknownConversation | Self::NothingToErase => StatusCode::NOT_FOUND,
            Self::OtherLineage => StatusCode::GONE,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout { .. } | Self::BodyStalled { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. }
            | Self::BodyTooDeep { .. }
            | Self::TransferTooLarge { .. }
            | Self::TooManyTurns => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Refused { .. } | Self::TooManyModels { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::ImportEnded { why, .. } => why.status_code(),
            Self::LoadFailed | Self::ReadFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ThroughputFailed => StatusCode::BAD_GATEWAY,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status_code());
        match self {
            Self::MethodNotAllowed { allowed } => {
                response.insert_header((header::ALLOW, *allowed));
            }
            // If the connection stayed open, the rest of the body would be read as the next request.
            Self::BodyTimeout { .. }
            | Self::BodyStalled { .. }
            | Self::ImportEnded { why: ImportEnd::Stalled { .. }, .. } => {
                response.force_close();
            }
            Self::Unavailable(why) if !why.may_pass() => {}
            Self::Unavailable(_) | Self::ImportEnded { why: ImportEnd::Unavailable(_), .. } => {
                response.insert_header((header::RETRY_AFTER, RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        let error = self.message();
        let mut body = ErrorBody::new(&error);
        match self {
            Self::BadEvent { line, .. } => body.line = Some(*line),
            Self::Refused { rest, .. } => body.rest = Some(rest),
            Self::ImportEnded { line, imported, duplicates, .. } => {
                (body.line, body.imported, body.duplicates) = (Some(*line), Some(*imported), Some(*duplicates));
            }
            _ => {}
        }
        response.json(body)
    }
}

/// The body of the answer to every failed request.
#[derive(Serialize)]
pub(crate) struct ErrorBody<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imported: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicates: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    rest: Option<&'a Acknowledged>,
}

impl<'a> ErrorBody<'a> {
    pub(crate) fn new(error: &'a str) -> Self {
        Self { error, line: None, imported: None, duplicates: None, rest: None }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;
    use crate::store::Fault;

    #[test]
    fn why_a_request_is_to_be_sent_again_is_told_in_words_without_a_path() {
        let secret = || Fault::disk(std::io::Error::other("cannot write /var/lib/secret"));
        for (unavailable, told) in [
            (Unavailable::Overloaded, "too much is being worked on, and nothing was taken in: send it again later"),
            (
                Unavailable::OutcomeUnknown("the service is shutting down"),
                "the service is shutting down, and the outcome is unknown: send the same events again later",
            ),
            (Unavailable::TooManyReports, "too many others ask for reports: ask again later"),
            (Unavailable::StoreGone, "the store is gone"),
            (Unavailable::Write(CommitError::Unavailable(secret())), "the store is unavailable: the disk failed"),
            (Unavailable::SlowWrite { seconds: 5 }, "a durable write takes more than 5 seconds"),
            (Unavailable::Backup(BackupError::Busy), "a backup is being made or sent already"),
            (Unavailable::Backup(BackupError::Write(secret())), "the copy cannot be written: the disk failed"),
            (Unavailable::BackupFailed, "no backup could be made; the log says why"),
        ] {
            assert_eq!(ApiError::Unavailable(unavailable).to_string(), told);
        }
    }

    #[actix_web::test]
    async fn what_a_message_quotes_of_a_request_cannot_deceive_its_reader() {
        let name = "a\u{202e}b\u{1b}[2J\u{9b}\u{7f}\n é".to_owned();
        let error = ApiError::UnknownParameter { name, known: &[] };
        let expected = "`a\\u{202e}b\\u{1b}[2J\\u{9b}\\u{7f}\\u{a} é` is no query parameter here: there is none";
        assert_eq!(error.message(), expected);
        let body = to_bytes(error.error_response().into_body()).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"], expected);
    }

    #[actix_web::test]
    async fn a_failure_is_json_with_its_status_and_headers() {
        let not_allowed = ApiError::MethodNotAllowed { allowed: "POST" }.error_response();
        assert_eq!(not_allowed.status(), 405);
        assert_eq!(not_allowed.headers().get("allow").unwrap(), "POST");
        assert_eq!(not_allowed.headers().get("content-type").unwrap(), "application/json");

        let unavailable = ApiError::Unavailable(Unavailable::StoreGone).error_response();
        assert_eq!(unavailable.headers().get("retry-after").unwrap(), "1");
        assert_eq!(to_bytes(unavailable.into_body()).await.unwrap(), r#"{"error":"the store is gone"}"#);

        let bad = ApiError::BadEvent { line: 3, message: "no".to_owned() }.error_response();
        assert_eq!(bad.status(), 400);
        assert_eq!(to_bytes(bad.into_body()).await.unwrap(), r#"{"error":"line 3: no","line":3}"#);

        let timeout = ApiError::BodyTimeout { limit_ms: 5 }.error_response();
        assert!(!timeout.head().keep_alive(), "the connection is of no more use");
    }
}
