use std::sync::Arc;

use actix::{Message, Recipient};
use tokio::sync::Semaphore;
use tracing::error;

use super::cache::BodyCache;
use super::feed_control::FeedControl;
use super::held_bytes::ReadBudget;
use super::turnstile::Turnstile;
use crate::actors::ListSealed;
use crate::clock::{SharedClock, SystemClock, system_time_zone};
use crate::http::error::ApiError;
use crate::http::intake::budget::ByteBudget;
use crate::http::long_work::LongWork;
use crate::report::{NoPrices, SharedPriceBook, Zone};
use crate::runtime::Handles;
use crate::settings::HttpSettings;
use crate::store::{Fault, ListSealedError, SealedPage};

/// The state that the resources of all workers share: the running system, the settings, the budgets for posted bodies
/// and for answers, and the cache of answers. Clones share this state.
#[derive(Clone)]
pub struct Api {
    pub(crate) handles: Handles,
    pub(crate) settings: HttpSettings,
    pub(crate) budget: ByteBudget,
    pub(crate) reads: ReadBudget,
    /// The places of imports.
    pub(crate) imports: Arc<Semaphore>,
    pub(crate) long_work: LongWork,
    /// For questions about very many turns or conversations.
    pub(crate) reports: Turnstile,
    /// For questions that read a whole conversation, or all of its open turns.
    pub(crate) summaries: Turnstile,
    pub(crate) bodies: BodyCache,
    pub(crate) feed: FeedControl,
    pub(crate) prices: SharedPriceBook,
    pub(crate) zone: Zone,
    pub(crate) clock: SharedClock,
}

impl Api {
    /// Returns an API to the system behind `handles`. It has no prices, and its days are those of the system's time
    /// zone.
    pub fn new(handles: Handles, settings: HttpSettings) -> Self {
        let budget = ByteBudget::new(settings.max_buffered_bytes);
        let bodies = BodyCache::new(settings.cache_bytes);
        let reads = ReadBudget::new(settings.max_read_bytes);
        let feed = FeedControl::new(&settings);
        let (prices, zone, clock) = (Arc::new(NoPrices), system_time_zone(), Arc::new(SystemClock));
        let imports = Arc::new(Semaphore::new(settings.max_imports.min(Semaphore::MAX_PERMITS)));
        let long_work = LongWork::default();
        let (reports, summaries) = (Turnstile::new(), Turnstile::new());
        Self {
            handles,
            settings,
            budget,
            reads,
            imports,
            long_work,
            reports,
            summaries,
            bodies,
            feed,
            prices,
            zone,
            clock,
        }
    }

    /// Sets the prices for single turns, conversations and models. Pass the prices with which the
    /// [`Runtime`](crate::runtime::Runtime) was started.
    #[must_use]
    pub fn with_prices(self, prices: SharedPriceBook) -> Self {
        Self { prices, ..self }
    }

    /// Sets the zone that decides when the days, weeks and months of reports begin, unless a request names a zone.
    #[must_use]
    pub fn with_time_zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// Sets the clock that decides when the default period of a report, the last 30 days, ends.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// Ends all streams of `GET /feed`, also those that begin later. Their clients continue from another server, or
    /// from this one after its restart.
    ///
    /// A server that stops waits for the answers that have begun, and those of `GET /feed` last up to
    /// `http.feed_timeout`. So call this before you stop a server of your own. The command `serve` calls it when it
    /// gets a signal to stop.
    pub fn end_feeds(&self) {
        self.feed.end();
    }

    /// Returns the same API for the application of one worker. The worker's reads are answered on the calling thread;
    /// see [`Handles::on_this_thread`].
    #[must_use]
    pub fn on_this_thread(&self) -> Self {
        Self { handles: self.handles.on_this_thread(), ..self.clone() }
    }
}

/// Asks the store, through the reader. The log has the cause of a failure, and the client only learns that the store
/// could not be read.
///
/// Use this for a message whose only error is a [`Fault`]. Send a message with other errors directly, as `stats` does,
/// and answer the client with each of them.
pub(crate) async fn ask_store<M, T>(reader: &Recipient<M>, message: M) -> Result<T, ApiError>
where
    M: Message<Result = Result<T, Fault>> + Send + 'static,
    T: Send + 'static,
{
    match reader.send(message).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(fault)) => {
            error!(cause = fault.in_full(), "the store could not be read");
            Err(ApiError::ReadFailed)
        }
        Err(cause) => {
            error!(%cause, "the store did not answer");
            Err(ApiError::ReadFailed)
        }
    }
}

/// Like [`ask_store`], for sealed turns of all conversations. A position of another lineage is
/// [`ApiError::OtherLineage`].
pub(crate) async fn ask_sealed(reader: &Recipient<ListSealed>, list: ListSealed) -> Result<SealedPage, ApiError> {
    match reader.send(list).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(ListSealedError::OtherLineage(_))) => Err(ApiError::OtherLineage),
        Ok(Err(ListSealedError::Read(fault))) => {
            error!(cause = fault.in_full(), "the store could not be read");
            Err(ApiError::ReadFailed)
        }
        Err(cause) => {
            error!(%cause, "the store did not answer");
            Err(ApiError::ReadFailed)
        }
    }
}

/// Like [`ask_store`], for `metrics` and `turns`. The answer to a failure has the text that clients of these two know.
pub(crate) async fn ask_reader<M, T>(reader: &Recipient<M>, message: M) -> Result<T, ApiError>
where
    M: Message<Result = Result<T, Fault>> + Send + 'static,
    T: Send + 'static,
{
    ask_store(reader, message).await.map_err(|_| ApiError::LoadFailed)
}
