//! Tests that files of the present format read as expected, so that a change of the format is noticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::report::{
    BreakdownRow, Figures, Grouping, Period, PicoDollars, PriceBook, PricedStep, Quarter, RollupLabel, Selection,
};
use crate::settings::StoreSettings;
use crate::store::oracle::change;
use crate::store::redb::maintenance::compact::compact;
use crate::store::redb::tables::meta::FORMAT;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{
    Commit, ConversationOrder, ConversationQuestion, DropTurns, ErasedSums, Health, Location, RedbEngine,
    ReportQuestion, StagedTurn, TurnOutcome, TurnRange, Version, check,
};
use crate::turn::{
    ConversationId, Done, EpochMillis, Label, Millis, OpenTurn, Ordinal, Progress, StepId, StepTimes, TurnId,
    TurnLabels, UsageReport,
};

/// The first three get commits of every kind. The next ones were imported, or lost their first turn because of its age.
/// The last one was erased and began anew.
const CONVERSATIONS: [&str; 6] = ["plain", "with every field", "a/b é ✓", "imported", "aged", "erased"];

/// A token of any model costs as many pico-dollars as its name has bytes.
#[derive(Debug)]
struct FixturePrices;

impl PriceBook for FixturePrices {
    fn price(&self, step: &PricedStep<'_>) -> Option<PicoDollars> {
        let tokens = i128::from(step.prompt_tokens + step.output_tokens);
        Some(PicoDollars::new(tokens * i128::try_from(step.model.len()).unwrap()))
    }

    fn digest(&self) -> u64 {
        7
    }
}

/// Returns the path of a file of the fixture. The name has the number of the format.
fn fixture(ending: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("format-{FORMAT}.{ending}"))
}

/// Opens a store in which nothing runs in the background, so that the rows of erased conversations stay.
fn open_quietly(directory: &Path) -> RedbEngine {
    let (location, settings) = (Location::Directory(directory.to_owned()), StoreSettings::default());
    let prepared = RedbEngine::prepare_pricing(location, &settings, Backoff::default(), Arc::new(FixturePrices));
    let (store, mut writer) = prepared.unwrap();
    writer.checkpoint_by_hand();
    std::thread::spawn(move || writer.run());
    store
}

fn open(directory: &Path) -> RedbEngine {
    let location = Location::Directory(directory.to_owned());
    RedbEngine::open_pricing(location, &StoreSettings::default(), Arc::new(FixturePrices)).unwrap()
}

/// Returns everything that a store answers about the conversations. An open turn is shown as the sealed turn that it
/// would be if it ended now.
fn said(store: &RedbEngine) -> Value {
    let of = |name: &str| {
        let conversation_id = ConversationId::new(name).unwrap();
        let mut state = store.conversation_state(&conversation_id, &[]).unwrap();
        state.open_turns.sort_by(|a, b| a.turn.id.cmp(&b.turn.id));
        let revision = store.revision(&conversation_id).unwrap();
        let open = state.open_turns.iter().map(|staged| {
            let ended = staged.turn.seal(&Done::because("stop"), EpochMillis::new(1));
            json!({
                "lastEventAt": staged.last_event_at.get(),
                "ended": ended.at(Ordinal::after(0)),
                "unlabelled": [staged.turn.head.unlabelled.interim, staged.turn.head.unlabelled.finals],
                "hasFailed": staged.turn.head.has_failed,
            })
        });
        json!({
            "conversation": name,
            "version": state.version.0,
            "lastSealedAt": state.last_sealed_at,
            "revision": revision.to_string(),
            "open": open.collect::<Vec<_>>(),
            "turns": store.turns(&TurnRange::after(conversation_id, 0, 99)).unwrap(),
        })
    };
    CONVERSATIONS.map(of).into()
}

