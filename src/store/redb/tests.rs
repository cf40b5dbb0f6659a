//! Tests of the engine on redb besides the conformance suite, mainly of its files. They use no key and no table.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::writer::backoff::Backoff;
use crate::report::NoPrices;
use crate::settings::StoreSettings;
use crate::store::oracle::{change, question_of_1970};
use crate::store::{
    Commit, CommitError, Committed, ConversationOrder, ConversationQuestion, DropError, DropTurns, FaultKind, Health,
    ListSealedError, Location, OpenError, Position, RedbEngine, StagedTurn, StoreSizes, TurnOutcome, Version, check,
};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenTurn, Progress, RunningTime, StepId, StoredTurn, TurnId, TurnLabels, Usage,
};

fn conversation(id: &str) -> ConversationId {
    ConversationId::new(id).unwrap()
}

fn open(id: &str, at: u64) -> StagedTurn {
    let mut turn = OpenTurn::new(TurnId::new(id).unwrap());
    turn.fold(&Progress::Start(TurnLabels::of_model("m")));
    StagedTurn { turn, last_event_at: RunningTime::new(at) }
}

fn sealed(id: &str) -> crate::turn::SealedTurn {
    open(id, 1).turn.seal(&Done { duration: Some(9.into()), ..Done::because("stop") }, EpochMillis::new(7))
}

fn commit(id: &str, version: u64, staged: &[&str], ended: &[&str]) -> Commit {
    Commit {
        conversation_id: conversation(id),
        expected_version: Version(version),
        staged: staged.iter().map(|id| open(id, 5).into()).collect(),
        sealed: ended.iter().map(|id| sealed(id)).collect(),
        imported_from: None,
    }
}

fn outcomes(committed: &Committed) -> Vec<(&str, TurnOutcome)> {
    committed.outcomes.iter().map(|(id, outcome)| (id.as_str(), *outcome)).collect()
}

fn at(ordinal: u64) -> crate::turn::Ordinal {
    crate::turn::Ordinal::new(ordinal).unwrap()
}

fn all(engine: &RedbEngine, id: &str) -> Vec<StoredTurn> {
    engine.all_turns(&conversation(id)).unwrap()
}

fn ids(turns: &[StoredTurn]) -> Vec<(u64, &str)> {
    turns.iter().map(|turn| (turn.ordinal.get(), turn.metrics.turn_id.as_str())).collect()
}

fn in_memory() -> RedbEngine {
    RedbEngine::open(Location::Memory, &StoreSettings::default()).unwrap()
}

fn in_directory(directory: &std::path::Path) -> Result<RedbEngine, OpenError> {
    RedbEngine::open(Location::Directory(directory.to_owned()), &StoreSettings::default())
}

#[tokio::test]
async fn the_moment_of_sealing_never_falls_in_a_conversation() {
    let directory = tempfile::tempdir().unwrap();
    let seal = |id: &str, at| open(id, 1).turn.seal(&Done::because("stop"), EpochMillis::new(at));
    let mut store = in_directory(directory.path()).unwrap();
    let turns = [("a", 100), ("b", 50), ("c", 120), ("d", 0), ("e", 119)];
    for (version, (id, at)) in (0..).zip(turns) {
        if version == 3 {
            store.close().await;
            store = in_directory(directory.path()).unwrap();
        }
        store.commit(Commit { sealed: vec![seal(id, at)], ..commit("c", version, &[], &[]) }).await.unwrap();
        let state = store.conversation_state(&conversation("c"), &[]).unwrap();
        assert_eq!(state.last_sealed_at, all(&store, "c").last().unwrap().sealed_at);
    }
    store.commit(Commit { sealed: vec![seal("a", 7)], ..commit("other", 0, &[], &[]) }).await.unwrap();
    let moments = |id| all(&store, id).iter().map(|turn| turn.sealed_at.get()).collect::<Vec<_>>();
    assert_eq!((moments("c"), moments("other")), (vec![100, 100, 120, 120, 120], vec![7]));
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
}

