//! Each attack again, side by side with a harmless client. The client asks an idle server the same at the same moment,
//! so that its waits show which part is due to the machine. `TURN_METRICS_TEST_ATTACK_SECONDS` makes the attacks last
//! longer:
//!
//! ```sh
//! TURN_METRICS_TEST_ATTACK_SECONDS=20 cargo test --release --test it attack::table -- --nocapture --test-threads=1
//! ```

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::memory::{MOST_MIB, Memory};
use super::others::Others;
use super::{done, longest_turn};
use crate::server::{Client, PATIENCE, Server};

/// Returns the duration of each attack. Without a duration, an attack lasts for one round of each of its clients.
fn seconds() -> Option<Duration> {
    let name = "TURN_METRICS_TEST_ATTACK_SECONDS";
    let value = std::env::var(name).ok()?;
    Some(Duration::from_secs(value.parse().unwrap_or_else(|_| panic!("{name} is not a number"))))
}

/// Prepares the server, before its memory is measured.
type Prepare = fn(&Server);

/// A round of the attack by the client of this number.
type Round = fn(&mut Client, usize, usize);

/// Does an attack by this number of clients at once.
fn attack(name: &str, prepare: Prepare, clients: usize, round: Round) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    prepare(&server);
    let elsewhere = tempfile::tempdir().unwrap();
    let control = Server::start(elsewhere.path());
    let others = Others::of(&server, &control);
    others.for_rounds(1);
    let memory = Memory::of_idle(&server);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..clients {
            let address = server.address;
            scope.spawn(move || {
                // The attackers would be on other machines, so the thread takes little time of this one's processors.
                // On Linux, this changes the priority of the thread alone.
                rustix::process::nice(19).unwrap();
                let mut client = Client::new(address);
                for nth in 0.. {
                    round(&mut client, number, nth);
                    if seconds().is_none_or(|seconds| started.elapsed() >= seconds) {
                        break;
                    }
                }
            });
        }
    });
    let during = others.end();
    let peak = memory.peak_mib();
    println!("| {name} | {peak} MiB | {} |", during.told());
    assert!(peak < MOST_MIB, "{name}: {peak} MiB");
    assert!(during.rounds > 0, "{name}: nobody else was served: {during:?}");
}

fn nothing(_: &Server) {}

/// Sends the same request until the server accepts it, refuses it for good, or has refused it for some time.
fn post(client: &mut Client, body: &str) -> u16 {
    let started = Instant::now();
    loop {
        // The server may have closed the connection to make room for other clients.
        match client.try_post_events(body) {
            Ok(answer) if answer.status != 503 => return answer.status,
            Ok(_) if started.elapsed() > PATIENCE => return 503,
            _ => {}
        }
    }
}

fn get(client: &mut Client, path: &str) -> u16 {
    client.send("GET", path, &[], b"").map_or(0, |answer| answer.status)
}

/// Returns turns with a different label each, by model, provider and project, spread over conversations and time.
fn labelled(from: usize, turns: usize, conversations: usize) -> String {
    let (model, provider, project) = ("m".repeat(240), "p".repeat(240), "j".repeat(240));
    let mut body = String::new();
    for nth in from..from + turns {
        let (conversation, ended_at) =
            (nth % conversations, 1_750_000_000_000_u64 + nth as u64 * 900_000 % 30_000_000_000);
        writeln!(
            body,
            r#"{{"type":"turn-start","conversationId":"label-{conversation}","turnId":"{nth}","model":"{nth:0>9}{model}","provider":"{nth:0>9}{provider}","project":"{nth:0>9}{project}"}}
{{"type":"done","conversationId":"label-{conversation}","turnId":"{nth}","reason":"stop","endedAt":{ended_at},"durationMs":{nth},"usage":{{"inputTokens":1,"outputTokens":1}}}}"#
        )
        .unwrap();
    }
    body
}

