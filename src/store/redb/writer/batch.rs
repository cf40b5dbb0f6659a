use std::time::Instant;

use super::job::Job;
use crate::store::fault::Fault;

/// The jobs of one transaction.
pub(super) struct Batch {
    pub(super) jobs: Vec<Job>,
    /// The number of their turns.
    pub(super) turns: usize,
    /// When the writer began to gather them.
    pub(super) begun: Instant,
    /// Whether the memtable has room for their commits, or why the store has failed.
    pub(super) room: Result<bool, Fault>,
    /// Whether no batch follows that could do what this one leaves over.
    pub(super) is_last: bool,
}

impl Batch {
    pub(super) fn add(&mut self, job: Job) {
        self.turns += job.turns();
        self.jobs.push(job);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::store::contract::{Commit, Version};
    use crate::store::redb::writer::admission::Admission;
    use crate::turn::ConversationId;

    #[test]
    fn a_batch_counts_the_turns_that_were_admitted_with_its_jobs() {
        let admission = Arc::new(Admission::new(100));
        let mut batch = Batch { jobs: Vec::new(), turns: 0, begun: Instant::now(), room: Ok(true), is_last: false };
        for turns in [3, 4] {
            let conversation_id = ConversationId::new("c").unwrap();
            let (staged, sealed) = (Vec::new(), Vec::new());
            let commit = Commit { conversation_id, expected_version: Version(0), staged, sealed };
            batch.add(Job::Commit(Arc::new(commit), oneshot::channel().0, admission.admit(turns).unwrap()));
            batch.add(Job::CheckWrite(oneshot::channel().0));
        }
        assert_eq!((batch.turns, batch.jobs.len(), admission.unanswered()), (7, 4, 7));
        drop(batch);
        assert_eq!(admission.unanswered(), 0);
    }
}
