use std::process::ExitCode;

use super::args::StoreArgs;
use super::{CliError, output, price_book};
use crate::store::{Compaction, compact, keep_quiet};

/// Makes the database of a stopped server as small as it can be.
///
/// It writes a new database beside the old one, so the disk needs room for both. The new database replaces the old one
/// when it is complete, so a compaction can be interrupted without harm. If the server was killed, the contents of its
/// journal are moved into the database first. Afterwards the files have nothing of erased conversations. A database that
/// continues to grow does not need this command, because it reuses its free pages. A damaged database is not compacted:
/// `check --repair` repairs it.
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
    keep_quiet();
    let Compaction { bytes_before, bytes_after } = compact(&settings.data_dir, price_book::book(&settings.prices)?)?;
    output::note(&format!("from {bytes_before} bytes to {bytes_after}"));
    Ok(ExitCode::SUCCESS)
}
