//! The process is killed again and again while it drops old turns, or while it erases a conversation. Nothing that is
//! gone may come back, nothing else may be lost, and reports must count every turn once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;
use turn_metrics::store;

use super::run::copy_files;
use super::{seed, setting};
use crate::server::{Answer, Client, Server, until};

/// The turns that are sealed before each kill. Dropping them takes several steps.
const TURNS: u64 = 600;

const CONVERSATIONS: u64 = 3;

/// The number of ids under which conversations are erased and begin anew.
const ERASED: usize = 4;

fn erased_name(number: usize) -> String {
    format!("erased-{number}")
}

/// What a server is doing when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Dropping,
    Erasing,
}

/// A sealed turn: its conversation and its ordinal there.
type Place = (String, u64);

/// What the clients know of a store.
#[derive(Debug, Default)]
struct Known {
    /// The latest ordinal of each conversation.
    latest: BTreeMap<String, u64>,
    /// The turns that are stored, by their ids.
    stored: BTreeMap<Place, String>,
    /// The number of turns that were ever sealed, and the sum of their input tokens.
    counted: (u64, u64),
    turns: u64,
}

/// What a run has shown.
#[derive(Debug, Default)]
struct Shown {
    /// The number of servers that were killed when some turns were gone and others were not.
    in_between: usize,
    /// The number of turns that are gone.
    gone: usize,
}

fn done(conversation: &str, turn: u64) -> String {
    let usage = format!(r#"{{"inputTokens":{},"outputTokens":1}}"#, 1 + turn % 1000);
    format!(
        r#"{{"type":"done","conversationId":"{conversation}","turnId":"t{turn}","reason":"stop","usage":{usage}}}
"#
    )
}

/// Returns how many turns the reports count, and the sum of their input tokens.
fn counted(client: &mut Client) -> (u64, u64) {
    let report = client.get("/stats?bucket=all").json();
    let rows = report["rows"].as_array().unwrap();
    let sum = |of: fn(&Value) -> &Value| rows.iter().map(|row| of(row).as_u64().unwrap()).sum();
    (sum(|row| &row["turns"]), sum(|row| &row["usage"]["inputTokens"]))
}

/// Returns the stored turns of these conversations.
fn stored<'a>(client: &mut Client, conversations: impl Iterator<Item = &'a String>) -> BTreeMap<Place, String> {
    let mut turns = BTreeMap::new();
    for conversation in conversations {
        let mut after = 0;
        loop {
            let page = client.get(&format!("/conversations/{conversation}/turns?limit=1000&after={after}")).json();
            let page = page["turns"].as_array().unwrap();
            let Some(last) = page.last() else { break };
            after = last["ordinal"].as_u64().unwrap();
            turns.extend(page.iter().map(|turn| {
                let place = (conversation.clone(), turn["ordinal"].as_u64().unwrap());
                (place, turn["metrics"]["turnId"].as_str().unwrap().to_owned())
            }));
        }
    }
    turns
}

/// Returns the turns in the order of all turns. This passes over the positions of all turns that are gone.
fn in_order(client: &mut Client) -> BTreeMap<Place, String> {
    let (mut turns, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page = client.get(&format!("/turns?limit=1000{after}")).json();
        for turn in page["turns"].as_array().unwrap() {
            let place = (turn["conversationId"].as_str().unwrap().to_owned(), turn["ordinal"].as_u64().unwrap());
            let id = turn["metrics"]["turnId"].as_str().unwrap().to_owned();
            assert_eq!(turns.insert(place, id), None, "a turn has two positions");
        }
        let next = format!("&after={}", page["next"].as_str().unwrap());
        if next == after {
            return turns;
        }
        after = next;
    }
}

/// Returns the first stored turn of the conversation whose turns are dropped first.
fn first(client: &mut Client) -> Value {
    client.get("/conversations/c0/turns?limit=1").json()["turns"].clone()
}

