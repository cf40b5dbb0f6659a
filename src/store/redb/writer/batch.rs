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
}

impl Batch {
    pub(super) fn add(&mut self, job: Job) {
        self.turns += job.turns();
        self.jobs.push(job);
    }
}