/// Returns the list of conversations by latest activity.
fn listed(store: &RedbEngine) -> Value {
    let listed = store.conversations(&ConversationQuestion::first(ConversationOrder::Recent, 99)).unwrap();
    let listed = listed.iter().map(|listed| {
        json!({
            "conversation": listed.conversation_id.as_str(),
            "turns": [listed.sealed_turns, listed.open_turns],
            "usage": listed.total_usage,
            "at": [listed.first_at, listed.last_at],
            "latest": json!([listed.model, listed.project, listed.context_size]),
            "cost": listed.sums.cost.figures(),
            "cacheRate": listed.sums.cache_rate(),
        })
    });
    listed.collect()
}

/// Returns a report of all turns by all labels, for periods that are read from rows of different levels.
fn reported(store: &RedbEngine) -> Value {
    let (start, end) = (Quarter::new(1_888_888), Quarter::new(1_888_984));
    let periods = [Period::new(start, Quarter::new(1_888_890)), Period::new(Quarter::new(1_888_890), end)];
    let grouping = Grouping { model: true, provider: true, project: true, reason: true };
    let periods = periods.map(Result::unwrap).into();
    let question = ReportQuestion { periods, grouping, selection: Selection::default() };
    let report = store.report(&question).unwrap();
    let rows = report.breakdown.rows().map(|(period, label, row)| {
        let figures = Figures::of(&row.rollup);
        json!({
            "from": period.start(),
            "label": label,
            "turns": [figures.turns.to_string(), figures.steps.to_string()],
            "usage": figures.usage,
            "times": [figures.ttft_ms, figures.step_output_tokens_per_second, figures.turn_duration_ms],
            "cost": row.cost.figures(),
        })
    });
    rows.collect()
}

/// Returns the sums of erased and dropped turns, as an export has them.
async fn erased(store: &RedbEngine) -> Value {
    let _hold = store.begin_export().await.unwrap();
    let sums = store.erased_sums(None, 99).unwrap().sums;
    assert!(sums.len() > 2, "{sums:?}");
    sums.iter().map(|sums| serde_json::from_str::<Value>(&sums.to_line().unwrap()).unwrap()).collect()
}

/// Returns the order of all turns.
fn order(store: &RedbEngine) -> Value {
    let page = store.sealed_turns(None, 99).unwrap();
    let turns = page.turns.iter().map(|sealed| {
        json!([sealed.position.to_string(), sealed.conversation_id.as_str(), sealed.turn.metrics.turn_id])
    });
    turns.collect()
}

#[tokio::test]
async fn files_of_this_format_say_what_they_always_said_and_can_be_written_to() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["redb", "journal.redb"] {
        let to = directory.path().join(format!("turn-metrics.{file}"));
        fs::copy(fixture(file), to).unwrap();
    }
    let expected: Value = serde_json::from_slice(&fs::read(fixture("json")).unwrap()).unwrap();
    assert_eq!(check(directory.path()).unwrap().violations, []);

    let store = open(directory.path());
    assert_eq!(said(&store), expected["conversations"]);
    assert_eq!(order(&store), expected["order"]);
    assert_eq!(listed(&store), expected["listed"]);
    assert_eq!(reported(&store), expected["reported"]);
    assert_eq!(store.running_time().get(), expected["runningTime"].as_u64().unwrap());
    assert_eq!(erased(&store).await, expected["erased"]);
    assert_eq!(store.take_erased_sums(vec![foreign_sums()]).await, Ok(0), "the store has these sums");
    let again = |id: &str| bare(id).seal(&Done::because("stop"), EpochMillis::new(1));
    let plain = &expected["conversations"][0];
    let committed = store.commit(Commit {
        conversation_id: ConversationId::new("plain").unwrap(),
        expected_version: Version(plain["version"].as_u64().unwrap()),
        staged: Vec::new(),
        sealed: vec![again("t1"), again("of today")],
        imported_from: None,
    });
    let outcomes = committed.await.unwrap().outcomes;
    let next = plain["turns"].as_array().unwrap().len() as u64 + 1;
    assert!(matches!(outcomes[0].1, TurnOutcome::Duplicate(at) if at.get() == 2), "{outcomes:?}");
    assert!(matches!(outcomes[1].1, TurnOutcome::Sealed(at) if at.get() == next), "{outcomes:?}");
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
}

