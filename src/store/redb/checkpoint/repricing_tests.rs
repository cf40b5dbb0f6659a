//! Tests of stores that are opened with other prices than before.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::Checkpoint;
use crate::report::{Breakdown, Cost, Period, Quarter};
use crate::settings::StoreSettings;
use crate::store::conformance::TestPrices;
use crate::store::oracle::{breakdown_of, listing_of, question_of_1970};
use crate::store::redb::engine::RedbEngine;
use crate::store::redb::maintenance::check::check;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{
    Commit, CommitError, ConversationOrder, ConversationQuestion, DropError, DropTurns, DroppedTurns, Location, Report,
    ReportQuestion, RepricingProgress, Version,
};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenTurn, Progress, RunningTime, StepId, StoredTurn, TurnId, Usage,
};

/// A store on files. Nothing runs in the background: a test runs each flush and each step of a repricing.
struct Opened {
    engine: RedbEngine,
    checkpoint: Arc<Checkpoint>,
    prices: TestPrices,
    writer: JoinHandle<()>,
}

impl Opened {
    fn with(directory: &tempfile::TempDir, dear: i128) -> Self {
        Self::with_settings(directory, dear, &StoreSettings::default())
    }

    fn with_settings(directory: &tempfile::TempDir, dear: i128, settings: &StoreSettings) -> Self {
        let location = Location::Directory(directory.path().to_owned());
        let book = Arc::new(TestPrices { dear });
        let (engine, mut writer) = RedbEngine::prepare_pricing(location, settings, Backoff::default(), book).unwrap();
        writer.checkpoint_by_hand();
        let checkpoint = Arc::clone(writer.checkpoint());
        let writer = std::thread::spawn(move || writer.run());
        Self { engine, checkpoint, prices: TestPrices { dear }, writer }
    }

    async fn seal(&self, name: &str, version: u64, count: u64) {
        let sealed = (0..count).map(|nth| {
            let mut turn = OpenTurn::new(TurnId::new(format!("t{version}-{nth}")).unwrap());
            let usage = Usage { input_tokens: 900.into(), output_tokens: 20.into(), ..Usage::default() };
            let step_id = Some(StepId::new(format!("{}#0", turn.id)).unwrap());
            turn.fold(&Progress::Usage { step_id, report: usage.into(), is_final: false });
            let done = Done { model: Some("dear".into()), ..Done::because("stop") };
            turn.seal(&done, EpochMillis::new(nth * 700))
        });
        let (conversation_id, staged) = (id(name), Vec::new());
        let commit = Commit {
            conversation_id,
            expected_version: Version(version),
            staged,
            sealed: sealed.collect(),
            imported_from: None,
        };
        // On a busy machine, a commit may wait so long that it is refused.
        while let Err(error) = self.engine.commit(commit.clone()).await {
            assert_eq!(error, CommitError::Overloaded);
        }
    }

    fn turns(&self, name: &str) -> Vec<StoredTurn> {
        self.engine.all_turns(&id(name)).unwrap()
    }

    fn report(&self) -> Report {
        self.engine.report(&question_of_1970()).unwrap()
    }

    /// Returns the cost of all turns in a report.
    fn cost(&self) -> Cost {
        let periods = vec![Period::new(Quarter::new(0), Quarter::new(200)).unwrap()];
        let question = ReportQuestion { periods, ..question_of_1970() };
        let report = self.engine.report(&question).unwrap();
        let mut cost = Cost::default();
        report.breakdown.rows().for_each(|(_, _, row)| cost.add(&row.cost));
        cost
    }

    /// Returns the cost of all turns in a list of conversations.
    fn listed_dollars(&self) -> i128 {
        let all = ConversationQuestion::first(ConversationOrder::Cost, 9);
        self.engine.conversations(&all).unwrap().iter().map(|listed| dollars(&listed.sums.cost)).sum()
    }

