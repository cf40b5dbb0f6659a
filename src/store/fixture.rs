//! A file of each format, kept for ever: what was written by any version is read by every later one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::settings::StoreSettings;
use crate::turn::{ConversationId, Done, EpochMillis, Millis, OpenTurn, Progress, StepId, StepTimes, TurnId, Usage};

const CONVERSATIONS: [&str; 3] = ["plain", "with every field", "a/b é ✓"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn open(directory: &Path) -> Engine {
    Engine::open(Location::Directory(directory.to_owned()), &StoreSettings::default()).unwrap()
}

/// All that a store says of the conversations. An open turn is shown as what it would be if it ended now.
fn said(store: &Engine) -> Value {
    let of = |name: &str| {
        let conversation_id = ConversationId::new(name).unwrap();
        let mut state = store.conversation_state(&conversation_id, &[]).unwrap();
        state.open_turns.sort_by(|a, b| a.turn.id.cmp(&b.turn.id));
        let revision = store.revision(&conversation_id).unwrap();
        let open = state.open_turns.iter().map(|staged| {
            let ended = staged.turn.seal(&Done::because("stop"), staged.last_event_at);
            json!({
                "lastEventAt": ended.sealed_at, "model": ended.model, "metrics": ended.metrics,
                "unlabelledUsage": staged.turn.unlabelled_usage,
            })
        });
        json!({
            "conversation": name,
            "version": state.version.0,
            "revision": revision.to_string(),
            "open": open.collect::<Vec<_>>(),
            "turns": store.turns(&TurnRange { conversation_id, after: 0, limit: 99 }).unwrap(),
        })
    };
    CONVERSATIONS.map(of).into()
}

#[tokio::test]
async fn files_of_every_format_say_what_they_always_said_and_can_be_written_to() {
    for format in ["format-1", "format-2"] {
        let directory = tempfile::tempdir().unwrap();
        for file in ["redb", "journal.redb"] {
            let (from, to) =
                (fixture(&format!("{format}.{file}")), directory.path().join(format!("turn-metrics.{file}")));
            // Format 1 has no journal.
            assert!(from.exists() || (format, file) == ("format-1", "journal.redb"));
            if from.exists() {
                fs::copy(from, to).unwrap();
            }
        }
        let expected: Value = serde_json::from_slice(&fs::read(fixture(&format!("{format}.json"))).unwrap()).unwrap();
        assert_eq!(check(directory.path()).unwrap().violations, []);

        let store = open(directory.path());
        assert_eq!(said(&store), expected, "{format}");
        // What was sealed by the version that wrote the file is known to this one.
        let again =
            |id: &str| OpenTurn::new(TurnId::new(id).unwrap()).seal(&Done::because("stop"), EpochMillis::new(1));
        let committed = store.commit(Commit {
            conversation_id: ConversationId::new("plain").unwrap(),
            expected_version: Version(expected[0]["version"].as_u64().unwrap()),
            staged: Vec::new(),
            sealed: vec![again("t1"), again("of today")],
        });
        let outcomes = committed.await.unwrap().outcomes;
        let next = expected[0]["turns"].as_array().unwrap().len() as u64 + 1;
        assert!(matches!(outcomes[0].1, TurnOutcome::Duplicate(at) if at.get() == 2), "{outcomes:?}");
        assert!(matches!(outcomes[1].1, TurnOutcome::Sealed(at) if at.get() == next), "{outcomes:?}");
        store.close().await;
        assert_eq!(check(directory.path()).unwrap().violations, []);
    }
}

fn full_turn(id: &str) -> OpenTurn {
    let mut turn = OpenTurn::new(TurnId::new(id).unwrap());
    let usage = Usage {
        input_tokens: 9000.into(),
        output_tokens: 120.into(),
        cache_read_tokens: Some(8000.into()),
        cache_write_tokens: Some(0.into()),
    };
    let step = |n: usize| StepId::new(format!("{id}#{n}")).unwrap();
    let times =
        StepTimes { ttft: Some(Millis::new(51.25).unwrap()), decode: Some(7.into()), gen_total: Some(60.into()) };
    turn.fold(&Progress::Start { model: Some("a model".into()) });
    turn.fold(&Progress::Usage { step_id: Some(step(0)), usage });
    turn.fold(&Progress::StepComplete { step_id: step(0), times, model: None });
    turn.fold(&Progress::Usage { step_id: None, usage });
    turn.fold(&Progress::StepComplete { step_id: step(1), times: StepTimes::default(), model: None });
    turn.fold(&Progress::Usage { step_id: Some(step(2)), usage: Usage { input_tokens: 1.into(), ..Usage::default() } });
    turn
}

/// Writes the fixture anew. Only for a new format, under its own name: files that are committed are never changed.
///
/// The tables hold the first half, and the journal the second.
#[tokio::test]
#[ignore = "writes into the sources"]
async fn write_the_fixture_of_this_format() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let done = Done {
        reason: "max-steps".into(),
        duration: Some(Millis::new(1234.5).unwrap()),
        usage: Some(Usage { input_tokens: 18_000.into(), cache_write_tokens: Some(5.into()), ..Usage::default() }),
        context_size: Some(9120.into()),
        model: Some("another model".into()),
    };
    for version in 0..4 {
        if version == 2 {
            store.close().await;
            store = open(directory.path());
        }
        for (nth, name) in (0..).zip(CONVERSATIONS) {
            let bare = |id: &str| OpenTurn::new(TurnId::new(format!("{id}{version}")).unwrap());
            let at = EpochMillis::new(1_700_000_000_000 + nth * 1000 + version);
            let (turn, staged) = if nth == 0 {
                (bare("t").seal(&Done::because(""), at), bare("o"))
            } else {
                (full_turn(&format!("t{version}")).seal(&done, at), full_turn(&format!("o{version}")))
            };
            let commit = Commit {
                conversation_id: ConversationId::new(name).unwrap(),
                expected_version: Version(version),
                staged: vec![StagedTurn { turn: staged, last_event_at: at }],
                sealed: vec![turn],
            };
            store.commit(commit).await.unwrap();
        }
    }
    fs::create_dir_all(fixture("")).unwrap();
    fs::write(fixture("format-2.json"), serde_json::to_string_pretty(&said(&store)).unwrap() + "\n").unwrap();
    // Not closed in order, which would move everything into the tables.
    let mut writer = store.writer_state();
    drop(store);
    writer.wait_for(|state| *state != WriterState::Running).await.unwrap();
    for file in ["redb", "journal.redb"] {
        fs::copy(directory.path().join(format!("turn-metrics.{file}")), fixture(&format!("format-2.{file}"))).unwrap();
    }
}
