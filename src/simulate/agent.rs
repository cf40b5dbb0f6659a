//! One conversation of the simulated kernel, turn after turn.

use std::collections::VecDeque;

use serde_json::json;

use super::line::{Ignored, line};
use super::model::Model;
use super::random::Random;
use crate::settings::SimulationSettings;
use crate::turn::{
    ConversationId, Done, EpochMillis, KernelEvent, KernelMoment, Millis, Progress, StepId, StepTimes, TokenCount,
    TurnEvent, TurnEventKind, TurnId, TurnLabels, Usage,
};

/// When a conversation's history exceeds this many tokens, its kernel compacts the history.
const MAX_CONTEXT: u32 = 160_000;
/// The size of a compacted history in tokens.
const COMPACTED: u32 = 8_000;

const PROJECTS: &[&str] = &["shop", "search", "billing", "mobile-app"];
const WORDS: &[&str] = &["the ", "file ", "has ", "a ", "test ", "that ", "fails, ", "now ", "fixed. ", "naïve ", "✓ "];
const TOOLS: &[&str] = &["read_file", "run_tests", "search", "edit_file"];
const QUESTIONS: &[&str] =
    &["Why does the build fail?", "Add a test for it.", "Rename the field.\nEverywhere.", "Go on."];

/// The turn whose lines are being written.
struct Turn {
    id: String,
    usage: Usage,
    /// The context size after the latest step that reported tokens.
    context: TokenCount,
    hundredths_ms: u32,
}

/// The outcome of a step, which decides whether the turn has another step.
enum StepEnd {
    Tool,
    Text,
    BrokenOff,
}

#[derive(Debug, Clone)]
pub(super) struct Agent {
    conversation_id: String,
    random: Random,
    max_steps: usize,
    max_deltas: usize,
    turns_left: usize,
    turns_begun: usize,
    /// The lines of the current turn that `next_line` has not returned yet.
    lines: VecDeque<String>,
    model: &'static Model,
    project: &'static str,
    /// The moment at which the current turn began, in milliseconds since 1970, if it is sent later than it happened.
    past: Option<u64>,
    /// Whether the provider reports the prompt first and the output later, so that a step has two usage events.
    reports_twice: bool,
    /// The size of the history in tokens.
    context: u32,
    /// The tokens of the history that the provider has cached.
    cached: u32,
}

impl Agent {
    pub(super) fn new(settings: &SimulationSettings, nth: usize) -> Self {
        let mut random = Random::new(settings.seed ^ (nth as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95));
        let context = random.within(1500..=4000);
        Self {
            conversation_id: format!("{}-{}", settings.prefix, nth + 1),
            model: Model::pick(&mut random),
            project: random.pick(PROJECTS),
            past: None,
            random,
            max_steps: settings.max_steps.max(1),
            max_deltas: settings.max_deltas,
            turns_left: settings.turns,
            turns_begun: 0,
            lines: VecDeque::new(),
            reports_twice: nth % 3 == 1,
            context,
            cached: 0,
        }
    }

    pub(super) fn conversation_id(&self) -> &str {
        &self.conversation_id
    }

    /// Returns the next line, or `None` after the last turn.
    pub(super) fn next_line(&mut self) -> Option<String> {
        if self.lines.is_empty() && self.turns_left > 0 {
            self.turns_left -= 1;
            self.run_turn();
        }
        self.lines.pop_front()
    }

    /// Runs a turn that began at a moment, in milliseconds since 1970.
    pub(super) fn run_past_turn(&mut self, began_at: u64) {
        self.past = Some(began_at);
        self.run_turn();
    }

    /// Returns the next line of the current turn, or `None` after its last one.
    pub(super) fn rest_of_turn(&mut self) -> Option<String> {
        self.lines.pop_front()
    }

    fn run_turn(&mut self) {
        self.turns_begun += 1;
        let id = format!("{}-turn-{}", self.conversation_id, self.turns_begun);
        let mut turn = Turn { id, usage: Usage::default(), context: TokenCount::ZERO, hundredths_ms: 0 };
        if self.context > MAX_CONTEXT {
            (self.context, self.cached) = (COMPACTED, 0);
        }
        self.context += self.random.within(15..=400);
        self.ignore(&Ignored::Status { conversation_id: &self.conversation_id.clone(), status: "running" });
        let labels = TurnLabels {
            model: Some(self.model.name.into()),
            provider: Some(self.model.provider.into()),
            project: Some(self.project.into()),
        };
        self.emit(&turn, TurnEventKind::Progress(Progress::Start(labels)));
        let text = self.random.pick(QUESTIONS);
        self.ignore(&Ignored::UserMessage { conversation_id: &self.conversation_id.clone(), turn_id: &turn.id, text });

        // The first turn always completes, so that even a short simulation shows a whole turn.
        let is_broken_off = self.turns_begun > 1;
        let is_aborted = is_broken_off && self.random.once_in(8);
        let is_failed = is_broken_off && !is_aborted && self.random.once_in(15);
        let steps = 1 + self.random.below(self.max_steps);
        let mut reason = "max-steps";
        for index in 0..steps {
            let is_last = index + 1 == steps;
            let may_end = is_last && steps < self.max_steps.max(2);
            match self.run_step(&mut turn, index, may_end, (is_aborted || is_failed) && is_last) {
                StepEnd::Tool => {}
                StepEnd::Text => reason = "stop",
                StepEnd::BrokenOff if is_failed => reason = "error",
                StepEnd::BrokenOff => reason = "aborted",
            }
        }
        if reason == "error" {
            self.emit(&turn, TurnEventKind::Progress(Progress::Failed));
        }
        self.finish(&turn, reason);
    }

