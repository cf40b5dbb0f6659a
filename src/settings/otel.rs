use std::time::Duration;

/// The destination of spans, and the names under which they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtelSettings {
    /// The collector's address for traces. It must be HTTP, not HTTPS: the collector is expected on the same machine or
    /// network.
    pub endpoint: String,
    /// The name of the program (`service.name`).
    pub service_name: String,
    /// The name of the attribute for tokens written to a provider's cache.
    pub dialect: Dialect,
    /// The time limit for sending a batch.
    pub timeout: Duration,
}

impl Default for OtelSettings {
    fn default() -> Self {
        Self {
            endpoint: "http://127.0.0.1:4318/v1/traces".into(),
            service_name: "turn-metrics".into(),
            dialect: Dialect::default(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// The name of the attribute for tokens written to a provider's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Dialect {
    /// `gen_ai.usage.cache_write.input_tokens`.
    #[default]
    CacheWrite,
    /// `gen_ai.usage.cache_creation.input_tokens`, the name in earlier versions of the conventions.
    CacheCreation,
}
