//! The encoding of the values in the files.
//!
//! Each value is one byte, the version of its encoding, followed by the [postcard] of a *twin*: a struct that is a copy
//! of a domain type. A change of a domain type therefore never changes the file.
//!
//! - `twin`: the twins, and the conversion between them and the domain types.
//! - `conversation`: the record of a conversation.
//! - `open_turn`: the records of an open turn: its head and its steps.
//! - `at_position`: the record at a position of the order.
//! - `erasure`: the record of a conversation that is being erased. It has two numbers, and no version.
//! - `dropped`: what is known of the turns of a conversation that were dropped.
//! - `damaged`: why a value does not decode.
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format

pub(crate) mod at_position;
pub(crate) mod conversation;
pub(crate) mod damaged;
pub(crate) mod dropped;
pub(crate) mod erasure;
pub(crate) mod open_turn;
mod twin;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::at_position::AtPosition;
use self::conversation::ConversationRecord;
use self::damaged::{DamagedRecord, RecordFlaw};
use self::open_turn::{StagedHead, StagedRecords};
use self::twin::{AtPositionTwin, ConversationTwin, OpenHeadTwin, OpenStepTwin, SealedTurnTwin};
use crate::store::contract::{StagedChange, StagedTurn};
use crate::turn::{EpochMillis, OpenStep, OpenSteps, OpenTurn, Ordinal, SealedTurn, StoredTurn, TurnId};

/// The version byte of the encoding.
const VERSION: u8 = 1;

impl ConversationRecord {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, DamagedRecord> {
        encode(CONVERSATION, &ConversationTwin::of(self))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DamagedRecord> {
        decode(CONVERSATION, bytes, ConversationTwin::read)
    }
}

impl AtPosition {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, DamagedRecord> {
        encode(POSITION, &AtPositionTwin::of(self))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DamagedRecord> {
        decode(POSITION, bytes, AtPositionTwin::read)
    }
}

impl StagedRecords {
    pub(crate) fn encode(change: &StagedChange) -> Result<Self, DamagedRecord> {
        let step = |(place, step): &(u32, OpenStep)| -> Result<(u32, Arc<[u8]>), DamagedRecord> {
            Ok((*place, encode_step(&change.turn_id, *place, step)?.into()))
        };
        let steps = change.steps.iter().map(step).collect::<Result<_, _>>()?;
        let StagedChange { turn_id, step_count, .. } = change;
        Ok(Self { turn_id: turn_id.clone(), step_count: *step_count, head: encode_head(change)?.into(), steps })
    }

    /// Returns the records of a turn, without decoding more of the head than its first fields.
    pub(crate) fn read(head: Arc<[u8]>, steps: Vec<(u32, Arc<[u8]>)>) -> Result<Self, DamagedRecord> {
        let (id, step_count) = step_count_of(&head)?;
        let turn_id = TurnId::new(id).map_err(|error| DamagedRecord::new(HEAD, error))?;
        Ok(Self { turn_id, step_count, head, steps })
    }
}

impl StagedHead {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DamagedRecord> {
        decode(HEAD, bytes, OpenHeadTwin::read)
    }