/// Drops all turns by this clock. Returns the number of dropped turns, or by how many whole days the clock is ahead.
async fn drop_all(store: &RedbEngine, now: u64) -> Result<u64, u64> {
    let question = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(now) };
    let mut dropped = 0;
    loop {
        match store.drop_turns(question).await {
            Ok(step) => {
                dropped += step.turns;
                if step.is_done {
                    return Ok(dropped);
                }
            }
            Err(DropError::ClockAhead { by }) => return Err(by.as_secs() / 86_400),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_clock_that_has_jumped_drops_nothing_for_a_day_of_running_time_however_often_the_store_is_reopened() {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let directory = tempfile::tempdir().unwrap();
    let mut store = in_directory(directory.path()).unwrap();
    store.commit(commit("c", 0, &[], &["a"])).await.unwrap();
    assert_eq!(drop_all(&store, 5).await, Ok(0), "the turn is not old yet");
    let ahead = Err(9);
    assert_eq!(drop_all(&store, 10 * DAY).await, ahead);
    assert_eq!(drop_all(&store, 6).await, Ok(0), "the clock is set right");
    assert_eq!(drop_all(&store, 10 * DAY).await, ahead);
    for _ in 0..2 {
        store.close().await;
        store = in_directory(directory.path()).unwrap();
        assert_eq!(drop_all(&store, 10 * DAY).await, ahead, "a restart does not make the clock right");
    }
    store.tick(Duration::from_millis(DAY / 2)).await.unwrap();
    assert_eq!(drop_all(&store, 10 * DAY + DAY / 2).await, ahead);
    store.tick(Duration::from_millis(DAY / 2)).await.unwrap();
    store.close().await;
    let store = in_directory(directory.path()).unwrap();
    assert_eq!(all(&store, "c").len(), 1);
    assert_eq!(drop_all(&store, 11 * DAY).await, Ok(1), "the clock has gone on evenly for a day");
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
}

#[tokio::test]
async fn a_commit_larger_than_its_limit_is_refused_alone_and_the_store_goes_on() {
    // So few turns fit into it that the three commits are no overload.
    const LIMIT: usize = 16 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { max_commit_bytes: LIMIT, ..StoreSettings::default() };
    let store = RedbEngine::open(Location::Directory(directory.path().to_owned()), &settings).unwrap();
    let of_turns = |id: &str, count: usize| {
        let turns = (0..count).map(|nth| sealed(&format!("turn-{nth:04}")));
        Commit { sealed: turns.collect(), ..commit(id, 0, &[], &[]) }
    };
    let most = (1..LIMIT).take_while(|count| of_turns("c", *count).bytes() <= LIMIT).last().unwrap();
    // The three commits are queued together, so that one transaction may take them all.
    let before = store.commit(commit("a", 0, &["open"], &["t"]));
    let large = store.commit(of_turns("b", most + 1));
    let exact = store.commit(of_turns("c", most));
    before.await.unwrap();
    let refusal = large.await.unwrap_err();
    assert!(matches!(refusal, CommitError::TooLarge { bytes, limit: LIMIT } if bytes > LIMIT), "{refusal}");
    assert_eq!(exact.await.unwrap().outcomes.len(), most);
    assert_eq!((all(&store, "b").len(), all(&store, "c").len()), (0, most));
    store.commit(of_turns("b", 1)).await.unwrap();
    assert_eq!(*store.health().borrow(), Health::Running);
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
}

#[tokio::test]
async fn the_running_time_adds_up_over_restarts_kills_and_backups() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path()).unwrap();
    assert_eq!(store.running_time(), RunningTime::default());
    assert_eq!(store.tick(Duration::from_millis(1500)).await.unwrap(), RunningTime::new(1500));
    let (one, other) = (store.tick(Duration::from_millis(1)), store.tick(Duration::from_millis(2)));
    drop(one);
    assert_eq!(other.await.unwrap(), RunningTime::new(1503), "a tick counts even if nobody awaits its answer");
    store.close().await;

    let store = in_directory(directory.path()).unwrap();
    assert_eq!(store.running_time(), RunningTime::new(1503));
    store.tick(Duration::from_secs(1)).await.unwrap();
    let backup = tempfile::tempdir().unwrap();
    let mut copy = fs::File::create(backup.path().join("turn-metrics.redb")).unwrap();
    std::io::copy(&mut store.back_up().unwrap().bytes, &mut copy).unwrap();
    assert_eq!(in_directory(backup.path()).unwrap().running_time(), RunningTime::new(2503));

    // The store is not stopped in order, so the journal has the running time and the main file does not.
    let mut writer = store.health();
    drop(store);
    writer.wait_for(|state| *state != Health::Running).await.unwrap();
    assert_eq!(in_directory(directory.path()).unwrap().running_time(), RunningTime::new(2503));
}

