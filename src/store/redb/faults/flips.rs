//! Single flipped bits in either file of a store. Whatever bit is flipped, no answer of the store is wrong and no turn
//! is sealed a second time. The store reports the flip in one of these ways: it refuses to open, an answer is an error,
//! the count of records that were left out is above 0, or one scrub has a finding.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use redb::{Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableHandle, Value};

use super::disk::Disk;
use super::from_environment;
use crate::report::NoPrices;
use crate::settings::{RedbSettings, StoreSettings};
use crate::simulate::random::Random;
use crate::store::oracle::{Oracle, breakdown_of, question_of_1970};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::meta::{META, ReadMeta};
use crate::store::redb::tables::schema::{ROWS, Role, TableVisitor, visit_tables};
use crate::store::redb::unwind;
use crate::store::redb::writer::Writer;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{
    Commit, CommitError, Committed, ConversationOrder, ConversationQuestion, RedbEngine, StagedTurn, StoreFile,
    TurnOutcome, TurnRange, Version, check,
};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenTurn, Progress, RunningTime, StepId, StoredTurn, TurnId, TurnLabels, Usage,
};

/// The number of flips in each file in a run of the test. `TURN_METRICS_TEST_FLIPS` sets another number.
const FLIPS: u64 = 20;

fn settings() -> StoreSettings {
    let redb = RedbSettings { cache_bytes: 1 << 20, journal_bytes: 1 << 20, ..RedbSettings::default() };
    StoreSettings { redb, ..StoreSettings::default() }
}

/// The bytes of both files, and what a store of them must answer.
pub(super) struct Sample {
    pub(super) files: [Vec<u8>; 2],
    pub(super) models: BTreeMap<ConversationId, Oracle>,
    /// The models without the last commit.
    models_before: BTreeMap<ConversationId, Oracle>,
    order: Vec<(ConversationId, u64)>,
    /// The rows of each file.
    rows: [Option<Vec<DumpedRow>>; 2],
}

fn work_until<T>(writer: &mut Writer, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return answer;
        }
        assert!(matches!(writer.run_once(), ControlFlow::Continue(())), "the writer ended with a job unanswered");
    }
}

fn turn(random: &mut Random, id: String) -> OpenTurn {
    let mut turn = OpenTurn::new(TurnId::new(id).unwrap());
    turn.fold(&Progress::Start(TurnLabels::of_model(["m", "n", "another model"][random.below(3)])));
    for step in 0..=random.below(3) {
        let step_id = Some(StepId::new(format!("{}#{step}", turn.id)).unwrap());
        let usage = Usage { input_tokens: random.within(0..=u32::MAX).into(), ..Usage::default() };
        turn.fold(&Progress::Usage { step_id, report: usage.into(), is_final: false });
    }
    turn
}

/// Returns a store of several hundred turns, as a crash leaves it: most of them are in the tables, and some in the
/// journal only.
pub(super) fn sample() -> Sample {
    let disk = Disk::default();
    let (engine, mut writer) = RedbEngine::prepare(disk.location(), &settings(), Backoff::default()).unwrap();
    let (mut random, mut models) = (Random::new(1), BTreeMap::<ConversationId, Oracle>::new());
    let (mut models_before, mut order) = (BTreeMap::new(), Vec::new());
    for nth in 0..260_u64 {
        // Most turns are in few conversations, as they are in a real store.
        let of = if nth % 2 == 0 { nth % 6 } else { nth % 130 };
        let conversation_id = ConversationId::new(format!("conversation-{of:03}")).unwrap();
        let model = models.entry(conversation_id.clone()).or_default();
        let mut commit = Commit {
            conversation_id: conversation_id.clone(),
            expected_version: model.version,
            staged: Vec::new(),
            sealed: Vec::new(),
            imported_from: None,
        };
        for place in 0..=random.below(4) {
            let done = Done { duration: Some(random.within(0..=1000).into()), ..Done::because("stop") };
            let at = EpochMillis::new(random.within(1..=100_000_000).into());
            commit.sealed.push(turn(&mut random, format!("turn-{nth}-{place}")).seal(&done, at));
        }
        if random.once_in(8) {
            let turn = turn(&mut random, format!("open-{nth}"));
            commit.staged.push(StagedTurn { turn, last_event_at: RunningTime::new(nth) }.into());
        }
        models_before = models.clone();
        let expected = models.get_mut(&conversation_id).unwrap().apply(&commit);
        assert_eq!(work_until(&mut writer, engine.commit(commit)), expected);
        let sealed = expected.unwrap().outcomes.into_iter().filter_map(|(_, outcome)| match outcome {
            TurnOutcome::Sealed(ordinal) => Some((conversation_id.clone(), ordinal.get())),
            _ => None,
        });
        order.extend(sealed);
        // A checkpoint now and then, and two at the end, but for the last commits.
        if [60, 130, 200, 240].contains(&nth) {
            while engine.sizes().recent_bytes > 0 {
                assert!(writer.checkpoint().flush_in_background());
            }
        }
    }
    let files = [StoreFile::Main, StoreFile::Journal].map(|file| disk.bytes(file));
    let rows = [rows_of(StoreFile::Main, &files[0]), rows_of(StoreFile::Journal, &files[1])];
    for (rows, least) in rows.iter().zip([2000, 10]) {
        assert!(rows.as_ref().is_some_and(|rows| rows.len() > least), "{:?}", rows.as_ref().map(Vec::len));
    }
    Sample { files, models, models_before, order, rows }
}

