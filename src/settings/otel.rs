use std::time::Duration;

/// Where spans are sent, and under which names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtelSettings {
    /// The collector's address for traces; with HTTP, not HTTPS: a collector stands nearby.
    pub endpoint: String,
    /// What the program is called (`service.name`).
    pub service_name: String,
    /// How tokens that were written to a cache are called.
    pub dialect: Dialect,
    /// How long the collector may take for a batch.
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
