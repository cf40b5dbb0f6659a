//! Reads turns on the thread that asks for them.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, Response};

use crate::store::{
    Answer, ConversationQuestion, Engine, ErasedSumsId, ErasedSumsPage, ExportHold, Fault, ListSealedError,
    ListedConversation, OpenTurns, Position, Report, ReportError, ReportQuestion, Revision, SealedPage, TurnRange,
};
use crate::turn::{ConversationId, StoredTurn};

/// Answers questions about turns as the store's actor does, but on the thread that it was started on. A caller
/// on that thread waits for no other thread.
///
/// A clone reads the same store and can be started on another thread.
#[derive(Clone)]
pub struct StoreReader {
    engine: Arc<dyn Engine>,
}

impl StoreReader {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }
}

/// Returns the engine's answer in the form of an actor's answer.
pub(super) fn respond<T: 'static>(answer: Answer<T>) -> Response<T> {
    match answer {
        Answer::Now(answer) => Response::reply(answer),
        Answer::Later(answer) => Response::fut(answer),
    }
}

impl Actor for StoreReader {
    type Context = Context<Self>;
}

/// Ask the store for sealed turns of a conversation.
///
/// ```
/// use turn_metrics::actors::{ListTurns, Observe};
/// use turn_metrics::runtime::Runtime;
/// use turn_metrics::store::TurnRange;
/// use turn_metrics::turn::{ConversationId, Done, TurnEvent, TurnEventKind, TurnId};
///
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// let conversation_id = ConversationId::new("c")?;
/// for name in ["one", "two", "three"] {
///     let event = TurnEvent { turn_id: TurnId::new(name)?, kind: TurnEventKind::Done(Done::because("stop")) };
///     let observe = Observe { conversation_id: conversation_id.clone(), events: vec![event] };
///     runtime.handles().intake.observe.send(observe).await??;
/// }
/// let mut range = TurnRange::latest(conversation_id, 2);
/// let mut pages = Vec::new();
/// loop {
///     let page = runtime.handles().reads.list_turns.send(ListTurns(range.clone())).await??;
///     let Some(oldest) = page.first() else { break };
///     range.before = Some(oldest.ordinal.get());
///     pages.push(page.iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>());
/// }
/// assert_eq!(pages, [vec![2, 3], vec![1]]);
/// runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListTurns(pub TurnRange);

impl Message for ListTurns {
    type Result = Result<Vec<StoredTurn>, Fault>;
}

impl Handler<ListTurns> for StoreReader {
    type Result = Response<Result<Vec<StoredTurn>, Fault>>;

    fn handle(&mut self, ListTurns(range): ListTurns, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.turns(range))
    }
}

/// Ask the store for the open turns of a conversation: what it has acknowledged of them so far.
///
/// ```
/// use turn_metrics::actors::{ListOpenTurns, Observe};
/// use turn_metrics::runtime::Runtime;
/// use turn_metrics::turn::parse_line;
///
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// let line = r#"{"type":"usage","conversationId":"c","turnId":"t","usage":{"inputTokens":900,"outputTokens":120}}"#;
/// let event = parse_line(line.as_bytes())?.unwrap();
/// let conversation_id = event.conversation_id.clone();
/// let observe = Observe { conversation_id: event.conversation_id, events: vec![event.event] };
/// runtime.handles().intake.observe.send(observe).await??;
///
/// let open = runtime.handles().reads.list_open_turns.send(ListOpenTurns { conversation_id }).await??;
/// assert_eq!(open.sealed_turns, 0);
/// let so_far = open.turns[0].turn.so_far();
/// assert_eq!((so_far.metrics.turn_id.as_str(), so_far.metrics.usage.input_tokens.get()), ("t", 900));
/// runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOpenTurns {
    /// The conversation; an unknown one has no turns.
    pub conversation_id: ConversationId,
}

impl Message for ListOpenTurns {
    type Result = Result<OpenTurns, Fault>;
}

impl Handler<ListOpenTurns> for StoreReader {
    type Result = Response<Result<OpenTurns, Fault>>;

    fn handle(&mut self, list: ListOpenTurns, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.open_turns(list.conversation_id))
    }
}

