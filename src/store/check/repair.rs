use std::collections::{BTreeMap, BTreeSet};

use redb::{Database, ReadableTable, Table, WriteTransaction};

use super::inspect::count;
use crate::store::Version;
use crate::store::record::{self, Conversation};
use crate::store::schema::{
    CONVERSATIONS, Failure, KEYS, LOST_OPEN_TURNS, LOST_TURNS, META, META_NEXT_KEY, OPEN_TURNS, ORDINALS, TURNS,
};
use crate::turn::Ordinal;

/// The most missing turns that are noted: a wild ordinal must not have the repair write for ever.
const MOST_GAPS: usize = 1_000_000;

/// Makes everything agree with the turns that are there, in one transaction.
///
/// The turns are the truth. What of them cannot be read, or is there a second time, is moved aside, and its ordinal is
/// not given again. A gap is noted likewise. Rows of a key that no conversation has are left for a person to look at.
pub(super) fn derive(database: &Database) -> Result<(), Failure> {
    let mut txn = database.begin_write()?;
    txn.set_quick_repair(true);
    let ids = keys(&txn)?;
    for (key, id) in &ids {
        Repair::of(&txn, *key)?.run(id)?;
    }
    let last = ids.keys().next_back().copied().unwrap_or_default();
    let mut meta = txn.open_table(META)?;
    let next = meta.get(META_NEXT_KEY)?.and_then(|bytes| bytes.value().try_into().ok()).map(u64::from_le_bytes);
    if next.is_none_or(|next| next <= last) {
        meta.insert(META_NEXT_KEY, last.saturating_add(1).to_le_bytes().as_slice())?;
    }
    drop(meta);
    Ok(txn.commit()?)
}

/// Each key's id. A record whose id has no key gets it back.
fn keys(txn: &WriteTransaction) -> Result<BTreeMap<u64, String>, Failure> {
    let mut keys = txn.open_table(KEYS)?;
    let mut ids = BTreeMap::new();
    for row in keys.iter()? {
        let (id, key) = row?;
        ids.entry(key.value()).or_insert_with(|| id.value().to_owned());
    }
    for row in txn.open_table(CONVERSATIONS)?.iter()? {
        let (key, record) = row?;
        if let (false, Ok(record)) = (ids.contains_key(&key.value()), Conversation::decode(record.value()))
            && keys.get(&*record.id)?.is_none()
        {
            keys.insert(&*record.id, key.value())?;
            ids.insert(key.value(), record.id);
        }
    }
    Ok(ids)
}

/// The repair of one conversation.
struct Repair<'txn> {
    key: u64,
    conversations: Table<'txn, u64, &'static [u8]>,
    turns: Table<'txn, (u64, u64), &'static [u8]>,
    ordinals: Table<'txn, (u64, &'static str), u64>,
    open_turns: Table<'txn, (u64, &'static str), &'static [u8]>,
    lost: Table<'txn, (u64, u64), &'static [u8]>,
    lost_open: Table<'txn, (u64, &'static str), &'static [u8]>,
}

impl<'txn> Repair<'txn> {
    fn of(txn: &'txn WriteTransaction, key: u64) -> Result<Self, Failure> {
        Ok(Self {
            key,
            conversations: txn.open_table(CONVERSATIONS)?,
            turns: txn.open_table(TURNS)?,
            ordinals: txn.open_table(ORDINALS)?,
            open_turns: txn.open_table(OPEN_TURNS)?,
            lost: txn.open_table(LOST_TURNS)?,
            lost_open: txn.open_table(LOST_OPEN_TURNS)?,
        })
    }

    fn run(mut self, id: &str) -> Result<(), Failure> {
        let sound = self.turns()?;
        self.index(&sound)?;
        self.open_turns()?;
        self.record(id)
    }

