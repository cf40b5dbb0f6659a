//! Sends events until they are acknowledged.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::client::{Client, ClientError, HttpReceipt};
use crate::http::BadLines;

/// The pause before the first repetition. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, unless the server asks for a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(2);

/// The reason why events were not acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The server refused the events. Sending them again would not help.
    #[error(transparent)]
    Refused(ClientError),
    /// The events were sent as often as allowed. It is unknown whether they were taken in.
    #[error("gave up after {tries} tries")]
    GaveUp {
        /// How often they were sent.
        tries: u32,
        /// The error of the last attempt.
        source: ClientError,
    },
    /// The task that sends the events failed.
    #[error("the task that sends the events failed: {0}")]
    BrokeOff(io::Error),
}

/// Returns the pause before repetition `nth`, counted from 0.
///
/// `jitter`, from 0 to 1, spreads the repetitions of senders that failed at the same time. If the server asks for a
/// longer pause, the pause is that long.
fn pause(nth: u32, jitter: f64, retry_after: Option<Duration>) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(nth)).min(MAX_PAUSE);
    let own = full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
    own.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// Sends batches one after the other, and repeats each batch as often as necessary.
pub(super) struct Sender {
    client: Client,
    /// How often one batch may be repeated.
    retries: u32,
}

impl Sender {
    pub(super) fn new(client: Client, retries: u32) -> Self {
        Self { client, retries }
    }

    /// Sends events until they are acknowledged. Calls `note` before each repetition.
    pub(super) async fn send(
        &self,
        body: Vec<u8>,
        bad_lines: BadLines,
        note: impl Fn(&str),
    ) -> Result<HttpReceipt, SendError> {
        let body: Arc<[u8]> = body.into();
        let mut repetitions = 0;
        loop {
            let (client, sent) = (self.client.clone(), body.clone());
            let answer = tokio::task::spawn_blocking(move || client.post_events(&sent, bad_lines)).await;
            let error = match answer {
                Ok(Ok(receipt)) => return Ok(receipt),
                Ok(Err(error)) => error,
                Err(error) => return Err(SendError::BrokeOff(io::Error::other(error))),
            };
            if !error.is_transient() {
                return Err(SendError::Refused(error));
            }
            if repetitions == self.retries {
                return Err(SendError::GaveUp { tries: repetitions.saturating_add(1), source: error });
            }
            let pause = pause(repetitions, fastrand::f64(), error.retry_after());
            repetitions += 1;
            let (seconds, of) = (pause.as_secs_f64(), self.retries);
            note(&format!("{error}; sending again in {seconds:.1} s ({repetitions} of {of})"));
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::testing::{Script, answer};
    use super::*;

    fn millis(duration: Duration) -> u128 {
        duration.as_millis()
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_jitter_takes_at_most_half() {
        let full: Vec<_> = (0..8).map(|nth| millis(pause(nth, 1.0, None))).collect();
        assert_eq!(full, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(millis(pause(1, 0.0, None)), 200);
        assert_eq!(millis(pause(u32::MAX, 1.0, None)), 10_000);
    }

    #[test]
    fn a_pause_is_at_least_what_the_server_asks_for_up_to_a_limit() {
        assert_eq!(millis(pause(0, 1.0, Some(Duration::from_secs(3)))), 3000);
        assert_eq!(millis(pause(4, 1.0, Some(Duration::from_secs(1)))), 3200);
        assert_eq!(millis(pause(0, 1.0, Some(Duration::from_hours(24)))), 120_000);
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_sent_again_until_they_are_acknowledged() {
        let accepted = answer(200, r#"{"accepted":1,"ignored":0,"sealed":[]}"#);
        let script = Script::play(vec![answer(503, r#"{"error":"busy"}"#), None, answer(408, "{}"), accepted]);
        let notes = RefCell::new(Vec::new());
        let sender = Sender::new(Client::new(script.url()), 3);
        let receipt = sender
            .send(b"x\n".into(), BadLines::Refuse, |note| notes.borrow_mut().push(note.to_owned()))
            .await
            .unwrap();
        assert_eq!(receipt.accepted, 1);
        assert_eq!(notes.borrow().len(), 3);
        assert!(notes.borrow()[0].contains("answered 503: busy; sending again in 0."), "{:?}", notes.borrow());
        assert!(script.requests().iter().all(|request| request.ends_with("\r\n\r\nx\n")));
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_after_the_last_try() {
        let script = Script::play(vec![None, None]);
        let error =
            Sender::new(Client::new(script.url()), 1).send(b"x\n".into(), BadLines::Refuse, |_| {}).await.unwrap_err();
        assert_eq!(error.to_string(), "gave up after 2 tries");
        assert_eq!(script.requests().len(), 2);
    }

    #[tokio::test]
    async fn refused_events_are_sent_once() {
        let script = Script::play(vec![answer(413, r#"{"error":"too large"}"#)]);
        let error =
            Sender::new(Client::new(script.url()), 5).send(b"x\n".into(), BadLines::Refuse, |_| {}).await.unwrap_err();
        assert!(matches!(error, SendError::Refused(_)), "{error}");
        assert_eq!(script.requests().len(), 1);
    }
}
