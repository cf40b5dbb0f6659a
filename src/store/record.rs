//! How values are written to the file: twins of the domain types, apart from them, so that a change of those never
//! changes what a file holds. Each value is one byte, the version of its encoding, then [postcard] of the twin.
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format

use serde::{Deserialize, Serialize};

use super::{StagedTurn, Version};
use crate::turn::{
    EpochMillis, Label, Millis, OpenStep, OpenTurn, Ordinal, SealedTurn, StepId, StepMetrics, StepTimes, StoredTurn,
    TokenCount, TurnId, TurnMetrics, Usage,
};

/// The version byte of every encoding below.
const V1: u8 = 1;

/// A value does not decode: it is damaged, or of a later version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored {what} cannot be read: {why}")]
pub(crate) struct DamagedRecord {
    what: &'static str,
    why: String,
}

impl DamagedRecord {
    /// A record that others point to and that is not there.
    pub(super) fn missing(what: &'static str) -> Self {
        Self { what, why: "it is missing".into() }
    }
}

/// What is stored once for each conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conversation {
    pub(super) id: String,
    pub(super) version: Version,
    pub(super) sealed_turns: u64,
    /// The sum of the usage of its sealed turns.
    pub(super) total_usage: Usage,
}

impl Conversation {
    pub(super) fn encode(&self) -> Result<Vec<u8>, DamagedRecord> {
        let twin = ConversationV1 {
            id: &self.id,
            version: self.version.0,
            sealed_turns: self.sealed_turns,
            total_usage: self.total_usage.into(),
        };
        encode("conversation", &twin)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DamagedRecord> {
        decode("conversation", bytes, |twin: ConversationV1<'_>| {
            Ok(Self {
                id: twin.id.to_owned(),
                version: Version(twin.version),
                sealed_turns: twin.sealed_turns,
                total_usage: twin.total_usage.read()?,
            })
        })
    }
}

pub(super) fn encode_sealed(turn: &SealedTurn) -> Result<Vec<u8>, DamagedRecord> {
    let metrics = &turn.metrics;
    let steps = metrics.steps.iter();
    let twin = SealedTurnV1 {
        turn_id: metrics.turn_id.as_str(),
        sealed_at: turn.sealed_at.get(),
        reason: turn.reason.as_str(),
        model: turn.model.as_ref().map(Label::as_str),
        usage: metrics.usage.into(),
        steps: steps.map(|step| StepV1::new(&step.step_id, Some(step.usage), &step.times)).collect(),
        duration: metrics.duration.map(Millis::get),
        context_size: metrics.context_size.map(TokenCount::get),
    };
    encode("sealed turn", &twin)
}

pub(super) fn decode_sealed(ordinal: Ordinal, bytes: &[u8]) -> Result<StoredTurn, DamagedRecord> {
    let sealed = decode("sealed turn", bytes, |twin: SealedTurnV1<'_>| {
        let steps = twin.steps.into_iter().map(|step| {
            let step = step.read()?;
            Ok(StepMetrics { step_id: step.id, usage: step.usage.unwrap_or_default(), times: step.times })
        });
        Ok(SealedTurn {
            sealed_at: EpochMillis::new(twin.sealed_at),
            reason: twin.reason.into(),
            model: twin.model.map(Label::from),
            metrics: TurnMetrics {
                turn_id: TurnId::new(twin.turn_id)?,
                usage: twin.usage.read()?,
                steps: steps.collect::<Result<_, Invalid>>()?,
                duration: read_millis(twin.duration)?,
                context_size: twin.context_size.map(TokenCount::new).transpose()?,
            },
        })
    })?;
    Ok(sealed.at(ordinal))
}

pub(super) fn encode_staged(staged: &StagedTurn) -> Result<Vec<u8>, DamagedRecord> {
    let turn = &staged.turn;
    let twin = OpenTurnV1 {
        turn_id: turn.id.as_str(),
        last_event_at: staged.last_event_at.get(),
        model: turn.model.as_ref().map(Label::as_str),
        steps: turn.steps.iter().map(|step| StepV1::new(&step.id, step.usage, &step.times)).collect(),
        unlabelled_usage: turn.unlabelled_usage.map(UsageV1::from),
    };
    encode("open turn", &twin)
}

pub(super) fn decode_staged(bytes: &[u8]) -> Result<StagedTurn, DamagedRecord> {
    decode("open turn", bytes, |twin: OpenTurnV1<'_>| {
        Ok(StagedTurn {
            turn: OpenTurn {
                id: TurnId::new(twin.turn_id)?,
                model: twin.model.map(Label::from),
                steps: twin.steps.into_iter().map(StepV1::read).collect::<Result<_, _>>()?,
                unlabelled_usage: twin.unlabelled_usage.map(UsageV1::read).transpose()?,
            },
            last_event_at: EpochMillis::new(twin.last_event_at),
        })
    })
}

#[derive(Serialize, Deserialize)]
struct ConversationV1<'a> {
    id: &'a str,
    version: u64,
    sealed_turns: u64,
    total_usage: UsageV1,
}

#[derive(Serialize, Deserialize)]
struct SealedTurnV1<'a> {
    turn_id: &'a str,
    sealed_at: u64,
    reason: &'a str,
    model: Option<&'a str>,
    usage: UsageV1,
    #[serde(borrow)]
    steps: Vec<StepV1<'a>>,
    duration: Option<f64>,
    context_size: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct OpenTurnV1<'a> {
    turn_id: &'a str,
    last_event_at: u64,
    model: Option<&'a str>,
    #[serde(borrow)]
    steps: Vec<StepV1<'a>>,
    unlabelled_usage: Option<UsageV1>,
}

