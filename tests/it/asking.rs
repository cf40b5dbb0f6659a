//! Questions about many conversations and about periods: every answer must equal the sums over the turns themselves.

#[cfg(feature = "prices")]
mod month;
#[cfg(feature = "prices")]
mod oracle;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::server::{Client, Server};

const CONVERSATIONS: u64 = 12;
const TURNS: u64 = 25;

/// 2026-03-25T00:00:00Z. Europe puts its clocks forward four days later.
const FIRST: u64 = 1_774_396_800_000;
const DAY: u64 = 24 * 60 * 60 * 1000;

/// Returns the events of some turns of every conversation, spread over two weeks. Some turns have several steps of
/// several models, some have no step that reported tokens, and some models have no price.
fn events(turns: std::ops::Range<u64>) -> String {
    let mut lines = Vec::new();
    for (conversation, turn) in turns.flat_map(|turn| (0..CONVERSATIONS).map(move |conversation| (conversation, turn)))
    {
        let n = turn * CONVERSATIONS + conversation;
        let (id, turn_id) = (format!("c/{conversation}"), format!("t{n}"));
        let mut line = |mut event: Value| {
            event["conversationId"] = id.as_str().into();
            event["turnId"] = turn_id.as_str().into();
            lines.push(event.to_string());
        };
        let model = ["gpt-4o", "gpt-4o-mini", "nobody-knows"][usize::try_from(n % 3).unwrap()];
        line(json!({ "type": "turn-start", "model": model, "project": format!("p{}", conversation % 2) }));
        let mut usage = json!(null);
        for step in 0..n % 4 {
            let (step_id, input) = (format!("{turn_id}#{step}"), 1000 + 37 * n + step);
            let mut of_step = json!({ "inputTokens": input, "outputTokens": 11 + n % 7 });
            if !n.is_multiple_of(5) {
                of_step["cacheReadTokens"] = (input / 3).into();
            }
            line(json!({ "type": "usage", "stepId": step_id, "usage": of_step }));
            let other = if step == 2 { "gpt-4o" } else { model };
            line(
                json!({ "type": "step-complete", "stepId": step_id, "ttftMs": 100 + n, "decodeMs": 250.5, "genTotalMs": 500,
                         "model": other }),
            );
        }
        if n.is_multiple_of(4) || n % 10 == 1 {
            usage = json!({ "inputTokens": 5000 + n, "outputTokens": 200 });
        }
        let reason = if n.is_multiple_of(9) { "aborted" } else { "stop" };
        let ended_at = FIRST + n * (14 * DAY / (CONVERSATIONS * TURNS)) + 12_345;
        let mut done = json!({ "type": "done", "reason": reason, "durationMs": 900 + n, "endedAt": ended_at });
        if !usage.is_null() {
            done["usage"] = usage;
        }
        line(done);
    }
    lines.join("\n") + "\n"
}

/// Seven sums: turns, the four token counters, the known cost in pico-dollars, and the tokens without a price.
type Sums = [i128; 7];

fn usd(cost: &Value) -> i128 {
    cost["usd"].as_str().map_or(0, |usd| usd.replace('.', "").parse().unwrap())
}

fn sums(turns: &Value, usage: &Value, cost: &Value) -> Sums {
    let number = |value: &Value| i128::from(value.as_i64().unwrap_or(0));
    [
        number(turns),
        number(&usage["inputTokens"]),
        number(&usage["outputTokens"]),
        number(&usage["cacheReadTokens"]),
        number(&usage["cacheWriteTokens"]),
        usd(cost),
        number(&cost["unpricedTokens"]),
    ]
}

fn add(sums: &mut Sums, other: Sums) {
    sums.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
}

