//! A system for tests that answers as the test says, and functions with which tests send requests to the application.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use actix::{Actor, ActorContext, Context, Handler, MessageResult, ResponseFuture};
use actix_http::Request;
use actix_web::body::to_bytes;
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::test::{self, TestRequest};
use actix_web::web::Bytes;
use futures_util::Stream;
use tokio::sync::Notify;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;
use uuid::Uuid;

use super::Api;
use super::access::{PAGES, ROUTES, Route};
use super::middleware::host::Hosts;
use super::transport::server::app;
use crate::actors::{
    BackUp, BeginExport, BuildReport, CheckWrite, Erase, EraseError, Facts, FindRevision, Import, ImportError,
    ImportReceipt, ListConversations, ListErasedSums, ListOpenTurns, ListSealed, ListTurns, Load, Observe,
    ObserveError, Receipt, RetentionReport, StoreReport, SweeperReport, TurnReceipt, WorkCounts,
};
use crate::report::{Breakdown, Grouping, Period, Rollup, Selection};
use crate::runtime::{Handles, Intake, Operations, Reads};
use crate::settings::HttpSettings;
use crate::store::{
    Backup, BackupError, CommitError, DamageReport, ErasedSums, ErasedSumsPage, ExportHold, Fault, FaultKind, Life,
    Lineage, ListSealedError, OpenTurns, Position, PositionedTurn, RangeEnd, Report, ReportError, Revision, SealedPage,
    StagedTurn, TurnRange,
};
use crate::testing::{Probe, Written};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenTurn, Ordinal, StoredTurn, TokenCount, TurnEvent, TurnEventKind, TurnId,
    Warning,
};

/// The behaviour of the system. A test sets it before the system starts.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "a test sets each by itself")]
pub(super) struct StandIn {
    /// The conversations that refuse their events, each with its error.
    pub(super) refusals: HashMap<&'static str, ObserveError>,
    /// Two conversations: the first one does not answer before the second one has received events.
    pub(super) waits_for: Option<(&'static str, &'static str)>,
    /// The sealed turns of every conversation.
    pub(super) turns: Vec<StoredTurn>,
    /// How many turns each page of the order of all turns leaves out because they are damaged.
    pub(super) left_out: u64,
    /// The sums of erased turns.
    pub(super) erased_sums: Vec<ErasedSums>,
    /// Shared with each export that is being sent.
    pub(super) exports: Arc<()>,
    /// The open turns of every conversation.
    pub(super) open: Vec<StagedTurn>,
    /// The number of turns that its revision has, if it differs from the actual number.
    pub(super) revision: Option<u64>,
    /// Whether the revision has the lineage of another store.
    pub(super) another_store: bool,
    /// How many more lives the conversation had before than by default.
    pub(super) earlier_lives: u64,
    /// How many reads work. All later ones fail.
    pub(super) reads: Option<usize>,
    /// Whether every report fails because it would have too many rows.
    pub(super) too_many_rows: bool,
    /// Whether costs are being computed anew with new prices.
    pub(super) is_repricing: bool,
    /// The outcomes of the first imports. All later ones import every turn.
    pub(super) imports: VecDeque<Result<ImportReceipt, ImportError>>,
    /// The outcome of every erasure. Without one, there is nothing to erase.
    pub(super) erasure: Option<Result<bool, EraseError>>,
    /// The outcome of a readiness check. Without one, the check hangs, and so do questions about the state of the
    /// system.
    pub(super) check: Option<Result<(), CommitError>>,
    /// The backup that the system returns once. Without one, the system is busy.
    pub(super) backup: Option<Result<Backup, BackupError>>,
    /// The number of late events in every receipt. The next field has the warnings.
    pub(super) late: u64,
    pub(super) warnings: Vec<Warning>,
    /// What the store knows of damage.
    pub(super) damage: DamageReport,
    /// Whether the load of the system is at its limit.
    pub(super) full: bool,
    /// Whether the system has ended.
    pub(super) gone: bool,
    /// The questions that the system was asked.
    pub(super) seen: Arc<Mutex<Seen>>,
    /// The conversations that have received events, for a conversation that waits for another one.
    pub(super) told: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
}

