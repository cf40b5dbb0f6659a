//! `POST /import`: imports turns while their lines arrive.
//!
//! Invariants: the turns of a batch are durable before the next batch is read to its end. The memory in use does not
//! depend on the length of the body.
//!
//! - `send`: sends turns to the directory, and sums of erased turns to the store.
//! - `tests`: imports into a store in memory.

mod send;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::mem;

use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use tokio::task::yield_now;
use tracing::debug;

use self::send::{Ended, import_turns, take_sums};
use super::api::Api;
use super::query::Query;
use crate::actors::{ImportReceipt, ImportedTurn};
use crate::http::error::{ApiError, ImportEnd, Unavailable};
use crate::http::intake::arrival::{Arrival, BrokenArrival, Format, SLICE_BYTES, TimeLimit};
use crate::http::intake::body::{MIN_RESERVED_BYTES, overloaded};
use crate::http::intake::budget::{Denied, Reservation};
use crate::http::intake::import_batch::ImportBatch;
use crate::http::intake::import_line::{BadImportLine, ImportLine};
use crate::http::intake::inflate::{Inflated, Inflater};
use crate::http::intake::lines::{LineTooLong, Lines, TextLine};
use crate::store::Position;
use crate::turn::{Encoding, EpochMillis, Framing};

/// Imports turns as they arrive, batch by batch. Each batch is durable before the next one begins.
pub(crate) async fn post(api: Data<Api>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    let mut arrival = Arrival::new(payload, &api.settings, TimeLimit::None);
    let imported = import(&api, &request, &mut arrival).await;
    if let Err(error) = &imported
        && !matches!(error, ApiError::ImportEnded { why: ImportEnd::Stalled { .. } | ImportEnd::Broken, .. })
    {
        arrival.drain().await;
    }
    Ok(HttpResponse::Ok().json(imported?))
}

/// The answer: what became of the lines.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImportAnswer {
    imported: u64,
    duplicates: u64,
    /// The number of lines with sums of erased turns that have added something to the reports of this store.
    erased_sums: u64,
    /// The position in the last line, if the last line is the end of an export.
    end: Option<String>,
    /// Whether something is missing: lines of an export came after the last end, so that the end of that export is missing,
    /// or an export said that it leaves out what was damaged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
    /// How many damaged turns and sums the exports say that they leave out.
    #[serde(skip_serializing_if = "crate::http::acknowledged::is_zero")]
    left_out: u64,
}

/// How many times as long as a line of an event a line of an import may be. A line of an export has a whole turn, with the id of
/// each step twice. With the default settings, a turn has at most as many bytes as an event; JSON makes up to six bytes of one,
/// and this covers the longest line of such a turn.
const EVENT_LINES: usize = 6;

/// Returns the maximum number of bytes in a line.
fn max_line_bytes(api: &Api) -> usize {
    api.settings.max_line_bytes.saturating_mul(EVENT_LINES)
}

async fn import(api: &Api, request: &HttpRequest, arrival: &mut Arrival<'_>) -> Result<ImportAnswer, ApiError> {
    Query::read(request.query_string(), &[])?;
    let format = Format::of(request, "turn")?;
    if api.handles.intake.load.is_full() {
        return Err(overloaded());
    }
    // The semaphore is never closed.
    let _place = api.imports.try_acquire().map_err(|_| ApiError::Unavailable(Unavailable::TooManyImports))?;
    let reservation = api.budget.reserve(MIN_RESERVED_BYTES).map_err(|_| overloaded())?;
    let mut importer = Importer {
        api,
        lines: Lines::new(format.framing, max_line_bytes(api)),
        is_body: format.framing == Framing::Whole,
        batch: ImportBatch::default(),
        inflater: format.is_gzip.then(Inflater::new),
        reservation,
        receipt: ImportReceipt::default(),
        erased_sums: 0,
        is_begun: false,
        exports: Exports::default(),
    };
    let ended = importer.read(arrival).await;
    let Importer { receipt: ImportReceipt { imported, duplicates }, erased_sums, exports, .. } = importer;
    match ended {
        Ok(()) => {
            let Exports { end, is_open, left_out } = exports;
            let (end, incomplete) = (end.map(|end| end.to_string()), is_open || left_out > 0);
            Ok(ImportAnswer { imported, duplicates, erased_sums, end, incomplete, left_out })
        }
        Err(Ended { line, why }) => Err(ApiError::ImportEnded { line, why, imported, duplicates }),
    }
}

