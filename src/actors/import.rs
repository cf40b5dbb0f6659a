//! Imports sealed turns of another store: the message, the answer, and how the turns become series of commits.
//!
//! The directory commits imported turns itself, past the actors of their conversations, because their order across
//! conversations must stay as it is. A commit of imported turns fits any version of its conversation. If the
//! conversation has an actor, the actor's next commit is a conflict, and the actor loads the new state. Each series waits
//! until these actors have answered the messages that they have. So a message meets one conflict for each import, and
//! not one for each series.

use std::collections::HashSet;
use std::sync::Arc;

use actix::{Message, Recipient};

use super::facts::{Facts, TurnSealed};
use crate::settings::TURNS_AT_ONCE;
use crate::store::{Commit, CommitError, CommitSeries, CommittedSeries, Fault, TurnOutcome, Version};
use crate::turn::{ConversationId, Ordinal, SealedTurn, TurnId};

/// Import sealed turns of another store, in this order. The sender sends the message to the directory.
///
/// The turns become durable in this order, so they have it in the order of all turns too. Each turn keeps all that it
/// has, its `sealed_at` too. If no turn of its conversation was ever sealed here, the first one keeps its ordinal, and
/// those that follow get the next ones. Otherwise turns are appended. A turn that is sealed already does not change. An
/// open turn of the same id is sealed as it is imported, and other open turns stay open.
///
/// The limits of open turns are not checked, as no imported turn is held open. So a program that takes turns from outside
/// has to limit their steps itself, as `POST /import` does by [`TurnSettings::max_steps`](crate::settings::TurnSettings).
///
/// The answer comes when all turns are durable. If the sender drops the future, the outcome is unknown. The sender may
/// then send the same turns again: each is stored once.
///
/// ```
/// use turn_metrics::actors::{Import, ImportedTurn};
/// use turn_metrics::runtime::Runtime;
/// use turn_metrics::turn::{ConversationId, Done, EpochMillis, OpenTurn, Ordinal, TurnId};
///
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// let turn = OpenTurn::new(TurnId::new("t")?).seal(&Done::because("stop"), EpochMillis::new(1_700_000_000_000));
/// let imported = ImportedTurn { conversation_id: ConversationId::new("c")?, ordinal: Ordinal::new(7), turn };
/// let receipt = runtime.handles().intake.import.send(Import { turns: [imported].into() }).await??;
/// assert_eq!((receipt.imported, receipt.duplicates), (1, 0));
/// # runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The turns. They are shared, so that a sender can keep them without a copy, to send them again.
    pub turns: Arc<[ImportedTurn]>,
}

/// A turn to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedTurn {
    /// The conversation of the turn.
    pub conversation_id: ConversationId,
    /// The ordinal of the turn in the store that it comes from; `None` if it has none, which counts as 1. An ordinal
    /// above [`Commit::MAX_IMPORTED_FROM`] counts as that one.
    pub ordinal: Option<Ordinal>,
    /// The turn. Its `step_details` must be in the order of its steps.
    pub turn: SealedTurn,
}

impl Message for Import {
    type Result = Result<ImportReceipt, ImportError>;
}

/// The answer to an [`Import`]: what became of its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportReceipt {
    /// How many turns the message sealed.
    pub imported: u64,
    /// How many turns were sealed before, so that nothing changed.
    pub duplicates: u64,
}

/// Turns were not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ImportError {
    /// What became of the first turns of the message. They are durable.
    pub before: ImportReceipt,
    /// Why the next turn and those after it were not acknowledged.
    pub why: ImportFailure,
}

/// Why a turn was not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportFailure {
    /// Too much is being worked on. The turn and those after it are not imported. Send them again later.
    #[error("too much is being worked on")]
    Overloaded,
    /// The service is shutting down. The turn and those after it are not imported.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The turn makes a commit that is larger than a commit may be, as [`Commit::bytes`] counts it. The turn and those
    /// after it are not imported.
    #[error(
        "conversation `{conversation_id}`: turn `{turn_id}` makes a commit of more than {limit} bytes \
         (`store.max_commit_bytes`)"
    )]
    TurnTooLarge {
        /// The conversation of the turn.
        conversation_id: ConversationId,
        /// The turn.
        turn_id: TurnId,
        /// How many bytes a commit may have.
        limit: usize,
    },
    /// The outcome of the turn and of those after it is unknown: the store failed. Send them again later.
    #[error("the store is unavailable: {0}")]
    StoreUnavailable(Fault),
}