impl Known {
    /// Seals turns of these conversations, in turn.
    fn seal(&mut self, client: &mut Client, conversations: &[String], turns: u64) -> Result<(), String> {
        let numbers = self.turns..self.turns + turns;
        let of = |turn: u64| &conversations[usize::try_from(turn).unwrap() % conversations.len()];
        let body: String = numbers.clone().map(|turn| done(of(turn), turn)).collect();
        let answer = until("the turns are taken", || {
            let answer = client.post_events(&body);
            (answer.status == 200).then_some(answer)
        });
        self.turns += turns;
        for turn in numbers {
            self.counted.0 += 1;
            self.counted.1 += 1 + turn % 1000;
        }
        self.take(&answer)
    }

    /// Compares the ordinals of newly sealed turns with those that come next.
    fn take(&mut self, answer: &Answer) -> Result<(), String> {
        for sealed in answer.json()["sealed"].as_array().unwrap() {
            let conversation = sealed["conversationId"].as_str().unwrap().to_owned();
            let latest = self.latest.entry(conversation.clone()).or_default();
            *latest += 1;
            if sealed["ordinal"] != *latest || sealed["duplicate"] != false {
                return Err(format!("{sealed} was sealed after turn {}", *latest - 1));
            }
            self.stored.insert((conversation, *latest), sealed["turnId"].as_str().unwrap().to_owned());
        }
        Ok(())
    }

    /// Forgets a conversation that was erased.
    fn forget(&mut self, conversation: &str) {
        self.latest.remove(conversation);
        self.stored.retain(|(of, _), _| of != conversation);
    }

    /// Compares what a store answers with what was acknowledged. If turns may have been dropped, takes over which ones.
    /// Returns how many are gone.
    fn look(&mut self, client: &mut Client, may_be_dropped: bool) -> Result<usize, String> {
        let counted = counted(client);
        if counted != self.counted {
            return Err(format!("reports count {counted:?} instead of {:?}", self.counted));
        }
        // Any of the conversations that were erased could be back.
        let erased: Vec<_> = (0..ERASED).map(erased_name).collect();
        let others = erased.iter().filter(|name| !self.latest.contains_key(*name));
        let stored = stored(client, self.latest.keys().chain(others));
        let new = stored.iter().find(|(place, id)| self.stored.get(*place) != Some(*id));
        if let Some(turn) = new {
            return Err(format!("{turn:?} has come back, or has never been there"));
        }
        let gone: BTreeSet<_> = self.stored.keys().filter(|place| !stored.contains_key(*place)).cloned().collect();
        for (conversation, ordinal) in &gone {
            let has_earlier =
                stored.range((conversation.clone(), 0)..(conversation.clone(), *ordinal)).next().is_some();
            if !may_be_dropped || has_earlier {
                return Err(format!("turn {ordinal} of {conversation} is lost"));
            }
        }
        self.stored = stored;
        Ok(gone.len())
    }
}

/// Passes some time with small reads.
fn pass_time(client: &mut Client, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(..20) {
        first(client);
    }
}

