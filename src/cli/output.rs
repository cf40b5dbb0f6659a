//! Writes output for people and for pipes.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::sync::oneshot;

use super::CliError;
pub(super) use crate::deceptive::plain;
use crate::deceptive::{is_deceptive, undeceptive};
use crate::line_queue;
use crate::telemetry;
use crate::terminal::takes_escapes;

/// How long a failed server waits until its error message is written.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(1);

/// Writes to standard output. A closed pipe is not an error: a reader such as `head` has read all that it wanted.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    print_part(text).map(|_| ())
}

/// Like [`print`], for a part of the output. Breaks if the output was closed, so that the rest is not requested.
pub(super) fn print_part(text: &str) -> Result<ControlFlow<()>, CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(CliError::system("write to standard output")(error)),
    }
}

/// Like [`print`], but writes on a separate thread. So if nobody reads the output, no other thread of a server is
/// blocked.
pub(super) async fn print_apart(text: String) -> Result<(), CliError> {
    let (told, done) = oneshot::channel();
    let write = move || {
        // Sending fails if the server has ended already.
        let _ = told.send(print(&text));
    };
    thread::Builder::new().name("print".into()).spawn(write).map_err(CliError::system("write to standard output"))?;
    done.await.unwrap_or(Ok(()))
}

/// Writes a line to standard error. If the process has a log, the line goes through it and never blocks. Ignores
/// errors.
pub(super) fn note(line: &str) {
    if !telemetry::note(line) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Returns where progress is shown: on standard error, if it is a terminal that takes escapes, and else nowhere.
pub(super) fn progress_target() -> ProgressDrawTarget {
    let is_shown = io::stderr().is_terminal() && takes_escapes();
    if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

/// Draws a progress bar now, and again and again from now on. Without the first drawing, a bar would be seen only if the
/// thread that draws it began before the work has ended.
pub(super) fn keep_drawing(bar: &ProgressBar) {
    bar.tick();
    bar.enable_steady_tick(Duration::from_millis(200));
}

/// Writes the reason why a server failed, and returns its exit code. The wait for the write is limited. So the process
/// ends with that code even if standard error is a pipe that nobody reads.
pub(super) fn end_of_server(result: Result<ExitCode, CliError>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    // If no thread can be started, the message cannot be written.
    if let Ok((queue, mut writer)) = line_queue::start("last-word", 1, io::stderr()) {
        let _ = queue.offer(undeceptive(&last_word(&error)).into_owned().into_bytes());
        let _ = writer.close_within(LAST_WORD_PATIENCE);
    }
    ExitCode::FAILURE
}

/// Formats an error and its causes in one line, as `main` does for other commands.
pub(super) fn last_word(error: &dyn Error) -> String {
    let mut line = format!("turn-metrics: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line + "\n"
}

/// Escapes characters in a JSON text that JSON allows unescaped and that could deceive the reader of a terminal, such
/// as U+009B.
pub(super) fn plain_json(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() || is_deceptive(c) {
            // Writing to a string cannot fail.
            let _ = write!(plain, "\\u{:04x}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_failed_server_has_all_causes() {
        let error = CliError::system("listen for signals")(ErrorKind::PermissionDenied.into());
        assert_eq!(last_word(&error), "turn-metrics: cannot listen for signals: permission denied\n");
    }

    #[test]
    fn no_control_character_reaches_a_terminal() {
        let text = "\u{1b}\u{7f}\u{9b}\u{202e}é";
        let json = plain_json(&serde_json::to_string(text).unwrap());
        assert_eq!(json, "\"\\u001b\\u007f\\u009b\\u202eé\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
