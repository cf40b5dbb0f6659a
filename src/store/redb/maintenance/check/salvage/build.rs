//! Builds the new main file.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use redb::{Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableHandle, WriteTransaction};
use uuid::Uuid;

use super::choose::{self, DroppedTo, ErasedKeys, Ids, OpenTurnName};
use super::journal::{self, Expected, Rebuilt};
use super::pages::PageFile;
use super::rows::{FOUND, keep_lacking, store_id_in, take_found, take_reached, wanted};
use super::source::{JournalSource, MainSource};
use super::walk::{scan, walk};
use crate::store::contract::Version;
use crate::store::redb::checkpoint::transfer::Transfer;
use crate::store::redb::files::file::create_database;
use crate::store::redb::files::header::StoreHeader;
use crate::store::redb::files::misfit::Misfit;
use crate::store::redb::files::open_error::{OpenError, failed};
use crate::store::redb::files::replay::{Replayed, replay, replay_at_any_position};
use crate::store::redb::journal::chain::read_row;
use crate::store::redb::journal::entry::decode_row;
use crate::store::redb::maintenance::check::facts;
use crate::store::redb::maintenance::check::loss::Loss;
use crate::store::redb::maintenance::check::lost::{
    Names, Range, lost_names, lost_open_turns, lost_ranges, lost_turns,
};
use crate::store::redb::maintenance::check::repair::derive;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::{META, ReadMeta, WriteMeta};
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::row::{self, Rows};
use crate::store::redb::tables::schema::{
    CONVERSATIONS, Conversations, DroppedTurns, ERASURES, ErasedCosts, ErasedRollups, ImportedSums, KEYS,
    LOST_JOURNAL_ROWS, LOST_TURNS, OPEN_TURNS, OpenTurns, Positions, ROWS, TURNS, Turns, copy_tables, count_live_bytes,
    make_tables,
};
use crate::store::redb::tables::write::begin_write;
use crate::turn::RunningTime;

/// The cache of the new file. Rows that do not fit into it are written before the transaction ends.
const CACHE_BYTES: usize = 64 << 20;

/// What the tables of the damaged main file had.
struct Staged {
    expected: Expected,
    running: RunningTime,
    /// The turns that were lost before.
    lost_before: Vec<Range>,
    /// The turns that were erased.
    erased: Vec<Range>,
    /// Losses without a name.
    unknown: Vec<Loss>,
    /// The open turns that may be of an earlier time.
    old: BTreeSet<OpenTurnName>,
    /// Whether the tables may lack rows, so that no position can be expected in the journal.
    is_partial: bool,
}

/// Builds a main file that needs no journal, at the path `new`. Returns what is lost.
pub(super) fn build(
    paths: [&Path; 2],
    new: &Path,
    main: &MainSource<'_>,
    journal: &JournalSource<'_>,
) -> Result<Vec<Loss>, OpenError> {
    let [main_path, journal_path] = paths;
    let failed_main = |failure: Failure| failed(main_path, failure);
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    let database = create_database(&builder, new).map_err(|error| failed(new, Failure::from(error)))?;
    let txn = begin_write(&database).map_err(failed_main)?;
    let (mut staged, ids) = match main {
        MainSource::Sound(main) => (copied(main, &txn).map_err(failed_main)?, None),
        MainSource::Damaged(file) => {
            let (staged, ids, erased) = scanned(file, &txn).map_err(failed_main)?;
            (staged, Some((ids, erased)))
        }
    };
    let rebuilt;
    let (found, rebuilt) = match journal {
        JournalSource::Missing => (None, None),
        JournalSource::Sound(journal) => {
            check_id(journal, journal_path, &staged.expected)?;
            (Some(*journal), None)
        }
        JournalSource::Damaged(file) => {
            rebuilt = journal::rebuild(journal_path, file, &staged.expected)?;
            (Some(&rebuilt.database), Some(&rebuilt))
        }
    };
    if let Some((ids, erased)) = ids {
        (staged.old, staged.erased) = complete(&txn, ids, &erased, found, &staged).map_err(failed_main)?;
    }
    txn.commit().map_err(|error| failed_main(error.into()))?;
    let replayed = match found {
        Some(journal) => {
            Some(replayed(&database, journal, &mut staged).map_err(|failure| failed(journal_path, failure))?)
        }
        None => None,
    };
    let txn = begin_write(&database).map_err(failed_main)?;
    let losses = finish(&txn, staged, replayed, rebuilt).map_err(failed_main)?;
    txn.commit().map_err(|error| failed_main(error.into()))?;
    database.close().map_err(|error| failed(new, Failure::from(error)))?;
    Ok(losses)
}

