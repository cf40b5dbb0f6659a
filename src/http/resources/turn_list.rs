use actix_web::web::Data;
use tracing::error;

use super::api::{Api, ask_reader};
use super::held_bytes::ReadBudget;
use super::pieces::{Pieces, written_at_once};
use crate::actors::{FindRevision, ListTurns};
use crate::http::error::ApiError;
use crate::report::{Cost, PriceBook};
use crate::store::{RangeEnd, Revision, TurnRange};
use crate::turn::{ConversationId, StoredTurn};

/// How many turns are read at once. They make about 25 KiB of JSON.
pub(crate) const TURNS_READ_AT_ONCE: usize = 64;

/// Returns the number of turns to read next, if this number of turns is left.
fn turns_at_once(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(TURNS_READ_AT_ONCE)
}

/// The form in which a turn is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The metrics alone.
    Metrics,
    /// The whole envelope. The list then ends with the ordinal of its last turn.
    Envelope,
    /// The whole envelope, with the cost of the turn.
    EnvelopeWithCost,
}

/// The sealed turns of a conversation, which are read and written as JSON piece by piece.
pub(crate) struct TurnList {
    api: Data<Api>,
    id: ConversationId,
    form: Form,
    /// The last ordinal of the list.
    last: u64,
    place: Place,
    /// The revision of which the list has all turns.
    whole: Option<Revision>,
    /// How many times turns were read.
    reads: usize,
}

/// How far a list has been read and written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The ordinal of the latest turn that was read.
    after: u64,
    /// The number of turns that were written.
    written: u64,
    /// How many more turns the list may have.
    left: u64,
    /// How many more bytes the list may have.
    left_bytes: usize,
}

impl TurnList {
    /// Returns the list of all turns of a revision. Those of an earlier revision of the same life are already written, if
    /// there is one.
    pub(crate) fn whole(api: Data<Api>, id: ConversationId, earlier: Option<Revision>, revision: Revision) -> Self {
        let after = earlier.map_or(0, |earlier| earlier.sealed_turns);
        let written = earlier.map_or(0, |earlier| earlier.stored_turns());
        let place = Place { after, written, left: u64::MAX, left_bytes: usize::MAX };
        Self {
            api,
            id,
            form: Form::Metrics,
            last: revision.sealed_turns,
            place,
            whole: Some(revision),
            reads: usize::from(earlier.is_some()),
        }
    }

    /// Returns a page of at most this number of turns up to the ordinal `last`, with their envelopes.
    pub(crate) fn page(api: Data<Api>, id: ConversationId, (after, last): (u64, u64), limit: u64, form: Form) -> Self {
        let place = Place { after, written: 0, left: limit, left_bytes: api.settings.max_page_bytes };
        Self { api, id, form, last, place, whole: None, reads: 0 }
    }

    /// Moves the beginning of a page, so that the page ends with the latest turns.
    ///
    /// The turns are read from the end to find out how many turns fit. Writing reads the turns again, because the page
    /// may be longer than the bytes that a connection may hold.
    pub(crate) async fn skip_to_latest(&mut self) -> Result<(), ApiError> {
        let Place { after, mut left, mut left_bytes, .. } = self.place;
        let mut first = None;
        let mut json = Vec::new();
        'page: while left > 0 && left_bytes > 0 {
            let range = TurnRange {
                before: first.or(self.last.checked_add(1)),
                end: RangeEnd::Latest,
                ..TurnRange::after(self.id.clone(), after, turns_at_once(left))
            };
            let turns = ask_reader(&self.api.handles.reads.list_turns, ListTurns(range)).await?;
            if turns.is_empty() {
                break;
            }
            for turn in turns.iter().rev() {
                json.clear();
                self.write(turn, &mut json)?;
                first = Some(turn.ordinal.get());
                left -= 1;
                left_bytes = left_bytes.saturating_sub(json.len());
                if left_bytes == 0 {
                    break 'page;
                }
            }
        }
        let place = &mut self.place;
        place.left -= left;
        place.left_bytes = usize::MAX;
        place.after = first.map_or(after, |first| first - 1);
        Ok(())
    }

    /// Returns the number of turns written, including those that were already written at the start.
    pub(crate) fn written(&self) -> u64 {
        self.place.written
    }

    /// The JSON before the first turn.
    pub(crate) const BEGIN: &[u8] = br#"{"turns":["#;

    fn write(&self, turn: &StoredTurn, json: &mut Vec<u8>) -> Result<(), ApiError> {
        if self.place.written > 0 {
            json.push(b',');
        }
        let written = match self.form {
            Form::Metrics => serde_json::to_writer(json, &turn.metrics),
            Form::Envelope => serde_json::to_writer(json, turn),
            Form::EnvelopeWithCost => write_with_cost(turn, &*self.api.prices, json),
        };
        written.map_err(|error| {
            error!(%error, "a turn could not be written as JSON");
            ApiError::LoadFailed
        })
    }
}

