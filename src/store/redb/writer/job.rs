use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::admission::Permit;
use crate::store::contract::{Commit, CommitError, Committed};

/// A job for the writer.
pub(crate) enum Job {
    Commit(Arc<Commit>, oneshot::Sender<Result<Committed, CommitError>>, Permit),
    CheckWrite(oneshot::Sender<Result<(), CommitError>>),
    /// Add this to the running time.
    Tick(Duration, oneshot::Sender<Result<(), CommitError>>),
    Close(oneshot::Sender<()>),
}

pub(crate) type JobResult = Result<Option<Committed>, CommitError>;

impl Job {
    /// How many turns it has.
    pub(crate) fn turns(&self) -> usize {
        match self {
            Self::Commit(_, _, permit) => permit.turns(),
            Self::CheckWrite(_) | Self::Tick(..) | Self::Close(_) => 0,
        }
    }

    /// How long a commit has waited; zero for the others.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        match self {
            Self::Commit(_, _, permit) => permit.waited(now),
            Self::CheckWrite(_) | Self::Tick(..) | Self::Close(_) => Duration::ZERO,
        }
    }

    /// Answers the caller. A caller that dropped its future does not need the answer.
    pub(crate) fn answer(self, answer: JobResult) {
        match self {
            Self::Commit(_, reply, permit) => {
                // A caller that sends again as soon as it is answered must find its turns free.
                drop(permit);
                let _ = reply.send(answer.map(Option::unwrap_or_default));
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
