//! The sums of erased turns, as one store hands them to another, and their text in a line of an export.
//!
//! Reports are sums over the stored turns and over those that were erased or dropped. A store keeps the sums of the latter
//! for each quarter of an hour and each label. Each of these sums has an id that names it in the history of its store. A
//! store that takes sums in remembers, for each id, which sums it has. So the same sums may come any number of times.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use uuid::Uuid;

use super::position::Lineage;
use crate::report::{BreakdownRow, Quarter, ReasonClass, RollupLabel};
use crate::turn::Label;

/// Names the sums of the erased turns of one label in one quarter of an hour, in the history of one store.
///
/// Displays as a text of fixed length that begins with the lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErasedSumsId {
    /// The history that the sums belong to.
    pub lineage: Lineage,
    /// The quarter of an hour in which the turns count.
    pub quarter: Quarter,
    /// The number of the label in that store.
    pub label: u64,
}

impl ErasedSumsId {
    /// Returns when the quarter begins, in milliseconds since 1970. `None` if no turn can count in the quarter.
    fn start(self) -> Option<u64> {
        u64::try_from(self.quarter.get()).ok()?.checked_mul(Quarter::MILLIS.unsigned_abs())
    }
}

impl fmt::Display for ErasedSumsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}-{:016x}", self.lineage, self.quarter.get(), self.label)
    }
}

impl FromStr for ErasedSumsId {
    type Err = InvalidErasedSums;

    fn from_str(text: &str) -> Result<Self, InvalidErasedSums> {
        let parse = || {
            let (lineage, rest) = text.split_once('-')?;
            let (quarter, label) = rest.split_once('-')?;
            let lineage = Lineage(Uuid::try_parse(lineage).ok()?);
            let quarter = Quarter::new(i64::from_str_radix(quarter, 16).ok()?);
            let id = Self { lineage, quarter, label: u64::from_str_radix(label, 16).ok()? };
            // A second text for the same id would be another id for a store.
            (id.start().is_some() && id.to_string() == text).then_some(id)
        };
        parse().ok_or(InvalidErasedSums::Id)
    }
}

/// What the erased and dropped turns of one label in one quarter of an hour have added to reports. They have no id of a
/// conversation or of a turn.
///
/// In a line of an export they are the value of the field `erased`:
///
/// ```
/// use turn_metrics::store::ErasedSums;
///
/// assert!(ErasedSums::read_line(br#"{"erased":{"id":"1"}}"#).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedSums {
    /// The name of the sums.
    pub id: ErasedSumsId,
    /// What the parts of turns in these sums have in common.
    pub label: RollupLabel,
    /// The sums.
    pub sums: BreakdownRow,
}

impl ErasedSums {
    /// The number of sums that should be taken in together: a transaction of so many takes some milliseconds.
    pub const AT_ONCE: usize = 64;

    /// The maximum length of a line in bytes. The longest sums have some 30,000 counts in their distributions.
    pub const MAX_LINE_BYTES: usize = 512 * 1024;

    /// The version byte of the encoding of sums.
    const VERSION: u8 = 1;

    /// Returns the line of an export, without a line feed.
    pub fn to_line(&self) -> Result<String, InvalidErasedSums> {
        serde_json::to_string(&Line { erased: self }).map_err(|_| InvalidErasedSums::Json)
    }

    /// Reads a line of an export. An error says why the line has no sums that can be taken in.
    pub fn read_line(line: &[u8]) -> Result<Self, InvalidErasedSums> {
        if line.len() > Self::MAX_LINE_BYTES {
            return Err(InvalidErasedSums::TooLong);
        }
        let Line { erased } = serde_json::from_slice::<Line<Fields<'_>>>(line).map_err(|_| InvalidErasedSums::Json)?;
        erased.read()
    }

    /// Returns the fields of the line.
    fn fields(&self) -> Result<Fields<'_>, InvalidErasedSums> {
        let RollupLabel { model, provider, project, reason } = &self.label;
        let bytes = postcard::to_extend(&self.sums, vec![Self::VERSION]).map_err(|_| InvalidErasedSums::Encoding)?;
        Ok(Fields {
            id: self.id.to_string().into(),
            start: self.id.start().ok_or(InvalidErasedSums::Id)?,
            model: model.clone(),
            provider: provider.clone(),
            project: project.clone(),
            reason: reason.map(|reason| reason.as_str().into()),
            turns: u64::try_from(self.sums.rollup.turns()).map_err(|_| InvalidErasedSums::Implausible)?,
            sums: hex(&bytes).into(),
        })
    }
}

impl Serialize for ErasedSums {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields().map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ErasedSums {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Fields::deserialize(deserializer)?.read().map_err(de::Error::custom)
    }
}

/// A line of an export with sums.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<T> {
    erased: T,
}

