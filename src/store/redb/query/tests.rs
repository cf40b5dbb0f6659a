//! Tests that each question has the same answer at every stage of a checkpoint: however much of the memtable was moved
//! into the tables before the query copied it, and however much between the copy and the read.

use super::conversations::ConversationsQuery;
use super::order::OrderQuery;
use super::report::ReportQuery;
use super::*;
use std::io::{Seek as _, SeekFrom, Write as _};

use crate::report::NoPrices;
use crate::settings::StoreSettings;
use crate::store::contract::{
    Commit, ConversationOrder, ConversationQuestion, Health, ListSealedError, StagedChange, StagedTurn, Version,
};
use crate::store::oracle::{breakdown_of, question_of_1970};
use crate::store::redb::checkpoint::transfer::{Sums, Transfer};
use crate::store::redb::engine::RedbEngine;
use crate::store::redb::files::location::Location;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::memtable::tally::{Lacking, Recent, TurnsToCount};
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::record::damaged::RecordFlaw;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::unwind;
use crate::store::redb::writer::write_set::WriteSet;
use crate::turn::{Done, EpochMillis, OpenTurn, Progress, RunningTime, StepId, StepTimes};

/// The number of commits after which the active table becomes the immutable one.
const FROZEN_AFTER: usize = 5;

fn id(id: &str) -> ConversationId {
    ConversationId::new(id).unwrap()
}

/// Returns an open turn with this number of steps, each with `time` as its generation total.
fn staged(turn_id: &str, steps: u32, time: u32) -> StagedTurn {
    let mut turn = OpenTurn::new(TurnId::new(turn_id).unwrap());
    for step in 0..steps {
        let step_id = StepId::new(format!("{turn_id}#{step}")).unwrap();
        let times = StepTimes { gen_total: Some(time.into()), ..StepTimes::default() };
        turn.fold(&Progress::StepComplete { step_id, times, model: None, provider: None });
    }
    StagedTurn { turn, last_event_at: RunningTime::new(time.into()) }
}

#[test]
fn a_page_of_the_order_ends_with_the_turn_that_fills_it_and_the_next_goes_on_after_it() {
    let store = RedbEngine::open(Location::Memory, &StoreSettings::default()).unwrap();
    let seal = |turn_id: &str, steps| staged(turn_id, steps, 1).turn.seal(&Done::because("stop"), EpochMillis::new(1));
    let sealed = vec![seal("t1", 4096), seal("t2", 4096), seal("t3", 1), seal("t4", 4096), seal("t5", 1)];
    let commit = Commit {
        conversation_id: id("c"),
        expected_version: Version(0),
        staged: Vec::new(),
        sealed,
        imported_from: None,
    };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(store.commit(commit)).unwrap();
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let page = store.sealed_turns(after, 1000).unwrap();
        pages.push(page.turns.len());
        after = Some(page.next);
        if page.next == page.latest {
            break;
        }
    }
    assert_eq!(pages, [2, 3], "8,192 steps fill a page");
    // Control: if all turns are short, they are one page. So few turns are never refused, however slow the machine is.
    let short = (0..200).map(|turn| seal(&format!("short-{turn}"), 1)).collect();
    let commit = Commit {
        conversation_id: id("d"),
        expected_version: Version(0),
        staged: Vec::new(),
        sealed: short,
        imported_from: None,
    };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(store.commit(commit)).unwrap();
    assert_eq!(store.sealed_turns(after, 1000).unwrap().turns.len(), 200);
}

/// Reads all turns as an export does. Returns their positions, and how many were left out.
fn exported(store: &RedbEngine) -> Result<(Vec<u64>, u64), ListSealedError> {
    let (mut after, mut positions, mut left_out) = (None, Vec::new(), 0);
    loop {
        let page = store.sealed_turns(after, 100)?;
        positions.extend(page.turns.iter().map(|turn| turn.position.number));
        left_out += page.left_out;
        if page.next == page.latest {
            return Ok((positions, left_out));
        }
        after = Some(page.next);
    }
}

