//! Streams of the whole application. The system runs on the test's thread, so that time can be paused.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::future::{pending, poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use actix_web::web::{Bytes, Data};
use proptest::prelude::*;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::hub::{Hub, Taken};
use super::ring::RingLimits;
use crate::actors::{Directory, Erase, Facts, ListOpenTurns, ListSealed, Load, Observe};
use crate::http::Api;
use crate::http::error::ApiError;
use crate::http::stand_in::{StandIn, counting_pauses, get};
use crate::runtime::{Handles, Intake, Operations, Reads};
use crate::settings::{HttpSettings, TurnSettings};
use crate::store::{Fault, FaultKind, Lineage, Position, StagedTurn};
use crate::testing::{MemoryStore, Probe, TestClock, TurnScript};
use crate::turn::{ConversationId, OpenTurn, Progress, RunningTime, StepId, StepTimes, TurnId};

/// A system whose parts all run on this thread, and one worker of a server.
struct Worker {
    store: MemoryStore,
    directory: Addr<Directory>,
    lists: Probe<ListSealed>,
    /// Whether reads of sealed turns fail.
    fails: Rc<Cell<bool>>,
    open_reads: OpenReads,
    api: Data<Api>,
    hub: Data<Hub>,
}

/// The reads of open turns.
#[derive(Clone, Default)]
struct OpenReads {
    /// How many are going on.
    current: Rc<Cell<usize>>,
    /// How many went on at the same time at most.
    most: Rc<Cell<usize>>,
}

impl OpenReads {
    /// Returns a reader of this store that takes its time.
    fn of(&self, store: &MemoryStore) -> Probe<ListOpenTurns> {
        let (reads, store) = (self.clone(), store.clone());
        Probe::start(move |list: ListOpenTurns| {
            let (reads, store) = (reads.clone(), store.clone());
            reads.current.set(reads.current.get() + 1);
            reads.most.set(reads.most.get().max(reads.current.get()));
            async move {
                let open = store.open_turns(&list.conversation_id);
                tokio::time::sleep(Duration::from_micros(10)).await;
                reads.current.set(reads.current.get() - 1);
                Ok(open)
            }
        })
    }
}

impl Worker {
    fn start() -> Self {
        Self::with(HttpSettings::default(), RingLimits::default())
    }

    /// Pauses the time.
    fn with(settings: HttpSettings, limits: RingLimits) -> Self {
        tokio::time::pause();
        let store = MemoryStore::default();
        let fails = Rc::new(Cell::new(false));
        let (reading, failing) = (store.clone(), Rc::clone(&fails));
        let lists = Probe::<ListSealed>::start(move |list| {
            let failed = || Fault::new(FaultKind::Disk, "the disk failed").into();
            ready(if failing.get() { Err(failed()) } else { reading.sealed_turns(list.after, list.limit) })
        });
        let open_reads = OpenReads::default();
        let facts = Facts::new(1);
        let directory = Directory::new(store.recipients(), Arc::new(TestClock::at(0)), TurnSettings::default())
            .telling(facts.clone())
            .start();
        let handles = Handles {
            intake: Intake {
                observe: directory.clone().recipient(),
                import: directory.clone().recipient(),
                erase: directory.clone().recipient(),
                take_erased_sums: Probe::start(|_| pending()).recipient(),
                max_steps: 4096,
                load: Load::new(1),
            },
            reads: Reads {
                list_turns: store.lists().recipient(),
                list_open_turns: open_reads.of(&store).recipient(),
                find_revision: store.revisions().recipient(),
                list_sealed: lists.recipient(),
                begin_export: Probe::start(|_| pending()).recipient(),
                list_erased_sums: Probe::start(|_| pending()).recipient(),
                list_conversations: store.conversation_lists().recipient(),
                build_report: store.reports().recipient(),
                reader: None,
            },
            operations: Operations {
                facts,
                check_write: Probe::start(|_| pending()).recipient(),
                back_up: Probe::start(|_| pending()).recipient(),
                count_work: directory.clone().recipient(),
                inspect_conversation: directory.clone().recipient(),
                inspect_store: Probe::start(|_| pending()).recipient(),
                scrub: Probe::start(|_| pending()).recipient(),
                inspect_sweeper: Probe::start(|_| pending()).recipient(),
                inspect_retention: Probe::start(|_| pending()).recipient(),
            },
        };
        let api = Data::new(Api::new(handles, settings));
        Self { store, directory, lists, fails, open_reads, api, hub: Data::new(Hub::with_limits(limits)) }
    }

    async fn observe(&self, script: TurnScript) {
        send(self.directory.clone(), script.observe()).await;
    }

