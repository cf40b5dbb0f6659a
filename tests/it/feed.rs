//! `GET /feed` of the real program: streams that are resumed across a crash, slow readers, many readers, and the end of
//! the server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::server::{Client, PATIENCE, Server, turn_metrics, until};

/// A reader of a stream. It follows the rules that browsers follow, and knows nothing about positions.
struct EventSource {
    stream: BufReader<TcpStream>,
    /// The bytes of the current chunk that were not read yet.
    chunk: usize,
    /// The last id of the blocks that came whole.
    last_id: String,
}

#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl EventSource {
    /// Sends a request, and returns the status and the stream.
    fn try_open(address: SocketAddr, query: &str, last_id: &str) -> std::io::Result<(u16, Self)> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let last = if last_id.is_empty() { String::new() } else { format!("last-event-id: {last_id}\r\n") };
        write!(stream, "GET /feed?{query} HTTP/1.1\r\nhost: localhost\r\n{last}\r\n")?;
        let mut stream = BufReader::new(stream);
        let mut status = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                line if line.starts_with("HTTP/1.1 ") => status = line[9..12].parse().unwrap(),
                _ => {}
            }
        }
        Ok((status, Self { stream, chunk: 0, last_id: last_id.to_owned() }))
    }

    fn open(server: &Server, query: &str, last_id: &str) -> Self {
        let (status, source) = Self::try_open(server.address, query, last_id).unwrap();
        assert_eq!(status, 200);
        source
    }

    /// Opens a stream that has begun when this returns.
    fn begin(server: &Server, query: &str) -> Self {
        let mut source = Self::open(server, query, "");
        source.block().unwrap().expect("the stream has ended");
        assert!(!source.last_id.is_empty());
        source
    }

    fn byte(&mut self) -> std::io::Result<Option<u8>> {
        if self.chunk == 0 {
            let mut size = String::new();
            if self.stream.read_line(&mut size)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.chunk = usize::from_str_radix(size.trim_end(), 16).map_err(|_| ErrorKind::InvalidData)?;
            if self.chunk == 0 {
                return Ok(None);
            }
        }
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        self.chunk -= 1;
        if self.chunk == 0 {
            self.stream.read_exact(&mut [0; 2])?;
        }
        Ok(Some(byte[0]))
    }

    /// Returns the next line. `None` at the end of the stream.
    fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                Some(b'\n') => return Ok(Some(String::from_utf8(line).unwrap())),
                Some(byte) => line.push(byte),
                None => return Ok(None),
            }
        }
    }

    /// Returns the name and the data of the next block, up to its empty line. A block without data is no event. The id
    /// of a block that breaks off does not count.
    fn block(&mut self) -> std::io::Result<Option<(String, String)>> {
        let (mut name, mut data, mut id) = (String::new(), String::new(), None);
        while let Some(line) = self.line()? {
            match line.split_once(": ") {
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("event", event)) => event.clone_into(&mut name),
                Some(("data", text)) => data += text,
                Some(("" | "retry", _)) => {}
                None if line.is_empty() => {
                    self.last_id = id.unwrap_or_else(|| self.last_id.clone());
                    return Ok(Some((name, data)));
                }
                _ => panic!("no line of an event: {line:?}"),
            }
        }
        Ok(None)
    }

    fn event(&mut self) -> std::io::Result<Option<Event>> {
        while let Some((name, data)) = self.block()? {
            if !data.is_empty() {
                let data = serde_json::from_str(&data).unwrap();
                return Ok(Some(Event { name, id: self.last_id.clone(), data }));
            }
        }
        Ok(None)
    }

    /// Returns the id of the next sealed turn and its turn id.
    fn sealed(&mut self) -> (String, String) {
        let event = self.event().unwrap().expect("the stream has ended");
        assert_eq!(event.name, "turn-sealed", "{event:?}");
        assert_eq!(event.data["position"], *event.id, "{event:?}");
        (event.id, event.data["metrics"]["turnId"].as_str().unwrap().to_owned())
    }
}

fn done(conversation: &str, turn: u64) -> String {
    format!("{{\"type\":\"done\",\"conversationId\":\"{conversation}\",\"turnId\":\"t{turn}\",\"reason\":\"stop\"}}\n")
}

/// Returns the number of a position, which is the last part of its text.
fn number(position: &str) -> u64 {
    u64::from_str_radix(position.split_once('-').unwrap().1, 16).unwrap()
}

