//! More load than the service accepts. It accepts a limited part, refuses the rest early, and recovers at once.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::server::{Client, PATIENCE, Server};

const CLIENTS: usize = 16;
const TURNS: usize = 3;

/// The number of conversations in each request. Two clients at the same time exceed the limit.
const CONVERSATIONS: usize = 100;

fn done(conversation: &str, turn: &str) -> String {
    format!("{{\"type\":\"done\",\"conversationId\":\"{conversation}\",\"turnId\":\"{turn}\",\"reason\":\"stop\"}}\n")
}

#[test]
fn an_excess_body_is_refused_before_it_is_parsed_and_accepted_once_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let limits = ["HTTP__MAX_BUFFERED_BYTES", "HTTP__MAX_BODY_BYTES", "HTTP__MAX_LINE_BYTES"];
    let server = Server::start_with(directory.path(), &limits.map(|limit| (limit, "10000")));
    let mut client = server.client();
    assert_eq!(client.post_events("no event").status, 400);
    // One slow upload uses nearly the whole budget, because a line is held until its type is known.
    let mut holding = server.client();
    let (begin, end) = (format!(r#"{{"delta":"{}"#, "x".repeat(8_000)), r#"","type":"text-delta"}"#);
    holding.begin_post(begin.len() + end.len()).write_all(begin.as_bytes()).unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    let refused = loop {
        // If the body were parsed, the answer would be 400.
        let answer = server.client().post_events("no event");
        if answer.status != 400 {
            break answer;
        }
        assert!(std::time::Instant::now() < until, "everything fits");
    };
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("connection"), Some("close"), "its body was not read");
    assert!(refused.error().contains("nothing was taken in"), "{refused:?}");
    assert_eq!(client.get("/conversations/c/metrics").status, 200, "reading goes on");
    for _ in 0..50 {
        assert_eq!(server.client().post_events(&done("c", "t")).status, 503);
    }

    // The upload ends. After it is answered, there is room again.
    let answer = holding.send_raw(end.as_bytes(), false).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let until = std::time::Instant::now() + PATIENCE;
    while server.client().post_events(&done("c", "t")).status != 200 {
        assert!(std::time::Instant::now() < until, "it does not recover");
    }
    let turns = client.get("/conversations/c/turns").json();
    assert_eq!(turns["latestOrdinal"], 1, "refused events left nothing behind");
}

#[test]
fn under_more_load_than_it_takes_the_excess_is_refused_and_everything_acknowledged_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let limits = [("TURNS__MAX_IN_FLIGHT", "128"), ("STORE__QUEUE_COMMITS", "128"), ("STORE__BATCH_COMMITS", "32")];
    let server = Server::start_with(directory.path(), &limits);
    let address = server.address;
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client_number in 0..CLIENTS {
            let refused = &refused;
            scope.spawn(move || {
                let mut client = Client::new(address);
                for turn in 0..TURNS {
                    let body: String = (0..CONVERSATIONS)
                        .map(|n| done(&format!("c{client_number}-{n}"), &format!("t{turn}")))
                        .collect();
                    // Only this client sends turns of its conversations. So it knows the ordinal of each turn, even of
                    // turns that a refused request had sealed before the refusal.
                    let sealed = loop {
                        let answer = client.post_events(&body);
                        if answer.status == 200 {
                            break answer.json()["sealed"].as_array().unwrap().clone();
                        }
                        assert_eq!(answer.status, 503, "{answer:?}");
                        assert_eq!(answer.header("retry-after"), Some("1"));
                        refused.fetch_add(1, Ordering::SeqCst);
                    };
                    assert_eq!(sealed.len(), CONVERSATIONS);
                    assert!(sealed.iter().all(|sealed| sealed["ordinal"] == turn + 1), "{sealed:?}");
                }
            });
        }
    });
    assert!(refused.into_inner() > 0, "there was no overload");
    let mut client = server.client();
    for client_number in 0..CLIENTS {
        for n in 0..CONVERSATIONS {
            let turns = client.get(&format!("/conversations/c{client_number}-{n}/turns?limit=1000")).json();
            assert_eq!(turns["latestOrdinal"], TURNS);
            assert_eq!(turns["turns"].as_array().unwrap().len(), TURNS);
        }
    }
    // When the load is gone, requests are accepted again.
    assert_eq!(client.post_events(&done("after", "t")).status, 200);
}