    async fn seal(&self, conversation: &str, turn: &str) {
        self.observe(TurnScript::new(conversation, turn).done("stop")).await;
    }

    async fn try_open(&self, request: TestRequest) -> Result<Stream, ApiError> {
        let response = super::get(self.api.clone(), self.hub.clone(), request.to_http_request()).await?;
        assert_eq!(response.status(), StatusCode::OK);
        for (name, value) in
            [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
        {
            assert_eq!(response.headers().get(name).unwrap(), value);
        }
        Ok(Stream { body: Box::pin(response.into_body()), text: String::new() })
    }

    async fn open(&self, query: &str) -> Stream {
        self.try_open(TestRequest::get().uri(&format!("/feed?{query}"))).await.unwrap()
    }

    /// Begins a stream and takes its beginning, which has no event.
    async fn begin(&self, query: &str) -> Stream {
        let mut stream = self.open(query).await;
        assert_eq!(stream.block().await.unwrap().split('\n').next(), Some("retry: 1000"));
        stream
    }

    async fn erase(&self, conversation: &str) {
        let conversation_id = ConversationId::new(conversation).unwrap();
        assert_eq!(self.directory.send(Erase { conversation_id }).await.unwrap(), Ok(true));
    }

    fn latest(&self) -> Position {
        self.store.sealed_turns(None, 0).unwrap().latest
    }

    fn at(&self, number: u64) -> Position {
        Position { number, ..self.latest() }
    }
}

async fn send(directory: Addr<Directory>, observe: Observe) {
    directory.send(observe).await.unwrap().unwrap();
}

/// The answer of a request, read block by block.
struct Stream {
    body: Pin<Box<BoxBody>>,
    text: String,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    name: String,
    id: Option<String>,
    data: serde_json::Value,
}

impl Stream {
    async fn bytes(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.body.as_mut().poll_next(cx)).await.map(|bytes| bytes.ok().unwrap())
    }

    /// Returns the next block of lines. `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                let mut block = std::mem::replace(&mut self.text, rest);
                block.truncate(end);
                return Some(block);
            }
            let Some(bytes) = self.bytes().await else {
                assert_eq!(self.text, "", "the stream ended within an event");
                return None;
            };
            self.text += std::str::from_utf8(&bytes).unwrap();
        }
    }

    /// Returns the next event, and passes over blocks that have none.
    async fn event(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.split('\n').find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let Some(data) = field("data: ") {
                let (name, id) = (field("event: ").unwrap(), field("id: "));
                return Some(Event { name, id, data: serde_json::from_str(&data).unwrap() });
            }
        }
    }

    /// Returns the position of the next event, which must be that of a sealed turn.
    async fn sealed(&mut self) -> Position {
        let event = self.event().await.unwrap();
        assert_eq!(event.name, "turn-sealed");
        assert_eq!(event.data["position"], *event.id.as_ref().unwrap());
        event.id.unwrap().parse().unwrap()
    }

    /// Returns the events that come within this time.
    async fn within(&mut self, time: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        let end = Instant::now() + time;
        while let Ok(Some(event)) = tokio::time::timeout_at(end, self.event()).await {
            events.push(event);
        }
        events
    }
}

#[actix_web::test]
async fn a_stream_begins_now_or_after_a_position() {
    let worker = Worker::start();
    for turn in ["one", "two"] {
        worker.seal("c", turn).await;
    }
    let mut now = worker.open("").await;
    assert_eq!(now.block().await.unwrap(), format!("retry: 1000\nid: {}", worker.at(2)));
    let mut later = worker.open(&format!("after={}", worker.at(1))).await;
    assert_eq!(later.block().await.unwrap(), format!("retry: 1000\nid: {}", worker.at(1)));
    worker.seal("d", "three").await;
    let event = now.event().await.unwrap();
    assert_eq!((event.name.as_str(), event.id), ("turn-sealed", Some(worker.at(3).to_string())));
    assert_eq!(event.data["conversationId"], "d");
    assert_eq!(event.data["metrics"]["turnId"], "three");
    let list = get(&worker.api, &format!("/turns?after={}", worker.at(2))).await;
    let list: serde_json::Value = serde_json::from_str(list.success()).unwrap();
    assert_eq!(event.data, list["turns"][0], "`GET /turns` has the same line");
    assert_eq!(later.sealed().await.number, 2);
    assert_eq!(later.sealed().await.number, 3);
}