fn get(client: &mut Client, path: &str) -> Value {
    let answer = client.get(path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

/// The expected answers, computed by a plain sum over the turns of every conversation.
struct Plain {
    total: Sums,
    by_day: BTreeMap<u64, Sums>,
    by_project: BTreeMap<String, Sums>,
    by_reason: BTreeMap<String, i128>,
    by_conversation: BTreeMap<String, (Sums, u64)>,
}

fn plain(client: &mut Client) -> Plain {
    let mut plain = Plain {
        total: Sums::default(),
        by_day: BTreeMap::new(),
        by_project: BTreeMap::new(),
        by_reason: BTreeMap::new(),
        by_conversation: BTreeMap::new(),
    };
    for conversation in 0..CONVERSATIONS {
        let mut last_at = 0;
        let mut own = Sums::default();
        let turns = get(client, &format!("/conversations/c%2F{conversation}/turns?limit=1000&cost=true"));
        for turn in turns["turns"].as_array().unwrap() {
            let of_turn = sums(&1.into(), &turn["metrics"]["usage"], &turn["cost"]);
            last_at = turn["endedAt"].as_u64().unwrap();
            add(plain.by_day.entry(last_at / DAY * DAY).or_default(), of_turn);
            add(plain.by_project.entry(turn["project"].as_str().unwrap().to_owned()).or_default(), of_turn);
            *plain.by_reason.entry(turn["reason"].as_str().unwrap().to_owned()).or_default() += 1;
            add(&mut own, of_turn);
            add(&mut plain.total, of_turn);
        }
        plain.by_conversation.insert(format!("c/{conversation}"), (own, last_at));
    }
    plain
}

fn stats(client: &mut Client, query: &str) -> Vec<Value> {
    get(client, &format!("/stats?from=2026-03-01&to=2026-05-01&{query}"))["rows"].as_array().unwrap().clone()
}

fn of_row(row: &Value) -> Sums {
    sums(&row["turns"], &row["usage"], &row["cost"])
}

fn total(rows: &[Value]) -> Sums {
    let mut total = Sums::default();
    for row in rows {
        add(&mut total, of_row(row));
    }
    total
}

fn assert_all_answers_add_up(client: &mut Client, turns: u64) {
    let plain = plain(client);
    assert_eq!(plain.total[0], i128::from(turns));
    if cfg!(feature = "prices") {
        assert!(plain.total[5] > 0 && plain.total[6] > 0, "some have a price, some have none: {:?}", plain.total);
    }
    for zone in ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"] {
        for bucket in ["15m", "hour", "day", "week", "month", "all"] {
            for by in ["", "&by=model", "&by=model,provider,project,reason"] {
                let query = format!("tz={zone}&bucket={bucket}{by}");
                assert_eq!(total(&stats(client, &query)), plain.total, "{query}");
            }
        }
    }
    let by_day =
        stats(client, "tz=UTC&bucket=day").iter().map(|row| (row["start"].as_u64().unwrap(), of_row(row))).collect();
    assert_eq!(plain.by_day, by_day);
    let rows = stats(client, "bucket=all&by=project");
    let by_project = rows.iter().map(|row| (row["project"].as_str().unwrap().to_owned(), of_row(row))).collect();
    assert_eq!(plain.by_project, by_project);
    let rows = stats(client, "bucket=all&by=reason");
    let by_reason = rows.iter().map(|row| (row["reason"].as_str().unwrap().to_owned(), of_row(row)[0])).collect();
    assert_eq!(plain.by_reason, by_reason);
    for row in stats(client, "bucket=all&by=model") {
        let model = row["model"].as_str().unwrap();
        assert_eq!(stats(client, &format!("bucket=all&by=model&model={model}")), std::slice::from_ref(&row));
    }

    let ranks: [(&str, Rank); 4] = [
        ("recent", |(_, last_at)| i128::from(*last_at)),
        ("tokens", |(sums, _)| sums[1] + sums[2]),
        ("cost", |(sums, _)| sums[5]),
        ("turns", |(sums, _)| sums[0]),
    ];
    for (order, rank) in ranks {
        let mut expected: Vec<_> = plain.by_conversation.iter().collect();
        expected.sort_by_key(|(id, of)| (-rank(of), (*id).clone()));
        let expected: Vec<_> =
            expected.into_iter().map(|(id, (sums, last_at))| (id.clone(), *sums, *last_at)).collect();
        let listed = listed(client, order);
        assert_eq!(listed, expected, "in the order `{order}`");
    }

    for (id, (expected, last_at)) in &plain.by_conversation {
        let summary = get(client, &format!("/conversations/{}/summary", id.replace('/', "%2F")));
        assert_eq!(of_row(&summary), *expected, "{id}");
        let mut by_model = Sums::default();
        summary["byModel"].as_array().unwrap().iter().for_each(|row| add(&mut by_model, of_row(row)));
        assert_eq!(by_model, *expected, "{id}");
        assert_eq!(summary["lastAt"], *last_at);
    }
}

/// Returns the number by which a list of conversations is sorted.
type Rank = fn(&(Sums, u64)) -> i128;

/// Reads all pages of a list.
fn listed(client: &mut Client, order: &str) -> Vec<(String, Sums, u64)> {
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(client, &format!("/conversations?order={order}&limit=5{after}"));
        listed.extend(page["conversations"].as_array().unwrap().iter().map(|entry| {
            let id = entry["conversationId"].as_str().unwrap().to_owned();
            (id, of_row(entry), entry["lastAt"].as_u64().unwrap())
        }));
        let Some(next) = page["next"].as_str() else { return listed };
        after = format!("&after={next}");
    }
}