    fn expected(&self) -> Breakdown {
        breakdown_of(&[self.turns("a"), self.turns("b")].concat(), &question_of_1970(), &self.prices)
    }

    /// Asserts that reports and lists show the costs of all turns by the prices that the store was opened with.
    fn assert_priced(&self) {
        assert!(!self.report().is_repricing);
        assert_eq!(self.report().breakdown, self.expected());
        let all = ConversationQuestion::first(ConversationOrder::Cost, 9);
        let mut expected: Vec<_> =
            ["a", "b"].iter().filter_map(|name| listing_of(&id(name), &self.turns(name), 0, &self.prices)).collect();
        expected.sort_by_key(|listed| ConversationOrder::Cost.place(listed));
        assert_eq!(self.engine.conversations(&all).unwrap(), expected);
    }

    /// Drops the turns that were sealed before a moment. Returns how many were dropped.
    fn drop_turns(&self, before: u64) -> u64 {
        let question = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(before) };
        let mut dropped = 0;
        loop {
            let step = match self.checkpoint.drop_some(&question, RunningTime::default()) {
                Err(DropError::Repricing) => return dropped,
                step => step.unwrap(),
            };
            dropped += step.turns;
            if step.is_done {
                return dropped;
            }
        }
    }

    fn flush(&self) {
        while self.engine.sizes().recent_bytes > 0 {
            self.checkpoint.flush().unwrap();
        }
    }

    async fn close(self) {
        self.engine.close().await;
    }

    /// Ends as after a kill: turns that were not flushed stay in the journal.
    fn lose(self) {
        drop(self.engine);
        self.writer.join().unwrap();
    }
}

fn id(name: &str) -> ConversationId {
    ConversationId::new(name).unwrap()
}

fn dollars(cost: &Cost) -> i128 {
    cost.usd().unwrap().get()
}

#[tokio::test]
async fn costs_are_derived_anew_by_other_prices_and_switched_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Opened::with(&directory, 5);
    store.seal("a", 0, 1200).await;
    store.seal("b", 0, 100).await;
    store.assert_priced();
    assert!(!store.checkpoint.reprice_in_background(), "there is nothing to do");
    store.close().await;

    let store = Opened::with(&directory, 11);
    assert!(store.report().is_repricing);
    assert_eq!(dollars(&store.cost()), 1300 * 920 * 5);
    let progress = |priced_turns| Some(RepricingProgress { turns: 1300, priced_turns });
    assert_eq!(store.engine.repricing(), progress(0), "it is due");
    assert!(store.checkpoint.reprice_in_background(), "it begins");
    assert_eq!(store.engine.repricing(), progress(0));
    assert!(store.checkpoint.reprice_in_background(), "some turns are priced");
    let priced = store.engine.repricing().unwrap().priced_turns;
    assert!(0 < priced && priced < 1300, "{priced}");
    assert_eq!(dollars(&store.cost()), 1300 * 920 * 5, "the old costs must be shown until all turns are priced");
    // Turns that come during a repricing have the new prices, first in the memtable and then in the tables.
    store.seal("b", 1, 10).await;
    assert_eq!(dollars(&store.cost()), 1300 * 920 * 5 + 10 * 920 * 11);
    store.flush();
    assert_eq!(dollars(&store.cost()), 1300 * 920 * 5 + 10 * 920 * 11);
    store.seal("a", 1, 10).await;
    let mut steps = 0;
    while store.report().is_repricing {
        assert!(store.checkpoint.reprice_in_background());
        steps += 1;
    }
    assert!(steps > 1, "{steps}");
    store.assert_priced();
    assert_eq!(store.engine.repricing(), None);
    while store.checkpoint.reprice_in_background() {}
    store.assert_priced();
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
}