/// Returns whether a file of the directory has these bytes.
fn have(directory: &std::path::Path, text: &str) -> bool {
    let files = fs::read_dir(directory).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

#[tokio::test]
async fn after_a_compaction_no_file_has_an_id_of_an_erased_conversation_and_reports_are_as_before() {
    const SECRETS: [&str; 4] = ["a-secret-conversation", "a-secret-turn", "a-secret-open-turn", "a-secret-step"];
    let turn = |id: &str| {
        let mut turn = OpenTurn::new(TurnId::new(id).unwrap());
        let usage = Usage { input_tokens: 900.into(), output_tokens: 20.into(), ..Usage::default() };
        let step_id = Some(StepId::new("a-secret-step").unwrap());
        turn.fold(&Progress::Usage { step_id, report: usage.into(), is_final: false });
        StagedTurn { turn, last_event_at: RunningTime::new(1) }
    };
    // The erasure is in the tables, in the journal of a store that was closed, or in that of a store that was lost.
    for (closes_before, is_lost) in [(true, false), (false, false), (true, true), (false, true)] {
        let directory = tempfile::tempdir().unwrap();
        let store = in_directory(directory.path()).unwrap();
        let done = Done { model: Some("a-model".into()), ..Done::because("stop") };
        let secret = Commit {
            conversation_id: conversation(SECRETS[0]),
            expected_version: Version(0),
            staged: vec![turn(SECRETS[2]).into()],
            sealed: vec![turn(SECRETS[1]).turn.seal(&done, EpochMillis::new(7))],
            imported_from: None,
        };
        store.commit(secret).await.unwrap();
        store.commit(commit("c", 0, &[], &["other"])).await.unwrap();
        let store = if closes_before {
            store.close().await;
            in_directory(directory.path()).unwrap()
        } else {
            store
        };
        assert!(SECRETS.iter().all(|secret| have(directory.path(), secret)), "control: they are there");
        let before = store.report(&question_of_1970()).unwrap();
        assert_eq!(store.erase(conversation(SECRETS[0])).await, Ok(true));
        if is_lost {
            let mut health = store.health();
            drop(store);
            health.wait_for(|health| *health != Health::Running).await.unwrap();
        } else {
            store.close().await;
        }
        crate::store::compact(directory.path(), Arc::new(NoPrices)).unwrap();
        let found: Vec<_> = SECRETS.iter().filter(|secret| have(directory.path(), secret)).collect();
        assert_eq!(found, [&""; 0], "{closes_before} {is_lost}");
        assert_eq!(check(directory.path()).unwrap().violations, []);
        let store = in_directory(directory.path()).unwrap();
        assert_eq!(store.report(&question_of_1970()).unwrap(), before);
        assert_eq!(ids(&all(&store, "c")), [(1, "other")]);
        assert_eq!(store.erase(conversation(SECRETS[0])).await, Ok(false));
        store.close().await;
    }
}

#[tokio::test]
async fn a_backup_has_nothing_that_was_erased_before_it_and_the_same_sums() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path()).unwrap();
    store.commit(commit("c", 0, &["open"], &["x", "y"])).await.unwrap();
    store.close().await;
    let store = in_directory(directory.path()).unwrap();
    store.commit(commit("c", 1, &[], &["z"])).await.unwrap();
    assert_eq!(store.erase(conversation("c")).await, Ok(true));
    store.commit(commit("c", 0, &["again"], &["x"])).await.unwrap();
    store.commit(commit("d", 0, &[], &["x"])).await.unwrap();
    assert_eq!(store.erase(conversation("d")).await, Ok(true));
    let report = store.report(&question_of_1970()).unwrap();
    let backup = tempfile::tempdir().unwrap();
    let mut copy = fs::File::create(backup.path().join("turn-metrics.redb")).unwrap();
    std::io::copy(&mut store.back_up().unwrap().bytes, &mut copy).unwrap();
    assert_eq!(check(backup.path()).unwrap().violations, []);
    let restored = in_directory(backup.path()).unwrap();
    assert_eq!(restored.report(&question_of_1970()).unwrap(), report);
    assert_eq!((ids(&all(&restored, "c")), all(&restored, "d")), (vec![(1, "x")], Vec::new()));
    assert_eq!(restored.conversation_state(&conversation("c"), &[]).unwrap().open_turns, [open("again", 5)]);
    assert_eq!(restored.sealed_turns(None, 9).unwrap().turns.len(), 1);
    assert_eq!(restored.erase(conversation("d")).await, Ok(false));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_closing_and_opening() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path()).unwrap();
    store.commit(commit("c", 0, &["open"], &["x"])).await.unwrap();
    let (turns, state) = (all(&store, "c"), store.conversation_state(&conversation("c"), &[]).unwrap());
    let revision = store.revision(&conversation("c")).unwrap();
    let order = store.sealed_turns(None, 9).unwrap();
    store.close().await;
    assert!(matches!(store.commit(commit("c", 1, &[], &["y"])).await, Err(CommitError::Unavailable(_))));
    let refused = store.conversation_state(&conversation("c"), &[]).unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Closed);

    let again = in_directory(directory.path()).unwrap();
    assert_eq!(all(&again, "c"), turns);
    assert_eq!(again.conversation_state(&conversation("c"), &[]).unwrap(), state);
    assert_eq!(again.revision(&conversation("c")).unwrap(), revision);
    assert_eq!(again.sealed_turns(None, 9).unwrap(), order);
    assert_eq!(again.commit(commit("c", 1, &[], &["y"])).await.unwrap().version, Version(2));
}

