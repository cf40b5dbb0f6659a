use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::admission::Permit;
use crate::store::contract::{Commit, CommitError, CommitSeries, Committed, CommittedSeries};
use crate::turn::ConversationId;

/// An erasure writes the record of a conversation without turns.
const ERASURE_BYTES: usize = 256;

/// A job for the writer.
pub(crate) enum Job {
    Commit(Arc<Commit>, oneshot::Sender<Result<Committed, CommitError>>, Permit),
    /// Commits several changes in order.
    Series(Arc<CommitSeries>, oneshot::Sender<Result<CommittedSeries, CommitError>>, Permit),
    /// Erases a conversation. The answer says whether there was anything to erase.
    Erase(ConversationId, oneshot::Sender<Result<bool, CommitError>>, Permit),
    CheckWrite(oneshot::Sender<Result<(), CommitError>>),
    /// Adds this duration to the running time.
    Tick(Duration, oneshot::Sender<Result<(), CommitError>>),
    Close(oneshot::Sender<()>),
}

pub(crate) type JobResult = Result<Done, CommitError>;

/// What a job did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    Committed(Committed),
    CommittedSeries(CommittedSeries),
    /// Whether there was a conversation to erase.
    Erased(bool),
    /// The job has no result of its own.
    Other,
}

impl Job {
    /// Returns the number of turns in the job.
    pub(crate) fn turns(&self) -> usize {
        self.permit().map_or(0, Permit::turns)
    }

    fn permit(&self) -> Option<&Permit> {
        match self {
            Self::Commit(_, _, permit) | Self::Series(_, _, permit) | Self::Erase(_, _, permit) => Some(permit),
            Self::CheckWrite(_) | Self::Tick(..) | Self::Close(_) => None,
        }
    }

    /// Returns whether the job is a small change that has a reserved place.
    pub(crate) fn is_reserved(&self) -> bool {
        self.permit().is_some_and(Permit::is_reserved)
    }

    /// Returns whether the writer may do the job while the memtable has no room for other commits.
    pub(crate) fn needs_no_room(&self) -> bool {
        self.is_reserved() || matches!(self, Self::CheckWrite(_) | Self::Tick(..))
    }

    /// Returns the maximum number of bytes that the job adds to the journal.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Commit(commit, ..) => commit.bytes(),
            Self::Series(series, ..) => series.bytes(),
            Self::Erase(id, ..) => ERASURE_BYTES + id.as_str().len(),
            Self::CheckWrite(_) | Self::Tick(..) | Self::Close(_) => 0,
        }
    }

    /// Returns how long a commit or an erasure has waited; zero for other jobs.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        self.permit().map_or(Duration::ZERO, |permit| permit.waited(now))
    }

    /// Answers the caller. A caller that dropped its future does not need the answer.
    pub(crate) fn answer(self, answer: JobResult) {
        match self {
            Self::Commit(_, reply, permit) => {
                // The permit is dropped before the answer, so that a caller that sends again at once finds its turns
                // free.
                drop(permit);
                let committed =
                    |done| if let Done::Committed(committed) = done { committed } else { Committed::default() };
                let _ = reply.send(answer.map(committed));
            }
            Self::Series(_, reply, permit) => {
                drop(permit);
                let committed = |done| match done {
                    Done::CommittedSeries(committed) => committed,
                    _ => CommittedSeries::default(),
                };
                let _ = reply.send(answer.map(committed));
            }
            Self::Erase(_, reply, permit) => {
                drop(permit);
                let _ = reply.send(answer.map(|done| done == Done::Erased(true)));
            }
            Self::CheckWrite(reply) | Self::Tick(_, reply) => {
                let _ = reply.send(answer.map(|_| ()));
            }
            Self::Close(reply) => {
                let _ = reply.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake};

    use super::*;
    use crate::store::redb::writer::admission::Admission;

    /// The waker of a caller. It notes how many turns are unanswered when the caller is answered.
    struct Caller {
        admission: Arc<Admission>,
        found: AtomicUsize,
    }

    impl Wake for Caller {
        fn wake(self: Arc<Self>) {
            self.found.store(self.admission.unanswered(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_caller_that_is_answered_finds_its_turns_free() {
        let admission = Arc::new(Admission::new(1));
        let (reply, mut answer) = oneshot::channel();
        let commit = Commit {
            conversation_id: ConversationId::new("c").unwrap(),
            expected_version: crate::store::Version(0),
            staged: Vec::new(),
            sealed: Vec::new(),
            imported_from: None,
        };
        let job = Job::Commit(Arc::new(commit), reply, admission.admit(1).unwrap());
        assert_eq!((job.turns(), admission.unanswered()), (1, 1));
        let caller = Arc::new(Caller { admission, found: AtomicUsize::new(usize::MAX) });
        let waker = Arc::clone(&caller).into();
        let mut context = Context::from_waker(&waker);
        assert_eq!(Pin::new(&mut answer).poll(&mut context), Poll::Pending);
        job.answer(Err(CommitError::Overloaded));
        assert_eq!(caller.found.load(Ordering::Relaxed), 0);
        assert_eq!(answer.try_recv().unwrap(), Err(CommitError::Overloaded));
    }

    #[test]
    fn each_kind_of_job_is_answered_and_a_caller_that_is_gone_is_no_failure() {
        let (check, mut checked) = oneshot::channel();
        let (tick, mut ticked) = oneshot::channel();
        let (close, mut closed) = oneshot::channel();
        for job in [Job::CheckWrite(check), Job::Tick(Duration::ZERO, tick), Job::Close(close)] {
            assert_eq!((job.turns(), job.waited(Instant::now())), (0, Duration::ZERO));
            job.answer(Ok(Done::Other));
        }
        assert_eq!((checked.try_recv().unwrap(), ticked.try_recv().unwrap()), (Ok(()), Ok(())));
        closed.try_recv().unwrap();
        Job::CheckWrite(oneshot::channel().0).answer(Ok(Done::Other));
    }
}
