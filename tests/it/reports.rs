//! The commands that show lists, reports, turns and prices: their figures equal the server's figures, and their output
//! suits people and programs.

use std::io::Read;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::server::{Server, turn_metrics};

const CONVERSATIONS: u64 = 30;
const TURNS: u64 = 10;
/// 2026-05-28T00:00:00Z.
const FIRST: u64 = 1_779_926_400_000;
const HOUR: u64 = 60 * 60 * 1000;
/// All the turns.
const ALWAYS: [&str; 6] = ["--since", "2026-05-01", "--until", "2026-07-01", "--tz", "Europe/Berlin"];
const ALWAYS_QUERY: &str = "from=2026-05-01&to=2026-07-01&tz=Europe/Berlin";

/// A name that breaks a careless CSV parser and contains control characters for a terminal.
const ODD: &str = "=1+1,\"odd\"\u{202e}é";

/// Returns turns over two weeks, of models with a price and of a model without a price. Prompts are large, so that
/// numbers are long.
fn events() -> String {
    let mut lines = Vec::new();
    for n in 0..CONVERSATIONS * TURNS {
        let conversation = n % CONVERSATIONS;
        let id = if conversation == 0 { ODD.to_owned() } else { format!("conversation-{conversation}") };
        let model = ["gpt-4o", "claude-sonnet-4-5-20250929", "nobody-knows"][usize::try_from(n % 3).unwrap()];
        let turn = format!("t{n}");
        for mut event in [
            json!({ "type": "turn-start", "model": model, "project": if conversation == 0 { ODD } else { "p" } }),
            json!({ "type": "usage", "stepId": format!("{turn}#0"),
                    "usage": { "inputTokens": 900_000 + n, "outputTokens": 1000 + n, "cacheReadTokens": 300_000 } }),
            json!({ "type": "step-complete", "stepId": format!("{turn}#0"), "ttftMs": 100 + n, "decodeMs": 2500.5, "genTotalMs": 3000 }),
            json!({ "type": "done", "reason": "stop", "durationMs": 3500 + n, "endedAt": FIRST + n * HOUR }),
        ] {
            event["conversationId"] = id.as_str().into();
            event["turnId"] = turn.as_str().into();
            lines.push(event.to_string());
        }
    }
    let open = json!({ "type": "usage", "conversationId": "conversation-1", "turnId": "still-open",
                       "usage": { "inputTokens": 77, "outputTokens": 7 } });
    lines.push(open.to_string());
    lines.join("\n") + "\n"
}

struct Filled {
    server: Server,
    directory: tempfile::TempDir,
}

impl Filled {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start_with(directory.path(), &[("REPORTS__TIME_ZONE", "UTC")]);
        assert_eq!(server.client().post_events(&events()).status, 200);
        Self { server, directory }
    }

    fn output(&self, args: &[&str]) -> Output {
        turn_metrics().args(args).args(["--server", &self.server.url()]).output().unwrap()
    }

    /// Returns the output of a command that succeeds.
    fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.server.client().get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }
}

/// The rows of a sheet, each with the names of its columns.
fn rows(csv: &str) -> Vec<Vec<(String, String)>> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let names: Vec<_> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let with_names = |row: csv::StringRecord| names.iter().cloned().zip(row.iter().map(str::to_owned)).collect();
    reader.records().map(|row| with_names(row.unwrap())).collect()
}

fn cell<'a>(row: &'a [(String, String)], name: &str) -> &'a str {
    &row.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name} in {row:?}")).1
}

/// Returns a value of JSON as a sheet shows it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn assert_same_cost(row: &[(String, String)], cost: &Value) {
    assert_eq!(cell(row, "usd"), text(&cost["usd"]));
    assert_eq!(cell(row, "unpricedTokens"), text(&cost["unpricedTokens"]));
    let models = cost["unpricedModels"].to_string();
    assert_eq!(cell(row, "unpricedModels"), if models == "[]" { "" } else { &models });
}