#[tokio::test]
async fn a_page_of_the_file_that_cannot_be_read_costs_an_export_only_what_is_in_it() {
    const TURNS: u64 = 600;
    const PAGE: usize = 4096;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(StoreFile::Main.name());
    let open =
        || RedbEngine::open(Location::Directory(directory.path().to_owned()), &StoreSettings::without_cache()).unwrap();
    let store = open();
    for nth in 0..TURNS / 100 {
        let seal =
            |turn| staged(&format!("turn-{nth}-{turn}"), 1, 1).turn.seal(&Done::because("stop"), EpochMillis::new(1));
        let commit = Commit {
            conversation_id: id(["a", "b"][usize::from(nth % 2 == 0)]),
            expected_version: Version(nth / 2),
            staged: Vec::new(),
            sealed: (0..100).map(seal).collect(),
            imported_from: None,
        };
        store.commit(commit).await.unwrap();
    }
    store.close().await;
    let sound = std::fs::read(&path).unwrap();
    let (mut complete, mut partial, mut refused) = (0, 0, 0);
    for page in (1..sound.len() / PAGE).filter(|page| sound[page * PAGE..][..PAGE].iter().any(|byte| *byte != 0)) {
        let _ = std::fs::remove_file(directory.path().join(StoreFile::Journal.name()));
        std::fs::write(&path, &sound).unwrap();
        let store = open();
        // In a debug build, the database reads all pages when it is opened, so the page is damaged after that.
        let mut file = std::fs::File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start((page * PAGE) as u64)).unwrap();
        file.write_all(&[0; PAGE]).unwrap();
        match exported(&store) {
            Ok((positions, left_out)) => {
                assert!(positions.is_sorted_by(|one, next| one < next), "page {page}: {positions:?}");
                assert_eq!(positions.len() as u64 + left_out, TURNS, "page {page}: turns are missing without a count");
                complete += u64::from(left_out == 0);
                partial += u64::from(left_out > 0 && positions.last() == Some(&TURNS));
            }
            Err(_) => refused += 1,
        }
        let mut health = store.health();
        let _ = unwind::caught(|| drop(store));
        health.wait_for(|state| *state != Health::Running).await.unwrap();
    }
    // The list of the tables and its kind are needed by everything.
    assert!(complete > 0 && partial > 5 && refused <= 3, "{complete} {partial} {refused}");
}

/// Returns a change with only the last step of the turn.
fn last_step(turn_id: &str, steps: u32, time: u32) -> StagedChange {
    let mut change = StagedChange::from(staged(turn_id, steps, time));
    change.steps.drain(..change.steps.len() - 1);
    change
}

fn commit(conversation: &str, staged: Vec<StagedChange>, sealed: &[(&str, u64)]) -> Commit {
    let sealed = sealed.iter().map(|(turn_id, at)| {
        OpenTurn::new(TurnId::new(*turn_id).unwrap()).seal(&Done::because("stop"), EpochMillis::new(*at))
    });
    Commit {
        conversation_id: id(conversation),
        expected_version: Version(0),
        staged,
        sealed: sealed.collect(),
        imported_from: None,
    }
}

/// Returns the entry that the writer makes of a commit.
fn entry(files: &Files, memtable: &Memtable, commit: &Commit) -> Entry {
    let (tables, findings) = (files.read_tables().unwrap(), files.findings());
    let mut write_set = WriteSet::new(memtable, &tables, &findings);
    write_set.apply(commit).unwrap().unwrap();
    write_set.into_entries().remove(0)
}

/// Returns files with several commits in the memtable, each in its own piece.
fn files() -> Files {
    let commits = [
        commit("a", vec![staged("grows", 2, 10).into(), staged("anew", 3, 10).into()], &[("one", 1)]),
        commit("b", vec![staged("ended", 1, 10).into()], &[("one", 2)]),
        commit("a", vec![last_step("grows", 3, 20)], &[("two", 3)]),
        commit("a", vec![staged("anew", 1, 30).into()], &[]),
        commit("b", vec![], &[("ended", 4), ("three", 4)]),
        commit("a", vec![last_step("grows", 4, 40)], &[("three", 6)]),
        commit("c", vec![staged("only", 1, 50).into()], &[]),
    ];
    let files = Location::Memory.open(1 << 20).unwrap();
    for (nth, mut commit) in commits.into_iter().enumerate() {
        let mut memtable = files.memtable_mut();
        let latest = memtable.of(&commit.conversation_id).next();
        commit.expected_version = latest.map_or(Version(0), |piece| piece.conversation.version);
        let entry = entry(&files, &memtable, &commit);
        memtable.take_in_pieces(entry, 1).unwrap();
        memtable.took_row(JournalMark { number: nth as u64 + 1, checksum: 7 }, 0);
        if nth + 1 == FROZEN_AFTER {
            freeze(&mut memtable);
        }
    }
    files
}