/// The messages that the system received.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) observes: Vec<Observe>,
    pub(super) ranges: Vec<TurnRange>,
    /// The conversations whose revision was asked for.
    pub(super) found: Vec<ConversationId>,
    pub(super) imports: Vec<Import>,
    /// The conversations that were erased.
    pub(super) erased: Vec<ConversationId>,
}

/// Returns the answer, or nothing if the system hangs.
async fn after_hanging<T>(hangs: bool, answer: T) -> T {
    if hangs { pending().await } else { answer }
}

impl StandIn {
    pub(super) fn start_with(self, settings: HttpSettings) -> (Api, Arc<Mutex<Seen>>) {
        let (seen, full, hangs) = (self.seen.clone(), self.full, self.check.is_none());
        let report = StoreReport { damage: self.damage, ..StoreReport::default() };
        let system = self.start();
        let handles = Handles {
            intake: Intake {
                observe: system.clone().recipient(),
                import: system.clone().recipient(),
                erase: system.clone().recipient(),
                take_erased_sums: Probe::start(|_| pending()).recipient(),
                max_steps: 4096,
                load: Load::new(usize::from(!full)),
            },
            reads: Reads {
                list_turns: system.clone().recipient(),
                list_open_turns: system.clone().recipient(),
                find_revision: system.clone().recipient(),
                list_sealed: system.clone().recipient(),
                begin_export: system.clone().recipient(),
                list_erased_sums: system.clone().recipient(),
                list_conversations: system.clone().recipient(),
                build_report: system.clone().recipient(),
                reader: None,
            },
            operations: Operations {
                facts: Facts::new(1),
                check_write: system.clone().recipient(),
                back_up: system.recipient(),
                scrub: Probe::start(|_| pending()).recipient(),
                count_work: Probe::start(move |_| {
                    let counts = WorkCounts { active_conversations: 3, in_flight: 2, warnings: 5, died: 0 };
                    after_hanging(hangs, counts)
                })
                .recipient(),
                inspect_conversation: Probe::start(|_| pending()).recipient(),
                inspect_store: Probe::start(move |_| after_hanging(hangs, report)).recipient(),
                inspect_sweeper: Probe::start(move |_| after_hanging(hangs, SweeperReport::default())).recipient(),
                inspect_retention: Probe::start(move |_| after_hanging(hangs, RetentionReport::default())).recipient(),
            },
        };
        let api = Api::new(handles, settings);
        // A test that reads an answer to its end would wait for the end of a stream.
        api.end_feeds();
        (api, seen)
    }

    pub(super) fn serving(self) -> Api {
        self.start_with(HttpSettings::default()).0
    }

    fn may_read(&mut self) -> Result<(), Fault> {
        match &mut self.reads {
            Some(0) => Err(fault()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn told(&self, conversation: &str) -> Arc<Notify> {
        self.told.lock().unwrap().entry(conversation.to_owned()).or_default().clone()
    }
}

impl Actor for StandIn {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if self.gone {
            context.stop();
        }
    }
}

impl Handler<Observe> for StandIn {
    type Result = ResponseFuture<Result<Receipt, ObserveError>>;

    fn handle(&mut self, observe: Observe, _: &mut Self::Context) -> Self::Result {
        let conversation = observe.conversation_id.as_str();
        self.told(conversation).notify_one();
        let awaited = self.waits_for.filter(|(waiting, _)| *waiting == conversation).map(|(_, on)| self.told(on));
        let answer = match self.refusals.get(conversation) {
            Some(error) => Err(error.clone()),
            None => Ok(Receipt { late: self.late, warnings: self.warnings.clone(), ..receipt(&observe, &self.turns) }),
        };
        self.seen.lock().unwrap().observes.push(observe);
        Box::pin(async move {
            if let Some(awaited) = awaited {
                awaited.notified().await;
            }
            answer
        })
    }
}

impl Handler<BackUp> for StandIn {
    type Result = MessageResult<BackUp>;

    fn handle(&mut self, _: BackUp, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.backup.take().unwrap_or(Err(BackupError::Busy)))
    }
}

/// The lines that this thread logs while the value lives.
pub(super) struct Log {
    lines: Written,
    _logging: DefaultGuard,
    _second: Dispatch,
}

impl Log {
    pub(super) fn start() -> Self {
        let lines = Written::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || written.clone())
            .finish();
        // With a single subscriber, `tracing` remembers for each log line whether a subscriber wants it. If a thread
        // without a subscriber reached a line first, that line would stay disabled for all threads.
        let second = Dispatch::new(tracing_subscriber::registry());
        Self { lines, _logging: tracing::subscriber::set_default(subscriber), _second: second }
    }

