//! A simple model of the contract: it handles one event after the other, without actors, batches or retries.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use crate::actors::{Receipt, TurnReceipt};
use crate::store::{StagedTurn, StaleBefore};
use crate::turn::{
    Done, EpochMillis, OpenTurn, Ordinal, Progress, RunningTime, SealedTurn, StepId, StepTimes, StoredTurn, TurnEvent,
    TurnEventKind, TurnId, TurnLabels, Usage,
};

/// An event of a turn.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) turn: u8,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Start,
    Usage { step: u8, tokens: u16 },
    StepComplete { step: u8, millis: u16 },
    Error,
    Done,
}

/// Events of one conversation that are sent together.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) conversation: u8,
    pub(super) events: Vec<Event>,
}

/// A fault that a test injects into a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InjectedFault {
    /// The commit becomes durable, but its answer is lost.
    AnswerLost,
    /// The commit is lost, and so is its answer.
    CommitLost,
    /// The store refuses the commit because it has too much to do.
    Refused,
    /// Another writer changes the conversation before the commit.
    Rival { turn: TurnId, seals: bool },
}

#[derive(Debug, Clone)]
pub(super) enum Transition {
    /// Send these requests at one time.
    Observe {
        requests: Vec<Request>,
        fault: Option<InjectedFault>,
    },
    Abandon {
        conversation: u8,
        turns: Vec<u8>,
        age: u64,
    },
    /// Let time pass. If it is long enough, conversations are retired.
    Idle {
        seconds: u64,
    },
    /// Let the clock and the running time advance.
    Tick {
        millis: u64,
    },
    /// Set the clock that stamps turns, forward or back.
    SetClock {
        to: u64,
    },
    /// Erase a conversation.
    Erase {
        conversation: u8,
    },
    Restart,
    Read {
        conversation: u8,
        after: u64,
        limit: usize,
    },
}

/// The state that the actors should have.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    /// The time of the clock.
    pub(super) now: u64,
    /// How long the service has run.
    pub(super) running: u64,
    pub(super) conversations: BTreeMap<u8, Plain>,
    /// The answers that the latest transition should get.
    pub(super) answers: Vec<Result<Receipt, ()>>,
    /// Whether the latest erasure should find anything.
    pub(super) erased: bool,
    /// The latest requests, so that a transition can send them again.
    latest: Vec<Request>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Plain {
    open: BTreeMap<TurnId, StagedTurn>,
    sealed: Vec<SealedTurn>,
}

pub(super) fn turn_id(turn: u8) -> TurnId {
    TurnId::new(format!("t{turn}")).unwrap()
}

fn step_id(step: u8) -> StepId {
    StepId::new(format!("s{step}")).unwrap()
}

pub(super) fn events_of(events: &[Event]) -> Vec<TurnEvent> {
    let kind = |what: &What| match *what {
        What::Start => TurnEventKind::Progress(Progress::Start(TurnLabels::of_model("m"))),
        What::Usage { step, tokens } => {
            let usage = Usage { input_tokens: u32::from(tokens).into(), ..Usage::default() };
            TurnEventKind::Progress(Progress::Usage {
                step_id: Some(step_id(step)),
                report: usage.into(),
                is_final: false,
            })
        }
        What::StepComplete { step, millis } => {
            let times = StepTimes { ttft: Some(u32::from(millis).into()), ..StepTimes::default() };
            TurnEventKind::Progress(Progress::StepComplete {
                step_id: step_id(step),
                times,
                model: None,
                provider: None,
            })
        }
        What::Error => TurnEventKind::Progress(Progress::Failed),
        What::Done => TurnEventKind::Done(Done::because("stop")),
    };
    events.iter().map(|event| TurnEvent { turn_id: turn_id(event.turn), kind: kind(&event.what) }).collect()
}

/// Returns a turn as another writer changes it: with a step that no event of the model has.
pub(super) fn staged_by_rival(id: &TurnId, open: Option<&OpenTurn>, now: RunningTime) -> StagedTurn {
    let mut turn = open.cloned().unwrap_or_else(|| OpenTurn::new(id.clone()));
    let usage = Usage { output_tokens: 7.into(), ..Usage::default() };
    turn.fold(&Progress::Usage { step_id: Some(StepId::new("rival").unwrap()), report: usage.into(), is_final: false });
    StagedTurn { turn, last_event_at: now }
}

pub(super) fn sealed_by_rival(turn: &OpenTurn, now: EpochMillis) -> SealedTurn {
    turn.seal(&Done::because("rival"), now)
}

impl Plain {
    fn place(&self, id: &TurnId) -> Option<Ordinal> {
        let at = self.sealed.iter().position(|turn| turn.metrics.turn_id == *id)?;
        Some(Ordinal::after(at as u64))
    }

