//! Records a turn around the stream of a model, with a request that is repeated and a tool call.
//!
//! The events go to standard output. If the command names a file, the spans go to a span log in that file: `cargo run
//! --example record_a_stream --features span-log,testing -- spans.ndjson`.
//!
//! The model is a script and the clock is a test clock, so that each run has the same output. A program has a real
//! stream, and calls `Recorder::new`, which measures with the computer's clock.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use turn_metrics::recorder::{NdjsonSink, Recorder, StepRecorder};
use turn_metrics::settings::SpanLogSettings;
use turn_metrics::span_log::SpanLog;
use turn_metrics::testing::{ModelItem, ModelStream, TestClock};
use turn_metrics::turn::{ConversationId, TurnId, TurnLabels, Usage};

/// How a stream ended.
enum End {
    ToolCall { name: String, id: String },
    Text,
    Failure(String),
}

/// The loop that reads a model's stream, as every kernel has it, with the calls to the recorder.
async fn read(step: &mut StepRecorder<'_>, mut stream: ModelStream) -> End {
    let mut end = End::Text;
    while let Some(item) = stream.next().await {
        match item {
            ModelItem::Text(_) | ModelItem::Reasoning(_) => step.token(),
            ModelItem::Usage(usage) => step.usage(usage),
            ModelItem::ToolCall { name, id } => end = End::ToolCall { name, id },
            ModelItem::Failure(reason) => return End::Failure(reason),
        }
    }
    end
}

async fn run(recorder: &Recorder, clock: &TestClock, turn_id: &str) -> Result<(), Box<dyn std::error::Error>> {
    let wrote = Usage { cache_write_tokens: Some(900.into()), ..tokens(1200, 45) };
    let read_again = Usage { cache_read_tokens: Some(900.into()), ..tokens(1400, 180) };
    // The script of the model: it is overloaded, then it asks for a tool, then it answers.
    let streams = [
        ModelStream::new(clock).wait_ms(40).failure("overloaded"),
        ModelStream::new(clock)
            .wait_ms(310)
            .reasoning("...")
            .wait_ms(150)
            .tool_call("read_file", "call-1")
            .usage_with(wrote),
        ModelStream::new(clock).wait_ms(280).text("It").wait_ms(900).text(" builds.").usage_with(read_again),
    ];

    let mut turn =
        recorder.start_turn(ConversationId::new("c")?, TurnId::new(turn_id)?, TurnLabels::of_model("some-model"))?;
    let mut step = turn.start_step();
    for stream in streams {
        match read(&mut step, stream).await {
            End::Failure(reason) => {
                let failed = step.end_stream(&reason);
                // The wait before the next request is not part of the step's times.
                clock.advance(Duration::from_secs(2));
                step = failed.retry();
            }
            End::ToolCall { name, id } => {
                let streamed = step.end_stream("tool-calls");
                let call = streamed.start_tool_call(&name, &id);
                clock.advance(Duration::from_millis(25));
                call.end(false);
                streamed.end("tool-calls");
                step = turn.start_step();
            }
            End::Text => {
                step.end("stop");
                turn.end("stop");
                return Ok(());
            }
        }
    }
    // Everything that is still open here is recorded as aborted.
    Ok(())
}

fn tokens(input_tokens: u32, output_tokens: u32) -> Usage {
    Usage { input_tokens: input_tokens.into(), output_tokens: output_tokens.into(), ..Usage::default() }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let span_log = std::env::args().nth(1);
    let span_log = span_log.map(|file| SpanLog::start(Path::new(&file), &SpanLogSettings::default())).transpose()?;
    let (span_log, _span_log_writer) = span_log.unzip();

    let clock = TestClock::at(1_760_000_000_000);
    let span_log = span_log.map(|span_log| span_log.timed_by(clock.clone(), Arc::new(clock.clone())));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(span_log))?;

    let (sink, writer) = NdjsonSink::start(io::stdout(), 1000)?;
    let recorder = Recorder::with_stopwatch(sink, Arc::new(clock.clone()));
    actix::System::new().block_on(run(&recorder, &clock, "t-1"))?;
    // Dropping the writer waits until all lines are written.
    drop(writer);
    Ok(())
}
