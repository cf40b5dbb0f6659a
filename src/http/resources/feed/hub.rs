use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::rt;
use indexmap::IndexMap;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, yield_now};
use tracing::error;

use super::hang_up::HangUp;
use super::line;
#[cfg(test)]
use super::ring::RingLimits;
use super::ring::{Line, Open, Ring};
use crate::actors::{Change, Changes, Erasure, Feed, ListOpenTurns, OpenWatch};
use crate::http::resources::api::{Api, ask_store};
use crate::store::{Position, SealedPage, StagedTurn};
use crate::turn::{ConversationId, TurnId};

/// Follows the sealed turns and the changes of open turns, for all readers of one worker. It belongs to the worker's
/// thread. Clones share it.
///
/// It has one subscription, which begins with the first reader and ends with the last one.
#[derive(Clone, Default)]
pub(crate) struct Hub(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    ring: Ring,
    /// The task and its watch on open turns, while there are readers.
    running: Option<(JoinHandle<()>, Arc<OpenWatch>)>,
    /// The number of tasks that were started so far.
    tasks: u64,
    /// The position up to which the lines of turns are in the ring.
    position: u64,
    next_seat: u64,
    /// The seats of readers of all conversations.
    of_all: IndexMap<u64, Rc<Waiting>>,
    /// The seats of readers of one conversation.
    of_one: HashMap<ConversationId, IndexMap<u64, Rc<Waiting>>>,
}

/// What waits for one reader.
#[derive(Default)]
struct Waiting {
    /// Wakes the reader.
    news: Notify,
    /// Whether the stream has to end.
    has_ended: Cell<bool>,
    hang_up: Option<HangUp>,
    /// For a reader of all conversations: the number of its next line.
    next: Cell<u64>,
    /// For a reader of one conversation: the numbers of its lines. `None` if there were too many.
    lines: RefCell<Option<VecDeque<u64>>>,
    /// For a reader of one conversation: the position of the hub before the first of these lines. There is no turn of
    /// the conversation between the last one that the reader took and this position.
    before: Cell<u64>,
    /// How many lines about erasures wait for the reader.
    erasures: Cell<u64>,
}

/// The place of one reader at its hub. Dropping it leaves the hub.
pub(super) struct Seat {
    hub: Hub,
    number: u64,
    conversation_id: Option<ConversationId>,
    waiting: Rc<Waiting>,
}

/// What a reader gets from its hub.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The next line.
    Line(Line),
    /// There is no line yet.
    Nothing,
    /// Lines for this reader are gone. It has everything up to the position, and has to read the store from there on.
    /// `missed_erasure` says whether one of the lines was about an erasure.
    Behind { after: u64, missed_erasure: bool },
    /// The stream has to end.
    End,
}

impl Hub {
    #[cfg(test)]
    pub(super) fn with_limits(limits: RingLimits) -> Self {
        Self(Rc::new(RefCell::new(State { ring: Ring::new(limits), ..State::default() })))
    }

    /// Returns a seat for a reader. `latest` is the position of the latest turn, read just before. The caller has to
    /// read the store up to [`Seat::position`].
    pub(super) fn enter(
        &self,
        api: &Api,
        conversation_id: Option<ConversationId>,
        latest: Position,
        hang_up: Option<HangUp>,
    ) -> Seat {
        let mut state = self.0.borrow_mut();
        let watch = match &state.running {
            Some((_, watch)) => Arc::clone(watch),
            None => self.start(&mut state, api, latest),
        };
        watch.enter(conversation_id.as_ref());
        let waiting = Rc::new(Waiting { hang_up, ..Waiting::default() });
        waiting.join(&state);
        let number = state.next_seat;
        state.next_seat += 1;
        let seats = match &conversation_id {
            Some(id) => state.of_one.entry(id.clone()).or_default(),
            None => &mut state.of_all,
        };
        seats.insert(number, Rc::clone(&waiting));
        Seat { hub: self.clone(), number, conversation_id, waiting }
    }

    /// Starts the task that follows the turns after `latest`.
    fn start(&self, state: &mut State, api: &Api, latest: Position) -> Arc<OpenWatch> {
        let facts = &api.handles.operations.facts;
        let (watch, erased) = (Arc::new(facts.watch_open()), facts.erased());
        let feed = Feed::after(api.handles.reads.list_sealed.clone(), facts, latest);
        let changes = Changes::new(feed, Arc::clone(&watch), erased);
        state.tasks += 1;
        let ending = Ending { hub: self.clone(), task: state.tasks };
        let run = Self::run(self.clone(), api.clone(), changes, api.feed.ended());
        state.position = latest.number;
        let task = rt::spawn(async move {
            let _ending = ending;
            run.await;
        });
        state.running = Some((task, Arc::clone(&watch)));
        watch
    }

