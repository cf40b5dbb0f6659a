use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::*;
use crate::turn::{KernelEvent, UsageReport, parse_line};

#[actix_rt::test]
async fn a_turn_is_sent_as_the_events_of_the_contract_byte_for_byte() {
    let setup = setup();
    let ids = (ConversationId::new("c").unwrap(), TurnId::new("t").unwrap());
    let mut turn = setup.recorder.start_turn(ids.0, ids.1, TurnLabels::of_model("m")).unwrap();
    setup.clock.advance(Duration::from_millis(5));
    let mut step = turn.start_step();
    read(&mut step, setup.stream().wait_ms(250).text("a").wait_ms(40).text("b").usage(900, 20)).await;
    let step = step.end_stream("tool-calls");
    let call = step.start_tool_call("read_file", "call-1");
    setup.clock.advance(Duration::from_micros(1500));
    call.end(false);
    step.end("tool-calls");
    let mut step = turn.start_step();
    let cached = Usage { cache_read_tokens: Some(900.into()), cache_write_tokens: Some(0.into()), ..usage(950, 3) };
    read(&mut step, setup.stream().wait_ms(100).reasoning("a").wait_ms(1).text("b").usage_with(cached)).await;
    step.end("stop");
    turn.end("stop");

    let lines = setup.log.lines();
    assert_eq!(
        lines,
        [
            r#"{"type":"turn-start","conversationId":"c","turnId":"t","model":"m"}"#,
            r#"{"type":"usage","conversationId":"c","turnId":"t","stepId":"t#0","usage":{"inputTokens":900,"outputTokens":20}}"#,
            r#"{"type":"step-complete","conversationId":"c","turnId":"t","stepId":"t#0","ttftMs":250,"decodeMs":40,"genTotalMs":290}"#,
            r#"{"type":"usage","conversationId":"c","turnId":"t","stepId":"t#1","usage":{"inputTokens":950,"outputTokens":3,"cacheReadTokens":900,"cacheWriteTokens":0}}"#,
            r#"{"type":"step-complete","conversationId":"c","turnId":"t","stepId":"t#1","ttftMs":100,"decodeMs":1,"genTotalMs":101}"#,
            r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop","durationMs":397.5,"usage":{"inputTokens":1850,"outputTokens":23,"cacheReadTokens":900,"cacheWriteTokens":0},"contextSize":953}"#,
        ]
    );
    for (line, event) in lines.iter().zip(setup.log.events()) {
        assert_eq!(parse_line(line.as_bytes()).unwrap(), Some(event));
    }
}