fn assert_same_usage(row: &[(String, String)], usage: &Value) {
    for name in ["inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens"] {
        assert_eq!(cell(row, name), text(&usage[name]), "{name}");
    }
}

#[test]
fn a_report_has_the_figures_of_the_server_in_every_format() {
    let filled = Filled::start();
    let total = filled.get(&format!("/stats?{ALWAYS_QUERY}&bucket=all"))["rows"][0].clone();
    for bucket in ["15m", "hour", "day", "week", "month", "all"] {
        for by in ["model", "model,provider,project,reason", "project"] {
            let args = [&["report", "--bucket", bucket, "--by", by][..], &ALWAYS].concat();
            let answer = filled.server.client().get(&format!("/stats?{ALWAYS_QUERY}&bucket={bucket}&by={by}"));
            let json = filled.run(&[&args[..], &["--json"]].concat());
            assert!(json.contains("\\u202e") || !by.contains("project"), "deceptive characters are escaped");
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), answer.json(), "{bucket} {by}");
            let rows = rows(&filled.run(&[&args[..], &["--csv"]].concat()));
            let answer = answer.json();
            let of_server = answer["rows"].as_array().unwrap();
            assert_eq!(rows.len(), of_server.len());
            let (mut usd, mut input) = (0, 0);
            for (row, of_server) in rows.iter().zip(of_server) {
                for name in ["start", "end", "turns", "steps", "cacheRate", "cacheCoverage"] {
                    assert_eq!(cell(row, name), text(&of_server[name]), "{name}");
                }
                for property in by.split(',') {
                    assert_eq!(cell(row, property), text(&of_server[property]), "{property}");
                }
                for name in ["ttftMs", "outputTokensPerSecond", "durationMs"] {
                    for part in ["count", "min", "p50", "p90", "p99", "max"] {
                        let column = format!("{name}{}{}", part[..1].to_uppercase(), &part[1..]);
                        assert_eq!(cell(row, &column), text(&of_server[name][part]), "{column}");
                    }
                }
                assert_same_usage(row, &of_server["usage"]);
                assert_same_cost(row, &of_server["cost"]);
                assert_eq!(cell(row, "cacheSavedUsd"), text(&of_server["cacheSavedUsd"]));
                usd += cell(row, "usd").replace('.', "").parse::<i128>().unwrap_or(0);
                input += cell(row, "inputTokens").parse::<i128>().unwrap();
            }
            assert_eq!(input, i128::from(total["usage"]["inputTokens"].as_i64().unwrap()));
            let expected = total["cost"]["usd"].as_str().map_or(0, |usd| usd.replace('.', "").parse().unwrap());
            assert_eq!(usd, expected, "{bucket} {by}");
            let table = filled.run(&[&args[..], &["--wide"]].concat());
            assert!(table.contains(&input.to_string()), "the sum of all rows, in {table}");
        }
    }
    let of_model = filled.run(&[&["report", "--bucket", "all", "--csv", "--model", "gpt-4o"][..], &ALWAYS].concat());
    assert_eq!(cell(&rows(&of_model)[0], "turns"), "100");
    let none = filled.run(&[&["report", "--provider", "none"][..], &ALWAYS].concat());
    assert!(none.contains("Europe/Berlin. No turns."), "{none}");
    // Without a named zone, the zone of the server applies.
    let day = filled.run(&["report", "--since", "2026-05-28", "--until", "2026-05-29", "--csv"]);
    assert_eq!((rows(&day).len(), cell(&rows(&day)[0], "start")), (1, FIRST.to_string().as_str()));
}

