use actix_web::web::Data;

use super::answer::write;
use super::api::{Api, ask_sealed, ask_store};
use super::held_bytes::ReadBudget;
use super::pieces::{Pieces, written_at_once};
use super::query::Query;
use crate::actors::{BeginExport, ListErasedSums, ListSealed};
use crate::http::error::ApiError;
use crate::store::{ErasedSumsId, ExportHold, Position, PositionedTurn};

/// How many turns are read at once. They make about 30 KiB of JSON.
pub(crate) const TURNS_READ_AT_ONCE: usize = 64;

/// The name of the parameter with the position after which a list begins.
pub(crate) const AFTER: &str = "after";

/// Returns the position after which the list of a query begins; `None` for the first turn.
pub(crate) fn after(query: &Query) -> Result<Option<Position>, ApiError> {
    query.parsed(AFTER, "a position from an earlier answer", |text| text.parse().ok())
}

/// Sealed turns of all conversations in the order in which they became durable, which are read and written as JSON
/// piece by piece.
pub(crate) struct SealedList {
    api: Data<Api>,
    form: Form,
    place: Place,
    /// Keeps turns from being dropped until the list is sent.
    _hold: Option<ExportHold>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A JSON object with an array of turns and the position for the next page.
    Page,
    /// A turn on each line. The last line has the position of the last turn.
    Lines,
}

/// How far a list has been read and written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Whether the list begins with the sums of erased turns, and how far these have been read.
    sums: Option<SumsPlace>,
    /// The position up to which the store was read. `None` if the list begins with the first turn and nothing was read
    /// yet.
    after: Option<Position>,
    /// The position of the list's last turn, if the list ends there.
    last: Option<Position>,
    is_any_written: bool,
    is_done: bool,
    /// How many more turns the list may have.
    left: usize,
    /// How many more bytes the list may have.
    left_bytes: usize,
    /// How many turns, and sums of erased turns, the list leaves out because they are damaged.
    left_out: u64,
}

/// How far the sums of erased turns have been read.
#[derive(Debug, Clone, Copy)]
struct SumsPlace {
    /// The last sums that were read; `None` if none were read yet.
    after: Option<ErasedSumsId>,
}

impl SealedList {
    /// The JSON of a page before the first turn.
    pub(crate) const BEGIN: &[u8] = br#"{"turns":["#;

    /// Returns a page of at most this number of turns.
    pub(crate) fn page(api: Data<Api>, after: Option<Position>, limit: usize) -> Self {
        let left_bytes = api.settings.max_page_bytes;
        let (last, sums, left) = (None, None, limit);
        let place = Place { sums, after, last, is_any_written: false, is_done: false, left, left_bytes, left_out: 0 };
        Self { api, form: Form::Page, place, _hold: None }
    }

    /// Returns the lines of all turns that are stored when the first of them are read. So the list ends, however fast
    /// others are sealed meanwhile. A list from the first turn on begins with the sums of erased turns, and no turn is
    /// dropped before it is sent.
    pub(crate) async fn lines(api: Data<Api>, after: Option<Position>) -> Result<Self, ApiError> {
        let hold = match after {
            None => Some(ask_store(&api.handles.reads.begin_export, BeginExport).await?),
            Some(_) => None,
        };
        let (last, sums) = (None, hold.as_ref().map(|_| SumsPlace { after: None }));
        let (left, left_bytes) = (usize::MAX, usize::MAX);
        let place = Place { sums, after, last, is_any_written: false, is_done: false, left, left_bytes, left_out: 0 };
        Ok(Self { api, form: Form::Lines, place, _hold: hold })
    }