#[test]
fn a_reader_that_connects_again_after_a_crash_has_every_acknowledged_turn_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (mut last_id, mut seen) = (String::new(), Vec::new());
    let mut acknowledged = Vec::new();
    for life in 0..4 {
        let server = Server::start(directory.path());
        // The first stream begins before the first turn.
        let begin = || EventSource::begin(&server, "");
        let mut source = if life == 0 { begin() } else { EventSource::open(&server, "", &last_id) };
        let address = server.address;
        let posting = std::thread::spawn(move || {
            let mut client = Client::new(address);
            let mut turns = Vec::new();
            for turn in life * 1000.. {
                match client.try_post_events(&done(&format!("c{}", turn % 7), turn)) {
                    Ok(answer) if answer.status == 200 => turns.push(format!("t{turn}")),
                    _ => break,
                }
            }
            turns
        });
        for _ in 0..60 {
            let (id, turn) = source.sealed();
            seen.push((number(&id), turn));
        }
        server.kill();
        acknowledged.extend(posting.join().unwrap());
        // The reader takes what was still on its way, up to where the connection broke.
        while let Ok(Some(event)) = source.event() {
            seen.push((number(&event.id), event.data["metrics"]["turnId"].as_str().unwrap().to_owned()));
        }
        last_id = source.last_id;
    }
    let server = Server::start(directory.path());
    let mut source = EventSource::open(&server, "", &last_id);
    assert_eq!(server.client().post_events(&done("c", 999_999)).status, 200);
    while seen.last().is_none_or(|(_, turn)| turn != "t999999") {
        let (id, turn) = source.sealed();
        seen.push((number(&id), turn));
    }
    assert!(seen.iter().map(|(number, _)| *number).eq(1..=seen.len() as u64), "{seen:?}");
    for turn in acknowledged {
        assert_eq!(seen.iter().filter(|(_, seen)| *seen == turn).count(), 1, "{turn}");
    }
}

#[test]
fn a_reader_of_a_restored_backup_is_told_that_its_position_is_of_another_history() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(from.path());
    let mut source = EventSource::begin(&server, "");
    assert_eq!(server.client().post_events(&done("c", 1)).status, 200);
    source.sealed();
    let copy = to.path().join("turn-metrics.redb");
    let output = turn_metrics().args(["backup", "--server", &server.url()]).arg(&copy).output().unwrap();
    assert!(output.status.success());
    // The restored store lacks this turn.
    assert_eq!(server.client().post_events(&done("c", 2)).status, 200);
    let (id, _) = source.sealed();
    server.kill();

    let server = Server::start(to.path());
    let mut source = EventSource::open(&server, "", &id);
    let reset = source.event().unwrap().unwrap();
    assert_eq!(reset.name, "reset", "{reset:?}");
    assert_ne!(reset.id.split_once('-').unwrap().0, id.split_once('-').unwrap().0);
    assert_eq!(server.client().post_events(&done("c", 3)).status, 200);
    let (id, turn) = source.sealed();
    assert_eq!((number(&id), turn.as_str()), (2, "t3"));
    // The reset gave the reader a position, so it can continue from there.
    let mut again = EventSource::open(&server, "", &reset.id);
    assert_eq!(again.sealed().0, id);
}

/// Posts turns that together are longer than anything that is held for a client that does not read.
fn post_many(server: &Server) -> u64 {
    const TURNS: u64 = 24_000;
    let turns: Vec<_> = (1..=TURNS).collect();
    for some in turns.chunks(1000) {
        let body: String = some.iter().map(|turn| done("c", *turn)).collect();
        assert_eq!(server.client().post_events(&body).status, 200);
    }
    TURNS
}

#[test]
fn a_slow_reader_delays_nobody_and_gets_everything_when_it_reads() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut all = EventSource::begin(&server, "");
    let mut one = EventSource::begin(&server, "conversation=c");
    let mut other = EventSource::begin(&server, "conversation=other");
    let turns = post_many(&server);
    assert_eq!(server.client().post_events(&done("other", 0)).status, 200);
    assert_eq!(number(&other.sealed().0), turns + 1, "others are served meanwhile");
    for source in [&mut all, &mut one] {
        for turn in 1..=turns {
            let (id, turn_id) = source.sealed();
            assert_eq!((number(&id), turn_id), (turn, format!("t{turn}")));
        }
    }
    assert_eq!(number(&all.sealed().0), turns + 1);
}