#[tokio::test]
async fn closing_writes_what_waits_first_and_may_be_asked_twice() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path()).unwrap();
    let waiting: Vec<_> = (0..50).map(|n| store.commit(commit("c", n, &[], &[&format!("t{n}")]))).collect();
    store.close().await;
    store.close().await;
    for committed in waiting {
        committed.await.unwrap();
    }
    assert_eq!(*store.health().borrow(), Health::Closed);
    assert_eq!(all(&in_directory(directory.path()).unwrap(), "c").len(), 50);
}

#[tokio::test]
async fn a_full_queue_is_overload_and_changes_nothing() {
    let settings = StoreSettings { queue_commits: 1, ..StoreSettings::default() };
    let (store, writer) = RedbEngine::prepare(Location::Memory, &settings, Backoff::default()).unwrap();
    let queued = store.commit(commit("a", 0, &[], &["t"]));
    let refused = store.commit(commit("b", 0, &[], &["t"]));
    assert_eq!(refused.await, Err(CommitError::Overloaded));
    std::thread::spawn(move || writer.run());
    queued.await.unwrap();
    assert_eq!((all(&store, "a").len(), all(&store, "b").len()), (1, 0));
}

#[tokio::test]
async fn a_writer_that_is_gone_is_told_apart_from_one_that_was_closed() {
    let (store, writer) = RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
    let queued = store.commit(commit("a", 0, &[], &["t"]));
    drop(writer);
    assert!(matches!(queued.await, Err(CommitError::Unavailable(_))));
    assert!(matches!(store.check_write().await, Err(CommitError::Unavailable(_))));
    assert_eq!(*store.health().borrow(), Health::Ended);
}

#[tokio::test]
async fn a_store_whose_owner_is_gone_was_not_closed() {
    let store = in_memory();
    let mut writer = store.health();
    drop(store);
    let ended = writer.wait_for(|state| *state != Health::Running).await.unwrap();
    assert_eq!(*ended, Health::Ended);
}

#[tokio::test]
async fn a_write_check_is_durable_work() {
    let store = in_memory();
    store.check_write().await.unwrap();
    store.close().await;
    assert!(store.check_write().await.is_err());
}

#[test]
fn a_database_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _open = in_directory(directory.path()).unwrap();
    let refused = in_directory(directory.path()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("turn-metrics.redb");
    for content in ["no database".to_owned(), "x".repeat(100_000)] {
        fs::write(&path, &content).unwrap();
        let refused = in_directory(directory.path()).unwrap_err();
        assert!(matches!(refused, OpenError::NotOurs { .. }), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let database = redb::Database::create(directory.path().join("turn-metrics.redb")).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).unwrap();
    txn.commit().unwrap();
    drop(database);
    let refused = in_directory(directory.path()).unwrap_err();
    assert!(matches!(refused, OpenError::NotOurs { .. }), "{refused}");
}

#[test]
fn a_database_of_another_format_is_refused() {
    // No row of the present format is without a checksum.
    for (stored, told) in [(2_u32, 2), (1, 0)] {
        let directory = tempfile::tempdir().unwrap();
        let database = redb::Database::create(directory.path().join("turn-metrics.redb")).unwrap();
        let txn = database.begin_write().unwrap();
        {
            let mut meta = txn.open_table(redb::TableDefinition::<&str, &[u8]>::new("meta")).unwrap();
            meta.insert("format", stored.to_le_bytes().as_slice()).unwrap();
        }
        txn.commit().unwrap();
        drop(database);
        let before = fs::read(directory.path().join("turn-metrics.redb")).unwrap();
        let refused = in_directory(directory.path()).unwrap_err();
        assert!(matches!(refused, OpenError::OtherFormat { found, known: 1, .. } if found == told), "{refused}");
        let after = fs::read(directory.path().join("turn-metrics.redb")).unwrap();
        assert!(before == after, "the refused file was changed");
    }
}

/// Ends a store as a crash of its process would: nothing is closed in order.
async fn lose(store: RedbEngine) {
    let mut writer = store.health();
    drop(store);
    writer.wait_for(|state| *state != Health::Running).await.unwrap();
}

#[tokio::test]
async fn an_orderly_stop_leaves_one_file_with_everything_and_a_crash_two() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path()).unwrap();
    store.commit(commit("c", 0, &["open"], &["x"])).await.unwrap();
    lose(store).await;
    assert_eq!(names(directory.path()), ["turn-metrics.journal.redb", "turn-metrics.redb"]);
    let store = in_directory(directory.path()).unwrap();
    assert_eq!(ids(&all(&store, "c")), [(1, "x")]);
    store.close().await;
    assert_eq!(names(directory.path()), ["turn-metrics.redb"]);
    let store = in_directory(directory.path()).unwrap();
    assert_eq!(ids(&all(&store, "c")), [(1, "x")]);
    assert_eq!(store.conversation_state(&conversation("c"), &[]).unwrap().open_turns, [open("open", 5)]);
}

