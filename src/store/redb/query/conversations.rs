use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use redb::{ReadableTable, ReadableTableMetadata};

use super::{LeftOut, last_ordinal};
use crate::report::{ConversationSums, PriceBook};
use crate::store::contract::{ConversationOrder, ConversationPlace, ConversationQuestion, Life, ListedConversation};
use crate::store::redb::memtable::piece::Piece;
use crate::store::redb::memtable::tally::{Lacking, Recent, TurnsToCount, Uncounted};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::guarded::{Ascending, visit_from};
use crate::store::redb::tables::read::{ReadTables, decode_key};
use crate::store::redb::tables::record::conversation::{ConversationRecord, inverted, moment_of};
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::record::dropped::Dropped;
use crate::store::redb::tables::rollups::{ReadRollups, decode};
use crate::store::redb::tables::row::Rows;
use crate::store::redb::tables::schema::{Activity, ConversationSumRows, Conversations, OpenTurns};
use crate::turn::{ConversationId, EpochMillis};

/// A page of conversations, with the data that the memtable has of each. The data is shared by reference count and not
/// copied, because commits wait meanwhile.
pub(crate) struct ConversationsQuery {
    /// The pieces of one conversation are in order, the oldest first.
    pieces: Vec<Arc<Piece>>,
    /// The amounts that the counted turns of the memtable add to the sums in the tables.
    sums: Vec<((ConversationId, Life), Arc<ConversationSums>)>,
    /// The other turns of the memtable.
    uncounted: TurnsToCount,
    /// Which sums over turns of the immutable table the tables lack.
    lacking: Lacking,
}

impl ConversationsQuery {
    /// `pieces` are all pieces of the memtable but those of erased lives, with the pieces of each conversation oldest
    /// first. `lacking` says which sums of the immutable table the tables lack.
    pub(crate) fn of(pieces: Vec<Arc<Piece>>, recent: &Recent, uncounted: TurnsToCount, lacking: &Lacking) -> Self {
        let immutable = recent.immutable.conversations().filter(|(of, _)| lacking.has_conversation(of));
        let sums = immutable.chain(recent.active.conversations()).map(|(of, sums)| (of.clone(), Arc::clone(sums)));
        Self { pieces, sums: sums.collect(), uncounted, lacking: lacking.clone() }
    }

    /// Returns the listed conversations that the question asks for.
    pub(crate) fn read(
        self,
        tables: &ReadTables,
        question: &ConversationQuestion,
        book: &dyn PriceBook,
        left_out: &mut LeftOut,
    ) -> Result<Vec<ListedConversation>, Failure> {
        let generation = tables.meta()?.costs()?.generation;
        let mut latest = HashMap::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            latest.insert(piece.conversation.id.as_str(), &piece.conversation);
        }
        let page = Page { query: &self, latest, tables, rollups: tables.rollups()?, generation, question };
        let mut found = match question.order {
            ConversationOrder::Recent => page.recent(book, left_out)?,
            _ => page.ranked(book, left_out)?,
        };
        let ids: HashSet<_> = found.iter().map(|found| found.listed.conversation_id.clone()).collect();
        let mut pieces: HashMap<_, Vec<&Arc<Piece>>> = HashMap::new();
        for piece in self.pieces.iter().rev() {
            if ids.contains(&piece.conversation.id) {
                pieces.entry(&piece.conversation.id).or_default().push(piece);
            }
        }
        for Found { listed, key, .. } in &mut found {
            let pieces = pieces.get(&listed.conversation_id).map_or(&[][..], Vec::as_slice);
            listed.open_turns = open_turns(tables, pieces, *key)?;
        }
        Ok(found.into_iter().map(|found| found.listed).collect())
    }

    /// Returns the amounts that the turns of the memtable add to the sums of each life of those conversations that
    /// `is_wanted` selects.
    fn sums(
        &self,
        book: &dyn PriceBook,
        is_wanted: impl Fn(&ConversationId) -> bool,
    ) -> HashMap<(ConversationId, Life), ConversationSums> {
        let mut all: HashMap<_, ConversationSums> = HashMap::new();
        for (of, sums) in self.sums.iter().filter(|((id, _), _)| is_wanted(id)) {
            all.entry(of.clone()).or_default().add(sums);
        }
        let wanted = |turns: &[Uncounted]| turns.iter().filter(|(id, _, _)| is_wanted(id)).cloned().collect();
        let TurnsToCount { immutable, active } = &self.uncounted;
        let uncounted = TurnsToCount { immutable: wanted(immutable), active: wanted(active) };
        for (of, sums) in Recent::of(&uncounted, book).not_in(&self.lacking).conversations() {
            all.entry(of.clone()).or_default().add(sums);
        }
        all
    }
}

