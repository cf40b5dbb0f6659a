use std::collections::HashMap;
use std::sync::Arc;

use crate::turn::{ConversationId, Mention, TurnId};

/// The maximum number of turns that are remembered at once.
const MAX_TURNS: usize = 10_000;

/// The open turns that refused lines mention, across all batches of a run.
///
/// If the batch with the refused line also seals the turn, the server reports the turn. Only `ingest` can see that a
/// later batch seals it, and only `ingest` knows the long lines that it refuses itself.
#[derive(Default)]
pub(super) struct AffectedTurns {
    turns: HashMap<(ConversationId, TurnId), Place>,
    /// Whether a turn was not remembered because there was no room.
    is_overfull: bool,
}

/// The first refused line of a turn.
struct Place {
    input: Arc<str>,
    line: u64,
}

impl AffectedTurns {
    /// Remembers the turn that a refused line mentions.
    pub(super) fn add(&mut self, mention: Mention, input: &Arc<str>, line: u64) {
        let turn = (mention.conversation_id, mention.turn_id);
        if self.turns.len() < MAX_TURNS {
            self.turns.entry(turn).or_insert_with(|| Place { input: input.clone(), line });
        } else if !self.turns.contains_key(&turn) {
            self.is_overfull = true;
        }
    }

    /// Forgets a turn that has been sealed. Returns the warning about it if a refused line mentions it.
    pub(super) fn seal(&mut self, conversation_id: &ConversationId, turn_id: &TurnId) -> Option<String> {
        if self.turns.is_empty() {
            return None;
        }
        let Place { input, line } = self.turns.remove(&(conversation_id.clone(), turn_id.clone()))?;
        Some(sealed_without(&input, line, conversation_id, turn_id))
    }

    /// Returns a note if some turns were not remembered.
    pub(super) fn overflow(&self) -> Option<String> {
        self.is_overfull
            .then(|| format!("refused lines mention more than {MAX_TURNS} open turns; the others were not tracked"))
    }
}

/// The warning about a turn that was sealed without a refused line.
pub(super) fn sealed_without(input: &str, line: u64, conversation_id: &ConversationId, turn_id: &TurnId) -> String {
    format!(
        "{input}: conversation `{conversation_id}`: turn `{turn_id}` was sealed without line {line}, which was refused"
    )
}

/// The warning about a turn whose `done` was refused.
pub(super) fn stays_open(input: &str, line: u64, conversation_id: &ConversationId, turn_id: &TurnId) -> String {
    format!(
        "{input}: conversation `{conversation_id}`: line {line}, which was refused, would have ended turn `{turn_id}`; \
         if no other `done` has, the turn stays open"
    )
}

/// The warning about a turn whose `done` was not sent, because its conversation is over a limit.
pub(super) fn unended(input: &str, line: u64, conversation_id: &ConversationId, turn_id: &TurnId) -> String {
    format!(
        "{input}: conversation `{conversation_id}`: line {line}, which was not sent, would have ended turn `{turn_id}`; \
         if no other `done` has, the turn stays open"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mention(turn_id: &str) -> Mention {
        let conversation_id = ConversationId::new("c").unwrap();
        Mention { conversation_id, turn_id: TurnId::new(turn_id).unwrap(), is_done: false }
    }

    fn seal(affected_turns: &mut AffectedTurns, turn_id: &str) -> Option<String> {
        let Mention { conversation_id, turn_id, .. } = mention(turn_id);
        affected_turns.seal(&conversation_id, &turn_id)
    }

    #[test]
    fn a_turn_is_reported_once_with_its_first_refused_line_whichever_batch_seals_it() {
        let mut affected_turns = AffectedTurns::default();
        let (first, second) = ("monday".into(), "tuesday".into());
        affected_turns.add(mention("t"), &first, 7);
        affected_turns.add(mention("t"), &second, 3);
        assert_eq!(seal(&mut affected_turns, "other"), None);
        let told = seal(&mut affected_turns, "t").unwrap();
        assert_eq!(told, "monday: conversation `c`: turn `t` was sealed without line 7, which was refused");
        assert_eq!(seal(&mut affected_turns, "t"), None);
        assert_eq!(affected_turns.overflow(), None);
    }

    #[test]
    fn the_number_of_remembered_turns_is_limited_and_excess_turns_are_noted() {
        let mut affected_turns = AffectedTurns::default();
        let input = "x".into();
        for nth in 0..MAX_TURNS {
            affected_turns.add(mention(&nth.to_string()), &input, 1);
        }
        affected_turns.add(mention("0"), &input, 2);
        assert_eq!(affected_turns.overflow(), None, "this turn is remembered already");
        affected_turns.add(mention("more"), &input, 2);
        assert_eq!(affected_turns.turns.len(), MAX_TURNS);
        assert!(affected_turns.overflow().is_some() && seal(&mut affected_turns, "more").is_none());
        assert!(seal(&mut affected_turns, "1").is_some());
        affected_turns.add(mention("later"), &input, 3);
        assert!(seal(&mut affected_turns, "later").is_some(), "a turn that is sealed makes room for another");
    }
}
