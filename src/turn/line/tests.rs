//! Tests with lines that are complete, glued, cut and spliced.
//!
//! - `messages`: the messages about bad lines.
//! - `splices`: lines that a shell, an editor or a crash has damaged.
//! - `oracle`: an independent parser. Tests compare its results with the results of the parser under test.

mod messages;
mod oracle;
mod splices;

use super::*;
use crate::turn::{Done, EventReader, Progress, TurnEventKind};

fn is_ignored(line: &str) -> bool {
    parse_line(line.as_bytes()).unwrap().is_none()
}

#[test]
fn only_the_structure_and_the_type_of_an_ignored_event_are_checked() {
    for line in [
        r#"{"type":"text-delta","conversationId":"c","turnId":"t","delta":"x"}"#,
        r#"{"type":"status"}"#,
        r#"{"type":"telepathy","usage":-1}"#,
        r#"{"type":""}"#,
        r#"{"type":"text-delta","conversationId":"","n":[NaN,-Infinity,01,1.,.5,nul,[],{}]}"#,
        r#" { "conversationId" : 7, "deep" : [[{"type":"done"}]], "type" : "text-delta" } "#,
        r#"{"type":"text\u002ddelta"}"#,
        r#"{"type":"done with a name that is longer than all that count"}"#,
        r#"{"type":"don\u00e9"}"#,
        r#"{"type":"x","text":"\ud800 \" \\ \/ \b\f\n\r\t"}"#,
    ] {
        assert!(is_ignored(line), "{line}");
        assert_eq!(EventReader::default().read(line.as_bytes()), Ok(None), "{line}");
    }
    assert!(parse_line(b"{\"type\":\"x\",\"text\":\"\xff\xfe\"}").unwrap().is_none());
}

#[test]
fn a_type_that_counts_is_found_however_it_is_written() {
    for line in [
        r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#,
        r#"{"conversationId":"c","turnId":"t","reason":"stop","x":{"type":"usage"},"type":"done"}"#,
        r#"  {  "type" : "done" , "conversationId":"c","turnId":"t","reason":"stop"}  "#,
        r#"{"\u0074ype":"d\u006fne","conversationId":"c","turnId":"t","reason":"stop"}"#,
        r#"{"\u0074\u0079\u0070\u0065":"\u0064\u006F\u006e\u0065","conversationId":"c","turnId":"t","reason":"stop"}"#,
    ] {
        let event = parse_line(line.as_bytes()).unwrap().unwrap().event;
        assert_eq!(event.kind, TurnEventKind::Done(Done::because("stop")), "{line}");
    }
}

#[test]
fn a_second_type_is_a_bad_event_whatever_the_types_are() {
    let rest = r#""conversationId":"c","turnId":"t","reason":"stop""#;
    for types in [
        r#""type":"text-delta","type":"done""#,
        r#""type":"done","type":"text-delta""#,
        r#""type":"done","type":"done""#,
        r#""type":"done","\u0074ype":"done""#,
        r#""type":null,"type":"done""#,
    ] {
        for line in [format!("{{{types},{rest}}}"), format!("{{{rest},{types}}}")] {
            assert!(parse_line(line.as_bytes()).is_err(), "{line}");
            assert!(EventReader::default().read(line.as_bytes()).is_err(), "{line}");
        }
    }
}

