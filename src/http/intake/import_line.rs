use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::actors::ImportedTurn;
use crate::store::{Commit, ErasedSums, Position};
use crate::turn::{
    BadEvent, ConversationId, EpochMillis, KernelMoment, Label, Millis, Ordinal, SealedTurn, StepDetails, StepId,
    StepMetrics, StepTimes, TokenCount, TurnId, TurnMetrics, TurnObject, UsageReport, type_name,
};

/// The `reason` of a turn that comes from a list of metrics, which says no reason.
const IMPORTED: &str = "imported";

/// The latest moment that a turn may have, 9999-12-31T23:59:59.999Z in milliseconds since 1970. Reports know no later
/// one.
const MAX_MOMENT: u64 = 253_402_300_799_999;

/// A line of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImportLine {
    Turn(Box<ImportedTurn>),
    /// Sums of erased turns.
    Erased(Box<ErasedSums>),
    /// The end of an export.
    End(ExportEnd),
}

/// Why a line cannot be imported.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct BadImportLine {
    pub(crate) message: String,
    /// The line of the error, counted from 1 within the object.
    pub(crate) line: usize,
    /// Whether the turn is over a limit of this service.
    pub(crate) is_over_limit: bool,
}

impl From<BadEvent> for BadImportLine {
    fn from(error: BadEvent) -> Self {
        Self { message: error.to_string(), line: error.line(), is_over_limit: false }
    }
}

impl BadImportLine {
    fn too_many_steps(max_steps: usize) -> Self {
        let message = format!("the turn has more than {max_steps} steps (`turns.max_steps`)");
        Self { is_over_limit: true, ..Self::new(message) }
    }

    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), line: 1, is_over_limit: false }
    }
}

impl ImportLine {
    /// Reads a line. A line of an export has `metrics` or `erased`, its last one has `end`. Any other line must be the
    /// metrics of a turn with a `conversationId`, which is sealed at the moment `now`. `is_body` says that the line is a whole body,
    /// which may have line breaks.
    ///
    /// A turn of more than `max_steps` steps is refused before its steps are read, because steps take many times their
    /// bytes in memory.
    pub(crate) fn read(line: &[u8], is_body: bool, now: EpochMillis, max_steps: usize) -> Result<Self, BadImportLine> {
        let object = TurnObject::of(line, is_body)?;
        let [is_end, is_exported, is_erased, is_event] = object.has(["end", "metrics", "erased", "type"])?;
        if is_end {
            return Ok(Self::End(object.read()?));
        }
        let lists: [&[&str]; 2] =
            if is_exported { [&["metrics", "steps"], &["stepDetails"]] } else { [&["steps"], &["stepDetails"]] };
        if lists.into_iter().any(|list| object.has_more_items(list, max_steps)) {
            return Err(BadImportLine::too_many_steps(max_steps));
        }
        if is_exported {
            return Ok(Self::Turn(Box::new(object.read::<ExportedFields>()?.turn()?)));
        }
        if is_erased {
            let sums = ErasedSums::read_line(line).map_err(|error| BadImportLine::new(error.to_string()))?;
            return Ok(Self::Erased(Box::new(sums)));
        }
        if is_event {
            let name = type_name(line).unwrap_or_default();
            return Err(BadImportLine::new(format!(
                "this is an event of the type `{}` and no sealed turn: `POST /events` and `turn-metrics ingest` take events",
                &name[..name.floor_char_boundary(40)]
            )));
        }
        Ok(Self::Turn(Box::new(object.read::<MetricsLineFields>()?.turn(now))))
    }
}

/// The last line of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct ExportEnd {
    /// The position of the last turn.
    #[serde(rename = "end", deserialize_with = "position")]
    pub(crate) position: Position,
    /// How many turns and sums the export lacks because they were damaged.
    #[serde(default, rename = "leftOut")]
    pub(crate) left_out: u64,
}

fn position<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom("must be a position"))
}