fn freeze(memtable: &mut Memtable) {
    if let Some(pieces) = memtable.freeze() {
        memtable.set_order(pieces.iter().map(|piece| piece.conversation.id.clone()).collect());
    }
}

/// Moves the next piece, the next run of the order, or a part of the sums. Returns whether there was anything to move.
fn step(files: &Files) -> bool {
    let mut memtable = files.memtable_mut();
    freeze(&mut memtable);
    if !memtable.has_immutable() {
        return false;
    }
    if memtable.has_only_sums() {
        let (tally, to) =
            Recent::of(&memtable.all_uncounted(), &NoPrices).immutable.next_after(memtable.summed_to(), 1);
        let sums = Sums { tally, digest: 0, rolled_up: memtable.rolled_up_then(), to: to.clone() };
        let (pieces, runs, newest) = (Vec::new(), Vec::new(), memtable.last_row());
        let txn = files.write_tables().unwrap();
        let moving = Transfer {
            pieces,
            runs,
            checkpoint: None,
            newest,
            last_row: memtable.rolled_up_then().row,
            sums: Some(sums),
        };
        moving.write(&txn, files.hasher()).unwrap();
        txn.commit().unwrap();
        memtable.summed(to);
        memtable.moved(&[], 0);
        return true;
    }
    let (pieces, _) = memtable.next_to_move(1);
    let (runs, _) = memtable.next_runs(usize::from(pieces.is_empty()));
    let moving = Transfer {
        pieces,
        runs,
        checkpoint: None,
        newest: JournalMark::default(),
        last_row: memtable.rolled_up_then().row,
        sums: None,
    };
    let txn = files.write_tables().unwrap();
    let keys = moving.write(&txn, files.hasher()).unwrap();
    moving.add_to(&files.filter(), &keys, files.hasher());
    txn.commit().unwrap();
    let moved: Vec<_> = moving.pieces.into_iter().zip(keys).collect();
    memtable.moved(&moved, moving.runs.len());
    true
}

/// Asserts that a read finds `expected`, for each number of moves before the copy and each number of moves between the
/// copy and the read.
fn at_each_stage<Q, T: PartialEq + std::fmt::Debug>(
    expected: &T,
    copy: impl Fn(&Memtable) -> Q,
    read: impl Fn(Q, &Files, &mut LeftOut) -> T,
) {
    let all = files();
    let steps = std::iter::from_fn(|| step(&all).then_some(())).count();
    assert!(steps > 10, "{steps}");
    for before in 0..=steps {
        for between in 0..=steps - before {
            let files = files();
            (0..before).for_each(|_| assert!(step(&files)));
            let query = copy(&files.memtable());
            (0..between).for_each(|_| assert!(step(&files)));
            let mut left_out = LeftOut::default();
            let found = read(query, &files, &mut left_out);
            assert_eq!(&found, expected, "after {before} moves before the copy and {between} after it");
            assert_eq!(left_out.count, 0, "{}", left_out.first);
        }
    }
}

#[test]
fn turns_of_a_range() {
    let oldest = [(0, 9), (0, 2), (1, 1), (3, 9), (u64::MAX, 9)];
    let oldest = oldest.map(|(after, limit)| TurnRange::after(id("a"), after, limit));
    let latest = [(0, None, 9), (0, None, 2), (1, Some(3), 1), (0, Some(3), 9), (2, None, 1)];
    let latest = latest.map(|(after, before, limit)| TurnRange {
        before,
        end: RangeEnd::Latest,
        ..TurnRange::after(id("a"), after, limit)
    });
    let cases = [oldest, latest].concat();
    let (one, two, three) = ((1, "one"), (2, "two"), (3, "three"));
    let expected: [&[(u64, &str)]; 10] = [
        &[one, two, three],
        &[one, two],
        &[two],
        &[],
        &[],
        &[one, two, three],
        &[two, three],
        &[two],
        &[one, two],
        &[three],
    ];
    let cases: &[TurnRange; 10] = cases.first_chunk().unwrap();
    at_each_stage(
        &expected.map(|turns| turns.iter().map(|(ordinal, id)| (*ordinal, (*id).to_owned())).collect::<Vec<_>>()),
        |memtable| cases.each_ref().map(|range| (range, TurnsQuery::of(memtable, range))),
        |queries, files, left_out| {
            queries.map(|(range, query)| {
                let tables = query.needs_tables(range).then(|| files.read_tables().unwrap());
                let turns = query.read(tables.as_ref(), range, left_out).unwrap();
                turns.iter().map(|turn| (turn.ordinal.get(), turn.metrics.turn_id.to_string())).collect()
            })
        },
    );
}

