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

use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use tokio::task::yield_now;
use tracing::debug;

use self::send::{Ended, import_turns, take_sums};
use super::api::Api;
use super::query::Query;
use crate::actors::{ImportReceipt, ImportedTurn};
use crate::http::error::{ApiError, ImportEnd};
use crate::http::intake::arrival::{Arrival, BrokenArrival, Format, SLICE_BYTES, TimeLimit};
use crate::http::intake::body::{MIN_RESERVED_BYTES, overloaded};
use crate::http::intake::budget::{Denied, Reservation};
use crate::http::intake::import_batch::ImportBatch;
use crate::http::intake::import_line::ImportLine;
use crate::http::intake::inflate::{INFLATER_BYTES, Inflated, Inflater};
use crate::http::intake::lines::{LineTooLong, Lines};
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

async fn import(api: &Api, request: &HttpRequest, arrival: &mut Arrival<'_>) -> Result<ImportAnswer, ApiError> {
    Query::read(request.query_string(), &[])?;
    let format = Format::of(request, "turn")?;
    if api.handles.intake.load.is_full() {
        return Err(overloaded());
    }
    let reservation = api.budget.reserve(MIN_RESERVED_BYTES).map_err(|_| overloaded())?;
    let mut importer = Importer {
        api,
        lines: Lines::new(format.framing, api.settings.max_line_bytes),
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
        let now = self.api.clock.now();
        let last = self.lines.last().map(|line| (line.number, line.text.len(), read(line.text, self.is_body, now)));
        match last {
            Some((number, len, line)) => self.take(number, len, line).await?,
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
        let now = self.api.clock.now();
        loop {
            let line = match self.lines.next() {
                Ok(Some(line)) => (line.number, line.text.len(), read(line.text, self.is_body, now)),
                Ok(None) => break,
                Err(LineTooLong { number }) => {
                    self.import_batch().await?;
                    let limit = self.api.settings.max_line_bytes;
                    let message = format!("a line must have at most {limit} bytes (`http.max_line_bytes`)");
                    return Err(Ended { line: number, why: ImportEnd::BadLine(message) });
                }
            };
            let (number, len, line) = line;
            self.take(number, len, line).await?;
        }
        self.hold().await
    }

    /// Takes a line that was read.
    async fn take(&mut self, number: u64, len: usize, line: Result<ImportLine, WrongLine>) -> Result<(), Ended> {
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
            Err(WrongLine { message, line, encoding }) => {
                self.import_batch().await?;
                let message = encoding.filter(|_| is_first).map_or(message, |encoding| encoding.to_string());
                Err(Ended { line: number + line - 1, why: ImportEnd::BadLine(message) })
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
        let inflater_bytes = if self.inflater.is_some() { INFLATER_BYTES + SLICE_BYTES } else { 0 };
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

/// A line that cannot be imported.
struct WrongLine {
    message: String,
    /// The line of the error, counted from 1 within the object.
    line: u64,
    /// The encoding of the text, if the line is the first one.
    encoding: Option<Encoding>,
}

fn read(text: &[u8], is_body: bool, now: EpochMillis) -> Result<ImportLine, WrongLine> {
    ImportLine::read(text, is_body, now).map_err(|error| WrongLine {
        message: error.to_string(),
        line: error.line as u64,
        encoding: Encoding::of(text),
    })
}