/// An import in progress.
struct Importer<'a> {
    api: &'a Api,
    lines: Lines,
    /// Whether the body is a single line, which may have line breaks.
    is_body: bool,
    /// The turns that were read and are not imported yet.
    batch: ImportBatch,
    inflater: Option<Inflater>,
    reservation: Reservation,
    receipt: ImportReceipt,
    erased_sums: u64,
    /// Whether a line that is not blank was read.
    is_begun: bool,
    exports: Exports,
}

/// Which exports the lines come from.
#[derive(Default)]
struct Exports {
    /// The position in the last line, if that is the end of an export.
    end: Option<Position>,
    /// Whether lines of an export came after the last end.
    is_open: bool,
    /// How many damaged turns and sums they leave out.
    left_out: u64,
}

impl Importer<'_> {
    /// Reads the whole body and imports its turns.
    async fn read(&mut self, arrival: &mut Arrival<'_>) -> Result<(), Ended> {
        loop {
            match arrival.next().await {
                Ok(Some(chunk)) if self.inflater.is_some() => self.inflate(Some(chunk)).await?,
                Ok(Some(mut chunk)) => {
                    while !chunk.is_empty() {
                        let slice = chunk.split_to(chunk.len().min(SLICE_BYTES));
                        self.take_slice(&slice).await?;
                        if !chunk.is_empty() {
                            yield_now().await;
                        }
                    }
                }
                Ok(None) => break,
                Err(broken) => {
                    // The lines that have arrived are complete.
                    self.import_batch().await?;
                    return Err(self.ended(self.why(broken)));
                }
            }
        }
        if self.inflater.is_some() {
            self.inflate(None).await?;
        }
        let is_long = self.lines.is_in_long_line();
        match self.with_lines(is_long, |lines, reading| lines.last().map(|line| reading.read(&line))).await {
            Some(line) => self.take(line).await?,
            None if self.is_body => {
                return Err(self.ended(ImportEnd::BadLine("the body is empty, but must be one turn".to_owned())));
            }
            None => {}
        }
        self.import_batch().await
    }

    fn why(&self, broken: BrokenArrival) -> ImportEnd {
        let settings = &self.api.settings;
        match broken {
            BrokenArrival::Broken => ImportEnd::Broken,
            BrokenArrival::Slow(_) | BrokenArrival::Stalled => ImportEnd::Stalled {
                limit_ms: settings.stall_timeout.as_millis(),
                bytes_per_second: settings.min_bytes_per_second,
            },
        }
    }

    /// Returns the end of the import at the next line.
    fn ended(&self, why: ImportEnd) -> Ended {
        Ended { line: self.lines.number(), why }
    }

    /// Inflates the next chunk and takes its lines; `None` means the end of the input.
    async fn inflate(&mut self, chunk: Option<Bytes>) -> Result<(), Ended> {
        let Some(inflater) = &mut self.inflater else { return Ok(()) };
        match chunk {
            Some(chunk) => inflater.feed(chunk),
            None => inflater.end(),
        }
        self.hold().await?;
        let mut room = vec![0; SLICE_BYTES];
        while let Some(inflater) = &mut self.inflater {
            match inflater.read(&mut room) {
                Ok(Inflated::Bytes(len)) => self.take_slice(&room[..len]).await?,
                Ok(Inflated::NoText) => {}
                Ok(Inflated::All) => break,
                Err(error) => {
                    debug!(%error, "a posted body could not be inflated");
                    if error.kind() != ErrorKind::UnexpectedEof {
                        // What was inflated from damaged data may be wrong, so the batch is not imported.
                        return Err(Ended { line: self.first_line(), why: ImportEnd::InvalidGzip });
                    }
                    self.import_batch().await?;
                    return Err(self.ended(ImportEnd::CutGzip));
                }
            }
            yield_now().await;
        }
        Ok(())
    }

    /// Returns the number of the first line that is not imported.
    fn first_line(&self) -> u64 {
        self.batch.first_line().unwrap_or(self.lines.number())
    }

    async fn take_slice(&mut self, slice: &[u8]) -> Result<(), Ended> {
        self.lines.push(slice);
        loop {
            let is_long = self.lines.ends_long_line();
            let next = self
                .with_lines(is_long, |lines, reading| lines.next().map(|line| line.map(|line| reading.read(&line))));
            match next.await {
                Ok(Some(line)) => self.take(line).await?,
                Ok(None) => break,
                Err(LineTooLong { number }) => {
                    self.import_batch().await?;
                    let limit = max_line_bytes(self.api);
                    let message =
                        format!("a line must have at most {limit} bytes ({EVENT_LINES} times `http.max_line_bytes`)");
                    return Err(Ended { line: number, why: ImportEnd::BadLine(message) });
                }
            }
        }
        self.hold().await
    }

    /// Reads a line. A long one is read on another thread: that of a turn of 4 MB takes a tenth of a second.
    async fn with_lines<T: Send + 'static>(
        &mut self,
        is_long: bool,
        read: impl FnOnce(&mut Lines, Reading) -> T + Send + 'static,
    ) -> T {
        let Self { api, lines, is_body, .. } = self;
        let reading = Reading { is_body: *is_body, now: api.clock.now(), max_steps: api.handles.intake.max_steps };
        if !is_long {
            return read(lines, reading);
        }
        let mut moved = mem::replace(lines, Lines::new(Framing::Lines, 0));
        let work = move || {
            let result = read(&mut moved, reading);
            (moved, result)
        };
        let result;
        (*lines, result) = api.long_work.run(work).await;
        result
    }

    /// Takes a line that was read.
    async fn take(&mut self, ReadLine { number, len, line }: ReadLine) -> Result<(), Ended> {
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        match line {
            Ok(ImportLine::Turn(turn)) => {
                let turn: ImportedTurn = *turn;
                self.exports.is_open |= turn.ordinal.is_some();
                self.exports.end = None;
                self.batch.add(number, len, turn);
                self.import_if_full().await
            }
            Ok(ImportLine::Erased(sums)) => {
                (self.exports.end, self.exports.is_open) = (None, true);
                self.batch.add_sums(number, len, *sums);
                self.import_if_full().await
            }
            Ok(ImportLine::End(end)) => {
                (self.exports.end, self.exports.is_open) = (Some(end.position), false);
                self.exports.left_out = self.exports.left_out.saturating_add(end.left_out);
                Ok(())
            }
            Err(WrongLine { error: BadImportLine { message, line, is_over_limit }, encoding }) => {
                self.import_batch().await?;
                let message = encoding.filter(|_| is_first).map_or(message, |encoding| encoding.to_string());
                let why = if is_over_limit { ImportEnd::TurnTooLarge(message) } else { ImportEnd::BadLine(message) };
                Err(Ended { line: number + line as u64 - 1, why })
            }
        }
    }

    async fn import_if_full(&mut self) -> Result<(), Ended> {
        if self.batch.is_full() {
            self.hold().await?;
            self.import_batch().await?;
        }
        Ok(())
    }

    /// Reserves the memory that is in use. If there is too little, imports the batch to free its memory.
    async fn hold(&mut self) -> Result<(), Ended> {
        let inflater_bytes = self.inflater.as_ref().map_or(0, |inflater| inflater.memory_bytes() + SLICE_BYTES);
        let bytes = |importer: &Self| {
            let bytes = importer.lines.memory_bytes() + importer.batch.memory_bytes() + inflater_bytes;
            bytes.max(MIN_RESERVED_BYTES.min(importer.api.settings.max_buffered_bytes))
        };
        let wanted = bytes(self);
        if self.reservation.resize(wanted).is_ok() {
            return Ok(());
        }
        if !self.batch.is_empty() {
            self.import_batch().await?;
        }
        let wanted = bytes(self);
        self.reservation.resize(wanted).map_err(|denied| {
            self.ended(match denied {
                Denied::Exhausted => ImportEnd::Unavailable("too much is being worked on"),
                Denied::TooLarge => ImportEnd::TooLarge,
            })
        })
    }

    /// Imports the turns and sums that were read.
    async fn import_batch(&mut self) -> Result<(), Ended> {
        let first_line = self.first_line();
        let (turns, lines, sums) = std::mem::take(&mut self.batch).into_parts();
        // Sums are taken in before turns, whatever their lines are.
        let changed = take_sums(self.api, sums).await.map_err(|why| Ended { line: first_line, why })?;
        self.erased_sums += changed;
        let (receipt, ended) = import_turns(self.api, turns, &lines).await;
        self.receipt.imported += receipt.imported;
        self.receipt.duplicates += receipt.duplicates;
        ended.map_or(Ok(()), Err)
    }
}

/// A line that was read.
struct ReadLine {
    number: u64,
    len: usize,
    line: Result<ImportLine, WrongLine>,
}

/// A line that cannot be imported.
struct WrongLine {
    error: BadImportLine,
    /// The encoding of the text, if the line is the first one.
    encoding: Option<Encoding>,
}

/// How lines are read.
#[derive(Clone, Copy)]
struct Reading {
    is_body: bool,
    now: EpochMillis,
    max_steps: usize,
}

impl Reading {
    fn read(self, &TextLine { number, text }: &TextLine<'_>) -> ReadLine {
        let Self { is_body, now, max_steps } = self;
        let line = ImportLine::read(text, is_body, now, max_steps);
        let line = line.map_err(|error| WrongLine { error, encoding: Encoding::of(text) });
        ReadLine { number, len: text.len(), line }
    }
}