    async fn run(self, api: Api, mut changes: Changes, mut ended: watch::Receiver<bool>) {
        loop {
            let change = tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => return,
                change = changes.next() => change,
            };
            match change {
                Ok(Some(Change::Sealed(page))) => self.publish(&page),
                Ok(Some(Change::Open(conversation_id, turns))) => self.show_open(&api, &conversation_id, &turns).await,
                Ok(Some(Change::Erasure(Erasure::Of(id)))) => self.tell_erased(&id),
                // Too much was erased at once. The clients connect again.
                Ok(Some(Change::Erasure(Erasure::Missed)) | None) => return,
                Err(fault) => error!(cause = fault.in_full(), "the store could not be read for the feed"),
            }
            // The readers run now, before the ring is filled further.
            yield_now().await;
        }
    }

    /// Empties the lines of an erased conversation, and puts a line about the erasure into the ring.
    fn tell_erased(&self, conversation_id: &ConversationId) {
        let mut state = self.0.borrow_mut();
        state.ring.erase(conversation_id);
        // If the line cannot be written, the log has the reason.
        if state.is_read(conversation_id)
            && let Ok(text) = line::erased(conversation_id)
        {
            let (conversation_id, text) = (conversation_id.clone(), text.into());
            state.push(Line { conversation_id, is_erasure: true, position: None, open: None, text });
            state.wake_readers_of_all();
        }
    }

    /// Puts the lines of sealed turns into the ring, but only those of turns that somebody reads.
    fn publish(&self, page: &SealedPage) {
        let mut state = self.0.borrow_mut();
        for turn in &page.turns {
            // If a turn cannot be written, the log has the reason.
            if state.is_read(&turn.conversation_id)
                && let Ok(text) = line::sealed(turn)
            {
                state.push(Line {
                    conversation_id: turn.conversation_id.clone(),
                    is_erasure: false,
                    position: Some(turn.position.number),
                    open: None,
                    text: text.into(),
                });
            }
            state.position = turn.position.number;
        }
        state.position = page.next.number;
        state.wake_readers_of_all();
    }

    /// Reads open turns of a conversation that have changed, and puts their lines into the ring. A turn that is sealed by
    /// now is no longer open, and has no line.
    ///
    /// No sealed turn is published meanwhile. So in the ring, a line of an open turn never comes after that of the sealed
    /// turn.
    async fn show_open(&self, api: &Api, conversation_id: &ConversationId, turns: &HashSet<TurnId>) {
        // Open turns may take megabytes, so the hubs of all workers read them one after the other.
        let _permit = api.feed.may_show().await;
        let list = ListOpenTurns { conversation_id: conversation_id.clone() };
        // The store's failure is logged. The next change of these turns shows them.
        if let Ok(open) = ask_store(&api.handles.reads.list_open_turns, list).await {
            self.push_open(conversation_id, open.turns.iter().filter(|staged| turns.contains(&staged.turn.id))).await;
        }
    }

    pub(super) async fn push_open(&self, conversation_id: &ConversationId, open: impl Iterator<Item = &StagedTurn>) {
        let mut unpaused = 0;
        for staged in open {
            if !self.0.borrow().is_read(conversation_id) {
                return;
            }
            let Ok(text) = line::open(conversation_id, &staged.turn.so_far()) else { continue };
            let len = text.len();
            {
                let mut state = self.0.borrow_mut();
                let turn_id = staged.turn.id.clone();
                let turn = Open { conversation_id: conversation_id.clone(), turn_id, seen: state.position };
                state.push(Line {
                    conversation_id: conversation_id.clone(),
                    is_erasure: false,
                    position: None,
                    open: Some(Rc::new(turn)),
                    text: text.into(),
                });
                state.wake_readers_of_all();
            }
            line::pause_after_open(&mut unpaused, len).await;
        }
    }
}

impl State {
    fn is_read(&self, id: &ConversationId) -> bool {
        !self.of_all.is_empty() || self.of_one.contains_key(id)
    }

    fn push(&mut self, line: Line) {
        let (id, is_erasure) = (line.conversation_id.clone(), line.is_erasure);
        let number = self.ring.push(line);
        let most = self.ring.limits().waiting;
        let concerned = self.of_one.get(&id).into_iter().flat_map(IndexMap::values);
        for waiting in self.of_all.values().chain(concerned).filter(|_| is_erasure) {
            waiting.erasures.set(waiting.erasures.get() + 1);
        }
        for waiting in self.of_one.get(&id).into_iter().flat_map(IndexMap::values) {
            let mut lines = waiting.lines.borrow_mut();
            if let Some(numbers) = &mut *lines {
                if numbers.is_empty() {
                    waiting.before.set(self.position);
                }
                numbers.push_back(number);
                if numbers.len() > most {
                    *lines = None;
                }
            }
            waiting.news.notify_one();
        }
    }

    fn wake_readers_of_all(&self) {
        self.of_all.values().for_each(|waiting| waiting.news.notify_one());
    }

    fn seats(&self) -> impl Iterator<Item = &Rc<Waiting>> {
        self.of_all.values().chain(self.of_one.values().flat_map(IndexMap::values))
    }
}

