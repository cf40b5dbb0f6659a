use memchr::memmem;

use super::super::{ConversationId, TurnId};
use super::value::text_of;

/// A turn that a bad line mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) conversation_id: ConversationId,
    pub(crate) turn_id: TurnId,
    /// Whether the line would have ended the turn.
    pub(crate) is_done: bool,
}

/// The maximum number of mentions. Without it, a file without line breaks would mention all its turns in one line.
const MAX_MENTIONS: usize = 1000;

/// Returns the turns that a bad line mentions: the value of each `turnId`, with the nearest `conversationId` and `type`
/// before the `turnId`, or the first ones after it if there are none before.
pub(crate) fn mentions(line: &[u8]) -> Vec<Mention> {
    let turns = values(line, "\"turnId\"");
    let conversations = values(line, "\"conversationId\"");
    let types = values(line, "\"type\"");
    let nearest = |values: &[(usize, String)], at: usize| {
        let before = values.partition_point(|(value_at, _)| *value_at < at);
        values.get(before.saturating_sub(1)).map(|(_, value)| value.clone())
    };
    let mention = |(at, turn_id): (usize, String)| {
        let conversation_id = ConversationId::new(nearest(&conversations, at)?).ok()?;
        let turn_id = TurnId::new(turn_id).ok()?;
        let is_done = nearest(&types, at).is_some_and(|name| name == "done");
        Some(Mention { conversation_id, turn_id, is_done })
    };
    turns.into_iter().filter_map(mention).take(MAX_MENTIONS).collect()
}

/// Returns the string values of a key, each with its position. A key with escaped quotes is inside a string, and does
/// not match.
fn values(line: &[u8], key: &str) -> Vec<(usize, String)> {
    let after = |at: usize| {
        let rest = line[at + key.len()..].trim_ascii_start().strip_prefix(b":")?;
        Some((at, text_of(rest.trim_ascii_start())?))
    };
    memmem::find_iter(line, key).take(MAX_MENTIONS).filter_map(after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Vec<(String, String, bool)> {
        let mentions = mentions(line.as_bytes()).into_iter();
        mentions
            .map(|mention| (mention.conversation_id.to_string(), mention.turn_id.to_string(), mention.is_done))
            .collect()
    }

    fn mention(conversation: &str, turn: &str, is_done: bool) -> (String, String, bool) {
        (conversation.to_owned(), turn.to_owned(), is_done)
    }

    #[test]
    fn the_turn_of_a_bad_line_is_found_wherever_it_stands() {
        for (line, is_done) in [
            (r#"{"type":"done","conversationId":"c","turnId":"t","reason":7}"#, true),
            (r#"{"turnId" : "t","conversationId": "c","usage":-1,"type":"usage"}"#, false),
            (r#"{"type":"done","conversationId":"c","turnId":"\u0074","rea"#, true),
        ] {
            assert_eq!(of(line), [mention("c", "t", is_done)], "{line}");
        }
    }

    #[test]
    fn each_of_several_glued_events_has_its_turn() {
        let line = r#"{"type":"text-delta","conversationId":"a","turnId":"t","delta":"\"turnId\":\"x\"","x":{"type":"done","conversationId":"b","turnId":"u"}"#;
        assert_eq!(of(line), [mention("a", "t", false), mention("b", "u", true)]);
    }

    #[test]
    fn a_line_without_ids_mentions_no_turn() {
        for line in ["", "nonsense", r#"{"turnId":"t"}"#, r#"{"conversationId":"c","turnId":7}"#, r#"{"turnId":"t"#] {
            assert_eq!(of(line), [], "{line}");
        }
    }

    #[test]
    fn a_file_without_line_breaks_mentions_all_its_turns() {
        let filler = "x".repeat(200);
        let line = |n| format!(r#"{{"type":"done","conversationId":"c","turnId":"t{n}","x":"{filler}"}}"#);
        let line = (0..500).map(line).collect::<Vec<_>>().concat();
        let expected: Vec<_> = (0..500).map(|n| mention("c", &format!("t{n}"), true)).collect();
        assert_eq!(of(&line), expected);
    }
}
