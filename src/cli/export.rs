use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::args::ServerArgs;
use super::client::{Client, ClientError};
use super::new_file::{NewFile, NewFileError};
use super::{CliError, output};
use crate::deceptive::undeceptive;
use crate::store::Position;

/// Writes all sealed turns of a running server, in the order in which they became durable.
///
/// Each line is a turn as JSON: its position, its conversation and its envelope with the metrics. If turns were erased or
/// dropped, their sums come first, in lines `{"erased": ...}` without any id of a conversation. The last line is
/// `{"end": POSITION}`; an export without it is incomplete. If turns of the server are damaged, that line says how many are
/// left out (`leftOut`), and the command exits with 1. To get later turns, give that position to --after. Control
/// characters, and characters that change the direction of text, are JSON escapes such as \u202e. The export ends with
/// the turn that is the latest when it begins. FILE gets its name only when the export is complete and
/// on the disk. A database that was restored from a backup or repaired knows no position from before.
///
/// If an export to standard output breaks off, the error names the position after which another one goes on; a FILE that
/// broke off is removed. An export after a position has no sums. So turns that were erased or dropped between two parts may
/// be in neither. Only an export in one piece has all that reports count.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics export turns.ndjson
  turn-metrics export | gzip > turns.ndjson.gz
  turn-metrics export --after 0198c5a2b8f94c1e8d1f2a3b4c5d6e7f-000000000000002a later.ndjson
  turn-metrics export | jq -r 'select(.metrics) | [.conversationId, .metrics.usage.outputTokens] | @tsv'")]
pub(super) struct Args {
    /// The file to write [default: standard output]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    server: ServerArgs,

    /// Begin after this position
    #[arg(long, value_name = "POSITION")]
    after: Option<Position>,

    /// Replace the file if it exists
    #[arg(long, requires = "file")]
    force: bool,
}

