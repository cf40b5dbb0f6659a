//! `turn-metrics ingest`: sends files and pipes of events to a server.
//!
//! - `input`: reads an input.
//! - `batch`: splits an input into batches of lines.
//! - `upload`: sends batches and handles what the server refuses.
//! - `affected_turns`: remembers the turns that refused lines mention.
//! - `event_types`: describes an input in which no event counts.
//! - `progress`: how much of an input was sent.
//! - `error`: why an input was not sent completely.
//! - `tests`: sends whole inputs to a scripted server.

mod affected_turns;
mod batch;
pub(super) mod error;
mod event_types;
mod input;
mod progress;
mod upload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::args::ServerUrl;
use super::client::Client;
use super::send::Sender;
use super::signals::Signals;
use super::{CliError, output};
use batch::{BatchLimits, Batcher, InputPart};
use error::{acknowledged, to_go_on};
use event_types::EventTypes;
use input::{Chunk, Input, InputError};
use upload::Upload;

use error::{IngestError, IngestFailure};

/// The maximum length of a line that is not ignored. It is longer than any server accepts, and small enough to hold in
/// memory.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;
/// A line longer than this is examined while it arrives, and dropped if it is ignored.
const FOLLOWED_LINE_BYTES: usize = 64 * 1024;
/// How long whole lines wait for more lines before they are sent.
const LINGER: Duration = Duration::from_millis(200);
/// The exit code if refused lines or conversations were reported and everything else was taken in.
const REFUSED: u8 = 3;

/// Sends kernel events from files or a pipe to a running server.
///
/// The input is NDJSON, one event a line, plain or compressed with gzip. It is sent in batches, in order; lines of a
/// pipe are sent within a fifth of a second. While the server is overloaded or unreachable, the same batch is sent
/// again after growing pauses. Sending events again is always safe. So after a failure or Ctrl-C, run the command again
/// from the start, or from the line that the message names.
///
/// A bad line ends the run once all lines before it are acknowledged. With `--skip-bad` each bad line is reported and
/// skipped. A conversation over a limit of the server is reported, and no more of its events are sent. Other
/// conversations are not affected.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics ingest events.ndjson
  turn-metrics ingest monday.ndjson.gz tuesday.ndjson.gz --skip-bad
  my-kernel --events | turn-metrics ingest --server http://127.0.0.1:24210

Exit codes: 0 if everything was taken in; 1 if an event or a conversation is refused, if no event of a file counts, if
the first file ends before the line to begin with, or if the server stays unreachable; 3 if, with --skip-bad, everything
was taken in except for reported refusals. With --from-line N it is also 0 if the rest has only events that do not count.")]
pub(super) struct Args {
    /// The files, in this order; `-` is standard input
    #[arg(default_value = "-")]
    files: Vec<PathBuf>,

    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:24210")]
    server: ServerUrl,

    /// Skip refused lines, and report each on standard error
    #[arg(long)]
    skip_bad: bool,

    /// Begin with this line of the first file
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,

    /// How often a batch is sent again before the run gives up; ten times take about a minute
    #[arg(long, value_name = "N", default_value_t = 10)]
    retries: u32,

    /// The maximum number of lines in a batch
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch_lines: u64,