/// A line of an export. Its `position` is not read, because the turn gets a new one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportedFields {
    conversation_id: ConversationId,
    #[serde(deserialize_with = "ordinal")]
    ordinal: Ordinal,
    #[serde(deserialize_with = "moment")]
    sealed_at: EpochMillis,
    #[serde(default, deserialize_with = "optional_moment")]
    ended_at: Option<EpochMillis>,
    reason: Label,
    model: Option<Label>,
    provider: Option<Label>,
    project: Option<Label>,
    #[serde(rename = "cacheWrite1hTokens")]
    cache_write_1h_tokens: Option<TokenCount>,
    #[serde(default)]
    step_details: Vec<StepDetails>,
    metrics: MetricsFields,
}

impl ExportedFields {
    fn turn(self) -> Result<ImportedTurn, BadImportLine> {
        let Self { conversation_id, ordinal, sealed_at, ended_at, reason, model, provider, project, .. } = self;
        let metrics = self.metrics.metrics();
        let step_details = in_order(self.step_details, &metrics.steps)?;
        let cache_write_1h_tokens = self.cache_write_1h_tokens;
        let turn = SealedTurn {
            sealed_at,
            ended_at,
            reason,
            model,
            provider,
            project,
            cache_write_1h_tokens,
            step_details,
            metrics,
        };
        Ok(ImportedTurn { conversation_id, ordinal: Some(ordinal), turn })
    }
}

/// Returns the details in the order of the steps. A store keeps them with the steps.
fn in_order(mut details: Vec<StepDetails>, steps: &[StepMetrics]) -> Result<Vec<StepDetails>, BadImportLine> {
    if details.is_empty() {
        return Ok(details);
    }
    let places: HashMap<&StepId, usize> =
        steps.iter().enumerate().map(|(place, step)| (&step.step_id, place)).collect();
    if let Some(stray) = details.iter().find(|details| !places.contains_key(&details.step_id)) {
        let id = &stray.step_id;
        return Err(BadImportLine::new(format!(
            "`stepDetails` names the step `{id}`, which is not in `metrics.steps`"
        )));
    }
    details.sort_by_key(|details| places.get(&details.step_id).copied());
    if let Some(twice) = details.windows(2).find(|pair| pair[0].step_id == pair[1].step_id) {
        return Err(BadImportLine::new(format!("`stepDetails` names the step `{}` twice", twice[0].step_id)));
    }
    Ok(details)
}

/// The metrics of a turn.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricsFields {
    turn_id: TurnId,
    usage: UsageReport,
    #[serde(deserialize_with = "steps")]
    steps: Vec<StepFields>,
    #[serde(default, deserialize_with = "Millis::read_reported")]
    duration_ms: Option<Millis>,
    context_size: Option<TokenCount>,
}

