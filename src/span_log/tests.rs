use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;
use tracing::subscriber;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::recorder::Recorder;
use crate::testing::{EventLog, TestClock};
use crate::turn::{ConversationId, TurnId, TurnLabels, Usage};

struct Setup {
    clock: TestClock,
    directory: TempDir,
}

fn setup() -> Setup {
    Setup { clock: TestClock::at(1_700_000_000_000), directory: tempfile::tempdir().unwrap() }
}

impl Setup {
    fn file(&self) -> PathBuf {
        self.directory.path().join("spans.ndjson")
    }

    /// Returns the lines of the span log after `work`.
    fn logged(&self, work: impl FnOnce()) -> Vec<Value> {
        let (layer, writer) = SpanLog::start(&self.file(), &SpanLogSettings::default()).unwrap();
        let layer = layer.timed_by(self.clock.clone(), Arc::new(self.clock.clone()));
        subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        assert_eq!(writer.lost(), 0);
        drop(writer);
        let text = fs::read_to_string(self.file()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn each_closed_span_is_a_line_with_its_conversation_turn_and_step() {
    let setup = setup();
    let recorder = Recorder::with_stopwatch(EventLog::default(), Arc::new(setup.clock.clone()));
    let lines = setup.logged(|| {
        let ids = (ConversationId::new("c").unwrap(), TurnId::new("t").unwrap());
        let mut turn = recorder.start_turn(ids.0, ids.1, TurnLabels::of_model("m")).unwrap();
        let mut step = turn.start_step();
        setup.clock.advance(Duration::from_micros(2500));
        step.token();
        step.usage(Usage { input_tokens: 9.into(), output_tokens: 2.into(), ..Usage::default() });
        setup.clock.advance(Duration::from_millis(1));
        step.end("stop");
        turn.end("stop");
    });
    assert_eq!(
        lines[0],
        json!({
            "name": "ttft", "parent": "step", "conversationId": "c", "turnId": "t", "stepId": "t#0",
            "startMs": 1_700_000_000_000_u64, "durationMs": 2.5, "attributes": { "firstToken": true },
        })
    );
    assert_eq!(
        lines[3],
        json!({
            "name": "step", "parent": "turn", "conversationId": "c", "turnId": "t", "stepId": "t#0",
            "startMs": 1_700_000_000_000_u64, "durationMs": 3.5,
            "attributes": {
                "decodeMs": 1, "finishReason": "stop", "genTotalMs": 3.5, "ttftMs": 2.5,
                "usage.inputTokens": 9, "usage.outputTokens": 2,
            },
        })
    );
    let names: Vec<_> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ttft", "provider.request", "decode", "step", "turn"]);
    assert!(lines[4].get("parent").is_none() && lines[4].get("stepId").is_none(), "{}", lines[4]);
}

#[test]
fn values_of_all_types_are_kept_and_long_texts_are_cut() {
    let lines = setup().logged(|| {
        let _span = tracing::info_span!(
            "s",
            int = -1,
            big = u64::MAX,
            float = 0.5,
            nan = f64::NAN,
            yes = true,
            debug = ?[1],
            long = "é".repeat(1000)
        );
    });
    let attributes = &lines[0]["attributes"];
    assert_eq!(attributes["long"].as_str().unwrap(), "é".repeat(512));
    let others = ["int", "big", "float", "nan", "yes", "debug"].map(|name| attributes[name].clone());
    assert_eq!(json!(others), json!([-1, u64::MAX, 0.5, null, true, "[1]"]));
}

#[test]
fn a_span_log_that_cannot_be_opened_is_an_error() {
    let setup = setup();
    let error = SpanLog::start(setup.directory.path(), &SpanLogSettings::default()).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
}
