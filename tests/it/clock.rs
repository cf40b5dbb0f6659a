//! The wall clock jumps forwards and backwards. The real HTTP server runs on a store on disk.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use serde_json::Value;
use turn_metrics::clock::Clock;
use turn_metrics::http::{Api, serve};
use turn_metrics::runtime::Runtime;
use turn_metrics::settings::{HttpSettings, TurnSettings, Workers};
use turn_metrics::turn::EpochMillis;

use crate::server::{Answer, Client, PATIENCE};

const DAY: u64 = 86_400_000;
const NOON: u64 = 1_780_000_000_000;

/// A wall clock that shows what a test sets.
#[derive(Clone)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn at(now: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now)))
    }

    fn set(&self, now: u64) {
        self.0.store(now, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> EpochMillis {
        EpochMillis::new(self.0.load(Ordering::SeqCst))
    }
}

/// The whole service in this process, with this clock.
struct Service {
    runtime: Runtime,
    server: ServerHandle,
    address: SocketAddr,
}

impl Service {
    async fn start(directory: &Path, clock: &SetClock) -> Self {
        let turns = TurnSettings {
            abandon_after: Duration::from_hours(12),
            fail_after: Duration::from_hours(1),
            sweep_every: Duration::from_millis(10),
            ..TurnSettings::default()
        };
        let clock = Arc::new(clock.clone());
        let runtime = Runtime::builder().data_dir(directory).turns(turns).clock(clock).start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let settings = HttpSettings { workers: Workers::Exactly(1), ..HttpSettings::default() };
        let server = serve(listener, Api::new(runtime.handles().clone(), settings)).unwrap();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { runtime, server: handle, address }
    }

    /// Sends a request on another thread, because the client blocks.
    async fn ask(&self, ask: impl FnOnce(&mut Client) -> Answer + Send + 'static) -> Value {
        let mut client = Client::new(self.address);
        let answer = actix_web::rt::task::spawn_blocking(move || ask(&mut client)).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn post(&self, turn: &str, event: &str) -> Value {
        let line = event.replacen('{', &format!(r#"{{"conversationId":"c","turnId":"{turn}","#), 1);
        self.ask(move |client| client.post_events(&line)).await
    }

    async fn turns(&self) -> Vec<Value> {
        let answer = self.ask(|client| client.get("/conversations/c/turns")).await;
        answer["turns"].as_array().unwrap().clone()
    }

    /// Waits until two more sweeps have ended. The second one began after this call.
    async fn sweep(&self) {
        let sweeps = async || self.runtime.handles().operations.report().await.unwrap().sweeper.sweeps;
        let (before, started) = (sweeps().await, Instant::now());
        while sweeps().await < before + 2 {
            assert!(started.elapsed() < PATIENCE, "there are no sweeps");
            tokio::task::yield_now().await;
        }
    }

    async fn stop(self) {
        self.server.stop(true).await;
        self.runtime.shutdown().await;
    }
}

const USAGE: &str = r#"{"type":"usage","stepId":"s","usage":{"inputTokens":10,"outputTokens":5}}"#;
const DONE: &str = r#"{"type":"done","reason":"stop"}"#;
const ERROR: &str = r#"{"type":"error"}"#;

#[actix_web::test]
async fn a_clock_that_jumps_forwards_ends_no_turn_of_an_active_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::at(NOON);
    let service = Service::start(directory.path(), &clock).await;
    service.post("open", USAGE).await;
    service.post("failing", USAGE).await;
    service.post("failing", ERROR).await;
    clock.set(NOON + DAY);
    service.sweep().await;
    // The ages of open turns are kept in the store too.
    service.stop().await;
    let service = Service::start(directory.path(), &clock).await;
    clock.set(NOON + 30 * DAY);
    service.sweep().await;
    assert_eq!(service.turns().await, [Value::Null; 0]);
    for (turn, ordinal) in [("open", 1), ("failing", 2)] {
        let sealed = service.post(turn, DONE).await["sealed"][0].clone();
        assert_eq!((&sealed["ordinal"], &sealed["duplicate"]), (&ordinal.into(), &false.into()), "{sealed}");
    }
    for turn in service.turns().await {
        assert_eq!((&turn["reason"], &turn["sealedAt"]), (&"stop".into(), &(NOON + 30 * DAY).into()), "{turn}");
        assert_eq!(turn["metrics"]["usage"]["inputTokens"], 10, "{turn}");
    }
    service.stop().await;
}

#[actix_web::test]
async fn sealed_at_never_falls_within_a_conversation_even_if_the_clock_goes_back() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SetClock::at(NOON);
    let service = Service::start(directory.path(), &clock).await;
    service.post("1", DONE).await;
    clock.set(NOON - DAY);
    service.post("2", DONE).await;
    // The actor of the conversation has ended, so its state is read from the store again.
    service.stop().await;
    let service = Service::start(directory.path(), &clock).await;
    clock.set(NOON - 2 * DAY);
    service.post("3", DONE).await;
    clock.set(NOON + 1);
    service.post("4", DONE).await;
    let sealed_at: Vec<_> = service.turns().await.iter().map(|turn| turn["sealedAt"].as_u64().unwrap()).collect();
    assert_eq!(sealed_at, [NOON, NOON, NOON, NOON + 1]);
    service.stop().await;
}