    /// Moves aside what is no sound turn, and gives the others' ids and ordinals.
    fn turns(&mut self) -> Result<BTreeMap<String, u64>, Failure> {
        let mut sound = BTreeMap::new();
        let mut aside = Vec::new();
        for row in self.turns.range((self.key, 0)..=(self.key, u64::MAX))? {
            let (place, value) = row?;
            let (_, ordinal) = place.value();
            let turn = Ordinal::new(ordinal).map(|at| record::decode_sealed(at, value.value()));
            match turn {
                Some(Ok(turn)) if !sound.contains_key(turn.metrics.turn_id.as_str()) => {
                    sound.insert(turn.metrics.turn_id.as_str().to_owned(), ordinal);
                }
                _ => aside.push((ordinal, value.value().to_vec())),
            }
        }
        for (ordinal, bytes) in aside {
            self.turns.remove((self.key, ordinal))?;
            self.lost.insert((self.key, ordinal), &*bytes)?;
        }
        Ok(sound)
    }

    /// Makes the index that of the turns. What it names and is moved aside stays, so that it is not sealed again.
    fn index(&mut self, sound: &BTreeMap<String, u64>) -> Result<(), Failure> {
        let mut gone = Vec::new();
        let mut rows = 0;
        for row in self.ordinals.range((self.key, "")..)? {
            let (place, ordinal) = row?;
            let (key, turn_id) = place.value();
            if key != self.key {
                break;
            }
            rows += 1;
            if !sound.contains_key(turn_id) && self.lost.get((key, ordinal.value()))?.is_none() {
                gone.push((turn_id.to_owned(), ordinal.value()));
            }
        }
        for (turn_id, _) in &gone {
            self.ordinals.remove((self.key, turn_id.as_str()))?;
        }
        for (turn_id, ordinal) in sound {
            self.ordinals.insert((self.key, turn_id.as_str()), ordinal)?;
        }
        let counted = count(&self.turns, Some(&self.lost), self.key)?;
        // An ordinal that the index knows was given, unless the row itself is wild.
        let given = gone.iter().map(|(_, ordinal)| *ordinal).filter(|ordinal| *ordinal <= counted.last + rows).max();
        let last = counted.last.max(given.unwrap_or_default());
        let there: BTreeSet<_> = sound.values().copied().collect();
        for ordinal in (1..=last).filter(|ordinal| !there.contains(ordinal)).take(MOST_GAPS) {
            if self.lost.get((self.key, ordinal))?.is_none() {
                self.lost.insert((self.key, ordinal), b"".as_slice())?;
            }
        }
        Ok(())
    }

    /// Drops open turns that are sealed, and moves aside those that cannot be read.
    fn open_turns(&mut self) -> Result<(), Failure> {
        let mut gone = Vec::new();
        for row in self.open_turns.range((self.key, "")..)? {
            let (place, value) = row?;
            let (key, turn_id) = place.value();
            if key != self.key {
                break;
            }
            let sealed = self.ordinals.get((key, turn_id))?.is_some();
            let sound = record::decode_staged(value.value()).is_ok_and(|staged| staged.turn.id.as_str() == turn_id);
            if sealed || !sound {
                gone.push((turn_id.to_owned(), (!sealed).then(|| value.value().to_vec())));
            }
        }
        for (turn_id, aside) in gone {
            self.open_turns.remove((self.key, turn_id.as_str()))?;
            if let Some(bytes) = aside {
                self.lost_open.insert((self.key, turn_id.as_str()), &*bytes)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, id: &str) -> Result<(), Failure> {
        let counted = count(&self.turns, Some(&self.lost), self.key)?;
        let known = self.conversations.get(self.key)?.and_then(|record| Conversation::decode(record.value()).ok());
        // Nobody holds a version while the store is stopped, so any will do but 0, which is for the unknown.
        let version = known.map_or(0, |known| known.version.0).max(1);
        let record = Conversation {
            id: id.to_owned(),
            version: Version(version),
            sealed_turns: counted.last,
            total_usage: counted.total_usage,
        };
        self.conversations.insert(self.key, &*record.encode()?)?;
        Ok(())
    }
}