/// The reason why turns were not exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportFailure {
    /// The file was not written.
    #[error(transparent)]
    File(#[from] NewFileError),
    /// The server did not send the turns.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server did not send all turns, or something that is no export.
    #[error("the export is incomplete: it broke off after {turns} turns{}", hint(.reached.as_ref()))]
    Incomplete {
        /// The number of complete lines.
        turns: u64,
        /// The position of the last turn that was written to standard output.
        reached: Option<Position>,
        /// The error of the connection.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

fn hint(reached: Option<&Position>) -> String {
    reached.map_or_else(String::new, |position| format!("; --after {position} goes on from there"))
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let progress = Progress::begin(args.file.is_some() || !io::stdout().is_terminal());
    let exported = export(args, &progress);
    progress.bar.finish_and_clear();
    let Some(Exported { turns, sums, end, left_out }) = exported? else { return Ok(ExitCode::SUCCESS) };
    let of_erased = if sums == 0 { String::new() } else { format!(" and {sums} sums of erased turns") };
    output::note(&format!("{turns} turns{of_erased}, up to the position {end}"));
    if left_out == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    output::note(&format!(
        "the database of the server is damaged: {left_out} turns or sums cannot be read and are left out; the log of the \
         server says more, and `turn-metrics check --repair` saves what can be saved"
    ));
    Ok(ExitCode::FAILURE)
}

/// A complete export.
struct Exported {
    turns: u64,
    /// The number of lines with sums of erased turns.
    sums: u64,
    /// The position of the last turn.
    end: Position,
    /// How many turns and sums the server left out because they are damaged.
    left_out: u64,
}

/// Returns `None` if standard output was closed before the end: a reader such as `head` has read all that it wanted.
fn export(args: &Args, progress: &Progress) -> Result<Option<Exported>, ExportFailure> {
    let file = args.file.as_ref().map(|name| NewFile::begin(name, args.force)).transpose()?;
    let lines = BufReader::with_capacity(BUFFER_BYTES, Client::new(args.server.server.clone()).export(args.after)?);
    let Some(mut file) = file else {
        return match copy(lines, io::stdout().lock(), progress) {
            Ok(exported) => Ok(Some(exported)),
            Err(CopyError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
            Err(CopyError::Write(error)) => Err(ExportFailure::Output(error)),
            Err(CopyError::Read { turns, reached, source }) => {
                Err(ExportFailure::Incomplete { turns, reached, source })
            }
        };
    };
    let exported = copy(lines, file.contents(), progress).map_err(|error| match error {
        CopyError::Write(error) => file.unwritable(error).into(),
        // The file is removed.
        CopyError::Read { turns, source, .. } => ExportFailure::Incomplete { turns, reached: None, source },
    })?;
    file.finish()?;
    Ok(Some(exported))
}

const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
enum CopyError {
    Read { turns: u64, reached: Option<Position>, source: io::Error },
    Write(io::Error),
}

/// A line of an export, by its position.
enum Line {
    /// Sums of erased turns.
    Sums,
    Turn(Position),
    End {
        position: Position,
        left_out: u64,
    },
}

/// Copies the lines of an export, and makes sure that the last line is there. Deceptive characters are escaped, as JSON
/// allows, because the lines may end up on a terminal. A line keeps its meaning, and all its other bytes.
fn copy(mut lines: impl BufRead, to: impl Write, progress: &Progress) -> Result<Exported, CopyError> {
    let mut to = BufWriter::with_capacity(BUFFER_BYTES, to);
    let (mut line, mut turns, mut sums, mut reached) = (Vec::new(), 0, 0, None);
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).and_then(|_| parsed(&line));
        let (text, told) = match read {
            Ok(read) => read,
            Err(source) => {
                // What was read so far is whole lines.
                to.flush().map_err(CopyError::Write)?;
                return Err(CopyError::Read { turns, reached, source });
            }
        };
        to.write_all(undeceptive(text).as_bytes()).map_err(CopyError::Write)?;
        progress.advance(line.len(), turns);
        match told {
            Line::Sums => sums += 1,
            Line::Turn(position) => (turns, reached) = (turns + 1, Some(position)),
            Line::End { position: end, left_out } => {
                to.flush().map_err(CopyError::Write)?;
                return Ok(Exported { turns, sums, end, left_out });
            }
        }
    }
}

#[derive(Deserialize)]
struct Fields<'a> {
    erased: Option<IgnoredAny>,
    position: Option<&'a str>,
    end: Option<&'a str>,
    #[serde(default, rename = "leftOut")]
    left_out: u64,
}

