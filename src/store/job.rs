use std::time::Duration;

use tokio::sync::oneshot;

use super::intake::Place;
use super::{Commit, CommitError, Committed};

/// What the writer is asked.
pub(super) enum Job {
    Commit(Commit, oneshot::Sender<Result<Committed, CommitError>>, Place),
    CheckWrite(oneshot::Sender<Result<(), CommitError>>),
    /// Add this to how long the service has run.
    Tick(Duration, oneshot::Sender<Result<(), CommitError>>),
    Close(oneshot::Sender<()>),
}

pub(super) type Answer = Result<Option<Committed>, CommitError>;

impl Job {
    /// How many turns it has.
    pub(super) fn turns(&self) -> usize {
        match self {
            Self::Commit(_, _, place) => place.turns(),
            Self::CheckWrite(_) | Self::Tick(..) | Self::Close(_) => 0,
        }
    }

    /// Tells the asker. One that is gone has dropped its future, which means that it does not care.
    pub(super) fn answer(self, answer: Answer) {
        match self {
            Self::Commit(_, reply, place) => {
                // Whoever sends again as soon as it is answered finds its place free.
                drop(place);
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