#[tokio::test]
async fn a_repricing_goes_on_after_a_restart_and_is_given_up_for_other_prices() {
    let directory = tempfile::tempdir().unwrap();
    let store = Opened::with(&directory, 5);
    store.seal("a", 0, 1200).await;
    store.close().await;
    for (version, dear) in [(1, 11), (2, 11), (3, 5), (4, 13)] {
        let store = Opened::with(&directory, dear);
        assert!(store.report().is_repricing);
        assert!(store.checkpoint.reprice_in_background() && store.checkpoint.reprice_in_background());
        store.seal("b", version - 1, 3).await;
        store.close().await;
        assert_eq!(check(directory.path()).unwrap().violations, []);
    }
    let store = Opened::with(&directory, 13);
    while store.checkpoint.reprice_in_background() {}
    store.assert_priced();
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
}

#[tokio::test]
async fn a_repricing_does_not_begin_while_there_is_an_immutable_table() {
    let directory = tempfile::tempdir().unwrap();
    let store = Opened::with(&directory, 5);
    store.seal("a", 0, 1200).await;
    store.close().await;
    let store = Opened::with(&directory, 11);
    store.seal("b", 0, 5).await;
    store.checkpoint.flush().unwrap();
    assert!(!store.checkpoint.reprice_in_background(), "there is an immutable table");
    store.flush();
    while store.checkpoint.reprice_in_background() {}
    store.assert_priced();
    store.close().await;
}

/// The prices before are not known any more, so turns that the rollups do not have yet can only have the new ones.
#[tokio::test]
async fn until_the_switch_turns_of_the_rollups_have_the_old_costs_and_turns_of_the_journal_the_new_ones() {
    // So small that each flush moves one row of sums.
    let settings = StoreSettings::with_journal_bytes(8 * 1024);
    let (old, new, both) = (20 * 920 * 5, 20 * 920 * 11, 10 * 920 * 5 + 10 * 920 * 11);
    let mut seen = Vec::new();
    let mut flushes = 0;
    loop {
        let directory = tempfile::tempdir().unwrap();
        let store = Opened::with_settings(&directory, 5, &settings);
        store.seal("a", 0, 10).await;
        store.flush();
        store.seal("b", 0, 10).await;
        (0..flushes).for_each(|_| store.checkpoint.flush().unwrap());
        let is_all_moved = store.engine.sizes().recent_bytes == 0;
        store.lose();

        let store = Opened::with_settings(&directory, 11, &settings);
        assert!(store.report().is_repricing);
        let shown = (dollars(&store.cost()), store.listed_dollars());
        seen.push(shown);
        let all_steps = |is_repricing| {
            let mut steps = 0;
            while store.report().is_repricing == is_repricing
                && (store.checkpoint.reprice_in_background() || store.engine.sizes().recent_bytes > 0)
            {
                if store.report().is_repricing {
                    let now = (dollars(&store.cost()), store.listed_dollars());
                    assert_eq!(now, shown, "after {flushes} flushes and {steps} steps");
                }
                if steps % 2 == 0 {
                    store.checkpoint.flush().unwrap();
                }
                steps += 1;
            }
        };
        all_steps(true);
        assert_eq!((dollars(&store.cost()), store.listed_dollars()), (new, new));
        store.assert_priced();
        all_steps(false);
        store.assert_priced();
        store.close().await;
        assert_eq!(check(directory.path()).unwrap().violations, []);
        if is_all_moved {
            break;
        }
        flushes += 1;
    }
    seen.dedup();
    // The sums of conversations are moved before the sums of reports.
    assert_eq!(seen, [(both, both), (both, old), (old, old)]);
}