#[test]
fn the_number_of_turns() {
    at_each_stage(
        &[3, 3, 0, 0],
        |memtable| ["a", "b", "c", "nobody's"].map(id).map(|id| (CountQuery::of(memtable, &id), id)),
        |queries, files, left_out| {
            queries.map(|(query, id)| {
                let tables = query.needs_tables().then(|| files.read_tables().unwrap());
                query.read(tables.as_ref(), &id, left_out).unwrap().sealed_turns
            })
        },
    );
}

#[test]
fn the_state_of_a_conversation() {
    let grown = {
        let mut turn = staged("grows", 4, 10);
        for (place, time) in [(2, 20), (3, 40)] {
            let step = staged("grows", 4, time).turn.steps.at(place).unwrap().clone();
            turn.turn.steps.put(place, step);
        }
        StagedTurn { last_event_at: RunningTime::new(40), ..turn }
    };
    let asked = ["three", "one", "grows", "unknown"].map(|turn_id| TurnId::new(turn_id).unwrap());
    let sealed = [(asked[0].clone(), Ordinal::after(2)), (asked[1].clone(), Ordinal::after(0))];
    let expected = ConversationState {
        version: Version(4),
        last_sealed_at: EpochMillis::new(6),
        open_turns: vec![staged("anew", 1, 30), grown],
        sealed_turns: sealed.into(),
    };
    at_each_stage(
        &expected,
        |memtable| StateQuery::of(memtable, &id("a")),
        |query, files, left_out| {
            let mut state = query.read(&files.read_tables().unwrap(), &id("a"), &asked, left_out).unwrap();
            state.open_turns.sort_by(|one, other| one.turn.id.cmp(&other.turn.id));
            state
        },
    );
}

#[test]
fn the_order_of_all_turns() {
    let all = [("a", "one"), ("b", "one"), ("a", "two"), ("b", "ended"), ("b", "three"), ("a", "three")];
    let all: Vec<_> = (1..).zip(all).map(|(n, (id, turn))| (n, id.to_owned(), turn.to_owned())).collect();
    let cases = [(0, 9), (0, 6), (2, 2), (5, 9), (6, 9)];
    let expected = cases.map(|(after, limit)| {
        let page: Vec<_> = all.iter().filter(|(position, ..)| *position > after).take(limit).cloned().collect();
        let next = page.last().map_or(after, |(position, ..)| *position);
        (page, next, 6)
    });
    at_each_stage(
        &expected,
        |memtable| cases.map(|(after, limit)| OrderQuery::of(memtable, after, limit).unwrap()),
        |queries, files, left_out| {
            queries.map(|query| {
                let tables = query.needs_tables().then(|| files.read_tables().unwrap());
                let page = query.read(files.lineage(), tables.as_ref(), left_out).unwrap();
                let turns = page.turns.iter().map(|sealed| {
                    let turn_id = sealed.turn.metrics.turn_id.to_string();
                    (sealed.position.number, sealed.conversation_id.to_string(), turn_id)
                });
                (turns.collect(), page.next.number, page.latest.number)
            })
        },
    );
    assert!(OrderQuery::of(&files().memtable(), 7, 9).is_none(), "that position was never given");
}

#[test]
fn a_page_leads_past_positions_whose_turns_are_not_here() {
    let files = files();
    let mut memtable = files.memtable_mut();
    let passed_over = entry(&files, &memtable, &commit("d", vec![], &[("lost", 7), ("lost too", 7)]));
    memtable.pass_over(&passed_over);
    for (limit, next) in [(9, 8), (6, 6)] {
        let query = OrderQuery::of(&memtable, 0, limit).unwrap();
        let page = query.read(files.lineage(), None, &mut LeftOut::default()).unwrap();
        assert_eq!((page.turns.len(), page.next.number, page.latest.number), (6, next, 8));
    }
}