    pub(super) fn end(self) -> String {
        String::from_utf8(self.lines.bytes()).unwrap()
    }
}

/// Returns a fault whose cause contains a path.
pub(super) fn fault() -> Fault {
    Fault::new(FaultKind::Disk, "the disk failed").caused_by("cannot read /var/lib/secret: I/O error")
}

/// Returns a receipt: each turn that is done is sealed, and is a duplicate if it was sealed before.
fn receipt(observe: &Observe, turns: &[StoredTurn]) -> Receipt {
    let mut sealed = Vec::new();
    for event in observe.events.iter().filter(|event| matches!(event.kind, TurnEventKind::Done(_))) {
        let known = turns.iter().find(|turn| turn.metrics.turn_id == event.turn_id);
        let next = Ordinal::after((turns.len() + sealed.len()) as u64);
        sealed.push(TurnReceipt {
            turn_id: event.turn_id.clone(),
            ordinal: known.map_or(next, |turn| turn.ordinal),
            duplicate: known.is_some(),
        });
    }
    Receipt { sealed, ..Receipt::default() }
}

impl Handler<ListTurns> for StandIn {
    type Result = MessageResult<ListTurns>;

    fn handle(&mut self, ListTurns(range): ListTurns, _: &mut Self::Context) -> Self::Result {
        let page = self.may_read().map(|()| {
            let is_before = |turn: &&StoredTurn| range.before.is_none_or(|before| turn.ordinal.get() < before);
            let wanted = self.turns.iter().filter(|turn| turn.ordinal.get() > range.after).filter(is_before);
            let left_out = wanted.clone().count().saturating_sub(range.limit);
            let left_out = if range.end == RangeEnd::Latest { left_out } else { 0 };
            wanted.skip(left_out).take(range.limit).cloned().collect()
        });
        self.seen.lock().unwrap().ranges.push(range);
        MessageResult(page)
    }
}

impl Handler<ListOpenTurns> for StandIn {
    type Result = MessageResult<ListOpenTurns>;

    fn handle(&mut self, _: ListOpenTurns, _: &mut Self::Context) -> Self::Result {
        let sealed_turns = self.revision.unwrap_or(self.turns.len() as u64);
        MessageResult(self.may_read().map(|()| OpenTurns { sealed_turns, turns: self.open.clone() }))
    }
}

/// No conversation is listed.
impl Handler<ListConversations> for StandIn {
    type Result = MessageResult<ListConversations>;

    fn handle(&mut self, _: ListConversations, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.may_read().map(|()| Vec::new()))
    }
}

/// Answers every report with all turns.
impl Handler<BuildReport> for StandIn {
    type Result = MessageResult<BuildReport>;

    fn handle(&mut self, BuildReport(question): BuildReport, _: &mut Self::Context) -> Self::Result {
        if self.too_many_rows {
            return MessageResult(Err(ReportError::TooManyRows));
        }
        let mut breakdown = Breakdown::new(question.grouping, question.selection);
        for (label, rollup) in self.turns.iter().flat_map(Rollup::of_turn) {
            question.periods.first().into_iter().for_each(|period| breakdown.add(*period, &label, &rollup));
        }
        let is_repricing = self.is_repricing;
        MessageResult(self.may_read().map(|()| Report { breakdown, is_repricing }).map_err(Into::into))
    }
}

/// Answers with all turns, as turns of one conversation.
impl Handler<BeginExport> for StandIn {
    type Result = MessageResult<BeginExport>;

    fn handle(&mut self, _: BeginExport, _: &mut Self::Context) -> Self::Result {
        MessageResult(Ok(ExportHold::new(Arc::clone(&self.exports))))
    }
}

impl Handler<ListErasedSums> for StandIn {
    type Result = MessageResult<ListErasedSums>;

    fn handle(&mut self, ListErasedSums { after, limit }: ListErasedSums, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.may_read().map(|()| {
            let begin = self.erased_sums.iter().position(|sums| Some(sums.id) == after).map_or(0, |last| last + 1);
            let sums: Vec<_> = self.erased_sums[begin..].iter().take(limit).cloned().collect();
            let next = sums.last().map(|sums| sums.id).filter(|_| begin + sums.len() < self.erased_sums.len());
            ErasedSumsPage { sums, next, left_out: 0 }
        }))
    }
}

