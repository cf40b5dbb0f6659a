use actix_web::web::Bytes;
use serde::Serialize;

use crate::http::error::ApiError;
use crate::http::resources::answer::write;
use crate::http::resources::sealed_list::write_turn;
use crate::http::resources::turns::OpenEntry;
use crate::store::{Position, PositionedTurn};
use crate::turn::{ConversationId, SealedTurn};

/// How many milliseconds a browser waits before it connects again. A short time is no burden, since a server that is
/// not there refuses the connection.
const RETRY_MILLIS: u32 = 1000;

/// Returns the lines at the beginning of a stream that goes on after a position. They make no event, but a client that
/// loses the connection before the first event knows where to continue.
pub(super) fn beginning(after: Position) -> Bytes {
    format!("retry: {RETRY_MILLIS}\nid: {after}\n\n").into()
}

/// Returns the event which says that the client's position is not of this store: whatever it shows may be wrong. The
/// stream goes on after `now`.
pub(super) fn reset(now: Position) -> Bytes {
    format!("id: {now}\nevent: reset\ndata: {{\"position\":\"{now}\"}}\n\n").into()
}

/// Returns the event which says that a conversation was erased. It has no id: whoever connects again does not get it.
pub(super) fn erased(conversation_id: &ConversationId) -> Result<Vec<u8>, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Line<'a> {
        conversation_id: &'a ConversationId,
    }

    let mut line = b"event: erased\ndata: ".to_vec();
    write(&Line { conversation_id }, &mut line)?;
    line.extend(b"\n\n");
    Ok(line)
}

/// Returns the lines that show an idle client that the connection works. They make no event. The client has every turn
/// that it asked for up to the position, so it continues after it.
pub(super) fn heartbeat(seen: Position) -> Bytes {
    format!(": nothing new\nid: {seen}\n\n").into()
}

/// Returns the event of a sealed turn.
pub(super) fn sealed(turn: &PositionedTurn) -> Result<Vec<u8>, ApiError> {
    let mut line = Vec::with_capacity(1024);
    line.extend(format!("id: {}\nevent: turn-sealed\ndata: ", turn.position).bytes());
    write_turn(turn, &mut line)?;
    line.extend(b"\n\n");
    Ok(line)
}

/// The bytes of open turns that are written before other requests may run on this thread. Writing so many takes a
/// fraction of a millisecond.
const OPEN_BYTES_AT_ONCE: usize = 64 * 1024;

/// Lets other requests run on this thread whenever many bytes of open turns were written. `unpaused` is the number of
/// bytes since the last pause.
pub(super) async fn pause_after_open(unpaused: &mut usize, bytes: usize) {
    *unpaused += bytes;
    if *unpaused >= OPEN_BYTES_AT_ONCE {
        *unpaused = 0;
        tokio::task::yield_now().await;
    }
}

/// Returns the event of an open turn, with what is known of it so far.
pub(super) fn open(conversation_id: &ConversationId, so_far: &SealedTurn) -> Result<Vec<u8>, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Line<'a> {
        conversation_id: &'a ConversationId,
        #[serde(flatten)]
        turn: OpenEntry<'a>,
    }

    let mut line = b"event: turn-open\ndata: ".to_vec();
    write(&Line { conversation_id, turn: OpenEntry::of(so_far) }, &mut line)?;
    line.extend(b"\n\n");
    Ok(line)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::Lineage;
    use crate::testing::stored_turn;
    use crate::turn::{OpenTurn, TurnId};

    fn position(number: u64) -> Position {
        Position { lineage: Lineage(Uuid::from_u128(0xab)), number }
    }

    fn text(bytes: impl Into<Vec<u8>>) -> String {
        String::from_utf8(bytes.into()).unwrap()
    }

    const TWO: &str = "000000000000000000000000000000ab-0000000000000002";

    #[test]
    fn a_sealed_turn_is_one_event_whatever_its_ids_are() {
        let conversation_id = ConversationId::new("a \"b\" \u{2028}").unwrap();
        let turn = PositionedTurn { position: position(2), conversation_id, turn: stored_turn("t", 7) };
        let line = text(sealed(&turn).unwrap());
        let data = line.strip_prefix(&format!("id: {TWO}\nevent: turn-sealed\ndata: ")).unwrap();
        let data = data.strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\n', '\r']), "{data}");
        let read: serde_json::Value = serde_json::from_str(data).unwrap();
        let mut alone = serde_json::to_value(&turn.turn).unwrap();
        assert_eq!(read["position"], TWO);
        assert_eq!(read["conversationId"], "a \"b\" \u{2028}");
        let fields = alone.as_object_mut().unwrap();
        fields.insert("position".into(), TWO.into());
        fields.insert("conversationId".into(), "a \"b\" \u{2028}".into());
        assert_eq!(read, alone);
        assert!(data.starts_with(r#"{"position":"#) && data.contains(r#","ordinal":7,"#), "{data}");
    }

    #[test]
    fn an_open_turn_has_its_conversation_and_the_fields_of_open() {
        let open_turn = OpenTurn::new(TurnId::new("t").unwrap());
        let line = text(open(&ConversationId::new("c").unwrap(), &open_turn.so_far()).unwrap());
        let data = r#"{"conversationId":"c","turnId":"t","usage":{"inputTokens":0,"outputTokens":0},"steps":[]}"#;
        assert_eq!(line, format!("event: turn-open\ndata: {data}\n\n"));
    }

    #[test]
    fn the_other_lines_tell_where_to_continue() {
        assert_eq!(text(beginning(position(2))), format!("retry: 1000\nid: {TWO}\n\n"));
        assert_eq!(text(heartbeat(position(2))), format!(": nothing new\nid: {TWO}\n\n"));
        let erased = text(erased(&ConversationId::new("a \"b\"").unwrap()).unwrap());
        assert_eq!(erased, "event: erased\ndata: {\"conversationId\":\"a \\\"b\\\"\"}\n\n");
        let reset = text(reset(position(2)));
        assert_eq!(reset, format!("id: {TWO}\nevent: reset\ndata: {{\"position\":\"{TWO}\"}}\n\n"));
    }
}