/// Ends the streams of a hub when its task ends, in whichever way. It is dropped with the task.
struct Ending {
    hub: Hub,
    /// The number of the task.
    task: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.hub.0.borrow_mut();
        if state.running.is_none() || state.tasks != self.task {
            // The last reader of this task has left, and the hub may serve others by now.
            return;
        }
        for waiting in state.seats() {
            waiting.has_ended.set(true);
            waiting.news.notify_one();
            if let Some(hang_up) = &waiting.hang_up {
                hang_up.unless_client_reads();
            }
        }
        // Readers that come later get a new task, and are not served by the ring of this one.
        state.of_all.clear();
        state.of_one.clear();
        state.ring = Ring::new(state.ring.limits());
        state.running = None;
    }
}

impl Waiting {
    fn note_taken(&self, line: &Line) {
        self.erasures.set(self.erasures.get().saturating_sub(u64::from(line.is_erasure)));
    }

    /// Makes the reader wait for the lines that come from now on.
    fn join(&self, state: &State) {
        self.next.set(state.ring.end());
        self.erasures.set(0);
        *self.lines.borrow_mut() = Some(VecDeque::new());
    }
}

impl Seat {
    /// Returns the position up to which a reader has to read the store before it takes lines. The lines of later turns
    /// come from the hub.
    pub(super) fn position(&self) -> u64 {
        self.hub.0.borrow().position
    }

    /// The conversation whose events the reader gets; `None` for all.
    pub(super) fn conversation_id(&self) -> Option<&ConversationId> {
        self.conversation_id.as_ref()
    }

    /// Returns the position up to which the reader has everything, if `taken` is the position of its last turn.
    pub(super) fn seen(&self, taken: u64) -> u64 {
        let state = self.hub.0.borrow();
        let is_waiting = match self.conversation_id {
            None => self.waiting.next.get() != state.ring.end(),
            Some(_) => self.waiting.lines.borrow().as_ref().is_none_or(|numbers| !numbers.is_empty()),
        };
        if is_waiting { taken } else { taken.max(state.position) }
    }

    /// Returns whether the stream has to end.
    pub(super) fn has_ended(&self) -> bool {
        self.waiting.has_ended.get()
    }

    /// Leaves out all lines so far. The reader then has to read the store up to [`Self::position`].
    pub(super) fn join_again(&self) {
        self.waiting.join(&self.hub.0.borrow());
    }

    /// Takes the next line. `taken` is the position up to which the reader has everything.
    pub(super) fn take(&self, taken: u64) -> Taken {
        let Waiting { has_ended, next, lines, before, .. } = &*self.waiting;
        if has_ended.get() {
            return Taken::End;
        }
        let missed_erasure = self.waiting.erasures.get() > 0;
        let state = self.hub.0.borrow();
        if self.conversation_id.is_none() {
            return match state.ring.get(next.get()) {
                Some(line) => {
                    next.set(next.get() + 1);
                    self.waiting.note_taken(line);
                    Taken::Line(line.clone())
                }
                None if next.get() == state.ring.end() => Taken::Nothing,
                None => Taken::Behind { after: taken, missed_erasure },
            };
        }
        let behind = Taken::Behind { after: before.get().max(taken), missed_erasure };
        let mut lines = lines.borrow_mut();
        let Some(numbers) = &mut *lines else { return behind };
        match numbers.front().map(|number| state.ring.get(*number)) {
            Some(Some(line)) => {
                numbers.pop_front();
                self.waiting.note_taken(line);
                Taken::Line(line.clone())
            }
            Some(None) => behind,
            None => Taken::Nothing,
        }
    }

    /// Returns the length of the line that [`Self::take`] would return.
    pub(super) fn next_len(&self) -> usize {
        let state = self.hub.0.borrow();
        let number = match &self.conversation_id {
            None => Some(self.waiting.next.get()),
            Some(_) => self.waiting.lines.borrow().as_ref().and_then(|numbers| numbers.front().copied()),
        };
        number.and_then(|number| state.ring.get(number)).map_or(0, |line| line.text.len())
    }

    /// Waits until there may be something to take.
    pub(super) async fn news(&self) {
        self.waiting.news.notified().await;
    }

    /// Waits until the stream has to end.
    pub(super) async fn end(&self) {
        while !self.has_ended() {
            self.news().await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.hub.0.borrow_mut();
        if self.waiting.has_ended.get() {
            return;
        }
        if let Some((_, watch)) = &state.running {
            watch.leave(self.conversation_id.as_ref());
        }
        match &self.conversation_id {
            None => drop(state.of_all.swap_remove(&self.number)),
            Some(id) => {
                if let Some(seats) = state.of_one.get_mut(id) {
                    seats.swap_remove(&self.number);
                    if seats.is_empty() {
                        state.of_one.remove(id);
                    }
                }
            }
        }
        if state.of_all.is_empty() && state.of_one.is_empty() {
            if let Some((task, _)) = state.running.take() {
                task.abort();
            }
            state.ring = Ring::new(state.ring.limits());
        }
    }
}