/// Wait until the actors of these conversations have answered the messages that they have now.
pub(super) struct AwaitAnswers(pub(super) HashSet<ConversationId>);

impl Message for AwaitAnswers {
    type Result = ();
}

/// Imports the turns of one message.
pub(super) struct Importer {
    pub(super) directory: Recipient<AwaitAnswers>,
    /// Makes the commits durable.
    pub(super) series: Recipient<Arc<CommitSeries>>,
    /// The queue to which imported turns are published, if anybody wants them.
    pub(super) facts: Option<Facts>,
}

impl Importer {
    /// The maximum number of turns in a series. The store accepts as many at one time, however slow it is.
    const FULL_TURNS: usize = TURNS_AT_ONCE;
    /// The maximum number of bytes in a series, unless a single turn has more.
    const FULL_BYTES: usize = 1024 * 1024;

    /// Imports the turns series by series. The log has one line for all of them, which may be very many.
    pub(super) async fn import(self, Import { turns }: Import) -> Result<ImportReceipt, ImportError> {
        let (mut before, mut most_bytes) = (ImportReceipt::default(), Self::FULL_BYTES);
        let mut rest = &*turns;
        let mut failure = None;
        while let (None, [_, ..]) = (&failure, rest) {
            let (series, count) = next_series(rest, Self::FULL_TURNS, most_bytes);
            let series = Arc::new(series);
            // If the directory has gone, so have the conversations.
            let _ = self.directory.send(AwaitAnswers(series.conversation_ids())).await;
            let answer = self.series.send(Arc::clone(&series)).await;
            let CommittedSeries { committed, ended } = answer.unwrap_or_else(|error| {
                let fault = Fault::unreachable("the store did not answer").caused_by(error);
                CommittedSeries::from(CommitError::Unavailable(fault))
            });
            for (commit, committed) in series.commits.iter().zip(committed) {
                rest = rest.get(commit.sealed.len()..).unwrap_or_default();
                self.took(commit, &committed.outcomes, &mut before);
            }
            failure = match ended {
                None => None,
                // The store takes less at once than is usual.
                Some(CommitError::TooLarge { limit, .. }) if count > 1 && limit < most_bytes => {
                    most_bytes = limit;
                    None
                }
                Some(error) => rest.first().map(|next| why(error, next)),
            };
        }
        if before.imported > 0 {
            tracing::info!(imported = before.imported, duplicates = before.duplicates, "turns imported");
        }
        failure.map_or(Ok(before), |why| Err(ImportError { before, why }))
    }

    /// Counts the turns of a durable commit, and publishes the new ones.
    fn took(&self, commit: &Commit, outcomes: &[(TurnId, TurnOutcome)], receipt: &mut ImportReceipt) {
        for (turn, (_, outcome)) in commit.sealed.iter().zip(outcomes) {
            let TurnOutcome::Sealed(ordinal) = outcome else {
                receipt.duplicates += 1;
                continue;
            };
            receipt.imported += 1;
            if let Some(facts) = &self.facts {
                let conversation_id = commit.conversation_id.clone();
                facts.tell(|| TurnSealed { conversation_id, turn: turn.clone().at(*ordinal) });
            }
        }
    }
}

impl CommitSeries {
    fn conversation_ids(&self) -> HashSet<ConversationId> {
        self.commits.iter().map(|commit| commit.conversation_id.clone()).collect()
    }
}

/// Returns why the turn `next` was not imported.
fn why(error: CommitError, next: &ImportedTurn) -> ImportFailure {
    match error {
        // An imported turn fits any version, so it is never in conflict.
        CommitError::Overloaded | CommitError::Conflict { .. } => ImportFailure::Overloaded,
        CommitError::TooLarge { limit, .. } => ImportFailure::TurnTooLarge {
            conversation_id: next.conversation_id.clone(),
            turn_id: next.turn.metrics.turn_id.clone(),
            limit,
        },
        CommitError::Unavailable(fault) => ImportFailure::StoreUnavailable(fault),
    }
}