#[test]
fn a_reader_that_takes_nothing_is_closed_and_can_continue() {
    let directory = tempfile::tempdir().unwrap();
    // No heartbeat shows the server that a reader has gone.
    let settings = [("HTTP__KEEP_ALIVE", "200ms"), ("HTTP__MAX_FEED_READERS", "1"), ("HTTP__FEED_HEARTBEAT", "1h")];
    let server = Server::start_with(directory.path(), &settings);
    let mut source = EventSource::begin(&server, "");
    let turns = post_many(&server);
    // There is one place, and it becomes free although the reader has not gone.
    let mut second = until("the place is free", || {
        let (status, source) = EventSource::try_open(server.address, "", "").ok()?;
        (status == 200).then_some(source)
    });
    let mut seen = 0;
    while let Ok(Some(event)) = source.event() {
        seen += 1;
        assert_eq!(number(&event.id), seen);
    }
    assert!(seen < turns, "it was not closed");
    let last_id = source.last_id.clone();
    drop(source);
    // It continues in the place that the second reader leaves.
    assert_eq!(server.client().post_events(&done("c", turns + 1)).status, 200);
    second.sealed();
    drop(second);
    let mut again = until("the place is free", || {
        let (status, source) = EventSource::try_open(server.address, "", &last_id).ok()?;
        (status == 200).then_some(source)
    });
    assert_eq!(number(&again.sealed().0), seen + 1);
}

/// Allows this process as many open files as the system permits.
#[cfg(unix)]
fn raise_the_limit_of_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(unix)]
#[test]
fn a_thousand_readers_each_get_their_conversation_and_a_shutdown_ends_all_streams() {
    const READERS: usize = 1000;
    raise_the_limit_of_files();
    let directory = tempfile::tempdir().unwrap();
    let readers = READERS.to_string();
    let settings = [
        ("HTTP__MAX_CONNECTIONS", "2400"),
        ("HTTP__MAX_FEED_READERS", readers.as_str()),
        ("HTTP__SHUTDOWN_TIMEOUT", "1h"),
    ];
    let server = Server::start_with(directory.path(), &settings);
    let mut sources: Vec<_> =
        (0..READERS).map(|n| EventSource::begin(&server, &format!("conversation=c{n}"))).collect();
    let (status, _) = EventSource::try_open(server.address, "", "").unwrap();
    assert_eq!(status, 503);
    let body: String = (0..2 * READERS as u64).map(|turn| done(&format!("c{}", turn % READERS as u64), turn)).collect();
    let positions: BTreeMap<String, u64> = {
        assert_eq!(server.client().post_events(&body).status, 200);
        let mut positions = BTreeMap::new();
        for (n, source) in sources.iter_mut().enumerate() {
            for turn in [n, n + READERS] {
                let (id, turn_id) = source.sealed();
                assert_eq!(turn_id, format!("t{turn}"));
                positions.insert(turn_id, number(&id));
            }
        }
        positions
    };
    let mut numbers: Vec<_> = positions.into_values().collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=2 * READERS as u64));
    server.signal("TERM");
    for source in &mut sources {
        assert!(source.event().unwrap().is_none(), "the stream has an end of its own, and is not broken off");
    }
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

#[test]
fn a_reader_that_takes_nothing_cannot_delay_a_shutdown() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[("HTTP__SHUTDOWN_TIMEOUT", "1h")]);
    let _stuck = EventSource::begin(&server, "");
    let _idle = EventSource::begin(&server, "conversation=idle");
    post_many(&server);
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

#[test]
fn an_open_turn_is_shown_while_it_is_worked_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut source = EventSource::begin(&server, "");
    let usage =
        r#"{"type":"usage","conversationId":"c","turnId":"t","stepId":"s","usage":{"inputTokens":7,"outputTokens":1}}"#;
    assert_eq!(server.client().post_events(usage).status, 200);
    let event = source.event().unwrap().unwrap();
    assert_eq!((event.name.as_str(), event.data["conversationId"].as_str()), ("turn-open", Some("c")));
    assert_eq!(event.data["usage"]["inputTokens"], 7);
    let open = server.client().get("/conversations/c/turns?open=true").json();
    let mut shown = event.data;
    shown.as_object_mut().unwrap().shift_remove("conversationId");
    assert_eq!(shown, open["open"][0]);
}

#[test]
fn a_client_of_http_1_0_gets_the_events_too() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[("HTTP__FEED_TIMEOUT", "1ms")]);
    assert_eq!(server.client().post_events(&done("c", 1)).status, 200);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /feed HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\r\n\r\nretry: 1000\nid: ") && answer.ends_with("-0000000000000001\n\n"), "{answer}");
}