#[test]
fn a_list_has_the_conversations_of_the_server_in_every_order_and_format() {
    let filled = Filled::start();
    for order in ["recent", "tokens", "cost", "turns"] {
        let of_server = filled.get(&format!("/conversations?order={order}&limit=1000"))["conversations"].clone();
        let of_server = of_server.as_array().unwrap();
        assert_eq!(of_server.len() as u64, CONVERSATIONS);
        let rows = rows(&filled.run(&["list", "--order", order, "--all", "--csv"]));
        for (row, of_server) in rows.iter().zip(of_server) {
            for name in [
                "conversationId",
                "turns",
                "openTurns",
                "firstAt",
                "lastAt",
                "model",
                "project",
                "contextSize",
                "cacheRate",
            ] {
                assert_eq!(cell(row, name), text(&of_server[name]), "{name}");
            }
            assert_same_usage(row, &of_server["usage"]);
            assert_same_cost(row, &of_server["cost"]);
        }
        assert_eq!(rows.len(), of_server.len());
        let lines = filled.run(&["list", "--order", order, "--all", "--json"]);
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, *of_server);
        let some = filled.run(&["list", "--order", order, "--limit", "7", "--json"]);
        assert_eq!(some.lines().count(), 7);
    }
    let default = filled.output(&["list"]);
    let note = String::from_utf8(default.stderr).unwrap();
    assert_eq!(note, "there are more conversations: show them with --all, or raise --limit\n");
    let table = filled.run(&["list", "--prefix", "conversation-1", "--all", "--tz", "Asia/Kathmandu"]);
    // There are 300 turns, one per hour. The last turn of `conversation-19` is number 290.
    assert!(table.contains("conversation-19") && !table.contains("conversation-2 "), "{table}");
    assert!(table.contains("06-09 06:45"), "{table}");
    let since = ["list", "--all", "--json", "--since", "2026-06-09T10:00:00Z", "--until", "2026-06-09T11:00:00Z"];
    assert_eq!(filled.run(&since).lines().count(), 1);
    let days = ["list", "--all", "--json", "--since", "2026-06-09", "--tz"];
    let begin = |zone: &str| filled.run(&[&days[..], &[zone]].concat()).lines().count();
    assert_eq!(begin("Asia/Kathmandu") - begin("UTC"), 5, "a date begins in the zone that is named");
    assert_eq!(filled.run(&["list", "--prefix", "x"]), "no such conversation has a sealed turn\n");
}

#[test]
fn tables_fit_80_characters_in_a_pipe_and_have_no_escapes_but_wide_ones_have_all_digits() {
    let filled = Filled::start();
    let file = filled.directory.path().join("prices.toml");
    std::fs::write(&file, "[[price]]\nmodel = \"nobody-knows\"\ninput = 1.5\noutput = 3\n").unwrap();
    let file = file.to_str().unwrap();
    let by_all = [&["report", "--by", "model,provider,project,reason"][..], &ALWAYS].concat();
    let by_hour = [&["report", "--by", "model", "--bucket", "hour"][..], &ALWAYS].concat();
    let commands: [&[&str]; 7] = [
        &["list"],
        &["show", "conversation-1"],
        &["show", ODD, "--all"],
        &by_all,
        &by_hour,
        &["prices", "gpt-4o", "claude-sonnet-4-5-20250929", "nobody-knows"],
        &["prices", "check", "--file", file],
    ];
    for args in commands {
        if args[0] == "prices" && !cfg!(feature = "prices") {
            continue;
        }
        for term in ["xterm", "dumb"] {
            let mut command = turn_metrics();
            command.args(args).args(["--server", &filled.server.url()]).env("TERM", term).env("NO_COLOR", "");
            let output = command.output().unwrap();
            let table = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{args:?}: {table}{}", String::from_utf8_lossy(&output.stderr));
            let too_long =
                table.lines().filter(|line| line.chars().count() > 80).find(|line| !line.starts_with("In no cost"));
            assert_eq!(too_long, None, "{args:?}\n{table}");
            assert!(!table.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{table:?}");
        }
        let wide = filled.run(&[args, &["--wide"]].concat());
        assert!(!wide.contains("Too narrow"), "{wide}");
    }
    let list = filled.run(&["list"]);
    assert!(list.contains("9.00M") && !list.contains("9001"), "{list}");
    assert!(filled.run(&["list", "--wide"]).contains(" 9001640 "), "all digits");
}

#[test]
fn show_has_the_time_and_the_cost_of_each_turn_and_its_open_turns_at_the_end() {
    let filled = Filled::start();
    let shown = filled.run(&["show", "conversation-1", "--wide", "--tz", "Asia/Kathmandu"]);
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].contains("ended") && lines[0].contains("cost $"), "{shown}");
    // The first turn of this conversation ended an hour after the first turn of all conversations.
    assert!(lines[1].contains("t1 (claude-sonnet-4-5-20250929)") && lines[1].contains("2026-05-28 06:45"), "{shown}");
    assert_eq!(lines[21].trim_start().split_once(' ').unwrap().0, "total:", "{shown}");
    assert!(lines[22].contains("still-open") && lines[22].contains("open") && lines[22].contains("77"), "{shown}");
    let turns = filled.get("/conversations/conversation-1/turns?cost=true")["turns"].clone();
    let json = filled.run(&["show", "conversation-1", "--json"]);
    let json: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json, *turns.as_array().unwrap());
    if cfg!(feature = "prices") {
        let usd = turns[0]["cost"]["usd"].as_str().unwrap();
        let usd: f64 = usd.parse().unwrap();
        assert!(lines[1].ends_with(&format!("{usd:.4}")), "{shown}");
    }
}