/// Returns sums of erased turns of another store.
fn foreign_sums() -> ErasedSums {
    let id = "000000000000000000000000000000ab-0000000000000000-0000000000000007".parse().unwrap();
    ErasedSums { id, label: RollupLabel::default(), sums: BreakdownRow::default() }
}

fn bare(id: &str) -> OpenTurn {
    OpenTurn::new(TurnId::new(id).unwrap())
}

/// An event that ends a step with this generation total.
fn timed(id: &str, step: u64, millis: u64) -> Progress {
    let step_id = StepId::new(format!("{id}#{step}")).unwrap();
    let times = StepTimes { gen_total: Some(u32::try_from(millis).unwrap().into()), ..StepTimes::default() };
    Progress::StepComplete { step_id, times, model: None, provider: None }
}

fn full_turn(id: &str) -> OpenTurn {
    let mut turn = bare(id);
    let report = UsageReport {
        input_tokens: Some(9000.into()),
        output_tokens: Some(120.into()),
        cache_read_tokens: Some(8000.into()),
        cache_write_tokens: Some(0.into()),
        cache_write_1h_tokens: Some(0.into()),
    };
    let last = UsageReport { input_tokens: None, cache_write_1h_tokens: Some(3.into()), ..report };
    let small = UsageReport { input_tokens: Some(1.into()), ..UsageReport::default() };
    let step = |n: usize| StepId::new(format!("{id}#{n}")).unwrap();
    let usage = |step_id: Option<StepId>, report, is_final: bool| Progress::Usage { step_id, report, is_final };
    let complete = |step_id, times, model: Option<&str>, provider: Option<&str>| Progress::StepComplete {
        step_id,
        times,
        model: model.map(Label::from),
        provider: provider.map(Label::from),
    };
    let times =
        StepTimes { ttft: Some(Millis::new(51.25).unwrap()), decode: Some(7.into()), gen_total: Some(60.into()) };
    turn.fold(&Progress::Start(TurnLabels {
        model: Some("a model".into()),
        provider: Some("a provider".into()),
        project: Some("a project".into()),
    }));
    turn.fold(&usage(Some(step(0)), report, false));
    turn.fold(&usage(Some(step(0)), last, true));
    turn.fold(&complete(step(0), times, Some("a small model"), None));
    turn.fold(&usage(None, report, false));
    turn.fold(&usage(None, last, true));
    turn.fold(&complete(step(1), StepTimes::default(), None, Some("another provider")));
    turn.fold(&usage(Some(step(2)), small, false));
    turn.fold(&Progress::Failed);
    turn
}

