use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::done;
use crate::server::{Client, Server, until};

/// A harmless client on a separate connection. The client posts a turn, reads the turn back and asks other small
/// questions, again and again until the test stops it. Each request also goes to an idle server, the control, at the
/// same moment.
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
    /// The number of rounds with an answer of 503.
    pub(super) refused: usize,
    /// The requests with the longest waits, the longest first.
    longest: Vec<Wait>,
    longest_of_control: Duration,
    all: usize,
    slow: usize,
    /// The slow answers during which the control was prompt.
    slow_alone: usize,
}

/// The time of an answer, and the longest time of an answer of the control meanwhile.
#[derive(Debug, Clone, Copy)]
struct Wait {
    what: &'static str,
    took: Duration,
    control: Duration,
}

/// The longest time of an answer that a client may expect of a server under attack.
pub(super) const PROMPT: Duration = Duration::from_millis(100);

impl Served {
    fn note(&mut self, wait: Wait) {
        let is_slow = wait.took > PROMPT;
        self.all += 1;
        self.slow += usize::from(is_slow);
        self.slow_alone += usize::from(is_slow && wait.control < PROMPT / 2);
        self.longest_of_control = self.longest_of_control.max(wait.control);
        self.longest.push(wait);
        self.longest.sort_unstable_by_key(|wait| std::cmp::Reverse(wait.took));
        self.longest.truncate(5);
    }

    /// Returns the cells of a table: the longest waits of the client in milliseconds, each with the wait of the control
    /// at the same moment, then the longest wait of the control, then how many answers were slow.
    pub(super) fn told(&self) -> String {
        let of = |wait: &Wait| format!("{} ({} {})", wait.took.as_millis(), wait.control.as_millis(), wait.what);
        let longest: Vec<_> = self.longest.iter().map(of).collect();
        let Self { slow, slow_alone, all, rounds, refused, .. } = self;
        let control = self.longest_of_control.as_millis();
        let rounds = rounds + refused;
        format!("{} | {control} | {slow} of {all} | {slow_alone} | {refused} of {rounds}", longest.join(", "))
    }
}

impl Others {
    /// Starts the client of a server, with this control.
    pub(super) fn of(server: &Server, control: &Server) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (others, address) = ((Arc::<AtomicBool>::default(), Arc::<Mutex<Served>>::default()), server.address);
        let (stop, notes) = others.clone();
        let mut control = Control::of(control);
        let client = move || {
            let mut client = Client::new(address);
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // A conversation grows to some turns.
                ask(
                    &mut client,
                    &mut control,
                    &format!("others-{number}-{}", round / 50),
                    &format!("t{round}"),
                    &notes,
                );
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

/// A client of the control, on a thread of its own. While the harmless client waits for an answer of the server under
/// attack, the control is asked the same, again and again with pauses. So a moment at which the machine did nothing for
/// anybody shows in the times of the control.
struct Control {
    requests: Sender<Request>,
    longest: Receiver<Duration>,
}

enum Request {
    /// Ask this until the answer of the other server has come.
    Ask(Asked),
    /// The answer of the other server has come.
    Stop,
}

/// A request of the harmless client.
#[derive(Clone)]
enum Asked {
    Post(String),
    Get(String),
}

impl Asked {
    fn send(&self, client: &mut Client) -> std::io::Result<crate::server::Answer> {
        match self {
            Self::Post(body) => client.try_post_events(body),
            Self::Get(path) => client.send("GET", path, &[], b""),
        }
    }
}

impl Control {
    /// The pause between two requests, so that the control needs little time of the processors.
    const PAUSE: Duration = Duration::from_millis(5);

    fn of(server: &Server) -> Self {
        let (requests, asked) = channel();
        let (reply, longest) = channel();
        let address = server.address;
        std::thread::spawn(move || {
            let mut client = Client::new(address);
            while let Ok(Request::Ask(request)) = asked.recv() {
                let mut longest = Duration::ZERO;
                loop {
                    let started = Instant::now();
                    let answer = request.send(&mut client).unwrap();
                    longest = longest.max(started.elapsed());
                    assert_eq!(answer.status, 200, "the control: {answer:?}");
                    match asked.recv_timeout(Self::PAUSE) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(_) => break,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                if reply.send(longest).is_err() {
                    return;
                }
            }
        });
        Self { requests, longest }
    }

    /// Does the work, and returns the longest time that the control took for the request meanwhile.
    fn beside<T>(&mut self, request: &Asked, work: impl FnOnce() -> T) -> (T, Duration) {
        self.requests.send(Request::Ask(request.clone())).unwrap();
        let done = work();
        self.requests.send(Request::Stop).unwrap();
        (done, self.longest.recv().unwrap())
    }
}

/// One round. An answer that is neither right nor a refusal is a failure of the test.
fn ask(client: &mut Client, control: &mut Control, conversation: &str, turn: &str, served: &Mutex<Served>) {
    let mut timed = |what, request: Asked| {
        let started = Instant::now();
        let ((answer, took), control) = control.beside(&request, || {
            // If the server closed the connection to make room for other clients, the client opens a new one.
            let answer = request.send(client).or_else(|_| request.send(client)).unwrap();
            (answer, started.elapsed())
        });
        served.lock().unwrap().note(Wait { what, took, control });
        answer
    };
    let posted = timed("POST events", Asked::Post(done(conversation, turn)));
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
        let answer = timed(what, Asked::Get(path.clone()));
        assert!([200, 503].contains(&answer.status), "{path}: {answer:?}");
        let shows_turn = !matches!(what, "GET turns" | "GET metrics") || answer.body.contains(turn);
        assert!(answer.status == 503 || !is_taken || shows_turn, "{path} lacks {turn}: {answer:?}");
        is_whole &= answer.status == 200;
    }
    let mut served = served.lock().unwrap();
    served.rounds += usize::from(is_whole);
    served.refused += usize::from(!is_whole);
}
