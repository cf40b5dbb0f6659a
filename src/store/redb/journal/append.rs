//! Turns a batch of jobs into one row of the journal, and makes it durable.

use std::time::Duration;

use redb::{ReadableTable, WriteTransaction};

use super::entry::{Entry, encode_row};
use crate::store::contract::CommitError;
use crate::store::redb::files::slot::Files;
use crate::store::redb::tables::meta::{Failure, META, META_WRITE_CHECK, ROWS, write_running_time};
use crate::store::redb::writer::draft::Draft;
use crate::store::redb::writer::job::{Answer, Job};
use crate::turn::RunningTime;

/// The outcome of a batch of jobs.
pub(crate) struct Drafted {
    pub(crate) answers: Vec<Answer>,
    pub(crate) entries: Vec<Entry>,
    /// The journal row to append.
    pub(crate) row: u64,
    /// The last row that is no longer needed.
    pub(crate) trim: u64,
}

pub(crate) fn draft(files: &Files, batch: &[Job], has_room: bool) -> Result<Drafted, Failure> {
    let image = files.image();
    let tables = files.read_tables()?;
    let mut draft = Draft::new(&image, &tables);
    let mut answers = Vec::with_capacity(batch.len());
    for job in batch {
        answers.push(match job {
            Job::Commit(..) if !has_room => Err(CommitError::Overloaded),
            Job::Commit(commit, ..) => draft.apply(commit)?.map(Some),
            Job::CheckWrite(_) | Job::Tick(..) | Job::Close(_) => Ok(None),
        });
    }
    Ok(Drafted { answers, entries: draft.into_entries(), row: image.last_row() + 1, trim: image.checkpoint() })
}

/// How many rows that are no longer needed are dropped with each appended row: more than one, so that their number
/// falls, but few, so that no commit waits for it.
const TRIMMED_ROWS: usize = 8;

/// Appends a row to the journal and returns its size. When this returns `Ok`, the row is durable.
pub(crate) fn append(
    files: &Files,
    entries: &[Entry],
    touches: bool,
    ticked: Option<RunningTime>,
    row: u64,
    trim: u64,
) -> Result<usize, Failure> {
    let txn = files.write_journal()?;
    let mut row_bytes = 0;
    if touches {
        touch(&txn)?;
    }
    if let Some(running) = ticked {
        write_running_time(&mut txn.open_table(META)?, running)?;
    }
    if !entries.is_empty() {
        let mut rows = txn.open_table(ROWS)?;
        for _ in 0..TRIMMED_ROWS {
            if rows.first()?.is_none_or(|(first, _)| first.value() > trim) {
                break;
            }
            rows.pop_first()?;
        }
        let encoded = encode_row(entries)?;
        rows.insert(row, &*encoded)?;
        row_bytes = encoded.len();
    }
    txn.commit()?;
    if let Some(running) = ticked {
        files.set_running_time(running);
    }
    Ok(row_bytes)
}

/// The running time after the ticks of the batch; `None` if it has none.
pub(crate) fn ticked(running: RunningTime, batch: &[Job]) -> Option<RunningTime> {
    let elapsed = batch.iter().filter_map(|job| if let Job::Tick(elapsed, _) = job { Some(*elapsed) } else { None });
    let elapsed = elapsed.reduce(Duration::saturating_add)?;
    Some(running.saturating_add(elapsed))
}

/// Writes a value so that a durable commit of it shows that writes work.
pub(crate) fn touch(txn: &WriteTransaction) -> Result<(), Failure> {
    let mut meta = txn.open_table(META)?;
    let previous = meta.get(META_WRITE_CHECK)?.and_then(|bytes| bytes.value().try_into().ok());
    let count = previous.map_or(0, u64::from_le_bytes).wrapping_add(1);
    meta.insert(META_WRITE_CHECK, count.to_le_bytes().as_slice())?;
    Ok(())
}