fn start(directory: &Path) -> Server {
    // The journal is so small that some turns are in the tables and others are not yet.
    Server::start_with(directory, &[("STORE__REDB__JOURNAL_BYTES", "65536"), ("REPORTS__TIME_ZONE", "UTC")])
}

#[test]
fn every_answer_adds_up_to_the_turns_themselves_also_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    let mut client = server.client();
    assert_eq!(client.post_events(&events(0..TURNS - 5)).status, 200);
    assert_all_answers_add_up(&mut client, CONVERSATIONS * (TURNS - 5));
    let page = get(&mut client, "/conversations?order=tokens&limit=5");
    server.kill();

    let server = start(directory.path());
    let mut client = server.client();
    assert_all_answers_add_up(&mut client, CONVERSATIONS * (TURNS - 5));
    let all = listed(&mut client, "tokens");
    let next = format!("/conversations?order=tokens&limit=5&after={}", page["next"].as_str().unwrap());
    assert_eq!(get(&mut client, &next)["conversations"][0]["conversationId"], *all[5].0, "a cursor survives a restart");
    assert_eq!(client.post_events(&events(TURNS - 5..TURNS)).status, 200);
    assert_all_answers_add_up(&mut client, CONVERSATIONS * TURNS);
}

#[test]
fn throughput_is_dispatchs_to_the_byte() {
    let vectors = include_str!("../vectors/throughput.ndjson").lines();
    let vectors = vectors.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut answers = 0;
    for vector in vectors.filter(|vector| vector["kind"] == "route") {
        let directory = tempfile::tempdir().unwrap();
        let zone = vector["tz"].as_str().unwrap();
        let server = Server::start_with(directory.path(), &[("REPORTS__TIME_ZONE", zone)]);
        let mut client = server.client();
        for (n, turn) in vector["turns"].as_array().unwrap().iter().enumerate() {
            let mut events = vec![json!({ "type": "turn-start" })];
            if let Some(model) = turn["model"].as_str() {
                events[0]["model"] = model.into();
            }
            events.extend(turn["events"].as_array().unwrap().iter().cloned());
            let mut body = String::new();
            for mut event in events {
                event["conversationId"] = format!("c{}", n % 3).into();
                event["turnId"] = format!("t{n}").into();
                if event["type"] == "done" {
                    event["endedAt"] = turn["ts"].clone();
                }
                body += &(event.to_string() + "\n");
            }
            assert_eq!(client.post_events(&body).status, 200);
        }
        for expected in vector["answers"].as_array().unwrap() {
            let query = expected["query"].as_str().unwrap();
            let answer = client.get(&format!("/metrics/throughput?{query}"));
            assert_eq!(answer.body, expected["body"].as_str().unwrap(), "{query} in {zone}");
            assert_eq!(answer.status, expected["status"]);
            answers += 1;
        }
    }
    assert_eq!(answers, 54);
}

#[test]
fn a_zone_that_does_not_exist_is_refused_at_the_start() {
    let mut command = crate::server::turn_metrics();
    command.env("TURN_METRICS__REPORTS__TIME_ZONE", "Mars/Olympus").arg("config");
    let output = command.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("the name of a time zone"), "{message}");
}
