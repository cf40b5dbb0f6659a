use super::canonical::{self, Texts};
use super::line::flat::Fronts;
use super::line::leading_type;
use super::wire::EventType;
use super::{BadEvent, KernelEvent, parse_line};

/// Reads the kernel events of a body, line after line.
///
/// Each line has the same result as [`parse_line`], whichever lines came before. Consecutive events share equal texts,
/// above all the ids of their conversation, turn and step.
///
/// ```
/// # use turn_metrics::turn::{EventReader, parse_line};
/// let lines = [
///     &br#"{"type":"turn-start","conversationId":"c","turnId":"t"}"#[..],
///     br#"{"type":"text-delta","conversationId":"c","turnId":"t","delta":"hello"}"#,
///     br#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#,
/// ];
/// let mut reader = EventReader::default();
/// for line in lines {
///     assert_eq!(reader.read(line)?, parse_line(line)?);
/// }
/// # Ok::<(), turn_metrics::turn::BadEvent>(())
/// ```
#[derive(Debug, Default)]
pub struct EventReader {
    known: Texts,
    fronts: Fronts,
}

impl EventReader {
    /// Reads one event from a line of JSON. Returns `None` for an event that does not count for metrics.
    #[inline]
    pub fn read(&mut self, line: &[u8]) -> Result<Option<KernelEvent>, BadEvent> {
        // Nine lines in ten are deltas, and most follow a delta of the same turn.
        if self.fronts.is_repeated_in(line) { Ok(None) } else { self.read_other(line) }
    }