#[derive(Serialize, Deserialize)]
struct StepV1<'a> {
    id: &'a str,
    usage: Option<UsageV1>,
    ttft: Option<f64>,
    decode: Option<f64>,
    gen_total: Option<f64>,
}

impl<'a> StepV1<'a> {
    fn new(id: &'a StepId, usage: Option<Usage>, times: &StepTimes) -> Self {
        Self {
            id: id.as_str(),
            usage: usage.map(UsageV1::from),
            ttft: times.ttft.map(Millis::get),
            decode: times.decode.map(Millis::get),
            gen_total: times.gen_total.map(Millis::get),
        }
    }

    fn read(self) -> Result<OpenStep, Invalid> {
        Ok(OpenStep {
            id: StepId::new(self.id)?,
            usage: self.usage.map(UsageV1::read).transpose()?,
            times: StepTimes {
                ttft: read_millis(self.ttft)?,
                decode: read_millis(self.decode)?,
                gen_total: read_millis(self.gen_total)?,
            },
        })
    }
}

#[derive(Serialize, Deserialize)]
struct UsageV1 {
    input: u64,
    output: u64,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
}

impl From<Usage> for UsageV1 {
    fn from(usage: Usage) -> Self {
        Self {
            input: usage.input_tokens.get(),
            output: usage.output_tokens.get(),
            cache_read: usage.cache_read_tokens.map(TokenCount::get),
            cache_write: usage.cache_write_tokens.map(TokenCount::get),
        }
    }
}

impl UsageV1 {
    fn read(self) -> Result<Usage, Invalid> {
        Ok(Usage {
            input_tokens: TokenCount::new(self.input)?,
            output_tokens: TokenCount::new(self.output)?,
            cache_read_tokens: self.cache_read.map(TokenCount::new).transpose()?,
            cache_write_tokens: self.cache_write.map(TokenCount::new).transpose()?,
        })
    }
}

fn read_millis(millis: Option<f64>) -> Result<Option<Millis>, Invalid> {
    Ok(millis.map(Millis::new).transpose()?)
}

/// A field that decodes but holds what its type does not allow.
type Invalid = Box<dyn std::error::Error>;

fn encode<T: Serialize>(what: &'static str, twin: &T) -> Result<Vec<u8>, DamagedRecord> {
    postcard::to_extend(twin, vec![V1]).map_err(|error| DamagedRecord { what, why: error.to_string() })
}

fn decode<'a, T: Deserialize<'a>, R>(
    what: &'static str,
    bytes: &'a [u8],
    read: impl FnOnce(T) -> Result<R, Invalid>,
) -> Result<R, DamagedRecord> {
    let damaged = |why: String| DamagedRecord { what, why };
    let (&version, body) = bytes.split_first().ok_or_else(|| damaged("it is empty".into()))?;
    if version != V1 {
        return Err(damaged(format!("its encoding is of version {version}, not {V1}")));
    }
    let (twin, rest) = postcard::take_from_bytes(body).map_err(|error| damaged(error.to_string()))?;
    if !rest.is_empty() {
        return Err(damaged(format!("{} bytes follow it", rest.len())));
    }
    read(twin).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::Done;

    fn staged() -> StagedTurn {
        let usage = Usage { input_tokens: 900.into(), cache_read_tokens: Some(0.into()), ..Usage::default() };
        let times = StepTimes { ttft: Some(Millis::new(50.25).unwrap()), decode: None, gen_total: Some(7.into()) };
        let turn = OpenTurn {
            id: TurnId::new("t").unwrap(),
            model: Some("m".into()),
            steps: [
                OpenStep { id: StepId::new("t#0").unwrap(), usage: Some(usage), times },
                OpenStep { id: StepId::new("t#1").unwrap(), usage: None, times: StepTimes::default() },
            ]
            .into_iter()
            .collect(),
            unlabelled_usage: Some(usage),
        };
        StagedTurn { turn, last_event_at: EpochMillis::new(1_700_000_000_000) }
    }

    fn sealed() -> SealedTurn {
        staged().turn.seal(&Done::because("stop"), EpochMillis::new(9))
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let bytes = encode_staged(&staged()).unwrap();
        assert_eq!(decode_staged(&bytes).unwrap(), staged());

        let ordinal = Ordinal::after(4);
        let bytes = encode_sealed(&sealed()).unwrap();
        assert_eq!(decode_sealed(ordinal, &bytes).unwrap(), sealed().at(ordinal));

        let conversation = Conversation {
            id: "c".into(),
            version: Version(7),
            sealed_turns: 3,
            total_usage: Usage { cache_write_tokens: Some(TokenCount::MAX), ..Usage::default() },
        };
        assert_eq!(Conversation::decode(&conversation.encode().unwrap()).unwrap(), conversation);
    }

    #[test]
    fn a_damaged_record_is_an_error_wherever_it_is_cut() {
        let bytes = encode_sealed(&sealed()).unwrap();
        for cut in 0..bytes.len() {
            assert!(decode_sealed(Ordinal::after(0), &bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [&*bytes, b"x"].concat();
        assert!(decode_sealed(Ordinal::after(0), &longer).unwrap_err().to_string().contains("1 bytes follow"));
    }

    #[test]
    fn a_later_encoding_is_refused_by_its_version() {
        let mut bytes = encode_staged(&staged()).unwrap();
        bytes[0] = 2;
        assert_eq!(
            decode_staged(&bytes).unwrap_err().to_string(),
            "a stored open turn cannot be read: its encoding is of version 2, not 1"
        );
    }
}
