use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use redb::ReadableTable;

use super::{LeftOut, last_ordinal};
use crate::report::ConversationSums;
use crate::store::contract::{ConversationOrder, ConversationPlace, ConversationQuestion, Life, ListedConversation};
use crate::store::redb::memtable::piece::{Change, Piece};
use crate::store::redb::memtable::tally::{Lacking, Recent};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::read::{ReadTables, decode_key};
use crate::store::redb::tables::record::conversation::{ConversationRecord, inverted, moment_of};
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::rollups::{ReadRollups, decode};
use crate::store::redb::tables::schema::ConversationSumRows;
use crate::turn::{ConversationId, EpochMillis};

/// A page of conversations, with the data that the memtable has of each. The data is shared by reference count and not
/// copied, because commits wait meanwhile.
pub(crate) struct ConversationsQuery {
    /// The pieces of one conversation are in order, the oldest first.
    pieces: Vec<Arc<Piece>>,
    /// The amounts that the turns of the memtable add to the sums in the tables.
    sums: Vec<((ConversationId, Life), Arc<ConversationSums>)>,
}

impl ConversationsQuery {
    /// `pieces` are all pieces of the memtable but those of erased lives, with the pieces of each conversation oldest
    /// first. `lacking` says which sums of the immutable table the tables lack.
    pub(crate) fn of(pieces: Vec<Arc<Piece>>, recent: &Recent, lacking: &Lacking) -> Self {
        let immutable = recent.immutable.conversations().filter(|(of, _)| lacking.has_conversation(of));
        let sums = immutable.chain(recent.active.conversations()).map(|(of, sums)| (of.clone(), Arc::clone(sums)));
        Self { pieces, sums: sums.collect() }
    }

    /// Returns the listed conversations that the question asks for.
    pub(crate) fn read(
        self,
        tables: &ReadTables,
        question: &ConversationQuestion,
        left_out: &mut LeftOut,
    ) -> Result<Vec<ListedConversation>, Failure> {
        let generation = tables.meta()?.costs()?.generation;
        let recent = RecentConversations::of(self);
        let page = Page { recent, tables, rollups: tables.rollups()?, generation, question };
        let mut found = match question.order {
            ConversationOrder::Recent => page.recent(left_out)?,
            _ => page.ranked(left_out)?,
        };
        for Found { listed, key, .. } in &mut found {
            listed.open_turns = page.open_turns(&listed.conversation_id, *key)?;
        }
        Ok(found.into_iter().map(|found| found.listed).collect())
    }
}

/// The data that the memtable has of each conversation.
#[derive(Default)]
struct RecentConversations {
    /// The pieces of each conversation, the oldest first.
    pieces: HashMap<ConversationId, Vec<Arc<Piece>>>,
    /// The amounts that the turns of each life of a conversation add to the sums in the tables.
    sums: HashMap<(ConversationId, Life), ConversationSums>,
}

impl RecentConversations {
    fn of(query: ConversationsQuery) -> Self {
        let mut recent = Self::default();
        for piece in query.pieces {
            recent.pieces.entry(piece.conversation.id.clone()).or_default().push(piece);
        }
        for (of, sums) in query.sums {
            recent.sums.entry(of).or_default().add(&sums);
        }
        recent
    }
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
        sealed_turns: record.sealed_turns,
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
    recent: RecentConversations,
    tables: &'a ReadTables,
    rollups: ReadRollups,
    generation: u32,
    question: &'a ConversationQuestion,
}