#[actix_rt::test]
async fn without_a_token_there_is_no_ttft_and_no_decode_time() {
    let setup = setup();
    let mut turn = setup.turn();
    let mut step = turn.start_step();
    read(&mut step, setup.stream().wait_ms(300).tool_call("t", "1").usage(5, 1)).await;
    step.end("tool-calls");
    assert_eq!(setup.told()[2], r#"{"type":"step-complete","stepId":"t#0","genTotalMs":300}"#);
}

#[actix_rt::test]
async fn a_retry_is_a_new_stream_start_and_the_wait_before_it_is_in_no_time() {
    let setup = setup();
    let mut turn = setup.turn();
    let step = turn.start_step();
    setup.clock.advance(Duration::from_millis(70));
    let failed = step.end_stream("overloaded");
    setup.clock.advance(Duration::from_secs(8));
    let mut step = failed.retry();
    read(&mut step, setup.stream().wait_ms(200).text("a").wait_ms(10)).await;
    step.end("stop");
    turn.end("stop");
    assert_eq!(
        setup.told()[1..],
        [
            r#"{"type":"step-complete","stepId":"t#0","ttftMs":200,"decodeMs":10,"genTotalMs":210}"#,
            r#"{"type":"done","reason":"stop","durationMs":8280}"#,
        ]
    );
}

#[test]
fn reports_of_a_step_join_in_the_usage_of_the_turn() {
    let setup = setup();
    let mut turn = setup.turn();
    let mut step = turn.start_step();
    step.usage(usage(900, 1));
    step.usage(usage(0, 120));
    step.end("stop");
    let mut step = turn.start_step();
    step.usage(usage(1000, 2));
    step.end("stop");
    turn.end("stop");
    let done = setup.told().pop().unwrap();
    assert!(done.contains(r#""usage":{"inputTokens":1900,"outputTokens":122},"contextSize":1002"#), "{done}");
}

#[test]
fn every_field_of_an_event_can_be_sent() {
    let (clock, log) = (TestClock::at(1_780_000_000_000), EventLog::default());
    let recorder = Recorder::with_clock(log.clone(), Arc::new(clock.clone()), Arc::new(clock.clone()));
    let labels = TurnLabels { model: Some("big".into()), provider: Some("A".into()), project: Some("search".into()) };
    let ids = (ConversationId::new("c").unwrap(), TurnId::new("t").unwrap());
    let mut turn = recorder.start_turn(ids.0, ids.1, labels).unwrap();
    let mut step = turn.start_step();
    step.set_model("small");
    step.set_provider("B");
    step.usage(usage(60_385, 20));
    let report = UsageReport {
        input_tokens: Some(612.into()),
        output_tokens: Some(40.into()),
        cache_write_tokens: Some(600.into()),
        cache_write_1h_tokens: Some(500.into()),
        ..UsageReport::default()
    };
    step.final_usage(report);
    clock.advance(Duration::from_millis(7));
    step.end("stop");
    turn.end("stop");
    let told = log.lines().into_iter().map(|line| line.replace(r#","conversationId":"c","turnId":"t""#, ""));
    let told: Vec<_> = told.collect();
    let tokens = r#"{"inputTokens":612,"outputTokens":40,"cacheWriteTokens":600,"cacheWrite1hTokens":500}"#;
    assert_eq!(
        told,
        [
            r#"{"type":"turn-start","model":"big","provider":"A","project":"search"}"#.to_owned(),
            r#"{"type":"usage","stepId":"t#0","usage":{"inputTokens":60385,"outputTokens":20}}"#.to_owned(),
            format!(r#"{{"type":"usage","stepId":"t#0","usage":{tokens},"final":true}}"#),
            r#"{"type":"step-complete","stepId":"t#0","genTotalMs":7,"model":"small","provider":"B"}"#.to_owned(),
            format!(
                r#"{{"type":"done","reason":"stop","durationMs":7,"usage":{tokens},"contextSize":652,"endedAt":1780000000007}}"#
            ),
        ]
    );
}

#[test]
fn a_dropped_turn_and_its_open_step_end_as_aborted() {
    let setup = setup();
    let mut turn = setup.turn();
    let mut step = turn.start_step();
    setup.clock.advance(Duration::from_millis(30));
    step.token();
    step.usage(usage(10, 4));
    setup.clock.advance(Duration::from_millis(2));
    drop(step);
    drop(turn);
    assert_eq!(
        setup.told()[2..],
        [
            r#"{"type":"step-complete","stepId":"t#0","ttftMs":30,"decodeMs":2,"genTotalMs":32}"#,
            r#"{"type":"done","reason":"aborted","durationMs":32,"usage":{"inputTokens":10,"outputTokens":4},"contextSize":14}"#,
        ]
    );
}

#[test]
fn a_turn_that_panics_ends_as_aborted() {
    let setup = setup();
    let turn = setup.turn();
    let panicked = std::thread::spawn(move || {
        let mut turn = turn;
        let _step = turn.start_step();
        panic!("this panic is part of a test");
    });
    panicked.join().unwrap_err();
    let told = setup.told();
    assert_eq!(told.len(), 3);
    assert!(told[2].contains(r#""type":"done","reason":"aborted""#), "{told:?}");
}

#[test]
fn a_turn_id_is_refused_only_if_the_ids_of_its_steps_would_be_too_long() {
    let setup = setup();
    let start = |len: usize| {
        let turn_id = TurnId::new("x".repeat(len)).unwrap();
        setup.recorder.start_turn(ConversationId::new("c").unwrap(), turn_id, TurnLabels::default())
    };
    assert_eq!(start(246).unwrap_err(), TurnIdTooLong { len: 246 });
    let mut turn = start(245).unwrap();
    let step = turn.start_step();
    assert_eq!(step.step_id().as_str(), format!("{}#0", "x".repeat(245)));
    assert!(crate::turn::StepId::new(format!("{}#{}", "x".repeat(245), u32::MAX)).is_ok());
}

/// A sink that takes `left` events, and then refuses or panics.
#[derive(Clone, Default)]
struct Failing {
    left: Arc<AtomicU32>,
    how: Arc<Mutex<Option<EventLost>>>,
}

impl EventSink for Failing {
    fn offer(&self, _: KernelEvent) -> Result<(), EventLost> {
        let took = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match (took, *self.how.lock().unwrap()) {
            (Ok(_), _) => Ok(()),
            (Err(_), Some(lost)) => Err(lost),
            (Err(_), None) => panic!("this panic is part of a test"),
        }
    }
}

#[test]
fn events_lost_to_a_full_gone_or_panicking_sink_are_counted_and_the_turn_goes_on() {
    for (how, full, gone) in [(Some(EventLost::Full), 2, 0), (Some(EventLost::Gone), 0, 2), (None, 0, 2)] {
        let sink = Failing::default();
        sink.left.store(1, Ordering::SeqCst);
        *sink.how.lock().unwrap() = how;
        let recorder = Recorder::new(sink);
        let mut turn = recorder
            .start_turn(ConversationId::new("c").unwrap(), TurnId::new("t").unwrap(), TurnLabels::default())
            .unwrap();
        turn.start_step().end("stop");
        turn.end("stop");
        assert_eq!(recorder.counts(), RecorderCounts { taken: 1, lost_to_full: full, lost_to_gone: gone });
    }
}

#[test]
fn a_turn_can_be_recorded_on_any_thread_and_in_any_task() {
    fn can_be_sent<T: Send>() {}
    can_be_sent::<TurnRecorder>();
    can_be_sent::<StepRecorder<'static>>();
    can_be_sent::<StreamedStep<'static>>();
    can_be_sent::<ToolCallRecorder>();
    let shared: Arc<dyn EventSink> = Arc::new(EventLog::default());
    assert_eq!(Recorder::new(shared).counts(), RecorderCounts::default());
}