/// What was noticed of a flip.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    /// The ways in which the store reported the flip.
    told: BTreeSet<&'static str>,
    /// Why an answer was wrong.
    pub(super) wrong: Vec<String>,
    /// Whether the last commit was left out.
    is_shorter: bool,
    /// Whether the rows of the flipped file are as before, and each is found by its key.
    has_all_rows: bool,
    /// Whether a check of the files finds nothing.
    checks: bool,
}

impl Noticed {
    fn tell<T, E>(&mut self, answer: Result<T, E>) -> Option<T> {
        if answer.is_err() {
            self.told.insert("an answer");
        }
        answer.ok()
    }
}

/// Compares everything that can be read with the models. A difference is wrong unless records were left out: then turns
/// may be missing, and no turn may differ.
fn read_all(
    engine: &RedbEngine,
    models: &BTreeMap<ConversationId, Oracle>,
    order: &[(ConversationId, u64)],
    noticed: &mut Noticed,
) {
    for (id, model) in models {
        let mut after = 0;
        let mut turns: Vec<StoredTurn> = Vec::new();
        let mut has_failed = false;
        loop {
            match engine.turns(&TurnRange::after(id.clone(), after, 7)) {
                Ok(page) if page.is_empty() => break,
                Ok(page) => {
                    after = page.last().map_or(u64::MAX, |turn| turn.ordinal.get());
                    turns.extend(page);
                }
                Err(_) => has_failed = true,
            }
            if has_failed || turns.len() > model.sealed.len() {
                break;
            }
        }
        let latest = engine.turns(&TurnRange::latest(id.clone(), 5));
        has_failed |= latest.is_err();
        let latest = noticed.tell(latest).unwrap_or_default();
        let is_of_model = |turn: &StoredTurn| model.sealed.get(place_of(turn.ordinal.get())) == Some(turn);
        if !turns.iter().chain(&latest).all(is_of_model) || !turns.is_sorted_by_key(|turn| turn.ordinal) {
            noticed.wrong.push(format!("turns of {id}: {turns:?}"));
        }
        let is_all = turns.len() == model.sealed.len() && latest.len() == model.sealed.len().min(5);
        if has_failed {
            noticed.told.insert("an answer");
        } else {
            differs(engine, noticed, !is_all, || format!("turns of {id} are missing"));
        }
        if let Some(state) = noticed.tell(engine.conversation_state(id, &[])) {
            let open = state.open_turns.iter().filter(|staged| model.open.get(&staged.turn.id) == Some(staged)).count();
            if open < state.open_turns.len() || state.version != model.version {
                noticed.wrong.push(format!("the state of {id}: {state:?}"));
            }
            differs(engine, noticed, open < model.open.len(), || format!("open turns of {id} are missing"));
        }
        if let Some(open) = noticed.tell(engine.open_turns(id)) {
            let is_all = open.turns.iter().eq(model.open.values()) && open.sealed_turns == model.sealed.len() as u64;
            differs(engine, noticed, !is_all, || format!("open turns of {id}: {open:?}"));
        }
        if let Some(revision) = noticed.tell(engine.revision(id)) {
            let is_right = revision.sealed_turns == model.sealed.len() as u64;
            differs(engine, noticed, !is_right, || format!("the revision of {id} is {revision}"));
        }
    }
    let (mut after, mut seen) = (None, 0);
    while let Some(page) = noticed.tell(engine.sealed_turns(after, 50)) {
        for sealed in &page.turns {
            let at = (sealed.conversation_id.clone(), sealed.turn.ordinal.get());
            if order.get(place_of(sealed.position.number)) != Some(&at) {
                noticed.wrong.push(format!("position {} is {at:?}", sealed.position));
            }
        }
        seen += page.turns.len();
        differs(engine, noticed, page.latest.number != order.len() as u64, || {
            format!("the last position is {}", page.latest)
        });
        after = Some(page.next);
        if page.next == page.latest || seen > order.len() {
            break;
        }
    }
    if !noticed.told.contains("an answer") {
        differs(engine, noticed, seen != order.len(), || format!("{seen} positions are listed"));
    }
    let listed_of = |(id, model): (&ConversationId, &Oracle)| model.listing(id, &NoPrices);
    let mut expected: Vec<_> = models.iter().filter_map(listed_of).collect();
    for order in
        [ConversationOrder::Recent, ConversationOrder::Tokens, ConversationOrder::Turns, ConversationOrder::Cost]
    {
        expected.sort_by_key(|listed| order.place(listed));
        if let Some(listed) = noticed.tell(engine.conversations(&ConversationQuestion::first(order, 1000))) {
            differs(engine, noticed, listed != expected, || format!("the list by {order:?} differs"));
        }
    }
    let question = question_of_1970();
    let turns = models.values().flat_map(|model| &model.sealed);
    let expected = breakdown_of(turns, &question, &NoPrices);
    if let Some(report) = noticed.tell(engine.report(&question)) {
        differs(engine, noticed, report.breakdown != expected, || "the report differs".into());
    }
    let stale =
        noticed.tell(engine.stale_turns(RunningTime::new(u64::MAX).into(), None, 1000)).map(|stale| stale.len());
    let expected: usize = models.values().map(|model| model.open.len()).sum();
    differs(engine, noticed, stale.is_some_and(|stale| stale != expected), || {
        format!("{stale:?} open turns are stale")
    });
}

