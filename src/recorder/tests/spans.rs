use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Subscriber, subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::*;
use crate::turn::{Done, EpochMillis, OpenTurn, SealedTurn, TurnEventKind};

/// A span that is closed, with its fields as texts.
#[derive(Debug, Clone)]
struct Closed {
    name: &'static str,
    parent: Option<&'static str>,
    fields: BTreeMap<&'static str, String>,
}

/// Collects closed spans.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Closed>>>);

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(BTreeMap::new());
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Fields>().unwrap());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let fields = span.extensions_mut().remove::<Fields>().unwrap().0;
        let parent = span.parent().map(|parent| parent.name());
        self.0.lock().unwrap().push(Closed { name: span.name(), parent, fields });
    }
}

fn collect(work: impl FnOnce()) -> Vec<Closed> {
    let collector = Collector::default();
    subscriber::with_default(tracing_subscriber::registry().with(collector.clone()), work);
    let closed = collector.0.lock().unwrap();
    closed.clone()
}

const COUNTERS: [&str; 4] =
    ["usage.inputTokens", "usage.outputTokens", "usage.cacheReadTokens", "usage.cacheWriteTokens"];

/// Returns the sum of each counter over all closed spans of one name. As in SQL, the sum is `None` if none of them has
/// the counter.
fn sums(closed: &[Closed], name: &str) -> [Option<u64>; 4] {
    COUNTERS.map(|counter| {
        let spans = closed.iter().filter(|span| span.name == name);
        spans.filter_map(|span| span.fields.get(counter)?.parse::<u64>().ok()).reduce(|a, b| a + b)
    })
}

fn agree(closed: &[Closed]) -> [Option<u64>; 4] {
    let of_turns = sums(closed, "turn");
    assert_eq!(sums(closed, "step"), of_turns, "steps and turns differ: {closed:#?}");
    assert_eq!(sums(closed, "provider.request"), of_turns, "requests and turns differ: {closed:#?}");
    of_turns
}

#[test]
fn the_spans_of_a_turn_are_nested_and_carry_their_fields() {
    let setup = setup();
    let closed = collect(|| {
        let ids = (ConversationId::new("c").unwrap(), TurnId::new("t").unwrap());
        let mut turn = setup.recorder.start_turn(ids.0, ids.1, TurnLabels::of_model("m")).unwrap();
        let mut step = turn.start_step();
        setup.clock.advance(Duration::from_millis(5));
        step.token();
        step.usage(Usage { cache_read_tokens: Some(0.into()), ..usage(9, 2) });
        setup.clock.advance(Duration::from_millis(1));
        let step = step.end_stream("tool-calls");
        step.start_tool_call("read_file", "call-1").end(true);
        step.end("tool-calls");
        turn.start_step().end("stop");
        turn.end("stop");
    });
    let shown: Vec<_> = closed.iter().map(|span| (span.name, span.parent)).collect();
    assert_eq!(
        shown,
        [
            ("ttft", Some("step")),
            ("provider.request", Some("step")),
            ("decode", Some("step")),
            ("tool-call", Some("step")),
            ("step", Some("turn")),
            ("provider.request", Some("step")),
            ("ttft", Some("step")),
            ("step", Some("turn")),
            ("turn", None),
        ]
    );
    let fields = |nth: usize| {
        let fields = closed[nth].fields.iter().map(|(name, value)| format!("{name}={value}"));
        fields.collect::<Vec<_>>().join(" ")
    };
    let spent = "usage.cacheReadTokens=0 usage.inputTokens=9 usage.outputTokens=2";
    assert_eq!(fields(0), "firstToken=true");
    assert_eq!(fields(1), format!("conversationId=c finishReason=tool-calls model=m {spent}"));
    assert_eq!(fields(2), "");
    assert_eq!(fields(3), "conversationId=c isError=true name=read_file toolCallId=call-1");
    assert_eq!(
        fields(4),
        format!("conversationId=c decodeMs=1.0 finishReason=tool-calls genTotalMs=6.0 stepId=t#0 ttftMs=5.0 {spent}")
    );
    assert_eq!(fields(6), "firstToken=false");
    assert_eq!(fields(7), "conversationId=c finishReason=stop genTotalMs=0.0 stepId=t#1");
    assert_eq!(fields(8), format!("conversationId=c durationMs=6.0 finishReason=stop model=m turnId=t {spent}"));
    assert_eq!(agree(&closed), [Some(9), Some(2), Some(0), None]);
}

#[test]
fn the_span_of_a_turn_is_a_child_of_the_current_span() {
    let setup = setup();
    let closed = collect(|| {
        let _theirs = tracing::info_span!("theirs").entered();
        drop(setup.turn());
    });
    assert_eq!(closed[0].parent, Some("theirs"));
}

