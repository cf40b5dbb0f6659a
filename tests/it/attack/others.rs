use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::done;
use crate::server::{Client, Server, until};

/// A harmless client on a separate connection. The client posts a turn, reads the turn back and asks other small
/// questions, again and again until the test stops it.
pub(super) struct Others {
    stop: Arc<AtomicBool>,
    served: Arc<Mutex<Served>>,
    client: JoinHandle<()>,
}

/// The record of how a client was served.
#[derive(Debug, Default, Clone)]
pub(super) struct Served {
    /// The number of rounds in which every answer was right.
    pub(super) rounds: usize,
    /// The number of answers with 503, after which the client sends the request again.
    pub(super) refused: usize,
    /// The requests with the longest waits, the longest first.
    longest: Vec<(Duration, &'static str)>,
    all: usize,
    slow: usize,
}

/// The longest time of an answer that a client may expect of a server under attack.
pub(super) const PROMPT: Duration = Duration::from_millis(100);

impl Served {
    fn note(&mut self, what: &'static str, took: Duration) {
        self.all += 1;
        self.slow += usize::from(took > PROMPT);
        self.longest.push((took, what));
        self.longest.sort_unstable_by(|a, b| b.cmp(a));
        self.longest.truncate(3);
    }

    /// Returns the longest time of a request.
    pub(super) fn longest(&self) -> Duration {
        self.longest.first().map_or(Duration::ZERO, |(took, _)| *took)
    }

    /// Returns the longest times in milliseconds, with their requests.
    pub(super) fn told(&self) -> String {
        let longest: Vec<_> = self.longest.iter().map(|(took, what)| format!("{} {what}", took.as_millis())).collect();
        format!("{}; {} of {} over {} ms", longest.join(", "), self.slow, self.all, PROMPT.as_millis())
    }
}

impl Others {
    /// Starts the client.
    pub(super) fn of(server: &Server) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (others, address) = ((Arc::<AtomicBool>::default(), Arc::<Mutex<Served>>::default()), server.address);
        let (stop, notes) = others.clone();
        let client = move || {
            let mut client = Client::new(address);
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // A conversation grows to some turns.
                ask(&mut client, &format!("others-{number}-{}", round / 50), &format!("t{round}"), &notes);
            }
        };
        Self { stop: others.0, served: others.1, client: std::thread::spawn(client) }
    }

    /// Waits for some rounds, and returns how the client was served until then. The next record begins empty.
    pub(super) fn for_rounds(&self, rounds: usize) -> Served {
        until("others are served", || {
            let mut served = self.served.lock().unwrap();
            let done = (served.rounds >= rounds).then(|| std::mem::take(&mut *served));
            drop(served);
            std::thread::yield_now();
            done
        })
    }

    /// Returns how the client was served since the last call.
    pub(super) fn end(self) -> Served {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().unwrap();
        Arc::into_inner(self.served).unwrap().into_inner().unwrap()
    }
}

/// One round. An answer that is neither right nor a refusal is a failure of the test.
fn ask(client: &mut Client, conversation: &str, turn: &str, served: &Mutex<Served>) {
    let started = Instant::now();
    // If the server closed the connection to make room for other clients, the client opens a new one.
    let posted = client.try_post_events(&done(conversation, turn));
    let posted = posted.or_else(|_| client.try_post_events(&done(conversation, turn))).unwrap();
    served.lock().unwrap().note("POST events", started.elapsed());
    let is_taken = match posted.status {
        200 => true,
        503 => false,
        _ => panic!("{posted:?}"),
    };
    let mut is_whole = is_taken;
    let paths = [
        ("GET turns", format!("/conversations/{conversation}/turns?order=latest&limit=100")),
        ("GET metrics", format!("/conversations/{conversation}/metrics")),
        ("GET conversations", "/conversations?limit=10".to_owned()),
        ("GET prices", "/prices?model=m".to_owned()),
        ("GET health", "/health".to_owned()),
    ];
    for (what, path) in paths {
        let started = Instant::now();
        let mut get = || client.send("GET", &path, &[], b"");
        let first = get();
        let answer = first.or_else(|_| get()).unwrap();
        served.lock().unwrap().note(what, started.elapsed());
        assert!([200, 503].contains(&answer.status), "{path}: {answer:?}");
        let shows_turn = !matches!(what, "GET turns" | "GET metrics") || answer.body.contains(turn);
        assert!(answer.status == 503 || !is_taken || shows_turn, "{path} lacks {turn}: {answer:?}");
        is_whole &= answer.status == 200;
    }
    let mut served = served.lock().unwrap();
    served.rounds += usize::from(is_whole);
    served.refused += usize::from(!is_whole);
}