/// Ask the store for sealed turns of all conversations, in the order in which they became durable.
///
/// A reader that asks again after [`SealedPage::next`] each time gets every turn once, even if turns are sealed
/// meanwhile and the service is restarted.
///
/// ```
/// use turn_metrics::actors::{ListSealed, Observe};
/// use turn_metrics::runtime::Runtime;
/// use turn_metrics::turn::{ConversationId, Done, TurnEvent, TurnEventKind, TurnId};
///
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// for name in ["one", "another"] {
///     let event = TurnEvent { turn_id: TurnId::new("t")?, kind: TurnEventKind::Done(Done::because("stop")) };
///     let observe = Observe { conversation_id: ConversationId::new(name)?, events: vec![event] };
///     runtime.handles().intake.observe.send(observe).await??;
/// }
/// let (mut after, mut seen) = (None, Vec::new());
/// loop {
///     let page = runtime.handles().reads.list_sealed.send(ListSealed { after, limit: 1 }).await??;
///     seen.extend(page.turns.into_iter().map(|sealed| (sealed.position.number, sealed.conversation_id.to_string())));
///     after = Some(page.next);
///     if page.next == page.latest {
///         break;
///     }
/// }
/// assert_eq!(seen, [(1, "one".to_owned()), (2, "another".to_owned())]);
/// runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListSealed {
    /// Only turns after this position; `None` for all.
    pub after: Option<Position>,
    /// The maximum number of turns in the answer. [`SealedPage::MAX_POSITIONS`] is a maximum as well.
    pub limit: usize,
}

impl Message for ListSealed {
    type Result = Result<SealedPage, ListSealedError>;
}

impl Handler<ListSealed> for StoreReader {
    type Result = Response<Result<SealedPage, ListSealedError>>;

    fn handle(&mut self, ListSealed { after, limit }: ListSealed, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.sealed_turns(after, limit))
    }
}

/// Ask the store to prepare an export. No turn is dropped because of its age before the answer is dropped, or until some
/// hours have passed. The sums of the conversations that were erased before the question are among those that
/// [`ListErasedSums`] returns. If moving them there takes longer than some seconds, the answer is an error: ask again later.
///
/// An export is the sums of erased turns, and then all sealed turns. Together they add up to the reports of the store, but
/// for conversations that are erased while it is read.
///
/// ```
/// use turn_metrics::actors::{BeginExport, Erase, ListErasedSums, Observe};
/// use turn_metrics::runtime::Runtime;
/// use turn_metrics::turn::{ConversationId, Done, TurnEvent, TurnEventKind, TurnId};
///
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// let (intake, reads) = (&runtime.handles().intake, &runtime.handles().reads);
/// let conversation_id = ConversationId::new("c")?;
/// let event = TurnEvent { turn_id: TurnId::new("t")?, kind: TurnEventKind::Done(Done::because("stop")) };
/// intake.observe.send(Observe { conversation_id: conversation_id.clone(), events: vec![event] }).await??;
/// intake.erase.send(Erase { conversation_id }).await??;
///
/// let hold = reads.begin_export.send(BeginExport).await??;
/// let page = reads.list_erased_sums.send(ListErasedSums { after: None, limit: 64 }).await??;
/// assert_eq!(page.sums[0].sums.rollup.turns(), 1);
/// assert_eq!(page.next, None);
/// drop(hold);
/// # runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeginExport;

impl Message for BeginExport {
    type Result = Result<ExportHold, Fault>;
}

impl Handler<BeginExport> for StoreReader {
    type Result = Response<Result<ExportHold, Fault>>;

    fn handle(&mut self, _: BeginExport, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.begin_export())
    }
}

/// Ask the store for the sums of its erased and dropped turns, by quarter of an hour and label. Ask for the next page with
/// [`ErasedSumsPage::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListErasedSums {
    /// The id after which the page begins; `None` for the first sums.
    pub after: Option<ErasedSumsId>,
    /// The maximum number of sums in the answer. An answer may have fewer although more follow.
    pub limit: usize,
}

impl Message for ListErasedSums {
    type Result = Result<ErasedSumsPage, Fault>;
}

impl Handler<ListErasedSums> for StoreReader {
    type Result = Response<Result<ErasedSumsPage, Fault>>;

    fn handle(&mut self, ListErasedSums { after, limit }: ListErasedSums, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.erased_sums(after, limit))
    }
}

