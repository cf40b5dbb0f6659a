//! The spans over OTLP, as a collector receives them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tracing_subscriber::layer::SubscriberExt;
use turn_metrics::otel;
use turn_metrics::recorder::Recorder;
use turn_metrics::settings::{Dialect, OtelSettings};
use turn_metrics::testing::EventLog;
use turn_metrics::turn::{ConversationId, TurnId, TurnLabels, Usage};

use crate::server::PATIENCE;

/// Starts a collector on a free port. Returns its address, and the requests that it receives.
fn collector() -> (String, Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (send, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            while let Some(request) = read_request(&mut stream) {
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
                if send.send(request).is_err() {
                    return;
                }
            }
        }
    });
    (endpoint, requests)
}

fn read_request(stream: &mut impl BufRead) -> Option<ExportTraceServiceRequest> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap() == 0 {
            return None;
        }
    }
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    Some(ExportTraceServiceRequest::decode(&*body).unwrap())
}

/// Records a turn. Returns the spans that a collector received for it, and the service's name.
fn received(dialect: Dialect) -> (Vec<Span>, String) {
    let (endpoint, requests) = collector();
    let settings = OtelSettings { endpoint, service_name: "my-agent".into(), dialect, ..OtelSettings::default() };
    let (layer, exporting) = otel::start(&settings).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let _theirs = tracing::info_span!("step", name = "theirs").entered();
        let recorder = Recorder::new(EventLog::default());
        let ids = (ConversationId::new("c").unwrap(), TurnId::new("t").unwrap());
        let mut turn = recorder.start_turn(ids.0, ids.1, TurnLabels::of_model("m")).unwrap();
        let mut step = turn.start_step();
        step.token();
        step.usage(Usage {
            input_tokens: 900.into(),
            output_tokens: 20.into(),
            cache_read_tokens: Some(0.into()),
            cache_write_tokens: Some(850.into()),
        });
        let step = step.end_stream("tool-calls");
        step.start_tool_call("read_file", "call-1").end(false);
        step.end("tool-calls");
        let mut step = turn.start_step();
        step.usage(Usage { input_tokens: 930.into(), output_tokens: 4.into(), ..Usage::default() });
        drop(step);
        drop(turn);
    });
    drop(exporting);
    let mut spans = Vec::new();
    let mut service = None;
    // The root span is closed last. So when it has arrived, all spans have.
    while !spans.iter().any(|span: &Span| span.parent_span_id.is_empty()) {
        for of_resource in requests.recv_timeout(PATIENCE).unwrap().resource_spans {
            let attributes = of_resource.resource.unwrap().attributes;
            let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            service = name.map(|name| text(name.value.unwrap().value.unwrap()));
            spans.extend(of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans));
        }
    }
    (spans, service.unwrap())
}

fn text(value: Value) -> String {
    match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::ArrayValue(array) => {
            let items = array.values.into_iter().map(|item| text(item.value.unwrap()));
            format!("[{}]", items.collect::<Vec<_>>().join(" "))
        }
        other => format!("{other:?}"),
    }
}

fn attributes(span: &Span) -> BTreeMap<String, String> {
    let attributes = span.attributes.iter().cloned();
    attributes.map(|attribute| (attribute.key, text(attribute.value.unwrap().value.unwrap()))).collect()
}

/// Returns the attributes, without times, of the `nth` span with this name.
fn shown(spans: &[Span], name: &str, nth: usize) -> String {
    let span = spans.iter().filter(|span| span.name == name && !span.parent_span_id.is_empty()).nth(nth).unwrap();
    let attributes = attributes(span).into_iter().filter(|(key, _)| !key.ends_with("Ms"));
    attributes.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_collector_receives_the_spans_of_a_turn_under_the_names_of_the_conventions() {
    let (spans, service) = received(Dialect::default());
    assert_eq!(service, "my-agent");
    assert_eq!(
        shown(&spans, "turn", 0),
        "gen_ai.conversation.id=c gen_ai.operation.name=invoke_agent gen_ai.request.model=m \
         turn_metrics.finishReason=aborted turn_metrics.turnId=t"
    );
    assert_eq!(
        shown(&spans, "step", 0),
        "gen_ai.conversation.id=c turn_metrics.finishReason=tool-calls turn_metrics.stepId=t#0"
    );
    assert_eq!(
        shown(&spans, "provider.request", 0),
        "gen_ai.conversation.id=c gen_ai.operation.name=chat gen_ai.request.model=m \
         gen_ai.response.finish_reasons=[tool-calls] gen_ai.usage.cache_read.input_tokens=0 \
         gen_ai.usage.cache_write.input_tokens=850 gen_ai.usage.input_tokens=900 gen_ai.usage.output_tokens=20"
    );
    assert_eq!(
        shown(&spans, "provider.request", 1),
        "gen_ai.conversation.id=c gen_ai.operation.name=chat gen_ai.request.model=m \
         gen_ai.response.finish_reasons=[aborted] gen_ai.usage.input_tokens=930 gen_ai.usage.output_tokens=4"
    );
    assert_eq!(
        shown(&spans, "tool-call", 0),
        "gen_ai.conversation.id=c gen_ai.operation.name=execute_tool gen_ai.tool.call.id=call-1 \
         gen_ai.tool.name=read_file turn_metrics.isError=false"
    );
}

#[test]
fn only_spans_without_children_carry_usage_and_spans_of_others_are_not_changed() {
    let (spans, _) = received(Dialect::default());
    let parents: Vec<_> = spans.iter().map(|span| &span.parent_span_id).collect();
    let mut input_tokens = 0;
    for span in &spans {
        let attributes = attributes(span);
        if let Some(count) = attributes.get("gen_ai.usage.input_tokens") {
            assert!(!parents.contains(&&span.span_id), "{} has usage and child spans", span.name);
            input_tokens += count.parse::<u64>().unwrap();
        }
        assert!(!attributes.keys().any(|key| key.starts_with("usage.")), "{attributes:?}");
    }
    assert_eq!(input_tokens, 1830, "the sum over all spans of the trace");
    let theirs = spans.iter().find(|span| span.parent_span_id.is_empty()).unwrap();
    assert_eq!(attributes(theirs), BTreeMap::from([("name".to_owned(), "theirs".to_owned())]));
    assert!(spans.iter().all(|span| span.trace_id == theirs.trace_id), "all spans have one trace id");
}

#[test]
fn the_older_dialect_calls_cache_writes_cache_creation() {
    let (spans, _) = received(Dialect::CacheCreation);
    let request = shown(&spans, "provider.request", 0);
    assert!(request.contains("gen_ai.usage.cache_creation.input_tokens=850"), "{request}");
    assert!(!request.contains("cache_write"), "{request}");
}
