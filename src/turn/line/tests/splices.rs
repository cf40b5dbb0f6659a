//! Property tests over lines that are glued, cut or spliced: every ignored line is one object, and no valid line is
//! refused.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::de::IgnoredAny;

use super::super::*;
use super::oracle;
use crate::turn::EventReader;

/// Lines as kernels write them, compact or spaced, with strings that look like structure.
const LINES: &[&str] = &[
    r#"{"type":"text-delta","conversationId":"c","turnId":"t","delta":"x"}"#,
    r#"{"type":"text-delta","conversationId":"c","turnId":"t","delta":"as follows: {\"type\":\"done\"}"}"#,
    r#"{"type":"reasoning-delta","conversationId":"c","turnId":"t","delta":"\\\" \u0022 }{ ],[ é"}"#,
    r#"{ "conversationId" : "c" , "turnId" : "t" , "delta" : "{\"type\":\"done\"}" , "type" : "text-delta" }"#,
    r#"{"type":"tool-result","conversationId":"c","turnId":"t","result":{"type":"done","x":[1,{},[],"]"]}}"#,
    r#"{"type":"tool-result","conversationId":"c","result":{"x":NaN,"y":-Infinity,"z":true}}"#,
    r#"{"type":"tool-call","conversationId":"c","input":{"a":{"b":{"c":[[[{"type":"usage"}]]]}}}}"#,
    r#"{"type":"status","conversationId":"c","status":"running"}"#,
    r#"{"type":"telepathy"}"#,
    r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#,
    r#"{"conversationId":"c","turnId":"t","reason":"stop","type":"done"}"#,
    r#"{ "type" : "done", "conversationId":"c","turnId":"t","reason":"stop"}"#,
    r#"{"type":"usage","conversationId":"c","turnId":"t","stepId":"s","usage":{"inputTokens":1,"outputTokens":1}}"#,
    r#"{"type":"turn-start","conversationId":"c","turnId":"t","model":"m"}"#,
];

/// The bytes between lines that are glued together.
const GLUE: &[&str] =
    &["", " ", "\t", "\r", "\r\n", ",", "}", "{", "\"", "]", "[", ":", "x", "\\", "\"}", "{\"", "\0", "1"];

/// A piece of a line: usually the whole line, otherwise a part, as a crash leaves it.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    (select(LINES), 0u8..6, any::<Index>(), any::<Index>()).prop_map(|(line, cut, a, b)| {
        let (a, b) = (a.index(line.len() + 1), b.index(line.len() + 1));
        let line = line.as_bytes();
        match cut {
            3 => [&line[..a], b"\t", &line[a..]].concat(),
            0 => line[..a].to_vec(),
            1 => line[a..].to_vec(),
            2 => [&line[..a.min(b)], &line[a.max(b)..]].concat(),
            _ => line.to_vec(),
        }
    })
}

fn glued() -> impl Strategy<Value = Vec<u8>> {
    vec((piece(), select(GLUE), select(GLUE)), 1..4).prop_map(|pieces| {
        let pieces =
            pieces.into_iter().map(|(piece, before, after)| [before.as_bytes(), &piece, after.as_bytes()].concat());
        pieces.collect::<Vec<_>>().concat()
    })
}

/// Tokens of JSON in any order. They make lines that splices of real lines do not make.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &[&str] =
        &["{", "}", "[", "]", ":", ",", "\"", "\\", " ", "\"type\"", "\"x\"", "\"done\"", "1", "null", "\\u0074", "\r"];
    vec(select(WORDS), 0..14).prop_map(|words| format!("{{\"type\":{}", words.concat()).into_bytes())
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => glued(), 1 => noise(), 1 => select(LINES).prop_map(|line| line.as_bytes().to_vec())]
}

fn is_counting(name: &str) -> bool {
    ["done", "usage", "step-complete", "turn-start", "error"].iter().any(|counting| name == format!("\"{counting}\""))
}

fn feed_in_pieces(line: &[u8], cuts: &[usize]) -> Result<EventType, StructureError> {
    let mut structure = Structure::default();
    let mut start = 0;
    for end in cuts.iter().copied().chain([line.len()]) {
        structure.feed(&line[start..end])?;
        start = end;
    }
    structure.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_ignored_line_is_one_object_with_one_type(line in line()) {
        let text = String::from_utf8_lossy(&line);
        let types = oracle::types(&line);
        let read = EventReader::default().read(&line);
        prop_assert_eq!(&read, &parse_line(&line), "{}", text);
        if read == Ok(None) {
            let types = types.clone();
            prop_assert!(types.is_some_and(|types| types.len() == 1), "it is not one object with one `type`: {}", text);
        }
        // Conversely, one object with one `type` is refused only if its type counts and a field is wrong.
        if let Some([name]) = types.as_deref() && name.starts_with('"') && !name.contains('\\') && !is_counting(name) {
            prop_assert_eq!(read, Ok(None), "{}", text);
        }
    }

    #[test]
    fn valid_json_by_serde_is_never_refused_for_its_structure(line in line()) {
        let is_json = serde_json::from_slice::<IgnoredAny>(&line).is_ok();
        if is_json && oracle::types(&line).is_some_and(|types| types.len() == 1) {
            let followed = feed_in_pieces(&line, &[]);
            let is_of_type = matches!(
                followed,
                Err(StructureError { kind: StructureErrorKind::TypeKind(_) | StructureErrorKind::TypeMissing | StructureErrorKind::TypeNull, .. })
            );
            prop_assert!(followed.is_ok() || is_of_type, "{:?}: {}", followed, String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn a_line_in_pieces_is_read_as_the_whole_line_is(line in line(), cuts in vec(any::<Index>(), 0..6)) {
        let whole = feed_in_pieces(&line, &[]);
        for at in 0..=line.len() {
            prop_assert_eq!(&feed_in_pieces(&line, &[at]), &whole, "cut at {} of {}", at, String::from_utf8_lossy(&line));
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(line.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(&feed_in_pieces(&line, &cuts), &whole);
        prop_assert_eq!(&feed_in_pieces(&line, &(0..line.len()).collect::<Vec<_>>()), &whole);
    }

    #[test]
    fn a_reader_of_many_lines_reads_each_as_if_alone(lines in vec(line(), 1..8)) {
        let mut reader = EventReader::default();
        for line in &lines {
            prop_assert_eq!(reader.read(line), parse_line(line), "{}", String::from_utf8_lossy(line));
        }
    }
}
