//! Starts the actors of a system, and stops them in order.
//!
//! Invariants:
//!
//! - The store, the directory and the sweeper start here, on a thread of their own. Only the directory starts
//!   conversations. A reader starts on the thread that asks for it.
//! - A shutdown follows the way of an event: the directory drains, then the store writes the queued commits, then the
//!   thread ends.
//!
//! # Files
//!
//! - `handles`: the recipients that a running system hands out.
//! - `tests`: whole systems, in memory and on files.
//! - `end_tests`: how a system reports its own end.

#[cfg(test)]
mod end_tests;
mod handles;
#[cfg(test)]
mod tests;

use std::future::{pending, poll_fn};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use actix::{Actor, Addr, Arbiter};
use tokio::sync::{oneshot, watch};

pub use self::handles::{Handles, Intake, Operations, Reads, SystemReport};
use crate::actors::{
    AwaitEnd, Close, Directory, Drain, Facts, Feed, FeedStart, LiveFeed, Load, Retention, Store, StoreReader,
    StoreRecipients, Subscription, Sweeper, SweeperRecipients,
};
use crate::clock::{RunningClock, SharedClock, SystemClock, SystemStopwatch};
use crate::report::{NoPrices, SharedPriceBook};
use crate::settings::{RetentionSettings, StoreSettings, TurnSettings};
use crate::store::{Engine, Fault, Health, ListSealedError, Location, OpenError, RedbEngine};

/// A running system: the store, the directory with its conversations, and the sweeper, on a thread of their own.
///
/// A process may run any number of runtimes, each with a store of its own. Dropping a runtime does not stop its actors;
/// [`Runtime::shutdown`] does.
///
/// ```
/// use turn_metrics::actors::{ListTurns, Observe};
/// use turn_metrics::runtime::Runtime;
/// use turn_metrics::store::TurnRange;
/// use turn_metrics::turn::parse_line;
///
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// let line = br#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop","durationMs":7}"#;
/// let event = parse_line(line)?.unwrap();
///
/// let conversation_id = event.conversation_id;
/// let observe = Observe { conversation_id: conversation_id.clone(), events: vec![event.event] };
/// let receipt = runtime.handles().intake.observe.send(observe).await??;
/// assert_eq!(receipt.sealed[0].ordinal.get(), 1);
///
/// let all = TurnRange::after(conversation_id, 0, 100);
/// let turns = runtime.handles().reads.list_turns.send(ListTurns(all)).await??;
/// assert_eq!(turns[0].metrics.duration, Some(7.into()));
/// runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Runtime {
    arbiter: Arbiter,
    directory: Addr<Directory>,
    sweeper: Addr<Sweeper>,
    store: Addr<Store>,
    handles: Handles,
    health: watch::Receiver<Health>,
}

/// Why a runtime did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Opening the store panicked, which a damaged file can cause.
    #[error("the store could not be opened: {}", .0.in_full())]
    Panicked(Fault),
    /// The system has no thread for it.
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] io::Error),
}

