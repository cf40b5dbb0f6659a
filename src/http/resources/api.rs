use std::sync::Arc;

use actix::{Message, Recipient};
use tracing::error;

use super::cache::BodyCache;
use super::held_bytes::ReadBudget;
use crate::clock::{SharedClock, SystemClock, system_time_zone};
use crate::http::error::ApiError;
use crate::http::intake::budget::ByteBudget;
use crate::report::{NoPrices, SharedPriceBook, Zone};
use crate::runtime::Handles;
use crate::settings::HttpSettings;
use crate::store::Fault;

/// The state that the resources of all workers share: the running system, the settings, the budgets for posted
/// bodies and for answers, and the cache of answers. Clones share it.
#[derive(Clone)]
pub struct Api {
    pub(crate) handles: Handles,
    pub(crate) settings: HttpSettings,
    pub(crate) budget: ByteBudget,
    pub(crate) reads: ReadBudget,
    pub(crate) bodies: BodyCache,
    pub(crate) prices: SharedPriceBook,
    pub(crate) zone: Zone,
    pub(crate) clock: SharedClock,
}

impl Api {
    /// An API to the system behind `handles`. It knows no prices, and its days are those of the system's time zone.
    pub fn new(handles: Handles, settings: HttpSettings) -> Self {
        let budget = ByteBudget::new(settings.max_buffered_bytes);
        let bodies = BodyCache::new(settings.cache_bytes);
        let reads = ReadBudget::new(settings.max_read_bytes);
        let (prices, zone, clock) = (Arc::new(NoPrices), system_time_zone(), Arc::new(SystemClock));
        Self { handles, settings, budget, reads, bodies, prices, zone, clock }
    }

    /// Sets the prices that are shown for single turns, conversations and models: those that the
    /// [`Runtime`](crate::runtime::Runtime) was started with.
    #[must_use]
    pub fn with_prices(self, prices: SharedPriceBook) -> Self {
        Self { prices, ..self }
    }

    /// Sets the zone whose days, weeks and months reports have, unless a question names another one.
    #[must_use]
    pub fn with_time_zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// Sets the clock by which reports on the last 30 days end.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// The same API, to be mounted in one worker's application: reads are answered on the calling thread, as
    /// [`Handles::on_this_thread`] has it.
    #[must_use]
    pub fn on_this_thread(&self) -> Self {
        Self { handles: self.handles.on_this_thread(), ..self.clone() }
    }
}

/// Asks the reader of the store. The cause of a failure goes to the log alone.
pub(crate) async fn ask_reader<M, T>(reader: &Recipient<M>, message: M) -> Result<T, ApiError>
where
    M: Message<Result = Result<T, Fault>> + Send + 'static,
    T: Send + 'static,
{
    match reader.send(message).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(fault)) => {
            error!(cause = fault.in_full(), "sealed turns could not be read");
            Err(ApiError::LoadFailed)
        }
        Err(cause) => {
            error!(%cause, "the store did not answer");
            Err(ApiError::LoadFailed)
        }
    }
}
