//! The work of every row. A turn has three steps, ids of 36 characters and all four token counters. Its events come as
//! a kernel emits them: 8 events that count and 70 deltas. Conversations take turns in random order.

use std::fmt::Write;

use turn_metrics::actors::Observe;
use turn_metrics::turn::{
    ConversationId, Done, EpochMillis, Label, Millis, OpenTurn, SealedTurn, StepId, StepMetrics, StepTimes, TokenCount,
    TurnEvent, TurnId, TurnMetrics, Usage, parse_line,
};

pub(crate) const CONVERSATIONS: u64 = 10_000;
/// The size of a turn in a plain file. It is somewhat less than the JSON of a turn of this work, so that the limit is
/// not too low.
pub(crate) const TURN_BYTES: usize = 749;
const STEPS: usize = 3;
const DELTAS: usize = 70;

/// A generator of numbers that look random, but are the same in every run (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Returns an id of 36 characters, like a UUID.
fn id(kind: &str, n: u64) -> String {
    format!("{kind}-0000-4000-8000-{n:016}")
}

pub(crate) fn conversation_id(n: u64) -> ConversationId {
    ConversationId::new(id("conv", n)).unwrap()
}

/// Returns all numbers below `count` in random order, each once.
pub(crate) fn shuffled(count: u64, random: &mut Random) -> Vec<u64> {
    let mut order: Vec<u64> = (0..count).collect();
    for i in (1..order.len()).rev() {
        let other = usize::try_from(random.next()).unwrap() % (i + 1);
        order.swap(i, other);
    }
    order
}

/// Returns the sealed turn that the events of turn `n` fold to, without folding them. Each `n` is another turn.
pub(crate) fn sealed(n: u64, random: &mut Random) -> SealedTurn {
    let turn = id("turn", n);
    let count = |tokens| TokenCount::new(tokens).unwrap();
    let millis = |millis: u64| Some(Millis::from(u32::try_from(millis).unwrap()));
    let steps = (0..STEPS).map(|step| {
        let tokens = random.next() % 100_000;
        StepMetrics {
            step_id: StepId::new(format!("{turn}#{step}")).unwrap(),
            usage: Usage {
                input_tokens: count(tokens),
                output_tokens: count(tokens / 20),
                cache_read_tokens: Some(count(tokens / 2)),
                cache_write_tokens: Some(count(tokens / 3)),
            },
            times: StepTimes {
                ttft: Some(Millis::new((tokens % 900) as f64 + 0.5).unwrap()),
                decode: millis(tokens % 7000),
                gen_total: millis(tokens % 9000),
            },
        }
    });
    let steps: Vec<_> = steps.collect();
    let usage = steps.iter().map(|step| step.usage).reduce(Usage::saturating_add).unwrap();
    let context_size = steps.last().map(|step| step.usage.context_size());
    let duration = millis(random.next() % 60_000);
    let turn_id = TurnId::new(turn).unwrap();
    let sealed_at = EpochMillis::new(1_760_000_000_000 + n);
    let bare = OpenTurn::new(turn_id.clone()).seal(&Done::because("stop"), sealed_at);
    SealedTurn { metrics: TurnMetrics { turn_id, usage, steps, duration, context_size }, ..bare }
}

/// The models of turns for reports.
pub(crate) const MODELS: usize = 10;

/// 2026-01-01T00:00:00Z.
pub(crate) const YEAR_START: i64 = 1_767_225_600_000;
pub(crate) const YEAR_MILLIS: i64 = 365 * 24 * 60 * 60 * 1000;

/// The turn of this number out of `count`, which end one after the other within a year.
pub(crate) fn within_a_year(n: u64, count: u64, turn: SealedTurn) -> SealedTurn {
    let offset = u128::from(n) * u128::from(YEAR_MILLIS.unsigned_abs()) / u128::from(count);
    ended_at(u64::try_from(offset).unwrap(), n, turn)
}

/// The turn of this number, which ends at any moment of a month.
pub(crate) fn at_random(n: u64, turn: SealedTurn) -> SealedTurn {
    ended_at(Random(n).next() % (30 * 24 * 60 * 60 * 1000), n, turn)
}

/// A turn that ends so long after the year has begun, of one of the models.
fn ended_at(offset_millis: u64, n: u64, turn: SealedTurn) -> SealedTurn {
    let model = format!("model-{}", n % MODELS as u64);
    let ended_at = EpochMillis::new(YEAR_START.unsigned_abs() + offset_millis);
    SealedTurn { ended_at: Some(ended_at), model: Some(Label::from(&*model)), ..turn }
}

/// One turn.
pub(crate) struct Turn {
    pub(crate) conversation_id: ConversationId,
    /// All lines of the turn, including deltas.
    pub(crate) lines: String,
}

impl Turn {
    /// Returns the turn as a kernel emits it. Each `n` is another turn.
    pub(crate) fn new(n: u64, random: &mut Random) -> Self {
        let conversation = random.next() % CONVERSATIONS;
        Self::in_conversation(conversation_id(conversation), n, random)
    }

    /// Returns the same turn in a conversation of the caller's choice.
    pub(crate) fn in_conversation(conversation: ConversationId, n: u64, random: &mut Random) -> Self {
        let turn = id("turn", n);
        let head = |kind: &str| format!(r#"{{"type":"{kind}","conversationId":"{conversation}","turnId":"{turn}""#);
        let mut lines = head("turn-start") + "}\n";
        for step in 0..STEPS {
            for _ in 0..DELTAS / STEPS + usize::from(step == 0) {
                let _ = writeln!(lines, r#"{},"delta":"some words of text "}}"#, head("text-delta"));
            }
            let tokens = random.next() % 100_000;
            let _ = writeln!(
                lines,
                r#"{},"stepId":"{turn}#{step}","usage":{{"inputTokens":{tokens},"outputTokens":{},"cacheReadTokens":{},"cacheWriteTokens":{}}}}}"#,
                head("usage"),
                tokens / 20,
                tokens / 2,
                tokens / 3
            );
            let _ = writeln!(
                lines,
                r#"{},"stepId":"{turn}#{step}","ttftMs":{}.5,"decodeMs":{},"genTotalMs":{}}}"#,
                head("step-complete"),
                tokens % 900,
                tokens % 7000,
                tokens % 9000
            );
        }
        let _ = writeln!(lines, r#"{},"reason":"stop","durationMs":{}}}"#, head("done"), random.next() % 60_000);
        Self { conversation_id: conversation, lines }
    }

    /// Returns the turn as one message.
    pub(crate) fn observe(&self) -> Observe {
        Observe { conversation_id: self.conversation_id.clone(), events: self.events() }
    }

    /// Returns the lines of the turn without the ignored ones.
    pub(crate) fn counting_lines(&self) -> String {
        self.lines.split_inclusive('\n').filter(|line| !line.contains("text-delta")).collect()
    }

    /// Returns the events of the turn that count.
    fn events(&self) -> Vec<TurnEvent> {
        self.lines.lines().filter_map(|line| parse_line(line.as_bytes()).unwrap()).map(|event| event.event).collect()
    }
}

/// Returns this many turns, from turn `first` on.
pub(crate) fn turns(first: u64, count: usize) -> Vec<Turn> {
    let mut random = Random(first);
    (first..).take(count).map(|n| Turn::new(n, &mut random)).collect()
}
