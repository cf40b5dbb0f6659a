//! Logs panics. The standard library would write the message of a panic to standard error itself, and wait for its
//! reader.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::{process, thread};

use serde_json::json;
use tracing::Level;

use super::log::{END_PATIENCE, Log};
use crate::store::is_catching;

/// The messages of panics that end the process at once: a panic during unwinding, or where unwinding is not allowed.
const LAST: [&str; 2] = ["panic in a destructor during cleanup", "panic in a function that cannot unwind"];

/// What to do if redb's code panics a second time while the first panic unwinds, which nothing can catch.
const DAMAGED: &str = "the process ends, as the database most likely is damaged: `turn-metrics check` says where, and \
                       `turn-metrics check --repair` saves what can be saved";

/// The panic hook of a process that has a log.
pub(super) fn log(info: &PanicHookInfo<'_>) {
    let Some(log) = Log::installed() else { return };
    let message = info.payload_as_str().unwrap_or("no message");
    let thread = thread::current();
    let mut fields = vec![("thread", json!(thread.name()))];
    fields.extend(info.location().map(|location| ("location", json!(location.to_string()))));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        fields.push(("backtrace", json!(backtrace.to_string())));
    }
    log.add(Level::ERROR, &format!("panicked: {message}"), &fields);
    if LAST.contains(&message) {
        // The process is about to end and would lose the queued lines. The standard library would end it here too, but
        // would first write a message, which may block.
        let is_of_store = is_catching();
        if is_of_store {
            log.add(Level::ERROR, DAMAGED, &[]);
        }
        log.flush_within(END_PATIENCE);
        if is_of_store {
            process::exit(1);
        }
        process::abort();
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    use super::super::log::Style;
    use super::*;
    use crate::store::caught;

    /// The environment variable that a test sets for the process that it starts in order to crash it.
    const DIES: &str = "TURN_METRICS_TEST_DIES_OF_PANICS";

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("the second");
        }
    }

    fn panic_twice() {
        let _second = PanicsWhenDropped;
        panic!("the first");
    }

    #[test]
    fn panics_that_end_the_process_are_in_the_log() {
        if let Ok(place) = env::var(DIES) {
            let (log, _writer) = Log::start(Style::Json).unwrap();
            log.install();
            if place == "store" {
                let _ = caught(panic_twice);
            }
            panic_twice();
        }
        for (place, code, last) in [("anywhere", None, None), ("store", Some(1), Some(DAMAGED))] {
            assert_ends(place, code, last);
        }
    }

    /// Asserts that a process that panics twice in this place ends with this code (`None`: by a signal), and that its log has
    /// the panics and then this line.
    fn assert_ends(place: &str, code: Option<i32>, last: Option<&str>) {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "telemetry::panic::tests::panics_that_end_the_process_are_in_the_log"]);
        let output = command.args(["--nocapture"]).env(DIES, place).env_remove("RUST_BACKTRACE").output().unwrap();
        assert_eq!(output.status.code(), code, "{place}: {output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        let told: Vec<serde_json::Value> =
            log.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: Vec<_> = told.iter().map(|line| line["message"].as_str().unwrap()).collect();
        let panicked = format!("panicked: {}", LAST[0]);
        let mut expected = vec!["panicked: the first", "panicked: the second", &*panicked];
        expected.extend(last);
        assert_eq!(messages, expected, "{log}");
        for line in &told[..2] {
            assert_eq!(line["level"], "ERROR", "{line}");
            assert!(line["location"].as_str().unwrap().contains("panic.rs:"), "{line}");
        }
    }
}
