use std::fs::File;
use std::io::{self, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use memchr::memchr_iter;

use super::args::ServerArgs;
use super::client::{Client, ClientError, HttpImport, ImportOutcome};
use super::{CliError, output};
use crate::turn::Encoding;

/// Imports turns into a running server: those of exports, or metrics that Dispatch has stored.
///
/// Each line of a file is a turn as `turn-metrics export` writes it, or the metrics of a turn with its `conversationId`.
/// Files may be compressed with gzip. A turn that the server has already is skipped, so importing a file again is always
/// safe. A conversation that is new to the server keeps its ordinals and times. The turns of other conversations are
/// appended.
///
/// The server imports lines as they arrive. A bad line ends the import: all turns before it are imported then. If the
/// last line of an export is missing, the export is incomplete; the turns that it has are imported.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics import turns.ndjson
  turn-metrics import monday.ndjson.gz tuesday.ndjson.gz --server http://127.0.0.1:24210
  turn-metrics export --server http://old.example:24210 | turn-metrics import

Exit codes: 0 if all turns are imported or were there already; 1 if an import ended early, or if an export is incomplete;
2 wrong usage.")]
pub(super) struct Args {
    /// The files, in this order; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    server: ServerArgs,
}

/// The reason why turns were not imported, or not all of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportFailure {
    /// The file could not be opened.
    #[error("{file}: cannot be opened: {cause}")]
    Open {
        /// The name of the file.
        file: String,
        /// The error of the system.
        cause: io::Error,
    },
    /// The file could not be read to its end.
    #[error("{file}: cannot be read: {cause}; turns before this place may be imported, {SAFE}")]
    Read {
        /// The name of the file.
        file: String,
        /// The error of the system.
        cause: io::Error,
    },
    /// The server ended the import at a line. All turns before it are imported.
    #[error("{file}:{line}: {error}; {}, {SAFE}", counts(*.imported, *.duplicates))]
    Ended {
        /// The name of the file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The reason, as the server tells it.
        error: String,
        /// How many turns were imported.
        imported: u64,
        /// How many turns the server had already.
        duplicates: u64,
    },
    /// The connection was lost while the file was sent.
    #[error("{file}: the connection was lost after {sent}: {cause}; turns that the server has taken stay, {SAFE}")]
    Lost {
        /// The name of the file.
        file: String,
        /// How much of the file was sent.
        sent: String,
        /// The error of the connection.
        cause: Box<ClientError>,
    },
    /// The server could not be reached, or it refused the import as a whole.
    #[error("{file}: {cause}")]
    Client {
        /// The name of the file.
        file: String,
        /// The error of the request.
        cause: Box<ClientError>,
    },
}

/// The advice in messages about an import that ended early.
const SAFE: &str = "and it is safe to import the file again, as turns that are there are skipped";

fn counts(imported: u64, duplicates: u64) -> String {
    format!("{imported} turns imported, {duplicates} were there already")
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let client = Client::new(args.server.server.clone());
    let mut code = ExitCode::SUCCESS;
    for path in &args.files {
        let name = name_of(path);
        let answer = import(&client, path, &name)?;
        let HttpImport { imported, duplicates, erased_sums, incomplete, .. } = answer;
        let sums = if erased_sums > 0 { format!(", {erased_sums} sums of erased turns") } else { String::new() };
        output::print(&format!("{name}: {}{sums}\n", counts(imported, duplicates)))?;
        if incomplete {
            output::note(&incomplete_note(&name, &answer));
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Says why an export is incomplete.
fn incomplete_note(name: &str, answer: &HttpImport) -> String {
    match answer.left_out {
        0 => format!(
            "{name}: the export is incomplete, because its last line, the end, is missing: import the whole export, {SAFE}"
        ),
        left_out => format!(
            "{name}: the export is incomplete, because the server that it comes from left out {left_out} damaged turns or sums"
        ),
    }
}

fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".into() } else { output::plain(&path.display().to_string()) }
}

/// Sends a file in one request.
fn import(client: &Client, path: &Path, name: &str) -> Result<HttpImport, ImportFailure> {
    let file = || name.to_owned();
    let (source, total_bytes) = open(path).map_err(|cause| ImportFailure::Open { file: file(), cause })?;
    let bar = progress(total_bytes);
    let mut upload = Upload { source, bar: &bar, bytes: 0, line_breaks: 0, error: None };
    let (head, is_gzip) = upload.look_ahead().map_err(|cause| ImportFailure::Read { file: file(), cause })?;
    let outcome = client.import(&mut Cursor::new(head).chain(&mut upload), is_gzip);
    bar.finish_and_clear();
    match (outcome, upload.error.take()) {
        (_, Some(cause)) => Err(ImportFailure::Read { file: file(), cause }),
        (Ok(ImportOutcome::Done(imported)), None) => Ok(imported),
        (Ok(ImportOutcome::Ended { line, error, imported, duplicates }), None) => {
            Err(ImportFailure::Ended { file: file(), line, error, imported, duplicates })
        }
        (Err(cause @ ClientError::Unreachable { .. }), None) if upload.bytes > HEAD_BYTES as u64 => {
            Err(ImportFailure::Lost { file: file(), sent: upload.sent(is_gzip), cause: Box::new(cause) })
        }
        (Err(cause), None) => Err(ImportFailure::Client { file: file(), cause: Box::new(cause) }),
    }
}

fn open(path: &Path) -> io::Result<(Box<dyn Read>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let total_bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), total_bytes))
}

