//! The commands, as a user at a terminal runs them.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::server::{Client, Server, turn_metrics, until};

fn run(args: &[&str]) -> Output {
    turn_metrics().args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a `serve` that must not start. Returns its message, which must be clear and short, without a backtrace.
fn serve_refused(data_dir: &Path, listen: &str) -> String {
    let mut command = turn_metrics();
    command.args(["serve", "--listen", listen, "--data-dir"]).arg(data_dir);
    refused(&mut command)
}

fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let message = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {message}", output.status);
    assert!(!message.contains("panicked") && message.lines().count() <= 8, "{message}");
    message
}

#[test]
fn the_error_names_a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let message = serve_refused(directory.path(), &address);
    assert!(message.contains(&address) && message.contains("in use"), "{message}");
}

#[test]
fn the_error_says_that_another_process_uses_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let message = serve_refused(directory.path(), "127.0.0.1:0");
    assert!(message.contains("in use by another process"), "{message}");
    assert_eq!(server.client().get("/ready").status, 200);
}

#[test]
fn a_file_that_is_not_a_database_is_an_error_and_is_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("turn-metrics.redb");
    std::fs::write(&file, "dear diary").unwrap();
    let message = serve_refused(directory.path(), "127.0.0.1:0");
    assert!(message.contains("no turn-metrics database"), "{message}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "dear diary");
}

#[test]
fn the_error_names_a_data_directory_that_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let message = serve_refused(&file.join("data"), "127.0.0.1:0");
    assert!(message.contains("data directory"), "{message}");
}

#[test]
fn an_address_beyond_loopback_needs_a_flag() {
    let directory = tempfile::tempdir().unwrap();
    let message = serve_refused(directory.path(), "0.0.0.0:0");
    assert!(message.contains("--insecure"), "{message}");
}

#[test]
fn the_error_about_a_wrong_setting_names_its_key_value_origin_and_the_allowed_values() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    for (content, wanted) in [
        ("[http]\nlissen = \"x\"\n", &["http.lissen", "config.toml"][..]),
        ("[turns]\nidle_after = \"soon\"\n", &["turns.idle_after", "soon", "config.toml"]),
        ("[turns]\nmax_steps = 0\n", &["turns.max_steps", "0", "config.toml"]),
        ("[nonsense]\nx = 1\n", &["nonsense", "config.toml"]),
        ("not toml", &["config.toml"]),
    ] {
        std::fs::write(&file, content).unwrap();
        let message = refused(turn_metrics().arg("config").arg("--config").arg(&file));
        for word in wanted {
            assert!(message.contains(word), "{content:?} lacks {word}: {message}");
        }
    }
    let message = refused(turn_metrics().arg("config").env("TURN_METRICS__HTTP__MAX_BODY_BYTES", "many"));
    assert!(message.contains("TURN_METRICS__HTTP__MAX_BODY_BYTES") && message.contains("many"), "{message}");
    let message = refused(turn_metrics().arg("config").env("TURN_METRICS__HTTP__NO_SUCH_KEY", "1"));
    assert!(message.contains("TURN_METRICS__HTTP__NO_SUCH_KEY"), "{message}");
}

#[test]
fn the_output_of_config_is_a_configuration_file() {
    let defaults = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml")).unwrap();
    assert!(run(&["config", "--defaults"]).stdout == defaults);
    let first = run(&["config"]);
    assert!(first.status.success());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, &first.stdout).unwrap();
    let again = turn_metrics().arg("config").arg("--config").arg(&file).output().unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
}

#[test]
fn the_demo_seals_turns_shows_their_metrics_and_cleans_up() {
    let temporary = tempfile::tempdir().unwrap();
    let output = turn_metrics()
        .args(["demo", "--listen", "127.0.0.1:0", "--exit"])
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.starts_with("The dashboard: http://127.0.0.1:"), "{out}");
    assert!(out.contains("curl") && out.contains("turns of the past 30 days"), "{out}");
    assert!(!out.contains('\u{1b}'), "colours in a pipe");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[cfg(all(unix, feature = "prices"))]
