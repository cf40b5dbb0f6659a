//! How values are written to the file: twins of the domain types, apart from them, so that a change of those never
//! changes what a file holds. Each value is one byte, the version of its encoding, then [postcard] of the twin.
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format

mod v1;
mod v2;

use serde::{Deserialize, Serialize};

use self::v1::{ConversationV1, OpenTurnV1, SealedTurnV1};
use self::v2::{ConversationV2, OpenTurnV2, SealedTurnV2};
use super::{StagedTurn, Version};
use crate::turn::{ConversationId, Millis, Ordinal, SealedTurn, StoredTurn, Usage};

/// The version byte of an encoding.
const V1: u8 = 1;
const V2: u8 = 2;

/// A value does not decode: it is damaged, or of a later version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored {what} cannot be read: {why}")]
pub(crate) struct DamagedRecord {
    what: &'static str,
    why: String,
}

impl DamagedRecord {
    pub(super) fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }

    /// A record that others point to and that is not there.
    pub(super) fn missing(what: &'static str) -> Self {
        Self { what, why: "it is missing".into() }
    }
}

/// What is stored once for each conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conversation {
    pub(super) id: ConversationId,
    pub(super) version: Version,
    pub(super) sealed_turns: u64,
    /// The sum of the usage of its sealed turns.
    pub(super) total_usage: Usage,
}

impl Conversation {
    pub(super) fn encode(&self) -> Result<Vec<u8>, DamagedRecord> {
        encode(CONVERSATION, &ConversationV2::of(self))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DamagedRecord> {
        match version(CONVERSATION, bytes)? {
            (V1, body) => decode(CONVERSATION, body, ConversationV1::read),
            (V2, body) => decode(CONVERSATION, body, ConversationV2::read),
            (later, _) => Err(of_later_version(CONVERSATION, later)),
        }
    }
}

pub(super) fn encode_sealed(turn: &SealedTurn) -> Result<Vec<u8>, DamagedRecord> {
    encode(SEALED_TURN, &SealedTurnV2::of(turn))
}

pub(super) fn decode_sealed(ordinal: Ordinal, bytes: &[u8]) -> Result<StoredTurn, DamagedRecord> {
    let sealed = match version(SEALED_TURN, bytes)? {
        (V1, body) => decode(SEALED_TURN, body, SealedTurnV1::read),
        (V2, body) => decode(SEALED_TURN, body, SealedTurnV2::read),
        (later, _) => Err(of_later_version(SEALED_TURN, later)),
    };
    Ok(sealed?.at(ordinal))
}

pub(super) fn encode_staged(staged: &StagedTurn) -> Result<Vec<u8>, DamagedRecord> {
    encode(OPEN_TURN, &OpenTurnV2::of(staged))
}

pub(super) fn decode_staged(bytes: &[u8]) -> Result<StagedTurn, DamagedRecord> {
    match version(OPEN_TURN, bytes)? {
        (V1, body) => decode(OPEN_TURN, body, OpenTurnV1::read),
        (V2, body) => decode(OPEN_TURN, body, OpenTurnV2::read),
        (later, _) => Err(of_later_version(OPEN_TURN, later)),
    }
}

/// The id of a turn, sealed or open, without reading the rest of its record: in every version it stands first.
pub(super) fn turn_id_of(bytes: &[u8]) -> Result<&str, DamagedRecord> {
    let damaged = |why| DamagedRecord::new("turn", why);
    match version("turn", bytes)? {
        (V1 | V2, body) => match postcard::take_from_bytes(body) {
            Ok((id, _)) => Ok(id),
            Err(error) => Err(damaged(error.to_string())),
        },
        (later, _) => Err(of_later_version("turn", later)),
    }
}

const CONVERSATION: &str = "conversation";
const SEALED_TURN: &str = "sealed turn";
const OPEN_TURN: &str = "open turn";

fn read_millis(millis: Option<f64>) -> Result<Option<Millis>, Invalid> {
    Ok(millis.map(Millis::new).transpose()?)
}

/// A field that decodes but holds what its type does not allow.
type Invalid = Box<dyn std::error::Error>;

/// What nearly all records fit in.
const ROOM: usize = 256;

fn encode<T: Serialize>(what: &'static str, twin: &T) -> Result<Vec<u8>, DamagedRecord> {
    let mut bytes = Vec::with_capacity(ROOM);
    bytes.push(V2);
    postcard::to_extend(twin, bytes).map_err(|error| DamagedRecord::new(what, error.to_string()))
}

/// The version of an encoding, and what it is the version of.
fn version<'a>(what: &'static str, bytes: &'a [u8]) -> Result<(u8, &'a [u8]), DamagedRecord> {
    let (version, body) = bytes.split_first().ok_or_else(|| DamagedRecord::new(what, "it is empty"))?;
    Ok((*version, body))
}

fn of_later_version(what: &'static str, version: u8) -> DamagedRecord {
    DamagedRecord::new(what, format!("its encoding is of version {version}, and the latest known is {V2}"))
}