#[tokio::test]
async fn a_store_reports_its_sizes() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path()).unwrap();
    store.commit(commit("c", 0, &["open"], &["x"])).await.unwrap();
    let before = store.sizes();
    assert!(before.live_bytes == 0 && before.recent_bytes > 0 && before.file_bytes > 4096, "{before:?}");
    store.close().await;
    assert_eq!(store.sizes(), StoreSizes::default());
    let store = in_directory(directory.path()).unwrap();
    let after = store.sizes();
    assert!((50..600).contains(&after.live_bytes) && after.recent_bytes == 0, "{after:?}");
    // A turn that is staged again replaces its earlier rows, and its rows go when it is sealed.
    store.commit(commit("c", 1, &["open"], &[])).await.unwrap();
    store.close().await;
    let store = in_directory(directory.path()).unwrap();
    assert_eq!(store.sizes().live_bytes, after.live_bytes);
}

#[tokio::test]
async fn a_store_is_not_opened_without_its_journal_or_with_that_of_another() {
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for directory in [&one, &other] {
        let store = in_directory(directory.path()).unwrap();
        store.commit(commit("c", 0, &[], &["x"])).await.unwrap();
        lose(store).await;
    }
    let main = fs::read(one.path().join("turn-metrics.redb")).unwrap();
    let journal = one.path().join("turn-metrics.journal.redb");
    fs::remove_file(&journal).unwrap();
    let refused = in_directory(one.path()).unwrap_err();
    assert!(matches!(refused, OpenError::JournalMissing { .. }), "{refused}");
    fs::copy(other.path().join("turn-metrics.journal.redb"), &journal).unwrap();
    let refused = in_directory(one.path()).unwrap_err();
    assert!(matches!(refused, OpenError::JournalOfAnother { .. }), "{refused}");
    fs::copy(other.path().join("turn-metrics.redb"), &journal).unwrap();
    let refused = in_directory(one.path()).unwrap_err();
    assert!(matches!(refused, OpenError::NoJournal { is_needed: true, .. }), "{refused}");
    assert!(fs::read(one.path().join("turn-metrics.redb")).unwrap() == main, "the refused file was changed");
}

#[tokio::test]
async fn a_backup_is_not_mixed_with_the_journal_of_what_came_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("turn-metrics.redb");
    let store = in_directory(directory.path()).unwrap();
    store.commit(commit("c", 0, &[], &["x"])).await.unwrap();
    let backup = tokio::task::spawn_blocking({
        let store = store.clone();
        move || store.back_up().unwrap()
    });
    let mut backup = backup.await.unwrap();
    store.commit(commit("c", 1, &[], &["y"])).await.unwrap();
    lose(store).await;

    std::io::copy(&mut backup.bytes, &mut fs::File::create(&main).unwrap()).unwrap();
    let refused = in_directory(directory.path()).unwrap_err();
    assert!(matches!(refused, OpenError::JournalOfAnother { .. }), "{refused}");
    fs::remove_file(directory.path().join("turn-metrics.journal.redb")).unwrap();
    let store = in_directory(directory.path()).unwrap();
    assert_eq!(ids(&all(&store, "c")), [(1, "x")]);
}

