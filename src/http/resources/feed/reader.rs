use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use actix_web::web::{Bytes, Data};
use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::hub::{Seat, Taken};
use super::line;
use super::ring::{Line, Open};
use crate::actors::{ListOpenTurns, ListSealed};
use crate::http::resources::api::{Api, ask_store};
use crate::http::resources::feed_control::ReaderPlace;
use crate::http::resources::held_bytes::HeldBytes;
use crate::http::resources::parts::next_part;
use crate::store::{Fault, FaultKind, Lineage, ListSealedError, Position, SealedPage};
use crate::turn::ConversationId;

/// How many turns a reader that is behind reads at once. They make about 25 KiB.
const PAGE_TURNS: usize = 64;

/// The longest time of a stream or between two heartbeats. Adding it to a moment does not overflow.
const MAX_TIME: Duration = Duration::from_hours(365 * 24);

/// The pause after a read that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The stream of one reader. It yields the next bytes when its connection has room for them.
pub(super) struct Reader {
    api: Data<Api>,
    seat: Seat,
    lineage: Lineage,
    /// The position up to which the reader has everything that it asked for.
    taken: u64,
    /// The position up to which the reader has to read the store.
    target: u64,
    owed: OwedTurns,
    /// The rest of what is sent at present.
    rest: Bytes,
    /// The share of the budget for `rest`, if it is long.
    held: HeldBytes,
    wait: Wait,
    /// The share of the budget that the reader has waited for.
    room: HeldBytes,
    heartbeat_at: Instant,
    ends_at: Instant,
    _place: ReaderPlace,
}

/// The open turns that have to be read from the store and sent.
#[derive(Debug, Clone)]
enum OwedTurns {
    Nothing,
    /// All of the reader's conversation.
    OfConversation,
    /// A turn whose line the hub wrote before it had come as far as the reader. The turn may be one of the sealed turns
    /// that the reader has already.
    One(Rc<Open>),
}

/// What a reader waits for before it goes on.
enum Wait {
    Nothing,
    Until(Instant),
    /// Room in the budget for answers.
    Room(Pin<Box<dyn Future<Output = HeldBytes>>>),
}

impl Reader {
    /// Returns the stream of the events after a position. `is_known` says whether the store has given the position
    /// from which the client continues. If not, the stream begins with `reset`.
    pub(super) fn new(api: Data<Api>, seat: Seat, place: ReaderPlace, after: Position, is_known: bool) -> Self {
        let now = Instant::now();
        let mut rest = line::beginning(after).to_vec();
        if !is_known {
            rest.extend(line::reset(after));
        }
        Self {
            lineage: after.lineage,
            taken: after.number,
            target: seat.position(),
            owed: OwedTurns::at_start(&seat),
            rest: rest.into(),
            held: HeldBytes::default(),
            wait: Wait::Nothing,
            room: HeldBytes::default(),
            heartbeat_at: now + api.settings.feed_heartbeat.min(MAX_TIME),
            ends_at: now + api.settings.feed_timeout.min(MAX_TIME),
            api,
            seat,
            _place: place,
        }
    }

