//! A client of a run: it sends turns, records acknowledgements, and repeats requests whose outcome is in doubt.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex};

use serde_json::Value;

use super::checker::{History, Note};
use super::script::{Name, Script, Scripts};
use crate::server::{Answer, Client, PATIENCE};

/// The maximum number of turns that a client leaves open on purpose. It is below the limit of a conversation.
const MAX_LEFT_OPEN: usize = 50;

/// How a client behaves. All but the first kind break the rules for clients, and the checker must notice it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Records an acknowledgement when it arrives, and repeats requests in doubt.
    Honest,
    /// Records events as acknowledged before it sends them, and never repeats a request.
    NotesEarly,
    /// Sends each turn under an id that only this client knows, as if the service did not recognize repeated turns.
    WithoutDedupe,
}

/// The place where the clients get the current server. They wait here while there is none.
#[derive(Debug, Default)]
pub(crate) struct Field {
    server: Mutex<Serving>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct Serving {
    /// How many servers have been started so far.
    generation: usize,
    address: Option<SocketAddr>,
    /// Whether this is the last server, on which all turns are completed.
    last: bool,
}

impl Field {
    pub(crate) fn publish(&self, address: SocketAddr, last: bool) {
        let mut server = self.server.lock().unwrap();
        *server = Serving { generation: server.generation + 1, address: Some(address), last };
        self.changed.notify_all();
    }

    fn now(&self) -> Serving {
        *self.server.lock().unwrap()
    }

    /// Waits for a server later than `generation`.
    fn after(&self, generation: usize) -> Serving {
        let server = self.server.lock().unwrap();
        let wait = self.changed.wait_timeout_while(server, PATIENCE, |server| server.generation <= generation);
        let (server, timeout) = wait.unwrap();
        assert!(!timeout.timed_out(), "no server came after number {generation}");
        *server
    }
}

/// Some events of one turn, in one request.
type Part = (Name, Range<usize>);

/// A client with one connection, and its turns in progress.
pub(crate) struct Sending {
    seed: u64,
    random: fastrand::Rng,
    manners: Manners,
    /// A suffix that makes the ids of the client's turns unknown to other clients, or an empty text.
    mark: String,
    /// The conversations, and how many turns of each it has begun.
    conversations: Vec<(String, usize)>,
    /// The turns in progress, and how many events of each are sent.
    open: Vec<(Script, usize)>,
    left_open: usize,
    history: History,
    scripts: Scripts,
}

impl Sending {
    pub(crate) fn new(seed: u64, number: usize, manners: Manners) -> Self {
        // One conversation belongs to this client, one is shared by all clients, and one is shared by every second
        // client.
        let conversations = [format!("own-{number}"), "all".into(), format!("some-{}", number % 2)];
        Self {
            seed,
            random: fastrand::Rng::with_seed(seed ^ (number as u64 + 1)),
            manners,
            mark: if manners == Manners::WithoutDedupe { format!("~{number}") } else { String::new() },
            conversations: conversations.map(|id| (id, 0)).into(),
            open: Vec::new(),
            left_open: 0,
            history: History::new(),
            scripts: Scripts::new(),
        }
    }

    /// Sends turns until all are complete on the last server. Reports each acknowledgement.
    pub(crate) fn run(mut self, field: &Field, acknowledge: &Sender<()>) -> (History, Scripts) {
        let mut server = field.after(0);
        let mut client = Client::new(server.address.unwrap());
        loop {
            if !field.now().last {
                self.begin_turns();
            } else if self.open.is_empty() {
                return (self.history, self.scripts);
            }
            let parts = self.next_parts();
            let body: String = parts.iter().flat_map(|part| self.lines(part)).collect();
            if self.manners == Manners::NotesEarly {
                self.note_accepted(&parts);
            }
            loop {
                match client.try_post_events(&body) {
                    Ok(answer) if answer.status == 200 => {
                        self.note(&parts, &answer);
                        let _ = acknowledge.send(());
                        break;
                    }
                    Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                    Err(error) => {
                        assert!(!server.last, "the last server broke a connection: {error}");
                        server = field.after(server.generation);
                        client = Client::new(server.address.unwrap());
                        if self.manners == Manners::NotesEarly {
                            break;
                        }
                    }
                }
            }
            self.forget_what_is_sent(field.now().last);
        }
    }

    fn begin_turns(&mut self) {
        while self.open.len() < 3 {
            let (conversation, begun) = self.random.choice(&mut self.conversations).unwrap();
            let script = Script::of(self.seed, conversation, *begun);
            *begun += 1;
            self.scripts.insert(script.name.clone(), script.clone());
            self.open.push((script, 0));
        }
    }

    /// Returns the next events of one or two of the client's turns.
    fn next_parts(&mut self) -> Vec<Part> {
        let first = self.random.usize(..self.open.len());
        let mut parts = vec![self.take(first)];
        let second = self.random.usize(..self.open.len());
        if second != first && self.random.bool() {
            parts.push(self.take(second));
        }
        parts
    }

    fn take(&mut self, place: usize) -> Part {
        let (script, sent) = &mut self.open[place];
        let count = self.random.usize(1..=3).min(script.len() - *sent);
        let mut events = *sent..*sent + count;
        // A few turns of the client's own conversation stay open without their `done`. In the end they show whether
        // open turns are remembered.
        let own = script.name.0.starts_with("own");
        if own && script.name.1.ends_with('3') && events.end == script.len() && self.left_open < MAX_LEFT_OPEN {
            events.end -= 1;
            self.left_open += 1;
            *sent = script.len();
        } else {
            *sent = events.end;
        }
        (script.name.clone(), events)
    }

    fn lines(&self, (name, events): &Part) -> Vec<String> {
        let script = &self.scripts[name];
        events.clone().map(|event| script.line(event, &format!("{}{}", name.1, self.mark))).collect()
    }

    fn note(&mut self, parts: &[Part], answer: &Answer) {
        if self.manners != Manners::NotesEarly {
            self.note_accepted(parts);
        }
        self.history.extend(sealed(answer));
    }

    fn note_accepted(&mut self, parts: &[Part]) {
        let notes = parts.iter().map(|(turn, events)| Note::Accepted { turn: turn.clone(), events: events.clone() });
        self.history.extend(notes.filter(|note| !matches!(note, Note::Accepted { events, .. } if events.is_empty())));
    }

    /// Drops the turns that are sent completely. On the last server, it also drops the turns of which nothing is sent.
    fn forget_what_is_sent(&mut self, last: bool) {
        self.open.retain(|(script, sent)| *sent < script.len() && !(last && *sent == 0));
    }
}

/// Returns the acknowledgements of sealed turns in an answer, under the ids of the scripts.
pub(crate) fn sealed(answer: &Answer) -> Vec<Note> {
    let sealed = answer.json()["sealed"].as_array().unwrap().clone();
    sealed.iter().map(note_of).collect()
}

fn note_of(sealed: &Value) -> Note {
    Note::Sealed {
        turn: (sealed["conversationId"].as_str().unwrap().into(), without_mark(sealed["turnId"].as_str().unwrap())),
        ordinal: sealed["ordinal"].as_u64().unwrap(),
        duplicate: sealed["duplicate"].as_bool().unwrap(),
    }
}

/// Returns the id of a turn as in its script.
pub(crate) fn without_mark(turn_id: &str) -> String {
    turn_id.split('~').next().unwrap_or_default().to_owned()
}