/// The fields of sums in a line. The text of the sums has all numbers exactly; the other fields are for readers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    /// When the quarter begins, in milliseconds since 1970.
    start: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project: Option<Label>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    turns: u64,
    /// The version byte and the encoded sums, in hexadecimal digits.
    #[serde(borrow)]
    sums: Cow<'a, str>,
}

impl Fields<'_> {
    fn read(self) -> Result<ErasedSums, InvalidErasedSums> {
        if self.sums.len() > ErasedSums::MAX_LINE_BYTES {
            return Err(InvalidErasedSums::TooLong);
        }
        let id: ErasedSumsId = self.id.parse()?;
        if id.start() != Some(self.start) {
            return Err(InvalidErasedSums::Start);
        }
        let class = |name: &str| ReasonClass::ALL.into_iter().find(|class| class.as_str() == name);
        let reason = self.reason.map(|name| class(&name).ok_or(InvalidErasedSums::Reason)).transpose()?;
        let label = RollupLabel { model: self.model, provider: self.provider, project: self.project, reason };
        if [&label.model, &label.provider, &label.project].into_iter().flatten().any(Label::is_cut) {
            return Err(InvalidErasedSums::Label);
        }
        let sums = decode(&bytes_of(&self.sums)?)?;
        if !sums.is_plausible() {
            return Err(InvalidErasedSums::Implausible);
        }
        if sums.rollup.turns() != i128::from(self.turns) {
            return Err(InvalidErasedSums::Turns);
        }
        Ok(ErasedSums { id, label, sums })
    }
}

/// Writes bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a text never fails.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads hexadecimal digits.
fn bytes_of(text: &str) -> Result<Vec<u8>, InvalidErasedSums> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(InvalidErasedSums::Encoding) };
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    pairs.iter().map(|pair| byte(pair).ok_or(InvalidErasedSums::Encoding)).collect()
}

fn decode(bytes: &[u8]) -> Result<BreakdownRow, InvalidErasedSums> {
    match bytes.split_first() {
        Some((&ErasedSums::VERSION, sums)) => match postcard::take_from_bytes(sums) {
            Ok((sums, [])) => Ok(sums),
            _ => Err(InvalidErasedSums::Encoding),
        },
        Some((version, _)) => Err(InvalidErasedSums::Version(*version)),
        None => Err(InvalidErasedSums::Encoding),
    }
}

/// Some of the sums of erased turns that a store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedSumsPage {
    /// The sums. Damaged ones are left out.
    pub sums: Vec<ErasedSums>,
    /// The id after which the next page begins; `None` if no sums follow.
    pub next: Option<ErasedSumsId>,
    /// How many sums the page leaves out because they are damaged.
    pub left_out: u64,
}