/// Copies the tables of a sound main file.
fn copied(main: &Database, txn: &WriteTransaction) -> Result<Staged, Failure> {
    copy_tables(&main.begin_read()?, txn)?;
    let header = StoreHeader::of(main)?;
    Ok(Staged {
        expected: Expected {
            store_ids: vec![header.bond.store_id],
            journal_id: header.bond.journal_id,
            needs_journal: header.bond.journal_id.is_some(),
            marks: Some([header.checkpoint, header.newest]),
        },
        running: ReadMeta::of(main)?.running_time()?,
        lost_before: lost_ranges(txn)?,
        erased: Vec::new(),
        unknown: Vec::new(),
        old: BTreeSet::new(),
        is_partial: false,
    })
}

/// Stages what the pages of a damaged main file have.
fn scanned(file: &PageFile, txn: &WriteTransaction) -> Result<(Staged, Ids, ErasedKeys), Failure> {
    make_tables(txn)?;
    txn.open_table(LOST_TURNS)?;
    txn.open_table(FOUND)?;
    let reached = walk(file, &wanted()?, &mut |table, leaf, is_sound| take_reached(txn, table, leaf, is_sound))?;
    let mut store_ids = Vec::new();
    keep_lacking(txn, &reached)?;
    if !reached.is_whole() {
        scan(file, &reached, |page| take_found(txn, &reached, page, &mut store_ids))?;
    }
    let meta = WriteMeta::write(txn)?;
    let known_id = meta.store_id().ok();
    let marks = meta.checkpoint().and_then(|checkpoint| Ok([checkpoint, meta.newest()?])).ok();
    drop(meta);
    let may_need_journal = facts::mend(txn)?;
    if let Some(store_id) = known_id {
        store_ids = vec![store_id];
    } else {
        if reached.is_whole() {
            scan(file, &reached, |page| {
                store_ids.extend(store_id_in(page));
                Ok(None)
            })?;
        }
        // The id that most pages have is first.
        let count = |id: &Uuid| store_ids.iter().filter(|other| *other == id).count();
        let best = store_ids.iter().copied().max_by_key(count);
        store_ids.sort();
        store_ids.dedup();
        if let Some(place) = best.and_then(|best| store_ids.iter().position(|id| *id == best)) {
            store_ids.swap(0, place);
            WriteMeta::write(txn)?.set_store_id(store_ids[0])?;
        }
    }
    let meta = WriteMeta::write(txn)?;
    let (running, journal_id) = (meta.running_time()?, meta.bound_journal()?);
    drop(meta);
    let needs_journal = journal_id.is_some() || may_need_journal || reached.lacks(META.name());
    let lost_before = lost_ranges(txn)?;
    choose::sums(txn)?;
    let erased_keys = choose::erased_keys(txn, &reached)?;
    let ids = choose::keys(txn, &erased_keys)?;
    let expected = Expected { store_ids, journal_id, needs_journal, marks };
    let is_partial = !reached.is_whole();
    let mut unknown = Vec::new();
    if [Turns::NAME, Conversations::NAME, Positions::NAME].iter().all(|table| reached.lacks(table)) {
        unknown.push(Loss::UnknownTurns);
    }
    if reached.lacks(OpenTurns::NAME) {
        unknown.push(Loss::UnknownOpenTurns);
    }
    if reached.lacks(DroppedTurns::NAME) {
        unknown.push(Loss::NotesOfDroppedTurns);
    }
    // The turns of an erased conversation that are not removed yet count for the sums of erased turns.
    let is_erasing = !txn.open_table(ERASURES)?.is_empty()?;
    if reached.lacks(ErasedRollups::NAME)
        || reached.lacks(ErasedCosts::NAME)
        || is_erasing && reached.lacks(Turns::NAME)
    {
        unknown.push(Loss::SumsOfErasedTurns);
    }
    if reached.lacks(ImportedSums::NAME) {
        unknown.push(Loss::NotesOfImportedSums);
    }
    let (erased, old) = (Vec::new(), BTreeSet::new());
    Ok((Staged { expected, running, lost_before, erased, unknown, old, is_partial }, ids, erased_keys))
}