#[tokio::test]
async fn a_backup_has_the_order_and_a_lineage_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    // The first part of the order is in the tables, and the second part in the memtable.
    let store = in_directory(directory.path()).unwrap();
    store.commit(commit("b", 0, &[], &["x", "y"])).await.unwrap();
    store.close().await;
    let store = in_directory(directory.path()).unwrap();
    store.commit(commit("a", 0, &[], &["x"])).await.unwrap();
    store.commit(commit("b", 1, &[], &["z"])).await.unwrap();
    let order = |store: &RedbEngine| {
        let turns = store.sealed_turns(None, 9).unwrap().turns;
        turns.into_iter().map(|found| (found.position.number, found.conversation_id, found.turn)).collect::<Vec<_>>()
    };
    let there = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(there.path().join("turn-metrics.redb")).unwrap();
    std::io::copy(&mut store.back_up().unwrap().bytes, &mut file).unwrap();
    drop(file);
    assert_eq!(check(there.path()).unwrap().violations, []);
    let again = tempfile::tempdir().unwrap();
    let [first, second] = [&there, &again].map(|directory| directory.path().join("turn-metrics.redb"));
    fs::copy(first, second).unwrap();
    let copy = in_directory(there.path()).unwrap();
    let lineage_of = |store: &RedbEngine| store.sealed_turns(None, 0).unwrap().latest.lineage;
    let second = in_directory(again.path()).unwrap();
    let drawn = lineage_of(&second);
    assert_ne!(drawn, lineage_of(&copy), "each restore of a backup draws a lineage");
    second.close().await;
    assert_eq!(lineage_of(&in_directory(again.path()).unwrap()), drawn, "a later opening draws another lineage");
    assert_eq!(order(&copy), order(&store));
    let all = ConversationQuestion::first(ConversationOrder::Recent, 9);
    assert_eq!(copy.conversations(&all).unwrap(), store.conversations(&all).unwrap());
    let question = question_of_1970();
    assert_eq!(copy.report(&question).unwrap(), store.report(&question).unwrap());
    assert_eq!(order(&store).len(), 4);

    let latest = store.sealed_turns(None, 0).unwrap().latest;
    assert_eq!(copy.sealed_turns(Some(latest), 9), Err(ListSealedError::OtherLineage(latest)));
    let revisions = [&store, &copy].map(|store| store.revision(&conversation("b")).unwrap());
    assert_eq!((revisions[0].life, revisions[0].sealed_turns), (revisions[1].life, revisions[1].sealed_turns));
    assert!(!revisions[0].is_of_the_same_life(&revisions[1]));
    assert_ne!(revisions[0].to_string(), revisions[1].to_string());

    // The store and its copy both go on, and each gives the same next position.
    for store in [&store, &copy] {
        store.commit(commit("c", 0, &[], &["x"])).await.unwrap();
        assert_eq!(store.sealed_turns(None, 0).unwrap().latest.number, 5);
    }
    let lineage = latest.lineage;
    copy.close().await;
    lose(store).await;
    let store = in_directory(directory.path()).unwrap();
    assert_eq!(store.sealed_turns(Some(latest), 9).unwrap().turns.len(), 1);
    assert_eq!(store.sealed_turns(None, 0).unwrap().latest.lineage, lineage, "a crash begins a new lineage");
    store.close().await;
    crate::store::compact(directory.path(), Arc::new(NoPrices)).unwrap();
    let store = in_directory(directory.path()).unwrap();
    assert_eq!(
        store.sealed_turns(Some(latest), 9).unwrap().turns.len(),
        1,
        "a compaction makes an earlier position invalid"
    );
}

#[tokio::test]
async fn the_order_is_read_while_the_checkpoint_moves_it() {
    let settings = StoreSettings::with_journal_bytes(24 * 1024);
    let prepared = RedbEngine::prepare(Location::Memory, &settings, Backoff::default());
    let (store, mut writer) = prepared.unwrap();
    writer.checkpoint_by_hand();
    let checkpoint = std::sync::Arc::clone(writer.checkpoint());
    std::thread::spawn(move || writer.run());
    // The turns are few enough for the memtable.
    for version in 0..8 {
        for name in ["a", "b", "c"] {
            let turns = [format!("t{version}"), format!("u{version}")];
            store.commit(commit(name, version, &[], &[&turns[0], &turns[1]])).await.unwrap();
        }
    }
    let expected = store.sealed_turns(None, 99).unwrap();
    assert!(expected.turns.iter().map(|found| found.position.number).eq(1..=48));
    let mut flushes = 0;
    while store.sizes().recent_bytes > 0 {
        checkpoint.flush().unwrap();
        flushes += 1;
        assert_eq!(store.sealed_turns(None, 99).unwrap(), expected, "after {flushes} flushes");
        for (after, limit) in [(0, 1), (20, 9), (47, 9)] {
            let after = Position { number: after, ..expected.latest };
            let page = store.sealed_turns(Some(after), limit).unwrap();
            let turns = expected.turns.iter().filter(|found| found.position.number > after.number);
            assert_eq!(page.turns, turns.take(limit).cloned().collect::<Vec<_>>(), "after {flushes} flushes");
        }
    }
    assert!(flushes > 5, "everything was moved in only {flushes} flushes");
}

#[tokio::test]
async fn the_journal_does_not_grow_with_a_turn_that_is_staged_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings::with_journal_bytes(64 * 1024);
    let store = RedbEngine::open(Location::Directory(directory.path().to_owned()), &settings).unwrap();
    let mut turn = OpenTurn::new(TurnId::new("t").unwrap());
    for step in 0..400 {
        let step_id = Some(StepId::new(format!("step-{step:015}")).unwrap());
        turn.fold(&Progress::Usage { step_id, report: Usage::default().into(), is_final: false });
    }
    let staged = StagedTurn { turn, last_event_at: RunningTime::new(5) };
    for version in 0..1000 {
        let commit = Commit { staged: vec![staged.clone().into()], ..commit("c", version, &[], &[]) };
        store.commit(commit).await.unwrap();
    }
    // All commits together have 8 MB.
    let size = fs::metadata(directory.path().join("turn-metrics.journal.redb")).unwrap().len();
    assert!(size < 4 << 20, "{size}");
    store.close().await;
}

