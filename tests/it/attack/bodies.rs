use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use super::memory::{MOST_MIB, Memory};
use super::{assert_served, done};
use crate::server::{Client, PATIENCE, Server, until};

/// The budget for bodies: 4 MiB, of which an eighth is reserved for small bodies.
const BUDGET: &str = "4_194_304";

/// Starts a server with this budget. `stall_timeout` is the time after which a stalled body is ended.
fn server_with_budget(stall_timeout: &str) -> (tempfile::TempDir, Server) {
    server(&[
        ("HTTP__MAX_BUFFERED_BYTES", BUDGET),
        ("HTTP__MAX_BODY_BYTES", BUDGET),
        ("HTTP__MAX_LINE_BYTES", BUDGET),
        ("HTTP__STALL_TIMEOUT", stall_timeout),
        ("HTTP__BODY_TIMEOUT", "1h"),
    ])
}

fn server(settings: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), settings);
    (directory, server)
}

/// Returns a line of 700 KB that counts. The server holds it until it ends.
fn large_body() -> String {
    format!(r#"{{"model":"{}","type":"turn-start","conversationId":"large","turnId":"t"}}"#, "x".repeat(700_000))
}

/// Begins an upload without its last byte.
fn stalled(server: &Server) -> Client {
    let body = large_body();
    let mut client = server.client();
    let stream = client.begin_post(body.len());
    // The server may refuse the body while it arrives.
    let _ = stream.write_all(&body.as_bytes()[..body.len() - 1]);
    client
}

#[test]
fn uploads_that_stall_hold_up_no_small_body_and_are_ended() {
    let (_directory, server) = server_with_budget("1h");
    let is_refused = || server.client().post_events(&large_body()).status == 503;
    let mut uploads: Vec<_> = (0..6).map(|_| stalled(&server)).collect();
    until("the budget is exhausted", || {
        let is_exhausted = is_refused();
        // The server may have refused some of the uploads, because they arrived at the same time.
        if !is_exhausted {
            uploads.push(stalled(&server));
        }
        is_exhausted.then_some(())
    });
    for turn in 0..20 {
        assert_served(&mut server.client(), &turn.to_string());
    }
    // Control: the stalled uploads hold the rest of the budget.
    until("the rest of the budget is held", || is_refused().then_some(()));
    drop((uploads, server));

    let (_directory, server) = server_with_budget("2s");
    let uploads: Vec<_> = (0..6).map(|_| stalled(&server)).collect();
    until("there is room again", || (server.client().post_events(&large_body()).status == 200).then_some(()));
    drop(uploads);
}

/// Sends a body byte by byte. Returns the status of the answer.
fn drip(server: &Server, body: &[u8]) -> u16 {
    let mut client = server.client();
    let stream: &mut TcpStream = client.begin_post(body.len());
    // The timeout of the read is the pause between two bytes.
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let started = Instant::now();
    let mut answer = [0; 12];
    for byte in body.iter().map(Some).chain(std::iter::repeat(None)) {
        assert!(started.elapsed() < PATIENCE, "the connection is held for ever");
        if let Some(byte) = byte {
            // If the server has closed the connection, the read below notices it.
            let _ = stream.write_all(&[*byte]);
        }
        match stream.read(&mut answer) {
            Ok(12) => break,
            Ok(_) => panic!("no answer"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
    }
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

#[test]
fn a_body_that_drips_is_ended() {
    let body = done("c", "t").repeat(3);
    let stall = ("HTTP__STALL_TIMEOUT", "100ms");
    let (_directory, server) = server(&[stall, ("HTTP__MIN_BYTES_PER_SECOND", "100_000")]);
    assert_eq!(drip(&server, body.as_bytes()), 408);
    // Control: with a lower minimum rate, the same body is accepted.
    let (_directory, server) = self::server(&[("HTTP__MIN_BYTES_PER_SECOND", "1")]);
    assert_eq!(drip(&server, body.as_bytes()), 200);
}

/// Returns turns that have only a `done`. These are the shortest turns.
fn bare_turns(count: usize) -> String {
    (0..count).map(|turn| done("c", &turn.to_string())).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn the_memory_for_a_body_of_very_short_turns_is_bounded() {
    const TURNS: usize = 50_000;
    let body = bare_turns(TURNS);
    let limit = ("HTTP__MAX_BUFFERED_BYTES", "41_943_040");
    let (_directory, server) = server(&[limit]);
    let memory = Memory::of_idle(&server);
    let answer = server.client().post_events(&body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["sealed"].as_array().unwrap().len(), TURNS);
    println!("a body of {TURNS} bare turns: at most {} MiB above idle", memory.peak_mib());
    assert!(memory.peak_mib() < MOST_MIB);

    // Control: if the events fit into the budget and the receipts do not, nothing is taken in.
    let (_directory, server) = self::server(&[("HTTP__MAX_BUFFERED_BYTES", "25_165_824")]);
    let refused = server.client().post_events(&body);
    assert_eq!(refused.status, 413, "{:?}", refused.body);
    assert!(refused.error().contains("send it in parts"), "{}", refused.error());
    assert_eq!(server.client().get("/conversations/c/turns").json()["latestOrdinal"], 0);
}

/// Begins this many uploads to a path, each with the beginning of a line. Returns the memory when all have sent it.
#[cfg(target_os = "linux")]
fn begin_uploads(path: &str, gzip: bool, count: usize) -> u64 {
    let (_directory, server) = server(&[("HTTP__STALL_TIMEOUT", "1h")]);
    let memory = Memory::of_idle(&server);
    let mut line = format!(r#"{{"conversationId":"c","x":"{}"#, "x".repeat(100_000)).into_bytes();
    if gzip {
        // Without compression, the text of an unfinished member is inflated as it arrives.
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(&line).unwrap();
        encoder.flush().unwrap();
        line = encoder.get_ref().clone();
    }
    let encoding = if gzip { "content-encoding: gzip\r\n" } else { "" };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n{encoding}\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n",
        line.len()
    );
    let upload = [head.as_bytes(), &line].concat();
    let uploads: Vec<_> = (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            // The server may refuse the upload while it arrives.
            let _ = stream.write_all(&upload);
            stream
        })
        .collect();
    for turn in 0..10 {
        assert_served(&mut server.client(), &turn.to_string());
    }
    drop(uploads);
    println!("{count} unfinished uploads to {path} (gzip: {gzip}): at most {} MiB above idle", memory.peak_mib());
    memory.peak_mib()
}

#[test]
#[cfg(target_os = "linux")]
fn unfinished_uploads_hold_little_beside_their_budget() {
    for gzip in [false, true] {
        let mib = begin_uploads("/import", gzip, 900);
        assert!(mib < 100, "{mib} MiB");
        let mib = begin_uploads("/events", gzip, 900);
        assert!(mib < 230, "{mib} MiB");
    }
}

/// Posts five bodies of 16 MiB at the same time, with events that end no turn. Returns how many of the bodies were
/// taken in, and the memory.
#[cfg(target_os = "linux")]
fn post_events_without_end(settings: &[(&str, &str)]) -> (usize, u64) {
    let line = "{\"type\":\"error\",\"conversationId\":\"a\",\"turnId\":\"t\"}\n";
    let body = line.repeat(16 * 1024 * 1024 / line.len() - 1);
    let patient = [("HTTP__BODY_TIMEOUT", "1h"), ("HTTP__STALL_TIMEOUT", "1h")];
    let (_directory, server) = server(&[&patient, settings].concat());
    let (memory, address) = (Memory::of_idle(&server), server.address);
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..5).map(|_| scope.spawn(|| Client::new(address).post_events(&body).status)).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    println!("five bodies of events without end: {statuses:?}, at most {} MiB above idle", memory.peak_mib());
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    (statuses.iter().filter(|status| **status == 200).count(), memory.peak_mib())
}

#[test]
#[cfg(target_os = "linux")]
fn the_memory_for_very_many_events_that_end_no_turn_is_bounded() {
    let (taken, mib) = post_events_without_end(&[]);
    assert!(taken > 0 && mib < 250, "{taken} bodies taken, {mib} MiB");
    // Control: with a larger budget, all of the bodies are in memory at the same time.
    let (taken, mib) = post_events_without_end(&[("HTTP__MAX_BUFFERED_BYTES", "1_073_741_824")]);
    assert!(taken == 5 && mib > MOST_MIB, "{taken} bodies taken, {mib} MiB");
}