#[actix_web::test]
async fn a_browser_that_connects_again_continues_after_its_last_event_and_not_where_it_began() {
    let worker = Worker::start();
    for turn in ["one", "two", "three"] {
        worker.seal("c", turn).await;
    }
    let again = || TestRequest::get().uri(&format!("/feed?after={}", worker.at(0)));
    let mut stream = worker.try_open(again().insert_header(("last-event-id", worker.at(2).to_string()))).await.unwrap();
    assert_eq!(stream.sealed().await.number, 3);
    // A browser without a last event sends an empty header or none.
    let mut stream = worker.try_open(again().insert_header(("last-event-id", ""))).await.unwrap();
    assert_eq!(stream.sealed().await.number, 1);
}

#[actix_web::test]
async fn a_position_that_the_store_has_not_given_is_answered_by_a_reset_and_the_stream_goes_on_from_now() {
    let worker = Worker::start();
    worker.seal("c", "one").await;
    let other = Position { lineage: Lineage(Uuid::nil()), number: 1 };
    let requests = [
        TestRequest::get().uri(&format!("/feed?after={other}")),
        TestRequest::get().uri("/feed").insert_header(("last-event-id", other.to_string())),
        TestRequest::get().uri("/feed").insert_header(("last-event-id", worker.at(2).to_string())),
        TestRequest::get().uri("/feed").insert_header(("last-event-id", "17")),
    ];
    let mut streams = Vec::new();
    for request in requests {
        let mut stream = worker.try_open(request).await.unwrap();
        let reset = stream.event().await.unwrap();
        assert_eq!((reset.name.as_str(), reset.id), ("reset", Some(worker.at(1).to_string())));
        assert_eq!(reset.data["position"], worker.at(1).to_string());
        streams.push(stream);
    }
    worker.seal("c", "two").await;
    for mut stream in streams {
        assert_eq!(stream.sealed().await.number, 2);
    }
}

fn erased(conversation: &str) -> Event {
    let data = serde_json::json!({ "conversationId": conversation });
    Event { name: "erased".into(), id: None, data }
}

#[actix_web::test]
async fn an_erasure_is_told_to_the_readers_of_the_conversation_and_of_all() {
    let worker = Worker::start();
    let [mut all, mut one, mut other] =
        [worker.begin("").await, worker.begin("conversation=c").await, worker.begin("conversation=d").await];
    worker.seal("c", "one").await;
    for stream in [&mut all, &mut one] {
        assert_eq!(stream.sealed().await.number, 1);
    }
    worker.erase("c").await;
    worker.seal("c", "one").await;
    worker.seal("d", "one").await;
    for (stream, positions) in [(&mut all, vec![2, 3]), (&mut one, vec![2])] {
        assert_eq!(stream.event().await.unwrap(), erased("c"));
        for position in positions {
            assert_eq!(stream.sealed().await.number, position, "a turn of the new life");
        }
    }
    assert_eq!(other.sealed().await.number, 3);
    let mut again = worker.begin(&format!("after={}", worker.at(0))).await;
    assert_eq!(again.sealed().await.number, 2, "an erasure is not told again");
}

#[actix_web::test]
async fn a_reader_gets_no_turn_of_an_erased_conversation_that_still_waits_for_it() {
    let worker = Worker::start();
    let [mut quick, mut slow] = [worker.begin("").await, worker.begin("").await];
    for (conversation, turn) in [("c", "one"), ("d", "one"), ("c", "two")] {
        worker.seal(conversation, turn).await;
    }
    for number in 1..=3 {
        assert_eq!(quick.sealed().await.number, number);
    }
    worker.erase("c").await;
    assert_eq!(quick.event().await.unwrap(), erased("c"));
    assert_eq!(slow.sealed().await.number, 2);
    assert_eq!(slow.event().await.unwrap(), erased("c"));
    worker.seal("d", "two").await;
    assert_eq!(slow.sealed().await.number, 4);
}

#[actix_web::test]
async fn a_reader_that_catches_up_gets_an_erasure_before_the_turns_that_come_after_it() {
    let worker = Worker::start();
    worker.seal("c", "one").await;
    worker.seal("d", "one").await;
    let [mut quick, mut slow] = [worker.begin("").await, worker.begin(&format!("after={}", worker.at(0))).await];
    worker.erase("c").await;
    worker.seal("c", "one").await;
    assert_eq!(quick.event().await.unwrap(), erased("c"));
    assert_eq!(quick.sealed().await.number, 3);
    assert_eq!(slow.sealed().await.number, 2);
    assert_eq!(slow.event().await.unwrap(), erased("c"));
    assert_eq!(slow.sealed().await.number, 3, "a turn of the new life");
}

