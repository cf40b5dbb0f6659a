//! Main files and journals of two times of one store, as after a careless restore.
//!
//! A store goes through some sixty moments, and both files are copied at each. Then the main file of each moment is put
//! beside the journal of each. A pair may open only if the store then shows what it showed at some moment, with
//! everything that was acknowledged when each of the two files was last written. Otherwise it must be refused, and the
//! refusal must say what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redb::Database;

use super::check::tests::set_up::forget_newest;
use super::check::{check, repair};
use super::compact::compact;
use crate::report::NoPrices;
use crate::settings::StoreSettings;
use crate::simulate::random::Random;
use crate::store::redb::tables::schema::ROWS;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::writer::Writer;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{Commit, Lineage, Location, OpenError, RedbEngine, StagedTurn};
use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, RunningTime, TurnId};

/// The number of pairs in a run of the test. `TURN_METRICS_TEST_PAIRS` sets another number.
const PAIRS: usize = 100;

const FILES: [StoreFile; 2] = [StoreFile::Main, StoreFile::Journal];
const CONVERSATIONS: [&str; 3] = ["a", "b", "c"];

fn id(name: &str) -> ConversationId {
    ConversationId::new(name).unwrap()
}

fn prepare(directory: &Path) -> Result<(RedbEngine, Writer), OpenError> {
    // The journal is so small that a flush moves one conversation.
    let settings = StoreSettings::with_journal_bytes(4800);
    RedbEngine::prepare(Location::Directory(directory.to_owned()), &settings, Backoff::default())
}

/// Does what waits for the writer, and returns the answer.
fn work<T>(writer: &mut Writer, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return answer;
        }
        assert!(matches!(writer.run_once(), ControlFlow::Continue(())));
    }
}

/// What a store shows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    lineage: Lineage,
    /// The conversation and the id of each sealed turn, by position.
    order: Vec<(String, String)>,
    /// The version and the open turns of each conversation.
    conversations: BTreeMap<&'static str, (u64, BTreeSet<String>)>,
}

impl Shown {
    fn of(store: &RedbEngine) -> Self {
        let page = store.sealed_turns(None, 10_000).unwrap();
        let turn = |turn: &crate::store::PositionedTurn| {
            (turn.conversation_id.to_string(), turn.turn.metrics.turn_id.to_string())
        };
        let conversation = |name| {
            let state = store.conversation_state(&id(name), &[]).unwrap();
            let open = state.open_turns.iter().map(|staged| staged.turn.id.to_string()).collect();
            (name, (state.version.0, open))
        };
        Self {
            lineage: page.latest.lineage,
            order: page.turns.iter().map(turn).collect(),
            conversations: CONVERSATIONS.map(conversation).into(),
        }
    }

    /// Returns whether this has everything that was shown at an earlier time, except turns that a repair between the
    /// two reported as lost.
    fn includes(&self, earlier: &Self, lost: &BTreeSet<(String, String)>) -> bool {
        if self.lineage == earlier.lineage {
            let versions =
                earlier.conversations.iter().all(|(name, (version, _))| self.conversations[name].0 >= *version);
            return self.order.starts_with(&earlier.order) && versions;
        }
        earlier.order.iter().all(|turn| self.order.contains(turn) || lost.contains(turn))
    }
}

/// The files at one moment, and what the store showed then.
struct Moment {
    after: &'static str,
    files: [Option<Vec<u8>>; 2],
    shown: Shown,
}

/// A store, and its moments so far.
struct History {
    directory: tempfile::TempDir,
    running: Option<(RedbEngine, Writer)>,
    moments: Vec<Moment>,
    turns: u64,
    /// The turns that the repair could not keep.
    lost: BTreeSet<(String, String)>,
}

impl History {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn writer(&mut self) -> &mut Writer {
        &mut self.running.as_mut().unwrap().1
    }

