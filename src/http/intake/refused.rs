use std::collections::HashMap;

use indexmap::IndexMap;

use crate::http::acknowledged::{Refused, SealedHere};
use crate::turn::{BadEvent, ConversationId, Mention, TurnId};

/// The maximum number of refused lines and conversations that an answer lists.
pub(crate) const MAX_NAMED: usize = 100;
/// The maximum number of affected turns that are remembered.
const MAX_AFFECTED_TURNS: usize = 1000;

/// The first refused lines and conversations of a body, and the total number of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RefusedLines {
    pub(crate) named: Vec<Refused>,
    pub(crate) count: u64,
    /// The turns that refused lines mention.
    affected_turns: IndexMap<(ConversationId, TurnId), AffectedTurn>,
}

/// The refused lines that mention one turn.
#[derive(Debug, PartialEq, Eq)]
struct AffectedTurn {
    /// The number of the first refused line that mentions the turn.
    line: u64,
    /// The number of the first refused line that would have ended the turn.
    done_line: Option<u64>,
}

impl RefusedLines {
    /// Adds a refused line. `error` is `None` if the error of an earlier line is the reason for this line too.
    pub(crate) fn add_line(&mut self, line: u64, error: Option<&BadEvent>, mentions: impl FnOnce() -> Vec<Mention>) {
        self.count += 1;
        // A body may have millions of bad lines, so a message is only made if the answer lists it.
        if let Some(error) = error
            && self.named.len() < MAX_NAMED
        {
            self.named.push(Refused { line, error: error.to_string(), conversation_id: None });
        }
        if self.affected_turns.len() >= MAX_AFFECTED_TURNS {
            return;
        }
        for Mention { conversation_id, turn_id, is_done } in mentions() {
            let turn =
                self.affected_turns.entry((conversation_id, turn_id)).or_insert(AffectedTurn { line, done_line: None });
            turn.done_line = turn.done_line.or(is_done.then_some(line));
        }
    }

    /// Adds conversations that were refused completely, each with its first line.
    pub(crate) fn add_conversations(&mut self, conversations: Vec<Refused>) {
        self.count += conversations.len() as u64;
        self.named.extend(conversations);
        self.named.sort_by_key(|refused| refused.line);
        self.named.truncate(MAX_NAMED);
    }

    /// Returns warnings about the affected turns. Turns that were sealed without a refused line come first, because
    /// nothing can repair them. Turns that stay open come after them.
    pub(crate) fn warnings(&self, sealed: &[SealedHere]) -> Vec<String> {
        if self.affected_turns.is_empty() {
            return Vec::new();
        }
        // For each sealed turn, whether this request sealed it.
        let mut is_sealed_here: HashMap<(&ConversationId, &TurnId), bool> = HashMap::new();
        for here in sealed {
            *is_sealed_here.entry((&here.conversation_id, &here.turn_id)).or_default() |= !here.duplicate;
        }
        let (mut incomplete, mut open) = (Vec::new(), Vec::new());
        for ((conversation_id, turn_id), AffectedTurn { line, done_line }) in &self.affected_turns {
            match (is_sealed_here.get(&(conversation_id, turn_id)), done_line) {
                (Some(true), _) => incomplete.push(format!(
                    "conversation `{conversation_id}`: turn `{turn_id}` was sealed without line {line}, which was refused"
                )),
                (None, Some(line)) => open.push(format!(
                    "conversation `{conversation_id}`: line {line}, which was refused, would have ended turn \
                     `{turn_id}`; if no other `done` has, the turn stays open"
                )),
                _ => {}
            }
        }
        incomplete.append(&mut open);
        let more = incomplete.len().saturating_sub(MAX_NAMED);
        if more > 0 {
            incomplete.truncate(MAX_NAMED - 1);
            incomplete.push(format!("refused lines mention {} more turns", more + 1));
        }
        incomplete
    }
}

/// The turns that the events of one conversation would end. If the events are refused, the message names these turns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    first: Option<TurnId>,
    count: usize,
}

impl Ends {
    pub(crate) fn add(&mut self, turn_id: &TurnId) {
        self.first.get_or_insert_with(|| turn_id.clone());
        self.count += 1;
    }

    /// Returns a sentence that these turns stay open, to append to a refusal.
    pub(crate) fn stay_open(&self) -> String {
        match &self.first {
            None => String::new(),
            Some(first) if self.count == 1 => format!("; turn `{first}`, which it would have ended, stays open"),
            Some(first) => {
                format!("; turn `{first}` and {} more, which it would have ended, stay open", self.count - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::parse_line;

    fn mention(turn_id: &str, is_done: bool) -> Mention {
        let conversation_id = ConversationId::new("c").unwrap();
        Mention { conversation_id, turn_id: TurnId::new(turn_id).unwrap(), is_done }
    }

    #[test]
    fn a_turn_that_is_sealed_without_a_line_is_told_before_all_turns_that_stay_open() {
        let error = parse_line(b"x").unwrap_err();
        let mut refused = RefusedLines::default();
        // One turn has more bad lines than the number of turns that are remembered.
        for line in 1..=2000 {
            refused.add_line(line, Some(&error), || vec![mention("same", false)]);
        }
        for line in 2001..=2200 {
            refused.add_line(line, Some(&error), || vec![mention(&format!("open{line}"), true)]);
        }
        refused.add_line(2201, Some(&error), || vec![mention("cut", false)]);
        assert_eq!((refused.count, refused.named.len()), (2201, MAX_NAMED));
        let sealed = SealedHere::new(ConversationId::new("c").unwrap(), TurnId::new("cut").unwrap());
        let warnings = refused.warnings(&[sealed]);
        assert_eq!(warnings.len(), MAX_NAMED);
        assert!(warnings[0].contains("turn `cut` was sealed without line 2201"), "{}", warnings[0]);
        assert!(warnings[1].contains("line 2001") && warnings[1].contains("stays open"), "{}", warnings[1]);
        assert_eq!(warnings[MAX_NAMED - 1], "refused lines mention 102 more turns");
    }
}