/// Returns the place in a list of what has this number, from 1 on.
fn place_of(number: u64) -> usize {
    usize::try_from(number).unwrap() - 1
}

/// Notes a wrong answer if it differs and no record was left out.
fn differs(engine: &RedbEngine, noticed: &mut Noticed, differs: bool, what: impl FnOnce() -> String) {
    if engine.damaged_records() > 0 {
        noticed.told.insert("records left out");
    } else if differs {
        noticed.wrong.push(what());
    }
}

/// Sends all sealed turns again. None may be sealed once more.
pub(super) fn send_again(
    engine: &RedbEngine,
    writer: &mut Writer,
    models: &BTreeMap<ConversationId, Oracle>,
    noticed: &mut Noticed,
) {
    for (id, model) in models {
        let sealed = model
            .sealed
            .iter()
            .map(|turn| OpenTurn::new(turn.metrics.turn_id.clone()).seal(&Done::because("again"), turn.sealed_at));
        let known = engine.conversation_state(id, &[]).map(|state| state.version).unwrap_or_default();
        // A client that knows nothing begins with the first version.
        for version in BTreeSet::from([known, Version(0)]) {
            let commit = Commit {
                conversation_id: id.clone(),
                expected_version: version,
                staged: Vec::new(),
                sealed: sealed.clone().collect(),
                imported_from: None,
            };
            let expected =
                model.sealed.iter().map(|turn| (turn.metrics.turn_id.clone(), TurnOutcome::Duplicate(turn.ordinal)));
            match work_until(writer, engine.commit(commit)) {
                Ok(Committed { outcomes, .. }) if outcomes.iter().cloned().eq(expected) => {}
                Ok(committed) => noticed.wrong.push(format!("{id} was sealed anew: {committed:?}")),
                Err(CommitError::Conflict { actual, .. }) if actual == model.version => {}
                Err(CommitError::Conflict { actual, .. }) => {
                    noticed.wrong.push(format!("{id} has version {actual:?} instead of {:?}", model.version));
                }
                Err(_) => drop(noticed.told.insert("a refused commit")),
            }
        }
    }
}