#[actix_web::test]
async fn a_reader_that_has_missed_an_erasure_is_told_to_read_anew() {
    let worker = Worker::with(HttpSettings::default(), RingLimits { lines: 3, ..RingLimits::default() });
    for query in ["", "conversation=c"] {
        let [mut quick, mut slow] = [worker.begin("").await, worker.begin(query).await];
        worker.seal("c", "one").await;
        let first = quick.sealed().await;
        assert_eq!(slow.sealed().await, first);
        worker.erase("c").await;
        assert_eq!(quick.event().await.unwrap(), erased("c"));
        let mut last = first;
        for turn in 0..4 {
            worker.seal("c", &format!("{query}{turn}")).await;
            last = quick.sealed().await;
        }
        let reset = slow.event().await.unwrap();
        assert_eq!((reset.name.as_str(), reset.id), ("reset", Some(first.to_string())), "{query}");
        for number in first.number + 1..=last.number {
            assert_eq!(slow.sealed().await.number, number);
        }
        worker.erase("c").await;
    }
}

#[actix_web::test]
async fn a_request_that_makes_no_sense_is_refused() {
    let worker = Worker::start();
    for (query, told) in [
        ("after=17", "`after` must be the position"),
        ("conversation=", "`conversation` must be the id"),
        ("limit=1", "`limit` is no query parameter here: there are after, conversation"),
    ] {
        let refused = worker.try_open(TestRequest::get().uri(&format!("/feed?{query}"))).await.err().unwrap();
        assert!(refused.to_string().contains(told), "{query}: {refused}");
    }
    worker.fails.set(true);
    let refused = worker.try_open(TestRequest::get().uri("/feed")).await.err().unwrap();
    assert!(matches!(refused, ApiError::ReadFailed));
}

#[actix_web::test]
async fn a_reader_of_one_conversation_gets_its_events_only_and_begins_with_all_its_open_turns() {
    let worker = Worker::start();
    worker.observe(TurnScript::new("c", "a").start_with("m")).await;
    worker.observe(TurnScript::new("c", "b").start().usage(0, 10, 1)).await;
    worker.observe(TurnScript::new("d", "a").start()).await;
    let mut stream = worker.begin("conversation=c").await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(stream.event().await.unwrap());
    }
    let shown: Vec<_> = open.iter().map(|event| (&*event.name, &event.id, &event.data["turnId"])).collect();
    assert_eq!(shown, [("turn-open", &None, &"a".into()), ("turn-open", &None, &"b".into())]);
    assert_eq!(open[0].data["model"], "m");
    assert_eq!(open[1].data["usage"]["inputTokens"], 10);
    assert_eq!(open[0].data["conversationId"], "c");

    worker.seal("d", "a").await;
    worker.observe(TurnScript::new("d", "b").start()).await;
    worker.seal("c", "a").await;
    assert_eq!(stream.sealed().await.number, 2);
    assert_eq!(stream.within(Duration::from_secs(14)).await, []);
}

