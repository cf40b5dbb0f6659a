//! The events of a made-up month. They are always the same, but the month may begin on any day.

use serde_json::{Value, json};

pub(super) const FIRST_DAY: &str = "2026-06-01";
pub(super) const LAST_DAY: &str = "2026-06-30";

/// The conversation with the most turns.
pub(super) const LONGEST: &str = "agent-0001";

/// 2026-06-01T00:00:00Z
const START: u64 = 1_780_272_000_000;
const HOUR: u64 = 60 * 60 * 1000;
pub(super) const DAY: u64 = 24 * HOUR;

/// A model: its name, its provider, how often it is asked, its time to the first token and its output tokens a second.
type Model = (&'static str, &'static str, u64, f64, f64);

const MODELS: [Model; 5] = [
    ("claude-sonnet-4-5", "anthropic", 42, 900.0, 55.0),
    ("gpt-5", "openai", 25, 1400.0, 70.0),
    ("claude-haiku-4-5", "anthropic", 18, 420.0, 120.0),
    ("gemini-2.5-pro", "google", 10, 1900.0, 90.0),
    ("house-model-8b", "local", 5, 250.0, 30.0),
];

/// A generator whose sequence never changes (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Returns a number around 1. Few numbers are much larger.
    fn around_one(&mut self) -> f64 {
        let sum: f64 = (0..6).map(|_| f64::from(u32::try_from(self.below(1000)).unwrap()) / 1000.0).sum();
        ((sum - 3.0) * 0.6).exp()
    }
}

/// Returns the lines of the events from [`FIRST_DAY`] on, in the order of time.
pub(super) fn events() -> Vec<String> {
    events_from(START)
}

/// Returns the lines of the events of the thirty days from a midnight on.
pub(super) fn events_from(first_midnight: u64) -> Vec<String> {
    let mut random = Random(16);
    let mut lines = Vec::new();
    let mut conversations = 0;
    for day in 0..30 {
        // The first of June 2026, the usual beginning, was a Monday.
        let count = if day % 7 >= 5 { random.below(3) } else { 3 + random.below(4) };
        for _ in 0..count {
            conversations += 1;
            let start = first_midnight + day * DAY + 7 * HOUR + random.below(10 * HOUR);
            conversation(conversations, start, &mut random, &mut lines);
        }
    }
    lines
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small made-up numbers"
)]
fn conversation(number: u64, start: u64, random: &mut Random, lines: &mut Vec<String>) {
    let kind = ["agent", "review", "shop", "ticket"][if number == 1 { 0 } else { random.below(4) as usize }];
    let id = format!("{kind}-{number:04}");
    let mut pick = random.below(100);
    let of_pick = MODELS.iter().find(|model| {
        let is_this = pick < model.2;
        pick = pick.saturating_sub(model.2);
        is_this
    });
    let (model, provider, _, usual_ttft, usual_speed) =
        *if number == 1 { &MODELS[0] } else { of_pick.unwrap_or(&MODELS[0]) };
    let project = ["web-shop", "research", "support"][random.below(3) as usize];
    let (mut now, mut context, mut cached) = (start, 4000 + random.below(9000), 0);
    let turns = if number == 1 { 24 } else { 1 + random.below(14) };
    for turn in 1..=turns {
        let turn_id = format!("{id}/{turn}");
        let mut line = |mut event: Value| {
            event["conversationId"] = id.as_str().into();
            event["turnId"] = turn_id.as_str().into();
            lines.push(event.to_string() + "\n");
        };
        line(json!({ "type": "turn-start", "model": model, "provider": provider, "project": project }));
        let mut duration = 0.0;
        for step in 0..[1, 1, 2, 2, 3, 5, 8][random.below(7) as usize] {
            let output = (170.0 * random.around_one()) as u64;
            let mut usage = json!({ "inputTokens": context, "outputTokens": output });
            if provider != "local" {
                let read = if random.below(12) == 0 { 0 } else { cached };
                usage["cacheReadTokens"] = read.into();
                usage["cacheWriteTokens"] = ((context - read) * 9 / 10).into();
                cached = context;
            }
            let step_id = format!("{turn_id}#{step}");
            let ttft = (usual_ttft * random.around_one()).round();
            let decode = (output as f64 / usual_speed * 1000.0 * random.around_one()).round();
            let whole = ttft + decode + 20.0;
            line(json!({ "type": "usage", "stepId": step_id, "usage": usage }));
            line(
                json!({ "type": "step-complete", "stepId": step_id, "ttftMs": ttft, "decodeMs": decode, "genTotalMs": whole }),
            );
            duration += whole + 900.0 * random.around_one();
            context += output + 100 + random.below(1500);
        }
        now += duration as u64 + 5000 + random.below(180_000);
        let reason = ["stop", "stop", "stop", "stop", "stop", "stop", "stop", "aborted", "error", "max-steps"]
            [if random.below(4) > 0 { 0 } else { random.below(10) as usize }];
        line(
            json!({ "type": "done", "reason": reason, "durationMs": duration.round(), "contextSize": context, "endedAt": now }),
        );
    }
}