#[test]
fn the_latest_twenty_turns_are_shown_unless_others_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let done = |n| format!("{{\"type\":\"done\",\"conversationId\":\"c\",\"turnId\":\"t{n}\",\"reason\":\"stop\"}}\n");
    assert_eq!(server.client().post_events(&(1..=450).map(done).collect::<String>()).status, 200);
    let ordinals = |args: &[&str]| {
        let mut command = turn_metrics();
        let output = command.args(["show", "c", "--json", "--server", &server.url()]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        let ordinal = |line: &str| serde_json::from_str::<Value>(line).unwrap()["ordinal"].as_u64().unwrap();
        (lines.lines().map(ordinal).collect::<Vec<_>>(), String::from_utf8(output.stderr).unwrap())
    };
    let earlier = "there are earlier turns: show them with --all, or raise --limit\n";
    for (args, expected, note) in [
        (&[][..], 431..=450, earlier),
        (&["--limit", "449"], 2..=450, earlier),
        (&["--limit", "450"], 1..=450, ""),
        (&["--all"], 1..=450, ""),
        (&["--after", "440"], 441..=450, ""),
        (
            &["--after", "7", "--limit", "2"],
            8..=9,
            "there are more turns: show them with --after 9, or raise --limit\n",
        ),
    ] {
        assert_eq!(ordinals(args), (expected.collect(), note.to_owned()), "{args:?}");
    }
}