    fn seal(&mut self, id: &TurnId, done: &Done, now: EpochMillis) {
        let turn = self.open.remove(id).map_or_else(|| OpenTurn::new(id.clone()), |staged| staged.turn);
        self.push(turn.seal(done, now));
    }

    fn push(&mut self, mut turn: SealedTurn) {
        if let Some(latest) = self.sealed.last() {
            turn.sealed_at = turn.sealed_at.max(latest.sealed_at);
        }
        self.sealed.push(turn);
    }

    fn observe(&mut self, events: &[TurnEvent], now: EpochMillis, running: RunningTime) -> Receipt {
        let before = self.sealed.len() as u64;
        // Each mentioned turn, and whether it had a late event after this request had sealed it.
        let mut mentions: Vec<(TurnId, bool)> = Vec::new();
        let mut late_events = 0;
        for TurnEvent { turn_id, kind } in events {
            let is_error = *kind == TurnEventKind::Progress(Progress::Failed);
            if is_error && self.place(turn_id).is_none() && !self.open.contains_key(turn_id) {
                continue;
            }
            let place = mentions.iter().position(|(id, _)| id == turn_id).unwrap_or_else(|| {
                mentions.push((turn_id.clone(), false));
                mentions.len() - 1
            });
            match kind {
                _ if self.place(turn_id).is_some() => {
                    mentions[place].1 = true;
                    late_events += 1;
                }
                TurnEventKind::Progress(progress) => {
                    let new = || StagedTurn { turn: OpenTurn::new(turn_id.clone()), last_event_at: running };
                    let staged = self.open.entry(turn_id.clone()).or_insert_with(new);
                    staged.turn.fold(progress);
                    staged.last_event_at = running;
                }
                TurnEventKind::Done(done) => self.seal(turn_id, done, now),
            }
        }
        let mut sealed = Vec::new();
        for (turn_id, late) in mentions {
            let Some(ordinal) = self.place(&turn_id) else { continue };
            let told = |duplicate| TurnReceipt { turn_id: turn_id.clone(), ordinal, duplicate };
            let earlier = ordinal.get() <= before;
            sealed.extend((!earlier).then(|| told(false)));
            sealed.extend((earlier || late).then(|| told(true)));
        }
        Receipt { sealed, late: late_events, ..Receipt::default() }
    }

    fn abandon(&mut self, turns: &[u8], before: StaleBefore, now: EpochMillis) -> Receipt {
        let mut receipt = Receipt::default();
        for turn_id in turns.iter().map(|turn| turn_id(*turn)) {
            let Some(staged) = self.open.get(&turn_id) else { continue };
            let has_failed = staged.turn.head.has_failed;
            let limit = if has_failed { before.open.max(before.failed) } else { before.open };
            if staged.last_event_at < limit {
                self.seal(&turn_id, &Done::because(if has_failed { "error" } else { "abandoned" }), now);
                let ordinal = Ordinal::after(self.sealed.len() as u64 - 1);
                receipt.sealed.push(TurnReceipt { turn_id, ordinal, duplicate: false });
            }
        }
        receipt
    }

    fn rival(&mut self, id: &TurnId, seals: bool, now: EpochMillis, running: RunningTime) {
        if self.place(id).is_none() {
            let staged = staged_by_rival(id, self.open.get(id).map(|staged| &staged.turn), running);
            if seals {
                self.open.remove(id);
                self.push(sealed_by_rival(&staged.turn, now));
            } else {
                self.open.insert(id.clone(), staged);
            }
        }
    }
}

/// Returns the limits at which turns of at least this age are stale. Failed turns are stale at half this age.
pub(super) fn before(running: u64, age: u64) -> StaleBefore {
    let moment = |age| RunningTime::new(running.saturating_sub(age));
    StaleBefore { open: moment(age), failed: moment(age / 2) }
}

impl Model {
    /// Returns the sealed turns of a conversation as a reader should get them.
    pub(super) fn stored(&self, conversation: u8) -> Vec<StoredTurn> {
        let sealed = self.conversations.get(&conversation).map_or(&[][..], |plain| &plain.sealed);
        (0..).zip(sealed).map(|(at, turn)| turn.clone().at(Ordinal::after(at))).collect()
    }

    /// Returns the open turns of a conversation by id.
    pub(super) fn open(&self, conversation: u8) -> Vec<StagedTurn> {
        self.conversations.get(&conversation).map_or_else(Vec::new, |plain| plain.open.values().cloned().collect())
    }

