//! The comparisons of the store with what the client knows.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Client, Positions, Sabotage, Sent, add_sums, is_as_expected};
use crate::report::{Breakdown, ConversationSums};
use crate::store::oracle::{Oracle, breakdown_of, question_of_1970};
use crate::store::{
    Commit, CommitError, Committed, ConversationOrder, ConversationQuestion, Fault, FaultKind, ListSealedError,
    ListedConversation, ReportError, Revision, StagedTurn, TurnOutcome, Version,
};
use crate::turn::{ConversationId, OpenTurn, RunningTime, StoredTurn, TurnId};

/// What the store says of a conversation.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    version: Version,
    /// The number of ordinals before that of the first stored turn: those of dropped turns, and those that an import
    /// left out.
    missing: u64,
    sealed: Vec<StoredTurn>,
    open: BTreeMap<TurnId, StagedTurn>,
}

impl Said {
    /// Returns what a store must say of a conversation.
    fn of(model: &Oracle) -> Self {
        let Oracle { version, sealed, open, .. } = model.clone();
        Self { version, missing: model.missing(), sealed, open }
    }
}

impl Client {
    /// Checks that the order of all turns begins with the order seen before, has each sealed turn once, and has given a
    /// position to each turn that was ever sealed.
    pub(super) fn check_order(&mut self) -> Result<(), Broken> {
        let Some(positions) = self.read_order()? else { return Ok(()) };
        let before = &self.order;
        for (position, turn) in positions.turns.range(..=before.latest) {
            if before.turns.get(position) != Some(turn) {
                return Err(format!("positions have moved: {positions:?} begins not with {before:?}"));
            }
        }
        let order: Vec<_> = positions.turns.values().cloned().collect();
        let listed: BTreeSet<_> = order.iter().cloned().collect();
        let of = |(id, model): (&ConversationId, &Oracle)| {
            model.sealed.iter().map(|turn| (id.clone(), turn.ordinal)).collect::<Vec<_>>()
        };
        let expected: BTreeSet<_> = self.models.iter().flat_map(of).collect();
        if listed != expected || listed.len() < order.len() {
            return Err(format!("the order of all turns is {order:?}, and the turns are {expected:?}"));
        }
        let mut last = BTreeMap::new();
        for (id, ordinal) in &order {
            if last.insert(id, *ordinal).is_some_and(|before| before >= *ordinal) {
                return Err(format!("turn {ordinal} of {id} has a position before that of an earlier turn"));
            }
        }
        let dropped = self.models.values().map(|model| model.dropped.len());
        let ever_sealed = order.len() + self.erased.len() + dropped.sum::<usize>();
        if positions.latest != ever_sealed as u64 && self.sabotage == Sabotage::None {
            return Err(format!("{} positions were given to {ever_sealed} turns", positions.latest));
        }
        self.order = positions;
        Ok(())
    }

