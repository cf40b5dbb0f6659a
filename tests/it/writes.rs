//! Writes that could take all memory or all time of the server. A setting limits each of them, and other clients are
//! served meanwhile.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::server::{Answer, Client, Server};

fn done(conversation: &str, turn: &str) -> String {
    format!("{{\"type\":\"done\",\"conversationId\":\"{conversation}\",\"turnId\":\"{turn}\",\"reason\":\"stop\"}}\n")
}

fn start(conversation: &str, turn: &str) -> String {
    format!("{{\"type\":\"turn-start\",\"conversationId\":\"{conversation}\",\"turnId\":\"{turn}\"}}\n")
}

/// Returns an event for each of these steps of a turn.
fn steps(conversation: &str, turn: &str, steps: std::ops::Range<usize>) -> String {
    let mut body = String::new();
    for step in steps {
        let step_id = format!("{turn}#{step}");
        let event = format!(
            r#"{{"type":"step-complete","conversationId":"{conversation}","turnId":"{turn}","stepId":"{step_id}"}}"#
        );
        writeln!(body, "{event}").unwrap();
    }
    body
}

/// Posts a body again and again until the server accepts it or refuses it for good.
fn post(client: &mut Client, body: &str) -> Answer {
    loop {
        let answer = client.post_events(body);
        if answer.status != 503 {
            return answer;
        }
    }
}

/// Sends small turns of its own conversations until it is told to stop. Returns how many were acknowledged.
fn serve_others(mut client: Client, stop: &AtomicBool) -> usize {
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        acknowledged += usize::from(client.post_events(&done(&format!("other-{acknowledged}"), "t")).status == 200);
    }
    acknowledged
}

/// Runs `attack` while another client is served. Returns how many turns of that client were acknowledged meanwhile.
fn beside_others(server: &Server, attack: impl FnOnce()) -> usize {
    let stop = AtomicBool::new(false);
    let client = server.client();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| serve_others(client, &stop));
        attack();
        stop.store(true, Ordering::Relaxed);
        others.join().unwrap()
    })
}

#[test]
fn open_turns_are_bounded_in_bytes_by_settings_that_the_refusal_names() {
    // A turn counts 512 bytes and its texts, and so does each step.
    let limits =
        [("TURNS__MAX_TURN_BYTES", "4096"), ("TURNS__MAX_OPEN_BYTES", "6144"), ("TURNS__MAX_ACTIVE_BYTES", "8192")];
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &limits);
    let mut client = server.client();
    let mut refused = |body: &str, setting: &str| {
        let answer = post(&mut client, body);
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(answer.error().contains(setting), "{answer:?}");
        answer
    };
    refused(&steps("c", "a", 0..8), "`turns.max_turn_bytes`");
    let many_turns: String = (0..12).map(|turn| start("c", &format!("t{turn}"))).collect();
    let answer = refused(&format!("{many_turns}{}", done("d", "t")), "`turns.max_open_bytes`");
    assert_eq!(answer.json()["sealed"].as_array().unwrap().len(), 1, "the other conversation was heard");

    // The control: what is just within each limit is accepted. There are many conversations, which do not fit into
    // memory together.
    for (body, sealed) in [
        (&(|id: &str| steps(id, "a", 0..6)) as &dyn Fn(&str) -> String, 0),
        (&|id| (0..4).map(|turn| start(id, &format!("t{turn}"))).collect(), 0),
        (&|id| done(id, "a") + &(0..4).map(|turn| done(id, &format!("t{turn}"))).collect::<String>(), 5),
    ] {
        let of_all: String = (0..20).map(|nth| body(&format!("within-{nth}"))).collect();
        let answer = post(&mut client, &of_all);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["sealed"].as_array().unwrap().len(), sealed * 20);
    }
    for nth in 0..20 {
        let turns = client.get(&format!("/conversations/within-{nth}/turns")).json();
        assert_eq!(turns["turns"][0]["metrics"]["steps"].as_array().unwrap().len(), 6);
        assert_eq!(turns["latestOrdinal"], 5);
    }
    assert_eq!(client.get("/conversations/c/turns").json()["latestOrdinal"], 0, "nothing of what was refused is there");
}