/// Why a text has no sums of erased turns that can be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidErasedSums {
    /// The line is no JSON object with the field `erased` and the fields of sums in it.
    #[error("the line is no object with sums of erased turns")]
    Json,
    /// The line is longer than any sums.
    #[error("the line is longer than any sums of erased turns")]
    TooLong,
    /// The id is not that of sums.
    #[error("`id` is not the id of sums of erased turns")]
    Id,
    /// `start` is not the beginning of the quarter of an hour that the id names.
    #[error("`start` is not that of the quarter of an hour in `id`")]
    Start,
    /// A text of the label is too long.
    #[error("`model`, `provider` or `project` is too long")]
    Label,
    /// The reason is no class of reasons.
    #[error("`reason` is no class of reasons")]
    Reason,
    /// The sums are written in a version that this program does not know.
    #[error("`sums` has the version {0}, which this program does not know")]
    Version(u8),
    /// The sums are not encoded as sums are.
    #[error("`sums` cannot be decoded")]
    Encoding,
    /// A number is too large or negative, or counts are not in order.
    #[error("`sums` has numbers that no turns add up to")]
    Implausible,
    /// The number of turns is not that of the sums.
    #[error("`turns` is not the number of turns in `sums`")]
    Turns,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::report::{Contribution, NoPrices};
    use crate::store::conformance::reports::stored;

    const ID: &str = "000000000000000000000000000000ab-00000000001e2f10-0000000000000007";

    /// Sums of many turns, with every field.
    fn some() -> ErasedSums {
        let mut sums = BreakdownRow::default();
        for turn in stored(3, 60) {
            for (_, part) in Contribution::of_turn(&turn, &NoPrices).parts {
                sums.add(&part);
            }
        }
        let label = RollupLabel {
            model: Some("a \" model".into()),
            provider: Some("p".into()),
            project: None,
            reason: Some(ReasonClass::MaxSteps),
        };
        ErasedSums { id: ID.parse().unwrap(), label, sums }
    }

    fn value() -> Value {
        serde_json::from_str(&some().to_line().unwrap()).unwrap()
    }

    fn read(value: &Value) -> Result<ErasedSums, InvalidErasedSums> {
        ErasedSums::read_line(value.to_string().as_bytes())
    }

    /// A reader of lines of several kinds.
    #[derive(Deserialize)]
    struct AnyLine {
        erased: Option<ErasedSums>,
    }

    #[test]
    fn a_line_reads_back_equal_and_names_its_label() {
        let line = some().to_line().unwrap();
        let begins = format!(
            r#"{{"erased":{{"id":"{ID}","start":1780315200000,"model":"a \" model","provider":"p","reason":"max-steps","turns":60,"sums":"01"#
        );
        assert!(line.starts_with(&begins), "{line}");
        assert_eq!(ErasedSums::read_line(line.as_bytes()), Ok(some()));
        assert_eq!(serde_json::from_str::<AnyLine>(&line).unwrap().erased, Some(some()));
        assert_eq!(serde_json::from_str::<AnyLine>("{}").unwrap().erased, None);
        let none = ErasedSums { label: RollupLabel::default(), sums: BreakdownRow::default(), ..some() };
        assert_eq!(ErasedSums::read_line(none.to_line().unwrap().as_bytes()), Ok(none));
    }

    #[test]
    fn what_is_not_as_it_was_written_is_refused_with_the_reason() {
        let wrong: [(&str, Value, InvalidErasedSums); 12] = [
            ("id", json!("7"), InvalidErasedSums::Id),
            ("id", json!(ID.to_uppercase()), InvalidErasedSums::Id),
            ("id", json!(ID.replace("-0000000000", "-f000000000")), InvalidErasedSums::Id),
            ("id", json!(ID.replace("-0000000000", "-7000000000")), InvalidErasedSums::Id),
            ("start", json!(1), InvalidErasedSums::Start),
            ("model", json!("x".repeat(257)), InvalidErasedSums::Label),
            ("reason", json!("odd"), InvalidErasedSums::Reason),
            ("turns", json!(61), InvalidErasedSums::Turns),
            ("turns", json!(-1), InvalidErasedSums::Json),
            ("other", json!(1), InvalidErasedSums::Json),
            ("sums", json!("0x"), InvalidErasedSums::Encoding),
            ("sums", json!(""), InvalidErasedSums::Encoding),
        ];
        for (field, wrong, expected) in wrong {
            let mut value = value();
            value["erased"][field] = wrong.clone();
            assert_eq!(read(&value), Err(expected), "{field}: {wrong}");
        }
        let sums = value()["erased"]["sums"].as_str().unwrap().to_owned();
        let with_sums = |sums: &str| {
            let mut value = value();
            value["erased"]["sums"] = sums.into();
            read(&value)
        };
        assert_eq!(with_sums(&sums.replacen("01", "02", 1)), Err(InvalidErasedSums::Version(2)));
        for cut in 0..sums.len() {
            assert!(with_sums(&sums[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(with_sums(&format!("{sums}00")), Err(InvalidErasedSums::Encoding));
        let long = "x".repeat(ErasedSums::MAX_LINE_BYTES);
        assert_eq!(with_sums(&long), Err(InvalidErasedSums::TooLong));
        for line in ["", "{}", "[]", r#"{"erased":null}"#, r#"{"erased":{}}"#, r#"{"end":"x"}"#] {
            assert_eq!(ErasedSums::read_line(line.as_bytes()), Err(InvalidErasedSums::Json), "{line}");
        }
    }

    #[test]
    fn numbers_that_could_overflow_when_they_are_added_are_refused() {
        // Doubles the sums until they are no longer taken.
        let mut sums = some();
        let mut doubled = 0;
        while sums.to_line().is_ok_and(|line| ErasedSums::read_line(line.as_bytes()).is_ok()) {
            let before = sums.sums.clone();
            sums.sums.add(&before);
            doubled += 1;
        }
        assert!((30..40).contains(&doubled), "{doubled}");
        let mut huge = BreakdownRow::default();
        (0..1000).for_each(|_| huge.add(&sums.sums));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..4000) {
            let _ = ErasedSums::read_line(&bytes);
            let mut value = value();
            value["erased"]["sums"] = hex(&[&[ErasedSums::VERSION][..], &bytes].concat()).into();
            let _ = read(&value);
            // A byte of sound sums is replaced.
            let mut sums = some().to_line().unwrap().into_bytes();
            let at = at % sums.len();
            sums[at] = bytes.first().copied().unwrap_or(b'7');
            if let Ok(read) = ErasedSums::read_line(&sums) {
                let mut twice = read.sums.clone();
                twice.add(&read.sums);
                let _ = twice.since(&read.sums);
            }
        }
    }
}
