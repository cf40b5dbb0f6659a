//! A random month in several zones: every answer agrees with a plain sum over the turns that were sent, to the last
//! token and pico-dollar.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::channel;

use serde_json::Value;

use super::get;
use super::oracle::{self, Calendar, Entry, NAMES, Part, Rows, Shown, Step, Sums, Table, Turn, Usage};
use crate::kill_loop::setting;
use crate::server::{Client, Server, encode, turn_metrics, until};

/// The clocks of St. John's and of Berlin are put forward in this month.
const FROM: u64 = 1_772_323_200_000; // 2026-03-01T00:00:00Z
const DAYS: u64 = 31;

/// The questions: the month in every zone, and more.
const ASKED: (&str, &str) = ("2026-02-20", "2026-04-10");

const ZONES: [&str; 3] = ["Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"];

/// No report may have more than 10,000 rows.
const REPORTS: [(&str, &[&str]); 10] = [
    ("15m", &[]),
    ("hour", &[]),
    ("day", &[]),
    ("day", &["model"]),
    ("day", &["project"]),
    ("day", &["provider", "reason"]),
    ("week", &NAMES),
    ("month", &NAMES),
    ("all", &["model"]),
    ("all", &[]),
];

/// The reports that the command `report` prints too: the format, the zone, the bucket and the grouping.
const PRINTED: [(&str, &str, &str, &[&str]); 5] = [
    ("--json", "Europe/Berlin", "15m", &[]),
    ("--json", "America/St_Johns", "week", &NAMES),
    ("--json", "Asia/Kathmandu", "all", &["model"]),
    ("--csv", "Asia/Kathmandu", "day", &["provider", "reason"]),
    ("--csv", "Europe/Berlin", "month", &NAMES),
];

const TURNS_A_POST: usize = 200;

const DOLLAR: i128 = 1_000_000_000_000;

/// Returns prices with a tier, a price that changes within the month, a price of a provider, and prices that have
/// to be rounded. The models `zz-gained` and `zz-nobody-knows` have no price.
fn table_before() -> Table {
    let plain = Entry { model: "zz-plain", provider: None, from: None, rates: rates(3, 15), tier: None };
    Table(vec![
        plain,
        Entry { provider: Some("p1"), rates: rates(5, 7), ..plain },
        Entry { model: "zz-tiered", rates: thirds(1), tier: Some((9_000, thirds(2))), ..plain },
        Entry { model: "zz-changing", rates: thirds(4), ..plain },
        Entry { model: "zz-changing", from: Some("2026-03-17T13:45:00Z"), rates: thirds(5), ..plain },
        Entry { model: "zz-lost", rates: rates(1, 2), ..plain },
    ])
}

fn table_after() -> Table {
    let mut entries = table_before().0;
    for entry in &mut entries {
        entry.rates[1] += 1_000_001;
        if entry.model == "zz-lost" {
            entry.model = "zz-gained";
        }
    }
    Table(entries)
}

fn rates(input: i128, output: i128) -> [i128; 5] {
    [input * DOLLAR, output * DOLLAR, input * DOLLAR / 10, input * DOLLAR * 5 / 4, input * DOLLAR * 2]
}

/// Rates with twelve places.
fn thirds(n: i128) -> [i128; 5] {
    [n * DOLLAR / 3, n * DOLLAR * 5 / 3, n * DOLLAR / 30, n * DOLLAR / 7, n * DOLLAR / 6]
}

const MODELS: [&str; 6] = ["zz-plain", "zz-tiered", "zz-changing", "zz-lost", "zz-gained", "zz-nobody-knows"];
const PROVIDERS: [Option<&str>; 3] = [None, Some("p1"), Some("p2")];
const PROJECTS: [Option<&str>; 3] = [None, Some("a"), Some("b")];
const REASONS: [&str; 6] = ["stop", "stop", "stop", "aborted", "error", "length"];