/// Flips one bit of one file, uses the store, and scrubs it once if asked to.
fn flip(sample: &Sample, file: usize, at: usize, bit: usize, scrubs: bool) -> Noticed {
    let mut files = sample.files.clone();
    files[file][at] ^= 1 << bit;
    let flipped = [StoreFile::Main, StoreFile::Journal][file];
    let has_all_rows = rows_of(flipped, &files[file]) == sample.rows[file];
    let mut noticed = Noticed { has_all_rows, checks: checked(&files), ..Noticed::default() };
    let [main, journal] = files;
    let disk = Disk::of(main, journal);
    let opened = RedbEngine::prepare(disk.location(), &settings(), Backoff::default());
    let Ok((engine, mut writer)) = opened else {
        noticed.told.insert("a refused opening");
        return noticed;
    };
    let last = engine.sealed_turns(None, 0).map_or(0, |page| page.latest.number);
    let before: usize = sample.models_before.values().map(|model| model.sealed.len()).sum();
    // A last commit with wrong checksums looks like one that a crash has cut short.
    noticed.is_shorter = file == 1 && last == before as u64;
    let models = if noticed.is_shorter { &sample.models_before } else { &sample.models };
    let order = if noticed.is_shorter { &sample.order[..before] } else { &sample.order };
    read_all(&engine, models, order, &mut noticed);
    send_again(&engine, &mut writer, models, &mut noticed);
    if scrubs {
        match engine.scrub() {
            Ok(report) if report.findings == 0 => {}
            Ok(_) => drop(noticed.told.insert("a finding")),
            Err(_) => drop(noticed.told.insert("a scrub that failed")),
        }
    }
    // Closing a damaged database can panic. The store catches that when it closes its files.
    let _ = unwind::caught(|| drop((engine, writer)));
    noticed
}

fn checked([main, journal]: &[Vec<u8>; 2]) -> bool {
    let directory = tempfile::tempdir().unwrap();
    for (file, bytes) in [(StoreFile::Main, main), (StoreFile::Journal, journal)] {
        fs::write(directory.path().join(file.name()), bytes).unwrap();
    }
    let checked = unwind::caught(|| check(directory.path()));
    checked.is_ok_and(|checked| checked.is_ok_and(|report| report.violations.is_empty()))
}

/// A row: its table, its key, its value, and whether its key leads to it.
type DumpedRow = (String, Vec<u8>, Vec<u8>, bool);

