//! The process is killed again and again while it takes in an import. Each turn of the import that a server has shown
//! must stay, none may be there twice or at another ordinal, and the same import sent again must bring the rest.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use serde_json::Value;
use turn_metrics::store;

use super::run::copy_files;
use super::{seed, setting};
use crate::server::{Client, Server, until};

/// The lines of an import. The server applies them in many batches.
const LINES: u64 = 3000;

const CONVERSATIONS: u64 = 5;

/// How many turns of each conversation are in the first batch of an import at least.
const TURNS_OF_A_PART: u64 = 200;

/// A sealed turn: its conversation and its ordinal there.
type Place = (String, u64);

/// An import, the line of each of its turns, and their order.
struct Import {
    body: String,
    order: Vec<Place>,
    lines: BTreeMap<Place, Value>,
}

/// Makes an import. Some of its conversations begin with a later ordinal, and moments of sealing fall.
fn import(number: usize) -> Import {
    let (mut body, mut order, mut lines) = (String::new(), Vec::new(), BTreeMap::new());
    for nth in 0..LINES {
        let (of, turn) = (nth % CONVERSATIONS, nth / CONVERSATIONS);
        let (conversation, ordinal) = (format!("import-{number}-{of}"), 1 + turn + 3 * (of % 2));
        let sealed_at = 1_700_000_000_000 + (turn * 7919) % 100_000;
        let line = serde_json::json!({
            "conversationId": conversation,
            "ordinal": ordinal,
            "sealedAt": sealed_at,
            "reason": "stop",
            "model": "m",
            "metrics": {
                "turnId": format!("t{nth}"),
                "usage": {"inputTokens": 1 + nth % 100, "outputTokens": 1},
                "steps": [],
            },
        });
        body.extend([line.to_string().as_str(), "\n"]);
        order.push((conversation.clone(), ordinal));
        lines.insert((conversation, ordinal), line);
    }
    body += "{\"end\":\"00000000000000000000000000000007-0000000000000bb8\"}\n";
    Import { body, order, lines }
}

/// Sends an import. Returns the answer.
fn send(mut client: Client, body: &str) -> std::io::Result<(u16, Value)> {
    let answer = client.send("POST", "/import", &[("content-type", "application/x-ndjson")], body.as_bytes())?;
    Ok((answer.status, answer.json()))
}

/// Sends an import as far as its last tenth, so that no server can come to its end. Returns when the server is killed.
fn send_a_part(mut client: Client, body: &str) {
    let head = format!(
        "POST /import HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        body.len(),
    );
    let part = &body.as_bytes()[..body.len() / 10 * 9];
    client.send_raw(&[head.as_bytes(), part].concat(), false).unwrap_err();
}

/// Returns the turns of a server in the order of all turns, without their positions.
fn shown(client: &mut Client) -> Result<BTreeMap<Place, Value>, String> {
    let (mut turns, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page = client.get(&format!("/turns?limit=1000{after}")).json();
        for turn in page["turns"].as_array().unwrap() {
            let mut turn = turn.clone();
            turn.as_object_mut().unwrap().remove("position");
            let place = (turn["conversationId"].as_str().unwrap().to_owned(), turn["ordinal"].as_u64().unwrap());
            if let Some(twice) = turns.insert(place, turn) {
                return Err(format!("a turn is there twice: {twice}"));
            }
        }
        let next = format!("&after={}", page["next"].as_str().unwrap());
        if next == after {
            return Ok(turns);
        }
        after = next;
    }
}

/// Compares a server with the turns that it must have, and with those that it may have. Returns what it has.
fn look(
    client: &mut Client,
    must: &BTreeMap<Place, Value>,
    may: &BTreeMap<Place, Value>,
) -> Result<BTreeMap<Place, Value>, String> {
    let shown = shown(client)?;
    if let Some((place, _)) = must.iter().find(|(place, line)| shown.get(*place) != Some(*line)) {
        return Err(format!("turn {place:?} is lost"));
    }
    for (place, turn) in &shown {
        if must.get(place).or_else(|| may.get(place)) != Some(turn) {
            return Err(format!("{turn} was never imported"));
        }
        let earlier = (place.0.clone(), place.1 - 1);
        if may.contains_key(&earlier) && !shown.contains_key(&earlier) {
            return Err(format!("{place:?} is there without the turn before it"));
        }
    }
    let report = client.get("/stats?bucket=all&from=2023-01-01&to=2030-01-01").json();
    let counted: u64 = report["rows"].as_array().unwrap().iter().map(|row| row["turns"].as_u64().unwrap()).sum();
    if counted != shown.len() as u64 {
        return Err(format!("reports count {counted} turns instead of {}", shown.len()));
    }
    Ok(shown)
}

