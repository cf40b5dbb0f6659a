//! The fast parser for canonical lines: events written exactly as a kernel writes them.
//!
//! A canonical line is compact JSON: its fields have the order of the code below, its texts have no escapes, and its
//! numbers no signs and exponents. For any other line this parser returns `None`. Then `parse_line` reads the line, and
//! finds out whether anything is wrong with it.

use std::borrow::Borrow;

use super::wire::EventType;
use super::{
    ConversationId, Done, KernelEvent, Label, Millis, Progress, StepId, StepTimes, TokenCount, TurnEvent,
    TurnEventKind, TurnId, TurnLabels, UsageReport,
};

/// The latest text of each field. The next event with the same text shares this text instead of copying it.
#[derive(Debug, Default)]
pub(super) struct Texts {
    conversation_id: Option<ConversationId>,
    turn_id: Option<TurnId>,
    step_id: Option<StepId>,
    model: Option<Label>,
    provider: Option<Label>,
    project: Option<Label>,
    reason: Option<Label>,
}

/// Reads an event of this type from the bytes after the type. `None` means only that the line is not canonical; it may
/// still be valid.
pub(super) fn read(kind: EventType, rest: &[u8], known: &mut Texts) -> Option<KernelEvent> {
    let mut rest = Rest(rest);
    rest.skip(br#","conversationId":"#)?;
    let conversation_id = rest.text(&mut known.conversation_id)?;
    rest.skip(br#","turnId":"#)?;
    let turn_id = rest.text(&mut known.turn_id)?;
    let kind = match kind {
        EventType::TurnStart => TurnEventKind::Progress(Progress::Start(TurnLabels {
            model: rest.optional(br#","model":"#, |rest| rest.label(&mut known.model))?,
            provider: rest.optional(br#","provider":"#, |rest| rest.label(&mut known.provider))?,
            project: rest.optional(br#","project":"#, |rest| rest.label(&mut known.project))?,
        })),
        EventType::Usage => {
            let step_id = rest.optional(br#","stepId":"#, |rest| rest.text(&mut known.step_id))?;
            rest.skip(br#","usage":"#)?;
            let report = rest.usage()?;
            let is_final = rest.skip(br#","final":true"#).is_some();
            TurnEventKind::Progress(Progress::Usage { step_id, report, is_final })
        }
        EventType::StepComplete => {
            rest.skip(br#","stepId":"#)?;
            let step_id = rest.text(&mut known.step_id)?;
            let times = StepTimes {
                ttft: rest.optional(br#","ttftMs":"#, Rest::millis)?,
                decode: rest.optional(br#","decodeMs":"#, Rest::millis)?,
                gen_total: rest.optional(br#","genTotalMs":"#, Rest::millis)?,
            };
            let model = rest.optional(br#","model":"#, |rest| rest.label(&mut known.model))?;
            let provider = rest.optional(br#","provider":"#, |rest| rest.label(&mut known.provider))?;
            TurnEventKind::Progress(Progress::StepComplete { step_id, times, model, provider })
        }
        EventType::Done => {
            rest.skip(br#","reason":"#)?;
            TurnEventKind::Done(Done {
                reason: rest.label(&mut known.reason)?,
                duration: rest.optional(br#","durationMs":"#, Rest::millis)?,
                usage: rest.optional(br#","usage":"#, Rest::usage)?,
                context_size: rest.optional(br#","contextSize":"#, Rest::count)?,
                model: rest.optional(br#","model":"#, |rest| rest.label(&mut known.model))?,
                provider: rest.optional(br#","provider":"#, |rest| rest.label(&mut known.provider))?,
                // `endedAt` is rare, and only `parse_line` checks its number fully.
                ended_at: None,
            })
        }
        // Neither type needs the fast parser: errors are rare, and so are ignored lines that get here.
        EventType::Error | EventType::Ignored => return None,
    };
    if rest.0 != b"}" {
        return None;
    }
    Some(KernelEvent { conversation_id, event: TurnEvent { turn_id, kind } })
}

/// The bytes of a line that have not been read yet. Each method reads from the front, and returns `None` if the line is
/// not canonical.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn skip(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// Reads a field that may be missing. The outer `None` means that the line is not canonical, the inner one that the
    /// field is missing.
    #[expect(
        clippy::option_option,
        reason = "the outer `None` means that the line is not canonical, the inner one that the field is missing"
    )]
    fn optional<T>(&mut self, name: &[u8], value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.skip(name).is_some() { value(self).map(Some) } else { Some(None) }
    }

    /// Reads a text without escapes. If the text equals the known text, returns a clone of the known one.
    fn text<T>(&mut self, known: &mut Option<T>) -> Option<T>
    where
        T: Borrow<str> + Clone + for<'t> TryFrom<&'t str>,
    {
        self.skip(b"\"")?;
        // The known text was read by this function, so it has no quote and no backslash. So equal bytes before a quote
        // mean an equal text.
        if let Some(text) = &*known
            && let Some(rest) = self.0.strip_prefix(text.borrow().as_bytes())
            && let Some(rest) = rest.strip_prefix(b"\"")
        {
            self.0 = rest;
            return Some(text.clone());
        }
        let end = self.0.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
        let text = T::try_from(str::from_utf8(&self.0[..end]).ok()?).ok()?;
        self.0 = self.0[end..].strip_prefix(b"\"")?;
        Some(known.insert(text).clone())
    }

    /// Reads a label. A text that is too long for a label is left to `parse_line`.
    fn label(&mut self, known: &mut Option<Label>) -> Option<Label> {
        self.text(known).filter(|label| !label.is_cut())
    }

    fn usage(&mut self) -> Option<UsageReport> {
        self.skip(br#"{"inputTokens":"#)?;
        let input_tokens = Some(self.count()?);
        self.skip(br#","outputTokens":"#)?;
        let output_tokens = Some(self.count()?);
        let cache_read_tokens = self.optional(br#","cacheReadTokens":"#, Self::count)?;
        let cache_write_tokens = self.optional(br#","cacheWriteTokens":"#, Self::count)?;
        let cache_write_1h_tokens = self.optional(br#","cacheWrite1hTokens":"#, Self::count)?;
        self.skip(b"}")?;
        Some(UsageReport { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens })
    }

    fn count(&mut self) -> Option<TokenCount> {
        TokenCount::new(self.whole()?).ok()
    }

    #[expect(clippy::cast_precision_loss, reason = "JSON numbers are floats; a time beyond 2^53 ms is rounded")]
    fn millis(&mut self) -> Option<Millis> {
        let number = self.0;
        let whole = self.whole()?;
        if self.skip(b".").is_none() {
            return Millis::new(whole as f64).ok();
        }
        self.digits()?;
        let number = &number[..number.len() - self.0.len()];
        Millis::new(str::from_utf8(number).ok()?.parse().ok()?).ok()
    }

    /// Reads a number that is written with digits alone. The caller checks what follows it.
    fn whole(&mut self) -> Option<u64> {
        let digits = self.digits()?;
        // Any 19 digits fit into a `u64`. JSON has no leading zeros.
        if digits.len() > 19 || (digits[0] == b'0' && digits.len() > 1) {
            return None;
        }
        Some(digits.iter().fold(0, |number, digit| 10 * number + u64::from(digit - b'0')))
    }

    /// Reads digits, at least one.
    fn digits(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| !byte.is_ascii_digit()).filter(|end| *end > 0)?;
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::line::leading_type;

    fn is_read(line: &str) -> bool {
        let (kind, rest) = leading_type(line.as_bytes()).unwrap();
        read(kind, rest, &mut Texts::default()).is_some()
    }

    #[test]
    fn a_canonical_line_is_read_with_all_optional_fields_and_with_none() {
        for fields in [
            r#""type":"turn-start","conversationId":"c","turnId":"t""#,
            r#""type":"turn-start","conversationId":"c","turnId":"t","model":"é","provider":"p","project":"j""#,
            r#""type":"usage","conversationId":"c","turnId":"t","usage":{"inputTokens":1,"outputTokens":0}"#,
            r#""type":"usage","conversationId":"c","turnId":"t","stepId":"t#0","usage":{"inputTokens":9007199254740991,"outputTokens":20,"cacheReadTokens":3,"cacheWriteTokens":4,"cacheWrite1hTokens":2},"final":true"#,
            r#""type":"step-complete","conversationId":"c","turnId":"t","stepId":"t#0""#,
            r#""type":"step-complete","conversationId":"c","turnId":"t","stepId":"t#0","ttftMs":0.5,"decodeMs":12.345678901234567,"genTotalMs":7,"model":"m","provider":"p""#,
            r#""type":"done","conversationId":"c","turnId":"t","reason":"stop""#,
            r#""type":"done","conversationId":"c","turnId":"t","reason":"","durationMs":1,"usage":{"inputTokens":1,"outputTokens":0},"contextSize":5,"model":"m","provider":"p""#,
        ] {
            assert!(is_read(&format!("{{{fields}}}")), "{fields}");
        }
    }
}