impl Runtime {
    /// Prepares a runtime. By default its store is in memory and its settings are the defaults.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder {
            location: Location::Memory,
            turns: TurnSettings::default(),
            store: StoreSettings::default(),
            clock: Arc::new(SystemClock),
            retention: RetentionSettings::default(),
            facts_kept: FACTS_KEPT,
            prices: Arc::new(NoPrices),
        }
    }

    /// The recipients of the system.
    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Subscribes to every turn that is sealed from now on. A turn is reported once it is durable. There may be any
    /// number of subscriptions.
    ///
    /// ```
    /// use turn_metrics::actors::{Fact, Observe};
    /// use turn_metrics::runtime::Runtime;
    /// use turn_metrics::turn::{ConversationId, Done, TurnEvent, TurnEventKind, TurnId};
    ///
    /// # actix::System::new().block_on(async {
    /// let runtime = Runtime::builder().start().await?;
    /// let mut subscription = runtime.subscribe();
    /// let event = TurnEvent { turn_id: TurnId::new("t")?, kind: TurnEventKind::Done(Done::because("stop")) };
    /// let observe = Observe { conversation_id: ConversationId::new("c")?, events: vec![event] };
    /// runtime.handles().intake.observe.send(observe).await??;
    ///
    /// let Some(Fact::TurnSealed(sealed)) = subscription.next().await else { panic!("no turn was sealed") };
    /// assert_eq!((sealed.conversation_id.as_str(), sealed.turn.ordinal.get()), ("c", 1));
    /// runtime.shutdown().await;
    /// assert_eq!(subscription.next().await, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn subscribe(&self) -> Subscription {
        self.handles.operations.facts.subscribe()
    }

    /// Begins a feed of all sealed turns from a position on; see [`Handles::feed`].
    pub async fn feed(&self, start: FeedStart) -> Result<Feed, ListSealedError> {
        self.handles.feed(start).await
    }

    /// Begins a live feed, which also has open turns and erasures; see [`Handles::live_feed`].
    pub async fn live_feed(&self, start: FeedStart) -> Result<LiveFeed, ListSealedError> {
        self.handles.live_feed(start).await
    }

    /// Resolves when the directory, the store or the store's writer has ended although nobody stopped it. Then nothing
    /// becomes durable any more, and the process should end. A failing disk is no such end, because the store recovers
    /// from that by itself.
    pub fn failed(&self) -> impl Future<Output = ()> + use<> {
        let (health, mut waiting) = (self.health.clone(), self.health.clone());
        let (directory, store) = (self.directory.send(AwaitEnd), self.store.send(AwaitEnd));
        let mut ends: [Pin<Box<dyn Future<Output = ()> + Send>>; 3] = [
            Box::pin(async move { drop(waiting.wait_for(|health| *health != Health::Running).await) }),
            Box::pin(async move {
                let _ = directory.await;
            }),
            Box::pin(async move {
                let _ = store.await;
            }),
        ];
        async move {
            poll_fn(|cx| {
                let ended = ends.iter_mut().any(|end| end.as_mut().poll(cx).is_ready());
                if ended { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            // When a system is stopped in order, the store closes before anything else ends.
            if *health.borrow() == Health::Closed {
                pending::<()>().await;
            }
        }
    }

    /// Stops the system in order: it refuses new work and finishes the work in flight, and the store writes the queued
    /// commits and closes.
    pub async fn shutdown(self) {
        // An error means that the directory has ended already, and with it all its work.
        let _ = self.directory.send(Drain).await;
        let _ = self.sweeper.send(Drain).await;
        let _ = self.store.send(Close).await;
        self.arbiter.stop();
        let (reply, joined) = oneshot::channel::<()>();
        // If no thread can be started to wait for it, the arbiter's thread ends by itself.
        let _ = thread::Builder::new().name("join".into()).spawn(move || {
            let _ = self.arbiter.join();
            drop(reply);
        });
        let _ = joined.await;
    }
}

/// The configuration of a [`Runtime`].
pub struct RuntimeBuilder {
    location: Location,
    turns: TurnSettings,
    store: StoreSettings,
    clock: SharedClock,
    retention: RetentionSettings,
    facts_kept: usize,
    prices: SharedPriceBook,
}

/// The default number of facts that a subscriber may be behind. They cover seconds of a busy service and take well
/// below a megabyte.
const FACTS_KEPT: usize = 1024;

impl RuntimeBuilder {
    /// Keeps the store in files of this directory, which is created if it is missing.
    #[must_use]
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.location = Location::Directory(directory.into());
        self
    }

    /// Keeps the store on a test's own storage.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn storage(mut self, storage: crate::store::Storage) -> Self {
        self.location = Location::Storage(storage);
        self
    }

    /// Sets the limits and ages of turns.
    #[must_use]
    pub fn turns(mut self, settings: TurnSettings) -> Self {
        self.turns = settings;
        self
    }

    /// Sets the sizes of the store.
    #[must_use]
    pub fn store(mut self, settings: StoreSettings) -> Self {
        self.store = settings;
        self
    }

    /// Sets how long turns are kept. The default is for ever.
    #[must_use]
    pub fn retention(mut self, settings: RetentionSettings) -> Self {
        self.retention = settings;
        self
    }

    /// Sets the clock that stamps turns.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets how many facts a subscriber may be behind before it misses some; rounded up to a power of two.
    #[must_use]
    pub fn facts_kept(mut self, count: usize) -> Self {
        self.facts_kept = count;
        self
    }

    /// Sets the prices of turns. Without prices, every cost is unknown. If the store has costs by other prices, all its
    /// costs are computed anew in the background.
    #[must_use]
    pub fn prices(mut self, book: SharedPriceBook) -> Self {
        self.prices = book;
        self
    }

    /// Opens the store and starts the actors. Must be called in a running actix system.
    pub async fn start(self) -> Result<Runtime, StartError> {
        let Self { location, turns, store: store_settings, retention, clock, facts_kept, prices } = self;
        let (reply, opened) = oneshot::channel();
        let open = move || {
            // Sending fails if the caller no longer waits for the runtime.
            let _ = reply.send(RedbEngine::open_pricing(location, &store_settings, prices));
        };
        thread::Builder::new().name("store-open".into()).spawn(open).map_err(StartError::Thread)?;
        let engine = opened.await.map_err(|error| StartError::Panicked(Fault::panicked(error)))??;
        Runtime::place(Arc::new(engine), turns, retention, clock, facts_kept).map_err(StartError::Thread)
    }
}

