//! Durable, ordered, exactly-once metrics of every turn of an LLM agent: tokens and times, step by step.
//!
//! A kernel is the program that runs an agent's turns. It emits events as it does so. The events of a turn are folded
//! into metrics. When the turn is over, its metrics are stored exactly once and in order. What is acknowledged is on
//! the disk.
//!
//! The program `turn-metrics serve` takes events and returns metrics over HTTP. This library is for programs that are
//! built on actix themselves: it runs the same actors inside them, records their turns, and helps to test them.
//!
//! # The system in a program
//!
//! A [`Runtime`](runtime::Runtime) is the whole system: the store, the actors, and their orderly shutdown. Several
//! runtimes may run in one process. A runtime hands out recipients for events and for reads. It publishes every sealed
//! turn to subscribers once the turn is durable.
//!
//! ```
//! use turn_metrics::actors::{Fact, ListTurns};
//! use turn_metrics::recorder::{Outbox, Recorder};
//! use turn_metrics::runtime::Runtime;
//! use turn_metrics::store::TurnRange;
//! use turn_metrics::turn::{ConversationId, TurnId, TurnLabels, Usage};
//!
//! # actix::System::new().block_on(async {
//! # let directory = tempfile::tempdir()?;
//! # let data_dir = directory.path();
//! let runtime = Runtime::builder().data_dir(data_dir).start().await?;
//! let mut subscription = runtime.subscribe();
//!
//! // A recorder measures the turns of an agent's loop and sends their events. The loop never waits for it.
//! let outbox = Outbox::start(runtime.handles().intake.observe.clone(), 10_000);
//! let recorder = Recorder::new(outbox.clone());
//! let mut turn = recorder.start_turn(ConversationId::new("c")?, TurnId::new("t")?, TurnLabels::of_model("some-model"))?;
//! let mut step = turn.start_step();
//! step.token();
//! step.usage(Usage { input_tokens: 900.into(), output_tokens: 120.into(), ..Usage::default() });
//! step.end("stop");
//! turn.end("stop");
//!
//! let Some(Fact::TurnSealed(sealed)) = subscription.next().await else { panic!("no turn was sealed") };
//! assert_eq!(sealed.turn.metrics.usage.output_tokens.get(), 120);
//!
//! let range = TurnRange::after(ConversationId::new("c")?, 0, 100);
//! let turns = runtime.handles().reads.list_turns.send(ListTurns(range)).await??;
//! assert_eq!(turns, [sealed.turn.clone()]);
//!
//! // Send the last events first, and then stop the actors and the store.
//! outbox.flush().await;
//! runtime.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # The resources in an application
//!
//! With the feature `server`, an actix-web application can mount the resources of the service under any scope.
//!
//! ```
//! # #[cfg(feature = "server")]
//! # fn mount(runtime: &turn_metrics::runtime::Runtime) {
//! use actix_web::{App, web};
//! use turn_metrics::http::{self, Api};
//! use turn_metrics::settings::HttpSettings;
//!
//! let api = Api::new(runtime.handles().clone(), HttpSettings::default());
//! let app = App::new().service(web::scope("/observability").configure(http::resources(&api.on_this_thread())));
//! # }
//! ```
//!
//! # A test of an actor
//!
//! With the feature `testing`, a test can use a probe in place of the system, or run the actors on a store in memory.
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # actix::System::new().block_on(async {
//! use turn_metrics::actors::{Observe, Receipt};
//! use turn_metrics::testing::{Probe, TurnScript};
//!
//! let probe = Probe::<Observe>::start(|_| std::future::ready(Ok(Receipt::default())));
//! // The code under test sends its events here.
//! let system = probe.recipient();
//! # system.send(TurnScript::new("c", "t").start().done("stop").observe()).await??;
//! let expected = TurnScript::new("c", "t").start().done("stop").observe();
//! assert_eq!(probe.wait_for(1).await, [expected]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Features
//!
//! | feature | what it adds | dependencies that it adds |
//! |---|---|---|
//! | (none) | [`turn`], [`report`], [`store`], [`actors`], [`runtime`], [`recorder`] | actix, jiff, redb and serde; no server, no command line, no TLS |
//! | `server`, on by default | `http`, `config`, `cli` and the program | actix-web, clap, `span-log` |
//! | `prices`, on by default | `report::price`: what a step costs | genai-prices, toml |
//! | `tui`, on by default | the command `top` | ratatui |
//! | `mimalloc`, on by default | the allocator of the program; programs that use the library choose their own | mimalloc (in C) |
//! | `testing` | `testing`: probe, clock, store in memory, scripts, simulated kernel | nothing |
//! | `span-log` | `span_log`: closed spans as lines of a rotating file | tracing-subscriber |
//! | `otel` | `otel`: the recorder's spans over OTLP | opentelemetry, prost, ureq |
//!
//! If you embed the crate, set `default-features = false` and add the features that you need.
//!
//! # Layout
//!
//! From the bottom up. A module uses only modules that stand before it in this list.
//!
//! - [`turn`]: what a turn is and how its events fold. Pure.
//! - [`report`]: sums, figures and costs of many turns. Pure.
//! - [`clock`], [`settings`]: clocks, and the settings.
//! - `line_queue`, `deceptive`, `readable`, `terminal`: a bounded queue of lines for a slow writer; texts that deceive
//!   their reader; figures as people read them; colours.
//! - `private_file`, then `link`: files that only their owner may read; symbolic links.
//! - [`store`], `config`, `span_log`, `otel`, [`simulate`]: the storage; where settings come from; spans in a file and
//!   over OTLP; a simulated kernel.
//! - [`actors`]: the messages and their handlers.
//! - [`runtime`], [`recorder`], `telemetry`: a running system; the kernel's side of it; the log.
//! - `http`, then `cli`: the service.
//! - `testing`: stand-ins for parts of the system. It has no place in this order, and uses the modules that it
//!   replaces.

pub mod actors;
#[cfg(feature = "server")]
pub mod cli;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "span-log")]
mod deceptive;
#[cfg(feature = "server")]
pub mod http;
mod line_queue;
mod link;
#[cfg(feature = "otel")]
pub mod otel;
mod private_file;
#[cfg(feature = "server")]
mod readable;
pub mod recorder;
pub mod report;
pub mod runtime;
pub mod settings;
pub mod simulate;
#[cfg(feature = "span-log")]
pub mod span_log;
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
mod terminal;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod turn;
