mod batch;
mod input;
mod progress;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::args::ServerUrl;
use super::client::{Client, ClientError};
use super::send::{SendError, Sender};
use super::signals::Signals;
use super::{CliError, output};
use batch::{Batch, BatchLimits, Batcher, LineTooLong};
use input::Input;
use progress::Progress;

/// The most bytes of one line: more than any server takes, little enough to hold.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;
/// How long lines wait for more of them before they are sent.
const LINGER: Duration = Duration::from_millis(200);

/// Sends kernel events from a file or a pipe to a running server.
///
/// The input is NDJSON, one event a line. It is sent in batches, in order; from a pipe, lines are sent at the latest a
/// fifth of a second after they came. When the server is overloaded or away, the same batch is sent again, after a
/// pause that grows. Sending events again is always safe, so after a failure or Ctrl-C run it again from the start,
/// or from the line it names.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics ingest events.ndjson
  my-kernel --events | turn-metrics ingest --server http://127.0.0.1:24210

Exit code 1 if an event is refused or the server stays away. A line that is refused is named by its number.")]
pub(super) struct Args {
    /// The file; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,

    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:24210")]
    server: ServerUrl,

    /// How often a batch is sent again before it is given up; ten times are about a minute
    #[arg(long, value_name = "N", default_value_t = 10)]
    retries: u32,

    /// The most lines of a batch
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch_lines: u64,

    /// The most bytes of a batch; a longer line is sent by itself
    #[arg(long, value_name = "N", default_value_t = 1_048_576, value_parser = clap::value_parser!(u64).range(1..=1_073_741_824))]
    batch_bytes: u64,
}

/// What kept the input from being taken in, and how far it got.
#[derive(Debug, thiserror::Error)]
#[error("{failure}; {}", acknowledged(*.acknowledged_lines))]
pub struct IngestError {
    /// What went wrong.
    pub failure: IngestFailure,
    /// So many lines from the start are acknowledged.
    pub acknowledged_lines: u64,
}

/// What kept the input from being taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestFailure {
    /// The input could not be opened.
    #[error("cannot open {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The input could not be read.
    #[error("cannot read the input: {0}")]
    Read(io::Error),
    /// A line is longer than any event may be.
    #[error("line {line} is longer than {MAX_LINE_BYTES} bytes")]
    LineTooLong {
        /// The line.
        line: u64,
    },
    /// The server refused an event.
    #[error("line {line} is refused: {error}")]
    BadLine {
        /// The line of the input.
        line: u64,
        /// What the server says of it.
        error: String,
    },
    /// A conversation or a turn of a batch is over a limit of the server. What else the batch has is taken in.
    #[error("lines {first} to {last} are refused: {error}")]
    OverLimit {
        /// The first line of the batch.
        first: u64,
        /// Its last line.
        last: u64,
        /// What the server says of it.
        error: String,
    },
    /// A batch was not acknowledged.
    #[error("lines {first} to {last}: {cause}")]
    Batch {
        /// The first line of the batch.
        first: u64,
        /// Its last line.
        last: u64,
        /// Why, with all that caused it.
        cause: String,
    },
}

fn acknowledged(lines: u64) -> String {
    match lines {
        0 => "no line is acknowledged".into(),
        lines => format!("all lines up to {lines} are acknowledged"),
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen().map_err(CliError::system("listen for signals"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(CliError::system("start the sender"))?;
    let mut progress = Progress::new();
    let result = runtime.block_on(async {
        tokio::select! {
            result = ingest(args, &mut progress) => result.map(|()| None),
            signal = signals.first() => Ok(Some(signal)),
        }
    });
    // Neither a request in flight nor a read of a silent pipe is waited for.
    runtime.shutdown_background();
    progress.finish();
    let lines = progress.acknowledged_lines;
    if let Some(signal) = result.map_err(|failure| IngestError { failure, acknowledged_lines: lines })? {
        output::note(&format!("stopped; {}", acknowledged(lines)));
        output::print(&progress.summary())?;
        return Ok(signal.exit_code());
    }
    output::print(&progress.summary())?;
    Ok(ExitCode::SUCCESS)
}

async fn ingest(args: &Args, progress: &mut Progress) -> Result<(), IngestFailure> {
    let input = Input::open(&args.file).map_err(|cause| IngestFailure::Open { path: args.file.clone(), cause })?;
    progress.begin(input.total_bytes());
    stream(input, args, progress).await
}

async fn stream(mut input: Input, args: &Args, progress: &mut Progress) -> Result<(), IngestFailure> {
    let sender = Sender::new(Client::new(args.server.clone()), args.retries);
    let mut batcher = Batcher::new(BatchLimits {
        lines: args.batch_lines,
        bytes: usize::try_from(args.batch_bytes).unwrap_or(usize::MAX),
        line_bytes: MAX_LINE_BYTES,
    });
    let too_long = |LineTooLong { line }| IngestFailure::LineTooLong { line };
    // When the lines that wait have waited long enough. Counted from the first of them: were it from the latest, a
    // line every moment would keep the first waiting until the batch is full.
    let mut due = None;
    loop {
        while let Some(batch) = batcher.next_full().map_err(too_long)? {
            send(&sender, batch, progress).await?;
            due = None;
        }
        let chunk = if batcher.has_lines() {
            let due = *due.get_or_insert_with(|| Instant::now() + LINGER);
            timeout_at(due, input.next()).await.ok()
        } else {
            Some(input.next().await)
        };
        match chunk {
            Some(Some(chunk)) => batcher.push(&chunk.map_err(IngestFailure::Read)?),
            Some(None) => break,
            None => {
                due = None;
                if let Some(batch) = batcher.take() {
                    send(&sender, batch, progress).await?;
                }
            }
        }
    }
    while let Some(batch) = batcher.finish() {
        send(&sender, batch, progress).await?;
    }
    Ok(())
}

async fn send(sender: &Sender, batch: Batch, progress: &mut Progress) -> Result<(), IngestFailure> {
    let Batch { first_line, lines, body } = batch;
    let bytes = body.len() as u64;
    match sender.send(body, |line| progress.note(line)).await {
        Ok(receipt) => {
            progress.advance(lines, bytes, &receipt);
            Ok(())
        }
        Err(error) => Err(explain(first_line, lines, error)),
    }
}

/// Tells of a batch that was not acknowledged in terms of the input.
fn explain(first: u64, lines: u64, error: SendError) -> IngestFailure {
    let last = first + lines.saturating_sub(1);
    match error {
        SendError::Refused(ClientError::Refused { status: 400, error, line: Some(line), .. }) if line > 0 => {
            // The server counts lines from the start of the batch, in words too.
            let error = error.strip_prefix(&format!("line {line}: ")).unwrap_or(&error).to_owned();
            IngestFailure::BadLine { line: first.saturating_add(line - 1), error }
        }
        SendError::Refused(ClientError::Refused { status: 422, error, .. }) => {
            IngestFailure::OverLimit { first, last, error }
        }
        error => {
            let cause = match &error {
                SendError::GaveUp { source, .. } => format!("{error}: {source}"),
                error => error.to_string(),
            };
            IngestFailure::Batch { first, last, cause }
        }
    }
}

#[cfg(test)]
mod tests;