    /// Checks that a report counts each sealed turn once.
    pub(super) fn check_report(&self) -> Result<(), Broken> {
        let question = question_of_1970();
        let turns = self.models.values().flat_map(Oracle::all).chain(&self.erased);
        let mut expected = breakdown_of(turns, &question, &self.prices());
        add_sums(&mut expected, &self.taken, &question);
        let rollups = |breakdown: &Breakdown| {
            let rows = breakdown.rows().map(|(period, label, row)| (period, label.clone(), row.rollup.clone()));
            rows.collect::<Vec<_>>()
        };
        let mut gone = self.models.values().flat_map(|model| &model.dropped).chain(&self.erased);
        let has_old_costs = gone.any(|turn| turn.model.as_ref().is_some_and(|model| model.as_str() == "dear"));
        match self.engine().report(&question) {
            Ok(report) if report.breakdown == expected => Ok(()),
            // The prices may have changed since turns were erased or dropped, and these keep the costs that they had.
            Ok(report)
                if (report.is_repricing || has_old_costs) && rollups(&report.breakdown) == rollups(&expected) =>
            {
                Ok(())
            }
            Ok(report) => Err(format!("a report sums up to {:?} instead of {expected:?}", report.breakdown)),
            Err(ReportError::Read(_)) if !self.engine().is_open() => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Checks that each conversation with a sealed turn is listed once, at its place.
    pub(super) fn check_activity(&self) -> Result<(), Broken> {
        let blank = |listed: &ListedConversation| {
            let sums = ConversationSums::default();
            ListedConversation { sums, ..listed.clone() }
        };
        let prices = self.prices();
        let is_repricing = self.engine().report(&question_of_1970()).map_or(true, |report| report.is_repricing);
        let mut expected: Vec<_> = self.models.iter().filter_map(|(id, model)| model.listing(id, &prices)).collect();
        for order in [ConversationOrder::Recent, ConversationOrder::Cost] {
            expected.sort_by_key(|listed| order.place(listed));
            match self.engine().conversations(&ConversationQuestion::first(order, usize::MAX)) {
                Ok(listed) if listed == expected => {}
                // The sums have old costs, so only what is not computed anew is compared.
                Ok(_) if is_repricing && order == ConversationOrder::Cost => {}
                Ok(listed) if is_repricing && listed.iter().map(blank).eq(expected.iter().map(blank)) => {}
                Ok(listed) => return Err(format!("conversations are listed as {listed:?} instead of {expected:?}")),
                Err(_) if !self.engine().is_open() => {}
                Err(fault) => return Err(fault.in_full()),
            }
        }
        Ok(())
    }

    /// Reads the order of all turns page by page. Returns `None` if the store became unavailable meanwhile.
    fn read_order(&self) -> Result<Option<Positions>, Broken> {
        let mut positions = Positions::default();
        let mut after = None;
        loop {
            let page = match self.engine().sealed_turns(after, 50) {
                Ok(page) => page,
                Err(ListSealedError::Read(_)) if !self.engine().is_open() => return Ok(None),
                Err(error) => return Err(error.to_string()),
            };
            for sealed in page.turns {
                let last = positions.turns.last_key_value().map_or(0, |(last, _)| *last);
                if sealed.position.number <= last {
                    return Err(format!("position {} is listed after {last}", sealed.position));
                }
                positions.turns.insert(sealed.position.number, (sealed.conversation_id, sealed.turn.ordinal));
            }
            (after, positions.latest) = (Some(page.next), page.latest.number);
            if page.next == page.latest {
                break;
            }
        }
        if self.sabotage == Sabotage::DerivesPositions {
            let mut sorted: Vec<_> = positions.turns.values().cloned().collect();
            sorted.sort();
            positions.turns = positions.turns.into_keys().zip(sorted).collect();
        }
        Ok(Some(positions))
    }

    /// Checks that the store has all acknowledged commits of the conversation, followed by none, some or all of its
    /// commits in doubt. It must have these whole, in the order in which they were sent, without leaving one out in
    /// between.
    pub(super) fn check_conversation(&mut self, id: &ConversationId) -> Result<(), Broken> {
        let acknowledged = self.models.get(id).cloned().unwrap_or_default();
        let (said, revision) = self.read(id).map_err(|fault| fault.in_full())?;
        let place = |turn: &StoredTurn| (turn.ordinal.get(), turn.metrics.turn_id.clone());
        let places: Vec<_> = said.sealed.iter().map(place).collect();
        let ordinals = said.missing + 1..=said.missing + places.len() as u64;
        if !places.iter().map(|(ordinal, _)| *ordinal).eq(ordinals) {
            return Err(format!("the ordinals have gaps: {places:?}"));
        }
        let turns: BTreeSet<_> = places.iter().map(|(_, id)| id.as_str().trim_end_matches('~')).collect();
        if turns.len() < places.len() {
            return Err(format!("a turn is there twice: {places:?}"));
        }
        let of_it = |sent: &&Sent| sent.conversation_id().is_none_or(|of| of == id);
        let may_be_gone = self.doubt.iter().filter(of_it).any(|sent| !matches!(sent, Sent::Commit(_)));
        if !may_be_gone && !said.sealed.starts_with(&acknowledged.sealed) {
            let expected: Vec<_> = acknowledged.sealed.iter().map(place).collect();
            return Err(format!("acknowledged turns are lost or changed: {places:?} instead of {expected:?}"));
        }
        let may_be_erased = self.doubt.iter().filter(of_it).any(|sent| matches!(sent, Sent::Erase(_)));
        let (mut possible, mut erased) = (acknowledged, Vec::new());
        let mut doubt = self.doubt.iter().filter(of_it);
        while Said::of(&possible) != said {
            let Some(next) = doubt.next() else {
                return Err(format!("it is in no state that it can be in: {said:?}"));
            };
            erased.extend(next.apply(&mut possible, said.missing));
        }
        self.erased.extend(erased);
        self.models.insert(id.clone(), possible);
        self.check_life(id, revision, may_be_erased)
    }

    /// Checks that a conversation has another life after an erasure and only then, and that the store's lineage stays.
    fn check_life(&mut self, id: &ConversationId, revision: Revision, may_be_erased: bool) -> Result<(), Broken> {
        if may_be_erased {
            self.lives.remove(id);
        }
        // A revision without turns names no life, and the first attempt to make a store may have failed.
        if revision.sealed_turns == 0 || may_be_erased {
            return Ok(());
        }
        let lineage = *self.lineage.get_or_insert(revision.lineage);
        if lineage != revision.lineage {
            return Err(format!("the lineage was {lineage:?} and is {:?}", revision.lineage));
        }
        let erasures = self.erasures.get(id).copied().unwrap_or_default();
        match self.lives.insert(id.clone(), (erasures, revision.life)) {
            Some((before, life)) if (before == erasures) != (life == revision.life) => {
                let erasures = erasures - before;
                Err(format!("after {erasures} erasures, the life was {life:?} and is {:?}", revision.life))
            }
            _ => Ok(()),
        }
    }

    pub(in crate::store::redb::faults) fn sealed(&self, id: &ConversationId) -> Result<Vec<StoredTurn>, Fault> {
        Ok(self.read(id)?.0.sealed)
    }

    fn read(&self, id: &ConversationId) -> Result<(Said, Revision), Fault> {
        let engine = self.engine();
        let sealed = engine.all_turns(id)?;
        let state = engine.conversation_state(id, &[])?;
        let revision = engine.revision(id)?;
        let (sealed_turns, missing) = (revision.sealed_turns, revision.dropped_turns);
        if sealed_turns != missing + sealed.len() as u64 {
            let fault = Fault::new(FaultKind::Damaged, "the revision says another number of turns than there are");
            return Err(fault.caused_by(format!("{sealed_turns} instead of {missing} and {}", sealed.len())));
        }
        let open = state.open_turns.into_iter().map(|staged| (staged.turn.id.clone(), staged)).collect();
        Ok((Said { version: state.version, missing, sealed, open }, revision))
    }

    /// Sends all sealed turns again. The store must answer with their ordinals and change nothing.
    pub(super) fn check_index(&mut self, id: &ConversationId) -> Result<(), Broken> {
        let model = self.models.get(id).cloned().unwrap_or_default();
        let sealed = model.sealed.iter().cloned().map(|turn| {
            let id = turn.metrics.turn_id;
            OpenTurn::new(id).seal(&crate::turn::Done::because("again"), turn.sealed_at)
        });
        let again = Commit {
            conversation_id: id.clone(),
            expected_version: model.version,
            staged: Vec::new(),
            sealed: sealed.collect(),
            imported_from: None,
        };
        let outcomes =
            model.sealed.iter().map(|turn| (turn.metrics.turn_id.clone(), TurnOutcome::Duplicate(turn.ordinal)));
        let expected = Ok(Committed { version: model.version, outcomes: outcomes.collect() });
        let asked = self.engine().commit(self.sabotaged(&again));
        match self.work_until(asked) {
            // A check may itself meet the planned failure.
            Err(CommitError::Unavailable(_)) => Ok(()),
            _ if self.sabotage != Sabotage::None => Ok(()),
            answer => is_as_expected(&answer, &expected),
        }
    }

    pub(super) fn check_stale_turns(&self) -> Result<(), Broken> {
        let of = |(id, model): (&ConversationId, &Oracle)| {
            model.open.keys().map(|turn| (id.clone(), turn.clone())).collect::<Vec<_>>()
        };
        let expected: BTreeSet<_> = self.models.iter().flat_map(of).collect();
        let stale = match self.engine().stale_turns(RunningTime::new(u64::MAX).into(), None, usize::MAX) {
            Ok(stale) => stale.into_iter().map(|turn| (turn.conversation_id, turn.turn_id)).collect(),
            Err(_) if !self.engine().is_open() => return Ok(()),
            Err(fault) => return Err(fault.in_full()),
        };
        if expected == stale { Ok(()) } else { Err(format!("open turns are {stale:?} instead of {expected:?}")) }
    }
}