/// Stages a turn step by step. Each commit has only the head and the new step. Returns the turn and the version after
/// the last commit.
async fn stage_by_steps(store: &RedbEngine, id: &str, steps: u32) -> (StagedTurn, u64) {
    let mut staged = open(id, 5);
    for step in 0..steps {
        let before = (step > 0).then(|| staged.clone());
        let step_id = Some(StepId::new(format!("step-{step:015}")).unwrap());
        let usage = Usage { input_tokens: step.into(), ..Usage::default() };
        staged.turn.fold(&Progress::Usage { step_id, report: usage.into(), is_final: false });
        let change = change(before.as_ref(), staged.clone());
        assert_eq!(change.steps.len(), 1);
        store.commit(Commit { staged: vec![change], ..commit("c", step.into(), &[], &[]) }).await.unwrap();
    }
    (staged, steps.into())
}

#[tokio::test]
async fn an_event_of_a_turn_of_4096_steps_stages_one_row() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path()).unwrap();
    let mut long = open("t", 5);
    let report = |step: u32, tokens: u32| {
        let usage = Usage { input_tokens: tokens.into(), ..Usage::default() };
        let step_id = Some(StepId::new(format!("step-{step}")).unwrap());
        Progress::Usage { step_id, report: usage.into(), is_final: false }
    };
    (0..4096).for_each(|step| long.turn.fold(&report(step, 1)));
    store.commit(Commit { staged: vec![long.clone().into()], ..commit("c", 0, &[], &[]) }).await.unwrap();
    store.close().await;

    let store = in_directory(directory.path()).unwrap();
    let live_before = store.sizes().live_bytes;
    assert!(live_before > 4096 * 20, "{live_before}");
    let before = long.clone();
    long.turn.fold(&report(2000, 7));
    let event = Commit { staged: vec![change(Some(&before), long.clone())], ..commit("c", 1, &[], &[]) };
    store.commit(event).await.unwrap();
    let held = store.sizes().recent_bytes;
    assert!(held < 1000, "one event takes {held} bytes of the memtable");
    assert_eq!(store.conversation_state(&conversation("c"), &[]).unwrap().open_turns, [long.clone()]);
    store.close().await;
    let store = in_directory(directory.path()).unwrap();
    assert_eq!(store.sizes().live_bytes, live_before, "the rows of the step and the head replace earlier ones");
    assert_eq!(store.conversation_state(&conversation("c"), &[]).unwrap().open_turns, [long]);
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
}

#[tokio::test]
async fn a_turn_that_is_staged_step_by_step_is_whole_in_the_store_and_in_its_backup_and_gone_when_it_is_sealed() {
    let directory = tempfile::tempdir().unwrap();
    // The journal is so small that the steps are in the tables of the main file, in the immutable table and in the
    // active table.
    let settings = StoreSettings::with_journal_bytes(16 * 1024);
    let start =
        |directory: &std::path::Path| RedbEngine::open(Location::Directory(directory.to_owned()), &settings).unwrap();
    let open_turns = |store: &RedbEngine| store.conversation_state(&conversation("c"), &[]).unwrap().open_turns;
    let store = start(directory.path());
    let (staged, version) = stage_by_steps(&store, "t", 300).await;
    assert_eq!(open_turns(&store), std::slice::from_ref(&staged));
    let sizes = store.sizes();
    assert!(
        sizes.live_bytes > 0 && sizes.recent_bytes > 0,
        "the turn is not spread over tables and memtable: {sizes:?}"
    );

    let backup = tempfile::tempdir().unwrap();
    let mut copy = fs::File::create(backup.path().join("turn-metrics.redb")).unwrap();
    std::io::copy(&mut store.back_up().unwrap().bytes, &mut copy).unwrap();
    assert_eq!(check(backup.path()).unwrap().violations, []);
    let restored = start(backup.path());
    assert_eq!(open_turns(&restored), std::slice::from_ref(&staged));
    restored.close().await;

    lose(store).await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
    let store = start(directory.path());
    assert_eq!(open_turns(&store), std::slice::from_ref(&staged));
    let end = staged.turn.seal(&Done::because("stop"), EpochMillis::new(7));
    store.commit(Commit { sealed: vec![end.clone()], ..commit("c", version, &[], &[]) }).await.unwrap();
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
    let store = start(directory.path());
    assert_eq!(open_turns(&store), []);

    // The store has as many bytes as one in which the turn was sealed without being staged.
    let other = tempfile::tempdir().unwrap();
    let whole = start(other.path());
    whole.commit(Commit { sealed: vec![end], ..commit("c", 0, &[], &[]) }).await.unwrap();
    whole.close().await;
    let whole = start(other.path());
    let bytes_of_version = 1;
    assert_eq!(store.sizes().live_bytes, whole.sizes().live_bytes + bytes_of_version);
    store.close().await;
    whole.close().await;
}