    #[inline(never)]
    fn read_other(&mut self, line: &[u8]) -> Result<Option<KernelEvent>, BadEvent> {
        match leading_type(line) {
            Some((EventType::Ignored, rest)) if self.fronts.is_flat(line, rest) => Ok(None),
            Some((kind, rest)) => match canonical::read(kind, rest, &mut self.known) {
                Some(event) => Ok(Some(event)),
                None => parse_line(line),
            },
            None => parse_line(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;
    use crate::turn::{Progress, TurnEventKind};

    fn one_of(words: &'static str) -> impl Strategy<Value = String> {
        select(words.split(' ').collect::<Vec<_>>()).prop_map(String::from)
    }

    /// JSON strings. Most of them are often equal or have the same start, so that shared texts are tested.
    fn text() -> impl Strategy<Value = String> {
        let pieces = vec(one_of("t #0 \\n \\\\ \\\" \\u0074 \\/ \\b \\x b \u{85} \x7f \t \u{e9} \u{1f980}"), 0..4);
        prop_oneof![
            30 => one_of("c t t#0 t#00 stop gpt-\u{e9} a/c?%2F").prop_map(|text| format!("\"{text}\"")),
            3 => pieces.prop_map(|pieces| format!("\"{}\"", pieces.concat())),
            1 => (255usize..258).prop_map(|len| format!("\"{}\"", "x".repeat(len))),
            1 => one_of("null 7 [] \"\" \"unfinished"),
        ]
    }

    /// Numbers in every notation of JSON, and in some that JSON does not allow.
    const NUMBERS: &str = "0 -0 00 01 -1 +1 1. .5 1.0 0.1 10.50 01.5 -0.0 1e3 1E+3 1e-3 1.5e3 1.5e1 1e 1.e1 1e400 0x10 \
        1_000 NaN 9007199254740991 9007199254740992 9007199254740993 9999999999999999999 10000000000000000000 \
        18446744073709551615 18446744073709551616 99999999999999999999 null \"1\" true {}";

    fn number() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "[1-9][0-9]{0,20}\\.[0-9]{1,25}",
            2 => any::<f64>().prop_map(|number| number.abs().to_string()),
            2 => "[0-9]{1,25}(\\.[0-9]{0,25})?([eE][+-]?[0-9]{1,3})?",
            6 => one_of(NUMBERS),
        ]
    }

    fn count() -> impl Strategy<Value = String> {
        prop_oneof![9 => (0u32..100_000).prop_map(|count| count.to_string()), 1 => number()]
    }

    fn usage() -> impl Strategy<Value = String> {
        (count(), count(), count(), count(), count(), 0u8..8).prop_map(|(input, output, read, write, hour, present)| {
            let read = if present & 1 == 0 { String::new() } else { format!(r#","cacheReadTokens":{read}"#) };
            let write = if present & 2 == 0 { String::new() } else { format!(r#","cacheWriteTokens":{write}"#) };
            let hour = if present & 4 == 0 { String::new() } else { format!(r#","cacheWrite1hTokens":{hour}"#) };
            format!(r#"{{"inputTokens":{input},"outputTokens":{output}{read}{write}{hour}}}"#)
        })
    }

    /// The four types with their fields, in the order in which a kernel writes them.
    const TYPES: &[(&str, &[&str])] = &[
        ("turn-start", &["conversationId", "turnId", "model?", "provider?", "project?"]),
        ("usage", &["conversationId", "turnId", "stepId?", "usage", "final?"]),
        (
            "step-complete",
            &["conversationId", "turnId", "stepId", "ttftMs?", "decodeMs?", "genTotalMs?", "model?", "provider?"],
        ),
        (
            "done",
            &[
                "conversationId",
                "turnId",
                "reason",
                "durationMs?",
                "usage?",
                "contextSize?",
                "model?",
                "provider?",
                "endedAt?",
            ],
        ),
        ("error", &["conversationId", "turnId?", "message?"]),
    ];

    /// The fields of an event. Optional fields may be missing.
    fn fields() -> impl Strategy<Value = Vec<String>> {
        let values = vec((text(), prop_oneof![count(), number()], usage(), any::<bool>()), 9);
        (select(TYPES), values).prop_map(|((kind, names), values)| {
            let fields = names.iter().zip(values).filter_map(|(name, (text, number, usage, is_there))| {
                let value = match name.trim_end_matches('?') {
                    "conversationId" | "turnId" | "stepId" | "reason" | "model" | "provider" | "project"
                    | "message" => text,
                    "usage" => usage,
                    "final" => ["true", "false", "null", "1"][number.len() % 4].to_owned(),
                    _ => number,
                };
                (is_there || !name.ends_with('?')).then(|| format!("\"{}\":{value}", name.trim_end_matches('?')))
            });
            std::iter::once(format!("\"type\":\"{kind}\"")).chain(fields).collect()
        })
    }

    /// Changes the fields: moves, repeats, drops or adds one.
    fn change_fields(fields: &mut Vec<String>, (change, from, to): &(usize, Index, Index)) {
        const OTHERS: [&str; 5] = [
            r#""x":1"#,
            r#""x":[{"type":"done"}]"#,
            r#""model":null"#,
            r#""type":"text-delta""#,
            r#""type":"reasoning-delta""#,
        ];
        let from = from.index(fields.len());
        let field = match change {
            0 => fields.remove(from),
            1 => fields[from].clone(),
            2 => return drop(fields.remove(from)),
            _ => OTHERS[from % OTHERS.len()].to_owned(),
        };
        fields.insert(to.index(fields.len() + 1), field);
    }

    /// A line as a kernel writes it. Some lines are changed somewhere.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let field_changes = prop_oneof![3 => Just(vec![]), 1 => vec((0usize..4, any::<Index>(), any::<Index>()), 1..3)];
        let piece = prop_oneof![
            one_of("\t \r \n , } ] \" \\ 0 . e1 - null x \u{e9} \0 \\u0074").prop_map(String::into_bytes),
            vec(any::<u8>(), 0..2),
        ];
        let byte_changes = prop_oneof![Just(vec![]), vec((any::<Index>(), 0usize..3, piece), 1..3)];
        let tail = prop_oneof![9 => Just(String::new()), 1 => one_of("\t } x {} ,")];
        (fields(), field_changes, byte_changes, tail).prop_map(|(mut fields, field_changes, byte_changes, tail)| {
            for change in &field_changes {
                change_fields(&mut fields, change);
            }
            let mut line = format!("{{{}}}{tail}", fields.join(",")).into_bytes();
            for (at, removed, piece) in byte_changes {
                let at = at.index(line.len() + 1);
                line.splice(at..(at + removed).min(line.len()), piece);
            }
            line
        })
    }

    proptest! {
        #[test]
        fn a_reader_reads_each_line_as_parse_line_does(lines in vec(line(), 1..6)) {
            let mut reader = EventReader::default();
            for line in &lines {
                let text = String::from_utf8_lossy(line);
                prop_assert_eq!(reader.read(line), parse_line(line), "{}", text);
            }
        }
    }

    #[test]
    fn both_parsers_read_each_number_alike() {
        for number in NUMBERS.split(' ') {
            for fields in [
                format!(r#""durationMs":{number}"#),
                format!(r#""durationMs":{number},"contextSize":7"#),
                format!(r#""contextSize":{number}"#),
                format!(r#""usage":{{"inputTokens":{number},"outputTokens":7}}"#),
            ] {
                let line = format!(r#"{{"type":"done","conversationId":"c","turnId":"t","reason":"stop",{fields}}}"#);
                assert_eq!(EventReader::default().read(line.as_bytes()), parse_line(line.as_bytes()), "{line}");
            }
        }
    }

    #[test]
    fn events_share_equal_texts() {
        let mut reader = EventReader::default();
        let mut read = |turn: &str| {
            let line = format!(
                r#"{{"type":"step-complete","conversationId":"c","turnId":"{turn}","stepId":"{turn}#0","model":"m"}}"#
            );
            reader.read(line.as_bytes()).unwrap().unwrap()
        };
        let texts = |event: &KernelEvent| {
            let TurnEventKind::Progress(Progress::StepComplete { step_id, model: Some(model), .. }) = &event.event.kind
            else {
                panic!("{event:?}");
            };
            [event.conversation_id.as_str(), event.event.turn_id.as_str(), step_id.as_str(), model.as_str()]
                .map(str::as_ptr)
        };
        let (first, second, other) = (read("t"), read("t"), read("t2"));
        assert_eq!(texts(&first), texts(&second));
        let shared = texts(&first).into_iter().zip(texts(&other)).map(|(first, other)| first == other);
        assert!(shared.eq([true, false, false, true]));
    }
}
