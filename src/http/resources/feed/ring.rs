use std::collections::VecDeque;
use std::rc::Rc;

use actix_web::web::Bytes;

use crate::turn::{ConversationId, TurnId};

/// How many lines a hub keeps for readers that are not as fast as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RingLimits {
    /// The maximum number of lines of the ring.
    pub(super) lines: usize,
    /// The maximum number of bytes of the ring, unless its latest line alone has more.
    pub(super) bytes: usize,
    /// The maximum number of lines that wait for one reader of one conversation. A reader with more of them is behind.
    pub(super) waiting: usize,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self { lines: 4096, bytes: 4 * 1024 * 1024, waiting: 256 }
    }
}

/// An event as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) conversation_id: ConversationId,
    /// Whether the line says that the conversation was erased.
    pub(super) is_erasure: bool,
    /// The number of the position, if the line is that of a sealed turn.
    pub(super) position: Option<u64>,
    /// The turn, if the line is that of an open turn.
    pub(super) open: Option<Rc<Open>>,
    /// The whole event. Clones share it.
    pub(super) text: Bytes,
}

/// The open turn of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) conversation_id: ConversationId,
    pub(super) turn_id: TurnId,
    /// The position up to which the hub had published sealed turns when it read this turn. The turn is not among them,
    /// but it may be among those that were sealed later.
    pub(super) seen: u64,
}

/// The latest lines, each with a number: 0, 1, 2, ... in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Ring {
    lines: VecDeque<Line>,
    /// The number of the first line that is still there.
    first: u64,
    bytes: usize,
    limits: RingLimits,
}

impl Ring {
    pub(super) fn new(limits: RingLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn limits(&self) -> RingLimits {
        self.limits
    }

    /// Adds a line and returns its number. The oldest lines go if there are too many.
    pub(super) fn push(&mut self, line: Line) -> u64 {
        let number = self.end();
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > self.limits.lines || (self.bytes > self.limits.bytes && self.lines.len() > 1) {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.text.len();
            self.first += 1;
        }
        number
    }

    /// Empties the lines of a conversation.
    pub(super) fn erase(&mut self, conversation_id: &ConversationId) {
        for line in self.lines.iter_mut().filter(|line| line.conversation_id == *conversation_id && !line.is_erasure) {
            self.bytes -= line.text.len();
            (line.open, line.text) = (None, Bytes::new());
        }
    }

    /// Returns the number of the next line.
    pub(super) fn end(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    /// Returns the line of a number. `None` if the line is gone, or is not there yet.
    pub(super) fn get(&self, number: u64) -> Option<&Line> {
        self.lines.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(len: usize) -> Line {
        line_of("c", len)
    }

    fn line_of(conversation: &str, len: usize) -> Line {
        let conversation_id = ConversationId::new(conversation).unwrap();
        Line { conversation_id, is_erasure: false, position: Some(7), open: None, text: vec![b'x'; len].into() }
    }

    #[test]
    fn the_latest_lines_stay_up_to_a_number() {
        let mut ring = Ring::new(RingLimits { lines: 3, ..RingLimits::default() });
        for number in 0..5 {
            assert_eq!(ring.push(line(1)), number);
        }
        assert_eq!(ring.end(), 5);
        assert_eq!([0, 1, 2, 4, 5].map(|at| ring.get(at).is_some()), [false, false, true, true, false]);
    }

    #[test]
    fn the_lines_of_an_erased_conversation_are_empty_and_keep_their_numbers_and_positions() {
        let mut ring = Ring::new(RingLimits { bytes: 100, ..RingLimits::default() });
        for conversation in ["c", "d", "c"] {
            ring.push(line_of(conversation, 30));
        }
        ring.push(Line { is_erasure: true, position: None, ..line_of("c", 5) });
        ring.erase(&ConversationId::new("c").unwrap());
        let seen = [0, 1, 2, 3].map(|at| ring.get(at).map(|line| (line.text.len(), line.position)));
        assert_eq!(seen, [Some((0, Some(7))), Some((30, Some(7))), Some((0, Some(7))), Some((5, None))]);
        ring.push(line_of("e", 60));
        assert!(ring.get(0).is_some(), "the empty lines take no bytes");
    }

    #[test]
    fn the_latest_lines_stay_up_to_a_size_and_the_very_latest_stays_in_any_case() {
        let mut ring = Ring::new(RingLimits { bytes: 100, ..RingLimits::default() });
        for _ in 0..3 {
            ring.push(line(50));
        }
        assert_eq!([0, 1, 2].map(|at| ring.get(at).is_some()), [false, true, true]);
        ring.push(line(200));
        assert_eq!([2, 3].map(|at| ring.get(at).is_some()), [false, true]);
        ring.push(line(1));
        assert_eq!([3, 4].map(|at| ring.get(at).is_some()), [false, true]);
    }
}