    fn run_step(&mut self, turn: &mut Turn, index: usize, may_end: bool, is_broken_off: bool) -> StepEnd {
        let Ok(step_id) = StepId::new(format!("{}#{index}", turn.id)) else { return StepEnd::Tool };
        // A step that cannot be the last one may only call a tool. Such a step writes no text and has no first token.
        let writes = may_end || is_broken_off || index > 0 && self.random.once_in(2);
        let output = self.random.within(if writes { 60..=900 } else { 20..=120 });
        let usage = Usage {
            input_tokens: self.context.into(),
            output_tokens: output.into(),
            cache_read_tokens: Some(self.cached.into()),
            cache_write_tokens: Some((self.context - self.cached).into()),
        };
        let report = |usage: Usage| {
            let (step_id, report) = (Some(step_id.clone()), usage.into());
            TurnEventKind::Progress(Progress::Usage { step_id, report, is_final: false })
        };

        if self.reports_twice {
            self.emit(turn, report(Usage { output_tokens: 1.into(), ..usage }));
        }
        if writes {
            self.write_deltas(turn);
        }
        if is_broken_off {
            let spent = if self.reports_twice { Usage { output_tokens: 1.into(), ..usage } } else { usage };
            if !self.reports_twice {
                self.emit(turn, report(usage));
            }
            self.take(turn, spent);
            return StepEnd::BrokenOff;
        }
        if self.reports_twice {
            self.emit(turn, report(Usage { output_tokens: output.into(), ..Usage::default() }));
        } else {
            self.emit(turn, report(usage));
        }
        self.take(turn, usage);

        let ttft = self.random.within(self.model.ttft.clone());
        let decode = output * self.random.within(self.model.token_time.clone());
        turn.hundredths_ms += ttft + decode;
        let times = StepTimes {
            ttft: writes.then(|| millis(ttft)).flatten(),
            decode: writes.then(|| millis(decode)).flatten(),
            gen_total: millis(ttft + decode),
        };
        let (model, provider) = (None, None);
        self.emit(turn, TurnEventKind::Progress(Progress::StepComplete { step_id, times, model, provider }));
        if may_end {
            return StepEnd::Text;
        }
        self.call_tool(turn, index);
        StepEnd::Tool
    }

    /// Adds a step's tokens to the turn and to the next prompt.
    fn take(&mut self, turn: &mut Turn, usage: Usage) {
        turn.usage = turn.usage.saturating_add(usage);
        turn.context = usage.context_size();
        self.cached = self.context;
        self.context += u32::try_from(usage.output_tokens.get()).unwrap_or_default();
    }

    fn write_deltas(&mut self, turn: &Turn) {
        let conversation_id = &self.conversation_id.clone();
        let reasons = self.random.once_in(3);
        for nth in 0..self.random.below(self.max_deltas + 1) {
            let (turn_id, delta) = (&*turn.id, self.random.pick(WORDS));
            if reasons && nth < 3 {
                self.ignore(&Ignored::ReasoningDelta { conversation_id, turn_id, delta });
            } else {
                self.ignore(&Ignored::TextDelta { conversation_id, turn_id, delta });
            }
        }
    }

    fn call_tool(&mut self, turn: &mut Turn, index: usize) {
        let (conversation_id, turn_id) = (&self.conversation_id.clone(), &turn.id);
        let tool_call_id = &format!("call-{}-{index}", self.turns_begun);
        let tool_name = self.random.pick(TOOLS);
        let input = json!({ "path": "src/main.rs" });
        self.ignore(&Ignored::ToolCall { conversation_id, turn_id, tool_call_id, tool_name, input });
        if self.random.once_in(12) {
            self.emit(turn, TurnEventKind::Progress(Progress::Failed));
        }
        self.ignore(&Ignored::ToolResult { conversation_id, turn_id, tool_call_id, output: "ok\n\"done\"" });
        self.context += self.random.within(50..=2500);
        turn.hundredths_ms += self.random.within(500..=80_000);
    }

    fn finish(&mut self, turn: &Turn, reason: &str) {
        // A kernel that is stopped in the middle of a turn does not report the total.
        let added_up = !matches!(reason, "aborted" | "error");
        let done = Done {
            duration: millis(turn.hundredths_ms),
            usage: added_up.then_some(turn.usage.into()),
            context_size: added_up.then_some(turn.context),
            ended_at: self.past.map(|began_at| ended_at(began_at, turn.hundredths_ms)),
            ..Done::because(reason)
        };
        self.emit(turn, TurnEventKind::Done(done));
        let conversation_id = &self.conversation_id.clone();
        self.ignore(&Ignored::TurnSealed { conversation_id, turn_id: &turn.id });
        self.ignore(&Ignored::Status { conversation_id, status: "idle" });
    }

    /// Sends an event that does not count. Nobody sends such an event later.
    fn ignore(&mut self, event: &Ignored<'_>) {
        if self.past.is_none() {
            self.lines.push_back(line(event));
        }
    }

    fn emit(&mut self, turn: &Turn, kind: TurnEventKind) {
        let ids = (ConversationId::new(&self.conversation_id), TurnId::new(&turn.id));
        // If the prefix in the settings makes invalid ids, the kernel emits only events that do not count.
        if let (Ok(conversation_id), Ok(turn_id)) = ids {
            self.lines.push_back(line(&KernelEvent { conversation_id, event: TurnEvent { turn_id, kind } }));
        }
    }
}

fn ended_at(began_at: u64, hundredths_ms: u32) -> KernelMoment {
    EpochMillis::new(began_at.saturating_add(u64::from(hundredths_ms / 100))).into()
}

fn millis(hundredths: u32) -> Option<Millis> {
    Millis::new(f64::from(hundredths) / 100.0).ok()
}