/// Writes the fixture again.
///
/// The first half of the commits is in the tables, and the second half in the journal.
#[tokio::test]
#[ignore = "writes into the sources"]
async fn write_the_fixture_of_this_format() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let done = Done {
        duration: Some(Millis::new(1234.5).unwrap()),
        usage: Some(UsageReport {
            input_tokens: Some(18_000.into()),
            cache_write_tokens: Some(5.into()),
            cache_write_1h_tokens: Some(4.into()),
            ..UsageReport::default()
        }),
        context_size: Some(9120.into()),
        model: Some("another model".into()),
        provider: Some("a third provider".into()),
        ended_at: Some(EpochMillis::new(1_699_999_999_000).into()),
        ..Done::because("max-steps")
    };
    let mut grown = bare("grown");
    let mut staged_before = None;
    for version in 0..4 {
        if version == 2 {
            let commit = |name: &str, version, turns: &[(&str, u64)], imported_from| Commit {
                conversation_id: ConversationId::new(name).unwrap(),
                expected_version: Version(version),
                staged: Vec::new(),
                sealed: turns.iter().map(|(id, at)| full_turn(id).seal(&done, EpochMillis::new(*at))).collect(),
                imported_from,
            };
            let imported = [("t1", 1_700_000_000_007), ("t2", 1_700_000_000_003)];
            store.commit(commit("imported", 0, &imported, Ordinal::new(5))).await.unwrap();
            store.commit(commit("aged", 0, &[("old", 9), ("young", 1_700_000_000_000)], None)).await.unwrap();
            for name in ["erased", "erased later"] {
                store.commit(commit(name, 0, &[("gone", 1_700_000_000_001)], None)).await.unwrap();
            }
            assert_eq!(store.erase(ConversationId::new("erased").unwrap()).await, Ok(true));
            store.commit(commit("erased", 0, &[("new", 1_700_000_000_002)], None)).await.unwrap();
            let old = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(10) };
            while !store.drop_turns(old).await.unwrap().is_done {}
            assert_eq!(store.take_erased_sums(vec![foreign_sums()]).await, Ok(1));
            store.close().await;
            // Without free pages, most bytes of the file mean something.
            compact(directory.path(), Arc::new(FixturePrices)).unwrap();
            // The rows of this one are still in the tables at the end.
            store = open_quietly(directory.path());
            store.commit(commit("being erased", 0, &[("gone", 1_700_000_000_001)], None)).await.unwrap();
            store.close().await;
            store = open_quietly(directory.path());
            assert_eq!(store.erase(ConversationId::new("being erased").unwrap()).await, Ok(true));
            store.close().await;
            store = open_quietly(directory.path());
            assert_eq!(store.erase(ConversationId::new("erased later").unwrap()).await, Ok(true));
        }
        store.tick(Duration::from_millis(1000 + version)).await.unwrap();
        for (nth, name) in (0..).zip(&CONVERSATIONS[..3]) {
            let of_version = |id: &str| bare(&format!("{id}{version}"));
            let at = EpochMillis::new(1_700_000_000_000 + nth * 1000 + version);
            let (turn, open) = if nth == 0 {
                (of_version("t").seal(&Done::because(""), at), of_version("o"))
            } else {
                (full_turn(&format!("t{version}")).seal(&done, at), full_turn(&format!("o{version}")))
            };
            let staged = |turn| StagedTurn { turn, last_event_at: store.running_time() };
            let mut changes = vec![staged(open).into()];
            if nth == 0 {
                // Each commit adds a step and changes an earlier one.
                for step in [version, version / 2] {
                    grown.fold(&timed("grown", step, version));
                }
                let grown = staged(grown.clone());
                changes.push(change(staged_before.as_ref(), grown.clone()));
                staged_before = Some(grown);
            }
            let commit = Commit {
                conversation_id: ConversationId::new(*name).unwrap(),
                expected_version: Version(version),
                staged: changes,
                sealed: vec![turn],
                imported_from: None,
            };
            store.commit(commit).await.unwrap();
        }
    }
    let running_time = store.running_time().get();
    let mut said = json!({
        "runningTime": running_time,
        "order": order(&store),
        "listed": listed(&store),
        "reported": reported(&store),
        "conversations": said(&store),
    });
    // The store is not closed in order, because that would move everything from the journal into the tables.
    let mut writer = store.health();
    drop(store);
    writer.wait_for(|state| *state != Health::Running).await.unwrap();
    for file in ["redb", "journal.redb"] {
        fs::copy(directory.path().join(format!("turn-metrics.{file}")), fixture(file)).unwrap();
    }
    // A read of these sums removes the rows of erased conversations first, so the fixture is written before.
    let store = open(directory.path());
    said["erased"] = erased(&store).await;
    store.close().await;
    fs::write(fixture("json"), serde_json::to_string_pretty(&said).unwrap() + "\n").unwrap();
}