#[test]
fn the_demo_has_a_month_of_history_and_works_on_until_control_c() {
    use std::io::{BufRead, BufReader};

    let temporary = tempfile::tempdir().unwrap();
    let mut command = turn_metrics();
    command.args(["demo", "--listen", "127.0.0.1:0", "--conversations", "1", "--turns", "1"]);
    let mut child = command.env("TMPDIR", temporary.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let address = first.strip_prefix("The dashboard: http://").unwrap().strip_suffix('/').unwrap().parse().unwrap();
    lines.find(|line| line.contains("Ctrl-C ends the service")).unwrap();
    let mut client = Client::new(address);

    let mut rows = |query: &str| client.get(&format!("/stats?{query}")).json()["rows"].as_array().unwrap().clone();
    // The first and the last of the 31 days are not whole.
    assert!(rows("bucket=day&tz=UTC").len() >= 29);
    let all = &rows("bucket=all")[0];
    assert!(all["turns"].as_u64().unwrap() > 1500 && all["cost"]["unpricedTokens"] == 0, "{all}");
    assert!(all["cacheRate"].as_f64().unwrap() > 0.5, "{all}");
    for (by, count) in [("model", 6), ("provider", 3), ("project", 4), ("reason", 4)] {
        assert_eq!(rows(&format!("bucket=all&by={by}")).len(), count, "{by}");
    }
    until("a turn is sealed live", || {
        client.get("/conversations?prefix=live-").json()["conversations"].as_array().unwrap().first().cloned()
    });

    let kill = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn ingest_posts_a_file_and_show_prints_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let file = directory.path().join("events.ndjson");
    let mut events = String::new();
    for turn in 0..300 {
        for event in [
            r#"{"type":"usage","stepId":"s","usage":{"inputTokens":1234,"outputTokens":5}}"#,
            r#"{"type":"done","reason":"stop"}"#,
        ] {
            events += &event.replacen('{', &format!("{{\"conversationId\":\"a/b\",\"turnId\":\"t{turn}\","), 1);
            events.push('\n');
        }
    }
    std::fs::write(&file, &events).unwrap();
    let url = server.url();
    for _ in 0..2 {
        let output = turn_metrics().arg("ingest").arg(&file).args(["--server", &url]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let turns = server.client().get("/conversations/a%2Fb/turns?after=299").json();
    assert_eq!(turns["latestOrdinal"], 300, "sent twice, stored once");

    let shown = run(&["show", "a/b", "--all", "--server", &url]);
    let table = text(&shown.stdout);
    assert!(shown.status.success() && table.contains("t299") && table.contains("1234"), "{table}");
    assert!(!table.contains('\u{1b}'), "colours in a pipe");
}

#[test]
fn ingest_reads_standard_input_and_names_the_bad_line() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut command = turn_metrics();
    command.args(["ingest", "-", "--server", &server.url()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let good = "{\"type\":\"done\",\"conversationId\":\"c\",\"turnId\":\"t\",\"reason\":\"stop\"}\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{good}\nnonsense\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains('3'), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(
        out.starts_with("1 events accepted, 0 ignored, 1 turns sealed, "),
        "the summary has the lines before the bad one: {out}"
    );
}

#[test]
fn ingest_reports_a_limit_of_turns_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[("TURNS__MAX_OPEN_TURNS", "1")]);
    let file = directory.path().join("events.ndjson");
    let start = |turn| format!("{{\"type\":\"turn-start\",\"conversationId\":\"c\",\"turnId\":\"{turn}\"}}\n");
    let other = "{\"type\":\"done\",\"conversationId\":\"d\",\"turnId\":\"t\",\"reason\":\"stop\"}\n";
    std::fs::write(&file, start(1) + &start(2) + other).unwrap();
    let output = turn_metrics().arg("ingest").arg(&file).args(["--server", &server.url()]).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("line 1: ") && message.contains("more than 1 open turns"), "{message}");
    let turns = server.client().get("/conversations/d/turns").json();
    assert_eq!(turns["latestOrdinal"], 1, "the other conversation was taken in");
}

