//! The server's answers to questions, as commands read them. Figures have the types of reports, so that the command
//! line shows the server's figures and computes no figure that the server can return.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::report::{CostFigures, Percentiles, PicoDollars, UsageSums};
use crate::turn::{ConversationId, EpochMillis, Label, StepMetrics, StoredTurn, TokenCount, TurnId, Usage};

/// A page of the turns of a conversation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    pub(super) turns: Vec<ListedTurn>,
    pub(super) latest_ordinal: u64,
    /// The open turns, if they were asked for.
    #[serde(default)]
    pub(super) open: Vec<TurnSoFar>,
}

/// A sealed turn, as a list shows it.
#[derive(Debug)]
pub(super) struct ListedTurn {
    pub(super) turn: StoredTurn,
    /// The cost of the turn, if the client asked for costs.
    pub(super) cost: Option<CostFigures>,
    /// The whole turn, as the server wrote it.
    pub(super) json: Box<RawValue>,
}

impl<'de> Deserialize<'de> for ListedTurn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Priced {
            cost: Option<CostFigures>,
        }

        let json = Box::<RawValue>::deserialize(deserializer)?;
        let turn = serde_json::from_str(json.get()).map_err(Error::custom)?;
        let Priced { cost } = serde_json::from_str(json.get()).map_err(Error::custom)?;
        Ok(Self { turn, cost, json })
    }
}

/// An open turn, with the data that the server has so far.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TurnSoFar {
    pub(super) turn_id: TurnId,
    pub(super) model: Option<Label>,
    pub(super) usage: Usage,
    pub(super) steps: Vec<StepMetrics>,
}

/// A page of conversations.
#[derive(Debug, Deserialize)]
pub(super) struct ConversationPage {
    pub(super) conversations: Vec<Box<RawValue>>,
    /// The place after which the next page begins; `None` for the last page.
    pub(super) next: Option<String>,
}

/// A conversation, as a list shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedConversation {
    pub(super) conversation_id: ConversationId,
    pub(super) turns: u64,
    pub(super) open_turns: u64,
    pub(super) usage: Usage,
    pub(super) cost: CostFigures,
    pub(super) first_at: EpochMillis,
    pub(super) last_at: EpochMillis,
    pub(super) model: Option<Label>,
    pub(super) project: Option<Label>,
    pub(super) context_size: Option<TokenCount>,
    pub(super) cache_rate: Option<f64>,
}

/// Sums over the turns of periods.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportAnswer {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) time_zone: String,
    pub(super) prices: Option<Edition>,
    pub(super) rows: Vec<ReportRow>,
}

/// The prices of a report's costs.
#[derive(Debug, Deserialize)]
pub(super) struct Edition {
    pub(super) table: String,
    pub(super) date: String,
}

/// The sums over the turns of one period and one group.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportRow {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) model: Option<Label>,
    pub(super) provider: Option<Label>,
    pub(super) project: Option<Label>,
    pub(super) reason: Option<Label>,
    pub(super) turns: i128,
    pub(super) steps: i128,
    pub(super) usage: UsageSums,
    pub(super) cache_rate: Option<f64>,
    pub(super) cache_coverage: Option<f64>,
    pub(super) cost: CostFigures,
    pub(super) cache_saved_usd: Option<Amount>,
    pub(super) ttft_ms: Option<Percentiles>,
    pub(super) output_tokens_per_second: Option<Percentiles>,
    pub(super) duration_ms: Option<Percentiles>,
}

/// The rates of a model.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PriceAnswer {
    pub(super) name: Option<String>,
    pub(super) table: Option<String>,
    pub(super) usd_per_million_tokens: Option<Dollars>,
}

/// Dollars per million tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dollars {
    pub(super) input: Amount,
    pub(super) output: Amount,
    pub(super) cache_read: Amount,
    pub(super) cache_write: Amount,
    #[serde(rename = "cacheWrite1h")]
    pub(super) cache_write_1h: Amount,
}

/// An amount that the server writes as a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount(pub(super) PicoDollars);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        PicoDollars::read(&text).map(Self).ok_or_else(|| D::Error::custom("no dollars with 12 places"))
    }
}
