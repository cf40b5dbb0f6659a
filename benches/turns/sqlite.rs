//! Makes turns durable through the interface of the store. Compared with SQLite, used as the reference uses it.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};

use crate::report::{Report, Round, Row};
use crate::store::Writers;
use crate::work::{CONVERSATIONS, Random, conversation_id, sealed, shuffled};

const AT_MOST: Duration = Duration::from_secs(2);
const APPENDERS: usize = 64;

pub(crate) fn run(report: &mut Report) {
    for (name, turns, goal) in [("one transaction a turn", 1, "20"), ("64 turns a transaction", APPENDERS, "5")] {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut writers = Writers::new(ours.path(), 0, 0);
        let mut rival = Rival::open(&theirs.path().join("turns.sqlite"));
        let row = Row::new(format!("sqlite: commits of one turn, 64 waiting, against {name}"), RIVAL, goal);
        report.compare(&row, || writers.round(50_000, APPENDERS, AT_MOST), || rival.round(50_000, turns));
    }
}

const RIVAL: &str = "SQLite, WAL, synchronous=FULL";

/// One SQLite connection on the calling thread, with prepared statements and turns that are serialized in advance. So
/// SQLite's result does not include the work around a store.
struct Rival {
    connection: Connection,
    order: Vec<u64>,
    next_turn: u64,
}

impl Rival {
    fn open(path: &Path) -> Self {
        let connection = Connection::open(path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.pragma_update(None, "synchronous", "FULL").unwrap();
        connection
            .execute_batch(
                "CREATE TABLE conversations (id TEXT PRIMARY KEY, next_seq INTEGER NOT NULL, updated_at INTEGER NOT NULL);
                 CREATE TABLE turns (
                     conversation_id TEXT NOT NULL, seq INTEGER NOT NULL, turn_id TEXT NOT NULL, metrics TEXT NOT NULL,
                     PRIMARY KEY (conversation_id, seq), UNIQUE (conversation_id, turn_id));",
            )
            .unwrap();
        Self { connection, order: shuffled(CONVERSATIONS, &mut Random(0)), next_turn: 0 }
    }

    /// Runs transactions of this many turns each.
    fn round(&mut self, count: usize, turns: usize) -> Round {
        let mut random = Random(self.next_turn);
        let ready = (self.next_turn..).take(count).map(|n| {
            let conversation = self.order[usize::try_from(n % CONVERSATIONS).unwrap()];
            let metrics = sealed(n, &mut random).metrics;
            let json = serde_json::to_string(&metrics).unwrap();
            (conversation_id(conversation).as_str().to_owned(), metrics.turn_id.as_str().to_owned(), json)
        });
        let ready: Vec<_> = ready.collect();
        self.next_turn += count as u64;
        let start = Instant::now();
        Round::of(|| {
            let in_time = ready.chunks(turns).take_while(|_| start.elapsed() < AT_MOST);
            in_time.map(|batch| self.append(batch)).sum()
        })
    }

    fn append(&mut self, batch: &[(String, String, String)]) -> usize {
        let transaction = self.connection.transaction().unwrap();
        for (conversation, turn, json) in batch {
            let run = |sql| transaction.prepare_cached(sql).unwrap();
            let seq: Option<i64> = run("SELECT next_seq FROM conversations WHERE id = ?1")
                .query_row([conversation], |row| row.get(0))
                .optional()
                .unwrap();
            let seq = seq.unwrap_or(1);
            run("INSERT INTO turns (conversation_id, seq, turn_id, metrics) VALUES (?1, ?2, ?3, ?4)")
                .execute(params![conversation, seq, turn, json])
                .unwrap();
            run("INSERT INTO conversations (id, next_seq, updated_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET next_seq = excluded.next_seq, updated_at = excluded.updated_at")
            .execute(params![conversation, seq + 1, 1_760_000_000_000_i64])
            .unwrap();
        }
        transaction.commit().unwrap();
        batch.len()
    }
}
