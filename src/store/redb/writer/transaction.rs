use std::time::Duration;

use super::job::{Job, JobResult};
use super::write_set::WriteSet;
use crate::store::contract::CommitError;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::journal::append::append;
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::WriteMeta;
use crate::turn::RunningTime;

/// What the jobs of a batch write to the journal, and their answers once that is durable.
pub(super) struct Transaction {
    pub(super) answers: Vec<JobResult>,
    pub(super) entries: Vec<Entry>,
    /// The last row of the journal, which the next one follows.
    last: JournalMark,
    /// The last row that is no longer needed.
    trim: JournalMark,
    /// Whether a job asks to see that a write works.
    pub(super) checks_write: bool,
    /// The running time after the ticks of the batch, if it has any.
    running: Option<RunningTime>,
}

impl Transaction {
    /// Works out the jobs. Refuses commits if the memtable has no room.
    pub(super) fn prepare(files: &Files, batch: &[Job], has_room: bool) -> Result<Self, Failure> {
        let memtable = files.memtable();
        let tables = files.read_tables()?;
        let mut write_set = WriteSet::new(&memtable, &tables);
        let mut answers = Vec::with_capacity(batch.len());
        for job in batch {
            answers.push(match job {
                Job::Commit(..) if !has_room => Err(CommitError::Overloaded),
                Job::Commit(commit, ..) => write_set.apply(commit)?.map(Some),
                Job::CheckWrite(_) | Job::Tick(..) | Job::Close(_) => Ok(None),
            });
        }
        Ok(Self {
            answers,
            entries: write_set.into_entries(),
            last: memtable.last_row(),
            trim: memtable.checkpoint(),
            checks_write: batch.iter().any(|job| matches!(job, Job::CheckWrite(_))),
            running: ticked(files.running_time(), batch),
        })
    }

    /// Writes it to the journal and returns its row and the row's size, if it has one. When this returns `Ok`, it is
    /// durable.
    pub(super) fn append(&self, files: &Files) -> Result<Option<(JournalMark, usize)>, Failure> {
        if !self.checks_write && self.running.is_none() && self.entries.is_empty() {
            return Ok(None);
        }
        let txn = files.write_journal()?;
        let mut row = None;
        if self.checks_write {
            WriteMeta::write(&txn)?.touch()?;
        }
        if let Some(running) = self.running {
            WriteMeta::write(&txn)?.set_running_time(running)?;
        }
        if !self.entries.is_empty() {
            row = Some(append(&txn, &self.entries, self.last, self.trim)?);
        }
        txn.commit()?;
        if let Some(running) = self.running {
            files.set_running_time(running);
        }
        Ok(row)
    }
}

/// The running time after the ticks of the batch; `None` if it has none.
fn ticked(running: RunningTime, batch: &[Job]) -> Option<RunningTime> {
    let elapsed = batch.iter().filter_map(|job| if let Job::Tick(elapsed, _) = job { Some(*elapsed) } else { None });
    let elapsed = elapsed.reduce(Duration::saturating_add)?;
    Some(running.saturating_add(elapsed))
}