    /// Reads the next sums of erased turns, and writes a line for each.
    async fn read_sums(&mut self, sums: SumsPlace, json: &mut Vec<u8>) -> Result<(), ApiError> {
        let asked = ListErasedSums { after: sums.after, limit: TURNS_READ_AT_ONCE };
        let page = ask_store(&self.api.handles.reads.list_erased_sums, asked).await?;
        for sums in &page.sums {
            match sums.to_line() {
                Ok(line) => json.extend(line.bytes().chain([b'\n'])),
                Err(error) => {
                    tracing::error!(%error, id = %sums.id, "sums of erased turns cannot be exported");
                    return Err(ApiError::ReadFailed);
                }
            }
        }
        self.place.left_out += page.left_out;
        self.place.sums = page.next.map(|next| SumsPlace { after: Some(next) });
        Ok(())
    }

    /// Writes the turns up to a position. Returns whether the list has as many turns or bytes as it may have.
    fn write_turns(&mut self, turns: &[PositionedTurn], last: Position, json: &mut Vec<u8>) -> Result<bool, ApiError> {
        for sealed in turns.iter().take_while(|sealed| sealed.position.number <= last.number) {
            let before = json.len();
            self.write(sealed, json)?;
            let place = &mut self.place;
            place.after = Some(sealed.position);
            place.left -= 1;
            place.left_bytes = place.left_bytes.saturating_sub(json.len() - before);
            if place.left == 0 || place.left_bytes == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn write(&mut self, sealed: &PositionedTurn, json: &mut Vec<u8>) -> Result<(), ApiError> {
        if self.form == Form::Page && self.place.is_any_written {
            json.push(b',');
        }
        self.place.is_any_written = true;
        write_turn(sealed, json)?;
        if self.form == Form::Lines {
            json.push(b'\n');
        }
        Ok(())
    }
}

/// Writes a turn with its position and its conversation, as one JSON object.
pub(crate) fn write_turn(sealed: &PositionedTurn, json: &mut Vec<u8>) -> Result<(), ApiError> {
    json.extend(format!(r#"{{"position":"{}","conversationId":"#, sealed.position).bytes());
    write(&sealed.conversation_id, json)?;
    let brace = json.len();
    write(&sealed.turn, json)?;
    // The fields of the turn continue the object.
    json[brace] = b',';
    Ok(())
}

impl Pieces for SealedList {
    type Place = Place;

    fn place(&mut self) -> &mut Place {
        &mut self.place
    }

    fn budget(&self) -> ReadBudget {
        self.api.reads.clone()
    }

    fn content_type(&self) -> &'static str {
        match self.form {
            Form::Page => "application/json",
            Form::Lines => "application/x-ndjson",
        }
    }

    fn is_done(&self) -> bool {
        self.place.is_done
    }

    fn end(&self) -> Vec<u8> {
        let position = self.place.after.map(|position| position.to_string()).unwrap_or_default();
        match self.form {
            Form::Page => format!(r#"],"next":"{position}"}}"#).into_bytes(),
            Form::Lines => match self.place.left_out {
                0 => format!("{{\"end\":\"{position}\"}}\n").into_bytes(),
                left_out => format!("{{\"end\":\"{position}\",\"leftOut\":{left_out}}}\n").into_bytes(),
            },
        }
    }

    async fn read(&mut self, json: &mut Vec<u8>) -> Result<(), ApiError> {
        if let Some(sums) = self.place.sums {
            return self.read_sums(sums, json).await;
        }
        let asked = ListSealed { after: self.place.after, limit: self.place.left.min(TURNS_READ_AT_ONCE) };
        let page = ask_sealed(&self.api.handles.reads.list_sealed, asked).await?;
        if self.form == Form::Lines {
            self.place.last.get_or_insert(page.latest);
        }
        self.place.left_out += page.left_out;
        let last = self.place.last.unwrap_or(page.latest);
        let is_done = written_at_once(json, |json| self.write_turns(&page.turns, last, json))?;
        if is_done {
            self.place.is_done = true;
            return Ok(());
        }
        // Positions whose turns were left out are behind the last turn of the page.
        let next = if page.next.number < last.number { page.next } else { last };
        self.place.after = Some(next);
        self.place.is_done = next.number >= last.number;
        Ok(())
    }
}