/// Returns the commits of the first turns, at least one of them, and the number of these turns. Turns of the same
/// conversation that follow each other share a commit.
fn next_series(turns: &[ImportedTurn], most_turns: usize, most_bytes: usize) -> (CommitSeries, usize) {
    let (mut commits, mut count, mut bytes) = (Vec::<Commit>::new(), 0, 0);
    for ImportedTurn { conversation_id, ordinal, turn } in turns.iter().take(most_turns) {
        let last = commits.last_mut().filter(|last| last.conversation_id == *conversation_id);
        let begins = if last.is_some() { 0 } else { Commit::base_bytes(conversation_id) };
        bytes += begins + Commit::sealed_bytes(turn);
        if count > 0 && bytes > most_bytes {
            break;
        }
        count += 1;
        // The turns stay in the message too, in case that their commits have to be made again.
        match last {
            Some(commit) => commit.sealed.push(turn.clone()),
            None => commits.push(Commit {
                conversation_id: conversation_id.clone(),
                expected_version: Version::default(),
                staged: Vec::new(),
                sealed: vec![turn.clone()],
                imported_from: Some(ordinal.unwrap_or_else(|| Ordinal::after(0))),
            }),
        }
    }
    (CommitSeries { commits }, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{Done, EpochMillis, OpenTurn};

    fn imported(conversation: &str, ordinal: u64, model_bytes: usize) -> ImportedTurn {
        let turn = OpenTurn::new(TurnId::new(format!("t{ordinal}")).unwrap());
        let mut turn = turn.seal(&Done::because("stop"), EpochMillis::new(5));
        turn.model = (model_bytes > 0).then(|| "m".repeat(model_bytes).as_str().into());
        ImportedTurn {
            conversation_id: ConversationId::new(conversation).unwrap(),
            ordinal: Ordinal::new(ordinal),
            turn,
        }
    }

    /// Returns each series: the conversation, the first ordinal and the number of turns of its commits.
    fn all(mut turns: &[ImportedTurn], most_turns: usize, most_bytes: usize) -> Vec<Vec<(&str, u64, usize)>> {
        let mut all = Vec::new();
        while let [first, ..] = turns {
            let (series, count) = next_series(turns, most_turns, most_bytes);
            assert!(count == 1 || series.bytes() <= most_bytes, "{} bytes", series.bytes());
            assert!(series.commits.iter().all(|commit| commit.staged.is_empty()));
            let mut rest = turns;
            let told = series.commits.iter().map(|commit| {
                let (these, later) = rest.split_at(commit.sealed.len());
                rest = later;
                assert!(these.iter().map(|turn| &turn.turn).eq(&commit.sealed));
                let conversation_id = these.first().unwrap_or(first).conversation_id.as_str();
                (conversation_id, commit.imported_from.unwrap().get(), commit.sealed.len())
            });
            all.push(told.collect());
            turns = &turns[count..];
        }
        all
    }

    #[test]
    fn turns_side_by_side_of_a_conversation_share_a_commit_and_the_order_stays() {
        let turns = [("a", 3), ("a", 4), ("b", 9), ("a", 5), ("c", 0)].map(|(name, at)| imported(name, at, 0));
        assert_eq!(all(&turns, 9, usize::MAX), [[("a", 3, 2), ("b", 9, 1), ("a", 5, 1), ("c", 1, 1)]]);
    }

    #[test]
    fn a_series_has_at_most_some_turns_and_bytes_and_at_least_one_turn() {
        let sizes = |turns: &[ImportedTurn], most_turns, most_bytes| -> Vec<usize> {
            let series = all(turns, most_turns, most_bytes);
            series.iter().map(|commits| commits.iter().map(|(.., turns)| turns).sum()).collect()
        };
        let turns = |model_bytes| -> Vec<_> {
            (1..=7).map(|at| imported(if at % 3 == 0 { "a" } else { "b" }, at, model_bytes)).collect()
        };
        assert_eq!(sizes(&turns(0), 3, usize::MAX), [3, 3, 1]);
        assert_eq!(sizes(&turns(0), 9, 1), [1; 7]);
        let some = sizes(&turns(200), 9, 2000);
        assert!(some.len() > 1 && some[0] > 1, "{some:?}");
    }
}