/// Completes the tables with what was found, and notes what is missing. Returns the open turns that may be of an
/// earlier time, and the erased turns.
fn complete(
    txn: &WriteTransaction,
    mut ids: Ids,
    erased_keys: &ErasedKeys,
    journal: Option<&Database>,
    staged: &Staged,
) -> Result<(BTreeSet<OpenTurnName>, Vec<Range>), Failure> {
    let Expected { store_ids, marks, .. } = &staged.expected;
    let checkpoint = marks.map_or(0, |[checkpoint, _]| checkpoint.number);
    choose::conversations(txn, &ids)?;
    let erased = choose::positions(txn)?;
    let dropped = choose::dropped_turns(txn)?;
    choose::turns(txn, &ids, &erased, &dropped)?;
    if let Some(journal) = journal {
        turns_of_journal(txn, &ids, journal, &erased, &dropped)?;
        if store_ids.is_empty() {
            WriteMeta::write(txn)?.set_store_id(ReadMeta::of(journal)?.store_id()?)?;
        }
    }
    choose::drop_erased(txn, &mut ids, &erased)?;
    choose::note_lost(txn, &ids, erased_keys, &erased)?;
    choose::index(txn, &ids, erased_keys)?;
    let repair = WriteMeta::write(txn)?.next_repair()?;
    choose::set_unnamed_aside(txn, &ids, erased_keys, repair)?;
    let old = choose::open_turns(txn, &ids)?;
    txn.delete_table(FOUND)?;
    let last_id = ids.last_key_value().map(|(key, _)| *key);
    let last = [last_id, erased_keys.last().copied(), lost_ranges(txn)?.last().map(|range| range.key)];
    let mut last = last.into_iter().flatten().max().unwrap_or_default();
    if let Some(journal) = journal.filter(|_| staged.is_partial) {
        last = conversations_of_journal(txn, &ids, journal, checkpoint, last)?;
    }
    let mut meta = WriteMeta::write(txn)?;
    if meta.next_key().map_or(true, |next| next <= last) {
        meta.set_next_key(last.saturating_add(1))?;
    }
    let erased = erased.into_iter().map(|(key, ordinal)| Range { key, first: ordinal, last: ordinal });
    Ok((old, erased.collect()))
}

/// Takes sealed turns that the tables lack from rows of the journal, which may still be there after the checkpoint.
fn turns_of_journal(
    txn: &WriteTransaction,
    ids: &Ids,
    journal: &Database,
    erased: &BTreeSet<(u64, u64)>,
    dropped: &DroppedTo,
) -> Result<(), Failure> {
    let (mut turns, lost) = (txn.open_table(TURNS)?, txn.open_table(LOST_TURNS)?);
    let records = txn.open_table(CONVERSATIONS)?;
    let keys: HashMap<_, _> = ids.iter().map(|(key, id)| (id, *key)).collect();
    for row in journal.begin_read()?.open_table(ROWS)?.iter()? {
        let (number, row) = row?;
        let Ok(entries) = read_row(number.value(), row.value()).and_then(|row| decode_row(row.entries)) else {
            continue;
        };
        for entry in entries {
            let Some(key) = keys.get(&entry.conversation.id).copied() else { continue };
            let record = records.get(key)?;
            let record = record.and_then(|row| ConversationRecord::decode(row.value().verify(&key).ok()?).ok());
            // Later turns are replayed. Turns of another life are other turns.
            let Some(record) = record.filter(|record| record.life == entry.conversation.life) else { continue };
            for (ordinal, sealed) in (entry.sealed_before() + 1..).zip(&entry.sealed) {
                let place = (key, ordinal);
                let is_gone = erased.contains(&place) || choose::is_dropped(dropped, place);
                let is_wanted = ordinal <= record.sealed_turns && !is_gone;
                if is_wanted && turns.get(place)?.is_none() && lost.get(place)?.is_none() {
                    turns.insert(place, row::seal(&place, &mut sealed.to_vec()))?;
                }
            }
        }
    }
    Ok(())
}