#[cfg(feature = "prices")]
#[test]
fn prices_are_those_of_the_server_or_of_a_file_that_is_tried() {
    let filled = Filled::start();
    let answer = filled.get("/prices?model=claude-sonnet-4-5-20250929");
    let lines = filled.run(&["prices", "claude-sonnet-4-5-20250929", "nobody-knows", "--json"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["usdPerMillionTokens"], &lines[0]["name"]),
        (&answer["usdPerMillionTokens"], &answer["name"])
    );
    assert!(lines[1]["name"].is_null());
    let csv = rows(&filled.run(&["prices", "claude-sonnet-4-5-20250929", "--csv"]));
    assert_eq!(cell(&csv[0], "inputUsd"), answer["usdPerMillionTokens"]["input"]);

    let checked = filled.output(&["prices", "check", "--csv"]);
    assert_eq!(checked.status.code(), Some(3), "a model has no price");
    let checked = rows(&String::from_utf8(checked.stdout).unwrap());
    let stats = filled.get(&format!("/stats?{ALWAYS_QUERY}&bucket=all&by=model"))["rows"].clone();
    for (row, of_server) in checked.iter().zip(stats.as_array().unwrap()) {
        assert_eq!(cell(row, "model"), of_server["model"]);
        let tokens = |name: &str| of_server["usage"][name].as_u64().unwrap();
        assert_eq!(cell(row, "tokens"), (tokens("inputTokens") + tokens("outputTokens")).to_string());
        assert_eq!(cell(row, "unpricedTokens"), of_server["cost"]["unpricedTokens"].to_string());
        assert_eq!(cell(row, "name").is_empty(), cell(row, "model") == "nobody-knows");
    }
    assert_eq!(checked.len(), 3);

    let file = filled.directory.path().join("prices.toml");
    let entry = |model: &str| format!("[[price]]\nmodel = \"{model}\"\ninput = 1.5\noutput = 3\n");
    std::fs::write(&file, entry("nobody*") + &entry("gtp-4o")).unwrap();
    let file = file.to_str().unwrap();
    let tried = filled.run(&["prices", "check", "--file", file, "--wide"]);
    assert!(
        tried.contains("nobody* ") && tried.contains("prices.file") && tried.contains("All 3 have a price."),
        "{tried}"
    );
    assert!(tried.ends_with("these entries are for no model here now: gtp-4o\n"), "{tried}");
    assert_eq!(filled.output(&["prices", "check"]).status.code(), Some(3), "nothing on the server is changed");

    std::fs::write(file, "[[price]]\nmodel = 5\n").unwrap();
    let invalid = filled.output(&["prices", "check", "--file", file]);
    let message = String::from_utf8(invalid.stderr).unwrap();
    assert!(invalid.status.code() == Some(1) && message.contains("line 2"), "{message}");
}

#[test]
fn a_bad_value_is_told_with_what_is_allowed() {
    let filled = Filled::start();
    for (args, code, named) in [
        (&["report", "--bucket", "year"][..], 2, "[possible values: 15m, hour, day, week, month, all]"),
        (&["report", "--by", "modle"], 2, "[possible values: model, provider, project, reason]"),
        (&["report", "--since", "soon"], 2, "it must be a date such as 2026-01-31"),
        (&["report", "--tz", "Mars/Olympus"], 2, "one has a name such as `Europe/Berlin`"),
        (&["report", "--json", "--csv"], 2, "cannot be used with"),
        (&["report", "--csv", "--wide"], 2, "cannot be used with"),
        (
            &["report", "--since", "2026-05-02", "--until", "2026-05-01"],
            1,
            "`--until` must be a moment that is not before `--since`",
        ),
        (&["report", "--since", "2020-01-01", "--bucket", "15m"], 1, "ask for a larger bucket or a shorter time"),
        (&["list", "--order", "size"], 2, "[possible values: recent, tokens, cost, turns]"),
        (&["list", "--limit", "0"], 2, "1..=1000000"),
        (&["list", "--all", "--limit", "5"], 2, "cannot be used with"),
        (
            &["list", "--since", "2026-05-02", "--until", "2026-05-01"],
            1,
            "`--until` must be a moment that is not before `--since`",
        ),
        (&["prices"], 2, "<MODEL>..."),
        (&["prices", "m", "--at", "2026-02-30"], 2, "it must be a date such as 2026-01-31"),
        (&["prices", "check", "--file", "no-such-file"], 1, "no-such-file"),
    ] {
        let output = turn_metrics()
            .args(args)
            .args(if args[0] == "prices" && args.len() == 1 { &[][..] } else { &["--server"][..] })
            .args((args[0] != "prices" || args.len() > 1).then(|| filled.server.url()))
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(named), "{args:?}: {message}");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
        assert!(output.stdout.is_empty() && message.lines().count() <= 8, "{message}");
    }
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    let filled = Filled::start();
    for args in [&["list", "--all", "--csv"][..], &["report", "--json"], &["show", "conversation-1", "--json", "--all"]]
    {
        let mut command = turn_metrics();
        command.args(args).args(["--server", &filled.server.url()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let mut message = String::new();
        child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
        assert!(child.wait().unwrap().success() && message.is_empty(), "{args:?}: {message}");
    }
}
