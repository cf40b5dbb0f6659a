use std::process::ExitCode;

use super::args::ConfigArgs;
use super::{CliError, output};
use crate::store::{Compaction, compact};

/// Makes the database of a stopped server as small as it can be.
///
/// Free pages are used again, so this is only for a database that will stay smaller than it once was. What is left in
/// the journal of a server that was killed is moved into the main file first. Ending it on the way does no harm.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics compact
  turn-metrics compact --data-dir /var/lib/turn-metrics")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: Args) -> Result<ExitCode, CliError> {
    let settings = args.config.load()?.into_settings();
    let Compaction { bytes_before, bytes_after } = compact(&settings.data_dir)?;
    output::note(&format!("from {bytes_before} bytes to {bytes_after}"));
    Ok(ExitCode::SUCCESS)
}