    /// The maximum number of bytes in a batch; a longer line is sent by itself
    #[arg(long, value_name = "N", default_value_t = 1_048_576, value_parser = clap::value_parser!(u64).range(1..=1_073_741_824))]
    batch_bytes: u64,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen().map_err(CliError::system("listen for signals"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(CliError::system("start the sender"))?;
    let mut upload = Upload::new(Sender::new(Client::new(args.server.clone()), args.retries), args.skip_bad);
    let result = runtime.block_on(async {
        tokio::select! {
            result = ingest(args, &mut upload) => result.map(|()| None),
            signal = signals.first() => Ok(Some(signal)),
        }
    });
    // Do not wait for a request in flight, nor for a pipe that is silent.
    runtime.shutdown_background();
    upload.progress.finish();
    upload.tell_rest();
    // Print the summary however the run ends. If both fail, report the error of the run and not that of the output.
    let told = output::print(&upload.progress.summary());
    if let Some(signal) = result? {
        let Upload { input, progress, .. } = &upload;
        let acknowledged = acknowledged(progress.acknowledged_lines, progress.is_any_refused);
        output::note(&format!("stopped; {input}: {acknowledged}{}", to_go_on(upload.next_line())));
        told?;
        return Ok(signal.exit_code());
    }
    told?;
    Ok(if upload.refused_lines > 0 || upload.first_withheld.is_some() { REFUSED.into() } else { ExitCode::SUCCESS })
}

/// Sends all files. A file that is wrong as a whole does not stop the files after it, but the run ends with its error.
async fn ingest(args: &Args, upload: &mut Upload) -> Result<(), IngestError> {
    upload.progress.begin(total_bytes(&args.files));
    let mut base = 0;
    let mut failed: Option<IngestError> = None;
    for (nth, path) in args.files.iter().enumerate() {
        let from_line = if nth == 0 { args.from_line } else { 1 };
        upload.input = name_of(path);
        upload.event_types = EventTypes::default();
        upload.progress.begin_input(base, from_line);
        let refused_before = (upload.refused_lines, upload.withheld_conversations());
        let Err(failure) = ingest_file(path, args, from_line, refused_before, &mut base, upload).await else {
            continue;
        };
        let ends_the_run = !failure.is_of_the_file();
        let acknowledged_lines = upload.progress.acknowledged_lines;
        let next_line = if failure.is_interruption() { upload.next_line() } else { None };
        let is_any_refused = upload.progress.is_any_refused;
        let input = upload.input.to_string();
        let error = IngestError { input, failure, acknowledged_lines, is_any_refused, next_line };
        // The latest error is the error of the run; earlier errors are printed as notes.
        if let Some(earlier) = failed.replace(error) {
            upload.progress.note(&earlier.to_string());
        }
        if ends_the_run {
            break;
        }
    }
    match (failed, upload.first_withheld.take()) {
        (Some(error), _) => Err(error),
        (None, Some((input, line))) if !args.skip_bad => {
            let failure = IngestFailure::OverLimit { conversations: upload.withheld_conversations(), line };
            let acknowledged_lines = upload.progress.acknowledged_lines;
            let input = input.to_string();
            Err(IngestError { input, failure, acknowledged_lines, is_any_refused: true, next_line: None })
        }
        (None, withheld) => {
            upload.first_withheld = withheld;
            Ok(())
        }
    }
}

async fn ingest_file(
    path: &Path,
    args: &Args,
    from_line: u64,
    (refused_lines, withheld_conversations): (u64, usize),
    base: &mut u64,
    upload: &mut Upload,
) -> Result<(), IngestFailure> {
    let input = Input::open(path, from_line == 1).map_err(IngestFailure::Open)?;
    *base += input.total_bytes().unwrap_or(0);
    let lines = match stream(input, args, from_line, upload).await {
        Ok(lines) => lines,
        // If a part of the file was sent before, the rest may begin with a bad line without being foreign.
        Err(IngestFailure::BadLine { line, error })
            if from_line == 1 && !upload.progress.has_accepted() && upload.event_types.is_foreign() =>
        {
            let event_types = format!("{}; line {line} is refused: {error}", upload.event_types);
            return Err(IngestFailure::NothingCounts { from_line, event_types });
        }
        Err(failure) => return Err(failure),
    };
    // If the last line was bad, the user is told to continue with the line after it, which does not exist. That is no
    // error.
    if from_line > 1 && lines.checked_add(1) == Some(from_line) {
        let note = format!("{}: the input ends before line {from_line}, so there was nothing to send", upload.input);
        upload.progress.note(&note);
    } else if from_line > lines && from_line > 1 {
        return Err(IngestFailure::NoSuchLine { from_line, lines });
    }
    let is_any_refused = upload.refused_lines > refused_lines;
    if from_line > 1 && !upload.progress.has_accepted() && !is_any_refused && upload.event_types.is_known() {
        let note =
            format!("{}: from line {from_line} on none of its events counts: {}", upload.input, upload.event_types);
        upload.progress.note(&note);
        return Ok(());
    }
    let is_foreign = !upload.progress.has_accepted() && (upload.progress.has_ignored() || is_any_refused);
    if is_foreign && upload.withheld_conversations() == withheld_conversations {
        return Err(IngestFailure::NothingCounts { from_line, event_types: upload.event_types.to_string() });
    }
    Ok(())
}

fn name_of(path: &Path) -> Arc<str> {
    if path == Path::new("-") { "standard input".into() } else { output::plain(&path.display().to_string()).into() }
}

/// Returns the total size of the files, if the size of each is known.
fn total_bytes(files: &[PathBuf]) -> Option<u64> {
    let length = |path: &PathBuf| path.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
    files.iter().map(length).sum()
}

/// Sends one input. Returns the number of its lines.
async fn stream(mut input: Input, args: &Args, from_line: u64, upload: &mut Upload) -> Result<u64, IngestFailure> {
    let mut batcher = Batcher::new(BatchLimits {
        lines: args.batch_lines,
        bytes: usize::try_from(args.batch_bytes).unwrap_or(usize::MAX),
        followed_bytes: FOLLOWED_LINE_BYTES,
        line_bytes: MAX_LINE_BYTES,
        from_line,
    });
    // When this time comes, the whole lines are sent even if the batch is not full. It is counted from the first
    // waiting line. If it were counted from the latest line, a steady trickle of lines would delay the first one until
    // the batch is full.
    let mut due = None;
    let mut read = 0;
    let failure = loop {
        while let Some(part) = batcher.next_ready() {
            send(part, upload).await?;
            upload.progress.move_to(read);
            due = None;
        }
        let chunk = if batcher.has_lines() {
            let due = *due.get_or_insert_with(|| Instant::now() + LINGER);
            timeout_at(due, input.next()).await.ok()
        } else {
            Some(input.next().await)
        };
        match chunk {
            Some(Some(Ok(Chunk { bytes, position }))) => {
                batcher.push(&bytes);
                read = position;
            }
            Some(Some(Err(InputError::Io(error)))) => break Some(IngestFailure::Read(error)),
            Some(Some(Err(InputError::Utf16))) => break Some(IngestFailure::Utf16),
            Some(Some(Err(InputError::Utf32))) => break Some(IngestFailure::Utf32),
            Some(Some(Err(InputError::Array))) => break Some(IngestFailure::Array),
            Some(None) => break None,
            None => {
                due = None;
                if let Some(batch) = batcher.take() {
                    upload.send(batch).await?;
                }
            }
        }
    };
    match failure {
        None => batcher.finish(),
        // After a read error, the whole lines before it are still sent. The last line is incomplete and is dropped.
        Some(failure) => {
            if let Some(batch) = batcher.take() {
                upload.send(batch).await?;
            }
            return Err(failure);
        }
    }
    while let Some(part) = batcher.next_ready() {
        send(part, upload).await?;
    }
    upload.progress.move_to(read);
    Ok(batcher.lines())
}

async fn send(part: InputPart, upload: &mut Upload) -> Result<(), IngestFailure> {
    match part {
        InputPart::Batch(batch) => upload.send(batch).await,
        InputPart::BadLine { line, error, mentions } => upload.refuse(line, error, mentions),
    }
}

#[cfg(test)]
mod tests;