impl MetricsFields {
    fn metrics(self) -> TurnMetrics {
        let Self { turn_id, usage, steps, duration_ms: duration, context_size } = self;
        TurnMetrics {
            turn_id,
            usage: usage.usage(),
            steps: steps.into_iter().map(StepFields::metrics).collect(),
            duration,
            context_size: context_size.filter(|size| *size > TokenCount::ZERO),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StepFields {
    step_id: StepId,
    usage: UsageReport,
    #[serde(default, deserialize_with = "Millis::read_reported")]
    ttft_ms: Option<Millis>,
    #[serde(default, deserialize_with = "Millis::read_reported")]
    decode_ms: Option<Millis>,
    #[serde(default, deserialize_with = "Millis::read_reported")]
    gen_total_ms: Option<Millis>,
}

impl StepFields {
    fn metrics(self) -> StepMetrics {
        let Self { step_id, usage, ttft_ms: ttft, decode_ms: decode, gen_total_ms: gen_total } = self;
        StepMetrics { step_id, usage: usage.usage(), times: StepTimes { ttft, decode, gen_total } }
    }
}

/// Reads steps with different ids, as all steps of a turn have.
fn steps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<StepFields>, D::Error> {
    let steps = Vec::<StepFields>::deserialize(deserializer)?;
    let mut ids = HashSet::with_capacity(steps.len());
    match steps.iter().find(|step| !ids.insert(&step.step_id)) {
        Some(step) => Err(D::Error::custom(format!("the step `{}` stands twice", step.step_id))),
        None => Ok(steps),
    }
}

/// The metrics of a turn with their conversation, as Dispatch has stored them, and what else is known of the turn.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricsLineFields {
    conversation_id: ConversationId,
    turn_id: TurnId,
    usage: UsageReport,
    #[serde(deserialize_with = "steps")]
    steps: Vec<StepFields>,
    #[serde(default, deserialize_with = "Millis::read_reported")]
    duration_ms: Option<Millis>,
    context_size: Option<TokenCount>,
    model: Option<Label>,
    provider: Option<Label>,
    project: Option<Label>,
    ended_at: Option<KernelMoment>,
}

impl MetricsLineFields {
    fn turn(self, now: EpochMillis) -> ImportedTurn {
        let Self { conversation_id, turn_id, usage, steps, duration_ms, context_size, .. } = self;
        let Self { model, provider, project, ended_at, .. } = self;
        let turn = SealedTurn {
            sealed_at: now,
            ended_at: ended_at.and_then(|ended_at| ended_at.plausible(now)),
            reason: IMPORTED.into(),
            model,
            provider,
            project,
            cache_write_1h_tokens: None,
            step_details: Vec::new(),
            metrics: MetricsFields { turn_id, usage, steps, duration_ms, context_size }.metrics(),
        };
        ImportedTurn { conversation_id, ordinal: None, turn }
    }
}

/// Reads a whole number within limits. As for token counts, `10.0` is a whole number too.
struct Whole {
    first: u64,
    last: u64,
}

impl Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {} to {}", self.first, self.last)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        let is_allowed = (self.first..=self.last).contains(&number);
        if is_allowed { Ok(number) } else { Err(E::invalid_value(Unexpected::Unsigned(number), &self)) }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        Err(E::invalid_value(Unexpected::Signed(number), &self))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the float is whole and from 0 to 2^53, so it converts exactly"
    )]
    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        if number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number) {
            return self.visit_u64(number as u64);
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }
}