/// Reads a line, which is one that was cut off unless it ends with a line feed. Returns its text too.
fn parsed(line: &[u8]) -> io::Result<(&str, Line)> {
    if !line.ends_with(b"\n") {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let line = str::from_utf8(line).map_err(io::Error::other)?;
    let fields: Fields<'_> = serde_json::from_str(line)?;
    if fields.erased.is_some() {
        return Ok((line, Line::Sums));
    }
    let position = |text: Option<&str>| text.and_then(|text| text.parse().ok());
    let read = position(fields.end)
        .map(|position| Line::End { position, left_out: fields.left_out })
        .or_else(|| position(fields.position).map(Line::Turn));
    let read = read.map(|read| (line, read));
    read.ok_or_else(|| io::Error::other("a line has no position, so it is not from turn-metrics"))
}

/// Shows on a terminal how much was exported.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// The number of turns after which the bar shows their new number.
    const TURNS_AT_ONCE: u64 = 256;

    fn begin(is_shown: bool) -> Self {
        let target = if is_shown { output::progress_target() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {bytes} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        output::keep_drawing(&bar);
        Self { bar }
    }

    fn advance(&self, bytes: usize, turns: u64) {
        self.bar.inc(bytes as u64);
        if turns.is_multiple_of(Self::TURNS_AT_ONCE) {
            self.bar.set_message(format!("{} turns", HumanCount(turns)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(number: u64) -> String {
        format!("00000000000000000000000000000007-{number:016x}")
    }

    fn lines(turns: std::ops::RangeInclusive<u64>) -> String {
        let line = |number| format!("{{\"position\":\"{}\",\"ordinal\":{number}}}\n", position(number));
        turns.map(line).collect::<Vec<_>>().concat()
    }

    fn end(number: u64) -> String {
        format!("{{\"end\":\"{}\"}}\n", position(number))
    }

    fn copied(text: &str) -> (Result<Exported, CopyError>, String) {
        let mut to = Vec::new();
        let result = copy(text.as_bytes(), &mut to, &Progress::begin(false));
        (result, String::from_utf8(to).unwrap())
    }

    #[test]
    fn a_complete_export_is_copied_to_the_byte() {
        for turns in [0, 1, 1000] {
            let text = lines(1..=turns) + &end(turns);
            let (exported, to) = copied(&text);
            let exported = exported.unwrap();
            assert_eq!((exported.turns, exported.end.to_string()), (turns, position(turns)));
            assert!(to == text);
        }
    }

    #[test]
    fn sums_of_erased_turns_are_copied_and_counted_apart() {
        let sums = "{\"erased\":{\"id\":\"x\"}}\n".repeat(3);
        let text = sums.clone() + &lines(1..=2) + &end(2);
        let (exported, to) = copied(&text);
        let exported = exported.unwrap();
        assert_eq!((exported.turns, exported.sums), (2, 3));
        assert!(to == text);
        let (exported, to) = copied(&sums);
        assert!(matches!(exported, Err(CopyError::Read { turns: 0, reached: None, .. })), "it has no end");
        assert_eq!(to, sums);
    }

    #[test]
    fn what_the_server_left_out_is_taken_from_the_end() {
        let end = end(3).replace('}', ",\"leftOut\":7}");
        let (exported, to) = copied(&(lines(1..=3) + &end));
        assert_eq!((exported.unwrap().left_out, to), (7, lines(1..=3) + &end));
    }

    #[test]
    fn an_export_without_its_end_is_an_error_that_says_how_far_it_came() {
        let whole = lines(1..=3) + &end(3);
        for cut in 0..whole.len() {
            let (exported, to) = copied(&whole[..cut]);
            let Err(CopyError::Read { turns, reached, .. }) = exported else { panic!("cut at {cut}") };
            let expected = whole[..cut].matches('\n').count() as u64;
            assert_eq!(turns, expected, "cut at {cut}");
            assert_eq!(reached.map(|position| position.number), (turns > 0).then_some(turns));
            assert_eq!(to, lines(1..=turns), "only whole lines are written");
        }
    }

    #[test]
    fn deceptive_characters_are_escaped_and_every_line_keeps_its_meaning() {
        let text = "\u{202e}\u{2066}\u{200f}\u{61c}\u{7f}\u{85}\u{9b}\u{2028}\u{2029}\\\"é€\u{1b}";
        let of = |key: &str, value: &str| format!("{{\"{key}\":{},{value}}}\n", serde_json::to_string(text).unwrap());
        let erased = of("conversationId", r#""erased":{}"#);
        let turn = of("conversationId", &format!(r#""position":"{}""#, position(1)));
        let sent = erased + &turn + &end(1);
        let (exported, to) = copied(&sent);
        exported.unwrap();
        assert!(!to.contains(|c: char| crate::deceptive::is_deceptive(c) || (c.is_control() && c != '\n')), "{to}");
        assert!(to.contains("\\u202e\\u2066\\u200f\\u061c\\u007f\\u0085\\u009b\\u2028\\u2029\\\\\\\"é€"), "{to}");
        let values = |text: &str| {
            let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            lines.collect::<Vec<_>>()
        };
        assert_eq!(values(&to), values(&sent));
    }

    #[test]
    fn a_line_of_something_else_is_an_error() {
        let mut to = Vec::new();
        let end = end(1);
        let broken = [&b"{\"conversationId\":\"\x9b\","[..], &end.as_bytes()[1..]].concat();
        assert!(copy(&*broken, &mut to, &Progress::begin(false)).is_err() && to.is_empty(), "it is not UTF-8");
        for other in ["<html>\n", "{}\n", "[]\n"] {
            assert!(matches!(copied(other).0, Err(CopyError::Read { turns: 0, reached: None, .. })), "{other}");
        }
    }
}
