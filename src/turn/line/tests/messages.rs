//! Tests of the messages of bad events, which use the terms of JSON.

use super::super::*;

const TURN: &str = r#""conversationId":"c","turnId":"t""#;

fn message(line: &[u8]) -> String {
    parse_line(line).unwrap_err().to_string()
}

/// Events with a wrong field, each with the expected message.
fn of_fields() -> Vec<(String, &'static str)> {
    let usage = |usage: &str| format!(r#""type":"usage",{TURN},"usage":{usage}"#);
    let done = |fields: &str| format!(r#""type":"done",{TURN},{fields}"#);
    let step = |fields: &str| format!(r#""type":"step-complete",{TURN},{fields}"#);
    vec![
        (usage("7"), "`usage` must be an object, not a number"),
        (usage("[1,2]"), "`usage` must be an object, not an array"),
        (usage("\"many\""), "`usage` must be an object, not a string"),
        (usage("true"), "`usage` must be an object, not a boolean"),
        (usage("NaN"), "`usage` must be an object, not a number"),
        (
            usage(r#"{"inputTokens":-1,"outputTokens":0}"#),
            "`usage.inputTokens` must be a whole number from 0 to 9007199254740991, not -1",
        ),
        (
            usage(r#"{"outputTokens":1.5}"#),
            "`usage.outputTokens` must be a whole number from 0 to 9007199254740991, not 1.5",
        ),
        (
            usage(r#"{"inputTokens":9007199254740992}"#),
            "`usage.inputTokens` must be a whole number from 0 to 9007199254740991, not 9007199254740992",
        ),
        (
            usage(r#"{"inputTokens":NaN}"#),
            "`usage.inputTokens` must be a whole number from 0 to 9007199254740991, not NaN",
        ),
        (
            usage(r#"{"inputTokens":"10"}"#),
            "`usage.inputTokens` must be a whole number from 0 to 9007199254740991, not a string",
        ),
        (
            usage(r#"{"inputTokens":{}}"#),
            "`usage.inputTokens` must be a whole number from 0 to 9007199254740991, not an object",
        ),
        (
            usage(r#"{"inputTokens":[1]}"#),
            "`usage.inputTokens` must be a whole number from 0 to 9007199254740991, not an array",
        ),
        (
            usage(r#"{"inputTokens":false}"#),
            "`usage.inputTokens` must be a whole number from 0 to 9007199254740991, not a boolean",
        ),
        (usage(r#"{"inputTokens":1,"inputTokens":1,"outputTokens":2}"#), "`usage.inputTokens` stands twice"),
        (format!(r#""type":"usage",{TURN}"#), "`usage` is missing"),
        (format!(r#""type":"usage",{TURN},"usage":null"#), "`usage` is null, which counts as missing"),
        (format!(r#""type":"done",{TURN}"#), "`reason` is missing"),
        (r#""type":"done","turnId":"t","reason":"stop""#.to_owned(), "`conversationId` is missing"),
        (
            r#""type":"done","conversationId":null,"reason":"stop""#.to_owned(),
            "`conversationId` is null, which counts as missing",
        ),
        (
            r#""type":"error","conversationId":null,"turnId":"t""#.to_owned(),
            "`conversationId` is null, which counts as missing",
        ),
        (
            r#""type":"done","conversationId":"c","turn_id":"t","reason":"stop""#.to_owned(),
            "`turnId` is missing; `turn_id` is no field of an event",
        ),
        (r#""type":"done","x":{"turnId":null},"conversationId":"c","reason":"stop""#.to_owned(), "`turnId` is missing"),
        (r#""type":"done","conversationId":"c","reason":"stop""#.to_owned(), "`turnId` is missing"),
        (format!(r#""type":"step-complete",{TURN}"#), "`stepId` is missing"),
        (done("\"reason\":7"), "`reason` must be a string, not a number"),
        (done("\"reason\":{}"), "`reason` must be a string, not an object"),
        (done(r#""reason":"stop","turnId":"u""#), "`turnId` stands twice"),
        (step(r#""stepId":"\ud800""#), "`stepId` has an escape of half a character, a lone surrogate"),
        (done(r#""reason":"stop","x":{"y":[NaN]}"#), "`x` is NaN, which is no value of JSON"),
        (done(r#""reason":"stop","durationMs":"1s""#), "`durationMs` must be a number, not a string"),
        (
            done(r#""reason":"stop","contextSize":-5"#),
            "`contextSize` must be a whole number from 0 to 9007199254740991, not -5",
        ),
        (format!(r#""type":"usage",{TURN},"usage":{{}},"final":"yes""#), "`final` must be a boolean, not a string"),
        (done(r#""reason":"stop","endedAt":"2026-01-01""#), "`endedAt` must be a number, not a string"),
        (done(r#""reason":"stop","provider":[]"#), "`provider` must be a string, not an array"),
        (r#""type":"error","conversationId":"c","turnId":7"#.to_owned(), "`turnId` must be a string, not a number"),
        (step(r#""stepId":7"#), "`stepId` must be a string, not a number"),
        (step(r#""stepId":"""#), "`stepId` is not valid: an id must not be empty"),
        (step(r#""stepId":"s","ttftMs":1e999"#), "`ttftMs` must be a finite number, not 1e999"),
    ]
}

const TORN_AT_1: &str = "the event is cut off before its last `}` (column 1): an event must be whole, on one line; a \
                         crash of its writer can leave half of one";

/// Lines with a broken structure, each with the expected message.
const OF_STRUCTURES: &[(&str, &str)] = &[
    ("", TORN_AT_1),
    ("[1,2]", "an event must be a JSON object, not an array (column 1)"),
    ("\"x\"", "an event must be a JSON object, not a string (column 1)"),
    ("7", "an event must be a JSON object, not a number (column 1)"),
    ("null", "an event must be a JSON object, which begins with `{`, not `n` (column 1)"),
    ("\0\0", "an event must be a JSON object, not NUL bytes, which a crash can leave in a file (column 1)"),
    ("{}", "`type` is missing"),
    (r#"{"role":"user","content":[]}"#, "`type` is missing; the object has `role`, `content`"),
    (r#"{"type":null}"#, "`type` is null, which counts as missing"),
    (r#"{"type":null,"role":"user"}"#, "`type` is null, which counts as missing"),
    (r#"{"type":7}"#, "`type` must be a string, not a number"),
    (r#"{"type":{"type":"done"}}"#, "`type` must be a string, not an object"),
    (r#"{"type":["done"]}"#, "`type` must be a string, not an array"),
    (r#"{"type":true}"#, "`type` must be a string, not a boolean"),
    (r#"{"type":nope}"#, "`type` must be a string, not an unknown word"),
    (r#"{"type":"x","type":"y"}"#, "`type` stands twice"),
    (
        r#"{"type":"x""#,
        "the event is cut off before its last `}` (column 12): an event must be whole, on one line; a crash of its \
         writer can leave half of one",
    ),
    (
        r#"{"type":"x","a":"b"#,
        "the event is cut off within a string (column 19): an event must be whole, on one line; a crash of its writer \
         can leave half of one",
    ),
    (
        r#"{"type":"x","a":"b{"type":"done"}"#,
        "`,` or `}` must follow the value, not `t` (column 21): another object begins here, so this may be an event \
         that a crash of its writer cut off, with the next event after it on the same line",
    ),
    (r#"{"type":"x"} y"#, "`y` follows the event: each event must have a line of its own (column 14)"),
    (
        r#"{"type":"x"}{"type":"done"}"#,
        "another object follows the event: each event must have a line of its own (`curl` keeps line \
         breaks with `--data-binary`, not with `-d`) (column 13)",
    ),
    (
        "{\"type\":\"x\"}\r{\"type\":\"done\"}\r",
        "a carriage return alone does not end a line: each line must end with a line feed (column 14)",
    ),
    (r#"{"type":"x",}"#, "a key in double quotes must stand here, not `}` (column 13)"),
    (r#"{"type":"x","a"}"#, "`:` must follow the key, not `}` (column 16)"),
    (r#"{"type":"x","a":}"#, "a value must stand here, not `}` (column 17)"),
    (r#"{"type":"x","a":[1,]}"#, "a value must stand here, not `]` (column 20)"),
    (r#"{"type":"x","a":[1,2}"#, "`,` or `]` must follow the value, not `}` (column 21)"),
    (r#"{"type":"x" "a":1}"#, "`,` or `}` must follow the value, not `\"` (column 13)"),
    (
        "{\"type\":\"x\",\"a\":\"\t\"}",
        "a control character stands within a string, where it must be the escape `\\u0009` (column 18)",
    ),
    (
        "{\"type\":\"x\",\"a\":\"\r\"}",
        "a carriage return stands within a string, where it must be the escape `\\r` (column 18)",
    ),
    (r#"{"type":"x","a":"\x"}"#, "`x` must not follow a `\\`: JSON has no such escape (column 19)"),
    ("{\"type\":\"x\",\u{e9}}", "a key in double quotes must stand here, not the byte 0xc3 (column 13)"),
];

#[test]
fn messages_use_the_terms_of_json() {
    for (fields, expected) in of_fields() {
        assert_eq!(message(format!("{{{fields}}}").as_bytes()), expected, "{fields}");
    }
    for (line, expected) in OF_STRUCTURES {
        assert_eq!(message(line.as_bytes()), *expected, "{line}");
    }
}

#[test]
fn a_torn_event_followed_by_another_is_recognized_wherever_it_was_torn() {
    let torn = r#"{"type":"usage","conversationId":"c","turnId":"t","x":[1,"\u0041\n"],"usage":{"inputTokens":12}"#;
    let next = r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;
    for end in 1..torn.len() {
        let line = [&torn[..end], next].concat();
        let error = message(line.as_bytes());
        // An object after `"type":` is a value of the wrong kind.
        let expected = if torn[..end].ends_with(r#""type":"#) {
            "`type` must be a string, not an object"
        } else {
            "a crash of its writer"
        };
        assert!(error.contains(expected), "{line}: {error}");
        for size in [1, 2, 3, 7] {
            let mut structure = Structure::default();
            let fed = line.as_bytes().chunks(size).try_for_each(|piece| structure.feed(piece));
            let in_pieces = fed.and_then(|()| structure.finish()).unwrap_err();
            assert_eq!(in_pieces.to_string(), error, "{size}");
        }
    }
    for whole in [r#"{"type":"x","a":[1,}"#, r#"{"type":"x","a" 1}"#, r#"{"type":"x"} {"type":"y"}"#, "x", "[{}]"] {
        assert!(!message(whole.as_bytes()).contains("crash"), "{whole}");
    }
}

#[test]
fn no_message_uses_terms_of_rust() {
    let structures = OF_STRUCTURES.iter().map(|(line, _)| (*line).to_owned());
    for line in of_fields().into_iter().map(|(fields, _)| format!("{{{fields}}}")).chain(structures) {
        let message = message(line.as_bytes());
        for foreign in ["struct", "expected", "invalid type", "u64", "f64", "map", "sequence", "unit"] {
            assert!(!message.contains(foreign), "{message:?} of {line}");
        }
    }
}

#[test]
fn a_message_about_an_event_on_several_lines_names_the_line() {
    let line = |event: &str| parse_line(event.as_bytes()).unwrap_err().line();
    assert_eq!(line("{\n\"type\":\"done\",\n\"conversationId\":\"c\",\n\"turnId\":7}"), 4);
    assert_eq!(line("{\n\"type\":\"x\",\n\"a\" 1}"), 3);
    assert_eq!(line("{\"type\":\"x\"}\n{\"type\":\"y\"}"), 2);
    assert_eq!(line("{}"), 1);
    let second = parse_line(b"{\"type\":\"x\",\n  \"a\" 1}").unwrap_err().to_string();
    assert!(second.ends_with("(column 7)"), "{second}");
}

#[test]
fn the_length_of_a_message_is_limited() {
    let long = "é".repeat(10_000);
    for line in [
        format!(r#"{{"type":"usage",{TURN},"usage":"{long}"}}"#),
        format!(r#"{{"{long}":1}}"#),
        format!(r#"{{"type":"usage",{TURN},"usage":{}}}"#, "1".repeat(10_000)),
        format!(r#"{{"type":"done",{TURN},"reason":"stop","{long}":NaN}}"#),
    ] {
        assert!(message(line.as_bytes()).len() < 400, "{}", message(line.as_bytes()));
    }
}