fn ordinal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ordinal, D::Error> {
    let number = deserializer.deserialize_u64(Whole { first: 1, last: Commit::MAX_IMPORTED_FROM })?;
    // The number is at least 1.
    Ok(Ordinal::after(number - 1))
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EpochMillis, D::Error> {
    deserializer.deserialize_u64(Whole { first: 0, last: MAX_MOMENT }).map(EpochMillis::new)
}

// A field that is null is skipped before it gets here.
fn optional_moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EpochMillis>, D::Error> {
    moment(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::http::resources::sealed_list::write_turn;
    use crate::store::{Lineage, PositionedTurn};
    use crate::turn::StoredTurn;
    use crate::turn::properties::stored_turn;

    const NOW: u64 = 1_780_000_000_000;

    fn read(line: &str) -> Result<ImportLine, String> {
        ImportLine::read(line.as_bytes(), false, EpochMillis::new(NOW), 4096).map_err(|error| error.to_string())
    }

    fn turn(line: &str) -> ImportedTurn {
        match read(line) {
            Ok(ImportLine::Turn(turn)) => *turn,
            other => panic!("{other:?}: {line}"),
        }
    }

    /// Returns a turn that a store may have: its moments are plausible, and its steps differ.
    fn plausible(mut turn: StoredTurn) -> StoredTurn {
        let moment = |moment: EpochMillis| EpochMillis::new(moment.get() % (MAX_MOMENT + 1));
        turn.ordinal = Ordinal::after(turn.ordinal.get() % Commit::MAX_IMPORTED_FROM);
        (turn.sealed_at, turn.ended_at) = (moment(turn.sealed_at), turn.ended_at.map(moment));
        turn.metrics.context_size = turn.metrics.context_size.filter(|size| *size > TokenCount::ZERO);
        let mut ids = HashSet::new();
        turn.metrics.steps.retain(|step| ids.insert(step.step_id.clone()));
        let steps = turn.metrics.steps.iter();
        turn.step_details = steps
            .zip(turn.step_details)
            .map(|(step, details)| StepDetails { step_id: step.step_id.clone(), ..details })
            .collect();
        turn
    }

    proptest! {
        #[test]
        fn a_line_of_an_export_is_read_as_the_turn_that_was_written(stored in stored_turn(), number in 1..u64::MAX) {
            let position = Position { lineage: Lineage(Uuid::from_u128(7)), number };
            let conversation_id = ConversationId::new(stored.metrics.turn_id.as_str()).unwrap();
            let sealed = PositionedTurn { position, conversation_id, turn: plausible(stored) };
            let mut line = Vec::new();
            write_turn(&sealed, &mut line).unwrap();
            let read = turn(str::from_utf8(&line).unwrap());
            prop_assert_eq!(&read.conversation_id, &sealed.conversation_id);
            prop_assert_eq!(read.turn.at(read.ordinal.unwrap()), sealed.turn);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ImportLine::read(&bytes, false, EpochMillis::new(NOW), 4096);
        }
    }

    const EXPORTED: &str = r#"{"position":"x","conversationId":"c","ordinal":3,"sealedAt":9,"endedAt":8,"reason":"stop","model":"m","cacheWrite1hTokens":5,"stepDetails":[{"stepId":"b","model":"n"},{"stepId":"a","provider":"q"}],"metrics":{"turnId":"t","usage":{"inputTokens":1,"outputTokens":2},"steps":[{"stepId":"a","usage":{"inputTokens":1,"outputTokens":2},"ttftMs":1.5},{"stepId":"b","usage":{"inputTokens":0,"outputTokens":0}}],"durationMs":7,"contextSize":3}}"#;

    #[test]
    fn details_of_steps_are_put_into_the_order_of_the_steps() {
        let ImportedTurn { turn, ordinal, .. } = turn(EXPORTED);
        let ids: Vec<_> = turn.step_details.iter().map(|details| details.step_id.as_str()).collect();
        assert_eq!((ids, ordinal), (vec!["a", "b"], Ordinal::new(3)));
        assert_eq!(turn.ended_at, Some(EpochMillis::new(8)), "an early moment is kept, as the store kept it");
    }

    #[test]
    fn metrics_with_a_conversation_are_a_turn_that_is_sealed_now() {
        let line = r#"{"turnId":"t","usage":{"inputTokens":5,"outputTokens":null},"steps":[{"stepId":"t#0","usage":{"inputTokens":5,"outputTokens":6},"ttftMs":-1,"genTotalMs":4}],"durationMs":7.5,"contextSize":0,"conversationId":"c","model":"m","endedAt":1779999999999.5}"#;
        let ImportedTurn { conversation_id, ordinal, turn } = turn(line);
        assert_eq!((conversation_id.as_str(), ordinal), ("c", None));
        assert_eq!((turn.sealed_at.get(), turn.ended_at), (NOW, Some(EpochMillis::new(NOW - 1))));
        assert_eq!((turn.reason.as_str(), turn.model), ("imported", Some("m".into())));
        assert_eq!((turn.metrics.context_size, turn.metrics.usage.output_tokens), (None, TokenCount::ZERO));
        let times = turn.metrics.steps[0].times;
        assert_eq!((times.ttft, times.gen_total), (None, Some(4.into())), "a negative time is absent");
        let bare = r#"{"turnId":"t","usage":{"inputTokens":5,"outputTokens":1},"steps":[],"conversationId":"c"}"#;
        let far = bare.replace("\"c\"", "\"c\",\"endedAt\":7");
        assert_eq!(self::turn(&far), self::turn(bare), "an implausible `endedAt` is absent");
    }

    #[test]
    fn a_turn_with_too_many_steps_is_refused_before_they_are_read() {
        let steps = |count: usize| vec!["7"; count].join(",");
        let exported = |steps: String, details: String| {
            EXPORTED.replacen(r#""steps":["#, &format!(r#""steps":[{steps}],"x":["#), 1).replacen(
                r#""stepDetails":["#,
                &format!(r#""stepDetails":[{details}],"y":["#),
                1,
            )
        };
        let dispatch = |steps: String| {
            format!(
                r#"{{"turnId":"t","usage":{{"inputTokens":5,"outputTokens":1}},"steps":[{steps}],"conversationId":"c"}}"#
            )
        };
        let read = |line: &str| ImportLine::read(line.as_bytes(), false, EpochMillis::new(NOW), 3).unwrap_err();
        for line in [exported(steps(4), String::new()), exported(String::new(), steps(4)), dispatch(steps(4))] {
            let error = read(&line);
            assert_eq!(error.message, "the turn has more than 3 steps (`turns.max_steps`)", "{line}");
            assert!(error.is_over_limit);
        }
        // Control: with fewer, the steps are read, and found to be none.
        for line in [exported(steps(3), String::new()), exported(String::new(), steps(3)), dispatch(steps(3))] {
            let error = read(&line);
            assert!(error.message.contains("must be an object, not a number") && !error.is_over_limit, "{error}");
        }
    }

    #[test]
    fn the_end_of_an_export_is_a_position() {
        let end = "00000000000000000000000000000007-0000000000000009";
        assert_eq!(
            read(&format!(r#"{{"end":"{end}"}}"#)),
            Ok(ImportLine::End(ExportEnd { position: end.parse().unwrap(), left_out: 0 }))
        );
        let with_gaps = read(&format!(r#"{{"end":"{end}","leftOut":7}}"#)).unwrap();
        assert!(matches!(with_gaps, ImportLine::End(ExportEnd { left_out: 7, .. })));
        for bad in [r#"{"end":"x"}"#, r#"{"end":9}"#, r#"{"end":""}"#] {
            assert!(read(bad).unwrap_err().starts_with("`end` must be a"), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_in_terms_of_json() {
        let without = |field: &str, instead: &str| EXPORTED.replacen(field, instead, 1);
        for (line, message) in [
            (
                without(r#""ordinal":3"#, r#""ordinal":0"#),
                "`ordinal` must be a whole number from 1 to 4294967295, not 0",
            ),
            (without(r#""ordinal":3"#, r#""ordinal":4294967296"#), "`ordinal` must be a whole number from 1 to"),
            (
                without(r#""ordinal":3"#, r#""ordinal":1.5"#),
                "`ordinal` must be a whole number from 1 to 4294967295, not 1.5",
            ),
            (without(r#""ordinal":3,"#, ""), "`ordinal` is missing"),
            (without(r#""sealedAt":9"#, r#""sealedAt":-9"#), "`sealedAt` must be a whole number from 0 to"),
            (
                without(r#""sealedAt":9"#, r#""sealedAt":1780000000000000"#),
                "`sealedAt` must be a whole number from 0 to",
            ),
            (without(r#""endedAt":8"#, r#""endedAt":"8""#), "`endedAt` must be a whole number from 0 to"),
            (without(r#""conversationId":"c","#, ""), "`conversationId` is missing"),
            (without(r#""conversationId":"c""#, r#""conversationId":"""#), "`conversationId` is not valid: "),
            (
                without(r#""inputTokens":1,"#, r#""inputTokens":-1,"#),
                "`metrics.usage.inputTokens` must be a whole number",
            ),
            (
                without(r#""usage":{"inputTokens":0"#, r#""usage":{"inputTokens":0.5"#),
                "`metrics.steps.1.usage.inputTokens` must",
            ),
            (
                without(r#"{"stepId":"b","usage""#, r#"{"stepId":"a","usage""#),
                "`metrics.steps` is not valid: the step `a` stands twice",
            ),
            (
                without(r#"{"stepId":"b","model""#, r#"{"stepId":"z","model""#),
                "`stepDetails` names the step `z`, which is not",
            ),
            (without(r#"{"stepId":"b","model""#, r#"{"stepId":"a","model""#), "`stepDetails` names the step `a` twice"),
            (without(r#""steps":["#, r#""steps":7,"x":["#), "`metrics.steps` must be an array, not a number"),
            (
                r#"{"type":"done","conversationId":"c"}"#.to_owned(),
                "this is an event of the type `done` and no sealed turn",
            ),
            ("{}".to_owned(), "`conversationId` is missing"),
            (format!("{EXPORTED}{EXPORTED}"), "another object follows the turn"),
        ] {
            let told = read(&line).unwrap_err();
            assert!(told.starts_with(message), "{told}: {line}");
        }
    }
}
