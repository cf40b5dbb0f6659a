//! A run: several clients use one server after another. Each server is killed under load. At the end the result is
//! checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use turn_metrics::store;
use turn_metrics::turn::{self, TurnId};

use super::checker::{History, Note, Outcome, StoredTurn, Violation, check};
use super::client::{Field, Manners, Sending, sealed, without_mark};
use super::script::{Folded, Name, Scripts};
use crate::server::{Client, PATIENCE, Server, encode, metrics, until};

const CLIENTS: usize = 6;

/// The parameters of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kills: usize,
    pub(crate) manners: Manners,
    pub(crate) ends_by: End,
    /// Whether the data directory is replaced once by an older copy, as if writes were lost.
    pub(crate) loses_writes: bool,
}

/// How a server under load is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Killed, as by a crash.
    Kill,
    /// Stopped in order by a signal, SIGTERM or SIGINT in alternation, while one client is stuck in an upload.
    Signals,
    /// Killed while it scrubs.
    InScrub,
    /// Told to stop by SIGTERM, and killed before it has stopped.
    InStop,
}

impl End {
    /// Returns settings of the servers that are ended in this way.
    fn settings(self, random: &mut fastrand::Rng) -> Vec<(&'static str, &'static str)> {
        if self != Self::InScrub {
            return Vec::new();
        }
        // So slow that a pass over these few rows does not end before the kill.
        let rate = ["16", "128"][random.usize(..2)];
        vec![("STORE__REDB__SCRUB_AFTER", "1ms"), ("STORE__REDB__SCRUB_BYTES_PER_SECOND", rate)]
    }
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) violations: Vec<Violation>,
    /// The violations that a check of the files found at the end.
    pub(crate) flaws: Vec<store::Violation>,
    /// How many acknowledgements the clients got.
    pub(crate) notes: usize,
    pub(crate) sealed_turns: usize,
    /// The conversations that were erased and are there.
    pub(crate) unerased: Vec<String>,
    /// How many turns the reports count, and how many they should count.
    pub(crate) counted: (u64, u64),
    /// How many servers were killed within the phase that the plan names.
    pub(crate) killed_in_phase: usize,
}

/// Ends the planned number of servers and checks the result.
pub(crate) fn run(plan: Plan) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let field = Field::default();
    let (acknowledge, acknowledged) = channel();
    let mut killed_in_phase = 0;
    let (mut histories, scripts, erased, server) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (field, acknowledge) = (&field, acknowledge.clone());
                scope.spawn(move || Sending::new(plan.seed, number, plan.manners).run(field, &acknowledge))
            })
            .collect();
        let mut random = fastrand::Rng::with_seed(plan.seed);
        for kill in 0..plan.kills {
            // A burst of zero acknowledgements means that the server is killed as soon as it listens.
            let burst = [0, random.usize(..20), random.usize(..400)][random.usize(..3)];
            // Each kill comes after so many acknowledgements that a lost write can be noticed.
            let burst = if plan.loses_writes { 60 } else { burst };
            let server = run_under_load(&data_dir, plan.ends_by, burst, &mut random, &field, &acknowledged);
            match plan.ends_by {
                End::Kill => server.kill(),
                End::Signals => stop(server, ["TERM", "INT"][kill % 2]),
                End::InScrub => killed_in_phase += usize::from(kill_in_scrub(server)),
                End::InStop => killed_in_phase += usize::from(kill_in_stop(server, &data_dir, &mut random)),
            }
            if plan.loses_writes {
                let copy = directory.path().join("copy");
                match kill {
                    0 => copy_files(&data_dir, &copy),
                    1 => copy_files(&copy, &data_dir),
                    _ => {}
                }
            }
        }
        let server = Server::start(&data_dir);
        assert_no_leftovers(&data_dir);
        field.publish(server.address, true);
        let mut histories = Vec::new();
        let (mut scripts, mut erased) = (Scripts::new(), Vec::new());
        for client in clients {
            let (history, sent, gone) = client.join().unwrap();
            histories.push(history);
            scripts.extend(sent);
            erased.extend(gone);
        }
        (histories, scripts, erased, server)
    });
    let notes = histories.iter().map(Vec::len).sum();
    let mut client = server.client();
    histories.push(seal_what_was_left_open(&mut client, &scripts, &histories));
    let outcome = read_outcome(&mut client, &scripts);
    let sealed_turns = outcome.values().map(Vec::len).sum();
    let report = client.get("/stats?bucket=all").json();
    let counted: u64 = report["rows"].as_array().unwrap().iter().map(|row| row["turns"].as_u64().unwrap()).sum();
    let counted = (counted, (sealed_turns + erased.len()) as u64);
    let is_there = |id: &String| metrics(&mut client, id) != r#"{"turns":[]}"#;
    let unerased = erased.into_iter().filter(is_there).collect();
    drop(client);
    server.kill();
    // At the end, the sums of reports and other derived data must still match the turns.
    let flaws = if plan.loses_writes { Vec::new() } else { store::check(&data_dir).unwrap().violations };
    let violations = check(&scripts, &histories, &outcome);
    Report { violations, flaws, notes, sealed_turns, unerased, counted, killed_in_phase }
}

