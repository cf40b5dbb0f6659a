use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;

use crate::settings::Dialect;

impl Dialect {
    fn cache_write(self) -> &'static str {
        match self {
            Self::CacheWrite => "gen_ai.usage.cache_write.input_tokens",
            Self::CacheCreation => "gen_ai.usage.cache_creation.input_tokens",
        }
    }
}

/// The kinds of a recorder's spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Turn,
    Step,
    ProviderRequest,
    Ttft,
    ToolCall,
}

impl Kind {
    fn of(span: &SpanData) -> Option<Self> {
        // A span of other code may have the same name, but it hardly has this attribute too.
        let (kind, mark) = match &*span.name {
            "turn" => (Self::Turn, "conversationId"),
            "step" => (Self::Step, "conversationId"),
            "provider.request" => (Self::ProviderRequest, "conversationId"),
            "ttft" => (Self::Ttft, "firstToken"),
            "tool-call" => (Self::ToolCall, "conversationId"),
            _ => return None,
        };
        span.attributes.iter().any(|attribute| attribute.key.as_str() == mark).then_some(kind)
    }

    /// Returns the name of the operation in the conventions (`gen_ai.operation.name`); `None` if they have none for
    /// this span.
    fn operation(self) -> Option<&'static str> {
        match self {
            Self::Turn => Some("invoke_agent"),
            Self::Step | Self::Ttft => None,
            Self::ProviderRequest => Some("chat"),
            Self::ToolCall => Some("execute_tool"),
        }
    }
}

/// Renames the fields of a recorder's span by the conventions, and adds the name of its operation. Other spans are not
/// changed.
pub(super) fn rename(span: &mut SpanData, dialect: Dialect) {
    let Some(kind) = Kind::of(span) else { return };
    let attributes = std::mem::take(&mut span.attributes);
    let renamed = attributes.into_iter().filter_map(|attribute| attribute_of(kind, attribute, dialect));
    span.attributes = renamed.collect();
    if let Some(operation) = kind.operation() {
        span.attributes.push(KeyValue::new("gen_ai.operation.name", operation));
    }
}

fn attribute_of(kind: Kind, attribute: KeyValue, dialect: Dialect) -> Option<KeyValue> {
    let KeyValue { key, value, .. } = attribute;
    let name = match (key.as_str(), kind) {
        ("conversationId", _) => "gen_ai.conversation.id",
        ("model", _) => "gen_ai.request.model",
        // Usage is exported only on spans without child spans, so that a sum over all spans counts each token once.
        (name, Kind::Turn | Kind::Step) if name.starts_with("usage.") => return None,
        ("usage.inputTokens", _) => "gen_ai.usage.input_tokens",
        ("usage.outputTokens", _) => "gen_ai.usage.output_tokens",
        ("usage.cacheReadTokens", _) => "gen_ai.usage.cache_read.input_tokens",
        ("usage.cacheWriteTokens", _) => dialect.cache_write(),
        ("finishReason", Kind::ProviderRequest) => {
            let reasons = Array::String(vec![StringValue::from(value.as_str().into_owned())]);
            return Some(KeyValue::new("gen_ai.response.finish_reasons", Value::Array(reasons)));
        }
        ("name", Kind::ToolCall) => "gen_ai.tool.name",
        ("toolCallId", Kind::ToolCall) => "gen_ai.tool.call.id",
        (other, _) => return Some(KeyValue::new(Key::from(format!("turn_metrics.{other}")), value)),
    };
    Some(KeyValue::new(name, value))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter};

    use super::*;
    use crate::otel::GenAiExporter;

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    /// The names of the attributes of a span after the export.
    fn exported(name: &'static str, attribute: &'static str) -> Vec<String> {
        let kept = Kept::default();
        let renaming = GenAiExporter::new(kept.clone(), Dialect::default());
        let provider = SdkTracerProvider::builder().with_simple_exporter(renaming).build();
        let tracer = provider.tracer("test");
        drop(tracer.span_builder(name).with_attributes([KeyValue::new(attribute, true)]).start(&tracer));
        let span = kept.0.lock().unwrap().remove(0);
        span.attributes.into_iter().map(|attribute| attribute.key.as_str().to_owned()).collect()
    }

    #[test]
    fn the_first_token_gets_the_prefix_only_on_a_span_of_the_recorder() {
        assert_eq!(exported("ttft", "firstToken"), ["turn_metrics.firstToken"]);
        assert_eq!(exported("ttft", "theirs"), ["theirs"]);
        assert_eq!(exported("theirs", "firstToken"), ["firstToken"]);
    }
}
