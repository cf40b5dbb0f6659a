use std::fs;
use std::path::Path;
use std::task::{Context, Waker};
use std::time::Duration;

use redb::ReadableTable;

use super::set_up::{damage, damage_journal, hash, id, open, sealing, sound, told, turn, with_a_journal};
use crate::settings::StoreSettings;
use crate::store::oracle::question_of_1970;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::tables::indexed::StoredOrdinal;
use crate::store::redb::tables::row::{self, Stored};
use crate::store::redb::tables::schema::{DROPPED, INDEX, OPEN_STEPS, OPEN_TURNS, TURNS};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{
    Commit, ConversationOrder, ConversationQuestion, DropTurns, Location, RedbEngine, Report, TurnOutcome,
};
use crate::turn::{Done, EpochMillis, Ordinal};

/// Damages a store. Asserts that the repair makes it sound, and that it names exactly these losses.
fn assert_named(directory: &Path, losses: &[&str], damage: impl FnOnce(&Path)) {
    damage(directory);
    let (_, after) = repair(directory).unwrap().1.unwrap();
    let named: Vec<_> = after.losses.iter().map(ToString::to_string).collect();
    assert_eq!((told(&after), &*named), (vec![], &*losses.iter().map(ToString::to_string).collect::<Vec<_>>()));
}

#[tokio::test]
async fn a_repair_in_place_names_each_turn_that_it_loses() {
    assert_named(sound().await.path(), &["turn 2 of conversation a"], |path| {
        damage(path, TURNS, |turns| drop(turns.insert((1, 2), Stored::as_it_is(b"nonsense")).unwrap()));
    });
    let directory = sound().await;
    assert_named(directory.path(), &["turns 2 to 3 of conversation b"], |path| {
        let hashes = ["y", "z"].map(|id| hash(path, id));
        damage(path, TURNS, |turns| {
            turns.insert((2, 2), Stored::as_it_is(b"nonsense")).unwrap();
            turns.remove((2, 3)).unwrap();
        });
        // No row of the index names them, and still their ordinals were given.
        damage(path, INDEX, |index| {
            for hash in hashes {
                index.remove((2, hash)).unwrap();
            }
        });
    });
    let store = open(directory.path());
    let outcomes = store.commit(sealing("b", 1, "new")).await.unwrap().outcomes;
    assert!(matches!(outcomes[0].1, TurnOutcome::Sealed(at) if at.get() == 4), "{outcomes:?}");
    store.close().await;
}

#[tokio::test]
async fn the_first_turn_after_a_repair_that_lost_all_turns_is_the_first_one_of_the_conversation() {
    for imported_from in [None, Ordinal::new(5)] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        store.commit(Commit { imported_from, ..sealing("a", 0, "x") }).await.unwrap();
        store.close().await;
        let lost = imported_from.map_or(1, Ordinal::get);
        assert_named(directory.path(), &[&format!("turn {lost} of conversation a")], |path| {
            damage(path, TURNS, |turns| drop(turns.insert((1, lost), Stored::as_it_is(b"nonsense")).unwrap()));
        });
        let store = open(directory.path());
        let all = ConversationQuestion::first(ConversationOrder::Recent, 9);
        assert_eq!(store.conversations(&all).unwrap(), [], "it has no turn to be listed by");
        let outcomes = store.commit(sealing("a", 1, "new")).await.unwrap().outcomes;
        assert!(matches!(outcomes[0].1, TurnOutcome::Sealed(at) if at.get() == lost + 1), "{outcomes:?}");
        store.close().await;
        let store = open(directory.path());
        assert_eq!(store.scrub().unwrap().findings, 0);
        let listed = store.conversations(&all).unwrap();
        assert_eq!((listed.len(), listed[0].sealed_turns, listed[0].first_at), (1, 1, EpochMillis::new(3)));
        store.close().await;
        assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
    }
}

/// Returns a stopped store in which the first two of three turns of the conversation `a` were dropped, and its report.
async fn with_dropped_turns() -> (tempfile::TempDir, Report) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let sealed = [("x", 1), ("y", 2), ("z", 9)];
    let sealed = sealed.map(|(id, at)| turn(id).seal(&Done::because("stop"), EpochMillis::new(at))).into();
    store.commit(Commit { sealed, ..sealing("a", 0, "x") }).await.unwrap();
    let old = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(5) };
    while !store.drop_turns(old).await.unwrap().is_done {}
    let report = store.report(&question_of_1970()).unwrap();
    store.close().await;
    (directory, report)
}