impl Handler<ListSealed> for StandIn {
    type Result = MessageResult<ListSealed>;

    fn handle(&mut self, ListSealed { after, limit }: ListSealed, _: &mut Self::Context) -> Self::Result {
        if let Some(after) = after.filter(|after| after.lineage != Lineage(Uuid::from_u128(7))) {
            return MessageResult(Err(ListSealedError::OtherLineage(after)));
        }
        let page = self.may_read().map(|()| {
            let position = |number| Position { lineage: Lineage(Uuid::from_u128(7)), number };
            let turns =
                (1..).zip(&self.turns).skip_while(|(number, _)| after.is_some_and(|after| *number <= after.number));
            let turns: Vec<_> = turns
                .take(limit)
                .map(|(number, turn)| PositionedTurn {
                    position: position(number),
                    conversation_id: ConversationId::new("c").unwrap(),
                    turn: turn.clone(),
                })
                .collect();
            let next = turns.last().map(|turn| turn.position).or(after).unwrap_or(position(0));
            SealedPage { turns, next, latest: position(self.turns.len() as u64), left_out: self.left_out }
        });
        MessageResult(page.map_err(Into::into))
    }
}

impl Handler<FindRevision> for StandIn {
    type Result = MessageResult<FindRevision>;

    fn handle(&mut self, find: FindRevision, _: &mut Self::Context) -> Self::Result {
        self.seen.lock().unwrap().found.push(find.conversation_id);
        let sealed_turns = self.revision.unwrap_or(self.turns.len() as u64);
        let lineage = Lineage(Uuid::from_u128(7 + u128::from(self.another_store)));
        let life = Life(5 + self.earlier_lives);
        MessageResult(self.may_read().map(|()| Revision::new(lineage, life, sealed_turns)))
    }
}

impl Handler<Import> for StandIn {
    type Result = MessageResult<Import>;

    fn handle(&mut self, import: Import, _: &mut Self::Context) -> Self::Result {
        let all = ImportReceipt { imported: import.turns.len() as u64, duplicates: 0 };
        self.seen.lock().unwrap().imports.push(import);
        MessageResult(self.imports.pop_front().unwrap_or(Ok(all)))
    }
}

impl Handler<Erase> for StandIn {
    type Result = MessageResult<Erase>;

    fn handle(&mut self, erase: Erase, _: &mut Self::Context) -> Self::Result {
        self.seen.lock().unwrap().erased.push(erase.conversation_id);
        MessageResult(self.erasure.clone().unwrap_or(Ok(false)))
    }
}

impl Handler<CheckWrite> for StandIn {
    type Result = ResponseFuture<Result<(), CommitError>>;

    fn handle(&mut self, _: CheckWrite, _: &mut Self::Context) -> Self::Result {
        match self.check.clone() {
            Some(answer) => Box::pin(async { answer }),
            None => Box::pin(pending()),
        }
    }
}

/// Returns this many sealed turns, from the ordinal 1 on.
pub(super) fn sealed_turns(count: u64) -> Vec<StoredTurn> {
    (1..=count)
        .map(|n| {
            let turn_id = TurnId::new(format!("t{n}")).unwrap();
            OpenTurn::new(turn_id).seal(&Done::because("stop"), EpochMillis::new(n)).at(Ordinal::new(n).unwrap())
        })
        .collect()
}

/// Returns a report with a row for each period and each of this number of models. The nth model has n tokens.
pub(super) fn report_by_model(periods: &[Period], models: u64) -> Report {
    let mut breakdown = Breakdown::new(Grouping { model: true, ..Grouping::default() }, Selection::default());
    for (nth, turn) in (1..).zip(sealed_turns(models)) {
        let mut turn = turn;
        turn.model = Some(format!("m{nth}").as_str().into());
        turn.metrics.usage.input_tokens = TokenCount::new(nth).unwrap();
        for (label, rollup) in Rollup::of_turn(&turn) {
            for period in periods {
                breakdown.add(*period, &label, &rollup);
            }
        }
    }
    Report { breakdown, is_repricing: false }
}