/// Returns the number of open turns of a conversation: those in the tables, overlaid by these pieces, the latest first.
fn open_turns(tables: &ReadTables, pieces: &[&Arc<Piece>], key: Option<u64>) -> Result<usize, Failure> {
    let latest = |turn_id: &str| pieces.iter().find_map(|piece| piece.change(turn_id));
    let mut open = 0;
    if let Some(key) = key {
        visit_from::<OpenTurns>(tables.open_turns()?, &(key, ""), |(of, turn_id), head| {
            if *of == key {
                // A turn that changed since is counted below.
                open += usize::from(latest(turn_id).is_none());
            } else if head.is_ok() {
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    for (nth, piece) in pieces.iter().enumerate() {
        let is_latest = |turn_id: &&str| pieces[..nth].iter().all(|later| later.change(turn_id).is_none());
        open += piece.open_ids().filter(is_latest).count();
    }
    Ok(open)
}

/// A conversation that belongs to the page. Conversations are ordered by their places.
struct Found {
    place: ConversationPlace,
    listed: ListedConversation,
    /// The key of the conversation in the tables, if it has one.
    key: Option<u64>,
    /// The life of the conversation.
    life: Life,
}

impl Found {
    /// Returns the conversation if the question selects it and it comes after the last page.
    fn of(
        question: &ConversationQuestion,
        (listed, life): (ListedConversation, Life),
        key: Option<u64>,
    ) -> Option<Self> {
        let place = question.chooses(&listed).then(|| question.order.place(&listed))?;
        let is_after = question.after.as_ref().is_none_or(|after| place > *after);
        is_after.then_some(Self { place, listed, key, life })
    }
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Found {}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place.cmp(&other.place)
    }
}

/// Returns the entry of a conversation in a list, without the number of its open turns, and its life.
fn listed(record: ConversationRecord, sums: ConversationSums) -> (ListedConversation, Life) {
    let listed = ListedConversation {
        conversation_id: record.id,
        sealed_turns: record.sealed_turns.saturating_sub(record.begins_after),
        open_turns: 0,
        total_usage: record.total_usage,
        first_at: record.first_at,
        last_at: record.last_at,
        model: record.model,
        project: record.project,
        context_size: record.context_size,
        sums,
    };
    (listed, record.life)
}

struct Page<'a> {
    query: &'a ConversationsQuery,
    /// The records of the conversations in the memtable.
    latest: HashMap<&'a str, &'a ConversationRecord>,
    tables: &'a ReadTables,
    rollups: ReadRollups,
    generation: u32,
    question: &'a ConversationQuestion,
}

impl Page<'_> {
    /// Returns the key of a conversation that is in the memtable.
    fn key_of(&self, id: &ConversationId) -> Result<Option<u64>, Failure> {
        // The checkpoint may have given the conversation a key meanwhile.
        let Some(latest) = self.latest.get(id.as_str()) else { return self.tables.search_key_of(id) };
        match self.tables.key_of_life(id, latest.life) {
            Err(Failure::Record(_)) => self.tables.search_key_of(id),
            key => key,
        }
    }

    /// Returns what is known of the dropped turns of a conversation.
    fn dropped(&self, key: u64, left_out: &mut LeftOut) -> Result<Option<Dropped>, Failure> {
        match self.tables.dropped(key) {
            Err(Failure::Record(damaged)) => {
                left_out.add(&damaged, || format!("the dropped turns of conversation #{key}"));
                Ok(None)
            }
            dropped => dropped,
        }
    }

    /// Returns whether all turns of a conversation were dropped, which is in the memtable.
    fn is_emptied(&self, record: &ConversationRecord, left_out: &mut LeftOut) -> Result<bool, Failure> {
        if self.tables.all_dropped()?.is_empty()? {
            return Ok(false);
        }
        let key = match self.tables.key_of_life(&record.id, record.life) {
            // Damage of its key is reported where the key is needed.
            Err(Failure::Record(_)) => None,
            key => key?,
        };
        let dropped = key.map(|key| self.dropped(key, left_out)).transpose()?.flatten();
        Ok(dropped.is_some_and(|dropped| dropped.last() == record.sealed_turns))
    }

    /// Returns the candidates of a page by latest activity: from the table by activity and from the memtable.
    fn recent(&self, book: &dyn PriceBook, left_out: &mut LeftOut) -> Result<Vec<Found>, Failure> {
        // The last conversation of the page so far is at the top of the heap.
        let mut page = BinaryHeap::new();
        for record in self.latest.values().filter(|record| record.sealed_turns > 0) {
            let is_before = |last: &Found| {
                (Reverse(record.last_at), &record.id) < (Reverse(last.listed.last_at), &last.listed.conversation_id)
            };
            let has_place = page.len() < self.question.limit || page.peek().is_some_and(is_before);
            if has_place && !self.is_emptied(record, left_out)? {
                page.extend(Found::of(self.question, listed((*record).clone(), ConversationSums::default()), None));
                if page.len() > self.question.limit {
                    page.pop();
                }
            }
        }
        let mut page = page.into_vec();
        let after = self.question.after.as_ref();
        let after = after.map(|after| {
            let moment = after.rank().and_then(|rank| u64::try_from(rank).ok()).unwrap_or_default();
            (inverted(EpochMillis::new(moment)), after.conversation_id().as_str())
        });
        // Rows are in descending order of moments, so the range begins at the latest moment and ends at the earliest.
        let bounds = self.question.last_at;
        let first = bounds.map_or(0, |(_, to)| inverted(EpochMillis::new(to.get().saturating_sub(1))));
        let last = bounds.map_or(u64::MAX, |(from, _)| inverted(from));
        let after = after.filter(|after| after.0 >= first);
        let mut found = 0;
        visit_from::<Activity>(self.tables.activity()?, &after.unwrap_or((first, "")), |place, key| {
            const NEXT: Result<ControlFlow<()>, Failure> = Ok(ControlFlow::Continue(()));
            let (moment, id) = *place;
            if found == self.question.limit || key.is_ok() && moment > last {
                return Ok(ControlFlow::Break(()));
            }
            if after == Some(*place) {
                return NEXT;
            }
            let Ok(id) = ConversationId::new(id) else { return NEXT };
            if self.latest.contains_key(id.as_str()) {
                return NEXT;
            }
            let key = match key.and_then(decode_key) {
                Ok(key) => key,
                Err(damaged) => {
                    left_out.add(&damaged, || format!("conversation {id}"));
                    return NEXT;
                }
            };
            let record = match self.tables.conversation(key) {
                // When a record replaces a damaged one, the row by activity of the damaged record stays, as its moment
                // is unknown.
                Ok(record) if record.activity() != Some(*place) => {
                    left_out.add(&DamagedRecord::new("place by activity", RecordFlaw::OtherPlace), || {
                        format!("conversation {id}")
                    });
                    return NEXT;
                }
                Ok(record) => record,
                Err(Failure::Record(damaged)) => {
                    left_out.add(&damaged, || format!("conversation {id}"));
                    let sealed_turns = last_ordinal(self.tables, key)?;
                    ConversationRecord { sealed_turns, last_at: moment_of(moment), ..ConversationRecord::begin(id) }
                }
                Err(failure) => return Err(failure),
            };
            if let Some(chosen) = Found::of(self.question, listed(record, ConversationSums::default()), Some(key)) {
                found += 1;
                page.push(chosen);
            }
            NEXT
        })?;
        page.sort_unstable();
        page.truncate(self.question.limit);
        let ids: HashSet<_> = page.iter().map(|found| found.listed.conversation_id.clone()).collect();
        let recent = self.query.sums(book, |id| ids.contains(id));
        for Found { listed, key, life, .. } in &mut page {
            let id = &listed.conversation_id;
            if key.is_none() {
                *key = self.key_of(id)?;
            }
            let sums = key.map(|key| self.rollups.conversation(self.generation, key)).transpose();
            let sums = match sums {
                Ok(sums) => sums.unwrap_or_default(),
                Err(Failure::Record(damaged)) => {
                    left_out.add(&damaged, || format!("the sums of conversation {id}"));
                    ConversationSums::default()
                }
                Err(failure) => return Err(failure),
            };
            listed.sums = sums;
            if let Some(dropped) = key.map(|key| self.dropped(key, left_out)).transpose()?.flatten() {
                listed.sums.add(&dropped.sums);
            }
            if let Some(recent) = recent.get(&(id.clone(), *life)) {
                listed.sums.add(recent);
            }
        }
        Ok(page)
    }

    /// Returns the candidates of a page in another order. Reads all conversations, and keeps only as many as a page
    /// has.
    fn ranked(&self, book: &dyn PriceBook, left_out: &mut LeftOut) -> Result<Vec<Found>, Failure> {
        let limit = self.question.limit;
        let recent = self.query.sums(book, |_| true);
        // The last conversation of the page so far is at the top of the heap.
        let mut page = BinaryHeap::new();
        let mut add = |listed, key| {
            page.extend(Found::of(self.question, listed, key));
            if page.len() > limit {
                page.pop();
            }
        };
        let has_dropped = !self.tables.all_dropped()?.is_empty()?;
        let mut in_tables = HashSet::new();
        // The range has no end, because a damaged key would end it too early.
        let mut sums_of = self.rollups.conversations.range((self.generation, 0)..)?.peekable();
        let mut order = Ascending::<u64>::new();
        for entry in self.tables.conversations()?.iter()? {
            let (key, record) = entry?;
            let (key, verified) = (key.value(), record.value().verify(&key.value()));
            if verified.is_ok() && !order.follows(&key) {
                let damaged = DamagedRecord::new(Conversations::WHAT, RecordFlaw::Order);
                left_out.add(&damaged, || format!("conversation #{key}"));
                continue;
            }
            let mut sums = ConversationSums::default();
            // The rows of both tables are in the order of the conversations' keys.
            let is_next = |(generation, of)| generation == self.generation && of <= key;
            while let Some(row) = sums_of.next_if(|row| match row {
                Ok((of, stored)) => stored.value().verify(&of.value()).is_err() || is_next(of.value()),
                Err(_) => true,
            }) {
                let (of, stored) = row?;
                match decode::<ConversationSumRows, _>(&of.value(), stored.value()) {
                    Ok(stored) if of.value().1 == key => sums = stored,
                    Ok(_) => {}
                    Err(damaged) => left_out.add(&damaged, || format!("the sums of conversation #{}", of.value().1)),
                }
            }
            match verified.and_then(ConversationRecord::decode) {
                Ok(record) => {
                    let changed = self.latest.get(record.id.as_str()).map(|changed| (*changed).clone());
                    if changed.as_ref().is_some_and(|changed| changed.life != record.life) {
                        // This life was erased. The next one has nothing in the tables yet.
                        continue;
                    }
                    if let Some(recent) = recent.get(&(record.id.clone(), record.life)) {
                        sums.add(recent);
                    }
                    if changed.is_some() {
                        in_tables.insert(record.id.clone());
                    }
                    let record = changed.unwrap_or(record);
                    if let Some(dropped) = has_dropped.then(|| self.dropped(key, left_out)).transpose()?.flatten() {
                        if dropped.last() == record.sealed_turns {
                            continue;
                        }
                        sums.add(&dropped.sums);
                    }
                    add(listed(record, sums), Some(key));
                }
                Err(damaged) => left_out.add(&damaged, || format!("conversation #{key}")),
            }
        }
        for record in self.latest.values().filter(|record| !in_tables.contains(&record.id)) {
            let sums = recent.get(&(record.id.clone(), record.life)).cloned().unwrap_or_default();
            add(listed((*record).clone(), sums), None);
        }
        Ok(page.into_sorted_vec())
    }
}
