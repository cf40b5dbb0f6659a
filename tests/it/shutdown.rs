//! How a server ends after a signal.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use crate::server::{Client, PATIENCE, Server, until};

fn done(turn: usize) -> String {
    format!("{{\"type\":\"done\",\"conversationId\":\"c\",\"turnId\":\"t{turn}\",\"reason\":\"stop\"}}\n")
}

#[test]
fn both_signals_end_it_in_order_with_exit_code_0_and_nothing_acknowledged_is_lost() {
    for signal in ["TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(directory.path());
        let address = server.address;
        let stop = AtomicBool::new(false);
        let (acknowledge, acknowledged) = channel();
        let count = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut client = Client::new(address);
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    match client.try_post_events(&done(count)) {
                        Ok(answer) if answer.status == 200 => count += 1,
                        // The request was refused or cut off, so it was not acknowledged.
                        _ => break,
                    }
                    let _ = acknowledge.send(());
                }
                count
            });
            for _ in 0..20 {
                acknowledged.recv_timeout(PATIENCE).unwrap();
            }
            server.signal(signal);
            let (status, log) = server.wait();
            stop.store(true, Ordering::SeqCst);
            assert_eq!(status.code(), Some(0), "{signal}: {log:#?}");
            client.join().unwrap()
        });
        assert!(count >= 20);
        let server = Server::start(directory.path());
        let turns = server.client().get("/conversations/c/turns?limit=1&after=0").json();
        assert_eq!(turns["latestOrdinal"], 1);
        let stored = server.client().get(&format!("/conversations/c/turns?limit=1000&after={}", count - 1)).json();
        assert!(!stored["turns"].as_array().unwrap().is_empty(), "{signal}: the last acknowledged turn is lost");
    }
}

#[test]
fn a_client_in_the_middle_of_an_upload_cannot_delay_the_end() {
    let directory = tempfile::tempdir().unwrap();
    // Only the time limit of the shutdown ends the upload.
    let settings = [("HTTP__SHUTDOWN_TIMEOUT", "100ms"), ("HTTP__BODY_TIMEOUT", "1h"), ("HTTP__STALL_TIMEOUT", "1h")];
    let server = Server::start_with(directory.path(), &settings);
    let mut stuck = server.client();
    stuck.begin_post(99).write_all(b"{").unwrap();
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[("HTTP__SHUTDOWN_TIMEOUT", "1h")]);
    let mut stuck = server.client();
    stuck.begin_post(99).write_all(b"{").unwrap();
    server.signal("TERM");
    // The server has received the first signal when it accepts no more connections.
    until("it stops accepting", || server.client().send("GET", "/health", &[], b"").err());
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(143), "{log:#?}");
}
