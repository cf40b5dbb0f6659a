use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use super::names::rename;
use crate::settings::Dialect;

/// Renames the fields of the recorder's spans by the GenAI conventions, and passes the spans to another exporter, which
/// sends them.
#[derive(Debug)]
pub struct GenAiExporter<E> {
    inner: E,
    dialect: Dialect,
}

impl<E: SpanExporter> GenAiExporter<E> {
    /// Wraps `inner`.
    pub fn new(inner: E, dialect: Dialect) -> Self {
        Self { inner, dialect }
    }
}

impl<E: SpanExporter> SpanExporter for GenAiExporter<E> {
    fn export(&self, mut batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        for span in &mut batch {
            rename(span, self.dialect);
        }
        self.inner.export(batch)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.inner.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
