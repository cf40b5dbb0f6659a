use std::io::{self, Read, Write};

use super::super::testing::{Script, answer};
use super::*;

fn args(server: ServerUrl, file: PathBuf) -> Args {
    Args { file, server, retries: 2, batch_lines: 2, batch_bytes: 1000 }
}

fn accepted(count: u64, sealed: &str) -> Option<String> {
    answer(200, &format!(r#"{{"accepted":{count},"ignored":1,"sealed":[{sealed}]}}"#))
}

/// Sends a text by way of a file.
async fn ingest_text(text: &str, answers: Vec<Option<String>>) -> (Result<(), IngestFailure>, Progress, Vec<String>) {
    let script = Script::play(answers);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let mut progress = Progress::new();
    let result = ingest(&args(script.url(), file.path().into()), &mut progress).await;
    let bodies = script.requests().iter().map(|request| request.split_once("\r\n\r\n").unwrap().1.into()).collect();
    (result, progress, bodies)
}

#[tokio::test]
async fn lines_are_sent_in_batches_in_order_and_counted() {
    let sealed = r#"{"conversationId":"c","turnId":"t","ordinal":1,"duplicate":false},
                    {"conversationId":"c","turnId":"u","ordinal":2,"duplicate":true}"#;
    let answers = vec![accepted(2, ""), accepted(1, sealed), accepted(1, "")];
    let (result, progress, bodies) = ingest_text("a\nb\nc\n\nd", answers).await;
    result.unwrap();
    assert_eq!(bodies, ["a\nb\n", "c\n\n", "d"]);
    assert_eq!(progress.acknowledged_lines, 5);
    let summary = progress.summary();
    assert!(summary.starts_with("4 events accepted, 3 ignored, 1 turns sealed, 1 duplicates, "), "{summary}");
}

#[tokio::test]
async fn a_bad_line_is_named_by_its_number_in_the_file() {
    let bad = answer(400, r#"{"error":"line 2: missing field `turnId` (column 15)","line":2}"#);
    let (result, progress, _) = ingest_text("a\nb\nc\nd\ne\n", vec![accepted(2, ""), bad]).await;
    let error = IngestError { failure: result.unwrap_err(), acknowledged_lines: progress.acknowledged_lines };
    assert_eq!(
        error.to_string(),
        "line 4 is refused: missing field `turnId` (column 15); all lines up to 2 are acknowledged"
    );
}

#[tokio::test]
async fn a_limit_of_the_server_is_told_with_the_lines_and_nothing_is_sent_again() {
    let over = answer(422, r#"{"error":"`c` would have more than 2 open turns","sealed":[]}"#);
    let (result, progress, bodies) = ingest_text("a\nb\nc\nd\n", vec![accepted(2, ""), over]).await;
    let error = IngestError { failure: result.unwrap_err(), acknowledged_lines: progress.acknowledged_lines };
    assert_eq!(
        error.to_string(),
        "lines 3 to 4 are refused: `c` would have more than 2 open turns; all lines up to 2 are acknowledged"
    );
    assert_eq!(bodies.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_is_given_up() {
    let (result, progress, bodies) = ingest_text("a\nb\nc\n", vec![None, None, None]).await;
    let message = result.unwrap_err().to_string();
    assert!(message.starts_with("lines 1 to 2: gave up after 3 tries: cannot reach http://127.0.0.1:"), "{message}");
    assert_eq!(progress.acknowledged_lines, 0);
    assert_eq!(bodies, ["a\nb\n"; 3]);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named() {
    let server: ServerUrl = "http://127.0.0.1:1".parse().unwrap();
    let missing = ingest(&args(server.clone(), "/nonexistent/x".into()), &mut Progress::new()).await;
    let message = missing.unwrap_err().to_string();
    assert!(message.starts_with("cannot open /nonexistent/x: "), "{message}");
    assert!(ingest(&args(server, std::env::temp_dir()), &mut Progress::new()).await.is_err());
}

/// A source whose end never comes.
struct Endless(io::Cursor<&'static [u8]>, std::sync::mpsc::Receiver<()>);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => {
                let _ = self.1.recv();
                Ok(0)
            }
            length => Ok(length),
        }
    }
}

#[tokio::test]
async fn lines_of_a_pipe_that_falls_silent_are_sent_all_the_same() {
    let script = Script::play(vec![accepted(1, "")]);
    let (end, ended) = std::sync::mpsc::channel();
    let input = Input::read(Endless(io::Cursor::new(b"a\nb"), ended), None).unwrap();
    let args = args(script.url(), "-".into());
    let mut progress = Progress::new();
    let work = stream(input, &args, &mut progress);
    tokio::select! {
        result = work => panic!("ended before the pipe did: {result:?}"),
        requests = tokio::task::spawn_blocking(|| script.requests()) => {
            assert!(requests.unwrap()[0].ends_with("\r\n\r\na\n"));
        }
    }
    drop(end);
}