/// Imports, and kills the server meanwhile, as often as said. With `loses_writes`, an older copy of the files replaces
/// them once. Returns how many servers were killed when they had a part of their import.
fn run(seed: u64, kills: usize, loses_writes: bool) -> Result<usize, String> {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, copy) = (directory.path().join("data"), directory.path().join("copy"));
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut known, mut in_between) = (BTreeMap::new(), 0);
    for kill in 0..kills {
        let new = import(kill);
        if loses_writes && kill == 1 {
            copy_files(&data_dir, &copy);
        }
        // Small journals, so that some turns are in the tables already and others are not.
        let journal = ["65536", "16777216"][random.usize(..2)];
        // Before a kill, all turns are read. The sender of a part waits meanwhile, and must not be too slow for the server.
        let settings = [("STORE__REDB__JOURNAL_BYTES", journal), ("HTTP__STALL_TIMEOUT", "1h")];
        let server = Server::start_with(&data_dir, &settings);
        let (mut client, sending, body) = (server.client(), server.client(), new.body.clone());
        // A server may be done with the whole import before the kill, but not with a part.
        let is_part = kill % 2 == 0;
        let sent = thread::spawn(move || {
            if is_part {
                send_a_part(sending, &body);
            } else {
                // The outcome of the request shows in the files.
                let _ = send(sending, &body);
            }
        });
        let after = random.u64(..if is_part { TURNS_OF_A_PART } else { LINES / CONVERSATIONS });
        let first = format!("/conversations/import-{kill}-0/turns?limit=1&after={after}");
        until("a part is there", || {
            let turns = client.get(&first).json()["turns"].as_array().unwrap().len();
            (turns > 0 || sent.is_finished()).then_some(())
        });
        let before = shown(&mut client)?;
        server.kill();
        sent.join().unwrap();
        let server = Server::start_with(&data_dir, &settings);
        let mut client = server.client();
        let after = look(&mut client, &before, &new.lines)?;
        in_between += usize::from(after.len() > known.len() && after.len() < known.len() + new.lines.len());
        let there = after.len() - known.len();
        if let Some(place) = new.order[..there].iter().find(|place| !after.contains_key(*place)) {
            return Err(format!("{place:?} is missing, and turns that follow it in the import are there"));
        }
        let there = there as u64;
        known.extend(new.lines);
        let (status, answer) = send(server.client(), &new.body).unwrap();
        if (status, answer["imported"].as_u64(), answer["duplicates"].as_u64())
            != (200, Some(LINES - there), Some(there))
        {
            return Err(format!("with {there} of {LINES} turns there, the answer is {status}: {answer}"));
        }
        server.kill();
        if loses_writes && kill == 1 {
            fs::remove_dir_all(&data_dir).unwrap();
            copy_files(&copy, &data_dir);
        }
        let server = Server::start(&data_dir);
        look(&mut server.client(), &known, &BTreeMap::new())?;
        server.kill();
    }
    assert_is_sound(&data_dir)?;
    Ok(in_between)
}

fn assert_is_sound(data_dir: &Path) -> Result<(), String> {
    let flaws = store::check(data_dir).unwrap().violations;
    if flaws.is_empty() { Ok(()) } else { Err(format!("{flaws:?}")) }
}

#[test]
fn an_import_goes_on_after_every_kill_without_a_loss_or_a_double() {
    let (seed, kills) = (seed(), usize::try_from(setting("TURN_METRICS_TEST_IMPORT_KILLS", 4)).unwrap());
    println!("TURN_METRICS_TEST_SEED={seed}");
    let in_between = run(seed, kills, false).unwrap_or_else(|error| panic!("TURN_METRICS_TEST_SEED={seed}: {error}"));
    println!("{kills} kills, {in_between} of them when a part of the import was there");
    assert!(in_between >= kills / 2, "TURN_METRICS_TEST_SEED={seed}: a part that was shown is no part");
}

#[test]
fn control_imported_turns_that_are_lost_are_missed() {
    let error = run(1, 3, true).unwrap_err();
    assert!(error.contains("is lost"), "{error}");
}