    fn observe(
        &mut self,
        Request { conversation, events }: &Request,
        fault: Option<&InjectedFault>,
    ) -> Result<Receipt, ()> {
        let (now, running) = (EpochMillis::new(self.now), RunningTime::new(self.running));
        let plain = self.conversations.entry(*conversation).or_default();
        match fault {
            Some(InjectedFault::CommitLost | InjectedFault::Refused) => return Err(()),
            Some(InjectedFault::Rival { turn, seals }) => plain.rival(turn, *seals, now, running),
            Some(InjectedFault::AnswerLost) | None => {}
        }
        let receipt = plain.observe(&events_of(events), now, running);
        if fault == Some(&InjectedFault::AnswerLost) { Err(()) } else { Ok(receipt) }
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(model: &Self) -> BoxedStrategy<Transition> {
        let (turn, conversation) = (0..4_u8, 0..2_u8);
        let what = prop_oneof![
            Just(What::Start),
            (0..3_u8, 0..99_u16).prop_map(|(step, tokens)| What::Usage { step, tokens }),
            (0..3_u8, 0..99_u16).prop_map(|(step, millis)| What::StepComplete { step, millis }),
            Just(What::Error),
            Just(What::Done),
        ];
        // Four turns that come again and again, and now and then a turn that is probably new.
        let turn = prop_oneof![4 => turn, 1 => any::<u8>()];
        let event = (turn.clone(), what).prop_map(|(turn, what)| Event { turn, what });
        let request = (conversation.clone(), vec(event, 1..5))
            .prop_map(|(conversation, events)| Request { conversation, events });
        let fault = prop_oneof![
            Just(InjectedFault::AnswerLost),
            Just(InjectedFault::CommitLost),
            Just(InjectedFault::Refused),
            (0..4_u8, any::<bool>()).prop_map(|(turn, seals)| InjectedFault::Rival { turn: turn_id(turn), seals }),
        ];
        let alone = request.clone().prop_map(|request| vec![request]);
        let again = if model.latest.is_empty() { alone.clone().boxed() } else { Just(model.latest.clone()).boxed() };
        prop_oneof![
            4 => alone.clone().prop_map(|requests| Transition::Observe { requests, fault: None }),
            3 => again.prop_map(|requests| Transition::Observe { requests, fault: None }),
            3 => vec(request, 2..5).prop_map(|requests| Transition::Observe { requests, fault: None }),
            4 => (alone, fault).prop_map(|(requests, fault)| Transition::Observe { requests, fault: Some(fault) }),
            2 => (conversation.clone(), vec(turn, 1..4), 0..30_u64)
                .prop_map(|(conversation, turns, age)| Transition::Abandon { conversation, turns, age }),
            2 => (0..10_u64).prop_map(|seconds| Transition::Idle { seconds }),
            2 => (0..30_u64).prop_map(|millis| Transition::Tick { millis }),
            1 => (0..1000_u64).prop_map(|to| Transition::SetClock { to }),
            2 => conversation.clone().prop_map(|conversation| Transition::Erase { conversation }),
            1 => Just(Transition::Restart),
            2 => (conversation, 0..6_u64, 1..6_usize)
                .prop_map(|(conversation, after, limit)| Transition::Read { conversation, after, limit }),
        ]
        .boxed()
    }

    /// A fault is injected into a commit, so the requests must make one. An `error` of a turn that is not open makes
    /// none.
    fn preconditions(model: &Self, transition: &Transition) -> bool {
        let Transition::Observe { requests, fault: Some(_) } = transition else { return true };
        requests.iter().all(|Request { conversation, events }| {
            let is_open = |turn| model.open(*conversation).iter().any(|staged| staged.turn.id == turn_id(turn));
            events.iter().all(|event| !matches!(event.what, What::Error) || is_open(event.turn))
        })
    }

    fn apply(mut model: Self, transition: &Transition) -> Self {
        model.answers = match transition {
            Transition::Observe { requests, fault } => {
                model.latest.clone_from(requests);
                requests.iter().map(|request| model.observe(request, fault.as_ref())).collect()
            }
            Transition::Abandon { conversation, turns, age } => {
                let (now, before) = (EpochMillis::new(model.now), before(model.running, *age));
                let plain = model.conversations.entry(*conversation).or_default();
                vec![Ok(plain.abandon(turns, before, now))]
            }
            Transition::Tick { millis } => {
                model.now += millis;
                model.running += millis;
                Vec::new()
            }
            Transition::SetClock { to } => {
                model.now = *to;
                Vec::new()
            }
            Transition::Erase { conversation } => {
                let plain = model.conversations.insert(*conversation, Plain::default()).unwrap_or_default();
                model.erased = !plain.open.is_empty() || !plain.sealed.is_empty();
                Vec::new()
            }
            Transition::Idle { .. } | Transition::Restart | Transition::Read { .. } => Vec::new(),
        };
        model
    }
}
