//! Questions across conversations and time: a report, lists of conversations, and how much their sums slow the appends.

use std::path::Path;
use std::time::Duration;

use redb::{Database, ReadableDatabase, TableDefinition};
use turn_metrics::actors::{BuildReport, ListConversations};
use turn_metrics::report::{Grouping, Period, PeriodUnit, Selection, Zone};
use turn_metrics::store::{ConversationOrder, ConversationQuestion, ReportQuestion};

use crate::load::{load, load_as};
use crate::report::{FEW_ROUNDS, Report, Round, Row, Unit, alternate};
use crate::store::{RunningStore, Writers};
use crate::work::{CONVERSATIONS, MODELS, YEAR_MILLIS, YEAR_START, at_random, within_a_year};

pub(crate) fn run(report: &mut Report, turns: u64) {
    year(report, turns);
    lists(report, turns);
    beside_appends(report);
}

const DAYS: usize = 365;
/// The rows of sums that cover the year: for each day and model, one of figures and one of costs.
const ROWS: usize = DAYS * MODELS * 2;
/// The number of questions in a round.
const ASKED: usize = 5;

fn year(report: &mut Report, turns: u64) {
    let rival = "reading as many rows from redb";
    let rows = Row::new(
        format!("report: a year by day and by {MODELS} models, {turns} turns stored, rows read"),
        rival,
        "0.3",
    );
    let time =
        Row::new(format!("report: a year by day and by {MODELS} models, {turns} turns stored, time"), "", "50 ms");
    if !report.wants(&rows.name) && !report.wants(&time.name) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    load_as(directory.path(), CONVERSATIONS, turns, |n, turn| within_a_year(n, turns, turn));
    let rival = Rival::new(directory.path());
    let pairs = alternate(FEW_ROUNDS, || ask_for_year(directory.path()), || rival.read());
    let millis = pairs.iter().map(|(ours, _)| ours.took.as_secs_f64() * 1e3 / ASKED as f64);
    let millis: Vec<_> = millis.collect();
    report.add_rates(&rows, &pairs);
    report.add_values(&time, Unit::Milliseconds, &millis);
}

fn ask_for_year(directory: &Path) -> Round {
    let year = Period::around(YEAR_START, YEAR_START + YEAR_MILLIS).unwrap();
    let question = ReportQuestion {
        periods: Zone::UTC.periods(PeriodUnit::Day, year).collect(),
        grouping: Grouping { model: true, ..Grouping::default() },
        selection: Selection::default(),
    };
    with_store(directory, async |store| {
        // This first question is not timed. It brings the pages into the cache.
        let first = store.address.send(BuildReport(question.clone())).await.unwrap().unwrap();
        assert_eq!(first.breakdown.rows().len(), DAYS * MODELS);
        Round::of_async(async {
            for _ in 0..ASKED {
                store.address.send(BuildReport(question.clone())).await.unwrap().unwrap();
            }
            ASKED * ROWS
        })
        .await
    })
}

/// A database with the same number of rows, and nothing else.
struct Rival(Database);

impl Rival {
    const TABLE: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("rows");
    /// The approximate bytes of a row of sums. Rows of costs are far smaller.
    const ROW_BYTES: usize = 300;

    fn new(directory: &Path) -> Self {
        let database = Database::create(directory.join("rival.redb")).unwrap();
        let txn = database.begin_write().unwrap();
        let mut table = txn.open_table(Self::TABLE).unwrap();
        for n in 0..ROWS as u64 {
            table.insert(n, &[7; Self::ROW_BYTES][..]).unwrap();
        }
        drop(table);
        txn.commit().unwrap();
        Self(database)
    }

    fn read(&self) -> Round {
        Round::of(|| {
            let mut bytes = 0;
            for _ in 0..ASKED {
                let table = self.0.begin_read().unwrap().open_table(Self::TABLE).unwrap();
                bytes += table.range::<u64>(..).unwrap().map(|row| row.unwrap().1.value().len()).sum::<usize>();
            }
            assert_eq!(bytes, ASKED * ROWS * Self::ROW_BYTES);
            ASKED * ROWS
        })
    }
}

fn lists(report: &mut Report, turns: u64) {
    const FEW_CONVERSATIONS: u64 = 1000;
    let conversations = turns / 10;
    let recent = Row::new(format!("list: 50 of {conversations} conversations by latest activity"), "of 1000", "0.8");
    let cost = Row::new(format!("list: 50 of {conversations} conversations by cost"), "", "1 s for a million");
    if !report.wants(&recent.name) && !report.wants(&cost.name) {
        return;
    }
    let (many, few) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    load(many.path(), conversations, conversations * 10);
    load(few.path(), FEW_CONVERSATIONS, FEW_CONVERSATIONS * 10);
    if report.wants(&recent.name) {
        let list = |directory: &Path| ask_for_list(directory, ConversationOrder::Recent, 1000);
        report.add_rates(&recent, &alternate(FEW_ROUNDS, || list(many.path()), || list(few.path())));
    }
    if report.wants(&cost.name) {
        let millis = |_| ask_for_list(many.path(), ConversationOrder::Cost, 1).took.as_secs_f64() * 1e3;
        report.add_values(&cost, Unit::Milliseconds, &(0..FEW_ROUNDS).map(millis).collect::<Vec<_>>());
    }
}

/// Asks for the same page several times.
fn ask_for_list(directory: &Path, order: ConversationOrder, count: usize) -> Round {
    with_store(directory, async |store| {
        Round::of_async(async {
            for _ in 0..count {
                let list = ListConversations(ConversationQuestion::first(order, 50));
                assert_eq!(store.address.send(list).await.unwrap().unwrap().len(), 50);
            }
            count
        })
        .await
    })
}

/// Opens the store, asks the question, and closes the store.
fn with_store(directory: &Path, ask: impl AsyncFnOnce(&RunningStore) -> Round) -> Round {
    actix::System::new().block_on(async {
        let store = RunningStore::start(directory);
        let round = ask(&store).await;
        store.close().await;
        round
    })
}

/// Sums are always kept, so the comparison is between turns that go to many rows and turns that go to one.
fn beside_appends(report: &mut Report) {
    let name = format!("append: 64 waiting, each turn to one of {} rows of sums", MODELS * 30 * 96);
    let (spread, together) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut spread = Writers::new(spread.path(), 0, 0).sending(at_random);
    let mut together = Writers::new(together.path(), 0, 0);
    let at_most = Duration::from_secs(2);
    let row = Row::new(name, "all turns to one row", "0.9");
    report.compare(&row, || spread.round(50_000, 64, at_most), || together.round(50_000, 64, at_most));
}
