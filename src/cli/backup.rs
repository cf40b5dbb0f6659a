use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tempfile::NamedTempFile;

use super::args::ServerUrl;
use super::client::{Client, ClientError};
use super::{CliError, output};
use crate::link;

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
    /// A file of that name exists.
    #[error("{0} exists; give --force to replace it")]
    Exists(PathBuf),
    /// The copy cannot be written.
    #[error("{path} cannot be written")]
    Write {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
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
    let destination = &args.destination;
    let unwritable = |source| BackupFailure::Write { path: destination.clone(), source };
    // Check this first, so that the server makes no copy in vain. It is checked again when the file gets its name.
    match fs::metadata(destination) {
        Ok(there) if there.is_dir() => return Err(unwritable(io::Error::other("it is a directory"))),
        Ok(there) if !there.is_file() => return Err(unwritable(io::Error::other("it is a device or a pipe"))),
        Ok(_) if !args.force => return Err(BackupFailure::Exists(destination.clone())),
        _ => {}
    }
    // If DEST is a link, replace the file that it leads to, and keep the link.
    let target = link::target(destination).map_err(unwritable)?;
    let directory = link::directory_of(&target);
    // Check the directory first, so that the error names it and not the temporary file.
    fs::read_dir(directory).map_err(unwritable)?;
    let mut unfinished = NamedTempFile::new_in(directory).map_err(|error| unwritable(io::Error::from(error.kind())))?;
    let mut copy = Client::new(args.server.clone()).backup()?;
    let bytes = io::copy(&mut copy, unfinished.as_file_mut()).map_err(unwritable)?;
    unfinished.as_file().sync_all().map_err(unwritable)?;
    let named = if args.force { unfinished.persist(&target) } else { unfinished.persist_noclobber(&target) };
    named.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => BackupFailure::Exists(destination.clone()),
        _ => unwritable(error.error),
    })?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(unwritable)?;
    Ok(bytes)
}