impl Page<'_> {
    /// Returns the record of a conversation in its latest piece, if the memtable has one.
    fn changed(&self, id: &ConversationId) -> Option<&ConversationRecord> {
        self.recent.pieces.get(id).and_then(|pieces| pieces.last()).map(|latest| &latest.conversation)
    }

    /// Adds the sums of the memtable's turns to the sums in the tables.
    fn with_recent(&self, of: &(ConversationId, Life), mut sums: ConversationSums) -> ConversationSums {
        if let Some(recent) = self.recent.sums.get(of) {
            sums.add(recent);
        }
        sums
    }

    /// Returns the key of a conversation that is in the memtable.
    fn key_of(&self, id: &ConversationId) -> Result<Option<u64>, Failure> {
        let known = self.recent.pieces.get(id).and_then(|pieces| pieces.iter().find_map(|piece| piece.key));
        // The checkpoint may have given the conversation a key meanwhile.
        match (known, self.changed(id)) {
            (Some(key), _) => Ok(Some(key)),
            (None, Some(changed)) => match self.tables.key_of_life(id, changed.life) {
                Err(Failure::Record(_)) => self.tables.search_key_of(id),
                key => key,
            },
            (None, None) => self.tables.search_key_of(id),
        }
    }

    /// Returns the candidates of a page by latest activity: from the table by activity and from the memtable.
    fn recent(&self, left_out: &mut LeftOut) -> Result<Vec<Found>, Failure> {
        let mut page = Vec::new();
        for id in self.recent.pieces.keys() {
            let Some(record) = self.changed(id) else { continue };
            let found = Found::of(self.question, listed(record.clone(), ConversationSums::default()), None);
            page.extend(found);
        }
        let after = self.question.after.as_ref();
        let after = after.map(|after| {
            let moment = after.rank().and_then(|rank| u64::try_from(rank).ok()).unwrap_or_default();
            (inverted(EpochMillis::new(moment)), after.conversation_id().as_str())
        });
        // Rows are in descending order of moments, so the range begins at the latest moment and ends at the earliest.
        let bounds = self.question.last_at;
        let first = bounds.map_or(0, |(_, to)| inverted(EpochMillis::new(to.get().saturating_sub(1))));
        let last = bounds.map_or(u64::MAX, |(from, _)| inverted(from));
        let from = match after {
            Some(after) if after.0 >= first => Bound::Excluded(after),
            _ => Bound::Included((first, "")),
        };
        let mut found = 0;
        for entry in self.tables.activity()?.range::<(u64, &str)>((from, Bound::Unbounded))? {
            let (place, key) = entry?;
            let (moment, id) = place.value();
            if found == self.question.limit || moment > last {
                break;
            }
            let Ok(id) = ConversationId::new(id) else { continue };
            if self.recent.pieces.contains_key(&id) {
                continue;
            }
            let key = match key.value().verify(&place.value()).and_then(decode_key) {
                Ok(key) => key,
                Err(damaged) => {
                    left_out.add(&damaged, || format!("conversation {id}"));
                    continue;
                }
            };
            let record = match self.tables.conversation(key) {
                // When a record replaces a damaged one, the row by activity of the damaged record stays, as its moment
                // is unknown.
                Ok(record) if record.activity() != Some(place.value()) => {
                    left_out.add(&DamagedRecord::new("place by activity", RecordFlaw::OtherPlace), || {
                        format!("conversation {id}")
                    });
                    continue;
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
        }
        page.sort_unstable();
        page.truncate(self.question.limit);
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
            listed.sums = self.with_recent(&(id.clone(), *life), sums);
        }
        Ok(page)
    }

    /// Returns the candidates of a page in another order. Reads all conversations, and keeps only as many as a page
    /// has.
    fn ranked(&self, left_out: &mut LeftOut) -> Result<Vec<Found>, Failure> {
        let limit = self.question.limit;
        // The last conversation of the page so far is at the top of the heap.
        let mut page = BinaryHeap::new();
        let mut add = |listed, key| {
            page.extend(Found::of(self.question, listed, key));
            if page.len() > limit {
                page.pop();
            }
        };
        let mut in_tables = HashSet::new();
        let of_generation = (self.generation, 0)..=(self.generation, u64::MAX);
        let mut sums_of = self.rollups.conversations.range(of_generation)?.peekable();
        for entry in self.tables.conversations()?.iter()? {
            let (key, record) = entry?;
            let key = key.value();
            let mut sums = ConversationSums::default();
            // The rows of both tables are in the order of the conversations' keys.
            while let Some(row) = sums_of.next_if(|row| row.as_ref().map_or(true, |(of, _)| of.value().1 <= key)) {
                let (of, stored) = row?;
                if of.value().1 == key {
                    match decode::<ConversationSumRows, _>(&of.value(), stored.value()) {
                        Ok(stored) => sums = stored,
                        Err(damaged) => left_out.add(&damaged, || format!("the sums of conversation #{key}")),
                    }
                }
            }
            match record.value().verify(&key).and_then(ConversationRecord::decode) {
                Ok(record) => {
                    let changed = self.changed(&record.id).cloned();
                    if changed.as_ref().is_some_and(|changed| changed.life != record.life) {
                        // This life was erased. The next one has nothing in the tables yet.
                        continue;
                    }
                    let sums = self.with_recent(&(record.id.clone(), record.life), sums);
                    if changed.is_some() {
                        in_tables.insert(record.id.clone());
                    }
                    add(listed(changed.unwrap_or(record), sums), Some(key));
                }
                Err(damaged) => left_out.add(&damaged, || format!("conversation #{key}")),
            }
        }
        for id in self.recent.pieces.keys().filter(|id| !in_tables.contains(*id)) {
            if let Some(record) = self.changed(id) {
                let sums = self.with_recent(&(id.clone(), record.life), ConversationSums::default());
                add(listed(record.clone(), sums), None);
            }
        }
        Ok(page.into_sorted_vec())
    }

    /// Returns the number of open turns of a conversation: those in the tables, overlaid by the memtable.
    fn open_turns(&self, id: &ConversationId, key: Option<u64>) -> Result<usize, Failure> {
        let mut is_open: HashMap<String, bool> = HashMap::new();
        if let Some(key) = key {
            for row in self.tables.open_turns()?.range((key, "")..)? {
                let (place, _) = row?;
                let (of, turn_id) = place.value();
                if of != key {
                    break;
                }
                is_open.insert(turn_id.to_owned(), true);
            }
        }
        for (turn_id, change) in self.recent.pieces.get(id).into_iter().flatten().flat_map(|piece| piece.changes()) {
            is_open.insert(turn_id.to_owned(), matches!(change, Change::Open(_)));
        }
        Ok(is_open.into_values().filter(|is_open| *is_open).count())
    }
}
