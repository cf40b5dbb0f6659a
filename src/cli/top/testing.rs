//! News and sums for tests.

use super::news::{News, TurnCost};
use super::sums::Sums;
use crate::report::{CostFigures, PicoDollars, Zone};
use crate::turn::ConversationId;

/// 2026-11-26T14:03:22 in Berlin.
pub(super) const NOW: i64 = 1_795_698_202_000;

pub(super) const TODAY: &str = r#"{"from":1795647600000,"to":1795698900000,"timeZone":"Europe/Berlin","bucket":"all","prices":{"table":"genai-prices 0.2.1","date":"2026-10-30"},"rows":[{"start":1795647600000,"end":1795698900000,"turns":1234,"steps":4000,"usage":{"inputTokens":12345678,"outputTokens":54321,"cacheReadTokens":9000000},"cacheRate":0.7249,"cacheCoverage":1,"cost":{"usd":"123.456789000000","unpricedTokens":7,"unpricedModels":["unpriced"]},"ttftMs":{"count":4000,"min":100,"p50":420,"p90":900,"p99":2000,"max":12345},"outputTokensPerSecond":{"count":4000,"min":1,"p50":88.9,"p90":100,"p99":120,"max":130},"durationMs":null}]}"#;

pub(super) const HOUR: &str = r#"{"from":1795694400000,"to":1795698900000,"timeZone":"Europe/Berlin","bucket":"all","prices":null,"rows":[{"start":1795694400000,"end":1795698900000,"turns":9,"steps":20,"usage":{"inputTokens":75000,"outputTokens":4920},"cacheRate":null,"cacheCoverage":null,"cost":{"usd":"0.158400000000","unpricedTokens":7,"unpricedModels":["unpriced"]},"ttftMs":{"count":20,"min":100,"p50":400,"p90":900,"p99":2000,"max":2100},"outputTokensPerSecond":null,"durationMs":null}]}"#;

pub(super) const MODELS: &str = r#"{"from":1795694400000,"to":1795698900000,"timeZone":"Europe/Berlin","bucket":"all","prices":null,"rows":[{"start":1795694400000,"end":1795698900000,"model":"cheap","turns":4,"steps":10,"usage":{"inputTokens":50000,"outputTokens":2000,"cacheReadTokens":36000},"cacheRate":0.72,"cacheCoverage":1,"cost":{"usd":"0.008400000000","unpricedTokens":0,"unpricedModels":[]},"ttftMs":{"count":10,"min":100,"p50":300,"p90":900,"p99":900,"max":900},"outputTokensPerSecond":null,"durationMs":null},{"start":1795694400000,"end":1795698900000,"model":"unpriced","turns":1,"steps":1,"usage":{"inputTokens":5,"outputTokens":2},"cacheRate":null,"cacheCoverage":null,"cost":{"usd":null,"unpricedTokens":7,"unpricedModels":["unpriced"]},"ttftMs":null,"outputTokensPerSecond":null,"durationMs":null},{"start":1795694400000,"end":1795698900000,"model":"dear","turns":4,"steps":9,"usage":{"inputTokens":24995,"outputTokens":2918},"cacheRate":null,"cacheCoverage":null,"cost":{"usd":"0.150000000000","unpricedTokens":0,"unpricedModels":[]},"ttftMs":{"count":9,"min":400,"p50":500,"p90":2100,"p99":2100,"max":2100},"outputTokensPerSecond":{"count":9,"min":1,"p50":55,"p90":100,"p99":120,"max":130},"durationMs":null}]}"#;

pub(super) fn some_sums() -> Sums {
    let read = |json| serde_json::from_str(json).unwrap();
    Sums {
        asked_at: NOW,
        ahead_ms: 0,
        zone: Zone::named("Europe/Berlin").unwrap(),
        today: read(TODAY),
        hour: read(HOUR),
        models: read(MODELS),
        json: "{}".to_owned(),
    }
}

fn id(text: &str) -> ConversationId {
    ConversationId::new(text).unwrap()
}

pub(super) fn open(conversation: &str, turn: &str, input: u64) -> News {
    let json = format!(
        r#"{{"turnId":"{turn}","model":"m","usage":{{"inputTokens":{input},"outputTokens":5}},"steps":[{{"stepId":"s","usage":{{"inputTokens":{input},"outputTokens":5}}}}]}}"#
    );
    News::Open(id(conversation), serde_json::from_str(&json).unwrap())
}

pub(super) fn sealed(conversation: &str, turn: &str, ordinal: u64, at: i64) -> News {
    let step = |ttft: u32| {
        format!(r#"{{"stepId":"s{ttft}","usage":{{"inputTokens":500,"outputTokens":20}},"ttftMs":{ttft}}}"#)
    };
    let json = format!(
        r#"{{"ordinal":{ordinal},"sealedAt":{at},"reason":"stop","metrics":{{"turnId":"{turn}","usage":{{"inputTokens":1000,"outputTokens":40}},"steps":[{},{},{}]}}}}"#,
        step(310),
        step(420),
        step(90)
    );
    News::Sealed(id(conversation), serde_json::from_str(&json).unwrap())
}

pub(super) fn costs(conversation: &str, ordinal: u64, usd: i128) -> News {
    let cost = CostFigures { usd: Some(PicoDollars::new(usd)), unpriced_tokens: 0, unpriced_models: Vec::new() };
    News::Costs(vec![TurnCost { conversation_id: id(conversation), ordinal, cost }])
}
