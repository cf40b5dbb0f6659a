//! The lines of a simulated kernel. Events that count for metrics have types in `turn`; the types of other events are
//! defined here.

use serde::Serialize;
use serde_json::Value;

/// An event that does not count for metrics.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(super) enum Ignored<'a> {
    Status { conversation_id: &'a str, status: &'a str },
    UserMessage { conversation_id: &'a str, turn_id: &'a str, text: &'a str },
    TextDelta { conversation_id: &'a str, turn_id: &'a str, delta: &'a str },
    ReasoningDelta { conversation_id: &'a str, turn_id: &'a str, delta: &'a str },
    ToolCall { conversation_id: &'a str, turn_id: &'a str, tool_call_id: &'a str, tool_name: &'a str, input: Value },
    ToolResult { conversation_id: &'a str, turn_id: &'a str, tool_call_id: &'a str, output: &'a str },
    TurnSealed { conversation_id: &'a str, turn_id: &'a str },
}

/// Returns the line of an event.
pub(super) fn line(event: &impl Serialize) -> String {
    // Events have only texts and finite numbers, so serializing them cannot fail.
    serde_json::to_string(event).unwrap_or_default()
}
