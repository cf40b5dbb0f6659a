//! The turns that the clients of a run send. A turn depends only on a seed, so that several clients send the same
//! turns.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use turn_metrics::turn::{EpochMillis, OpenTurn, TurnEventKind, TurnMetrics, parse_line};

/// A turn's conversation and id.
pub(crate) type Name = (String, String);

/// All turns of a run.
pub(crate) type Scripts = BTreeMap<Name, Script>;

/// The result of folding a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folded {
    pub(crate) model: Option<String>,
    pub(crate) metrics: TurnMetrics,
}

/// A turn as its clients send it: its events in order, ending with its `done`.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) name: Name,
    events: Vec<Value>,
}

impl Script {
    /// Returns the `n`-th turn of a conversation.
    pub(crate) fn of(seed: u64, conversation: &str, n: usize) -> Self {
        let turn = format!("t{n}");
        let bytes = conversation.bytes().chain(turn.bytes());
        let mut random =
            fastrand::Rng::with_seed(bytes.fold(seed, |mixed, byte| mixed.rotate_left(9) ^ u64::from(byte)));
        let mut events = vec![json!({"type": "turn-start", "model": format!("m{}", random.u8(..3))})];
        for step in 0..random.usize(0..4) {
            let step_id = format!("{turn}#{step}");
            let prompt = random.u32(1..100_000);
            // Each event contributes something that no other event does, so that a missing event can be noticed.
            for (input, output) in [(prompt, 0), (0, random.u32(1..5_000))] {
                let usage = json!({"inputTokens": input, "outputTokens": output});
                events.push(json!({"type": "usage", "stepId": step_id, "usage": usage}));
            }
            let total = random.u32(..9_000);
            events.push(json!({"type": "step-complete", "stepId": step_id, "ttftMs": 0.5, "genTotalMs": total}));
        }
        events.push(json!({"type": "done", "reason": "stop", "durationMs": n}));
        Self { name: (conversation.to_owned(), turn), events }
    }

    /// Returns the number of events.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns an event as a line of a request, with this turn id.
    pub(crate) fn line(&self, event: usize, turn_id: &str) -> String {
        let mut event = self.events[event].clone();
        event["conversationId"] = json!(self.name.0);
        event["turnId"] = json!(turn_id);
        format!("{event}\n")
    }

    /// Folds the selected events and the `done`, by the pure fold of the contract.
    pub(crate) fn fold(&self, has: impl Fn(usize) -> bool) -> Folded {
        let mut open: Option<OpenTurn> = None;
        for index in (0..self.len()).filter(|index| has(*index) || index + 1 == self.len()) {
            let event = parse_line(self.line(index, &self.name.1).as_bytes()).unwrap().unwrap().event;
            let turn = open.get_or_insert_with(|| OpenTurn::new(event.turn_id.clone()));
            match event.kind {
                TurnEventKind::Progress(progress) => turn.fold(&progress),
                TurnEventKind::Done(done) => {
                    let sealed = turn.seal(&done, EpochMillis::new(0));
                    return Folded { model: sealed.model.map(|model| model.to_string()), metrics: sealed.metrics };
                }
            }
        }
        unreachable!("the last event of a script is its `done`")
    }
}