#[test]
fn ingest_reports_the_turns_of_a_conversation_over_a_limit_that_stay_open() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[("TURNS__MAX_OPEN_TURNS", "1")]);
    let file = directory.path().join("events.ndjson");
    let event = |kind: &str, conversation: &str, turn: u32, rest: &str| {
        format!("{{\"type\":\"{kind}\",\"conversationId\":\"{conversation}\",\"turnId\":\"{turn}\"{rest}}}\n")
    };
    let lines = [
        event("turn-start", "long", 1, ""),
        event("turn-start", "d", 1, ""),
        event("turn-start", "long", 2, ""),
        event("done", "d", 1, ",\"reason\":\"stop\""),
        event("done", "long", 1, ",\"reason\":\"stop\""),
    ];
    std::fs::write(&file, lines.concat()).unwrap();
    let mut command = turn_metrics();
    command.args(["ingest", "--batch-lines", "2", "--server", &server.url()]).arg(&file);
    let output = command.output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("line 3: ") && message.contains("no further event of conversation `long`"), "{message}");
    assert!(message.contains("line 5, which was not sent, would have ended turn `1`"), "{message}");
    assert!(!message.contains("acknowledged") && message.contains("1 more events"), "{message}");
}

#[test]
fn ingest_skips_bad_lines_and_takes_compressed_files_and_long_results() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let url = server.url();
    let done = |turn: &str| {
        format!("{{\"type\":\"done\",\"conversationId\":\"c\",\"turnId\":\"{turn}\",\"reason\":\"stop\"}}\n")
    };
    let result =
        format!("{{\"type\":\"tool-result\",\"conversationId\":\"c\",\"result\":\"{}\"}}\n", "x".repeat(5_000_000));
    let plain = directory.path().join("plain.ndjson");
    // One file lacks its last line break, and one has a torn line.
    std::fs::write(
        &plain,
        format!(
            "\u{feff}{}{result}{{\"type\":\"text-delta\",\"d\":\"{}{}",
            done("t1"),
            done("t2"),
            done("t3").trim_end()
        ),
    )
    .unwrap();
    let compressed = directory.path().join("compressed");
    let mut encoder =
        flate2::write::GzEncoder::new(std::fs::File::create(&compressed).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, (result.clone() + &done("t4")).as_bytes()).unwrap();
    encoder.finish().unwrap();
    let ingest = |more: &[&str]| {
        turn_metrics().arg("ingest").arg(&plain).arg(&compressed).args(["--server", &url]).args(more).output().unwrap()
    };
    let stopped = ingest(&[]);
    assert_eq!(stopped.status.code(), Some(1));
    let message = text(&stopped.stderr);
    assert!(message.contains("plain.ndjson: line 3 is refused") && message.contains("--from-line 4"), "{message}");
    assert!(message.contains("a crash of its writer") && message.contains("`--skip-bad`"), "{message}");
    assert!(!message.contains("?bad=skip"), "{message}");
    assert_eq!(
        server.client().get("/conversations/c/turns").json()["latestOrdinal"],
        1,
        "the lines before the bad one were taken in"
    );
    let skipped = ingest(&["--skip-bad"]);
    let message = text(&skipped.stderr);
    assert_eq!(skipped.status.code(), Some(3), "{message}");
    assert!(message.contains("plain.ndjson: line 3 is refused"), "{message}");
    assert_eq!(server.client().get("/conversations/c/turns").json()["latestOrdinal"], 3);
    let resumed = ingest(&["--from-line", "4"]);
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed.stderr));
}

