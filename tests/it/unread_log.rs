//! The log cannot be written: nobody reads the pipe, the terminal is stopped, the disk is full, or the reader has died.
//! Even then the service must serve, and end when told to.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, pipe};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::server::{Client, PATIENCE, Server, lines_of, serve, turn_metrics, until};
use crate::terminal::Terminal;

/// The number of turns in one request.
const TURNS_AT_ONCE: usize = 500;

/// Seals turns and waits until they are acknowledged. Each turn adds a line to the log.
fn seal(client: &mut Client, turns: std::ops::Range<usize>) {
    let turns: Vec<_> = turns.collect();
    for turns in turns.chunks(TURNS_AT_ONCE) {
        let mut body = String::new();
        for turn in turns {
            writeln!(body, r#"{{"type":"done","conversationId":"c","turnId":"t{turn}","reason":"stop"}}"#).unwrap();
        }
        let answer = client.post_events(&body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["sealed"].as_array().unwrap().len(), turns.len());
    }
}

/// More turns than a pipe and the queue of the log can hold.
const MANY_TURNS: usize = 6_000;

/// A server that logs only one line for each sealed turn.
fn server_logging_turns(data_dir: &std::path::Path, stderr: impl Into<Stdio>) -> Server {
    let mut command = serve(data_dir);
    command.env("RUST_LOG", "turn_metrics::actors::conversation=debug").stderr(stderr);
    Server::launch(&mut command)
}

fn assert_serves_and_ends(server: Server, client: &mut Client) {
    assert_eq!(client.get("/ready").status, 200);
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_pipe_that_nobody_reads_delays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_unread, stderr) = pipe().unwrap();
    let server = server_logging_turns(directory.path(), stderr);
    let mut client = server.client();
    seal(&mut client, 0..MANY_TURNS);
    assert_serves_and_ends(server, &mut client);
    let server = Server::start(directory.path());
    let page = server.client().get(&format!("/conversations/c/turns?limit=1&after={}", MANY_TURNS - 1)).json();
    assert_eq!(page["latestOrdinal"], MANY_TURNS);
}

#[test]
fn once_the_log_is_read_again_notices_stand_where_lines_were_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (log, stderr) = pipe().unwrap();
    let server = server_logging_turns(directory.path(), stderr);
    seal(&mut server.client(), 0..MANY_TURNS);
    let log = lines_of(log);
    let mut ordinal = 0;
    let mut dropped = 0;
    // Nothing else is logged meanwhile. So the notice must appear without a later line.
    while ordinal < MANY_TURNS {
        let line: Value = serde_json::from_str(&log.recv_timeout(PATIENCE).unwrap()).unwrap();
        if let Some(lines) = line["lines"].as_u64() {
            assert_eq!(line["message"], format!("{lines} log lines were dropped"));
            assert_eq!(line["level"], "WARN");
            dropped += lines;
            ordinal += usize::try_from(lines).unwrap();
        } else {
            ordinal += 1;
            assert_eq!(line["ordinal"], ordinal, "the notices are not where lines are missing");
        }
    }
    assert!(dropped > 0, "the log had room for all");
    seal(&mut server.client(), MANY_TURNS..MANY_TURNS + 1);
    let line: Value = serde_json::from_str(&log.recv_timeout(PATIENCE).unwrap()).unwrap();
    assert_eq!(line["ordinal"], MANY_TURNS + 1);
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_stopped_terminal_delays_nothing_and_shows_the_log_when_it_resumes() {
    let directory = tempfile::tempdir().unwrap();
    let terminal = Terminal::open();
    terminal.stop();
    let server = server_logging_turns(directory.path(), terminal.stdio());
    let mut client = server.client();
    seal(&mut client, 0..1_000);
    assert_eq!(client.get("/ready").status, 200);
    terminal.go_on();
    let screen = lines_of(terminal.screen());
    until("the latest turn is shown", || screen.recv_timeout(PATIENCE).unwrap().contains("ordinal=1000").then_some(()));
    terminal.stop();
    seal(&mut client, 1_000..2_000);
    assert_serves_and_ends(server, &mut client);
}

#[test]
fn an_address_that_nobody_reads_delays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let terminal = Terminal::open();
    terminal.stop();
    for mut command in [serve(directory.path()), demo()] {
        // The address is in the log too.
        command.env("RUST_LOG", "turn_metrics::cli=info").env("TURN_METRICS__LOG__FORMAT", "json");
        let mut child = command.stdout(terminal.stdio()).stderr(Stdio::piped()).spawn().unwrap();
        let log = lines_of(child.stderr.take().unwrap());
        let line: Value = serde_json::from_str(&log.recv_timeout(PATIENCE).unwrap()).unwrap();
        let address: SocketAddr = line["url"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
        assert_eq!(Client::new(address).get("/ready").status, 200);
        let kill = format!("kill -TERM {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let status = until("it ends", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{command:?}");
    }
}

fn demo() -> Command {
    let mut command = turn_metrics();
    command.args(["demo", "--listen", "127.0.0.1:0"]);
    command
}

#[test]
fn a_server_that_cannot_start_ends_even_if_nobody_reads_the_error() {
    let terminal = Terminal::open();
    terminal.stop();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    for args in
        [&["serve", "--listen", &address][..], &["serve", "--config", "/nonexistent"], &["demo", "--listen", &address]]
    {
        let mut command = turn_metrics();
        command.args(args).current_dir(directory.path()).stderr(terminal.stdio());
        let mut child = command.spawn().unwrap();
        let status = until("it ends", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(1), "{args:?}");
    }
}

#[test]
fn a_full_disk_under_the_log_delays_nothing() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        println!("skipped: there is no /dev/full here");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let server = Server::launch(serve(directory.path()).stderr(full));
    let mut client = server.client();
    seal(&mut client, 0..1_000);
    assert_serves_and_ends(server, &mut client);
}

#[test]
fn a_reader_of_the_log_that_dies_harms_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (log, stderr) = pipe().unwrap();
    let mut command = serve(directory.path());
    command.env("RUST_LOG", "info,turn_metrics::actors::conversation=debug").stderr(stderr);
    let server = Server::launch(&mut command);
    let mut client = server.client();
    let mut log = BufReader::new(log);
    assert_ne!(log.read_line(&mut String::new()).unwrap(), 0);
    // The reader dies while the log is written.
    let sealing = thread::spawn(move || {
        seal(&mut client, 0..MANY_TURNS);
        client
    });
    assert_ne!(log.read_line(&mut String::new()).unwrap(), 0);
    drop(log);
    assert_serves_and_ends(server, &mut sealing.join().unwrap());
}
