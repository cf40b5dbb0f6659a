//! Many clients at the same time, and a crash in the middle.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use serde_json::json;
use turn_metrics::turn::{EpochMillis, OpenTurn, TurnEventKind, TurnMetrics, parse_line};

use crate::server::{Client, PATIENCE, Server, metrics};

#[test]
fn one_turn_sent_by_many_at_once_has_one_ordinal_and_one_copy() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let turn = |n| {
        format!(
            "{}\n{}\n",
            json!({"type":"usage","conversationId":"c","turnId":n,"stepId":"s","usage":{"inputTokens":1,"outputTokens":1}}),
            json!({"type":"done","conversationId":"c","turnId":n,"reason":"stop"})
        )
    };
    let receipts = Mutex::new(Vec::new());
    let address = server.address;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::new(address);
                for n in 0..50 {
                    let answer = client.post_events(&turn(format!("t{n}")));
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let sealed = answer.json()["sealed"][0].clone();
                    receipts.lock().unwrap().push(sealed);
                }
            });
        }
    });
    let mut first = BTreeMap::new();
    let mut ordinals: BTreeMap<String, u64> = BTreeMap::new();
    for receipt in receipts.into_inner().unwrap() {
        let turn = receipt["turnId"].as_str().unwrap().to_owned();
        let ordinal = receipt["ordinal"].as_u64().unwrap();
        assert_eq!(*ordinals.entry(turn.clone()).or_insert(ordinal), ordinal, "{turn} has two ordinals");
        if receipt["duplicate"] == false {
            assert_eq!(first.insert(turn.clone(), ordinal), None, "{turn} was sealed twice");
        }
    }
    let mut places: Vec<u64> = first.values().copied().collect();
    places.sort_unstable();
    assert_eq!(places, (1..=50).collect::<Vec<_>>());
    let turns = server.client().get("/conversations/c/turns?limit=1000").json();
    let stored: BTreeMap<String, u64> = turns["turns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| (turn["metrics"]["turnId"].as_str().unwrap().to_owned(), turn["ordinal"].as_u64().unwrap()))
        .collect();
    assert_eq!(stored, ordinals);
}

/// The events of one conversation's turns, cut into parts. Each part is one request.
struct Stream {
    conversation_id: String,
    requests: Vec<String>,
}

fn stream(n: usize, turns: usize) -> Stream {
    let conversation_id = format!("c{n}");
    let mut requests = Vec::new();
    for turn in 0..turns {
        let turn_id = format!("t{turn}");
        let event = |kind: &str, more: serde_json::Value| {
            let mut event = json!({"type": kind, "conversationId": conversation_id, "turnId": turn_id});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            format!("{event}\n")
        };
        requests.push(event("turn-start", json!({})) + &event("text-delta", json!({"delta": "x"})));
        for step in 0..2 {
            let step_id = format!("{turn_id}#{step}");
            let usage = json!({"inputTokens": n + step, "outputTokens": turn, "cacheReadTokens": step});
            requests.push(event("usage", json!({"stepId": step_id, "usage": usage})));
            requests.push(event("step-complete", json!({"stepId": step_id, "ttftMs": 1.5, "genTotalMs": turn})));
        }
        requests.push(event("done", json!({"reason": "stop", "durationMs": n})));
    }
    Stream { conversation_id, requests }
}

/// Returns the metrics that the contract demands, computed by the pure fold.
fn expected(stream: &Stream) -> String {
    let mut turns: Vec<TurnMetrics> = Vec::new();
    let mut open: BTreeMap<String, OpenTurn> = BTreeMap::new();
    for line in stream.requests.iter().flat_map(|request| request.lines()) {
        let Some(event) = parse_line(line.as_bytes()).unwrap() else { continue };
        let event = event.event;
        let turn = open.entry(event.turn_id.to_string()).or_insert_with(|| OpenTurn::new(event.turn_id.clone()));
        match event.kind {
            TurnEventKind::Progress(progress) => turn.fold(&progress),
            TurnEventKind::Done(done) => turns.push(turn.seal(&done, EpochMillis::new(0)).metrics),
        }
    }
    serde_json::to_string(&json!({ "turns": turns })).unwrap()
}

#[test]
fn events_of_many_connections_killed_half_way_and_sent_again_give_exactly_the_contracts_metrics() {
    // The environment sets the size of a thorough run.
    let events: usize = std::env::var("TURN_METRICS_TEST_EVENTS").map_or(8_000, |n| n.parse().unwrap());
    let connections = 32;
    let streams: Vec<Stream> = (0..connections).map(|n| stream(n, events / connections / 7 + 1)).collect();
    let total: usize = streams.iter().map(|stream| stream.requests.len()).sum();

    let directory = tempfile::tempdir().unwrap();
    let (acknowledge, acknowledged) = channel();
    let progress: Vec<AtomicUsize> = streams.iter().map(|_| AtomicUsize::new(0)).collect();
    let server = Server::start(directory.path());
    let address = server.address;
    std::thread::scope(|scope| {
        for (stream, progress) in streams.iter().zip(&progress) {
            let acknowledge = acknowledge.clone();
            scope.spawn(move || {
                let mut client = Client::new(address);
                for request in &stream.requests {
                    match client.try_post_events(request) {
                        Ok(answer) => assert_eq!(answer.status, 200, "{answer:?}"),
                        Err(_) => return,
                    }
                    progress.fetch_add(1, Ordering::SeqCst);
                    let _ = acknowledge.send(());
                }
            });
        }
        for _ in 0..total / 2 {
            acknowledged.recv_timeout(PATIENCE).expect("an acknowledgement");
        }
        server.kill();
    });

    let server = Server::start(directory.path());
    std::thread::scope(|scope| {
        for (stream, progress) in streams.iter().zip(&progress) {
            let mut client = server.client();
            scope.spawn(move || {
                for request in &stream.requests[progress.load(Ordering::SeqCst)..] {
                    assert_eq!(client.post_events(request).status, 200);
                }
            });
        }
    });
    let mut client = server.client();
    for stream in &streams {
        assert_eq!(metrics(&mut client, &stream.conversation_id), expected(stream), "{}", stream.conversation_id);
    }
}