/// The bar that shows on a terminal how much was sent. It has a length only if the size is known.
fn progress(total_bytes: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total_bytes, output::progress_target());
    let template = match total_bytes {
        Some(_) => "{bar:30} {bytes}/{total_bytes} ({eta} left)",
        None => "{spinner} {bytes} ({elapsed})",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    output::keep_drawing(&bar);
    bar
}

/// The number of bytes that show whether a file is compressed.
const HEAD_BYTES: usize = Encoding::HEAD_BYTES;

/// A file that is being sent.
struct Upload<'a, R> {
    source: R,
    bar: &'a ProgressBar,
    /// How many bytes were read.
    bytes: u64,
    /// How many of them are line breaks.
    line_breaks: u64,
    /// The error that ended the reading. The request only fails with a copy of it.
    error: Option<io::Error>,
}

impl<R: Read> Upload<'_, R> {
    /// Reads the first bytes, and returns whether the file is compressed with gzip.
    fn look_ahead(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let mut head = Vec::new();
        self.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let is_gzip = Encoding::of(&head) == Some(Encoding::Gzip);
        Ok((head, is_gzip))
    }

    /// Describes how much was sent.
    fn sent(&self, is_gzip: bool) -> String {
        if is_gzip { HumanBytes(self.bytes).to_string() } else { format!("about {} lines", self.line_breaks) }
    }
}

impl<R: Read> Read for Upload<'_, R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let len = match self.source.read(room) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                self.error = Some(error);
                return Err(copy);
            }
        };
        self.bytes += len as u64;
        self.line_breaks += memchr_iter(b'\n', &room[..len]).count() as u64;
        self.bar.inc(len as u64);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, answer};
    use super::*;

    /// Imports a file with this content.
    fn import_text(script: &Script, text: &[u8]) -> Result<HttpImport, ImportFailure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("turns.ndjson");
        std::fs::write(&path, text).unwrap();
        import(&Client::new(script.url()), &path, "turns.ndjson")
    }

    #[test]
    fn a_file_is_sent_in_one_request_as_it_is() {
        let done = || answer(200, r#"{"imported":2,"duplicates":1,"end":null,"incomplete":true}"#);
        let script = Script::play(vec![done(), done(), done()]);
        for text in [&b"one\ntwo\n"[..], b"\x1f\x8b\x08\0rest", b""] {
            let imported = import_text(&script, text).unwrap();
            assert_eq!((imported.imported, imported.duplicates, imported.incomplete), (2, 1, true));
            assert!(incomplete_note("turns.ndjson", &imported).contains("the end, is missing"));
        }
        let requests = script.requests();
        assert!(requests.iter().all(|request| request.starts_with("POST /import HTTP/1.1\r\n")), "{requests:?}");
        assert!(requests[0].ends_with("one\ntwo\n") && !requests[0].contains("content-encoding"), "{requests:?}");
        assert!(requests[1].to_lowercase().contains("content-encoding: gzip"), "{requests:?}");
    }

    #[test]
    fn damage_where_an_export_comes_from_is_told_as_such() {
        let with_gaps = r#"{"imported":2,"duplicates":1,"end":"x","incomplete":true,"leftOut":7}"#;
        let imported = import_text(&Script::play(vec![answer(200, with_gaps)]), b"one\n").unwrap();
        let note = incomplete_note("turns.ndjson", &imported);
        assert!(note.ends_with("left out 7 damaged turns or sums"), "{note}");
    }

    #[test]
    fn a_line_at_which_the_import_ended_is_told_with_the_file_and_the_counts() {
        let bad = r#"{"error":"line 7: `ordinal` is missing","line":7,"imported":5,"duplicates":1}"#;
        let script = Script::play(vec![answer(400, bad), answer(415, r#"{"error":"wrong"}"#)]);
        assert_eq!(
            import_text(&script, b"x\n").unwrap_err().to_string(),
            "turns.ndjson:7: `ordinal` is missing; 5 turns imported, 1 were there already, and it is safe to import the \
             file again, as turns that are there are skipped"
        );
        let refused = import_text(&script, b"x\n").unwrap_err();
        assert!(matches!(refused, ImportFailure::Client { .. }), "{refused}");
        assert!(refused.to_string().ends_with("answered 415: wrong"), "{refused}");
    }

    #[test]
    fn a_lost_connection_is_told_with_how_much_was_sent() {
        let script = Script::play(vec![None]);
        let lost = import_text(&script, b"one\ntwo\nthree\n").unwrap_err();
        let ImportFailure::Lost { ref sent, .. } = lost else { panic!("{lost}") };
        assert_eq!(sent, "about 3 lines");
        assert!(lost.to_string().contains("it is safe to import the file again"), "{lost}");
    }

    /// A source that breaks after some bytes.
    struct Breaking(usize);

    impl Read for Breaking {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let len = room.len().min(self.0);
            self.0 -= len;
            room[..len].fill(b'\n');
            if len == 0 { Err(io::Error::other("the disk failed")) } else { Ok(len) }
        }
    }

    #[test]
    fn an_error_of_the_file_is_kept_apart_from_those_of_the_connection() {
        let bar = ProgressBar::hidden();
        let mut upload = Upload { source: Breaking(10), bar: &bar, bytes: 0, line_breaks: 0, error: None };
        assert_eq!(upload.look_ahead().unwrap(), (b"\n\n\n\n".to_vec(), false));
        assert!(upload.read_to_end(&mut Vec::new()).is_err());
        assert_eq!((upload.bytes, upload.line_breaks), (10, 10));
        assert_eq!(upload.error.unwrap().to_string(), "the disk failed");
    }
}