/// Returns what a future returns, and how many times it let others run before.
pub(super) async fn counting_pauses<T>(future: impl Future<Output = T>) -> (T, usize) {
    let mut future = std::pin::pin!(future);
    let mut pauses = 0;
    loop {
        match futures_util::poll!(&mut future) {
            Poll::Ready(value) => return (value, pauses),
            Poll::Pending => pauses += 1,
        }
    }
}

/// Returns a `done` event as a line.
pub(super) fn done(conversation: &str, turn: &str) -> String {
    let conversation = serde_json::to_string(conversation).unwrap();
    format!(r#"{{"type":"done","conversationId":{conversation},"turnId":"{turn}","reason":"stop"}}"#)
}

/// Returns the message that carries `done` events.
pub(super) fn observed(conversation: &str, turns: &[&str]) -> Observe {
    let event = |turn: &&str| TurnEvent {
        turn_id: TurnId::new(turn).unwrap(),
        kind: TurnEventKind::Done(Done::because("stop")),
    };
    Observe { conversation_id: ConversationId::new(conversation).unwrap(), events: turns.iter().map(event).collect() }
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// The whole body; `None` if it broke off.
    pub(super) body: Option<String>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Asserts that the answer is a failure in the form that the contract asks for, and returns its message.
    #[track_caller]
    pub(super) fn failure(&self, status: u16) -> String {
        let body = self.body.as_deref().unwrap();
        assert_eq!(self.status, status, "{body}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{body}");
        assert!(self.header("x-request-id").is_some());
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["error"].as_str().unwrap().to_owned()
    }

    /// Asserts that the answer is a success, and returns its body.
    #[track_caller]
    pub(super) fn success(&self) -> &str {
        assert_eq!(self.status, 200, "{:?}", self.body);
        self.body.as_deref().unwrap()
    }
}

/// Returns every route with its first method and an id in its path, and one path without a route.
pub(super) fn routes() -> impl Iterator<Item = (Method, String)> {
    let request = |route: &&Route| {
        let method = route.methods.split(", ").next().unwrap();
        (method.parse().unwrap(), route.path.replace("{id}", "c"))
    };
    ROUTES.iter().chain(&PAGES).map(request).chain([(Method::GET, "/nowhere".to_owned())])
}

/// Sends a request to the whole application at `localhost`.
pub(super) async fn ask(api: &Api, request: TestRequest) -> Answer {
    ask_with(api, at_localhost(request), None).await
}

fn at_localhost(request: TestRequest) -> TestRequest {
    request.insert_header(("host", "localhost"))
}

/// Returns the allowed hosts of a server on this machine.
pub(super) fn local_hosts() -> Hosts {
    Hosts::of(([127, 0, 0, 1], 24210).into(), &[])
}

/// Sends a request, with or without a `Host` header, to a server with these allowed hosts.
pub(super) async fn ask_of(api: &Api, hosts: &Hosts, request: TestRequest) -> Answer {
    answer_of(api, hosts, request.to_request()).await
}

pub(super) async fn get(api: &Api, path: &str) -> Answer {
    ask(api, TestRequest::get().uri(path)).await
}

pub(super) async fn post(api: &Api, body: impl Into<Bytes>) -> Answer {
    ask(api, TestRequest::post().uri("/events").insert_header(NDJSON).set_payload(body)).await
}

pub(super) const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// Posts a body that arrives as the stream yields it.
pub(super) async fn post_stream(
    api: &Api,
    head: TestRequest,
    body: impl Stream<Item = Result<Bytes, PayloadError>> + 'static,
) -> Answer {
    ask_with(api, at_localhost(head), Some(Box::pin(body))).await
}

type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>;

async fn ask_with(api: &Api, request: TestRequest, body: Option<BodyStream>) -> Answer {
    let mut request = request.to_request();
    if let Some(payload) = body {
        request = request.replace_payload(Payload::Stream { payload }).0;
    }
    answer_of(api, &local_hosts(), request).await
}

async fn answer_of(api: &Api, hosts: &Hosts, request: Request) -> Answer {
    let application = test::init_service(app(api, hosts)).await;
    let response = test::call_service(&application, request).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = to_bytes(response.into_body()).await.ok();
    Answer { status, headers, body: body.map(|body| String::from_utf8(body.to_vec()).unwrap()) }
}