#[tokio::test]
async fn erased_turns_keep_the_costs_that_they_had_when_the_prices_change() {
    let directory = tempfile::tempdir().unwrap();
    let store = Opened::with(&directory, 5);
    store.seal("a", 0, 700).await;
    store.seal("b", 0, 100).await;
    assert_eq!(store.engine.erase(id("a")).await, Ok(true));
    let before = store.report();
    assert!(!store.checkpoint.erase_in_background(), "the erasure is not in the tables");
    store.flush();
    assert!(store.checkpoint.erase_in_background(), "some rows are removed");
    assert_eq!(store.report(), before);
    while store.checkpoint.erase_in_background() {}
    assert_eq!(store.report(), before);
    assert_eq!(dollars(&store.cost()), 800 * 920 * 5);
    store.seal("c", 0, 10).await;
    assert_eq!(store.engine.erase(id("c")).await, Ok(true));
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);

    let store = Opened::with(&directory, 11);
    assert!(store.checkpoint.reprice_in_background(), "the repricing begins");
    assert!(!store.checkpoint.erase_in_background(), "nothing is erased while costs are by two prices");
    while store.checkpoint.reprice_in_background() {}
    while store.checkpoint.erase_in_background() {}
    // The turns of `c` were still there when the prices changed.
    assert_eq!(dollars(&store.cost()), 700 * 920 * 5 + 110 * 920 * 11);
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
}

/// Turns whose pieces were moved by a flush before a kill, and whose sums were not, must not be dropped before their sums
/// are in the tables.
#[tokio::test]
async fn turns_are_not_dropped_before_their_sums_are_in_the_tables() {
    let question = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(20 * 60 * 60 * 1000) };
    for flushes in 0..8 {
        let directory = tempfile::tempdir().unwrap();
        let store = Opened::with(&directory, 5);
        store.seal("a", 0, 10).await;
        (0..flushes).for_each(|_| store.checkpoint.flush().unwrap());
        let report = store.report();
        store.lose();
        let store = Opened::with(&directory, 5);
        let mut dropped = 0;
        for step in 0.. {
            let DroppedTurns { turns, is_done } = store.engine.drop_turns(question).await.unwrap();
            dropped += turns;
            assert_eq!(store.report(), report, "after {flushes} flushes and {step} steps");
            if is_done {
                break;
            }
        }
        assert_eq!(dropped, 10);
        store.flush();
        assert_eq!(store.report(), report, "after {flushes} flushes");
        store.close().await;
        assert_eq!(check(directory.path()).unwrap().violations, []);
    }
}

#[tokio::test]
async fn dropped_turns_keep_the_costs_that_they_had_when_the_prices_change() {
    let directory = tempfile::tempdir().unwrap();
    let store = Opened::with(&directory, 5);
    store.seal("a", 0, 700).await;
    store.seal("b", 0, 100).await;
    let before = store.report();
    assert_eq!(store.drop_turns(600 * 700), 600 + 100);
    assert_eq!(store.report(), before);
    assert_eq!(store.listed_dollars(), 700 * 920 * 5, "the other conversation is not listed");
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);

    let store = Opened::with(&directory, 11);
    let all = 700 * 700;
    assert_eq!(store.drop_turns(all), 0, "nothing is dropped while costs are by other prices");
    assert!(store.checkpoint.reprice_in_background(), "the repricing begins");
    assert_eq!(store.drop_turns(all), 0, "nothing is dropped while costs are by two prices");
    while store.checkpoint.reprice_in_background() {}
    // Some turns of `a` were still there when the prices changed.
    assert_eq!(dollars(&store.cost()), 700 * 920 * 5 + 100 * 920 * 11);
    assert_eq!(store.listed_dollars(), 600 * 920 * 5 + 100 * 920 * 11);
    store.seal("b", 1, 10).await;
    assert_eq!(store.listed_dollars(), 700 * 920 * 5 + 110 * 920 * 11, "the other conversation is listed again");
    let before = store.report();
    assert_eq!(store.drop_turns(all), 100 + 10);
    assert_eq!(store.report(), before);
    assert_eq!(dollars(&store.cost()), 700 * 920 * 5 + 110 * 920 * 11);
    store.close().await;
    assert_eq!(check(directory.path()).unwrap().violations, []);
}
