use std::time::Duration;

use actix_web::web::{Bytes, Data};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::error;

use super::hub::{Seat, Taken};
use super::line;
use super::ring::Line;
use crate::actors::{ListOpenTurns, ListSealed};
use crate::http::resources::api::{Api, ask_store};
use crate::http::resources::feed_control::ReaderPlace;
use crate::http::resources::held_bytes::{FREE_BYTES, HeldBytes};
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
    /// Whether the open turns of the conversation have to be sent.
    owes_open: bool,
    /// The rest of what is sent at present.
    rest: Bytes,
    /// The share of the budget for `rest`, if it is long.
    held: HeldBytes,
    heartbeat_at: Instant,
    ends_at: Instant,
    _place: ReaderPlace,
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
            owes_open: seat.conversation_id().is_some(),
            rest: rest.into(),
            held: HeldBytes::default(),
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
            if self.owes_open {
                self.owes_open = false;
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

    /// Takes the next line from the hub, or waits for one.
    async fn take(&mut self) {
        let len = self.seat.next_len();
        if len > FREE_BYTES && self.held.bytes() < len {
            // While the reader waits for the budget, the line may go from the ring.
            self.held = self.hold(len).await;
        }
        match self.seat.take(self.taken) {
            // A reader that was behind has turns already that the hub publishes only now.
            Taken::Line(Line { position: Some(position), .. }) if position <= self.taken => {}
            Taken::Line(Line { position, text }) => {
                self.taken = position.unwrap_or(self.taken);
                self.rest = text;
            }
            Taken::Behind { after } => {
                self.taken = after;
                self.seat.join_again();
                self.target = self.seat.position();
                self.owes_open = self.seat.conversation_id().is_some();
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
        let (mut next, mut text) = match self.page().await {
            Ok(page) => page,
            Err(error) => return self.page_failed(error).await,
        };
        self.held = if let Some(held) = self.api.reads.try_hold(text.len()) {
            held
        } else {
            // Read the page again when there is room for it. Until then, it takes no memory.
            let len = text.len();
            drop(text);
            let held = self.hold(len).await;
            (next, text) = match self.page().await {
                Ok(page) => page,
                Err(error) => return self.page_failed(error).await,
            };
            held
        };
        self.taken = next;
        self.rest = text.into();
        Some(())
    }

    /// Waits a moment, so that the same page is read again. Returns `None` if the stream has to end.
    async fn page_failed(&self, error: ListSealedError) -> Option<()> {
        match error {
            ListSealedError::Read(fault) if fault.kind() != FaultKind::Closed => {
                error!(cause = fault.in_full(), "the store could not be read for a reader of the feed");
                self.pause().await;
                Some(())
            }
            _ => None,
        }
    }

    /// Reads turns after those that were taken. Of the turns of one conversation, few may be among very many, so more
    /// are read at once.
    ///
    /// Returns the position up to which they were read, and the events of those that are asked for.
    async fn page(&self) -> Result<(u64, Vec<u8>), ListSealedError> {
        let limit = if self.seat.conversation_id().is_some() { SealedPage::MAX_POSITIONS } else { PAGE_TURNS };
        let list = ListSealed { after: Some(self.at(self.taken)), limit };
        let _permit = self.api.feed.may_read().await;
        match self.api.handles.reads.list_sealed.send(list).await {
            Ok(Ok(page)) => Ok((page.next.number, self.text_of(&page))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Fault::closed().into()),
        }
    }

    fn text_of(&self, page: &SealedPage) -> Vec<u8> {
        let mut text = Vec::new();
        let is_wanted = |id: &ConversationId| self.seat.conversation_id().is_none_or(|wanted| wanted == id);
        for turn in page.turns.iter().filter(|turn| is_wanted(&turn.conversation_id)) {
            // If a turn cannot be written, the log has the reason.
            text.extend(line::sealed(turn).unwrap_or_default());
        }
        text
    }

    /// Reads the open turns of the conversation.
    async fn read_open(&mut self) {
        let Some(id) = self.seat.conversation_id() else { return };
        let list = ListOpenTurns { conversation_id: id.clone() };
        let permit = self.api.feed.may_read().await;
        // The store's failure is logged. The next change of a turn shows it.
        let Ok(open) = ask_store(&self.api.handles.reads.list_open_turns, list).await else { return };
        let mut text = Vec::new();
        for staged in &open.turns {
            text.extend(line::open(id, &staged.turn.so_far()).unwrap_or_default());
        }
        drop(permit);
        if let Some(held) = self.api.reads.try_hold(text.len()) {
            self.held = held;
            self.rest = text.into();
        } else {
            drop(text);
            self.pause().await;
            self.owes_open = true;
        }
    }

    /// Waits until the budget has room for these bytes, and takes a share for them. If the stream has to end before,
    /// the share is empty.
    async fn hold(&self, len: usize) -> HeldBytes {
        tokio::select! {
            held = self.api.reads.hold(len) => held,
            () = self.end() => HeldBytes::default(),
        }
    }

    /// Waits a moment before another attempt.
    async fn pause(&self) {
        tokio::select! {
            () = sleep(RETRY_AFTER) => {}
            () = self.end() => {}
        }
    }

    /// Waits until the stream has to end.
    async fn end(&self) {
        while !self.seat.has_ended() {
            self.seat.news().await;
        }
    }
}
