use std::time::Duration;

use actix::MailboxError;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::actors::{Import, ImportError, ImportReceipt, TakeErasedSums};
use crate::http::error::ImportEnd;
use crate::http::intake::import_batch::TurnsToImport;
use crate::http::resources::api::Api;
use crate::settings::TURNS_AT_ONCE;
use crate::store::{CommitError, ErasedSums};
use crate::turn::{ConversationId, SealedTurn};

/// The maximum number of turns in a message to a conversation. They fit into one commit, so that a message that is
/// refused as overload has nearly always changed nothing.
pub(super) const TURNS_IN_MESSAGE: usize = TURNS_AT_ONCE / 2;

/// The pause before a message that was refused as overload is sent again. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How often such a message is sent again: for about 25 seconds. An import may take long, and would otherwise end whenever
/// others send very much at one moment.
const MAX_REPETITIONS: u32 = 9;

/// An import that ended early, at this line. All lines before it are imported.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) line: u64,
    pub(super) why: ImportEnd,
}

/// Adds the counts of a further receipt.
pub(super) fn add(receipt: &mut ImportReceipt, more: ImportReceipt) {
    receipt.imported += more.imported;
    receipt.duplicates += more.duplicates;
}

/// Imports the turns of one conversation, message by message.
pub(super) async fn import_conversation(
    api: &Api,
    conversation_id: ConversationId,
    mut of_one: TurnsToImport,
) -> (ImportReceipt, Option<Ended>) {
    let mut receipt = ImportReceipt::default();
    let mut rest = std::mem::take(&mut of_one.turns).into_iter();
    let mut place = 0;
    loop {
        let (lines, turns): (Vec<u64>, Vec<SealedTurn>) = rest.by_ref().take(TURNS_IN_MESSAGE).unzip();
        let Some(first_line) = lines.first().copied() else { return (receipt, None) };
        let import = Import { conversation_id: conversation_id.clone(), turns, imported_from: of_one.from(place) };
        match send(api, import).await {
            Ok(of_message) => add(&mut receipt, of_message),
            Err(error) => {
                let mut line = first_line;
                if let Ok(ImportError::TurnTooLarge { before, .. }) = &error {
                    add(&mut receipt, *before);
                    let place = usize::try_from(before.imported + before.duplicates).unwrap_or(usize::MAX);
                    line = lines.get(place).copied().unwrap_or(first_line);
                }
                return (receipt, Some(Ended { line, why: why(&conversation_id, error) }));
            }
        }
        place += lines.len();
    }
}

/// Has the store take in sums of erased turns. Returns how many of them changed something.
pub(super) async fn take_sums(api: &Api, sums: Vec<(u64, ErasedSums)>) -> Result<u64, Ended> {
    let Some(line) = sums.first().map(|(line, _)| *line) else { return Ok(0) };
    let take = TakeErasedSums { sums: sums.into_iter().map(|(_, sums)| sums).collect() };
    let mut repetitions = 0;
    let why = loop {
        match api.handles.intake.take_erased_sums.send(take.clone()).await {
            Ok(Ok(changed)) => return Ok(changed),
            Ok(Err(CommitError::Overloaded)) if repetitions < MAX_REPETITIONS => {
                sleep(FIRST_PAUSE * 2_u32.pow(repetitions)).await;
                repetitions += 1;
            }
            Ok(Err(CommitError::Overloaded)) => break "too much is being worked on",
            Ok(Err(error)) => {
                warn!(cause = error.in_full(), "imported sums could not be made durable");
                break "the store is unavailable";
            }
            Err(error) => {
                warn!(%error, "the store did not answer");
                break "the service could not answer";
            }
        }
    };
    Err(Ended { line, why: ImportEnd::Unavailable(why) })
}

/// Sends a message. While there is too much work, sends it again after growing pauses.
async fn send(api: &Api, import: Import) -> Result<ImportReceipt, Result<ImportError, MailboxError>> {
    let mut repetitions = 0;
    loop {
        match api.handles.intake.import.send(import.clone()).await {
            Ok(Ok(receipt)) => return Ok(receipt),
            Ok(Err(ImportError::Overloaded)) if repetitions < MAX_REPETITIONS => {
                sleep(FIRST_PAUSE * 2_u32.pow(repetitions)).await;
                repetitions += 1;
            }
            Ok(Err(error)) => return Err(Ok(error)),
            Err(error) => return Err(Err(error)),
        }
    }
}

/// Returns why an import ended, for the client, and logs the cause.
fn why(conversation_id: &ConversationId, error: Result<ImportError, MailboxError>) -> ImportEnd {
    let error = match error {
        Ok(error) => error,
        Err(error) => {
            warn!(%error, "the directory did not answer");
            return ImportEnd::Unavailable("the service could not answer");
        }
    };
    ImportEnd::Unavailable(match error {
        ImportError::TurnTooLarge { .. } => {
            return ImportEnd::TurnTooLarge(format!("conversation `{conversation_id}`: {error}"));
        }
        ImportError::Overloaded => {
            debug!("turns were not imported: overload");
            "too much is being worked on"
        }
        ImportError::ShuttingDown => "the service is shutting down",
        ImportError::Contended => {
            warn!("turns were not imported: other processes keep changing their conversation");
            "the conversation is being changed by others"
        }
        ImportError::StoreUnavailable(fault) => {
            warn!(cause = fault.in_full(), "imported turns could not be made durable");
            "the store is unavailable"
        }
        ImportError::ActorGone => {
            warn!("a conversation's actor went away before it answered");
            "the service could not answer"
        }
    })
}