#[tokio::test]
async fn the_journal_does_not_grow_with_the_number_of_commits() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings::with_journal_bytes(64 * 1024);
    let store = RedbEngine::open(Location::Directory(directory.path().to_owned()), &settings).unwrap();
    let size = || fs::metadata(directory.path().join("turn-metrics.journal.redb")).unwrap().len();
    let mut sizes = Vec::new();
    for version in 0..2000 {
        store.commit(commit("c", version, &[], &[&format!("t{version}")])).await.unwrap();
        sizes.push(size());
    }
    // Each commit takes more than a page, so all of them together have 8 MiB.
    assert!(sizes.iter().all(|size| *size < 4 << 20), "{:?}", sizes.iter().max());
    assert_eq!(all(&store, "c").len(), 2000);
    store.close().await;
}

/// Commits turns of one conversation. Asserts that the answers and the reads have what was sent.
fn send_and_read(store: &RedbEngine, name: &str, turns: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sent = |commit| runtime.block_on(store.commit(commit)).unwrap();
    for turn in 0..turns {
        let [one, other] = [format!("t{turn}"), format!("u{turn}")];
        sent(commit(name, 2 * turn, &[&one, &other], &[]));
        let state = store.conversation_state(&conversation(name), &[]).unwrap();
        assert_eq!((state.version, state.open_turns.len()), (Version(2 * turn + 1), 2));
        let sealed = sent(commit(name, 2 * turn + 1, &[], &[&one, &other]));
        assert_eq!(outcomes(&sealed)[1].1, TurnOutcome::Sealed(at(2 * turn + 2)));
        assert!(all(store, name).iter().map(|turn| turn.ordinal.get()).eq(1..=2 * turn + 2));
        assert_eq!(store.revision(&conversation(name)).unwrap().sealed_turns, 2 * turn + 2);
        let again = sent(commit(name, 2 * turn + 2, &[&one], &["t0"]));
        assert_eq!(
            outcomes(&again),
            [(&*one, TurnOutcome::Duplicate(at(2 * turn + 1))), ("t0", TurnOutcome::Duplicate(at(1)))]
        );
        assert_eq!(store.conversation_state(&conversation(name), &[]).unwrap().open_turns, []);
    }
}

#[test]
fn senders_readers_and_backups_agree_while_the_checkpoint_is_always_at_work() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings::with_journal_bytes(24 * 1024);
    let store = RedbEngine::open(Location::Directory(directory.path().to_owned()), &settings).unwrap();
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..12)
            .map(|sender| {
                let store = &store;
                scope.spawn(move || send_and_read(store, &format!("c{sender}"), 60))
            })
            .collect();
        while !senders.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let there = tempfile::tempdir().unwrap();
            let mut copy = fs::File::create(there.path().join("turn-metrics.redb")).unwrap();
            std::io::copy(&mut store.back_up().unwrap().bytes, &mut copy).unwrap();
            drop(copy);
            assert_eq!(check(there.path()).unwrap().violations, []);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { store.close().await });
    let report = check(directory.path()).unwrap();
    assert_eq!((report.violations, report.sealed_turns, report.open_turns), (vec![], 12 * 120, 0));
}

fn names(directory: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_creation_that_was_cut_short_does_not_stop_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["turn-metrics.redb", "turn-metrics.journal.redb"] {
        fs::write(directory.path().join(format!("{name}.unfinished-new")), "half of a database").unwrap();
    }
    drop(in_directory(directory.path()).unwrap());
    assert_eq!(names(directory.path()), ["turn-metrics.journal.redb", "turn-metrics.redb"]);
}

#[test]
fn a_directory_that_cannot_be_made_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = in_directory(&file.join("data")).unwrap_err();
    assert!(matches!(refused, OpenError::Directory { .. }), "{refused}");
}

#[tokio::test]
async fn a_list_of_conversations_does_not_wait_for_a_thread_that_counts_turns() {
    let engine = in_memory();
    engine.commit(commit("a", 0, &[], &["t", "u"])).await.unwrap();
    let (listed, answer) = channel();
    engine
        .slot()
        .with_counting(|_| {
            let reading = engine.clone();
            std::thread::spawn(move || {
                let question = ConversationQuestion::first(ConversationOrder::Recent, 9);
                listed.send(reading.conversations(&question))
            });
            // The time limit ends a broken test.
            let all = answer.recv_timeout(Duration::from_secs(30)).expect("it waits").unwrap();
            assert_eq!(all.iter().map(|listed| listed.sealed_turns).collect::<Vec<_>>(), [2]);
            Ok(())
        })
        .unwrap();
    engine.close().await;
}