#[test]
fn sums_agree_over_turns_that_ended_failed_were_retried_were_aborted_or_reported_nothing() {
    let setup = setup();
    let closed = collect(|| {
        // A stream that fails halfway.
        let mut turn = setup.turn();
        let mut step = turn.start_step();
        step.usage(usage(100, 1));
        step.token();
        step.end("error");
        turn.end("error");
        // A retried request: the second one reports the prompt again.
        let mut turn = setup.turn();
        let mut step = turn.start_step();
        step.usage(Usage { cache_read_tokens: Some(40.into()), ..usage(50, 1) });
        let mut step = step.end_stream("overloaded").retry();
        step.usage(usage(50, 7));
        step.end("stop");
        turn.end("stop");
        // A turn that is dropped in the middle of a stream.
        let mut turn = setup.turn();
        let mut step = turn.start_step();
        step.usage(usage(1000, 10));
        drop(step);
        drop(turn);
        // A turn that is dropped while a tool runs.
        let mut turn = setup.turn();
        let mut step = turn.start_step();
        step.usage(usage(2000, 20));
        let step = step.end_stream("tool-calls");
        let call = step.start_tool_call("t", "1");
        drop(step);
        drop(turn);
        drop(call);
        // A turn that reports nothing.
        drop(setup.turn());
    });
    assert_eq!(agree(&closed), [Some(3150), Some(38), Some(40), None]);
    let mut reasons: Vec<_> =
        closed.iter().filter(|span| span.name == "turn").map(|span| &span.fields["finishReason"]).collect();
    reasons.sort();
    assert_eq!(reasons, ["aborted", "aborted", "aborted", "error", "stop"]);
}

/// One call to the recorder of a turn or of its step.
#[derive(Debug, Clone)]
enum Deed {
    Usage(Usage),
    Token,
    Retry,
    ToolCall,
    EndStep,
    DropStep,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let counter = || (0_u32..1000).prop_map(Into::into);
    let some_usage = (counter(), counter(), proptest::option::of(counter()), proptest::option::of(counter())).prop_map(
        |(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)| {
            Deed::Usage(Usage { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens })
        },
    );
    let deed = prop_oneof![
        4 => some_usage,
        1 => Just(Deed::Token),
        2 => Just(Deed::Retry),
        1 => Just(Deed::ToolCall),
        2 => Just(Deed::EndStep),
        1 => Just(Deed::DropStep),
    ];
    proptest::collection::vec(deed, 0..20)
}

fn run(turn: &mut TurnRecorder, deeds: &[Deed]) {
    let mut deeds = deeds.iter();
    'steps: while !deeds.as_slice().is_empty() {
        let mut step = turn.start_step();
        for deed in deeds.by_ref() {
            match deed {
                Deed::Usage(usage) => step.usage(*usage),
                Deed::Token => step.token(),
                Deed::Retry => step = step.end_stream("retry").retry(),
                Deed::ToolCall => drop(step.start_tool_call("t", "1")),
                Deed::EndStep => {
                    step.end("stop");
                    continue 'steps;
                }
                Deed::DropStep => continue 'steps,
            }
        }
    }
}

/// Folds the recorded events and returns the sealed turn.
fn fold(log: &EventLog) -> SealedTurn {
    let mut open = OpenTurn::new(TurnId::new("t").unwrap());
    let mut sealed = open.seal(&Done::because("none"), EpochMillis::new(1));
    for event in log.events() {
        match event.event.kind {
            TurnEventKind::Progress(progress) => open.fold(&progress),
            TurnEventKind::Done(done) => sealed = open.seal(&done, EpochMillis::new(1)),
        }
    }
    sealed
}

proptest! {
    #[test]
    fn sums_agree_with_each_other_and_with_the_folded_turn_for_any_calls(deeds in deeds(), aborts: bool) {
        let setup = setup();
        let closed = collect(|| {
            let mut turn = setup.turn();
            run(&mut turn, &deeds);
            if aborts { drop(turn) } else { turn.end("stop") }
        });
        let [input, output, read, write] = agree(&closed);
        let metrics = fold(&setup.log).metrics;
        prop_assert_eq!(metrics.usage.input_tokens.get(), input.unwrap_or(0));
        prop_assert_eq!(metrics.usage.output_tokens.get(), output.unwrap_or(0));
        prop_assert_eq!(metrics.usage.cache_read_tokens.map(crate::turn::TokenCount::get), read);
        prop_assert_eq!(metrics.usage.cache_write_tokens.map(crate::turn::TokenCount::get), write);
        // Without the usage of its `done`, the turn must fold to the same usage.
        let mut without = OpenTurn::new(TurnId::new("t").unwrap());
        for event in setup.log.events() {
            if let TurnEventKind::Progress(progress) = event.event.kind {
                without.fold(&progress);
            }
        }
        let without = without.seal(&Done::because("stop"), EpochMillis::new(1)).metrics;
        prop_assert_eq!(without.usage, metrics.usage);
        prop_assert_eq!(without.context_size, metrics.context_size);
    }
}