#[test]
fn ingest_reports_each_turn_that_lacks_a_refused_line_whatever_the_batches() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let event = |kind: &str, turn: &str, rest: &str| {
        format!("{{\"type\":\"{kind}\",\"conversationId\":\"c\",\"turnId\":\"{turn}\",{rest}\n")
    };
    let torn = format!("\"x\":\"{}", "x".repeat(200_000));
    let file = directory.path().join("events.ndjson");
    let lines = [
        event("usage", "t1", "\"usage\":7}"),
        event("turn-start", "t2", "\"model\":\"m\"}"),
        event("done", "t1", "\"reason\":\"stop\"}"),
        event("done", "t2", "\"reason\":7}"),
        event("done", "t3", &torn),
        event("usage", "t4", &torn),
        event("done", "t4", "\"reason\":\"stop\"}"),
        event("done", "t5", "\"reason\":\"stop\"}"),
    ];
    std::fs::write(&file, lines.concat()).unwrap();
    let mut command = turn_metrics();
    command.args(["ingest", "--skip-bad", "--batch-lines", "2", "--server", &server.url()]).arg(&file);
    let output = command.output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    for (line, turn) in [(1, "t1"), (6, "t4")] {
        let warning = format!("turn `{turn}` was sealed without line {line}, which was refused\n");
        assert_eq!(message.matches(&warning).count(), 1, "{warning}{message}");
    }
    for (line, turn) in [(4, "t2"), (5, "t3")] {
        let warning = format!("line {line}, which was refused, would have ended turn `{turn}`; if no other");
        assert_eq!(message.matches(&warning).count(), 1, "{warning}\n{message}");
    }
    assert!(!message.contains("t5"), "{message}");
}

#[test]
fn ingest_recognizes_a_foreign_file() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let file = directory.path().join("transcript.jsonl");
    let run_on = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let output = turn_metrics().arg("ingest").arg(&file).args(["--server", &server.url()]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let message = run_on(b"{\"type\":\"assistant\",\"message\":{}}\n");
    assert!(message.contains("none of its events counts") && message.contains("`assistant`"), "{message}");
    let message = run_on(b"{\"role\":\"user\",\"content\":\"hi\"}\n");
    assert!(message.contains("`type` is missing; the object has `role`, `content`"), "{message}");
    assert!(message.contains("none of its events counts: the first line is not an event"), "{message}");
    let message = run_on(b"{\n  \"type\": \"done\"\n}\n");
    assert!(message.contains("each event must be on one line") && message.contains("`jq -c .`"), "{message}");
    let message = run_on(b"{\"type\":\"done\",\"conversationId\":\"c\",\"turnId\":\"t\",\"reason\":7}\n");
    assert!(message.contains("line 1, which was refused, would have ended turn `t`; if no other"), "{message}");
    let utf_16: Vec<u8> = "{\"type\":\"done\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(run_on(&utf_16).contains("UTF-16"));
    let array = run_on(b"[\n{\"type\":\"done\"},\n{\"type\":\"done\"}\n]\n");
    assert!(array.contains("the text is a JSON array") && array.contains("`jq -c '.[]'`"), "{array}");
    assert!(!array.contains("--skip-bad"), "{array}");
    let utf_32: Vec<u8> = "{\"type\":\"done\"}".chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
    assert!(run_on(&utf_32).contains("UTF-32"));
}

#[test]
fn the_error_says_that_no_server_can_be_reached() {
    // The port is bound, so that no other process gets it, but nothing listens, so that connections are refused.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let message = refused(turn_metrics().args(["show", "c", "--server", &format!("http://{address}")]));
    assert!(message.contains(&address.to_string()), "{message}");
}

#[test]
fn every_command_has_help_and_a_wrong_flag_is_wrong_usage() {
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["demo", "--help"],
        &["ingest", "--help"],
        &["show", "--help"],
        &["list", "--help"],
        &["report", "--help"],
        #[cfg(feature = "tui")]
        &["top", "--help"],
        &["prices", "--help"],
        &["prices", "check", "--help"],
        &["config", "--help"],
        &["check", "--help"],
        &["backup", "--help"],
        &["compact", "--help"],
    ] {
        let output = run(args);
        assert!(output.status.success() && output.stdout.len() > 200, "{args:?}");
    }
    assert!(text(&run(&["--help"]).stdout).contains("`ingest` also exits with 3"));
    for (command, listens) in [("serve", true), ("compact", false), ("check", false)] {
        let help = text(&run(&[command, "--help"]).stdout);
        assert!(help.contains("--data-dir") && help.contains("--listen") == listens, "{help}");
    }
    assert_eq!(run(&["serve", "--nonsense"]).status.code(), Some(2));
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
}