/// Makes records of the conversations that only the journal has, although they are older than its rows: their records were
/// lost. Without such a record, no commit to the conversation could be replayed. The turns from before the journal are
/// noted as lost. `last` is the highest key that was ever given, as far as it is known. Returns it anew.
fn conversations_of_journal(
    txn: &WriteTransaction,
    ids: &Ids,
    journal: &Database,
    checkpoint: u64,
    mut last: u64,
) -> Result<u64, Failure> {
    let (mut keys, mut records) = (txn.open_table(KEYS)?, txn.open_table(CONVERSATIONS)?);
    let (erasures, mut lost_turns) = (txn.open_table(ERASURES)?, txn.open_table(LOST_TURNS)?);
    let mut known: HashSet<_> = ids.values().cloned().collect();
    for row in journal.begin_read()?.open_table(ROWS)?.range(checkpoint.saturating_add(1)..)? {
        let (number, row) = row?;
        let Ok(entries) = read_row(number.value(), row.value()).and_then(|row| decode_row(row.entries)) else {
            continue;
        };
        for entry in entries {
            let (sealed_before, mut record) = (entry.sealed_before(), entry.conversation);
            let life = entry.erased.unwrap_or(record.life);
            if erasures.get(life.0)?.is_some() || !known.insert(record.id.clone()) {
                continue;
            }
            let is_new = entry.erased.is_none() && record.version.0 <= 1;
            if is_new {
                continue;
            }
            last = last.saturating_add(1);
            // The record before the commit, as far as a replay needs it. The rest is computed from the turns.
            (record.life, record.sealed_turns) = (life, sealed_before);
            record.version = Version(record.version.0.saturating_sub(1).max(1));
            let id = record.id.as_str();
            keys.insert(id, row::seal(&id, &mut last.to_le_bytes().to_vec()))?;
            records.insert(last, row::seal(&last, &mut record.encode()?))?;
            for ordinal in (record.begins_after.saturating_add(1)..=sealed_before).take(choose::MOST_MISSING) {
                lost_turns.insert((last, ordinal), [].as_slice())?;
            }
        }
    }
    Ok(last)
}

/// Returns an error if a sound journal belongs to another main file.
fn check_id(journal: &Database, path: &Path, expected: &Expected) -> Result<(), OpenError> {
    let read = || {
        let meta = ReadMeta::of(journal)?;
        Ok::<_, Failure>((meta.store_id()?, meta.journal_id()?))
    };
    let (store_id, journal_id) = read().map_err(|failure| failed(path, failure))?;
    let of_another = |cause| Err(OpenError::JournalOfAnother { path: path.to_owned(), cause, is_complete: false });
    if !expected.store_ids.is_empty() && !expected.store_ids.contains(&store_id) {
        return of_another(Misfit::OtherStore);
    }
    if expected.journal_id.is_some_and(|expected| expected != journal_id) {
        return of_another(Misfit::OtherJournal);
    }
    Ok(())
}

/// Replays the journal over the staged tables.
fn replayed(database: &Database, journal: &Database, staged: &mut Staged) -> Result<Replayed, Failure> {
    let meta = ReadMeta::of(journal)?;
    staged.running = staged.running.max(meta.running_time()?);
    let checkpoint = match staged.expected.marks {
        Some([checkpoint, _]) => checkpoint,
        // Commits that the tables have already are passed over by their versions.
        None => meta.base()?,
    };
    let tables = ReadTables::new(database.begin_read()?, TurnHasher::of(ReadMeta::of(database)?.store_id()?));
    let replay = if staged.is_partial { replay_at_any_position } else { replay };
    replay(journal, &tables, checkpoint)
}

