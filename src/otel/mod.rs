//! Exports the recorder's spans over OTLP, with the field names of OpenTelemetry's GenAI conventions.
//!
//! ```no_run
//! use turn_metrics::otel;
//! use turn_metrics::settings::OtelSettings;
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! let settings = OtelSettings { service_name: "my-agent".into(), ..OtelSettings::default() };
//! let (layer, exporting) = otel::start(&settings)?;
//! tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
//! // ... the program runs ...
//! drop(exporting);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | the recorder's | over OTLP |
//! |---|---|
//! | `conversationId` | `gen_ai.conversation.id` |
//! | `model` | `gen_ai.request.model` |
//! | `usage.inputTokens`, `usage.outputTokens` | `gen_ai.usage.input_tokens`, `gen_ai.usage.output_tokens` |
//! | `usage.cacheReadTokens` | `gen_ai.usage.cache_read.input_tokens` |
//! | `usage.cacheWriteTokens` | `gen_ai.usage.cache_write.input_tokens`, in the older [`Dialect`](crate::settings::Dialect) `gen_ai.usage.cache_creation.input_tokens` |
//! | `finishReason` of a `provider.request` | `gen_ai.response.finish_reasons` |
//! | `name`, `toolCallId` of a `tool-call` | `gen_ai.tool.name`, `gen_ai.tool.call.id` |
//! | all others | `turn_metrics.` and the recorder's name |
//!
//! Only the `provider.request` spans carry usage, and they have no child spans. So the sum over all spans of a trace
//! counts each token once. Spans of other code are not changed.
//!
//! To send spans in another way than OTLP over HTTP without TLS, wrap any exporter in a [`GenAiExporter`].
//!
//! # Files
//!
//! - `exporter`: renames the fields of spans before another exporter sends them.
//! - `names`: the names of the conventions for each span and field.
//! - `client`: sends batches over HTTP.

mod client;
mod exporter;
mod names;

use std::fmt;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

pub use exporter::GenAiExporter;

use crate::settings::OtelSettings;

/// The reason why the sending of spans cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtelError {
    /// The address is not an HTTP address.
    #[error("{0:?} is not the address of a collector: it must begin with http://, since spans are sent without TLS")]
    Endpoint(String),
    /// The exporter could not be created.
    #[error("the exporter could not be created")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
}

/// The thread that sends spans. Dropping this value sends the remaining spans, but waits no longer than 5 seconds for
/// that.
pub struct Exporting {
    provider: SdkTracerProvider,
}

/// How long the end of a program waits until the last spans are sent.
const LAST_CALL: Duration = Duration::from_secs(5);

/// Starts the thread that sends spans, and returns the layer that passes spans to it. A span never waits: if too many
/// are queued, spans are lost.
pub fn start<S>(settings: &OtelSettings) -> Result<(OpenTelemetryLayer<S, SdkTracer>, Exporting), OtelError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if !settings.endpoint.starts_with("http://") {
        return Err(OtelError::Endpoint(settings.endpoint.clone()));
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client::Client::new(settings.timeout))
        .with_endpoint(&settings.endpoint)
        .with_timeout(settings.timeout)
        .build()
        .map_err(OtelError::Exporter)?;
    let resource = Resource::builder().with_attribute(KeyValue::new("service.name", settings.service_name.clone()));
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(GenAiExporter::new(exporter, settings.dialect))
        .build();
    // Export only the recorder's spans, and not those of the exporting code itself.
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("turn_metrics"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false);
    Ok((layer, Exporting { provider }))
}

impl Exporting {
    /// Sends the waiting spans. Returns whether the collector accepted them.
    pub fn flush(&self) -> bool {
        self.provider.force_flush().is_ok()
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_CALL) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

impl fmt::Debug for Exporting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporting").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_tls_or_of_another_form_is_refused() {
        for endpoint in ["https://collector:4318/v1/traces", "collector:4318", ""] {
            let settings = OtelSettings { endpoint: endpoint.into(), ..OtelSettings::default() };
            let refused = start::<tracing_subscriber::Registry>(&settings);
            assert!(matches!(refused, Err(OtelError::Endpoint(_))), "{endpoint}");
        }
    }
}
