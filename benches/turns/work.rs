//! The work of every row: turns of three steps with 36-character ids and all four token counters, in conversations
//! taken in random order, as a kernel emits them: 8 events that count and 70 deltas a turn.

use std::fmt::Write;

use turn_metrics::turn::{ConversationId, TurnEvent, parse_line};

pub(crate) const CONVERSATIONS: u64 = 10_000;
const STEPS: usize = 3;
const DELTAS: usize = 70;

/// Numbers that look random and are the same in every run (splitmix64).
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

/// An id of 36 characters, like a UUID.
fn id(kind: &str, n: u64) -> String {
    format!("{kind}-0000-4000-8000-{n:017}")
}

/// One turn.
pub(crate) struct Turn {
    pub(crate) conversation_id: ConversationId,
    /// All its lines, deltas too.
    pub(crate) lines: String,
}

impl Turn {
    /// The turn as a kernel emits it; each `n` is another turn.
    pub(crate) fn new(n: u64, random: &mut Random) -> Self {
        let conversation = id("conv", random.next() % CONVERSATIONS);
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
        Self { conversation_id: ConversationId::new(conversation).unwrap(), lines }
    }

    /// Its events that count.
    pub(crate) fn events(&self) -> Vec<TurnEvent> {
        self.lines.lines().filter_map(|line| parse_line(line.as_bytes()).unwrap()).map(|event| event.event).collect()
    }
}

/// So many turns, from turn `first` on.
pub(crate) fn turns(first: u64, count: usize) -> Vec<Turn> {
    let mut random = Random(first);
    (first..).take(count).map(|n| Turn::new(n, &mut random)).collect()
}
