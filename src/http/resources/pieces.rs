use std::cell::Cell;

use actix_web::http::Method;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, HttpResponseBuilder};
use futures_util::stream;

use super::held_bytes::{FREE_BYTES, HeldBytes, ReadBudget};
use super::parts::{in_parts, next_part};
use crate::http::error::{ApiError, Unavailable};

/// An answer that is read from the store and written piece by piece. So it takes little memory, however long it is and
/// however slowly its client reads.
pub(crate) trait Pieces: Sized + 'static {
    /// How far the answer has been read and written.
    type Place: Copy;

    /// Returns the media type of the answer.
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    /// Returns the place. Setting it to an earlier value makes `read` read the same piece again.
    fn place(&mut self) -> &mut Self::Place;

    /// Returns the budget for answers that clients have not read yet.
    fn budget(&self) -> ReadBudget;

    /// Returns whether the whole answer has been read.
    fn is_done(&self) -> bool;

    /// Returns the text after the last piece.
    fn end(&self) -> Vec<u8>;

    /// Reads the next piece and writes it, whatever its size. Its turns are written with [`written_at_once`].
    async fn read(&mut self, text: &mut Vec<u8>) -> Result<(), ApiError>;

    /// Reads the beginning of the answer. If the answer has at most `whole_bytes` and the budget has room for them,
    /// reads all of it. So a failure of the store is found before the head of the answer is sent.
    ///
    /// `text` has what is written already, and `held` is the share of the budget for it.
    async fn begin(
        &mut self,
        mut text: Vec<u8>,
        mut held: HeldBytes,
        whole_bytes: usize,
    ) -> Result<Beginning, ApiError> {
        let budget = self.budget();
        while !self.is_done() && text.len() <= whole_bytes {
            // With another piece, the answer may become longer than a connection may hold without a share of the
            // budget.
            if text.len() > FREE_BYTES / 2 && held.is_free() {
                let Some(room) = budget.try_hold(whole_bytes) else { break };
                held = room;
            }
            self.read(&mut text).await?;
        }
        held.shrink(text.len());
        if held.bytes() < text.len() {
            // A turn was longer than expected. Return the share before asking for a larger one.
            drop(held);
            held = budget.try_hold(text.len()).ok_or(ApiError::Unavailable(Unavailable::TooMuchUnread))?;
        }
        Ok(Beginning { text, held })
    }

    /// Reads the next piece. If the budget has no room for the piece, drops it, waits for room and reads it again.
    async fn next_piece(&mut self) -> Result<(Vec<u8>, HeldBytes), ApiError> {
        let (before, budget) = (*self.place(), self.budget());
        let mut text = Vec::new();
        self.read(&mut text).await?;
        if let Some(held) = budget.try_hold(text.len()) {
            return Ok((text, held));
        }
        let len = text.len();
        drop(text);
        let held = budget.hold(len).await;
        *self.place() = before;
        let mut text = Vec::with_capacity(len);
        self.read(&mut text).await?;
        Ok((text, held))
    }

    /// Answers with the beginning, and with the rest if there is one.
    fn answer(self, beginning: Beginning, method: &Method, mut response: HttpResponseBuilder) -> HttpResponse {
        if !self.is_done() {
            return self.stream(beginning, method, response);
        }
        let Beginning { mut text, held } = beginning;
        text.extend(self.end());
        response.content_type(self.content_type()).body(in_parts(text.into(), held))
    }

    /// Answers with the beginning, and reads the rest as fast as the client reads the answer.
    fn stream(self, beginning: Beginning, method: &Method, mut response: HttpResponseBuilder) -> HttpResponse {
        response.content_type(self.content_type());
        if method == Method::HEAD {
            // A HEAD request gets the same head, and nothing is read for it.
            return response.streaming(stream::empty::<Result<Bytes, ApiError>>());
        }
        let Beginning { text, held } = beginning;
        let rest = Rest { answer: self, piece: text.into(), held, has_ended: false };
        response.streaming(stream::try_unfold(rest, Rest::next))
    }
}

/// The memory for the next text that this thread writes. A text of up to so many bytes leaves its memory here.
const KEPT_BYTES: usize = 1024 * 1024;

thread_local! {
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Appends what `write` writes, and takes no more memory than its length. A text that grows takes up to twice its
/// length, is copied as it grows, and leaves memory in all the lengths that it had.
pub(crate) fn written_at_once<T>(text: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut room = ROOM.take();
    let written = write(&mut room);
    text.reserve_exact(room.len());
    text.extend_from_slice(&room);
    if room.capacity() <= KEPT_BYTES {
        room.clear();
        ROOM.set(room);
    }
    written
}

/// The beginning of an answer, which is read before the head of the answer is sent.
pub(crate) struct Beginning {
    pub(crate) text: Vec<u8>,
    pub(crate) held: HeldBytes,
}

/// The rest of an answer, which is not sent yet.
struct Rest<P> {
    answer: P,
    piece: Bytes,
    /// The share of the budget for the piece.
    held: HeldBytes,
    /// Whether the piece is the last one.
    has_ended: bool,
}

impl<P: Pieces> Rest<P> {
    /// Takes the next part. The head is sent by now. So if reading fails, the answer ends without its last chunk, and
    /// the client sees that it is incomplete.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ApiError> {
        while self.piece.is_empty() {
            self.held = HeldBytes::default();
            if self.has_ended {
                return Ok(None);
            }
            if self.answer.is_done() {
                self.piece = self.answer.end().into();
                self.has_ended = true;
            } else {
                let (text, held) = self.answer.next_piece().await?;
                (self.piece, self.held) = (text.into(), held);
            }
        }
        Ok(Some((next_part(&mut self.piece), self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_takes_no_more_memory_than_its_length_and_its_room_is_used_again() {
        let mut text = b"begin".to_vec();
        text.shrink_to_fit();
        let mut room = None;
        for piece in ["x".repeat(100_000), "y".repeat(50_000)] {
            let before = text.clone();
            let address = written_at_once(&mut text, |room| {
                assert!(room.is_empty());
                piece.bytes().for_each(|byte| room.push(byte));
                room.as_ptr() as usize
            });
            assert!(text == [&before, piece.as_bytes()].concat());
            assert_eq!(text.capacity(), text.len());
            assert_eq!(*room.get_or_insert(address), address);
        }
        written_at_once(&mut text, |room| room.reserve(KEPT_BYTES + 1));
        assert_eq!(ROOM.take().capacity(), 0, "very much memory is not kept");
    }
}