/// Calls `check` at each stage of a checkpoint, with the files, the sums of the memtable, the turns that are in no sums
/// yet, and which of the sums the tables lack: first with all turns counted, then with those of the immutable table,
/// then with none.
fn with_sums_at_each_stage(check: impl Fn(&Files, &Recent, TurnsToCount, &Lacking)) {
    let files = files();
    loop {
        let memtable = files.memtable();
        let TurnsToCount { immutable, active } = memtable.all_uncounted();
        let recent = |immutable, active| Recent::of(&TurnsToCount { immutable, active }, &NoPrices);
        let meta = files.read_tables().unwrap().meta().unwrap();
        let lacking = Lacking::of(&meta, memtable.rolled_up_then().row).unwrap();
        drop(memtable);
        check(&files, &recent(immutable.clone(), active.clone()), TurnsToCount::default(), &lacking);
        let uncounted = TurnsToCount { immutable: Vec::new(), active: active.clone() };
        check(&files, &recent(immutable.clone(), Vec::new()), uncounted, &lacking);
        check(&files, &Recent::default(), TurnsToCount { immutable, active }, &lacking);
        if !step(&files) {
            break;
        }
    }
}

#[test]
fn a_report_counts_each_turn_once_at_each_stage() {
    let question = question_of_1970();
    let turns = |files: &Files| {
        let of = |name| {
            let range = TurnRange::after(id(name), 0, 9);
            let query = TurnsQuery::of(&files.memtable(), &range);
            query.read(Some(&files.read_tables().unwrap()), &range, &mut LeftOut::default()).unwrap()
        };
        [of("a"), of("b"), of("c")].concat()
    };
    with_sums_at_each_stage(|files, recent, uncounted, lacking| {
        let tables = files.read_tables().unwrap();
        let query = ReportQuery::of(recent, uncounted, tables, lacking, &question);
        let report = query.read(&question, &NoPrices, &mut LeftOut::default()).unwrap().unwrap();
        assert_eq!(report.breakdown, breakdown_of(&turns(files), &question, &NoPrices));
    });
}

#[test]
fn conversations_in_each_order_at_each_stage() {
    with_sums_at_each_stage(|files, recent, uncounted, lacking| {
        let list = |question: ConversationQuestion| {
            let pieces = files.memtable().contents().all().cloned().collect();
            let query = ConversationsQuery::of(pieces, recent, uncounted.clone(), lacking);
            query.read(&files.read_tables().unwrap(), &question, &NoPrices, &mut LeftOut::default()).unwrap()
        };
        for order in [ConversationOrder::Recent, ConversationOrder::Cost, ConversationOrder::Turns] {
            let all = list(ConversationQuestion::first(order, 9));
            let told: Vec<_> = all
                .iter()
                .map(|listed| (listed.conversation_id.as_str(), listed.sealed_turns, listed.open_turns))
                .collect();
            assert_eq!(told, [("a", 3, 2), ("b", 3, 0)], "by {order:?}");
            assert_eq!((all[0].first_at.get(), all[0].last_at.get()), (1, 6));
            assert_eq!(list(ConversationQuestion::first(order, 1)), all[..1]);
            assert_eq!(list(ConversationQuestion::first(order, 9).after(&all[0])), all[1..]);
        }
    });
}

#[test]
fn all_stale_turns_however_they_are_paged() {
    let before = StaleBefore { open: RunningTime::new(45), failed: RunningTime::new(0) };
    let all = vec!["a anew".to_owned(), "a grows".to_owned()];
    at_each_stage(&[all.clone(), all], StaleQuery::of, |query, files, left_out| {
        let tables = files.read_tables().unwrap();
        [1, 9].map(|limit| {
            let (mut found, mut after) = (Vec::new(), None);
            // The loop is bounded, so that the test also ends if a page comes again and again.
            for _ in 0..9 {
                let page = query.stale_turns(&tables, before, after.as_ref(), limit, left_out).unwrap();
                let Some(last) = page.last() else { break };
                after = Some(last.clone());
                found.extend(page.iter().map(|stale| format!("{} {}", stale.conversation_id, stale.turn_id)));
            }
            found.sort();
            found
        })
    });
}

#[test]
fn all_damaged_records_are_counted_and_the_first_is_named() {
    let mut left_out = LeftOut::default();
    for place in ["one", "another"] {
        left_out.add(&DamagedRecord::new("turn", RecordFlaw::Missing), || place.to_owned());
    }
    assert_eq!(left_out.count, 2);
    assert!(left_out.first.starts_with("one: "), "{}", left_out.first);
}
