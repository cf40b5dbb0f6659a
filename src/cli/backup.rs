use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use super::args::ServerUrl;
use super::client::{Client, ClientError};
use super::new_file::{NewFile, NewFileError};
use super::{CliError, output};

/// Copies the database of a running server at one moment. The server continues to work.
///
/// The copy is a database that `check` verifies and `serve` opens: put it into a data directory as `turn-metrics.redb`,
/// with no `turn-metrics.journal.redb` beside it. The file gets the name DEST only when the copy is complete and on the
/// disk. The server needs disk space for the copy beside its database.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics backup copy/turn-metrics.redb
  turn-metrics backup --server http://127.0.0.1:24210 --force copy/turn-metrics.redb \
    && turn-metrics check --data-dir copy")]
pub(super) struct Args {
    /// The file to write
    #[arg(value_name = "DEST")]
    destination: PathBuf,

    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:24210")]
    server: ServerUrl,

    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// The reason why no backup was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupFailure {
    /// The file was not written.
    #[error(transparent)]
    File(#[from] NewFileError),
    /// The server did not send the copy, or not all of it.
    #[error(transparent)]
    Client(#[from] ClientError),
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let bytes = back_up(args)?;
    output::note(&format!("{} has {bytes} bytes", args.destination.display()));
    Ok(ExitCode::SUCCESS)
}

fn back_up(args: &Args) -> Result<u64, BackupFailure> {
    let mut file = NewFile::begin(&args.destination, args.force)?;
    let mut copy = Client::new(args.server.clone()).backup()?;
    let bytes = io::copy(&mut copy, file.contents()).map_err(|error| file.unwritable(error))?;
    file.finish()?;
    Ok(bytes)
}