#[tokio::test]
async fn dropped_turns_whose_note_is_damaged_are_named_as_lost_and_still_count_in_reports() {
    let (directory, report) = with_dropped_turns().await;
    assert_named(directory.path(), &["turns 1 to 2 of conversation a"], |path| {
        damage(path, DROPPED, |notes| drop(notes.insert(1, Stored::as_it_is(b"nonsense")).unwrap()));
    });
    let store = open(directory.path());
    assert_eq!(store.report(&question_of_1970()).unwrap(), report);
    let outcomes = store.commit(sealing("a", 1, "new")).await.unwrap().outcomes;
    assert!(matches!(outcomes[0].1, TurnOutcome::Sealed(at) if at.get() == 4), "{outcomes:?}");
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
}

#[tokio::test]
async fn a_conversation_that_was_imported_without_its_first_turns_is_sound_and_is_repaired_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let sealed: Vec<_> =
        [("x", 9), ("y", 2)].map(|(id, at)| turn(id).seal(&Done::because("stop"), EpochMillis::new(at))).into();
    let imported_from = Ordinal::new(5);
    store.commit(Commit { sealed, imported_from, ..sealing("a", 0, "x") }).await.unwrap();
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
    let store = open(directory.path());
    assert_eq!(store.scrub().unwrap().findings, 0);
    store.close().await;
    assert_named(directory.path(), &["turn 6 of conversation a"], |path| {
        damage(path, TURNS, |turns| drop(turns.insert((1, 6), Stored::as_it_is(b"nonsense")).unwrap()));
    });
    let store = open(directory.path());
    let revision = store.revision(&id("a")).unwrap();
    assert_eq!((revision.sealed_turns, revision.dropped_turns), (6, 4));
    let outcomes = store.commit(sealing("a", 1, "new")).await.unwrap().outcomes;
    assert!(matches!(outcomes[0].1, TurnOutcome::Sealed(at) if at.get() == 7), "{outcomes:?}");
    store.close().await;
    // The record of the conversation says where it begins, so the note costs nothing.
    assert_named(directory.path(), &[], |path| {
        damage(path, DROPPED, |notes| drop(notes.insert(1, Stored::as_it_is(b"nonsense")).unwrap()));
    });
    let store = open(directory.path());
    let revision = store.revision(&id("a")).unwrap();
    assert_eq!((revision.sealed_turns, revision.dropped_turns), (7, 4));
    store.close().await;
}

#[tokio::test]
async fn a_repair_in_place_keeps_dropped_turns_dropped() {
    let (directory, report) = with_dropped_turns().await;
    assert_named(directory.path(), &["turn 3 of conversation a"], |path| {
        damage(path, TURNS, |turns| drop(turns.insert((1, 3), Stored::as_it_is(b"nonsense")).unwrap()));
    });
    let store = open(directory.path());
    assert_eq!(store.revision(&id("a")).unwrap().dropped_turns, 2);
    let rows = |report: &Report| report.breakdown.rows().map(|(_, _, row)| row.rollup.turns()).sum::<i128>();
    assert_eq!(rows(&store.report(&question_of_1970()).unwrap()), rows(&report) - 1);
    store.close().await;
}

#[tokio::test]
async fn a_dropped_turn_that_is_back_is_moved_aside_and_counts_once() {
    let (directory, report) = with_dropped_turns().await;
    assert_named(directory.path(), &["turn 1 of conversation a"], |path| {
        damage(path, TURNS, |turns| {
            let mut record = turns.get((1, 3)).unwrap().unwrap().value().verify(&(1, 3)).unwrap().to_vec();
            turns.insert((1, 1), row::seal(&(1, 1), &mut record)).unwrap();
        });
    });
    let store = open(directory.path());
    assert_eq!(store.report(&question_of_1970()).unwrap(), report);
    assert_eq!(store.revision(&id("a")).unwrap().dropped_turns, 2);
    store.close().await;
}

