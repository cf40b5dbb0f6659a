//! The requests of commands to a running server over HTTP.

use std::io;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, SendBody};

use super::answers::Page;
use super::args::ServerUrl;
use super::output::plain;
use crate::http::BadLines;
use crate::http::error::NOTHING_TO_ERASE;
use crate::store::Position;
use crate::turn::{ConversationId, TurnId};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit for a whole request. By default the server ends a slow upload after 30 seconds. The rest is time for
/// the server's answer.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);
/// The maximum length of an answer. A full page of turns has some 100 MB if all turns have the maximum number of steps.
const MAX_ANSWER_BYTES: u64 = 256 * 1024 * 1024;
/// How long the server may take for the end of an import. It waits some 25 seconds while it is overloaded.
const IMPORT_TIMEOUT: Duration = Duration::from_mins(2);
/// How long the feed may be silent. By default the server sends a heartbeat every 15 seconds.
#[cfg(feature = "tui")]
const FEED_TIMEOUT: Duration = Duration::from_mins(1);
/// The maximum number of characters of a server's error that are shown.
const MAX_ERROR_CHARS: usize = 500;

/// The reason why a request to a server failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No answer came: nothing listens at the address, or the connection broke.
    #[error("cannot reach {url}: {}", plain(&.cause.to_string()))]
    Unreachable {
        /// The address of the server.
        url: String,
        /// The error of the system.
        cause: io::Error,
    },
    /// The server answered with an error.
    #[error("{url} answered {status}: {error}")]
    Refused {
        /// The address of the server.
        url: String,
        /// The status of the answer.
        status: u16,
        /// The error message of the server.
        error: String,
        /// The line of the body that the error is about, if any.
        line: Option<u64>,
        /// How long the server asks the client to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is not one of a turn-metrics server.
    #[error("{url} does not answer as turn-metrics does: {cause}")]
    NotUnderstood {
        /// The address of the server.
        url: String,
        /// What is wrong with the answer.
        cause: serde_json::Error,
    },
}

/// The body of the answer to posted events.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct HttpReceipt {
    pub(super) accepted: u64,
    pub(super) ignored: u64,
    pub(super) sealed: Vec<HttpTurnReceipt>,
    #[serde(default)]
    pub(super) warnings: Vec<String>,
    /// The refused lines, if bad lines are skipped, and the conversations over a limit.
    #[serde(default)]
    pub(super) refused: Vec<RefusedPart>,
}

/// A refused line or conversation.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefusedPart {
    /// The line in the body; for a conversation, its first line in the body.
    pub(super) line: u64,
    pub(super) error: String,
    #[serde(default)]
    pub(super) conversation_id: Option<ConversationId>,
}

/// A turn that is sealed, in the answer to posted events.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpTurnReceipt {
    pub(super) conversation_id: ConversationId,
    pub(super) turn_id: TurnId,
    pub(super) ordinal: u64,
    pub(super) duplicate: bool,
}

/// The body of the answer to imported turns.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct HttpImport {
    pub(super) imported: u64,
    pub(super) duplicates: u64,
    /// How many lines with sums of erased turns changed something.
    #[serde(default, rename = "erasedSums")]
    pub(super) erased_sums: u64,
    /// Whether the end of an export is missing, or an export left out what was damaged.
    #[serde(default)]
    pub(super) incomplete: bool,
    /// How many damaged turns and sums the exports leave out.
    #[serde(default, rename = "leftOut")]
    pub(super) left_out: u64,
}

/// What became of an import that the server has begun.
#[derive(Debug)]
pub(super) enum ImportOutcome {
    Done(HttpImport),
    /// The import ended at a line. All turns before it are imported.
    Ended {
        line: u64,
        error: String,
        imported: u64,
        duplicates: u64,
    },
}

/// The body of the answer to an import that ended early.
#[derive(Deserialize)]
struct ImportEndBody {
    error: String,
    line: u64,
    imported: u64,
    duplicates: u64,
}

/// A question for turns of a conversation, with their costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TurnQuestion {
    /// Only turns with a larger ordinal.
    pub(super) after: u64,
    /// Only turns with a smaller ordinal.
    pub(super) before: Option<u64>,
    pub(super) limit: usize,
    /// Whether the latest turns are returned instead of the oldest, if there are more.
    pub(super) latest: bool,
    /// Whether the open turns are returned too.
    pub(super) open: bool,
}