/// Seals turns, and kills a server that drops them, as often as said. With `loses_writes`, an older copy of the files
/// replaces them once.
fn run(doing: Doing, seed: u64, kills: usize, loses_writes: bool) -> Result<Shown, String> {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, copy) = (directory.path().join("data"), directory.path().join("copy"));
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut known, mut shown) = (Known::default(), Shown::default());
    let names: Vec<_> = (0..CONVERSATIONS).map(|number| format!("c{number}")).collect();
    for kill in 0..kills {
        // Small journals, so that some turns are in the tables already and others are not.
        let journal = ["65536", "16777216"][random.usize(..2)];
        let server = Server::start_with(&data_dir, &[("STORE__REDB__JOURNAL_BYTES", journal)]);
        let mut client = server.client();
        known.look(&mut client, false)?;
        known.seal(&mut client, &names, TURNS)?;
        let is_replaced = loses_writes && kill == 1;
        match doing {
            Doing::Dropping => {
                let before = first(&mut client);
                server.kill();
                if is_replaced {
                    copy_files(&data_dir, &copy);
                }
                let shortest = [("RETENTION__TURNS", "1ms"), ("STORE__REDB__JOURNAL_BYTES", journal)];
                let server = Server::start_with(&data_dir, &shortest);
                let mut client = server.client();
                if is_replaced {
                    until("all turns are dropped", || stored(&mut client, names.iter()).is_empty().then_some(()));
                } else {
                    // Most servers are killed as soon as they have begun to drop turns.
                    match random.u8(..4) {
                        0 => pass_time(&mut client, &mut random),
                        _ => until("a turn is dropped", || (first(&mut client) != before).then_some(())),
                    }
                }
                server.kill();
                // This server drops nothing, so what it shows is what the killed one has left.
                let gone = looked(&data_dir, &mut known, true)?;
                shown.in_between += usize::from(gone > 0 && !known.stored.is_empty());
                shown.gone += gone;
            }
            Doing::Erasing => {
                let name = erased_name(kill % ERASED);
                known.seal(&mut client, std::slice::from_ref(&name), TURNS)?;
                if is_replaced || random.bool() {
                    // The conversation is in the tables then.
                    server.signal("TERM");
                    server.wait();
                } else {
                    server.kill();
                }
                if is_replaced {
                    copy_files(&data_dir, &copy);
                }
                let server = Server::start_with(&data_dir, &[("STORE__REDB__JOURNAL_BYTES", journal)]);
                let mut client = server.client();
                let path = format!("/conversations/{name}");
                let is_answered = is_replaced || random.u8(..4) > 0;
                if is_answered {
                    assert_eq!(client.send("DELETE", &path, &[], b"").unwrap().status, 204);
                    pass_time(&mut client, &mut random);
                } else {
                    let request = format!("DELETE {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
                    client.stream().unwrap().get_mut().write_all(request.as_bytes()).unwrap();
                }
                server.kill();
                // The erasure of a request that was not answered has happened as a whole, or not at all.
                let mut server = Server::start(&data_dir);
                let is_there = !stored(&mut server.client(), std::iter::once(&name)).is_empty();
                if is_answered || !is_there {
                    shown.gone += known.stored.keys().filter(|(of, _)| *of == name).count();
                    known.forget(&name);
                }
                shown.in_between += usize::from(!is_answered);
                known.look(&mut server.client(), false)?;
                if is_there {
                    server.kill();
                    server = Server::start(&data_dir);
                    known.look(&mut server.client(), false)?;
                }
                server.kill();
            }
        }
        if is_replaced {
            fs::remove_dir_all(&data_dir).unwrap();
            copy_files(&copy, &data_dir);
        }
    }
    looked(&data_dir, &mut known, false)?;
    let server = Server::start(&data_dir);
    let in_order = in_order(&mut server.client());
    server.kill();
    if in_order != known.stored {
        return Err(format!("the order of all turns is {in_order:?}"));
    }
    let flaws = store::check(&data_dir).unwrap().violations;
    if flaws.is_empty() { Ok(shown) } else { Err(format!("{flaws:?}")) }
}

/// Looks at the files with a server that neither drops nor erases anything.
fn looked(data_dir: &Path, known: &mut Known, may_be_dropped: bool) -> Result<usize, String> {
    let server = Server::start(data_dir);
    let gone = known.look(&mut server.client(), may_be_dropped);
    server.kill();
    gone
}

fn assert_holds(doing: Doing, kills: u64) -> Shown {
    let (seed, kills) = (seed(), usize::try_from(kills).unwrap());
    println!("TURN_METRICS_TEST_SEED={seed}");
    let shown = run(doing, seed, kills, false).unwrap_or_else(|error| panic!("TURN_METRICS_TEST_SEED={seed}: {error}"));
    println!("{kills} kills while {doing:?}: {shown:?}");
    shown
}

#[test]
fn dropped_turns_stay_dropped_and_all_sums_hold_after_every_kill() {
    let shown = assert_holds(Doing::Dropping, setting("TURN_METRICS_TEST_DROP_KILLS", 4));
    assert!(shown.in_between > 0, "no server was killed when it had dropped some turns and not all: {shown:?}");
}

#[test]
fn erased_conversations_stay_erased_and_all_sums_hold_after_every_kill() {
    let shown = assert_holds(Doing::Erasing, setting("TURN_METRICS_TEST_ERASE_KILLS", 4));
    assert!(shown.gone > 0, "nothing was erased before a kill");
}

#[test]
fn control_turns_that_come_back_are_found() {
    for doing in [Doing::Dropping, Doing::Erasing] {
        let error = run(doing, 1, 3, true).unwrap_err();
        assert!(error.contains("has come back"), "{doing:?}: {error}");
    }
}