#[test]
fn a_known_field_that_stands_twice_is_a_bad_event() {
    let line = |more: &str| format!(r#"{{"type":"done","conversationId":"c","turnId":"t","reason":"stop",{more}}}"#);
    assert!(parse_line(line(r#""turnId":"u""#).as_bytes()).is_err());
    assert!(parse_line(line(r#""x":1,"x":2"#).as_bytes()).is_ok());
    assert!(parse_line(line(r#""model":null,"model":"m""#).as_bytes()).is_ok());
}

#[test]
fn invalid_utf8_in_a_field_that_is_read_is_a_bad_event() {
    let mut line = br#"{"type":"done","conversationId":"c","turnId":"t","reason":"X"}"#.to_vec();
    let at = line.iter().position(|b| *b == b'X').unwrap();
    line[at] = 0xff;
    assert_eq!(parse_line(&line).unwrap_err().to_string(), "`reason` is not valid UTF-8");
    assert!(parse_line(b"\xff\xfe").is_err());
}

#[test]
fn a_100_000_deep_value_neither_overflows_the_stack_nor_hides_the_type() {
    let deep = "[".repeat(100_000);
    assert!(parse_line(deep.as_bytes()).is_err());
    let closed = format!("{deep}{}", "]".repeat(100_000));
    let ignored = format!(r#"{{"x":{closed},"type":"text-delta"}}"#);
    assert!(is_ignored(&ignored));
    let done = format!(r#"{{"type":"done","x":{closed},"conversationId":"c","turnId":"t","reason":"stop"}}"#);
    assert!(parse_line(done.as_bytes()).unwrap().is_some());
    let usage = format!(r#"{{"type":"usage","conversationId":"c","turnId":"t","usage":{closed}}}"#);
    assert!(parse_line(usage.as_bytes()).is_err());
    let objects = format!(r#"{{"type":"x","x":{}1{}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    assert!(is_ignored(&objects));
    assert!(parse_line(objects.replacen("1}", "1]", 1).as_bytes()).is_err());
}

#[test]
fn only_the_ids_of_an_error_are_read() {
    let kind = |line: &str| parse_line(line.as_bytes()).map(|event| event.map(|event| event.event.kind));
    let failed = Ok(Some(TurnEventKind::Progress(Progress::Failed)));
    for line in [
        r#"{"type":"error","conversationId":"c","turnId":"t","message":{"a":[NaN,01]},"message":1}"#,
        r#"{"message":"\ud800","type":"error","turnId":"t","conversationId":"c"}"#,
    ] {
        assert_eq!(kind(line), failed, "{line}");
    }
    for line in [r#"{"type":"error","message":"x"}"#, r#"{"type":"error","conversationId":7,"turnId":null,"n":NaN}"#] {
        assert_eq!(kind(line), Ok(None), "an error of no turn is ignored: {line}");
    }
    for (line, message) in [
        (r#"{"type":"error","turnId":"t"}"#, "`conversationId`"),
        (r#"{"type":"error","turnId":7,"conversationId":"c"}"#, "`turnId`"),
        (r#"{"type":"error","turnId":"t","turnId":"t","conversationId":"c"}"#, "`turnId`"),
    ] {
        assert!(kind(line).unwrap_err().to_string().contains(message), "{line}");
    }
}

#[test]
fn half_a_character_in_a_free_text_is_replaced() {
    let reason = |text: &str| {
        let line = format!(r#"{{"type":"done","conversationId":"c","turnId":"t","reason":"{text}","\ud800":1}}"#);
        match parse_line(line.as_bytes()).unwrap().unwrap().event.kind {
            TurnEventKind::Done(done) => done.reason.to_string(),
            TurnEventKind::Progress(progress) => panic!("{progress:?}"),
        }
    };
    for (text, read) in [
        (r"ab\ud83d", "ab\u{fffd}"),
        (r"\udc00\ud83d\ude00x\ud800\n", "\u{fffd}\u{1f600}x\u{fffd}\n"),
        (r"\\ud800", r"\ud800"),
        (r"\ud800\u0041\uD83D\uDE00é\\", "\u{fffd}A\u{1f600}é\\"),
        ("", ""),
    ] {
        assert_eq!(reason(text), read, "{text}");
    }
    let id = r#"{"type":"done","conversationId":"\ud800","turnId":"t","reason":"x"}"#;
    assert!(parse_line(id.as_bytes()).is_err(), "an id is not a free text");
}
