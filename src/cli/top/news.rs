//! What a server tells: events of its feed, and answers to questions.

use serde::Deserialize;

use super::sse::Event;
use super::sums::Sums;
use crate::cli::answers::TurnSoFar;
use crate::report::CostFigures;
use crate::turn::{ConversationId, StoredTurn};

/// Something that the view shows.
#[derive(Debug)]
pub(super) enum News {
    /// The feed answers.
    Connected {
        /// Whether it goes on after the last event, so that nothing is missing. Otherwise it begins now.
        goes_on: bool,
    },
    /// The feed does not answer, for this reason.
    Lost(String),
    /// A turn is being worked on.
    Open(ConversationId, Box<TurnSoFar>),
    Sealed(ConversationId, Box<StoredTurn>),
    /// The server has another history than the one that was followed.
    Reset,
    /// All of a conversation was erased.
    Erased(ConversationId),
    /// Costs of sealed turns. The costs of others may be among them.
    Costs(Vec<TurnCost>),
    Sums(Box<Sums>),
    /// The latest sums could not be asked for, for this reason.
    NoSums(String),
}

/// The cost of a sealed turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TurnCost {
    pub(super) conversation_id: ConversationId,
    pub(super) ordinal: u64,
    pub(super) cost: CostFigures,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfConversation {
    conversation_id: ConversationId,
}

impl News {
    /// Reads an event of the feed. Returns `None` for an event of an unknown kind: later servers may have more kinds.
    pub(super) fn read(event: &Event) -> Result<Option<Self>, serde_json::Error> {
        let conversation_id = || Ok(serde_json::from_str::<OfConversation>(&event.data)?.conversation_id);
        Ok(Some(match event.name.as_str() {
            "turn-open" => Self::Open(conversation_id()?, serde_json::from_str(&event.data)?),
            "turn-sealed" => Self::Sealed(conversation_id()?, serde_json::from_str(&event.data)?),
            "reset" => Self::Reset,
            "erased" => Self::Erased(conversation_id()?),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, data: &str) -> Option<News> {
        News::read(&Event { name: name.into(), data: data.into() }).unwrap()
    }

    #[test]
    fn the_events_of_the_feed_are_read() {
        let open = r#"{"conversationId":"c","turnId":"t","model":"m","usage":{"inputTokens":1,"outputTokens":2},"steps":[],"later":1}"#;
        let Some(News::Open(id, turn)) = read("turn-open", open) else { panic!("no open turn") };
        assert_eq!((id.as_str(), turn.turn_id.as_str(), turn.usage.output_tokens.get()), ("c", "t", 2));
        let sealed = r#"{"position":"0-1","conversationId":"c","ordinal":3,"sealedAt":5,"endedAt":4,"reason":"stop","metrics":{"turnId":"t","usage":{"inputTokens":1000,"outputTokens":40},"steps":[{"stepId":"s","usage":{"inputTokens":1000,"outputTokens":40},"ttftMs":310.25}]}}"#;
        let Some(News::Sealed(id, turn)) = read("turn-sealed", sealed) else { panic!("no sealed turn") };
        assert_eq!((id.as_str(), turn.ordinal.get(), turn.metrics.steps.len()), ("c", 3, 1));
        assert_eq!(turn.metrics.steps[0].times.ttft.map(crate::turn::Millis::get), Some(310.25));
        assert!(matches!(read("erased", r#"{"conversationId":"c"}"#), Some(News::Erased(id)) if id.as_str() == "c"));
        assert!(matches!(read("reset", r#"{"position":"0-1"}"#), Some(News::Reset)));
    }

    #[test]
    fn an_unknown_event_is_ignored_and_a_broken_one_is_an_error() {
        assert!(read("something-new", "no JSON").is_none());
        assert!(read("message", "{}").is_none());
        for name in ["turn-open", "turn-sealed", "erased"] {
            assert!(News::read(&Event { name: name.into(), data: "{}".into() }).is_err(), "{name}");
        }
    }
}
