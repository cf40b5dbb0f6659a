use serde::Serialize;

use super::events::SealedHere;
use crate::turn::{ConversationId, Mention, TurnId};

/// The most refused lines and conversations that an answer names.
pub(super) const MAX_NAMED: usize = 100;
/// The most turns that are remembered for the refused lines that speak of them.
const MAX_DOUBTS: usize = 1000;

/// A line that was refused, or a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refused {
    /// The line; of a conversation its first one.
    pub(super) line: u64,
    pub(super) error: String,
    /// The conversation that was refused whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) conversation_id: Option<ConversationId>,
}

/// What was refused of a body: the first of it, and how much it was.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RefusedLines {
    pub(super) named: Vec<Refused>,
    pub(super) count: u64,
    /// The turns that refused lines speak of.
    doubts: Vec<Doubt>,
}

/// A turn of which a line was refused.
#[derive(Debug, PartialEq, Eq)]
struct Doubt {
    line: u64,
    mention: Mention,
}

impl RefusedLines {
    /// Notes a line that was refused.
    pub(super) fn add_line(&mut self, line: u64, error: String, mentions: impl FnOnce() -> Vec<Mention>) {
        self.count += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(Refused { line, error, conversation_id: None });
        }
        if self.doubts.len() < MAX_DOUBTS {
            self.doubts.extend(mentions().into_iter().map(|mention| Doubt { line, mention }));
        }
    }

    /// Notes conversations that were refused whole, each with its first line.
    pub(super) fn add_conversations(&mut self, conversations: Vec<Refused>) {
        self.count += conversations.len() as u64;
        self.named.extend(conversations);
        self.named.sort_by_key(|refused| refused.line);
        self.named.truncate(MAX_NAMED);
    }

    /// What is to be told of the turns that refused lines speak of.
    pub(super) fn warnings(&self, sealed: &[SealedHere]) -> Vec<String> {
        self.doubts.iter().filter_map(|doubt| doubt.warning(sealed)).take(MAX_NAMED).collect()
    }
}

impl Doubt {
    fn warning(&self, sealed: &[SealedHere]) -> Option<String> {
        let Self { line, mention: Mention { conversation_id, turn_id, is_done } } = self;
        let mut here = sealed.iter().filter(|here| here.is(conversation_id, turn_id)).peekable();
        let is_known = here.peek().is_some();
        if here.any(|here| !here.duplicate) {
            return Some(format!(
                "conversation `{conversation_id}`: turn `{turn_id}` was sealed without line {line}, which was refused"
            ));
        }
        (*is_done && !is_known).then(|| {
            format!(
                "conversation `{conversation_id}`: line {line}, which was refused, would have ended turn `{turn_id}`; \
                 if no other `done` has, the turn stays open"
            )
        })
    }
}

/// The turns that a message to a conversation would end, in case the message is refused.
pub(super) struct Ends {
    first: Option<TurnId>,
    count: usize,
}

impl Ends {
    pub(super) fn of<'a>(mut turns: impl Iterator<Item = &'a TurnId>) -> Self {
        let first = turns.next().cloned();
        Self { count: usize::from(first.is_some()) + turns.count(), first }
    }

    /// That they stay open, to be put after a refusal.
    pub(super) fn stay_open(&self) -> String {
        match &self.first {
            None => String::new(),
            Some(first) if self.count == 1 => format!("; turn `{first}`, which it would have ended, stays open"),
            Some(first) => {
                format!("; turn `{first}` and {} more, which it would have ended, stay open", self.count - 1)
            }
        }
    }
}