    fn files(&self) -> [Option<Vec<u8>>; 2] {
        FILES.map(|file| fs::read(self.path().join(file.name())).ok())
    }

    fn put(&self, files: &[Option<Vec<u8>>; 2]) {
        for (file, content) in FILES.iter().zip(files) {
            let path = self.path().join(file.name());
            let _ = fs::remove_file(&path);
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
            }
        }
    }

    fn remember(&mut self, after: &'static str) {
        let shown = match &self.running {
            Some((store, _)) => Shown::of(store),
            None => self.moments.last().unwrap().shown.clone(),
        };
        let files = self.files();
        self.moments.push(Moment { after, files, shown });
    }

    fn start(&mut self) {
        self.running = Some(prepare(self.path()).unwrap());
        // The thread of the checkpoint does this first.
        self.writer().checkpoint().note_newest_in_background();
        self.remember("a start");
    }

    /// Seals a turn and stages another one.
    fn commit(&mut self, name: &'static str) {
        // Otherwise the writer would flush within the same moment.
        while self.writer().checkpoint().is_due() {
            self.flush();
        }
        self.turns += 1;
        let turn = |kind| OpenTurn::new(TurnId::new(format!("{kind}{}", self.turns)).unwrap());
        let (store, writer) = self.running.as_mut().unwrap();
        let expected_version = store.conversation_state(&id(name), &[]).unwrap().version;
        let commit = Commit {
            conversation_id: id(name),
            expected_version,
            staged: vec![StagedTurn { turn: turn("open"), last_event_at: RunningTime::new(1) }.into()],
            sealed: vec![turn("sealed").seal(&Done::because("stop"), EpochMillis::new(self.turns))],
            imported_from: None,
        };
        work(writer, store.commit(commit)).unwrap();
        self.remember("a commit");
    }

    fn commits(&mut self, names: &[&'static str]) {
        for name in names {
            self.commit(name);
        }
    }

    fn flush(&mut self) {
        self.writer().checkpoint().flush().unwrap();
        self.remember("a flush");
    }

    fn move_all(&mut self) {
        self.writer().checkpoint().move_all().unwrap();
        self.remember("a checkpoint");
    }

    fn check_write(&mut self) {
        let (store, writer) = self.running.as_mut().unwrap();
        work(writer, store.check_write()).unwrap();
        self.remember("a write check");
    }

    fn note_newest(&mut self) {
        self.writer().checkpoint().note_newest_in_background();
        self.remember("a note of the newest row");
    }

    fn stop(&mut self) {
        let (store, writer) = self.running.take().unwrap();
        store.tell_to_close();
        drop(store);
        writer.run();
        self.remember("an orderly stop");
    }

    fn kill(&mut self) {
        let files = self.files();
        let (store, writer) = self.running.take().unwrap();
        drop(store);
        writer.run();
        // A killed process closes no file.
        self.put(&files);
        self.remember("a kill");
    }

    fn compact(&mut self) {
        compact(self.path(), Arc::new(NoPrices)).unwrap();
        self.remember("a compaction");
    }

    /// Removes the last row but one of the journal, and repairs the store.
    fn damage_and_repair(&mut self) {
        let journal = Database::open(self.path().join(StoreFile::Journal.name())).unwrap();
        let txn = journal.begin_write().unwrap();
        {
            let mut rows = txn.open_table(ROWS).unwrap();
            let last = redb::ReadableTable::last(&rows).unwrap().unwrap().0.value();
            assert!(rows.remove(last - 1).unwrap().is_some());
        }
        txn.commit().unwrap();
        journal.close().unwrap();
        assert_eq!(repair(self.path()).unwrap().1.unwrap().1.violations, []);
        let files = self.files();
        let before = self.moments.last().unwrap().shown.order.clone();
        self.start();
        let shown = self.moments.last().unwrap().shown.clone();
        self.lost = before.into_iter().filter(|turn| !shown.order.contains(turn)).collect();
        assert!(!self.lost.is_empty());
        let started = self.moments.len() - 1;
        self.moments.insert(started, Moment { after: "a repair", files, shown });
    }

    /// Goes back to the files of a moment, both together.
    fn restore(&mut self, moment: usize) {
        self.put(&self.moments[moment].files);
        self.start();
    }

    fn write() -> Self {
        let mut history = Self {
            directory: tempfile::tempdir().unwrap(),
            running: None,
            moments: Vec::new(),
            turns: 0,
            lost: BTreeSet::new(),
        };
        let store = &mut history;
        store.start();
        store.commits(&["a", "b"]);
        store.check_write();
        store.commits(&["c", "a"]);
        store.flush();
        store.commit("b");
        store.flush();
        store.note_newest();
        store.commits(&["c", "a"]);
        let fork = store.moments.len() - 1;
        store.move_all();
        store.commits(&["b", "b"]);
        store.kill();
        store.start();
        store.commit("c");
        store.flush();
        store.stop();
        store.start();
        store.commits(&["a", "c"]);
        store.flush();
        store.commit("b");
        store.kill();
        store.compact();
        store.start();
        store.commits(&["b", "a", "c", "b"]);
        store.kill();
        store.damage_and_repair();
        store.commits(&["a", "b"]);
        store.note_newest();
        store.kill();
        // A copy of both files cannot be recognized. From there the store takes another course.
        store.restore(fork);
        store.commits(&["b", "c"]);
        store.flush();
        store.commit("a");
        store.move_all();
        store.stop();
        store.start();
        store.commit("a");
        store.kill();
        history
    }

    /// Returns the main file or the journal of this number, with a name. After those of all moments come a missing and
    /// an empty file.
    fn file(&self, file: usize, number: usize) -> (String, Option<&[u8]>) {
        match self.moments.get(number) {
            Some(moment) => (format!("{number}, after {}", moment.after), moment.files[file].as_deref()),
            None if number == self.moments.len() => ("a missing one".to_owned(), None),
            None => ("an empty one".to_owned(), Some(b"")),
        }
    }

    /// Returns the first moment whose main file or journal has these bytes: then the file was last written.
    fn written(&self, file: usize, bytes: Option<&[u8]>) -> Option<&Moment> {
        bytes.and_then(|bytes| self.moments.iter().find(|moment| moment.files[file].as_deref() == Some(bytes)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    /// The pair shows everything that was acknowledged at the later of its moments.
    Whole,
    /// The pair shows an earlier moment, and no byte of it shows that later moments existed.
    Earlier,
}

/// Puts two files side by side, lets `doctor` change them, and opens them. An error says how the promise was broken.
fn judge(history: &History, [main, journal]: [usize; 2], doctor: impl Fn(&Path)) -> Result<Outcome, String> {
    let directory = tempfile::tempdir().unwrap();
    let chosen = [history.file(0, main), history.file(1, journal)];
    for (file, (_, content)) in FILES.iter().zip(&chosen) {
        if let Some(content) = content {
            fs::write(directory.path().join(file.name()), content).unwrap();
        }
    }
    doctor(directory.path());
    let pair = format!("main file {} beside journal {}", chosen[0].0, chosen[1].0);
    let is_clean = check(directory.path()).is_ok_and(|report| report.violations.is_empty());
    let bytes = [chosen[0].1, chosen[1].1];
    let was_a_state = |moment: &&Moment| moment.files.iter().map(Option::as_deref).eq(bytes);
    let state = history.moments.iter().find(was_a_state);
    let (store, writer) = match prepare(directory.path()) {
        Ok(opened) => opened,
        Err(refused) => {
            let told = refused.to_string();
            let path = directory.path().join(StoreFile::Main.name());
            if fs::metadata(path).map_or(0, |file| file.len()) == 0 && bytes[0].is_some_and(|bytes| !bytes.is_empty()) {
                return Err(format!("{pair}: the refusal lost the main file"));
            }
            if bytes[0].is_none_or(<[u8]>::is_empty)
                && fs::metadata(directory.path().join(FILES[0].name())).is_ok_and(|file| file.len() > 0)
            {
                return Err(format!("{pair}: refused, and a new main file was made"));
            }
            return match ["bring ", "move the journal away", "remove the empty file"]
                .iter()
                .any(|what| told.contains(what))
            {
                _ if state.is_some() => Err(format!("{pair}: a state of the store is refused: {told}")),
                _ if is_clean => Err(format!("{pair}: refused, and the check calls it clean")),
                false => Err(format!("{pair}: the refusal does not say what to do: {told}")),
                true => Ok(Outcome::Refused),
            };
        }
    };
    let shown = Shown::of(&store);
    drop(store);
    writer.run();
    // Without a main file and with no turn in the journal, nothing says that there was a store.
    if bytes[0].is_none() && bytes[1].is_none_or(<[u8]>::is_empty) {
        return if shown.order.is_empty() { Ok(Outcome::Whole) } else { Err(format!("{pair}: turns out of nowhere")) };
    }
    if !is_clean {
        return Err(format!("{pair}: it opened, and the check calls it damaged"));
    }
    if !history.moments.iter().any(|moment| moment.shown == shown) {
        return Err(format!("{pair}: the state never was: {shown:#?}"));
    }
    if state.is_some_and(|state| state.shown != shown) {
        return Err(format!("{pair}: the files show another state than they had: {shown:#?}"));
    }
    for (file, bytes) in bytes.into_iter().enumerate() {
        if let Some(earlier) = history.written(file, bytes)
            && !shown.includes(&earlier.shown, &history.lost)
        {
            return Err(format!("{pair}: turns are lost: {shown:#?} lacks some of {:#?}", earlier.shown));
        }
    }
    let of = |number: usize| history.moments.get(number).map(|moment| &moment.shown);
    let is_whole = [main, journal].into_iter().filter_map(of).all(|latest| shown.includes(latest, &history.lost));
    Ok(if is_whole { Outcome::Whole } else { Outcome::Earlier })
}

/// Returns pairs of numbers for [`History::file`], in random order.
fn pairs(history: &History) -> Vec<[usize; 2]> {
    let files = history.moments.len() + 2;
    let mut pairs: Vec<_> = (0..files).flat_map(|main| (0..files).map(move |journal| [main, journal])).collect();
    let mut random = Random::new(1);
    for place in (1..pairs.len()).rev() {
        pairs.swap(place, random.below(place + 1));
    }
    pairs
}

#[test]
fn files_of_two_times_are_refused_or_show_a_state_that_was_with_all_that_both_files_had() {
    let history = History::write();
    let count = std::env::var("TURN_METRICS_TEST_PAIRS").map_or(PAIRS, |count| count.parse().unwrap());
    let mut outcomes = BTreeMap::<Outcome, usize>::new();
    // The files of each moment are opened as they were, too.
    let together = (0..history.moments.len()).map(|moment| [moment; 2]);
    for pair in pairs(&history).into_iter().take(count).chain(together) {
        *outcomes.entry(judge(&history, pair, |_| {}).unwrap_or_else(|broken| panic!("{broken}"))).or_default() += 1;
    }
    println!("{} moments: {outcomes:?}", history.moments.len());
    assert!(history.moments.len() >= 40 && outcomes.len() >= 2, "{outcomes:?}");
}

#[test]
fn without_the_note_of_the_newest_row_turns_are_lost_and_the_same_check_notices() {
    let history = History::write();
    let broken = pairs(&history).into_iter().filter(|[main, journal]| main.max(journal) < &history.moments.len());
    let mut broken = broken.filter_map(|pair| judge(&history, pair, forget_newest).err());
    assert!(broken.any(|broken| broken.contains("never was") || broken.contains("lost")));
}