    /// Puts the turn together from this head and from `steps`, the records of its steps in order.
    pub(crate) fn with_steps<'a>(
        self,
        steps: impl Iterator<Item = Result<&'a [u8], DamagedRecord>>,
    ) -> Result<StagedTurn, DamagedRecord> {
        let Self { turn_id, step_count, last_event_at, head } = self;
        let steps = (0..).zip(steps).map(|(place, record)| decode_step(&turn_id, place, record?));
        let steps: OpenSteps = steps.collect::<Result<_, _>>()?;
        // If two steps have the same id, only one of them is in `steps`.
        if steps.count() != step_count {
            return Err(DamagedRecord::new(HEAD, RecordFlaw::StepCount { found: steps.count(), said: step_count }));
        }
        Ok(StagedTurn { turn: OpenTurn { id: turn_id, head, steps }, last_event_at })
    }
}

pub(crate) fn encode_sealed(turn: &SealedTurn) -> Result<Vec<u8>, DamagedRecord> {
    encode(SEALED_TURN, &SealedTurnTwin::of(turn))
}

pub(crate) fn decode_sealed(ordinal: Ordinal, bytes: &[u8]) -> Result<StoredTurn, DamagedRecord> {
    Ok(decode(SEALED_TURN, bytes, SealedTurnTwin::read)?.at(ordinal))
}

/// Encodes the head of a changed turn.
fn encode_head(change: &StagedChange) -> Result<Vec<u8>, DamagedRecord> {
    encode(HEAD, &OpenHeadTwin::of(change))
}

/// Returns the id of an open turn and the number of its steps, without decoding the rest of its head.
pub(crate) fn step_count_of(head: &[u8]) -> Result<(&str, u32), DamagedRecord> {
    first_of(HEAD, head)
}

pub(crate) fn encode_step(turn_id: &TurnId, place: u32, step: &OpenStep) -> Result<Vec<u8>, DamagedRecord> {
    encode(STEP, &OpenStepTwin::of(turn_id, place, step))
}

pub(crate) fn decode_step(turn_id: &TurnId, place: u32, bytes: &[u8]) -> Result<OpenStep, DamagedRecord> {
    decode(STEP, bytes, |twin: OpenStepTwin<'_>| twin.read(turn_id, place))
}

/// Returns the id of a turn, sealed or open, without decoding the rest of its record or head.
pub(crate) fn turn_id_of(bytes: &[u8]) -> Result<&str, DamagedRecord> {
    first_of("turn", bytes)
}

/// Returns the moment at which a turn was sealed, without decoding the rest of its record.
pub(crate) fn sealed_at_of(bytes: &[u8]) -> Result<EpochMillis, DamagedRecord> {
    let (_, sealed_at): (&str, u64) = first_of(SEALED_TURN, bytes)?;
    Ok(EpochMillis::new(sealed_at))
}

/// Returns the first fields of a record.
fn first_of<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, DamagedRecord> {
    match postcard::take_from_bytes(body(what, bytes)?) {
        Ok((first, _)) => Ok(first),
        Err(error) => Err(DamagedRecord::new(what, error)),
    }
}

/// Encodes sums or a label. These types have no twins: their fields are private to the module `report`, which also
/// defines their encoding.
pub(crate) fn encode_plain<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, DamagedRecord> {
    encode(what, value)
}

/// Decodes the bytes that [`encode_plain`] has written.
pub(crate) fn decode_plain<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DamagedRecord> {
    decode(what, bytes, Ok)
}

const CONVERSATION: &str = "conversation";
const POSITION: &str = "position";
const SEALED_TURN: &str = "sealed turn";
const HEAD: &str = "open turn";
const STEP: &str = "step of an open turn";

/// A number of bytes that is enough for nearly all records.
const ROOM: usize = 256;

fn encode<T: Serialize>(what: &'static str, twin: &T) -> Result<Vec<u8>, DamagedRecord> {
    let mut bytes = Vec::with_capacity(ROOM);
    bytes.push(VERSION);
    postcard::to_extend(twin, bytes).map_err(|error| DamagedRecord::new(what, error))
}

/// Returns the bytes after the version byte.
fn body<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], DamagedRecord> {
    match bytes.split_first() {
        Some((&VERSION, body)) => Ok(body),
        Some((&found, _)) => Err(DamagedRecord::new(what, RecordFlaw::Version { found, known: VERSION })),
        None => Err(DamagedRecord::new(what, RecordFlaw::Empty)),
    }
}

fn decode<'a, T: Deserialize<'a>, R>(
    what: &'static str,
    bytes: &'a [u8],
    read: impl FnOnce(T) -> Result<R, RecordFlaw>,
) -> Result<R, DamagedRecord> {
    let damaged = |flaw| DamagedRecord::new(what, flaw);
    let (twin, rest) = postcard::take_from_bytes(body(what, bytes)?).map_err(|error| damaged(error.into()))?;
    if !rest.is_empty() {
        return Err(damaged(RecordFlaw::Trailing(rest.len())));
    }
    read(twin).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::store::contract::{Commit, Version};
    use crate::turn::{
        ConversationId, Done, EpochMillis, KernelMoment, Label, Millis, OpenHead, Progress, RunningTime, StepId,
        StepTimes, TokenCount, TurnId, TurnLabels, Usage, UsageReport, UsageReports,
    };

    fn staged() -> StagedTurn {
        let report = UsageReport {
            input_tokens: Some(900.into()),
            cache_read_tokens: Some(0.into()),
            cache_write_1h_tokens: Some(7.into()),
            ..UsageReport::default()
        };
        let times = StepTimes { ttft: Some(Millis::new(50.25).unwrap()), decode: None, gen_total: Some(7.into()) };
        let reports =
            UsageReports { interim: Some(report), finals: Some(UsageReport { input_tokens: None, ..report }) };
        let step = |id: &str| OpenStep::new(StepId::new(id).unwrap());
        let turn = OpenTurn {
            id: TurnId::new("t").unwrap(),
            head: OpenHead {
                labels: TurnLabels { model: Some("m".into()), provider: Some("p".into()), project: Some("j".into()) },
                unlabelled: reports,
                has_failed: true,
            },
            steps: [OpenStep { reports, times, model: Some("other".into()), ..step("t#0") }, step("t#1")]
                .into_iter()
                .collect(),
        };
        StagedTurn { turn, last_event_at: RunningTime::new(1_700_000_000_000) }
    }

    fn records(staged: StagedTurn) -> StagedRecords {
        StagedRecords::encode(&staged.into()).unwrap()
    }

    fn read(StagedRecords { head, steps, .. }: &StagedRecords) -> Result<StagedTurn, DamagedRecord> {
        StagedHead::decode(head)?.with_steps(steps.iter().map(|(_, record)| Ok(&**record)))
    }

    fn sealed() -> SealedTurn {
        staged().turn.seal(&Done::because("stop"), EpochMillis::new(9))
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let open = records(staged());
        assert_eq!(read(&open).unwrap(), staged());
        assert_eq!(step_count_of(&open.head).unwrap(), ("t", 2));

        let ordinal = Ordinal::after(4);
        let bytes = encode_sealed(&sealed()).unwrap();
        assert_eq!(decode_sealed(ordinal, &bytes).unwrap(), sealed().at(ordinal));

        for at in [AtPosition::Erased, AtPosition::Sealed { key: 300, ordinal }] {
            assert_eq!(AtPosition::decode(&at.encode().unwrap()).unwrap(), at);
        }
        assert!(AtPosition::decode(b"\x01\x00\x07\x00").is_err(), "0 is no ordinal");

        let conversation = ConversationRecord {
            id: ConversationId::new("c").unwrap(),
            life: crate::store::Life(u64::MAX - 5),
            version: Version(7),
            sealed_turns: 3,
            begins_after: 1,
            last_sealed_at: EpochMillis::new(8),
            last_at: EpochMillis::new(6),
            first_at: EpochMillis::new(2),
            model: Some("m".into()),
            project: Some("j".into()),
            context_size: Some(0.into()),
            total_usage: Usage { cache_write_tokens: Some(TokenCount::MAX), ..Usage::default() },
        };
        assert_eq!(ConversationRecord::decode(&conversation.encode().unwrap()).unwrap(), conversation);
    }

    #[test]
    fn a_moment_that_no_event_can_have_is_written_without_a_panic() {
        for (sealed_at, ended_at) in [(0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX)] {
            let ended_at = Some(EpochMillis::new(ended_at));
            let turn = SealedTurn { sealed_at: EpochMillis::new(sealed_at), ended_at, ..sealed() };
            let read = decode_sealed(Ordinal::after(0), &encode_sealed(&turn).unwrap()).unwrap();
            assert_eq!((read.sealed_at, read.ended_at.is_some()), (turn.sealed_at, true));
        }
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
    fn an_open_turn_is_whole_or_damaged() {
        let whole = records(staged());
        let with = |steps: &[(u32, Arc<[u8]>)]| read(&StagedRecords { steps: steps.to_vec(), ..whole.clone() });
        assert!(with(&whole.steps).is_ok());
        assert!(with(&whole.steps[..1]).is_err() && with(&[]).is_err());
        let longer = [&*whole.steps, &whole.steps[..1]].concat();
        assert!(with(&longer).is_err());
        let same = encode_step(&TurnId::new("t").unwrap(), 1, &staged().turn.steps[0]).unwrap();
        let twice = with(&[whole.steps[0].clone(), (1, same.into())]);
        assert!(twice.unwrap_err().to_string().contains("it has 1 steps, and its head says 2"));
    }

    #[test]
    fn a_later_encoding_is_refused_by_its_version() {
        let mut bytes = encode_head(&staged().into()).unwrap();
        bytes[0] = 2;
        assert_eq!(
            StagedHead::decode(&bytes).unwrap_err().to_string(),
            "a stored open turn cannot be read: its encoding is version 2, and this program reads version 1"
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
            let report = usage.into();
            turn.fold(&Progress::Usage { step_id: Some(step_id.clone()), report, is_final: false });
            turn.fold(&Progress::StepComplete { step_id, times, model: None, provider: None });
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
        assert_eq!(turn_id_of(&encode_head(&staged().into()).unwrap()).unwrap(), "t");
        assert!(turn_id_of(b"").is_err() && turn_id_of(b"\x02\x01t").is_err() && turn_id_of(b"\x01\x09t").is_err());
    }

    fn any_count() -> impl Strategy<Value = TokenCount> {
        prop_oneof![0..=9_u64, 0..=TokenCount::MAX.get(), Just(TokenCount::MAX.get())]
            .prop_map(|count| TokenCount::new(count).unwrap())
    }

    fn any_report() -> impl Strategy<Value = UsageReport> {
        let counter = || option::of(any_count());
        (counter(), counter(), counter(), counter(), counter()).prop_map(
            |(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens)| UsageReport {
                input_tokens,
                output_tokens,
                cache_read_tokens,
                cache_write_tokens,
                cache_write_1h_tokens,
            },
        )
    }

    fn any_reports() -> BoxedStrategy<UsageReports> {
        (option::of(any_report()), option::of(any_report()))
            .prop_map(|(interim, finals)| UsageReports { interim, finals })
            .boxed()
    }

    fn any_label() -> impl Strategy<Value = Option<Label>> {
        option::of("[a-c]{0,2}").prop_map(|text| text.map(|text| text.as_str().into()))
    }

    fn any_time() -> impl Strategy<Value = Option<Millis>> {
        let cents = |scale: f64| (0..1_000_000_u32).prop_map(move |n| f64::from(n) / scale);
        let any = any::<f64>().prop_filter("a time", |time| time.is_finite() && *time >= 0.0);
        let time = prop_oneof![cents(1.0), cents(10.0), cents(100.0), cents(1000.0), any];
        option::of(time.prop_map(|time| Millis::new(time).unwrap()))
    }

    fn any_step() -> impl Strategy<Value = (bool, OpenStep)> {
        let times = (any_time(), any_time(), any_time());
        (any::<bool>(), "[a-c]{1,3}#?[0-2]{0,2}", any_reports(), times, any_label(), any_label()).prop_map(
            |(usual, id, reports, (ttft, decode, gen_total), model, provider)| {
                let times = StepTimes { ttft, decode, gen_total };
                (usual, OpenStep { id: StepId::new(id).unwrap(), reports, times, model, provider })
            },
        )
    }

    fn any_open() -> BoxedStrategy<StagedTurn> {
        let labels = (any_label(), any_label(), any_label()).prop_map(|(model, provider, project)| TurnLabels {
            model,
            provider,
            project,
        });
        (vec(any_step(), 0..5), labels, any_reports(), any::<(u64, bool)>())
            .prop_map(|(steps, labels, unlabelled, (at, has_failed))| {
                let steps = steps.into_iter().enumerate().map(|(place, (usual, step))| {
                    if usual { OpenStep { id: StepId::new(format!("a#{place}")).unwrap(), ..step } } else { step }
                });
                let id = TurnId::new("a").unwrap();
                let turn = OpenTurn { id, head: OpenHead { labels, unlabelled, has_failed }, steps: steps.collect() };
                StagedTurn { turn, last_event_at: RunningTime::new(at) }
            })
            .boxed()
    }

    fn any_sealed() -> impl Strategy<Value = SealedTurn> {
        let told = (option::of(any_report()), option::of(any_count()), any_time());
        // A turn may end at most a day after it is sealed, which random moments hardly ever do.
        let day = 86_400_000;
        let sealed_at = day..=1u64 << 50;
        let moments = (sealed_at, option::of((any::<bool>(), 0..=1u64 << 50, 0..=2 * day))).prop_map(
            move |(sealed_at, ended_at)| {
                (sealed_at, ended_at.map(|(is_near, far, near)| if is_near { sealed_at - day + near } else { far }))
            },
        );
        (any_open(), told, moments, any_label()).prop_map(
            |(staged, (usage, context_size, duration), (sealed_at, ended_at), model)| {
                let ended_at = ended_at.map(|at| KernelMoment::from(EpochMillis::new(at)));
                let done = Done { duration, usage, context_size, model, ended_at, ..Done::because("stop") };
                staged.turn.seal(&done, EpochMillis::new(sealed_at))
            },
        )
    }

    proptest! {
            #[test]
            fn whatever_is_written_reads_back_equal(staged in any_open(), sealed in any_sealed()) {
                prop_assert_eq!(read(&records(staged.clone())).unwrap(), staged);
                let ordinal = Ordinal::after(0);
                prop_assert_eq!(decode_sealed(ordinal, &encode_sealed(&sealed).unwrap()).unwrap(), sealed.at(ordinal));
            }

            #[test]
            fn a_commit_has_no_more_bytes_than_limits_count(staged in any_open(), sealed in any_sealed()) {
                // The bytes besides a record: its length and the place of a step.
                const BESIDE: usize = 20;
                let records = records(staged.clone());
                let steps = records.steps.iter().map(|(_, record)| record.len() + BESIDE);
                let written = [records.head.len(), encode_sealed(&sealed).unwrap().len()];
                let written = written.map(|bytes| bytes + BESIDE).into_iter().chain(steps).sum::<usize>();
                let conversation = ConversationRecord {
                    version: Version(u64::MAX),
                    sealed_turns: u64::MAX,
                    last_sealed_at: EpochMillis::new(u64::MAX),
                    last_at: EpochMillis::new(u64::MAX),
                    ..ConversationRecord::begin(ConversationId::new("c").unwrap())
                };
                let beside = conversation.encode().unwrap().len() + 2 * BESIDE;
                let commit = Commit {
                    conversation_id: conversation.id,
                    expected_version: Version(0),
                    staged: vec![staged.clone().into()],
                    sealed: vec![sealed.clone()], imported_from: None,
    };
                prop_assert!(written + beside <= commit.bytes(), "{written} and {beside} of {}", commit.bytes());
                let texts = staged.turn.id.as_str().len() + staged.turn.head.text_bytes();
                let counted = 384 + 1 + 256 * (1 + staged.turn.steps.len())
                    + texts + staged.turn.steps.iter().map(OpenStep::text_bytes).sum::<usize>()
                    + 160 + 176 * sealed.metrics.steps.len() + sealed.text_bytes();
                prop_assert_eq!(commit.bytes(), counted);
            }
        }
}