#[actix_web::test]
async fn an_open_turn_is_shown_when_it_changes_and_at_most_once_a_second() {
    let worker = Worker::start();
    let mut all = worker.begin("").await;
    let mut one = worker.begin("conversation=c").await;
    // Nothing is open when the stream begins.
    assert_eq!(one.within(Duration::from_millis(1)).await, []);
    worker.observe(TurnScript::new("c", "quiet").start()).await;
    let started = Instant::now();
    // The turn changes every 100 ms for five seconds.
    for tokens in 1..=50 {
        worker.observe(TurnScript::new("c", "busy").usage(0, tokens, 1)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(started.elapsed().as_secs(), 5);
    for stream in [&mut all, &mut one] {
        let events = stream.within(Duration::from_secs(14)).await;
        let of = |turn: &str| events.iter().filter(|event| event.data["turnId"] == *turn).cloned().collect::<Vec<_>>();
        assert_eq!(of("quiet").len(), 1);
        let busy = of("busy");
        assert!((5..=6).contains(&busy.len()), "{busy:?}");
        let tokens: Vec<_> = busy.iter().map(|event| event.data["usage"]["inputTokens"].as_u64().unwrap()).collect();
        assert!(tokens.is_sorted() && tokens.last() == Some(&50), "{tokens:?}");
        assert!(events.iter().all(|event| event.name == "turn-open" && event.id.is_none()));
    }
    worker.seal("c", "busy").await;
    for stream in [&mut all, &mut one] {
        assert_eq!(stream.within(Duration::from_secs(14)).await.len(), 1, "after it is sealed it is not open");
    }
}

#[actix_web::test]
async fn an_open_turn_is_not_shown_after_it_was_sealed_also_if_the_reader_was_ahead_of_the_hub() {
    let worker = Worker::start();
    // The hub runs for this reader, and has come as far as the first turn.
    let mut live = worker.begin("").await;
    worker.seal("c", "first").await;
    assert_eq!(live.sealed().await.number, 1);
    let mut readers = Vec::new();
    for query in [format!("after={}", worker.at(0)), format!("after={}&conversation=c", worker.at(0))] {
        readers.push(worker.open(&query).await);
    }
    // The hub shows two open turns. One of them is sealed before the readers take anything.
    worker.observe(TurnScript::new("c", "short").start()).await;
    worker.observe(TurnScript::new("c", "long").start()).await;
    assert_eq!(live.within(Duration::from_secs(2)).await.len(), 2);
    worker.seal("c", "short").await;
    for mut reader in readers {
        let events = reader.within(Duration::from_secs(5)).await;
        let shown: Vec<_> = events
            .iter()
            .map(|event| match event.data.pointer("/metrics/turnId") {
                Some(turn) => format!("sealed {}", turn.as_str().unwrap()),
                None => format!("open {}", event.data["turnId"].as_str().unwrap()),
            })
            .collect();
        let place = |text: &str| shown.iter().rposition(|shown| shown == text);
        assert!(place("sealed short").is_some() && place("open short") < place("sealed short"), "{shown:?}");
        assert!(place("open long").is_some(), "the change of a turn that is still open was lost: {shown:?}");
        assert_eq!(shown.iter().filter(|shown| *shown == "sealed short").count(), 1, "{shown:?}");
    }
}

#[actix_web::test]
async fn the_hubs_of_all_workers_read_the_open_turns_of_one_conversation_at_a_time() {
    let worker = Worker::start();
    let other = Data::new(Hub::with_limits(RingLimits::default()));
    let mut streams = [worker.begin("").await, worker.begin("").await];
    let request = TestRequest::get().uri("/feed").to_http_request();
    let response = super::get(worker.api.clone(), other, request).await.unwrap();
    streams[1] = Stream { body: Box::pin(response.into_body()), text: String::new() };
    for n in 0..40 {
        worker.observe(TurnScript::new(&format!("c{n}"), "t").start()).await;
    }
    for stream in &mut streams {
        assert_eq!(stream.within(Duration::from_secs(3)).await.len(), 40);
    }
    assert_eq!(worker.open_reads.most.get(), 1);
}

#[actix_web::test]
async fn other_requests_may_run_between_the_open_turns_that_a_hub_shows() {
    let turn = |nth: usize| {
        let mut turn = OpenTurn::new(TurnId::new(format!("t{nth}")).unwrap());
        for step in 0..500 {
            let step_id = StepId::new(format!("{step:0>200}")).unwrap();
            turn.fold(&Progress::StepComplete { step_id, times: StepTimes::default(), model: None, provider: None });
        }
        StagedTurn { turn, last_event_at: RunningTime::new(0) }
    };
    let open: Vec<_> = (1..=9).map(turn).collect();
    let api = StandIn::default().serving();
    let hub = Hub::with_limits(RingLimits::default());
    let _seat = hub.enter(&api, None, Position { lineage: Lineage(Uuid::nil()), number: 0 }, None);
    let conversation_id = ConversationId::new("c").unwrap();
    let ((), pauses) = counting_pauses(hub.push_open(&conversation_id, open.iter())).await;
    assert_eq!(pauses, 9, "a pause after each long turn");
}

#[actix_web::test]
async fn a_reader_that_waits_for_the_budget_gets_comments_and_ends_in_time() {
    let settings =
        HttpSettings { max_read_bytes: 300 * 1024, feed_timeout: Duration::from_secs(40), ..HttpSettings::default() };
    let worker = Worker::with(settings, RingLimits::default());
    let mut script = TurnScript::new("c", "long");
    for step in 0..3000 {
        script = script.usage(step, 10, 1);
    }
    worker.observe(script).await;
    let _share = worker.api.reads.try_hold(200 * 1024).unwrap();
    // There is no room for the open turn of the first reader, for the line of the second one, and for the page of the
    // third one.
    let mut readers = vec![worker.begin("conversation=c").await, worker.begin("").await];
    worker.seal("c", "long").await;
    readers.push(worker.begin(&format!("after={}", worker.at(0))).await);
    let started = Instant::now();
    let reads = readers.iter_mut().map(|reader| async {
        let mut comments = Vec::new();
        while let Some(block) = reader.block().await {
            assert!(block.starts_with(": nothing new\n"), "{block}");
            comments.push(started.elapsed().as_secs());
        }
        (comments, started.elapsed().as_secs())
    });
    for (comments, ended_after) in futures_util::future::join_all(reads).await {
        assert_eq!((comments, ended_after), (vec![15, 30], 40));
    }
}

#[actix_web::test]
async fn a_comment_comes_each_fifteen_seconds_and_tells_how_far_the_reader_has_come() {
    let worker = Worker::start();
    let mut stream = worker.begin("conversation=quiet").await;
    for turn in ["one", "two", "three"] {
        worker.seal("busy", turn).await;
    }
    let started = Instant::now();
    for n in 1..=3 {
        assert_eq!(stream.block().await.unwrap(), format!(": nothing new\nid: {}", worker.at(3)));
        assert_eq!(started.elapsed().as_secs(), 15 * n);
    }
    // A client that continues from there reads no turn of the other conversation again.
    let mut again = worker.begin(&format!("conversation=quiet&after={}", worker.at(3))).await;
    let before = worker.lists.seen().len();
    worker.seal("quiet", "four").await;
    assert_eq!(again.sealed().await.number, 4);
    assert_eq!(stream.sealed().await.number, 4);
    assert!(worker.lists.seen()[before..].iter().all(|list| list.after.unwrap().number >= 3));
}

#[actix_web::test]
async fn a_stream_ends_after_its_time_and_at_once_when_all_are_to_end() {
    let worker = Worker::start();
    let mut stream = worker.begin("").await;
    let started = Instant::now();
    while stream.block().await.is_some() {}
    assert_eq!(started.elapsed().as_secs(), 3600);

    let (mut one, mut other) = (worker.begin("").await, worker.begin("conversation=c").await);
    let started = Instant::now();
    let end = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        worker.api.end_feeds();
    };
    let (one, other, ()) = tokio::join!(one.block(), other.block(), end);
    assert_eq!((one, other, started.elapsed().as_secs()), (None, None, 1));
    let mut late = worker.begin("").await;
    assert_eq!((late.block().await, started.elapsed().as_secs()), (None, 1));
}

#[actix_web::test]
async fn readers_beyond_the_limit_are_refused_until_one_leaves() {
    let worker = Worker::with(HttpSettings { max_feed_readers: 2, ..HttpSettings::default() }, RingLimits::default());
    let (_one, other) = (worker.begin("").await, worker.begin("").await);
    let refused = worker.try_open(TestRequest::get().uri("/feed")).await.err().unwrap();
    assert_eq!(refused.to_string(), "too many others read the feed (`http.max_feed_readers`): ask again later");
    drop(other);
    worker.begin("").await;
}

#[actix_web::test]
async fn a_turn_is_written_once_for_all_readers_and_read_only_while_there_are_some() {
    let worker = Worker::start();
    let mut streams = Vec::new();
    for query in ["", "", "conversation=c", "conversation=d"] {
        streams.push(worker.begin(query).await);
    }
    let idle = streams.pop().unwrap();
    worker.seal("c", "t").await;
    let mut texts = Vec::new();
    for stream in &mut streams {
        texts.push(stream.bytes().await.unwrap());
    }
    assert!(texts.iter().all(|text| text.as_ptr() == texts[0].as_ptr()), "it was written more than once");
    drop((streams, idle));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let reads = worker.lists.seen().len();
    worker.seal("c", "u").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(worker.lists.seen().len(), reads, "the store is read for nobody");
    // The next reader begins where the store is by then.
    let mut stream = worker.begin("").await;
    worker.seal("c", "v").await;
    assert_eq!(stream.sealed().await.number, 3);
}

#[actix_web::test]
async fn the_end_of_a_task_without_readers_does_not_end_the_streams_of_those_who_come_after_it() {
    let worker = Worker::start();
    let seat = worker.hub.enter(&worker.api, None, worker.latest(), None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(seat);
    // The task of the first reader has not ended yet.
    let seat = worker.hub.enter(&worker.api, None, worker.latest(), None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!seat.has_ended());
    worker.seal("c", "t").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(seat.take(0), Taken::Line(_)));
}

#[actix_web::test]
async fn a_slow_reader_is_read_from_the_store_and_gets_the_open_turns_of_its_conversation_again() {
    let limits = RingLimits { lines: 4, waiting: 4, ..RingLimits::default() };
    let worker = Worker::with(HttpSettings::default(), limits);
    let (mut all, mut one) = (worker.begin("").await, worker.begin("conversation=c").await);
    worker.observe(TurnScript::new("c", "open").start()).await;
    for n in 0..300 {
        worker.seal(if n % 3 == 0 { "c" } else { "d" }, &format!("t{n}")).await;
    }
    for number in 1..=300 {
        let event = loop {
            let event = all.event().await.unwrap();
            if event.name == "turn-sealed" {
                break event;
            }
        };
        assert_eq!(event.id, Some(worker.at(number).to_string()));
    }
    let mut positions = Vec::new();
    let mut open = 0;
    for event in one.within(Duration::from_secs(14)).await {
        match event.id {
            Some(id) => positions.push(id.parse::<Position>().unwrap().number),
            None => open += 1,
        }
    }
    assert_eq!(positions, (1..=300).step_by(3).collect::<Vec<u64>>());
    assert!(open >= 1, "the open turn was not shown");
}

#[actix_web::test]
async fn while_the_store_cannot_be_read_streams_stay_and_then_go_on_without_a_gap() {
    let worker = Worker::with(HttpSettings::default(), RingLimits { lines: 4, waiting: 4, ..RingLimits::default() });
    worker.seal("c", "t0").await;
    let mut live = worker.begin("").await;
    let mut behind = worker.open(&format!("after={}", worker.at(0))).await;
    worker.fails.set(true);
    for n in 1..=5 {
        worker.seal("c", &format!("t{n}")).await;
    }
    assert_eq!(behind.within(Duration::from_mins(1)).await, []);
    assert_eq!(live.within(Duration::from_mins(1)).await, []);
    worker.fails.set(false);
    for number in 1..=6 {
        assert_eq!(behind.sealed().await.number, number);
    }
    for number in 2..=6 {
        assert_eq!(live.sealed().await.number, number);
    }
}

#[actix_web::test]
async fn a_turn_longer_than_a_part_comes_whole_also_if_the_budget_for_answers_is_used_up() {
    let settings = HttpSettings { max_read_bytes: 300 * 1024, ..HttpSettings::default() };
    let worker = Worker::with(settings, RingLimits::default());
    let (mut live, mut open) = (worker.begin("").await, worker.begin("conversation=c").await);
    // A turn of 3000 steps has more than 64 KiB.
    let mut script = TurnScript::new("c", "long");
    for step in 0..3000 {
        script = script.usage(step, 10, 1);
    }
    worker.observe(script).await;
    let steps = |event: &Event, of: &str| event.data.pointer(of).unwrap().as_array().unwrap().len();
    let shown: Vec<_> = open.within(Duration::from_secs(2)).await.iter().map(|event| steps(event, "/steps")).collect();
    assert!(!shown.is_empty() && shown.iter().all(|steps| *steps == 3000), "{shown:?}");
    let share = worker.api.reads.try_hold(200 * 1024).unwrap();
    worker.seal("c", "long").await;
    let mut replayed = worker.begin(&format!("after={}", worker.at(0))).await;
    assert!(replayed.within(Duration::from_secs(5)).await.is_empty(), "there is no room");
    drop(share);
    // A stream returns its share when it is polled next, or ends.
    for mut stream in [replayed, open] {
        assert_eq!(steps(&stream.event().await.unwrap(), "/metrics/steps"), 3000);
    }
    let names: Vec<_> = live.within(Duration::from_secs(5)).await.into_iter().map(|event| event.name).collect();
    assert_eq!(names.last().map(String::as_str), Some("turn-sealed"));
}

/// What happens at a worker. Meanwhile, turns are sealed by other tasks.
#[derive(Debug, Clone)]
enum Step {
    Seal(u8),
    /// An open turn changes.
    Change,
    /// The turn that has changed is sealed.
    SealChanged,
    Begin {
        conversation: Option<u8>,
        from_start: bool,
    },
    /// A reader takes events, unless none comes within a moment.
    Take {
        reader: usize,
        events: u8,
    },
    /// A client goes and connects again.
    Resume {
        reader: usize,
    },
    Fail(bool),
    Pause(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let conversation = prop_oneof![Just(None), (0..3_u8).prop_map(Some)];
    let step = prop_oneof![
        5 => (1..25_u8).prop_map(Step::Seal),
        2 => Just(Step::Change),
        1 => Just(Step::SealChanged),
        2 => (conversation, any::<bool>()).prop_map(|(conversation, from_start)| Step::Begin { conversation, from_start }),
        5 => (any::<usize>(), 1..60_u8).prop_map(|(reader, events)| Step::Take { reader, events }),
        2 => any::<usize>().prop_map(|reader| Step::Resume { reader }),
        1 => any::<bool>().prop_map(Step::Fail),
        3 => (1..40_u8).prop_map(Step::Pause),
    ];
    proptest::collection::vec(step, 1..50)
}

/// A client, which continues after its last id as a browser does.
struct Client {
    stream: Stream,
    conversation: Option<String>,
    begun_after: u64,
    last_id: String,
    taken: Vec<u64>,
    /// The ids of the turns that came sealed.
    sealed: HashSet<String>,
}

impl Client {
    async fn connect(worker: &Worker, conversation: Option<&str>, last_id: &str) -> Stream {
        let query = conversation.map(|id| format!("&conversation={id}")).unwrap_or_default();
        worker.open(&format!("after={last_id}{query}")).await
    }

    async fn take(&mut self) -> bool {
        // Any block may have an id, also one without an event.
        let Ok(block) = timeout(Duration::from_millis(10), self.stream.block()).await else { return false };
        let block = block.unwrap();
        if let Some(id) = block.split('\n').find_map(|line| line.strip_prefix("id: ")) {
            self.last_id = id.to_owned();
        }
        let data = block.split('\n').find_map(|line| line.strip_prefix("data: ")).unwrap_or("null");
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        if block.contains("event: turn-sealed") {
            self.taken.push(self.last_id.parse::<Position>().unwrap().number);
            self.sealed.insert(data["metrics"]["turnId"].as_str().unwrap().to_owned());
        }
        if block.contains("event: turn-open") {
            let turn = data["turnId"].as_str().unwrap();
            assert!(!self.sealed.contains(turn), "{turn} is shown as open after it was sealed");
        }
        assert!(!block.contains("event: reset"));
        true
    }
}

async fn serve(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let limits = RingLimits { lines: 12, bytes: 3000, waiting: 5 };
    let worker = Rc::new(Worker::with(HttpSettings::default(), limits));
    let mut clients: Vec<Client> = Vec::new();
    let (mut sealed, mut changes, mut opened, mut sealing) = (0_u32, 0, 0, Vec::new());
    for step in steps {
        let count = clients.len().max(1);
        match step {
            Step::Seal(turns) => {
                for _ in 0..turns {
                    sealed += 1;
                    let script = TurnScript::new(&format!("c{}", sealed % 3), &format!("t{sealed}")).done("stop");
                    sealing.push(actix_web::rt::spawn(send(worker.directory.clone(), script.observe())));
                }
            }
            Step::Change => {
                changes += 1;
                worker.observe(TurnScript::new("c0", &format!("open{opened}")).usage(0, changes, 1)).await;
            }
            Step::SealChanged => {
                worker.seal("c0", &format!("open{opened}")).await;
                opened += 1;
            }
            Step::Begin { .. } | Step::Resume { .. } if worker.fails.get() => {}
            Step::Begin { conversation, from_start } => {
                let conversation = conversation.map(|n| format!("c{n}"));
                let begun_after = if from_start { 0 } else { worker.latest().number };
                let last_id = worker.at(begun_after).to_string();
                let stream = Client::connect(&worker, conversation.as_deref(), &last_id).await;
                let (taken, sealed) = (Vec::new(), HashSet::new());
                clients.push(Client { stream, conversation, begun_after, last_id, taken, sealed });
            }
            Step::Take { reader, events } => {
                if let Some(client) = clients.get_mut(reader % count) {
                    for _ in 0..events {
                        if !client.take().await {
                            break;
                        }
                    }
                }
            }
            Step::Resume { reader } => {
                if let Some(client) = clients.get_mut(reader % count) {
                    client.stream = Client::connect(&worker, client.conversation.as_deref(), &client.last_id).await;
                }
            }
            Step::Fail(fails) => worker.fails.set(fails),
            Step::Pause(times) => {
                for _ in 0..times {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    worker.fails.set(false);
    for task in sealing {
        task.await.unwrap();
    }
    let mut conversations = BTreeMap::new();
    let mut after = None;
    loop {
        let page = worker.store.sealed_turns(after, 1000).unwrap();
        conversations.extend(page.turns.iter().map(|turn| (turn.position.number, turn.conversation_id.clone())));
        after = Some(page.next);
        if page.next == page.latest {
            break;
        }
    }
    for client in &mut clients {
        let wanted = client.conversation.as_deref().map(|id| ConversationId::new(id).unwrap());
        let is_wanted = |id: &ConversationId| wanted.as_ref().is_none_or(|wanted| wanted == id);
        let all = conversations.iter().filter(|(number, id)| **number > client.begun_after && is_wanted(id));
        let all: Vec<_> = all.map(|(number, _)| *number).collect();
        // A reader that met a failure waits for a second, and heartbeats come after fifteen.
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            client.take().await;
        }
        prop_assert_eq!(&client.taken, &all);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whenever_readers_come_fall_behind_and_come_again_each_gets_each_turn_once_and_in_order(steps in steps()) {
        actix_web::rt::System::new().block_on(serve(steps))?;
    }
}