/// The query of a question: parameters with their values.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Adds a parameter, if it has a value.
    pub(super) fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.0.extend(value.map(|value| (name, value.to_string())));
        self
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    line: Option<u64>,
}

/// A server, and the connection to it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: Agent,
    url: ServerUrl,
}

impl Client {
    pub(super) fn new(url: ServerUrl) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            // The server is on this machine or near it, so the proxies that the environment names are not used.
            .proxy(None)
            .max_redirects(0)
            .build();
        Self { agent: config.new_agent(), url }
    }

    /// Posts events as NDJSON. The receipt may list refused conversations.
    pub(super) fn post_events(&self, body: &[u8], bad_lines: BadLines) -> Result<HttpReceipt, ClientError> {
        let query = if bad_lines == BadLines::Skip { "?bad=skip" } else { "" };
        let request = self.agent.post(format!("{}/events{query}", self.url)).content_type("application/x-ndjson");
        let response = request.send(body);
        // The server took no events of a conversation over a limit, and all events of the others. The answer contains
        // the receipt.
        if let Ok(mut response) = response {
            if response.status() == StatusCode::UNPROCESSABLE_ENTITY {
                let body = self.body(&mut response)?;
                return match serde_json::from_slice(&body) {
                    Ok(receipt) => Ok(receipt),
                    Err(_) => Err(self.refusal(&response, &body)),
                };
            }
            return self.read(Ok(response));
        }
        self.read(response)
    }

    /// Imports turns, one a line, while `body` is read.
    pub(super) fn import(&self, body: &mut dyn io::Read, is_gzip: bool) -> Result<ImportOutcome, ClientError> {
        let mut request = self.agent.post(format!("{}/import", self.url)).content_type("application/x-ndjson");
        if is_gzip {
            request = request.header("content-encoding", "gzip");
        }
        // Sending has no time limit, as the server imports while it reads.
        let request = request.config().timeout_global(None).timeout_recv_response(Some(IMPORT_TIMEOUT)).build();
        let mut response = request.send(SendBody::from_reader(body)).map_err(|error| self.unreachable(error))?;
        let body = self.body(&mut response)?;
        if response.status() == StatusCode::OK {
            return self.parsed(&body).map(ImportOutcome::Done);
        }
        let Ok(ImportEndBody { error, line, imported, duplicates }) = serde_json::from_slice(&body) else {
            return Err(self.refusal(&response, &body));
        };
        let error = error.strip_prefix(&format!("line {line}: ")).unwrap_or(&error);
        let error = plain(&error.chars().take(MAX_ERROR_CHARS).collect::<String>());
        Ok(ImportOutcome::Ended { line, error, imported, duplicates })
    }

    /// Reads turns of a conversation, in order.
    pub(super) fn turns(&self, id: &ConversationId, question: TurnQuestion) -> Result<Page, ClientError> {
        let id = utf8_percent_encode(id.as_str(), NON_ALPHANUMERIC);
        let TurnQuestion { after, before, limit, latest, open } = question;
        let query = Query::default()
            .with("after", Some(after))
            .with("before", before)
            .with("limit", Some(limit))
            .with("order", latest.then_some("latest"))
            .with("cost", Some(true))
            .with("open", open.then_some(true));
        Ok(self.ask(&format!("/conversations/{id}/turns"), &query)?.1)
    }

    /// Asks a question. Returns the answer both as the server wrote it and as the parsed value.
    pub(super) fn ask<T: for<'a> Deserialize<'a>>(
        &self,
        path: &str,
        query: &Query,
    ) -> Result<(String, T), ClientError> {
        let mut url = format!("{}{path}", self.url);
        for (nth, (name, value)) in query.0.iter().enumerate() {
            let separator = if nth == 0 { '?' } else { '&' };
            url.extend([separator.to_string().as_str(), name, "="]);
            url.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        let body = self.body(&mut self.accepted(self.agent.get(url).call())?)?;
        let answer = self.parsed(&body)?;
        Ok((String::from_utf8_lossy(&body).into_owned(), answer))
    }

    /// Erases a conversation. Returns whether there was anything to erase.
    pub(super) fn erase(&self, id: &ConversationId) -> Result<bool, ClientError> {
        let id = utf8_percent_encode(id.as_str(), NON_ALPHANUMERIC);
        let response = self.agent.delete(format!("{}/conversations/{id}", self.url)).call();
        let mut response = response.map_err(|error| self.unreachable(error))?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(true);
        }
        let body = self.body(&mut response)?;
        match self.refusal(&response, &body) {
            ClientError::Refused { status: 404, error, .. } if error == NOTHING_TO_ERASE => Ok(false),
            refusal => Err(refusal),
        }
    }

    /// Returns a copy of the server's database as a stream. Reading fails if the copy is incomplete.
    pub(super) fn backup(&self) -> Result<impl io::Read + use<>, ClientError> {
        self.stream("/backup")
    }

    /// Returns all sealed turns after a position, one a line, as a stream. Reading fails if the stream is incomplete.
    pub(super) fn export(&self, after: Option<Position>) -> Result<impl io::Read + use<>, ClientError> {
        self.stream(&after.map_or_else(|| "/export".to_owned(), |after| format!("/export?after={after}")))
    }

    /// Returns the events after the one with this id as a stream; if the id is empty, those from now on. Reading fails
    /// if the connection breaks or is silent for a long time.
    #[cfg(feature = "tui")]
    pub(super) fn feed(&self, last_id: &str) -> Result<impl io::Read + use<>, ClientError> {
        let mut request = self.agent.get(format!("{}/feed", self.url)).config();
        request = request.timeout_global(None).timeout_per_read(Some(FEED_TIMEOUT));
        let mut request = request.build();
        if !last_id.is_empty() {
            request = request.header("last-event-id", last_id);
        }
        Ok(self.accepted(request.call())?.into_body().into_with_config().limit(u64::MAX).reader())
    }

    /// Returns the date and time that the server shows in its answers, if it shows any.
    #[cfg(feature = "tui")]
    pub(super) fn date(&self) -> Result<Option<String>, ClientError> {
        let response = self.accepted(self.agent.get(format!("{}/health", self.url)).call())?;
        Ok(response.headers().get("date").and_then(|date| Some(date.to_str().ok()?.to_owned())))
    }

    fn stream(&self, path: &str) -> Result<impl io::Read + use<>, ClientError> {
        // The whole request has no time limit, as making and sending the answer may take any time.
        let request = self.agent.get(format!("{}{path}", self.url)).config();
        let response = request.timeout_global(None).build().call();
        Ok(self.accepted(response)?.into_body().into_with_config().limit(u64::MAX).reader())
    }

    fn read<T: for<'a> Deserialize<'a>>(
        &self,
        response: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        self.parsed(&self.body(&mut self.accepted(response)?)?)
    }

    fn parsed<T: for<'a> Deserialize<'a>>(&self, json: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(json).map_err(|cause| self.not_understood(cause))
    }

    /// Returns the error about an answer that is parsed in parts.
    pub(super) fn not_understood(&self, cause: serde_json::Error) -> ClientError {
        ClientError::NotUnderstood { url: self.url.to_string(), cause }
    }

    /// Returns the response if its status is 200.
    fn accepted(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, ClientError> {
        let mut response = response.map_err(|error| self.unreachable(error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let body = self.body(&mut response)?;
        Err(self.refusal(&response, &body))
    }

    fn refusal(&self, response: &Response<Body>, body: &[u8]) -> ClientError {
        let failure = serde_json::from_slice(body).unwrap_or_else(|_| {
            let reason = response.status().canonical_reason().unwrap_or("no reason given");
            ErrorBody { error: format!("{reason} (this answer is not from turn-metrics)"), line: None }
        });
        let error = plain(&failure.error.chars().take(MAX_ERROR_CHARS).collect::<String>());
        let seconds = |value: &ureq::http::HeaderValue| value.to_str().ok()?.trim().parse().ok();
        ClientError::Refused {
            url: self.url.to_string(),
            status: response.status().as_u16(),
            error,
            line: failure.line,
            retry_after: response.headers().get("retry-after").and_then(seconds).map(Duration::from_secs),
        }
    }

    fn body(&self, response: &mut Response<Body>) -> Result<Vec<u8>, ClientError> {
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        body.map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, error: ureq::Error) -> ClientError {
        ClientError::Unreachable { url: self.url.to_string(), cause: error.into_io() }
    }
}

impl ClientError {
    /// Returns the same error with the flags of a command in place of the server's parameters.
    pub(super) fn about_flags(mut self, flags: &[(&str, &str)]) -> Self {
        if let Self::Refused { status: 400, error, .. } = &mut self {
            *error = error.replace("the query parameter ", "");
            for (parameter, flag) in flags {
                *error = error.replace(&format!("`{parameter}`"), &format!("`{flag}`"));
            }
        }
        self
    }

    /// Whether sending the same events again may help. It never does harm, since events that were taken in change
    /// nothing the second time.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            // Proxies answer 502 and 504 for a server that is briefly unavailable.
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 502 | 503 | 504),
            Self::NotUnderstood { .. } => false,
        }
    }

    /// How long the server asks the client to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, answer};
    use super::*;

    #[test]
    fn an_id_with_any_characters_is_one_segment_of_the_path() {
        let script = Script::play(vec![answer(200, r#"{"turns":[],"latestOrdinal":7}"#)]);
        let id = ConversationId::new("a/../b?c#d %é").unwrap();
        let question = TurnQuestion { after: 7, limit: 2, ..TurnQuestion::default() };
        assert_eq!(Client::new(script.url()).turns(&id, question).unwrap().latest_ordinal, 7);
        let request = script.requests().remove(0);
        assert!(
            request
                .starts_with("GET /conversations/a%2F%2E%2E%2Fb%3Fc%23d%20%25%C3%A9/turns?after=7&limit=2&cost=true "),
            "{request}"
        );
    }

    #[test]
    fn a_value_with_any_characters_is_one_parameter() {
        let script = Script::play(vec![answer(200, r#"{"a": 1.0}"#)]);
        let query = Query::default().with("a", Some("x&b=+é")).with("b", None::<u64>).with("c", Some(7));
        let (json, parsed) = Client::new(script.url()).ask::<serde_json::Value>("/stats", &query).unwrap();
        assert_eq!((json.as_str(), parsed["a"].as_f64()), (r#"{"a": 1.0}"#, Some(1.0)));
        let request = script.requests().remove(0);
        assert!(request.starts_with("GET /stats?a=x%26b%3D%2B%C3%A9&c=7 "), "{request}");
    }

    #[test]
    fn the_error_of_the_server_is_shown_without_control_characters() {
        let script = Script::play(vec![answer(400, r#"{"error":"line 3: \u001b[2J","line":3}"#)]);
        let url = script.url();
        let error = Client::new(url.clone()).post_events(b"x\n", BadLines::Refuse).unwrap_err();
        assert_eq!(error.to_string(), format!("{url} answered 400: line 3: \\u{{1b}}[2J"));
        assert!(!error.is_transient());
        assert!(matches!(error, ClientError::Refused { line: Some(3), .. }));
    }

    #[test]
    fn overload_is_transient_and_has_the_time_to_wait() {
        let overloaded = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
        let script = Script::play(vec![Some(overloaded.to_owned()), None]);
        let client = Client::new(script.url());
        let error = client.post_events(b"x\n", BadLines::Refuse).unwrap_err();
        assert!(error.is_transient());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        assert!(client.post_events(b"x\n", BadLines::Refuse).unwrap_err().is_transient(), "a connection that breaks");
    }

    #[test]
    fn an_incomplete_backup_is_an_error() {
        let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab";
        for (whole, broken) in [(format!("{chunk}0\r\n\r\n"), chunk), (format!("{sized}c"), sized)] {
            let script = Script::play(vec![Some(whole), Some(broken.to_owned())]);
            let client = Client::new(script.url());
            let read = |bytes: &mut Vec<u8>| io::Read::read_to_end(&mut client.backup().unwrap(), bytes);
            let mut bytes = Vec::new();
            read(&mut bytes).unwrap();
            assert_eq!(bytes, b"abc");
            assert!(read(&mut Vec::new()).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn another_server_is_recognised() {
        let script = Script::play(vec![answer(200, "<html>"), answer(404, "<html>")]);
        let client = Client::new(script.url());
        assert!(matches!(client.post_events(b"", BadLines::Refuse).unwrap_err(), ClientError::NotUnderstood { .. }));
        let error = client.post_events(b"", BadLines::Refuse).unwrap_err().to_string();
        assert!(error.ends_with("answered 404: Not Found (this answer is not from turn-metrics)"), "{error}");
    }
}
