use std::time::Instant;

use super::job::Job;
use crate::store::fault::Fault;

/// The jobs of one transaction.
pub(super) struct Batch {
    pub(super) jobs: Vec<Job>,
    /// The number of turns in the jobs.
    pub(super) turns: usize,
    /// The bytes of the commits.
    pub(super) bytes: usize,
    /// The moment at which the writer began to gather the jobs.
    pub(super) begun: Instant,
    /// The commits that the memtable has room for, or why the store has failed.
    pub(super) room: Result<Room, Fault>,
    /// Whether no further batch follows. Then this batch must do all its jobs.
    pub(super) is_last: bool,
}

/// The commits that the memtable has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    All,
    /// Only small commits that have reserved places.
    Small,
    None,
}

impl Batch {
    /// A batch of this many bytes takes no further job, since its whole row is in memory and takes some 10 ms to write.
    const FULL_BYTES: usize = 4 * 1024 * 1024;

    /// Returns whether the batch takes no further job.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= Self::FULL_BYTES
    }

    pub(super) fn add(&mut self, job: Job) {
        self.turns += job.turns();
        self.bytes += job.bytes();
        self.jobs.push(job);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::store::contract::{Commit, StagedChange, StagedTurn, Version};
    use crate::store::redb::writer::admission::Admission;
    use crate::turn::{ConversationId, OpenStep, OpenTurn, RunningTime, StepId, TurnId};

    #[test]
    fn a_batch_counts_the_turns_that_were_admitted_with_its_jobs() {
        let admission = Arc::new(Admission::new(100));
        let mut batch =
            Batch { jobs: Vec::new(), turns: 0, bytes: 0, begun: Instant::now(), room: Ok(Room::All), is_last: false };
        for turns in [3, 4] {
            let conversation_id = ConversationId::new("c").unwrap();
            let (staged, sealed) = (Vec::new(), Vec::new());
            let commit = Commit { conversation_id, expected_version: Version(0), staged, sealed, imported_from: None };
            batch.add(Job::Commit(Arc::new(commit), oneshot::channel().0, admission.admit(turns).unwrap()));
            batch.add(Job::CheckWrite(oneshot::channel().0));
        }
        assert_eq!((batch.turns, batch.jobs.len(), admission.unanswered()), (7, 4, 7));
        drop(batch);
        assert_eq!(admission.unanswered(), 0);
    }

    #[test]
    fn a_batch_is_full_when_the_bytes_of_its_commits_are_many() {
        let admission = Arc::new(Admission::new(100));
        let mut batch =
            Batch { jobs: Vec::new(), turns: 0, bytes: 0, begun: Instant::now(), room: Ok(Room::All), is_last: false };
        let step = |nth: u32| (nth, OpenStep::new(StepId::new(format!("{nth:0>200}")).unwrap()));
        for _ in 0..3 {
            assert!(!batch.is_full());
            let turn = OpenTurn::new(TurnId::new("t").unwrap());
            let staged = StagedTurn { turn, last_event_at: RunningTime::new(1) };
            let change = StagedChange { steps: (0..3500).map(step).collect(), step_count: 3500, ..staged.into() };
            let commit = Commit {
                conversation_id: ConversationId::new("c").unwrap(),
                expected_version: Version(0),
                staged: vec![change],
                sealed: Vec::new(),
                imported_from: None,
            };
            batch.add(Job::Commit(Arc::new(commit), oneshot::channel().0, admission.admit(1).unwrap()));
        }
        assert!(batch.is_full(), "{} bytes", batch.bytes);
    }
}