/// Returns all rows of a file. `None` if it cannot be read.
fn rows_of(file: StoreFile, bytes: &[u8]) -> Option<Vec<DumpedRow>> {
    struct Dump(ReadTransaction, Vec<DumpedRow>);
    impl TableVisitor for Dump {
        fn visit<K: Key + 'static, V: Value + 'static>(
            &mut self,
            table: TableDefinition<'static, K, V>,
            role: Role,
        ) -> Result<(), Failure> {
            if role == Role::Lost {
                return Ok(());
            }
            let rows = self.0.open_table(table)?;
            for row in rows.iter()? {
                let (key, value) = row?;
                let bytes = K::as_bytes(&key.value()).as_ref().to_vec();
                let is_found = rows.get(key.value())?.is_some();
                self.1.push((table.name().to_owned(), bytes, V::as_bytes(&value.value()).as_ref().to_vec(), is_found));
            }
            Ok(())
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(file.name());
    fs::write(&path, bytes).unwrap();
    let database = unwind::caught(|| Database::open(&path).ok()).ok().flatten()?;
    let dumped = unwind::caught(|| {
        let mut dump = Dump(database.begin_read().ok()?, Vec::new());
        match file {
            StoreFile::Main => visit_tables(&mut dump).ok()?,
            StoreFile::Journal => {
                dump.visit(META, Role::Meta).ok()?;
                dump.visit(ROWS, Role::Data).ok()?;
            }
        }
        Some(dump.1)
    });
    // Closing a file whose lists of free pages are damaged can panic.
    let _ = unwind::caught(|| drop(database));
    dumped.ok().flatten()
}

#[test]
fn no_flipped_bit_gives_a_wrong_answer_and_none_that_damages_a_row_is_untold_after_a_scrub() {
    let sample = sample();
    let flips = from_environment("TURN_METRICS_TEST_FLIPS").unwrap_or(FLIPS);
    let seed = from_environment("TURN_METRICS_TEST_SEED").unwrap_or(1);
    let mut noticed_flips = 0;
    for (file, name) in ["main file", "journal"].into_iter().enumerate() {
        let mut random = Random::new(seed.wrapping_mul(2).wrapping_add(file as u64));
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..flips {
            let (at, bit) = (random.below(sample.files[file].len()), random.below(8));
            let noticed = flip(&sample, file, at, bit, true);
            assert!(noticed.wrong.is_empty(), "bit {bit} of byte {at} of the {name}: {noticed:#?}");
            let is_told = !noticed.told.is_empty() || noticed.is_shorter || noticed.has_all_rows;
            assert!(is_told, "bit {bit} of byte {at} of the {name} is untold: {noticed:#?}");
            noticed_flips += u64::from(!noticed.told.is_empty() || noticed.is_shorter);
            let kind = match (noticed.told.iter().next(), noticed.is_shorter) {
                (Some(_), _) => format!("told by {:?}", noticed.told),
                (None, true) => "the last commit left out".into(),
                (None, false) if noticed.checks => "harmless".into(),
                (None, false) => "harmless, though a check tells a damaged page".into(),
            };
            *counts.entry(kind).or_default() += 1;
        }
        println!("{flips} flips in the {name} of {} bytes: {counts:#?}", sample.files[file].len());
    }
    assert!(noticed_flips * 20 >= flips, "of {flips} flips in each file only {noticed_flips} were noticed");
}

#[test]
fn a_flipped_bit_in_a_row_of_the_journal_is_noticed() {
    let sample = sample();
    let rows = sample.rows[1].iter().flatten().filter(|(table, ..)| table == ROWS.name());
    for (_, key, value, _) in rows.step_by(5) {
        // Earlier pages may have the row too.
        let copies = |at: &usize| sample.files[1][*at..].starts_with(value);
        let mut noticed = 0;
        for at in (0..sample.files[1].len()).filter(copies) {
            let flip = flip(&sample, 1, at + value.len() / 2, 3, false);
            assert!(flip.wrong.is_empty(), "{flip:?}");
            let is_noticed = !flip.told.is_empty() || flip.is_shorter;
            assert!(is_noticed || flip.has_all_rows, "byte {at} of the journal is untold: {flip:?}");
            noticed += usize::from(is_noticed);
        }
        assert!(noticed > 0, "no flip in the row {key:?} is noticed");
    }
}

/// Returns the places in the main file that have the hash of a turn of the tables: in the index, and in its earlier
/// pages.
fn bytes_of_the_index(sample: &Sample) -> Vec<usize> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(StoreFile::Main.name());
    fs::write(&path, &sample.files[0]).unwrap();
    let store_id = ReadMeta::of(&Database::open(path).unwrap()).unwrap().store_id().unwrap();
    let hash = TurnHasher::of(store_id).hash("turn-0-0").to_le_bytes();
    let main = &sample.files[0];
    (0..main.len() - 8).filter(|at| main[*at..].starts_with(&hash)).collect()
}

#[test]
fn control_without_the_scrub_a_damaged_row_that_no_read_meets_is_untold() {
    let sample = sample();
    let mut by_scrub = 0;
    for place in bytes_of_the_index(&sample) {
        let with = flip(&sample, 0, place, 3, true);
        let without = flip(&sample, 0, place, 3, false);
        assert!(with.wrong.is_empty() && without.wrong.is_empty());
        by_scrub += usize::from(with.told.contains("a finding") && without.told.is_empty() && !with.has_all_rows);
    }
    assert!(by_scrub > 0, "every flip in the index is told without the scrub");
}