impl Runtime {
    /// Returns a runtime whose store's writer dies at its start.
    #[cfg(test)]
    pub(crate) fn with_dying_writer() -> Self {
        Self::place(
            Arc::new(RedbEngine::with_dying_writer()),
            TurnSettings::default(),
            RetentionSettings::default(),
            Arc::new(SystemClock),
            FACTS_KEPT,
        )
        .unwrap()
    }

    /// Starts the actors on a thread of their own.
    fn place(
        engine: Arc<dyn Engine>,
        turns: TurnSettings,
        retention: RetentionSettings,
        clock: SharedClock,
        facts_kept: usize,
    ) -> io::Result<Self> {
        let health = engine.health();
        let arbiter = Arbiter::try_new()?;
        let reader = StoreReader::new(Arc::clone(&engine));
        let running = RunningClock::at(engine.running_time());
        let store = Store::start_in_arbiter(&arbiter.handle(), |_| Store::new(engine));
        let recipients = StoreRecipients {
            open: store.clone().recipient(),
            commit: store.clone().recipient(),
            erase: store.clone().recipient(),
        };
        let series = store.clone().recipient();
        let facts = Facts::new(facts_kept);
        let (load, max_steps) = (Load::new(turns.max_in_flight), turns.max_steps);
        let retention = {
            let (store, clock) = (store.clone().recipient(), Arc::clone(&clock));
            Retention::start_in_arbiter(&arbiter.handle(), |_| Retention::new(store, clock, retention))
        };
        let directory = {
            let (running, turns, facts, load) = (running.clone(), turns.clone(), facts.clone(), load.clone());
            Directory::start_in_arbiter(&arbiter.handle(), |_| {
                let directory = Directory::new(recipients, clock, turns).importing(series);
                directory.counting(running).showing(load).telling(facts)
            })
        };
        let recipients = SweeperRecipients {
            tick: store.clone().recipient(),
            stale: store.clone().recipient(),
            abandon: directory.clone().recipient(),
        };
        let sweeper = Sweeper::start_in_arbiter(&arbiter.handle(), |_| {
            Sweeper::new(recipients, running, Arc::new(SystemStopwatch::default()), turns)
        });
        let handles = Handles {
            intake: Intake {
                observe: directory.clone().recipient(),
                import: directory.clone().recipient(),
                erase: directory.clone().recipient(),
                take_erased_sums: store.clone().recipient(),
                max_steps,
                load,
            },
            reads: Reads {
                list_turns: store.clone().recipient(),
                list_open_turns: store.clone().recipient(),
                find_revision: store.clone().recipient(),
                list_sealed: store.clone().recipient(),
                begin_export: store.clone().recipient(),
                list_erased_sums: store.clone().recipient(),
                list_conversations: store.clone().recipient(),
                build_report: store.clone().recipient(),
                reader: Some(reader),
            },
            operations: Operations {
                facts,
                check_write: store.clone().recipient(),
                back_up: store.clone().recipient(),
                scrub: store.clone().recipient(),
                count_work: directory.clone().recipient(),
                inspect_conversation: directory.clone().recipient(),
                inspect_store: store.clone().recipient(),
                inspect_sweeper: sweeper.clone().recipient(),
                inspect_retention: retention.recipient(),
            },
        };
        Ok(Self { arbiter, directory, sweeper, store, handles, health })
    }
}
