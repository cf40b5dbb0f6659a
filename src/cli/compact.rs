use std::process::ExitCode;

use super::args::StoreArgs;
use super::{CliError, output};
use crate::store::{Compaction, compact};

/// Makes the database of a stopped server as small as it can be.
///
/// It is written anew beside its place, so the disk needs room for a second one, and takes its place when it is whole:
/// ending this on the way does no harm. What is left in the journal of a server that was killed is moved into it first.
/// A database that goes on growing needs none of this: its free pages are used again.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics compact
  turn-metrics compact --data-dir /var/lib/turn-metrics")]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: Args) -> Result<ExitCode, CliError> {
    let settings = args.store.load()?.into_settings();
    let Compaction { bytes_before, bytes_after } = compact(&settings.data_dir)?;
    output::note(&format!("from {bytes_before} bytes to {bytes_after}"));
    Ok(ExitCode::SUCCESS)
}
