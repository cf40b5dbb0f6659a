use std::mem;

use tokio::task::yield_now;

use super::refused::Ends;
use crate::turn::{TurnEvent, TurnEventKind};

/// A list of events that grows by little and is not moved as it grows, so that its memory is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct EventChunks {
    full: Vec<Vec<TurnEvent>>,
    last: Vec<TurnEvent>,
    len: usize,
    /// How often an event has another turn than the event before it.
    changes: usize,
    ends: Ends,
}

/// The length up to which the events are in a single chunk, as in any vector. Most bodies have fewer events of a
/// conversation.
const FIRST_EVENTS: usize = 64;

/// The maximum length of a chunk. It has less than 1 MiB.
const CHUNK_EVENTS: usize = 4096;

impl EventChunks {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TurnEvent> {
        self.full.iter().flatten().chain(&self.last)
    }

    /// Returns at least the number of turns to which the events belong. The result is too high if events of several turns
    /// alternate.
    pub(crate) fn turns(&self) -> usize {
        1 + self.changes
    }

    /// Returns the turns that the events would end.
    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Adds an event. Returns how many bytes of memory were allocated for it and for later events.
    pub(crate) fn push(&mut self, event: TurnEvent) -> usize {
        let previous = self.last.last().or_else(|| self.full.last()?.last());
        self.changes += usize::from(previous.is_some_and(|previous| previous.turn_id != event.turn_id));
        if let TurnEventKind::Done(_) = event.kind {
            self.ends.add(&event.turn_id);
        }
        let (before, list_before) = (self.last.capacity(), self.full.capacity());
        let mut room = 0;
        if self.last.len() == before {
            if self.len < FIRST_EVENTS {
                self.last.reserve_exact(self.len.max(1));
                room = self.last.capacity() - before;
            } else {
                // A quarter more.
                let next = Vec::with_capacity((self.len / 4).min(CHUNK_EVENTS));
                room = next.capacity();
                self.full.push(mem::replace(&mut self.last, next));
            }
        }
        self.last.push(event);
        self.len += 1;
        room * size_of::<TurnEvent>() + (self.full.capacity() - list_before) * size_of::<Vec<TurnEvent>>()
    }

    /// Returns the events as one vector. Each chunk is freed as soon as its events were moved. The events may be very
    /// many, so other tasks of the thread run after each chunk.
    pub(crate) async fn into_vec(self) -> Vec<TurnEvent> {
        let Self { full, last, len, .. } = self;
        if full.is_empty() {
            return last;
        }
        let mut events = Vec::with_capacity(len);
        for chunk in full.into_iter().chain([last]) {
            events.extend(chunk);
            yield_now().await;
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{Progress, TurnEventKind, TurnId};

    fn event(nth: usize) -> TurnEvent {
        TurnEvent { turn_id: TurnId::new(nth.to_string()).unwrap(), kind: TurnEventKind::Progress(Progress::Failed) }
    }

    #[actix_web::test]
    async fn the_events_keep_their_order_and_few_are_allocated_ahead() {
        for len in [0, 1, 2, 63, 64, 65, 100, 1000, 50_000] {
            let (mut chunks, mut bytes) = (EventChunks::default(), 0);
            let events: Vec<_> = (0..len).map(event).collect();
            for event in &events {
                bytes += chunks.push(event.clone());
            }
            assert_eq!(chunks.len(), len);
            assert!(chunks.iter().eq(&events), "{len}");
            let used = len * size_of::<TurnEvent>();
            let ahead = if len <= FIRST_EVENTS { used } else { used / 4 + 1000 };
            assert!(bytes >= used && bytes <= used + ahead, "{bytes} bytes for {len} events");
            assert_eq!(chunks.into_vec().await, events);
        }
    }
}