impl Pieces for TurnList {
    type Place = Place;

    fn place(&mut self) -> &mut Place {
        &mut self.place
    }

    fn budget(&self) -> ReadBudget {
        self.api.reads.clone()
    }

    fn is_done(&self) -> bool {
        let Place { after, left, left_bytes, .. } = self.place;
        after >= self.last || left == 0 || left_bytes == 0
    }

    fn end(&self) -> Vec<u8> {
        match self.form {
            Form::Metrics => b"]}".to_vec(),
            Form::Envelope | Form::EnvelopeWithCost => {
                format!(r#"],"latestOrdinal":{}}}"#, self.place.after).into_bytes()
            }
        }
    }

    async fn read(&mut self, json: &mut Vec<u8>) -> Result<(), ApiError> {
        let Place { after, left, .. } = self.place;
        let range = TurnRange::after(self.id.clone(), after, turns_at_once((self.last - after).min(left)));
        let turns = ask_reader(&self.api.handles.reads.list_turns, ListTurns(range)).await?;
        // The store skips damaged turns, so it may return turns beyond the last one of the list.
        let last = self.last;
        let mut wanted = turns.iter().take_while(|turn| turn.ordinal.get() <= last).peekable();
        if wanted.peek().is_none() {
            self.place.left = 0;
        }
        written_at_once(json, |json| {
            for turn in wanted {
                let before = json.len();
                self.write(turn, json)?;
                let place = &mut self.place;
                place.after = turn.ordinal.get();
                place.written += 1;
                place.left -= 1;
                place.left_bytes = place.left_bytes.saturating_sub(json.len() - before);
                if place.left_bytes == 0 {
                    break;
                }
            }
            Ok::<_, ApiError>(())
        })?;
        self.reads += 1;
        match self.whole {
            Some(whole) if self.is_done() && self.reads > 1 => self.ensure_same_life(&whole).await,
            _ => Ok(()),
        }
    }
}

impl TurnList {
    /// Fails if turns were dropped or erased while the list was read, so that it never was the list of one moment.
    async fn ensure_same_life(&self, whole: &Revision) -> Result<(), ApiError> {
        let find = FindRevision { conversation_id: self.id.clone() };
        let now = ask_reader(&self.api.handles.reads.find_revision, find).await?;
        if now.is_of_the_same_life(whole) { Ok(()) } else { Err(ApiError::LoadFailed) }
    }
}

/// Writes the envelope of a turn. The last field is the cost of the turn.
pub(crate) fn write_with_cost(turn: &StoredTurn, book: &dyn PriceBook, json: &mut Vec<u8>) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *json, turn)?;
    json.pop();
    json.extend(br#","cost":"#);
    serde_json::to_writer(&mut *json, &Cost::total_of_turn(turn, book).figures())?;
    json.push(b'}');
    Ok(())
}