fn decode<'a, T: Deserialize<'a>, R>(
    what: &'static str,
    body: &'a [u8],
    read: impl FnOnce(T) -> Result<R, Invalid>,
) -> Result<R, DamagedRecord> {
    let damaged = |why: String| DamagedRecord::new(what, why);
    let (twin, rest) = postcard::take_from_bytes(body).map_err(|error| damaged(error.to_string()))?;
    if !rest.is_empty() {
        return Err(damaged(format!("{} bytes follow it", rest.len())));
    }
    read(twin).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::turn::{Done, EpochMillis, OpenStep, OpenTurn, StepId, StepTimes, TokenCount, TurnId};

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
            id: ConversationId::new("c").unwrap(),
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
        bytes[0] = 3;
        assert_eq!(
            decode_staged(&bytes).unwrap_err().to_string(),
            "a stored open turn cannot be read: its encoding is of version 3, and the latest known is 2"
        );
    }

    #[test]
    fn a_turn_as_kernels_report_it_takes_little_more_than_its_ids_and_counts() {
        let id = "0123456789abcdef-0123456789abcdef-ids".to_owned();
        let usage = Usage {
            input_tokens: 90_000.into(),
            output_tokens: 1500.into(),
            cache_read_tokens: Some(80_000.into()),
            cache_write_tokens: Some(9000.into()),
        };
        let times = StepTimes {
            ttft: Some(Millis::new(850.5).unwrap()),
            decode: Some(6000.into()),
            gen_total: Some(7000.into()),
        };
        let mut turn = OpenTurn::new(TurnId::new(&id).unwrap());
        for step in 0..3 {
            let step_id = StepId::new(format!("{id}#{step}")).unwrap();
            turn.fold(&crate::turn::Progress::Usage { step_id: Some(step_id.clone()), usage });
            turn.fold(&crate::turn::Progress::StepComplete { step_id, times, model: None });
        }
        let sealed = turn.seal(
            &Done { duration: Some(30_000.into()), ..Done::because("stop") },
            EpochMillis::new(1_700_000_000_000),
        );
        let bytes = encode_sealed(&sealed).unwrap();
        assert_eq!(decode_sealed(Ordinal::after(0), &bytes).unwrap(), sealed.at(Ordinal::after(0)));
        assert!(bytes.len() <= 125, "{} bytes", bytes.len());
    }

    #[test]
    fn the_id_of_a_turn_is_read_alone() {
        assert_eq!(turn_id_of(&encode_sealed(&sealed()).unwrap()).unwrap(), "t");
        assert_eq!(turn_id_of(&encode_staged(&staged()).unwrap()).unwrap(), "t");
        assert!(turn_id_of(b"").is_err() && turn_id_of(b"\x09\x01t").is_err() && turn_id_of(b"\x02\x09t").is_err());
    }

    fn any_count() -> impl Strategy<Value = TokenCount> {
        prop_oneof![0..=9_u64, 0..=TokenCount::MAX.get(), Just(TokenCount::MAX.get())]
            .prop_map(|count| TokenCount::new(count).unwrap())
    }

    fn any_usage() -> impl Strategy<Value = Usage> {
        (any_count(), any_count(), option::of(any_count()), option::of(any_count())).prop_map(
            |(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)| Usage {
                input_tokens,
                output_tokens,
                cache_read_tokens,
                cache_write_tokens,
            },
        )
    }

    fn any_time() -> impl Strategy<Value = Option<Millis>> {
        let cents = |scale: f64| (0..1_000_000_u32).prop_map(move |n| f64::from(n) / scale);
        let any = any::<f64>().prop_filter("a time", |time| time.is_finite() && *time >= 0.0);
        let time = prop_oneof![cents(1.0), cents(10.0), cents(100.0), cents(1000.0), any];
        option::of(time.prop_map(|time| Millis::new(time).unwrap()))
    }

    fn any_step() -> impl Strategy<Value = (bool, OpenStep)> {
        let times = (any_time(), any_time(), any_time());
        (any::<bool>(), "[a-c]{1,3}#?[0-2]{0,2}", option::of(any_usage()), times).prop_map(
            |(usual, id, usage, (ttft, decode, gen_total))| {
                let times = StepTimes { ttft, decode, gen_total };
                (usual, OpenStep { id: StepId::new(id).unwrap(), usage, times })
            },
        )
    }

    fn any_open() -> impl Strategy<Value = StagedTurn> {
        let model = option::of("[a-z]{0,3}").prop_map(|model| model.map(|model| model.as_str().into()));
        (vec(any_step(), 0..5), model, option::of(any_usage()), any::<u64>()).prop_map(
            |(steps, model, unlabelled_usage, at)| {
                let steps = steps.into_iter().enumerate().map(|(place, (usual, step))| {
                    if usual { OpenStep { id: StepId::new(format!("a#{place}")).unwrap(), ..step } } else { step }
                });
                let turn = OpenTurn { id: TurnId::new("a").unwrap(), model, steps: steps.collect(), unlabelled_usage };
                StagedTurn { turn, last_event_at: EpochMillis::new(at) }
            },
        )
    }

    fn any_sealed() -> impl Strategy<Value = SealedTurn> {
        let told = (option::of(any_usage()), option::of(any_count()), any_time());
        (any_open(), told).prop_map(|(staged, (usage, context_size, duration))| {
            let done = Done { duration, usage, context_size, ..Done::because("stop") };
            staged.turn.seal(&done, staged.last_event_at)
        })
    }

    proptest! {
        #[test]
        fn whatever_is_written_reads_back_equal(staged in any_open(), sealed in any_sealed()) {
            prop_assert_eq!(decode_staged(&encode_staged(&staged).unwrap()).unwrap(), staged);
            let ordinal = Ordinal::after(0);
            prop_assert_eq!(decode_sealed(ordinal, &encode_sealed(&sealed).unwrap()).unwrap(), sealed.at(ordinal));
        }
    }
}