/// Fills the store of a server with this number of turns, each with a different label.
fn with_labels(server: &Server, turns: usize, conversations: usize) {
    let mut client = server.client();
    for from in (0..turns).step_by(500) {
        assert_eq!(post(&mut client, &labelled(from, 500, conversations)), 200);
    }
}

/// Returns the number of turns and conversations that reports read: as many as the time allows.
fn many() -> usize {
    if seconds().is_some() { 20_000 } else { 1000 }
}

#[test]
fn labels_without_end() {
    attack("each turn with another model, provider and project", nothing, 4, |client, number, nth| {
        assert!([200, 503].contains(&post(client, &labelled((number * 1_000_000) + nth * 1000, 1000, 300))));
    });
}

#[test]
fn models_of_steps_without_end() {
    attack("each step with another model", nothing, 4, |client, number, nth| {
        let mut body = String::new();
        for step in 0..3000 {
            let model = format!("{number:0>9}{nth:0>9}{step:0>9}{}", "m".repeat(200));
            writeln!(
                body,
                r#"{{"type":"step-complete","conversationId":"models","turnId":"{number}-{nth}","stepId":"{step}","model":"{model}"}}
{{"type":"usage","conversationId":"models","turnId":"{number}-{nth}","stepId":"{step}","usage":{{"inputTokens":1,"outputTokens":1}}}}"#
            )
            .unwrap();
        }
        body += &done("models", &format!("{number}-{nth}"));
        // The server accepts the turns that fit into the limits of a conversation.
        assert!([200, 422, 503].contains(&post(client, &body)));
        for path in ["/conversations/models/summary", "/stats", "/conversations?order=cost"] {
            assert!([200, 404, 422, 503].contains(&get(client, path)), "{path}");
        }
    });
}

#[test]
fn the_largest_report_for_everybody() {
    let prepare = |server: &Server| with_labels(server, many().min(9500), 300);
    attack("the largest report, for 40 clients", prepare, 40, |client, _, _| {
        let path = "/stats?bucket=15m&from=2025-05-01&to=2026-05-31&by=model,provider,project,reason";
        assert!([200, 503].contains(&get(client, path)));
    });
}

#[test]
fn reports_of_many_periods_for_everybody() {
    attack("reports of 40,000 periods, for 40 clients", nothing, 40, |client, _, _| {
        let path = "/stats?bucket=15m&from=2024-05-01&to=2025-05-31&by=model&model=none&tz=America/St_Johns";
        assert!([200, 503].contains(&get(client, path)));
    });
}

#[test]
fn ranked_lists_for_everybody() {
    let prepare = |server: &Server| with_labels(server, many(), many());
    attack("conversations by cost, for 40 clients", prepare, 40, |client, number, nth| {
        let order = ["cost", "tokens", "turns", "recent"][(number + nth) % 4];
        let filter = if nth % 2 == 0 { "" } else { "&prefix=nobody" };
        assert!([200, 503].contains(&get(client, &format!("/conversations?order={order}&limit=1000{filter}"))));
    });
}

