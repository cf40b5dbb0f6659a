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
    /// The conversations that the client has erased. Each had one turn.
    erased: Vec<String>,
    number: usize,
}

/// The server that a client uses, and the connection to it.
struct Connection {
    client: Client,
    server: Serving,
}

impl Connection {
    fn to_the_first_of(field: &Field) -> Self {
        let server = field.after(0);
        Self { client: Client::new(server.address.unwrap()), server }
    }

    /// Sends a request until it has one of these statuses. Returns `None` if the connection broke and the client does not
    /// repeat requests.
    fn insist(
        &mut self,
        field: &Field,
        repeats: bool,
        statuses: &[u16],
        send: impl Fn(&mut Client) -> std::io::Result<Answer>,
    ) -> Option<Answer> {
        loop {
            match send(&mut self.client) {
                Ok(answer) if statuses.contains(&answer.status) => return Some(answer),
                Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                Err(error) => {
                    assert!(!self.server.last, "the last server broke a connection: {error}");
                    self.server = field.after(self.server.generation);
                    self.client = Client::new(self.server.address.unwrap());
                    if !repeats {
                        return None;
                    }
                }
            }
        }
    }
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
            erased: Vec::new(),
            number,
        }
    }

    /// Sends turns until all are complete on the last server, and now and then erases a conversation. Reports each
    /// acknowledgement. Returns the acknowledgements, the turns, and the conversations that were erased.
    pub(crate) fn run(mut self, field: &Field, acknowledge: &Sender<()>) -> (History, Scripts, Vec<String>) {
        let mut connection = Connection::to_the_first_of(field);
        loop {
            if !field.now().last {
                self.begin_turns();
            } else if self.open.is_empty() {
                return (self.history, self.scripts, self.erased);
            }
            let parts = self.next_parts();
            let body: String = parts.iter().flat_map(|part| self.lines(part)).collect();
            if self.manners == Manners::NotesEarly {
                self.note_accepted(&parts);
            }
            let repeats = self.manners != Manners::NotesEarly;
            if let Some(answer) = connection.insist(field, repeats, &[200], |client| client.try_post_events(&body)) {
                self.note(&parts, &answer);
                let _ = acknowledge.send(());
            }
            if self.manners == Manners::Honest && self.random.u8(..8) == 0 {
                self.erase_a_conversation(&mut connection, field);
            }
            self.forget_what_is_sent(field.now().last);
        }
    }

    /// Sends a turn of a new conversation, and then erases the conversation.
    fn erase_a_conversation(&mut self, connection: &mut Connection, field: &Field) {
        let id = format!("erased-{}-{}", self.number, self.erased.len());
        let done = format!(r#"{{"type":"done","conversationId":"{id}","turnId":"t","reason":"stop"}}"#);
        connection.insist(field, true, &[200], |client| client.try_post_events(&done));
        // If the answer to the first request was lost, there may be nothing left to erase.
        let path = format!("/conversations/{id}");
        connection.insist(field, true, &[204, 404], |client| client.send("DELETE", &path, &[], b""));
        self.erased.push(id);
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