/// Writes the replayed commits into the tables, makes the tables agree with their turns, and returns what is lost.
fn finish(
    txn: &WriteTransaction,
    staged: Staged,
    replayed: Option<Replayed>,
    rebuilt: Option<&Rebuilt>,
) -> Result<Vec<Loss>, Failure> {
    let Staged { expected, running, lost_before, erased, unknown, old, .. } = staged;
    let meta = WriteMeta::write(txn)?;
    let (repair, hasher) = (meta.next_repair()?, TurnHasher::of(meta.store_id()?));
    drop(meta);
    let mut losses = unknown;
    let needs_journal = expected.needs_journal;
    let mut last = expected.marks.map_or_else(JournalMark::default, |[checkpoint, _]| checkpoint);
    match replayed {
        Some(Replayed { memtable, damaged, unplaced }) => {
            let known = rebuilt.map_or(0, |rebuilt| rebuilt.last);
            let mut next = memtable.last_row().number.max(known).saturating_add(1);
            write_pieces(txn, &memtable, hasher)?;
            last = memtable.last_row();
            for row in damaged.into_iter().chain(unplaced) {
                txn.open_table(LOST_JOURNAL_ROWS)?.insert((repair, row.number), &*row.bytes)?;
                losses.extend(row.flaws().map(|(number, flaw)| Loss::of_row(number, flaw)));
            }
            let newest = expected.newest();
            if newest.number >= next {
                losses.push(Loss::JournalRows { first: next, last: newest.number });
                (last, next) = (newest, newest.number.saturating_add(1));
            }
            if rebuilt.is_some_and(|rebuilt| rebuilt.lacks_end) {
                losses.push(Loss::JournalEnd { last: next - 1 });
            }
        }
        None if needs_journal => losses.push(Loss::JournalEnd { last: last.number }),
        None => {}
    }
    let mut meta = WriteMeta::write(txn)?;
    meta.set_running_time(running.max(meta.running_time()?))?;
    meta.release_journal(last)?;
    drop(meta);
    derive(txn)?;
    let kept = choose::set_uncertain_aside(txn, old, repair)?;
    WriteMeta::write(txn)?.set_live_bytes(count_live_bytes(txn)?)?;
    let mut of_turns = of_turns(txn, &lost_before, &erased, kept, repair)?;
    of_turns.retain(|loss| !losses.contains(loss));
    losses.splice(0..0, of_turns);
    Ok(losses)
}

fn write_pieces(txn: &WriteTransaction, memtable: &Memtable, hasher: TurnHasher) -> Result<(), Failure> {
    let (pieces, runs) = (memtable.contents().all().cloned().collect(), memtable.runs().cloned().collect());
    let last = memtable.last_row();
    // The sums are computed from the turns afterwards.
    let transfer = Transfer { pieces, runs, checkpoint: Some(last), newest: last, last_row: last.number, sums: None };
    transfer.write(txn, hasher)?;
    Ok(())
}

/// Names the turns that this repair has lost.
fn of_turns(
    txn: &WriteTransaction,
    before: &[Range],
    erased: &[Range],
    old: Vec<OpenTurnName>,
    repair: u64,
) -> Result<Vec<Loss>, Failure> {
    let mut losses = lost_turns(txn, before, erased)?;
    losses.extend(lost_names(txn, repair)?);
    losses.extend(lost_open_turns(txn, repair)?);
    let names = Names::of(txn)?;
    let heads = txn.open_table(OPEN_TURNS)?;
    for (key, turn_id) in old {
        if heads.get((key, turn_id.as_str()))?.is_some() {
            losses.push(Loss::LatestEvents { conversation: names.name(key)?, turn_id });
        }
    }
    Ok(losses)
}
