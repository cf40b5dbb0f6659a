use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use super::memory::{MOST_MIB, Memory};
use super::{assert_served, longest_turn};
use crate::server::{PATIENCE, Server, until};

/// Returns a stopped store with a conversation of the longest turns.
fn store() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let turns: String = ["t1", "t2", "t3"].map(|turn| longest_turn("long", turn)).concat();
    let answer = server.client().post_events(&turns);
    assert_eq!(answer.status, 200, "{answer:?}");
    server.signal("TERM");
    assert!(server.wait().0.success());
    directory
}

const PATHS: [&str; 4] =
    ["/conversations/long/turns?limit=1000", "/conversations/long/metrics", "/turns?limit=1000", "/export"];

/// Clients that request a long answer, read its status, and read no further.
struct Unread {
    server: Server,
    memory: Memory,
    clients: Vec<TcpStream>,
    /// The number of requests that got 503.
    refused: usize,
}

fn ask_and_do_not_read(store: &Path, settings: &[(&str, &str)], clients: usize) -> Unread {
    let server = Server::start_with(store, settings);
    let memory = Memory::of_idle(&server);
    let (mut streams, mut refused) = (Vec::new(), 0);
    for nth in 0..clients {
        let path = PATHS[nth % PATHS.len()];
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        match &status {
            b"HTTP/1.1 200" => {}
            b"HTTP/1.1 503" => refused += 1,
            other => panic!("{:?}", String::from_utf8_lossy(other)),
        }
        streams.push(stream);
    }
    Unread { server, memory, clients: streams, refused }
}

#[test]
fn long_answers_that_nobody_reads_stay_within_their_budget() {
    const CLIENTS: usize = 60;
    let store = store();
    let attack = ask_and_do_not_read(store.path(), &[], CLIENTS);
    let mut client = attack.server.client();
    assert_served(&mut client, "during");
    let peak = attack.memory.peak_mib();
    println!("{CLIENTS} unread answers: at most {peak} MiB above idle, {} refused", attack.refused);
    assert!(peak < MOST_MIB, "{peak} MiB");
    assert!(attack.refused > 0, "all of them fit the budget: too few clients");
    // When the connections end, the held memory is freed.
    drop(attack.clients);
    until("a long answer is given again", || {
        (client.get("/conversations/long/turns?limit=1").status == 200).then_some(())
    });
    drop(attack.server);

    // Control: without the budget, each connection holds a turn.
    let settings = [("HTTP__MAX_READ_BYTES", "1_099_511_627_776")];
    let attack = ask_and_do_not_read(store.path(), &settings, CLIENTS);
    assert_eq!(attack.refused, 0);
    let held = attack.memory.now_mib();
    println!("control: {held} MiB above idle");
    assert!(held > peak + 30, "the attack takes no more without the budget: {held} MiB");
}

#[test]
fn pipelined_requests_are_not_read_ahead_of_answers_that_nobody_reads() {
    const CLIENTS: usize = 400;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let get = |connection: &str| {
        let padding = "x".repeat(6000);
        format!("GET /ui/style.css HTTP/1.1\r\nhost: localhost\r\nx: {padding}\r\nconnection: {connection}\r\n\r\n")
    };
    let requests = get("keep-alive").repeat(20);
    let memory = Memory::of_idle(&server);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    for _ in 0..10 {
        for client in &mut clients {
            client.set_nonblocking(true).unwrap();
            // A part of a request can be sent, and another one after it. The server refuses that, but not before it has
            // answered what came before.
            let _ = client.write(requests.as_bytes());
        }
        assert_served(&mut server.client(), "during");
    }
    let peak = memory.peak_mib();
    println!("{CLIENTS} clients that pipeline and do not read: at most {peak} MiB above idle");
    assert!(peak < 100, "{peak} MiB");

    // Control: a client that reads gets all answers.
    let mut client = TcpStream::connect(server.address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sender = client.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all((requests + &get("close")).as_bytes()).unwrap());
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();
    sending.join().unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 21);
}

#[test]
fn a_page_ends_at_its_limit_in_bytes_and_the_next_goes_on_after_it() {
    let store = store();
    // One longest turn exceeds the limit.
    let server = Server::start_with(store.path(), &[("HTTP__MAX_PAGE_BYTES", "100_000")]);
    let mut client = server.client();
    let page = |client: &mut crate::server::Client, after: u64| {
        let page = client.get(&format!("/conversations/long/turns?limit=1000&after={after}")).json();
        (page["turns"].as_array().unwrap().len(), page["latestOrdinal"].as_u64().unwrap())
    };
    let pages: Vec<_> = [0, 1, 2, 3].map(|after| page(&mut client, after)).into();
    assert_eq!(pages, [(1, 1), (1, 2), (1, 3), (0, 3)]);
    drop(server);

    // Control: with a larger limit, all turns are on one page.
    let server = Server::start_with(store.path(), &[("HTTP__MAX_PAGE_BYTES", "100_000_000")]);
    assert_eq!(page(&mut server.client(), 0), (3, 3));
}