    /// Waits for the next bytes. Returns `None` when the stream ends.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.rest.is_empty() {
                return Some(next_part(&mut self.rest));
            }
            self.held = HeldBytes::default();
            let now = Instant::now();
            if now >= self.ends_at || self.seat.has_ended() {
                return None;
            }
            if now >= self.heartbeat_at {
                self.heartbeat_at = now + self.api.settings.feed_heartbeat.min(MAX_TIME);
                self.look();
                return Some(line::heartbeat(self.at(self.taken)));
            }
            if !self.has_waited().await {
                continue;
            }
            if !matches!(self.owed, OwedTurns::Nothing) {
                self.read_open().await;
            } else if self.taken < self.target {
                self.read_page().await?;
            } else {
                self.take().await;
            }
        }
    }

    fn at(&self, number: u64) -> Position {
        Position { lineage: self.lineage, number }
    }

    /// Notes how far the hub has come, if nothing of that is for this reader. So a reader of a conversation in which
    /// nothing happens need not begin far back when it falls behind or connects again.
    fn look(&mut self) {
        if self.taken >= self.target {
            self.taken = self.seat.seen(self.taken);
        }
    }

    /// Waits for what the reader needs before it goes on, but not longer than up to the next heartbeat or the end of the
    /// stream. Returns whether the reader can go on.
    async fn has_waited(&mut self) -> bool {
        let until = self.heartbeat_at.min(self.ends_at);
        let waiting = async {
            match &mut self.wait {
                Wait::Nothing => {}
                Wait::Until(moment) => sleep_until(*moment).await,
                Wait::Room(room) => self.room = room.await,
            }
        };
        let has_waited = tokio::select! {
            biased;
            () = waiting => true,
            () = sleep_until(until) => false,
            () = self.seat.end() => false,
        };
        if has_waited {
            self.wait = Wait::Nothing;
        }
        has_waited
    }

    /// Takes a share of the budget for these bytes. If there is no room for them, the reader waits for it before it goes
    /// on.
    fn share(&mut self, bytes: usize) -> Option<HeldBytes> {
        let mut room = mem::take(&mut self.room);
        if self.api.reads.is_covered_by(&room, bytes) {
            room.shrink(bytes);
            return Some(room);
        }
        drop(room);
        let held = self.api.reads.try_hold(bytes);
        if held.is_none() {
            let reads = self.api.reads.clone();
            self.wait = Wait::Room(Box::pin(async move { reads.hold(bytes).await }));
        }
        held
    }

    /// Takes the next line from the hub, or waits for one.
    async fn take(&mut self) {
        // While the reader waits for the budget, the line may go from the ring.
        let Some(held) = self.share(self.seat.next_len()) else { return };
        match self.seat.take(self.taken) {
            // A reader that was behind has turns already that the hub publishes only now.
            Taken::Line(Line { position: Some(position), .. }) if position <= self.taken => {}
            Taken::Line(Line { open: Some(open), .. }) if open.seen < self.taken => self.owed = OwedTurns::One(open),
            Taken::Line(Line { position, text, .. }) => {
                self.taken = position.unwrap_or(self.taken);
                self.rest = text;
                self.held = held;
            }
            Taken::Behind { after, missed_erasure } => {
                self.taken = after;
                if missed_erasure {
                    // It is too late to name the conversation.
                    self.rest = line::reset(self.at(after));
                }
                self.seat.join_again();
                self.target = self.seat.position();
                self.owed = OwedTurns::at_start(&self.seat);
            }
            Taken::Nothing => {
                self.look();
                let until = self.heartbeat_at.min(self.ends_at);
                tokio::select! {
                    () = self.seat.news() => {}
                    () = sleep_until(until) => {}
                }
            }
            Taken::End => {}
        }
    }

    /// Reads the next page of the store. Returns `None` if the stream has to end.
    async fn read_page(&mut self) -> Option<()> {
        match self.page().await {
            Ok((next, text)) => {
                // Without room for it, the page takes no memory, and is read again when there is room.
                if let Some(held) = self.share(text.len()) {
                    self.held = held;
                    self.taken = next;
                    self.rest = text.into();
                }
                Some(())
            }
            Err(ListSealedError::Read(fault)) if fault.kind() != FaultKind::Closed => {
                error!(cause = fault.in_full(), "the store could not be read for a reader of the feed");
                self.wait = Wait::Until(Instant::now() + RETRY_AFTER);
                Some(())
            }
            Err(_) => None,
        }
    }

    /// Reads turns after those that were taken. Of the turns of one conversation, few may be among very many, so more
    /// are read at once.
    ///
    /// Returns the position up to which they were read, and the events of those that are asked for. Turns behind the target
    /// come from the hub, in order with its other lines.
    async fn page(&self) -> Result<(u64, Vec<u8>), ListSealedError> {
        let limit = if self.seat.conversation_id().is_some() { SealedPage::MAX_POSITIONS } else { PAGE_TURNS };
        let list = ListSealed { after: Some(self.at(self.taken)), limit };
        let _permit = self.api.feed.may_read().await;
        match self.api.handles.reads.list_sealed.send(list).await {
            Ok(Ok(page)) => Ok((page.next.number.min(self.target), self.text_of(&page))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Fault::closed().into()),
        }
    }

    fn text_of(&self, page: &SealedPage) -> Vec<u8> {
        let mut text = Vec::new();
        let is_wanted = |id: &ConversationId| self.seat.conversation_id().is_none_or(|wanted| wanted == id);
        let turns = page.turns.iter().take_while(|turn| turn.position.number <= self.target);
        for turn in turns.filter(|turn| is_wanted(&turn.conversation_id)) {
            // If a turn cannot be written, the log has the reason.
            text.extend(line::sealed(turn).unwrap_or_default());
        }
        text
    }

    /// Reads the open turns that have to be sent. A turn that is sealed by now is no longer open.
    async fn read_open(&mut self) {
        let owed = mem::replace(&mut self.owed, OwedTurns::Nothing);
        let (conversation_id, one) = match (&owed, self.seat.conversation_id()) {
            (OwedTurns::One(open), _) => (open.conversation_id.clone(), Some(&open.turn_id)),
            (OwedTurns::OfConversation, Some(id)) => (id.clone(), None),
            _ => return,
        };
        let list = ListOpenTurns { conversation_id: conversation_id.clone() };
        let mut text = Vec::new();
        {
            let _permit = self.api.feed.may_read().await;
            // The store's failure is logged. The next change of a turn shows it.
            let Ok(open) = ask_store(&self.api.handles.reads.list_open_turns, list).await else { return };
            let mut unpaused = 0;
            for staged in open.turns.iter().filter(|staged| one.is_none_or(|id| *id == staged.turn.id)) {
                let line = line::open(&conversation_id, &staged.turn.so_far()).unwrap_or_default();
                text.extend(&line);
                line::pause_after_open(&mut unpaused, line.len()).await;
            }
        }
        match self.share(text.len()) {
            Some(held) => {
                self.held = held;
                self.rest = text.into();
            }
            None => self.owed = owed,
        }
    }
}

impl OwedTurns {
    /// Returns what a reader gets when it takes its place at the hub.
    fn at_start(seat: &Seat) -> Self {
        if seat.conversation_id().is_some() { Self::OfConversation } else { Self::Nothing }
    }
}
