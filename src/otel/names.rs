use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;

/// How tokens that were written to a provider's cache are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Dialect {
    /// `gen_ai.usage.cache_write.input_tokens`.
    #[default]
    CacheWrite,
    /// `gen_ai.usage.cache_creation.input_tokens`, as the conventions had it before.
    CacheCreation,
}

impl Dialect {
    fn cache_write(self) -> &'static str {
        match self {
            Self::CacheWrite => "gen_ai.usage.cache_write.input_tokens",
            Self::CacheCreation => "gen_ai.usage.cache_creation.input_tokens",
        }
    }
}

/// The spans of a recorder, by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Turn,
    Step,
    ProviderRequest,
    ToolCall,
}

impl Kind {
    fn of(span: &SpanData) -> Option<Self> {
        let kind = match &*span.name {
            "turn" => Self::Turn,
            "step" => Self::Step,
            "provider.request" => Self::ProviderRequest,
            "tool-call" => Self::ToolCall,
            _ => return None,
        };
        // Another program's span may have such a name too.
        span.attributes.iter().any(|attribute| attribute.key.as_str() == "conversationId").then_some(kind)
    }

    /// What the conventions call it.
    fn operation(self) -> Option<&'static str> {
        match self {
            Self::Turn => Some("invoke_agent"),
            Self::Step => None,
            Self::ProviderRequest => Some("chat"),
            Self::ToolCall => Some("execute_tool"),
        }
    }
}

/// Gives a recorder's span the names of the conventions; any other stays as it is.
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
        // On leaves alone, so that nobody adds it up twice.
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