#[cfg(target_os = "linux")]
mod memory {
    use super::*;

    /// The maximum memory in KiB that an attack may take above the use of the idle server.
    const MOST: u64 = 300 * 1024;

    /// Runs `attack` on a server with default settings, while other clients are served. Returns the peak of the
    /// server's memory in KiB above the use of the idle server.
    fn attacked(attack: impl FnOnce(&Server)) -> u64 {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(directory.path());
        assert_eq!(server.client().post_events(&done("first", "t")).status, 200);
        let idle = server.memory("VmRSS");
        let others = beside_others(&server, || attack(&server));
        assert!(others > 0, "others were served meanwhile");
        let most = server.memory("VmHWM").saturating_sub(idle);
        eprintln!("{} MiB above idle, {others} turns of others", most / 1024);
        most
    }

    /// The attack opens turns of the maximum size in some conversations, and then sends a small event for each of the
    /// turns.
    #[test]
    fn large_open_turns_take_a_bounded_part_of_memory() {
        const CONVERSATIONS: usize = 9;
        const STEPS: usize = 1900;
        let refused = AtomicUsize::new(0);
        let most = attacked(|server| {
            let mut client = server.client();
            for nth in 0..CONVERSATIONS {
                let id = format!("large-{nth}");
                // Six turns fit into a conversation. A seventh is refused; two conversations show that.
                for turn in 0..if nth < 2 { 7 } else { 6 } {
                    let turn = format!("{turn:a>200}");
                    let answer = post(&mut client, &steps(&id, &turn, 0..STEPS));
                    match answer.status {
                        200 => {}
                        422 => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        _ => panic!("{answer:?}"),
                    }
                }
            }
            // One small request has an event for all these turns.
            let touch: String = (0..CONVERSATIONS)
                .flat_map(|nth| (0..6).map(move |turn| start(&format!("large-{nth}"), &format!("{turn:a>200}"))))
                .collect();
            for _ in 0..3 {
                assert!(matches!(post(&mut client, &touch).status, 200 | 422));
            }
        });
        assert_eq!(refused.into_inner(), 2, "the limit was not reached");
        assert!(most < MOST, "{most} KiB");
    }

    /// The attack sends requests of many turns for one conversation, all at once.
    #[test]
    fn many_turns_of_one_conversation_take_turns_with_others() {
        const REQUESTS: usize = 60;
        const TURNS: usize = 1000;
        let most = attacked(|server| {
            let address = server.address;
            std::thread::scope(|scope| {
                for request in 0..REQUESTS {
                    scope.spawn(move || {
                        let body: String = (0..TURNS).map(|turn| done("hot", &format!("{request}-{turn}"))).collect();
                        let answer = post(&mut Client::new(address), &body);
                        assert_eq!(answer.status, 200, "{answer:?}");
                    });
                }
            });
            let last = format!("/conversations/hot/turns?after={}", REQUESTS * TURNS - 1);
            assert_eq!(server.client().get(&last).json()["latestOrdinal"], REQUESTS * TURNS);
        });
        assert!(most < MOST, "{most} KiB");
    }

    /// The attack sends one request of many turns for one conversation.
    #[test]
    fn a_request_of_many_turns_is_worked_on_in_parts() {
        const TURNS: usize = 40_000;
        let most = attacked(|server| {
            let body: String = (0..TURNS).map(|turn| done("hot", &format!("{turn}"))).collect();
            let answer = post(&mut server.client(), &body);
            assert_eq!(answer.status, 200, "{answer:?}");
            let sealed = answer.json()["sealed"].as_array().unwrap().len();
            assert_eq!(sealed, TURNS, "the parts are answered as one");
        });
        assert!(most < MOST, "{most} KiB");
    }
}