/// Ask the store for the conversations that have a sealed turn, with figures of their whole lives. A conversation that
/// changes between two pages may be missed, or may come twice.
///
/// ```
/// use turn_metrics::actors::{ListConversations, Observe};
/// use turn_metrics::runtime::Runtime;
/// use turn_metrics::store::{ConversationOrder, ConversationQuestion};
/// use turn_metrics::turn::{ConversationId, Done, EpochMillis, TurnEvent, TurnEventKind, TurnId};
///
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// for (name, ended_at) in [("earlier", 1_700_000_001_000), ("later", 1_700_000_002_000)] {
///     let done = Done { ended_at: Some(EpochMillis::new(ended_at).into()), ..Done::because("stop") };
///     let event = TurnEvent { turn_id: TurnId::new("t")?, kind: TurnEventKind::Done(done) };
///     let observe = Observe { conversation_id: ConversationId::new(name)?, events: vec![event] };
///     runtime.handles().intake.observe.send(observe).await??;
/// }
/// let (mut question, mut seen) = (ConversationQuestion::first(ConversationOrder::Recent, 1), Vec::new());
/// loop {
///     let list = ListConversations(question.clone());
///     let page = runtime.handles().reads.list_conversations.send(list).await??;
///     let Some(last) = page.last() else { break };
///     question = question.after(last);
///     seen.extend(page.into_iter().map(|listed| (listed.conversation_id.to_string(), listed.sealed_turns)));
/// }
/// assert_eq!(seen, [("later".to_owned(), 1), ("earlier".to_owned(), 1)]);
/// runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListConversations(pub ConversationQuestion);

impl Message for ListConversations {
    type Result = Result<Vec<ListedConversation>, Fault>;
}

impl Handler<ListConversations> for StoreReader {
    type Result = Response<Result<Vec<ListedConversation>, Fault>>;

    fn handle(&mut self, ListConversations(question): ListConversations, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.conversations(question))
    }
}

/// Ask the store for sums over the turns of some periods, by the labels that `grouping` names.
///
/// The whole report shows one moment. It includes every turn that was acknowledged before the question was sent.
///
/// ```
/// use turn_metrics::actors::{BuildReport, Observe};
/// use turn_metrics::report::{Figures, Grouping, Period, PeriodUnit, Selection, Zone};
/// use turn_metrics::runtime::Runtime;
/// use turn_metrics::store::ReportQuestion;
/// use turn_metrics::turn::parse_line;
///
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// for line in [
///     r#"{"type":"turn-start","conversationId":"c","turnId":"t","model":"small"}"#,
///     r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop","endedAt":1780000000000,
///         "usage":{"inputTokens":900,"outputTokens":120}}"#,
/// ] {
///     let event = parse_line(line.as_bytes())?.unwrap();
///     let observe = Observe { conversation_id: event.conversation_id, events: vec![event.event] };
///     runtime.handles().intake.observe.send(observe).await??;
/// }
///
/// let zone = Zone::named("Europe/Berlin")?;
/// let may = zone.month("2026-05").unwrap();
/// let report = BuildReport(ReportQuestion {
///     periods: zone.periods(PeriodUnit::Day, Period::around(may.start, may.end)?).collect(),
///     grouping: Grouping { model: true, ..Grouping::default() },
///     selection: Selection::default(),
/// });
/// let report = runtime.handles().reads.build_report.send(report).await??;
/// let mut rows = report.breakdown.rows();
/// let (day, label, row) = rows.next().unwrap();
/// assert!(rows.next().is_none(), "a day without a turn has no row");
/// assert_eq!(day.start().start_millis(), 1_779_919_200_000, "midnight in Berlin");
/// assert_eq!(label.model.as_ref().map(|model| model.as_str()), Some("small"));
/// assert_eq!(Figures::of(&row.rollup).usage.output_tokens, 120);
/// assert_eq!(row.cost.usd(), None, "this runtime knows no prices");
/// runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildReport(pub ReportQuestion);

impl Message for BuildReport {
    type Result = Result<Report, ReportError>;
}

impl Handler<BuildReport> for StoreReader {
    type Result = Response<Result<Report, ReportError>>;

    fn handle(&mut self, BuildReport(question): BuildReport, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.report(question))
    }
}

/// Ask the store for the present revision of a conversation's sealed turns, without reading the turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindRevision {
    /// The conversation.
    pub conversation_id: ConversationId,
}

impl Message for FindRevision {
    type Result = Result<Revision, Fault>;
}

impl Handler<FindRevision> for StoreReader {
    type Result = Response<Result<Revision, Fault>>;

    fn handle(&mut self, find: FindRevision, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.revision(find.conversation_id))
    }
}
