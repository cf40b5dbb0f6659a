use std::time::Duration;

use super::batch::Room;
use super::job::{Done, Job, JobResult};
use super::write_set::WriteSet;
use crate::store::contract::CommitError;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::journal::append::append;
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::WriteMeta;
use crate::turn::RunningTime;

/// The changes that the jobs of a batch write to the journal, and the answers of the jobs once the changes are durable.
pub(super) struct Transaction {
    /// The answers of the first jobs of the batch. The other jobs were not reached in time.
    pub(super) answers: Vec<JobResult>,
    pub(super) entries: Vec<Entry>,
    /// The mark of the last row of the journal. The new row follows it.
    last: JournalMark,
    /// The mark of the last row that is no longer needed.
    trim: JournalMark,
    /// Whether a job of the batch is a write check.
    pub(super) checks_write: bool,
    /// The running time after the ticks of the batch, if it has any.
    running: Option<RunningTime>,
}

impl Transaction {
    /// Prepares the jobs in order, until `is_cut` returns that the turns so far are enough. Refuses commits that the
    /// memtable has no room for.
    pub(super) fn prepare(
        files: &Files,
        batch: &[Job],
        room: Room,
        is_cut: impl Fn(usize) -> bool,
    ) -> Result<Self, Failure> {
        let memtable = files.memtable();
        let tables = files.read_tables()?;
        let findings = files.findings();
        let mut write_set = WriteSet::new(&memtable, &tables, &findings);
        let mut answers = Vec::with_capacity(batch.len());
        let mut turns = 0;
        for job in batch {
            if is_cut(turns) {
                break;
            }
            turns += job.turns();
            answers.push(match job {
                Job::Commit(..) | Job::Series(..) | Job::Erase(..)
                    if room == Room::None || room == Room::Small && !job.is_reserved() =>
                {
                    Err(CommitError::Overloaded)
                }
                Job::Commit(commit, ..) => write_set.apply(commit)?.map(Done::Committed),
                Job::Series(series, ..) => Ok(Done::CommittedSeries(write_set.apply_series(series)?)),
                Job::Erase(id, ..) => write_set.erase(id)?.map(Done::Erased),
                Job::CheckWrite(_) | Job::Tick(..) | Job::Close(_) => Ok(Done::Other),
            });
        }
        let batch = &batch[..answers.len()];
        Ok(Self {
            answers,
            entries: write_set.into_entries(),
            last: memtable.last_row(),
            trim: memtable.checkpoint(),
            checks_write: batch.iter().any(|job| matches!(job, Job::CheckWrite(_))),
            running: ticked(files.running_time(), batch),
        })
    }

    /// Writes the changes to the journal. Returns the mark and the size of the new row, if there is one. When this
    /// returns `Ok`, the changes are durable.
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

/// Returns the running time after the ticks of the batch; `None` if the batch has no ticks.
fn ticked(running: RunningTime, batch: &[Job]) -> Option<RunningTime> {
    let elapsed = batch.iter().filter_map(|job| if let Job::Tick(elapsed, _) = job { Some(*elapsed) } else { None });
    let elapsed = elapsed.reduce(Duration::saturating_add)?;
    Some(running.saturating_add(elapsed))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::store::contract::{Commit, Version};
    use crate::store::redb::files::location::Location;
    use crate::store::redb::writer::admission::{Admission, Permit};
    use crate::turn::{ConversationId, EpochMillis, OpenTurn, TurnId};

    fn files() -> Files {
        Location::Memory.open(1 << 20).unwrap()
    }

    /// Returns a tick whose answer nobody waits for.
    fn tick(millis: u64) -> Job {
        Job::Tick(Duration::from_millis(millis), oneshot::channel().0)
    }

    /// Never cuts the batch.
    fn whole(_turns: usize) -> bool {
        false
    }

    fn check_write() -> Job {
        Job::CheckWrite(oneshot::channel().0)
    }

    fn commit(turn_id: &str, version: u64) -> Job {
        let permit = Arc::new(Admission::new(9)).admit(1).unwrap();
        commit_with(permit, turn_id, version)
    }

    fn commit_with(permit: Permit, turn_id: &str, version: u64) -> Job {
        let turn = OpenTurn::new(TurnId::new(turn_id).unwrap());
        let commit = Commit {
            conversation_id: ConversationId::new("c").unwrap(),
            expected_version: Version(version),
            staged: Vec::new(),
            sealed: vec![turn.seal(&crate::turn::Done::because("stop"), EpochMillis::new(1))],
            imported_from: None,
        };
        Job::Commit(Arc::new(commit), oneshot::channel().0, permit)
    }

    #[test]
    fn the_commits_of_a_batch_share_a_row_and_one_in_conflict_adds_nothing() {
        let files = files();
        let batch = [commit("a", 0), commit("lost", 0), commit("b", 1)];
        let transaction = Transaction::prepare(&files, &batch, Room::All, whole).unwrap();
        let answers: Vec<_> = transaction.answers.iter().map(Result::is_ok).collect();
        assert_eq!((answers, transaction.entries.len()), (vec![true, false, true], 2));
        let last = files.memtable().last_row();
        let (row, bytes) = transaction.append(&files).unwrap().unwrap();
        assert_eq!(row.number, last.number + 1);
        assert!(bytes > 0);
    }

    #[test]
    fn the_jobs_after_a_cut_change_nothing() {
        let files = files();
        let batch = [commit("a", 0), commit("b", 1), tick(5), check_write()];
        let transaction = Transaction::prepare(&files, &batch, Room::All, |turns| turns >= 1).unwrap();
        assert_eq!((transaction.answers.len(), transaction.entries.len()), (1, 1));
        assert!(!transaction.checks_write && transaction.running.is_none());
    }

    #[test]
    fn without_room_commits_are_refused_and_all_else_is_done() {
        let files = files();
        let batch = [commit("a", 0), tick(5), check_write()];
        let transaction = Transaction::prepare(&files, &batch, Room::None, whole).unwrap();
        assert_eq!(transaction.answers, [Err(CommitError::Overloaded), Ok(Done::Other), Ok(Done::Other)]);
        assert!(transaction.entries.is_empty() && transaction.checks_write);
        assert_eq!(transaction.append(&files).unwrap(), None, "there is no row");
        assert_eq!(files.running_time(), RunningTime::new(5));

        // If there is little room, only small commits that have reserved places may use it.
        let small = commit_with(Arc::new(Admission::new(9)).admit_small(1).unwrap(), "b", 0);
        let transaction = Transaction::prepare(&files, &[commit("a", 0), small], Room::Small, whole).unwrap();
        let answers: Vec<_> = transaction.answers.iter().map(Result::is_ok).collect();
        assert_eq!(answers, [false, true]);
    }

    #[test]
    fn the_running_time_grows_by_all_ticks_of_a_batch_once_they_are_written() {
        let files = files();
        for expected in [30, 60] {
            let transaction = Transaction::prepare(&files, &[tick(10), tick(20)], Room::All, whole).unwrap();
            assert_eq!(files.running_time(), RunningTime::new(expected - 30), "nothing is durable yet");
            transaction.append(&files).unwrap();
            assert_eq!(files.running_time(), RunningTime::new(expected));
            let txn = files.write_journal().unwrap();
            assert_eq!(WriteMeta::write(&txn).unwrap().running_time().unwrap(), RunningTime::new(expected));
        }
        let nothing = Transaction::prepare(&files, &[], Room::All, whole).unwrap();
        assert_eq!(nothing.append(&files).unwrap(), None);
        assert_eq!(files.running_time(), RunningTime::new(60));
    }
}