fn pick<T: Copy>(random: &mut fastrand::Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

fn random_usage(random: &mut fastrand::Rng) -> Usage {
    let input = random.i128(1..20_000);
    // If there are more cached tokens than input, the kernel counts the prompt without its cached part.
    let most = if random.u8(..20) == 0 { 2 * input } else { input / 2 };
    let cached = |random: &mut fastrand::Rng| random.bool().then(|| random.i128(0..=most));
    Usage { input, output: random.i128(0..2_000), cache_read: cached(random), cache_write: cached(random) }
}

fn random_turn(random: &mut fastrand::Rng, nth: usize, conversations: usize) -> Turn {
    let model = (random.u8(..30) > 0).then(|| pick(random, &MODELS));
    let steps = (0..random.usize(..5)).map(|_| {
        let usage = (random.u8(..8) > 0).then(|| random_usage(random));
        let other_model = model.is_some() && random.u8(..6) == 0;
        Step {
            model: other_model.then(|| pick(random, &MODELS)),
            provider: if other_model { pick(random, &PROVIDERS) } else { None },
            cache_write_1h: usage.and_then(|usage| usage.cache_write).filter(|_| random.bool()).map(|write| write / 3),
            usage,
        }
    });
    let steps: Vec<_> = steps.collect();
    Turn {
        conversation: format!("c/{}", random.usize(..conversations)),
        id: format!("t{nth}"),
        model,
        provider: if model.is_some() { Some(pick(random, &["p1", "p2"])) } else { None },
        project: pick(random, &PROJECTS),
        reason: pick(random, &REASONS),
        ended_at: FROM + random.u64(..DAYS * 24 * 60 * 60 * 1000),
        steps,
        done: (random.u8(..4) == 0).then(|| random_usage(random)),
    }
}

fn body(turns: &[Turn]) -> String {
    let mut lines = String::new();
    for turn in turns {
        turn.write_events(&mut lines);
    }
    lines
}

/// Turns that were sent, with the parts that reports count.
struct Sent {
    parts: Vec<Part>,
    by_conversation: BTreeMap<String, Conversation>,
}

/// The turns of a conversation in the order of their ordinals.
#[derive(Default)]
struct Conversation {
    turns: Vec<Turn>,
    parts: Vec<Vec<Part>>,
}

impl Conversation {
    fn sums(&self) -> Sums {
        Sums::of(self.parts.iter().flatten())
    }

    fn last(&self) -> &Turn {
        self.turns.last().unwrap()
    }
}

impl Sent {
    fn of(turns: &[Turn], table: &Table) -> Self {
        let mut sent = Self { parts: Vec::new(), by_conversation: BTreeMap::new() };
        for turn in turns {
            let parts = turn.parts(table);
            sent.parts.extend(parts.iter().cloned());
            let conversation = sent.by_conversation.entry(turn.conversation.clone()).or_default();
            conversation.turns.push(turn.clone());
            conversation.parts.push(parts);
        }
        sent
    }

    fn assert_every_answer_agrees(&self, server: &Server) {
        let client = &mut server.client();
        self.assert_reports_agree(client, &ZONES);
        self.assert_printed_reports_agree(server);
        self.assert_lists_agree(client);
        for (id, conversation) in &self.by_conversation {
            assert_summary_agrees(client, id, conversation);
            assert_turns_agree(client, id, conversation);
        }
    }

    fn assert_reports_agree(&self, client: &mut Client, zones: &[&str]) {
        for zone in zones {
            let calendar = Calendar::new(zone, ASKED.0);
            for (bucket, by) in REPORTS {
                let answer = report(client, zone, bucket, by);
                assert_same(&oracle::rows(&answer), &oracle::report(&self.parts, &calendar, bucket, by), || {
                    format!("{bucket} by {by:?} in {zone}")
                });
            }
        }
    }

    fn assert_printed_reports_agree(&self, server: &Server) {
        for (format, zone, bucket, by) in PRINTED {
            let mut command = turn_metrics();
            command.args(["report", format, "--server", &server.url(), "--bucket", bucket, "--tz", zone]);
            command.args(["--since", ASKED.0, "--until", ASKED.1]);
            if !by.is_empty() {
                command.args(["--by", &by.join(",")]);
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            let rows = match format {
                "--json" => oracle::rows(&serde_json::from_str(&text).unwrap()),
                _ => oracle::rows_of_csv(&text),
            };
            assert_same(&rows, &oracle::report(&self.parts, &Calendar::new(zone, ASKED.0), bucket, by), || {
                format!("the command's {format}: {bucket} by {by:?} in {zone}")
            });
        }
    }

    fn assert_lists_agree(&self, client: &mut Client) {
        let orders: [(&str, Rank); 4] = [
            ("recent", |conversation| Some(conversation.last().ended_at.into())),
            ("tokens", |conversation| Some(conversation.sums().rank_by_tokens())),
            ("cost", |conversation| conversation.sums().usd()),
            ("turns", |conversation| Some(conversation.sums().turns)),
        ];
        for (order, rank) in orders {
            let mut expected: Vec<_> = self.by_conversation.iter().map(|(id, of)| (rank(of), id, of)).collect();
            expected.sort_by(|(one, one_id, _), (other, other_id, _)| other.cmp(one).then(one_id.cmp(other_id)));
            let (mut after, mut expected) = (String::new(), expected.into_iter());
            loop {
                let page = get(client, &format!("/conversations?order={order}&limit=37{after}"));
                for entry in page["conversations"].as_array().unwrap() {
                    let (_, id, conversation) = expected.next().unwrap();
                    assert_eq!(entry["conversationId"], **id, "in the order `{order}`");
                    let sums = conversation.sums().shown().without_steps();
                    assert_eq!(Shown::of(entry), sums, "{id} in the order `{order}`");
                    let (first, last) = (&conversation.turns[0], conversation.last());
                    assert_eq!((&entry["firstAt"], &entry["lastAt"]), (&first.ended_at.into(), &last.ended_at.into()));
                    let names = [entry["model"].as_str(), entry["project"].as_str()];
                    assert_eq!(names, [last.model, last.project], "{id}");
                }
                let Some(next) = page["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(expected.count(), 0, "conversations are missing in the order `{order}`");
        }
    }
}

/// The rank by which a list of conversations is ordered. Conversations without a rank come last.
type Rank = fn(&Conversation) -> Option<i128>;

fn report(client: &mut Client, zone: &str, bucket: &str, by: &[&str]) -> Value {
    let by = if by.is_empty() { String::new() } else { format!("&by={}", by.join(",")) };
    get(client, &format!("/stats?from={}&to={}&tz={zone}&bucket={bucket}{by}", ASKED.0, ASKED.1))
}

/// Asserts equality and names only the first difference, because there may be thousands of rows.
fn assert_same(rows: &Rows, expected: &Rows, what: impl Fn() -> String) {
    for (place, row) in rows {
        assert_eq!(Some(row), expected.get(place), "{}: {place:?}", what());
    }
    assert_eq!(rows.len(), expected.len(), "{}: rows are missing", what());
}

fn assert_summary_agrees(client: &mut Client, id: &str, conversation: &Conversation) {
    let summary = get(client, &format!("/conversations/{}/summary", encode(id)));
    assert_eq!(Shown::of(&summary), conversation.sums().shown().without_saved(), "{id}");
    let (first, last) = (&conversation.turns[0], conversation.last());
    assert_eq!((&summary["firstAt"], &summary["lastAt"]), (&first.ended_at.into(), &last.ended_at.into()), "{id}");
    let mut by_model: BTreeMap<Option<&str>, Sums> = BTreeMap::new();
    for part in conversation.parts.iter().flatten() {
        by_model.entry(part.names[0]).or_default().add(&part.sums);
    }
    let rows = summary["byModel"].as_array().unwrap().iter();
    let rows: BTreeMap<_, _> = rows.map(|row| (row["model"].as_str(), Shown::of(row))).collect();
    let by_model = by_model.into_iter().map(|(model, sums)| (model, sums.shown().without_saved()));
    assert_eq!(rows, by_model.collect(), "{id}");
}

/// Reads all turns from the end, page by page.
fn assert_turns_agree(client: &mut Client, id: &str, conversation: &Conversation) {
    let (mut before, mut seen) = (String::new(), conversation.turns.len());
    while seen > 0 {
        let page = get(client, &format!("/conversations/{}/turns?cost=true&order=latest{before}", encode(id)));
        let page = page["turns"].as_array().unwrap();
        assert!(!page.is_empty(), "{id}: {seen} turns are missing");
        seen -= page.len();
        for (nth, turn) in (seen..).zip(page) {
            assert_eq!(turn["metrics"]["turnId"], *conversation.turns[nth].id, "{id}");
            let mut shown = turn["metrics"].clone();
            (shown["turns"], shown["cost"], shown["steps"]) = (1.into(), turn["cost"].clone(), Value::Null);
            let sums = Sums::of(&conversation.parts[nth]).shown().without_steps();
            assert_eq!(Shown::of(&shown), sums, "{id}: {turn}");
        }
        before = format!("&before={}", page[0]["ordinal"]);
    }
}

/// Starts a server that prices by a table. Its journal is so small that some turns are in the tables, and some not yet.
fn start(directory: &Path, table: &Table) -> Server {
    let prices = directory.join("prices.toml");
    std::fs::write(&prices, table.toml()).unwrap();
    let settings = [("STORE__REDB__JOURNAL_BYTES", "1048576"), ("PRICES__FILE", prices.to_str().unwrap())];
    Server::start_with(&directory.join("data"), &settings)
}

/// Posts turns in one request, again and again until the server accepts them. Fails if the connection breaks.
fn try_post(client: &mut Client, turns: &[Turn]) -> std::io::Result<()> {
    let body = body(turns);
    until("the turns are taken", || match client.try_post_events(&body) {
        Err(error) => Some(Err(error)),
        Ok(answer) if answer.status == 200 => Some(Ok(())),
        Ok(answer) => {
            assert_eq!(answer.status, 503, "{answer:?}");
            None
        }
    })
}

fn post(client: &mut Client, turns: &[Turn]) {
    turns.chunks(TURNS_A_POST).for_each(|turns| try_post(client, turns).unwrap());
}

/// Posts turns and kills the server after about half of the requests. Returns how many turns were acknowledged.
fn post_until_killed(server: Server, turns: &[Turn]) -> usize {
    let mut client = server.client();
    let half = turns.len() / TURNS_A_POST / 2;
    let (acknowledge, acknowledged) = channel();
    std::thread::scope(|scope| {
        let posting = scope.spawn(move || {
            let is_acknowledged = |turns: &&[Turn]| {
                let taken = try_post(&mut client, turns);
                let _ = acknowledge.send(());
                taken.is_ok()
            };
            turns.chunks(TURNS_A_POST).take_while(is_acknowledged).count() * TURNS_A_POST
        });
        acknowledged.iter().take(half).for_each(drop);
        server.kill();
        posting.join().unwrap()
    })
}

#[test]
fn all_answers_agree_with_a_plain_sum_over_a_random_month_also_after_a_kill_and_by_other_prices() {
    let seed = setting("TURN_METRICS_TEST_SEED", fastrand::u64(..));
    let count = usize::try_from(setting("TURN_METRICS_TEST_TURNS", 4_000)).unwrap();
    println!("TURN_METRICS_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let conversations = (count / 100).max(3);
    let turns: Vec<_> = (0..count).map(|nth| random_turn(&mut random, nth, conversations)).collect();
    let (before, after) = (table_before(), table_after());
    let directory = tempfile::tempdir().unwrap();

    let acknowledged = post_until_killed(start(directory.path(), &before), &turns);
    assert!(acknowledged < turns.len(), "all was posted before the kill");
    let server = start(directory.path(), &before);
    let mut client = server.client();
    // The post that was under way may be stored in part.
    let sent = (acknowledged + TURNS_A_POST).min(turns.len());
    post(&mut client, &turns[acknowledged..sent]);
    let half = Sent::of(&turns[..sent], &before);
    half.assert_reports_agree(&mut client, &ZONES[..1]);
    half.assert_printed_reports_agree(&server);
    half.assert_lists_agree(&mut client);
    post(&mut client, &turns[sent..]);
    let by_first_prices = Sent::of(&turns, &before);
    by_first_prices.assert_every_answer_agrees(&server);
    drop(client);
    server.kill();

    // Kill the server again while it computes the costs again, unless it has finished.
    let server = start(directory.path(), &after);
    report(&mut server.client(), "UTC", "all", &[]);
    server.kill();
    let server = start(directory.path(), &after);
    let mut client = server.client();
    let by_other_prices = Sent::of(&turns, &after);
    let shown = |sent: &Sent| Sums::of(&sent.parts).shown();
    let (first, other) = (shown(&by_first_prices), shown(&by_other_prices));
    assert_ne!(first, other);
    until("the costs are by the other prices", || {
        let answer = report(&mut client, "UTC", "all", &[]);
        let (shown, is_switched) = (Shown::of(&answer["rows"][0]), !answer["prices"].is_null());
        if is_switched {
            assert_eq!(shown, other, "the answer names the other prices");
        } else {
            // Turns that were in the journal at the start have the other prices already.
            assert_eq!(shown.without_cost(), other.clone().without_cost(), "until the costs are by the other prices");
        }
        is_switched.then_some(())
    });
    by_other_prices.assert_every_answer_agrees(&server);
}
