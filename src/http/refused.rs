use serde::Serialize;

use super::events::SealedHere;
use crate::turn::{ConversationId, Mention, TurnId};

/// The maximum number of refused lines and conversations that an answer names.
pub(super) const MAX_NAMED: usize = 100;
/// The maximum number of turns remembered because a refused line mentions them.
const MAX_DOUBTS: usize = 1000;

/// A refused line or conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refused {
    /// The line; for a conversation, its first line.
    pub(super) line: u64,
    pub(super) error: String,
    /// The conversation, if all of it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) conversation_id: Option<ConversationId>,
}

/// The first refused lines and conversations of a body, and the number of all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RefusedLines {
    pub(super) named: Vec<Refused>,
    pub(super) count: u64,
    /// The turns that refused lines mention.
    doubts: Vec<Doubt>,
}

/// A turn that a refused line mentions.
#[derive(Debug, PartialEq, Eq)]
struct Doubt {
    line: u64,
    mention: Mention,
}

impl RefusedLines {
    /// Adds a refused line.
    pub(super) fn add_line(&mut self, line: u64, error: String, mentions: impl FnOnce() -> Vec<Mention>) {
        self.count += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(Refused { line, error, conversation_id: None });
        }
        if self.doubts.len() < MAX_DOUBTS {
            self.doubts.extend(mentions().into_iter().map(|mention| Doubt { line, mention }));
        }
    }

    /// Adds conversations that were refused whole, each with its first line.
    pub(super) fn add_conversations(&mut self, conversations: Vec<Refused>) {
        self.count += conversations.len() as u64;
        self.named.extend(conversations);
        self.named.sort_by_key(|refused| refused.line);
        self.named.truncate(MAX_NAMED);
    }

    /// Returns warnings about the turns that refused lines mention.
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

/// The turns that the events of one conversation would end, for the message if they are refused.
pub(super) struct Ends {
    first: Option<TurnId>,
    count: usize,
}

impl Ends {
    pub(super) fn of<'a>(mut turns: impl Iterator<Item = &'a TurnId>) -> Self {
        let first = turns.next().cloned();
        Self { count: usize::from(first.is_some()) + turns.count(), first }
    }

    /// Returns the sentence that they stay open, to append to a refusal.
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
