use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use super::{LeftOut, last_ordinal};
use crate::store::contract::{ActiveConversation, ActivityPlace};
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::piece::Piece;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::read::{ReadTables, decode_key};
use crate::store::redb::tables::record::conversation::{ConversationRecord, inverted, moment_of};
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::turn::ConversationId;

/// A page of the conversations by their latest activity: the latest piece of each that is in the memtable. They are taken
/// by reference count, as no commit gets on meanwhile.
pub(crate) struct ActivityQuery(Vec<Arc<Piece>>);

impl ActivityQuery {
    pub(crate) fn of(memtable: &Memtable) -> Self {
        Self(memtable.contents().latest().cloned().collect())
    }

    /// Returns the conversations after a place. Where the memtable has a conversation, its row in the tables is passed
    /// over.
    pub(crate) fn read(
        self,
        tables: &ReadTables,
        after: Option<&ActivityPlace>,
        limit: usize,
        left_out: &mut LeftOut,
    ) -> Result<Vec<ActiveConversation>, Failure> {
        let conversations = || self.0.iter().map(|piece| &piece.conversation);
        let changed: HashSet<_> = conversations().map(|conversation| &conversation.id).collect();
        let recent = conversations().filter(|conversation| conversation.sealed_turns > 0).map(row);
        let mut page: Vec<_> = recent.filter(|row| after.is_none_or(|after| row.place() > *after)).collect();
        let from = after.map(|after| (inverted(after.last_at()), after.conversation_id().as_str()));
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = 0;
        for entry in tables.activity()?.range::<(u64, &str)>((from, Bound::Unbounded))? {
            if found == limit {
                break;
            }
            let (place, key) = entry?;
            let (moment, id) = place.value();
            let Ok(id) = ConversationId::new(id) else { continue };
            if changed.contains(&id) {
                continue;
            }
            let key = match key.value().verify(&place.value()).and_then(decode_key) {
                Ok(key) => key,
                Err(damaged) => {
                    left_out.add(&damaged, || format!("conversation {id}"));
                    continue;
                }
            };
            let sealed_turns = match tables.conversation(key) {
                // A record that replaced a damaged one could not remove the row of that.
                Ok(record) if record.activity() != Some(place.value()) => {
                    left_out.add(&DamagedRecord::new("place by activity", RecordFlaw::OtherPlace), || {
                        format!("conversation {id}")
                    });
                    continue;
                }
                Ok(record) => record.sealed_turns,
                Err(Failure::Record(damaged)) => {
                    left_out.add(&damaged, || format!("conversation {id}"));
                    last_ordinal(tables, key)?
                }
                Err(failure) => return Err(failure),
            };
            found += 1;
            page.push(ActiveConversation { conversation_id: id, last_at: moment_of(moment), sealed_turns });
        }
        page.sort_by_cached_key(ActiveConversation::place);
        page.truncate(limit);
        Ok(page)
    }
}

fn row(conversation: &ConversationRecord) -> ActiveConversation {
    ActiveConversation {
        conversation_id: conversation.id.clone(),
        last_at: conversation.last_at,
        sealed_turns: conversation.sealed_turns,
    }
}
