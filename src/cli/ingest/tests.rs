use std::io::{self, Read, Write};

use super::super::testing::{Script, answer};
use super::*;

fn args(server: ServerUrl, files: Vec<PathBuf>) -> Args {
    Args { files, server, skip_bad: false, from_line: 1, retries: 2, batch_lines: 2, batch_bytes: 1000 }
}

fn upload(args: &Args) -> Upload {
    Upload::new(Sender::new(Client::new(args.server.clone()), args.retries), args.skip_bad)
}

fn accepted(count: u64, sealed: &str) -> Option<String> {
    answer(200, &format!(r#"{{"accepted":{count},"ignored":1,"sealed":[{sealed}]}}"#))
}

fn bad(line: u64) -> Option<String> {
    answer(400, &format!(r#"{{"error":"line {line}: `turnId` is missing","line":{line}}}"#))
}

/// The outcome of sending a text as a file: the result without the file's name, how much was sent, and the query and
/// the body of each request.
struct Sent {
    result: Result<(), String>,
    upload: Upload,
    requests: Vec<(bool, String)>,
}

async fn send_with(text: &str, answers: Vec<Option<String>>, change: impl FnOnce(&mut Args)) -> Sent {
    let script = Script::play(answers);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let mut args = args(script.url(), vec![file.path().into()]);
    change(&mut args);
    let mut upload = upload(&args);
    let name = format!("{}: ", file.path().display());
    let result = ingest(&args, &mut upload).await;
    let result = result.map_err(|error| error.to_string().strip_prefix(&name).unwrap().to_owned());
    let request = |request: &String| {
        (request.starts_with("POST /events?bad=skip "), request.split_once("\r\n\r\n").unwrap().1.to_owned())
    };
    Sent { result, upload, requests: script.requests().iter().map(request).collect() }
}

async fn send_text(text: &str, answers: Vec<Option<String>>) -> Sent {
    send_with(text, answers, |_| {}).await
}

fn whole(bodies: &[&str]) -> Vec<(bool, String)> {
    bodies.iter().map(|body| (false, (*body).to_owned())).collect()
}

#[tokio::test]
async fn lines_are_sent_in_batches_in_order_and_counted() {
    let sealed = r#"{"conversationId":"c","turnId":"t","ordinal":1,"duplicate":false},
                    {"conversationId":"c","turnId":"u","ordinal":2,"duplicate":true}"#;
    let answers = vec![accepted(2, ""), accepted(1, sealed), accepted(1, "")];
    let sent = send_text("a\nb\nc\n\nd", answers).await;
    sent.result.unwrap();
    assert_eq!(sent.requests, whole(&["a\nb\n", "c\n\n", "d"]));
    assert_eq!(sent.upload.progress.acknowledged_lines, 5);
    let summary = sent.upload.progress.summary();
    assert!(summary.starts_with("4 events accepted, 3 ignored, 1 turns sealed, 1 duplicates, "), "{summary}");
}

#[tokio::test]
async fn the_lines_before_a_bad_one_are_sent_and_the_line_to_continue_from_is_named() {
    let answers = vec![accepted(2, ""), bad(2), accepted(1, "")];
    let sent = send_text("a\nb\nc\nd\ne\n", answers).await;
    assert_eq!(
        sent.result.unwrap_err(),
        "line 4 is refused: `turnId` is missing (correct it, or go on after it with `--from-line 5` or `--skip-bad`); \
         all lines up to 3 are acknowledged"
    );
    assert_eq!(sent.requests, whole(&["a\nb\n", "c\nd\n", "c\n"]));
}

#[tokio::test]
async fn bad_lines_are_skipped_and_counted_on_request() {
    let refused = r#"{"accepted":1,"ignored":0,"sealed":[],"refused":[{"line":1,"error":"no"}],"refusedCount":1}"#;
    let answers = vec![bad(2), accepted(1, ""), answer(200, refused), accepted(1, "")];
    let sent = send_with("a\nb\nc\nd\n", answers, |args| {
        args.skip_bad = true;
        args.batch_lines = 3;
    })
    .await;
    sent.result.unwrap();
    let bodies: Vec<_> = sent.requests.iter().map(|(skip, body)| (*skip, &**body)).collect();
    assert_eq!(bodies, [(false, "a\nb\nc\n"), (false, "a\n"), (true, "b\nc\n"), (false, "d\n")]);
    assert_eq!((sent.upload.refused_lines, sent.upload.progress.acknowledged_lines), (1, 4));
}

#[tokio::test]
async fn it_begins_with_the_requested_line() {
    let sent = send_with("a\nb\nc\nd\n", vec![accepted(1, ""), bad(1)], |args| {
        args.from_line = 2;
    })
    .await;
    assert!(sent.result.unwrap_err().starts_with("line 4 is refused: "));
    assert_eq!(sent.requests, whole(&["b\nc\n", "d\n"]));
}

fn done(conversation: &str, turn: u32) -> String {
    format!(r#"{{"type":"done","conversationId":"{conversation}","turnId":"{turn}","reason":"stop"}}"#)
}

#[tokio::test]
async fn no_more_events_of_a_conversation_over_a_limit_are_sent_but_those_of_others_are() {
    let over = r#"{"error":"too many","accepted":1,"ignored":0,"sealed":[],"refusedCount":1,
        "refused":[{"line":1,"error":"`c` would have more than 2 open turns","conversationId":"c"}]}"#;
    let text = [done("c", 1), done("d", 1), done("c", 2), done("d", 2)].join("\n");
    let sent = send_text(&text, vec![answer(422, over), accepted(1, "")]).await;
    assert_eq!(sent.result.unwrap_err(), "1 conversations are refused, the first at line 1; all others were taken in");
    assert_eq!(sent.upload.unended, 1, "the `done` of the turn `2` was not sent");
    assert_eq!(sent.requests[1].1, format!("\n{}", done("d", 2)));
    let summary = sent.upload.progress.summary();
    assert!(summary.starts_with("2 events accepted, "), "{summary}");
}

#[tokio::test]
async fn the_error_about_a_file_without_events_names_the_types_in_it() {
    let nothing = || answer(200, r#"{"accepted":0,"ignored":2,"sealed":[]}"#);
    let text = "{\"type\":\"user\"}\n{\"type\":\"assistant\"}\n";
    let sent = send_text(text, vec![nothing()]).await;
    assert_eq!(
        sent.result.unwrap_err(),
        "none of its events counts: the first 2 are 1 of the type `user`, 1 of the type `assistant`; all lines up to 2 \
         are acknowledged"
    );
    send_text("", vec![]).await.result.unwrap();
    let resumed = send_with(&format!("x\n{text}"), vec![nothing()], |args| args.from_line = 2).await;
    let message = resumed.result.unwrap_err();
    assert!(message.starts_with("none of its events from line 2 on counts: the first 2 are 1 of"), "{message}");
    // The rest of a kernel's file may contain only deltas.
    let deltas = "x\n{\"type\":\"text-delta\"}\n{\"type\":\"status\"}\n";
    send_with(deltas, vec![nothing()], |args| args.from_line = 2).await.result.unwrap();
    send_with(deltas.strip_prefix("x\n").unwrap(), vec![nothing()], |_| {}).await.result.unwrap_err();
    let mixed = format!("{deltas}{text}");
    let sent = send_with(&mixed, vec![nothing(), nothing()], |args| args.from_line = 2).await;
    assert!(sent.result.unwrap_err().starts_with("none of its events from line 2 on counts"));
}

#[tokio::test]
async fn refused_lines_are_not_reported_as_acknowledged() {
    let refused =
        r#"{"accepted":0,"ignored":0,"sealed":[],"refused":[{"line":1,"error":"no"},{"line":2,"error":"no"}]}"#;
    let sent = send_with("a\nb\n", vec![bad(1), answer(200, refused)], |args| args.skip_bad = true).await;
    assert_eq!(
        sent.result.unwrap_err(),
        "none of its events counts: none of the first 2 lines is an event; all lines up to 2 are acknowledged, except for the refused \
         ones"
    );
}

#[tokio::test]
async fn a_foreign_file_is_recognized_even_if_its_first_line_is_bad() {
    let torn = done("c", 1).replace('}', "");
    for (text, is_foreign) in [
        ("name,tokens\nx,1\n", true),
        ("{\"role\":\"user\"}\n", true),
        ("[7]\n", true),
        (&*torn, false),
        (&*format!("x\n{}\n", done("c", 1)), false),
    ] {
        let message = send_text(text, vec![bad(1)]).await.result.unwrap_err();
        let start = if is_foreign { "none of its events counts: " } else { "line 1 is refused: " };
        assert!(message.starts_with(start), "{message}");
        assert!(message.contains("line 1 is refused: `turnId` is missing"), "{message}");
    }
    // `ingest` itself reports a line that is too long to send.
    let long = format!("[{}]\n", "1,".repeat(FOLLOWED_LINE_BYTES));
    let message = send_text(&long, vec![]).await.result.unwrap_err();
    assert!(message.starts_with("none of its events counts: the first line is not an event; line 1"), "{message}");
    // The rest of a file may begin with a bad line.
    let rest = send_with("x\ny\n", vec![bad(1)], |args| args.from_line = 2).await;
    assert!(rest.result.unwrap_err().starts_with("line 2 is refused: "));
}

#[tokio::test]
async fn a_refused_done_leaves_its_turn_open_whether_the_server_or_ingest_refuses_it() {
    let sent = send_text(&done("c", 1), vec![bad(1)]).await;
    sent.result.unwrap_err();
    assert_eq!(sent.upload.incomplete, 1);
    let long = done("c", 1).replace('}', &format!(",\"x\":\"{}", "x".repeat(FOLLOWED_LINE_BYTES)));
    let sent = send_text(&long, vec![]).await;
    sent.result.unwrap_err();
    assert_eq!(sent.upload.incomplete, 1);
}

#[tokio::test]
async fn withheld_lines_are_counted_once_even_if_their_batch_is_sent_in_parts() {
    let over = r#"{"error":"too many","accepted":0,"ignored":0,"sealed":[],"refusedCount":1,
        "refused":[{"line":1,"error":"`c` would have more than 2 open turns","conversationId":"c"}]}"#;
    let refused = r#"{"accepted":0,"ignored":0,"sealed":[],"refused":[{"line":1,"error":"no"}]}"#;
    let text = format!("{}\nx\n{}\ny\n", done("c", 1), done("c", 2));
    let sent = send_with(&text, vec![answer(422, over), bad(2), accepted(0, ""), answer(200, refused)], |args| {
        args.skip_bad = true;
    });
    let sent = sent.await;
    sent.result.unwrap();
    assert_eq!(sent.upload.unended, 1);
}

#[tokio::test]
async fn a_first_line_beyond_the_end_of_the_file_is_an_error() {
    let sent = send_with("a\nb", vec![], |args| args.from_line = 4).await;
    assert_eq!(sent.result.unwrap_err(), "there is no line 4 to begin with: the last line is 2");
    // A run whose last line was bad continues from the line after it.
    send_with("a\nb", vec![], |args| args.from_line = 3).await.result.unwrap();
    // The other files are sent nevertheless.
    let mut other = tempfile::NamedTempFile::new().unwrap();
    other.write_all(b"c").unwrap();
    let sent = send_with("", vec![accepted(1, "")], |args| {
        args.from_line = 7;
        args.files.push(other.path().into());
    })
    .await;
    assert_eq!(sent.result.unwrap_err(), "there is no line 7 to begin with: the last line is 0");
    assert_eq!(sent.requests, whole(&["c"]));
}

#[tokio::test(start_paused = true)]
async fn a_turn_sealed_without_a_refused_line_is_reported_even_if_the_first_answer_was_lost() {
    let sealed = |duplicate: bool| {
        let warning = r#""turn `1` was sealed without line 1, which was refused""#;
        let warnings = if duplicate { "" } else { warning };
        let receipt = format!(
            r#"{{"accepted":1,"ignored":0,"sealed":[{{"conversationId":"c","turnId":"1","ordinal":1,"duplicate":{duplicate}}}],
                "warnings":[{warnings}],"refused":[{{"line":1,"error":"no"}}],"refusedCount":1}}"#
        );
        answer(200, &receipt)
    };
    let refused = done("c", 1).replace("\"stop\"", "7");
    let text = format!("{refused}\n{}\n", done("c", 1));
    // The second request finds the turn sealed, so its answer calls it a duplicate.
    for (answers, told) in [(vec![bad(1), None, sealed(true)], 1), (vec![bad(1), sealed(true)], 0)] {
        let sent = send_with(&text, answers, |args| args.skip_bad = true).await;
        sent.result.unwrap();
        assert_eq!(sent.upload.incomplete, told);
    }
    // The server reports a turn that is sealed by the batch with the refused line, and `ingest` reports a turn that a
    // later batch seals.
    let later = r#"{"conversationId":"c","turnId":"1","ordinal":1,"duplicate":false}"#;
    let refused_alone =
        r#"{"accepted":0,"ignored":0,"sealed":[],"refused":[{"line":1,"error":"no"}],"refusedCount":1}"#;
    let later_text = text.replacen('\n', "\n\n", 1);
    for (text, answers) in [
        (text.clone(), vec![bad(1), sealed(false)]),
        (later_text.clone(), vec![bad(1), answer(200, refused_alone), accepted(1, later)]),
        (later_text, vec![bad(1), answer(200, refused_alone), None, accepted(1, &later.replace("false", "true"))]),
    ] {
        let sent = send_with(&text, answers, |args| args.skip_bad = true).await;
        sent.result.unwrap();
        assert_eq!((sent.upload.incomplete, sent.upload.warnings), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_early_says_how_to_continue() {
    let sent = send_text("a\nb\nc\n", vec![accepted(1, ""), answer(413, r#"{"error":"too much"}"#)]).await;
    let message = sent.result.unwrap_err();
    let end = "all lines up to 2 are acknowledged; to go on, begin with this input and `--from-line 3`";
    assert!(message.contains("answered 413") && message.ends_with(end), "{message}");
    assert!(sent.upload.progress.summary().starts_with("1 events accepted, "));
    // The conversation is over a limit. A new run would seal its turns without the refused events, so it must not
    // continue.
    let over = r#"{"error":"too many","accepted":1,"ignored":0,"sealed":[],"refusedCount":1,
        "refused":[{"line":1,"error":"`c` would have more than 2 open turns","conversationId":"c"}]}"#;
    let sent = send_text("a\nb\nc\n", vec![answer(422, over), answer(413, "{}")]).await;
    let message = sent.result.unwrap_err();
    assert!(message.ends_with("all lines up to 2 are acknowledged, except for the refused ones"), "{message}");
}

#[tokio::test]
async fn several_files_are_sent_in_order_even_if_one_is_foreign() {
    let nothing = answer(200, r#"{"accepted":0,"ignored":1,"sealed":[]}"#);
    let script = Script::play(vec![nothing, accepted(1, ""), bad(1)]);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    // The last line of the first file has no line break. It must not be joined with the first line of the next file.
    let missing = directory.path().join("missing");
    let files =
        vec![file("one", "foreign"), missing, file("two", "a\n"), file("three", &done("c", 1)), file("four", "c")];
    let args = args(script.url(), files);
    let mut upload = upload(&args);
    let error = ingest(&args, &mut upload).await.unwrap_err();
    assert!(error.input.ends_with("three") && error.to_string().contains("line 1 is refused"), "{error}");
    let requests = script.requests();
    let bodies: Vec<_> = requests.iter().map(|request| request.split_once("\r\n\r\n").unwrap().1).collect();
    assert_eq!(bodies, ["foreign", "a\n", &done("c", 1)], "a bad line ends the run, a missing file does not");
}

#[tokio::test(start_paused = true)]
async fn a_run_gives_up_if_the_server_stays_unreachable() {
    let sent = send_text("a\nb\nc\n", vec![None, None, None]).await;
    let message = sent.result.unwrap_err();
    assert!(message.starts_with("lines 1 to 2: gave up after 3 tries: cannot reach http://127.0.0.1:"), "{message}");
    assert!(message.ends_with("no line is acknowledged; to go on, begin with this input"), "{message}");
    assert_eq!(sent.upload.progress.acknowledged_lines, 0);
    assert_eq!(sent.requests, whole(&["a\nb\n"; 3]));
}

#[tokio::test]
async fn the_error_about_an_unreadable_file_names_it() {
    let server: ServerUrl = "http://127.0.0.1:1".parse().unwrap();
    let ingest_path = async |path: PathBuf| {
        let args = args(server.clone(), vec![path]);
        ingest(&args, &mut upload(&args)).await.unwrap_err().to_string()
    };
    let message = ingest_path("/nonexistent/x".into()).await;
    assert!(message.starts_with("/nonexistent/x: cannot be opened: "), "{message}");
    ingest_path(std::env::temp_dir()).await;
}

/// A source that never ends.
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
async fn the_lines_of_a_silent_pipe_are_sent_without_waiting_for_its_end() {
    let script = Script::play(vec![accepted(1, "")]);
    let (end, ended) = std::sync::mpsc::channel();
    let input = Input::read(Endless(io::Cursor::new(b"first\nsecond"), ended), None, true).unwrap();
    let args = args(script.url(), vec!["-".into()]);
    let mut upload = upload(&args);
    let work = stream(input, &args, 1, &mut upload);
    tokio::select! {
        result = work => panic!("ended before the pipe did: {result:?}"),
        requests = tokio::task::spawn_blocking(|| script.requests()) => {
            assert!(requests.unwrap()[0].ends_with("\r\n\r\nfirst\n"));
        }
    }
    drop(end);
}