#[tokio::test]
async fn a_repair_in_place_names_each_open_turn_that_it_loses() {
    assert_named(sound().await.path(), &["open turn open of conversation a"], |path| {
        damage(path, OPEN_TURNS, |open| drop(open.insert((1, "open"), Stored::as_it_is(b"nonsense")).unwrap()));
    });
    assert_named(sound().await.path(), &["open turn open of conversation a"], |path| {
        damage(path, OPEN_TURNS, |open| drop(open.remove((1, "open")).unwrap()));
    });
    assert_named(sound().await.path(), &["open turn open of conversation b"], |path| {
        damage(path, OPEN_STEPS, |steps| drop(steps.insert((2, "open", 1), Stored::as_it_is(b"nonsense")).unwrap()));
    });
    // This turn has no steps, so nothing shows that the key of its damaged row is right.
    let unknown = "open turns whose heads were damaged, if there were others than those that are kept or named";
    assert_named(sound().await.path(), &["open turn other of conversation b", unknown], |path| {
        damage(path, OPEN_TURNS, |open| drop(open.insert((2, "other"), Stored::as_it_is(b"nonsense")).unwrap()));
    });
}

#[tokio::test]
async fn a_repair_in_place_names_what_it_loses_of_the_journal() {
    let follows = "conversation a goes from version 1 and 1 sealed turns to version 3 after 2 sealed turns";
    let back =
        "conversations that are not named may have lost turns in them, and one that was erased in them may be back";
    let row = format!("row 2 of the journal, with all their commits; {back}");
    let end = format!("rows of the journal after row 0, if there were any; {back}");
    let commits = format!("commits in row 3 of the journal: {follows}");
    assert_named(with_a_journal().await.path(), &[&row, &commits], |path| {
        damage_journal(path, |rows| drop(rows.remove(2).unwrap()));
    });
    assert_named(with_a_journal().await.path(), &[&row, &commits], |path| {
        damage_journal(path, |rows| drop(rows.insert(2, Stored::as_it_is(b"nonsense")).unwrap()));
    });
    assert_named(with_a_journal().await.path(), &[&end], |path| {
        fs::remove_file(path.join(StoreFile::Journal.name())).unwrap();
    });
}

#[tokio::test]
async fn each_conversation_that_loses_commits_after_a_lost_row_is_named_once() {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::Directory(directory.path().to_owned());
    let (store, mut writer) = RedbEngine::prepare(location, &StoreSettings::default(), Backoff::default()).unwrap();
    for (version, turn) in [(0, "t0"), (1, "t1"), (2, "t2"), (3, "t3")] {
        // One row of the journal has the commits of all conversations that are there then.
        let names: &[&str] = if version == 1 { &["a", "b", "c", "d"] } else { &["a", "b", "c"] };
        let version_of = |name: &str| if name == "d" { 0 } else { version };
        let mut commits: Vec<_> =
            names.iter().map(|name| Box::pin(store.commit(sealing(name, version_of(name), turn)))).collect();
        let mut context = Context::from_waker(Waker::noop());
        assert!(commits.iter_mut().all(|commit| commit.as_mut().poll(&mut context).is_pending()));
        let _ = writer.run_once();
        for commit in commits {
            commit.await.unwrap();
        }
    }
    drop(store);
    writer.run();
    let follows = |name: &str| {
        format!(
            "commits in row 3 of the journal: conversation {name} goes from version 1 and 1 sealed turns to version 3 after \
             2 sealed turns"
        )
    };
    let (a, b, c) = (follows("a"), follows("b"), follows("c"));
    // Nothing is left of the conversation `d`.
    let row = "row 2 of the journal, with all their commits; conversations that are not named may have lost turns in them, \
               and one that was erased in them may be back";
    let last = "commits in row 4 of the journal: conversation a goes from version 1 and 1 sealed turns to version 4 after 3 sealed \
         turns";
    assert_named(directory.path(), &[row, &a, &b, &c, last], |path| {
        damage_journal(path, |rows| drop(rows.remove(2).unwrap()));
    });
}

#[tokio::test]
async fn tables_that_a_repair_in_place_does_not_make_sound_are_salvaged() {
    let directory = sound().await;
    // A sound turn and its index, under a key that no conversation has.
    let name = "turn 1 of conversation #9";
    assert_named(directory.path(), &[name], |path| {
        let hash = hash(path, "x");
        let mut record = Vec::new();
        damage(path, TURNS, |turns| {
            record = turns.get((1, 1)).unwrap().unwrap().value().verify(&(1, 1)).unwrap().to_vec();
            turns.insert((9, 1), row::seal(&(9, 1), &mut record)).unwrap();
        });
        damage(path, INDEX, |index| drop(index.insert((9, hash), StoredOrdinal::seal((9, hash), 1)).unwrap()));
        let found = told(&check(path).unwrap());
        assert!(found.contains(&format!("{name}: its conversation is unknown")), "{found:#?}");
    });
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
}