/// Runs a server until a number of acknowledgements has arrived, so that requests are in progress when it ends.
fn run_under_load(
    data_dir: &Path,
    ends_by: End,
    acknowledgements: usize,
    random: &mut fastrand::Rng,
    field: &Field,
    acknowledged: &Receiver<()>,
) -> Server {
    // Conversations are retired at once, which races with events. Batches of one make many commits of a burst. Only two
    // requests may be in progress, so a third is refused, again and again.
    let settings = [
        ("TURNS__IDLE_AFTER", ["1ms", "1m"]),
        ("STORE__BATCH_COMMITS", ["1", "1024"]),
        ("TURNS__MAX_IN_FLIGHT", ["128", "20000"]),
        ("STORE__QUEUE_COMMITS", ["128", "20000"]),
        ("HTTP__SHUTDOWN_TIMEOUT", ["1s", "1s"]),
    ];
    let mut settings = settings.map(|(name, values)| (name, values[random.usize(..2)])).to_vec();
    settings.extend(ends_by.settings(random));
    let server = Server::start_with(data_dir, &settings);
    assert_no_leftovers(data_dir);
    if ends_by == End::InScrub {
        server.await_log("a scrub begins");
    }
    while acknowledged.try_recv().is_ok() {}
    field.publish(server.address, false);
    for _ in 0..acknowledgements {
        acknowledged.recv_timeout(PATIENCE).expect("an acknowledgement");
    }
    server
}

fn stop(server: Server, signal: &str) {
    let mut stuck = server.client();
    stuck.begin_post(99);
    server.signal(signal);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{signal}: {log:#?}");
}

/// Kills a server whose scrub has begun. Returns whether the scrub had not ended.
fn kill_in_scrub(server: Server) -> bool {
    server.signal("KILL");
    let (_, log) = server.wait();
    !log.iter().any(|line| line.contains("a scrub has ended"))
}

/// Tells a server to stop, and kills it a little later. Returns whether it had not stopped.
fn kill_in_stop(server: Server, data_dir: &Path, random: &mut fastrand::Rng) -> bool {
    server.signal("TERM");
    server.await_log("stopping");
    let written = || fs::metadata(data_dir.join("turn-metrics.redb")).unwrap().modified().unwrap();
    // First the requests in progress end. Then the store moves its journal into the main file.
    if random.bool() {
        let before = written();
        until("the main file is written, or it has stopped", || {
            (written() != before || server.has_logged("stopped")).then_some(())
        });
    }
    // Passes some time.
    for _ in 0..random.usize(..2000) {
        written();
    }
    server.signal("KILL");
    let (status, _) = server.wait();
    status.code().is_none()
}

/// Asserts that the directory of a server that has started has the files of a store alone.
fn assert_no_leftovers(data_dir: &Path) {
    let names = fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["turn-metrics.journal.redb", "turn-metrics.redb"]);
}

pub(super) fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Sends the `done` of each turn that lacks only that. Every acknowledged event must be in the turn's metrics.
fn seal_what_was_left_open(client: &mut Client, scripts: &Scripts, histories: &[History]) -> History {
    let mut accepted: BTreeMap<&Name, usize> = BTreeMap::new();
    for note in histories.iter().flatten() {
        if let Note::Accepted { turn, events } = note {
            let latest = accepted.entry(turn).or_default();
            *latest = events.end.max(*latest);
        }
    }
    let mut history = History::new();
    for (turn, latest) in accepted {
        let script = &scripts[turn];
        if latest == script.len() - 1 {
            let answer = client.post_events(&script.line(latest, &turn.1));
            assert_eq!(answer.status, 200, "{answer:?}");
            history.push(Note::Accepted { turn: turn.clone(), events: latest..script.len() });
            history.extend(sealed(&answer));
        }
    }
    history
}

/// Reads every conversation, page by page.
pub(crate) fn read_outcome(client: &mut Client, scripts: &Scripts) -> Outcome {
    let mut outcome: Outcome = scripts.keys().map(|(conversation, _)| (conversation.clone(), Vec::new())).collect();
    for (conversation, turns) in &mut outcome {
        let mut after = 0;
        loop {
            let answer =
                client.get(&format!("/conversations/{}/turns?limit=1000&after={after}", encode(conversation))).json();
            let page: Vec<turn::StoredTurn> = serde_json::from_value(answer["turns"].clone()).unwrap();
            if page.is_empty() {
                break;
            }
            after = answer["latestOrdinal"].as_u64().unwrap();
            turns.extend(page.into_iter().map(stored));
        }
    }
    outcome
}

fn stored(stored: turn::StoredTurn) -> StoredTurn {
    let turn = without_mark(stored.metrics.turn_id.as_str());
    let mut folded = Folded { model: stored.model.map(|model| model.to_string()), metrics: stored.metrics };
    folded.metrics.turn_id = TurnId::new(&*turn).unwrap();
    StoredTurn { turn, ordinal: stored.ordinal.get(), folded }
}