/// The same turns, but ended in June 2025.
fn in_june(turns: &str) -> String {
    turns.replace(r#""reason":"stop""#, r#""reason":"stop","endedAt":1750000000000"#)
}

#[test]
fn throughput_for_everybody() {
    let prepare = |server: &Server| {
        let mut client = server.client();
        for nth in 0..many() / 500 {
            let turn = |turn: usize| {
                format!(
                    r#"{{"type":"step-complete","conversationId":"c{}","turnId":"{nth}-{turn}","stepId":"s","genTotalMs":5,"model":"m"}}
"#,
                    turn % 100
                ) + &done(&format!("c{}", turn % 100), &format!("{nth}-{turn}"))
            };
            assert_eq!(post(&mut client, &in_june(&(0..500).map(turn).collect::<String>())), 200);
        }
        for nth in 0..8 {
            assert_eq!(post(&mut client, &in_june(&longest_turn(&format!("long-{nth}"), "t"))), 200);
        }
    };
    attack("the throughput of a month, for 40 clients", prepare, 40, |client, _, _| {
        assert!([200, 503].contains(&get(client, "/metrics/throughput?period=month&date=2025-06")));
    });
}

#[test]
fn summaries_for_everybody() {
    let prepare = |server: &Server| {
        let mut client = server.client();
        for nth in 0..many() / 500 {
            let body: String = (0..500).map(|turn| done("long", &format!("{nth}-{turn}"))).collect();
            assert_eq!(post(&mut client, &body), 200);
        }
        assert_eq!(post(&mut client, &longest_turn("models", "t")), 200);
    };
    attack("summaries of a long conversation, for 40 clients", prepare, 40, |client, number, _| {
        let id = if number % 2 == 0 { "long" } else { "models" };
        assert!([200, 422, 503].contains(&get(client, &format!("/conversations/{id}/summary"))));
    });
}

#[test]
fn pages_for_everybody() {
    let prepare = |server: &Server| {
        let mut client = server.client();
        for nth in 0..many() / 500 {
            let body: String = (0..500).map(|turn| done("long", &format!("{nth}-{turn}"))).collect();
            assert_eq!(post(&mut client, &body), 200);
        }
        assert_eq!(post(&mut client, &longest_turn("longest", "t")), 200);
    };
    attack("pages and metrics of long conversations, for 40 clients", prepare, 40, |client, number, nth| {
        let resource = if (number + nth) % 2 == 0 { "metrics" } else { "turns?limit=1000" };
        let id = if number % 4 == 0 { "longest" } else { "long" };
        assert!([200, 503].contains(&get(client, &format!("/conversations/{id}/{resource}"))));
    });
}

#[test]
fn one_open_turn_in_each_of_many_conversations() {
    attack("open turns in conversations without end", nothing, 4, |client, number, nth| {
        let mut body = String::new();
        for turn in 0..2000 {
            let conversation = format!("{number}-{nth}-{turn}");
            writeln!(body, r#"{{"type":"turn-start","conversationId":"{conversation}","turnId":"t"}}"#).unwrap();
        }
        assert!([200, 503].contains(&post(client, &body)));
    });
}

#[test]
fn one_turn_among_as_many_open_ones_as_may_be() {
    let prepare = |server: &Server| {
        let mut client = server.client();
        for turn in 0..255 {
            let mut body = String::new();
            for step in 0..40 {
                writeln!(
                    body,
                    r#"{{"type":"step-complete","conversationId":"open","turnId":"{turn}","stepId":"{step:0>200}"}}"#
                )
                .unwrap();
            }
            assert_eq!(post(&mut client, &body), 200);
        }
    };
    attack("questions for the open turns of a full conversation", prepare, 40, |client, _, _| {
        for path in ["/conversations/open/turns?open=true", "/conversations?limit=1000"] {
            assert!([200, 503].contains(&get(client, path)), "{path}");
        }
    });
}

#[test]
fn a_heavy_conversation() {
    attack("1,000 turns a request for one conversation, 60 clients", nothing, 60, |client, number, nth| {
        let body: String = (0..1000).map(|turn| done("hot", &format!("{number}-{nth}-{turn}"))).collect();
        assert!([200, 503].contains(&post(client, &body)));
    });
}

#[test]
fn bodies_of_bare_turns() {
    attack("bodies of very many turns", nothing, 2, |client, number, nth| {
        let body: String = (0..2 * many()).map(|turn| done("hot", &format!("{number}-{nth}-{turn}"))).collect();
        assert!([200, 503].contains(&post(client, &body)));
    });
}

#[test]
fn large_open_turns() {
    attack("open turns as large as may be", nothing, 6, |client, number, nth| {
        let mut body = String::new();
        for step in 0..1900 {
            writeln!(
                body,
                r#"{{"type":"step-complete","conversationId":"large-{number}-{}","turnId":"{:a>200}","stepId":"{step:0>200}"}}"#,
                nth / 6,
                nth % 6
            )
            .unwrap();
        }
        assert!([200, 422, 503].contains(&post(client, &body)));
    });
}

/// Sends these bytes over a new connection, and reads the answer until the connection ends or no more bytes come.
fn exchange(client: &mut Client, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(client.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may refuse the request while the request arrives.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn bytes_that_no_client_would_send() {
    attack(
        "pipelines, long targets, extensions of chunks, deep and broken JSON",
        nothing,
        20,
        |client, number, nth| {
            let head = "HTTP/1.1\r\nhost: localhost\r\n";
            let post = format!("POST /events {head}content-type: application/x-ndjson\r\n");
            let pipeline = format!("GET /conversations/c/turns?limit=1000 {head}\r\n").repeat(5000);
            let target = format!("GET /stats?by={} {head}\r\n", "model,".repeat(20_000));
            let fields = format!("GET /health {head}{}\r\n", "x: y\r\n".repeat(90));
            let extension =
                format!("{post}transfer-encoding: chunked\r\n\r\n1;{}\r\n\n\r\n0\r\n\r\n", "x".repeat(1 << 20));
            let chunks = format!("{post}transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", "1\r\n\n\r\n".repeat(200_000));
            let deep = format!("{}{}", r#"{"a":"#.repeat(500_000), "}".repeat(500_000));
            let deep = format!("{post}content-length: {}\r\n\r\n{deep}", deep.len());
            let broken = "{\"type\":\"done\",\n".repeat(100_000);
            let broken = format!("{post}content-length: {}\r\n\r\n{broken}", broken.len());
            let cursor = format!("GET /conversations?order=cost&after={} {head}\r\n", "636f7374202d2063".repeat(900));
            let all = [pipeline, target, fields, extension, chunks, deep, broken, cursor];
            exchange(client, all[(number + nth) % all.len()].as_bytes());
        },
    );
}

#[test]
fn half_requests() {
    attack("half a request on each of 1,500 connections", nothing, 3, |client, number, _| {
        let halves = [
            "GET /conversations/c/turns HTTP/1.1\r\nhost: local",
            "POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: 60000\r\n\r\n{",
            "",
        ];
        let streams: Vec<_> = (0..500)
            .map_while(|_| {
                let mut stream = TcpStream::connect(client.address()).ok()?;
                let _ = stream.write_all(halves[number].as_bytes());
                Some(stream)
            })
            .collect();
        drop(streams);
    });
}

#[test]
fn answers_that_nobody_reads() {
    let prepare = |server: &Server| {
        let mut client = server.client();
        for turn in ["t1", "t2", "t3"] {
            assert_eq!(post(&mut client, &longest_turn("long", turn)), 200);
        }
    };
    attack("60 clients that ask and do not read", prepare, 60, |client, number, _| {
        let resource = if number % 4 == 3 { "metrics" } else { "turns?limit=1000" };
        let mut stream = TcpStream::connect(client.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET /conversations/long/{resource} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.repeat(3).as_bytes()).unwrap();
        let _ = stream.read(&mut [0; 12]);
    });
}

#[test]
fn backups_that_nobody_reads() {
    let prepare = |server: &Server| with_labels(server, many(), 300);
    attack("backups that nobody reads", prepare, 4, |client, _, _| {
        let mut stream = TcpStream::connect(client.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /backup HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 12]);
    });
}

#[test]
fn forged_pages() {
    attack("what pages could send", nothing, 20, |client, number, nth| {
        let forms = [
            ("host: localhost", "origin: null"),
            ("host: evil.example", "origin: http://evil.example"),
            ("host: 127.0.0.1.evil.example", "sec-fetch-site: cross-site"),
            ("host: localhost", "origin: http://localhost:1"),
        ];
        let (host, page) = forms[(number + nth) % forms.len()];
        let body = done("forged", "t");
        let request = format!(
            "POST /events HTTP/1.1\r\n{host}\r\n{page}\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(client, request.as_bytes());
        assert!(answer.starts_with(b"HTTP/1.1 403") || answer.starts_with(b"HTTP/1.1 421"));
    });
}
