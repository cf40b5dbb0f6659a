use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, warn};

use crate::actors::{Import, ImportError, ImportFailure, ImportReceipt, ImportedTurn, TakeErasedSums};
use crate::http::error::ImportEnd;
use crate::http::resources::api::Api;
use crate::store::{CommitError, ErasedSums, FaultKind};

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

/// Imports turns, which are on these lines. Returns the counts of those that are durable, and why it ended early, if it
/// did.
pub(super) async fn import_turns(api: &Api, turns: Vec<ImportedTurn>, lines: &[u64]) -> (ImportReceipt, Option<Ended>) {
    let (mut receipt, mut repetitions, mut turns) = (ImportReceipt::default(), 0, Arc::<[_]>::from(turns));
    while !turns.is_empty() {
        let (of_message, why) = match api.handles.intake.import.send(Import { turns: Arc::clone(&turns) }).await {
            Ok(Ok(of_message)) => return (add(receipt, of_message), None),
            Ok(Err(ImportError { before, why: ImportFailure::Overloaded })) if repetitions < MAX_REPETITIONS => {
                (before, None)
            }
            Ok(Err(ImportError { before, why })) => (before, Some(end_of(why))),
            Err(error) => {
                warn!(%error, "the directory did not answer");
                (ImportReceipt::default(), Some(ImportEnd::Unavailable("the service could not answer")))
            }
        };
        receipt = add(receipt, of_message);
        if let Some(why) = why {
            let line = lines.get(count(receipt)).or(lines.last()).copied().unwrap_or_default();
            return (receipt, Some(Ended { line, why }));
        }
        turns = turns.get(count(of_message)..).unwrap_or_default().into();
        // While the store takes some of them, the import goes on.
        repetitions = if count(of_message) > 0 { 0 } else { repetitions };
        sleep(FIRST_PAUSE * 2_u32.pow(repetitions)).await;
        repetitions += 1;
    }
    (receipt, None)
}

/// Returns the number of turns that a receipt counts.
fn count(ImportReceipt { imported, duplicates }: ImportReceipt) -> usize {
    usize::try_from(imported + duplicates).unwrap_or(usize::MAX)
}

/// Adds the counts of two receipts.
fn add(one: ImportReceipt, other: ImportReceipt) -> ImportReceipt {
    ImportReceipt { imported: one.imported + other.imported, duplicates: one.duplicates + other.duplicates }
}

/// Has the store take in sums of erased turns. Returns how many of them changed something.
pub(super) async fn take_sums(api: &Api, sums: Vec<ErasedSums>) -> Result<u64, ImportEnd> {
    if sums.is_empty() {
        return Ok(0);
    }
    let take = TakeErasedSums { sums };
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
    Err(ImportEnd::Unavailable(why))
}

/// Returns why an import ended, for the client, and logs the cause.
fn end_of(failure: ImportFailure) -> ImportEnd {
    ImportEnd::Unavailable(match failure {
        ImportFailure::TurnTooLarge { .. } => return ImportEnd::TurnTooLarge(failure.to_string()),
        ImportFailure::Overloaded => {
            debug!("turns were not imported: overload");
            "too much is being worked on"
        }
        ImportFailure::ShuttingDown => "the service is shutting down",
        ImportFailure::StoreUnavailable(fault) if fault.kind() == FaultKind::Damaged => {
            warn!(cause = fault.in_full(), "turns of a damaged conversation were not imported");
            return ImportEnd::Damaged;
        }
        ImportFailure::StoreUnavailable(fault) => {
            warn!(cause = fault.in_full(), "imported turns could not be made durable");
            "the store is unavailable"
        }
    })
}
