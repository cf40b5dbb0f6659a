//! The scrub: reads all rows of a running store, slowly and again and again, and compares them with each other.
//!
//! A read verifies only the rows that it reads. The scrub reads all rows, also those that no client asks for. It also
//! notices a row that exists but that a look-up cannot find, because a bit of a key in an inner page is flipped. It
//! logs and stores each finding. From then on, commits to the conversation of the finding are refused, until a repair.
//!
//! Invariants:
//!
//! - A step compares rows of one snapshot only, so a commit or a flush meanwhile never leads to a finding.
//! - A step reads few rows, because free pages cannot be used again while its snapshot is open.
//! - The scrub changes nothing but the table of findings.
//! - After a pass, each conversation was compared or takes nothing new: if rows cannot be read, the conversations that
//!   they may belong to are a finding.
//! - A pass ends even if the disk can never read some sectors: rows whose reading has failed several times, with the
//!   store opened again in between, count as damaged.
//!
//! What it does not compare: the sums of reports with the turns (this needs all turns of one snapshot), and the
//! checksums of the database's pages. `turn-metrics check` does that.
//!
//! - `pass`: the walk over all tables, in steps.
//! - `rows`: compares a row with the rows of other tables.
//! - `background`: the thread that scrubs at the set rate.
//! - `tests`: each kind of damage is found, and a sound store has no findings.

pub(crate) mod background;
mod pass;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use self::pass::Pass;
use self::rows::Tables;
use crate::store::fault::Fault;
use crate::store::redb::checkpoint::Checkpoint;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::files::slot::Slot;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::findings::{self, Finding, Unread};
use crate::store::redb::unwind;

/// The bytes of rows that one step reads: some hundred rows, which take some milliseconds.
const STEP_BYTES: usize = 32 * 1024;

/// Scrubs an open store.
#[derive(Debug)]
pub(crate) struct Scrubber {
    slot: Arc<Slot>,
    checkpoint: Arc<Checkpoint>,
    passes: AtomicU64,
    rows: AtomicU64,
    /// The pass of [`Scrubber::run`] that ended with an error. A new one if there is none.
    interrupted: Mutex<Pass>,
    unstored: Mutex<Unstored>,
}

/// Findings that could not be stored.
#[derive(Debug, Default)]
struct Unstored {
    findings: Vec<Finding>,
    /// How often that was tried since the last new finding.
    attempts: u32,
}

/// How often findings are tried to be stored until there is a new one. Each failed attempt makes the store open its files
/// again, so it must not go on for ever.
const MAX_ATTEMPTS: u32 = 3;

impl Scrubber {
    pub(crate) fn new(slot: Arc<Slot>, checkpoint: Arc<Checkpoint>) -> Self {
        Self {
            slot,
            checkpoint,
            passes: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            interrupted: Mutex::default(),
            unstored: Mutex::default(),
        }
    }

    /// Returns how many passes have read all rows since the start.
    pub(crate) fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// Returns how many rows all passes have read since the start.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Runs one pass to its end. If a step fails, the next call goes on from there.
    pub(crate) fn run(&self) -> Result<(), Fault> {
        let mut pass = std::mem::take(&mut *lock(&self.interrupted));
        while !pass.is_done() {
            if let Err(fault) = self.step(&mut pass) {
                *lock(&self.interrupted) = pass;
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Runs the next step of a pass. Returns how many bytes of rows it has read. An error says why the store cannot be
    /// read now; the step can be tried again once the store was opened again.
    pub(crate) fn step(&self, pass: &mut Pass) -> Result<usize, Fault> {
        // Those of a step after which the store was opened again.
        self.note(Vec::new());
        let mut found = Vec::new();
        let rows_before = pass.rows();
        let (begun, hasher) = self.slot.with(|files| (files.begin_read(), files.hasher()))?;
        let mut has_tables = false;
        let stepped = unwind::caught(|| -> Result<usize, Failure> {
            let txn = begun?;
            let tables = Tables::open(&txn, hasher)?;
            has_tables = true;
            let bytes = pass.step(&tables, STEP_BYTES, &mut found)?;
            tables.name_conversations(&mut found);
            Ok(bytes)
        });
        let cause: Fault = match stepped {
            Ok(Ok(bytes)) => {
                self.rows.fetch_add(pass.rows() - rows_before, Ordering::Relaxed);
                self.note(found);
                if pass.is_done() {
                    self.passes.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(bytes);
            }
            Ok(Err(failure)) if failure.may_pass() && (has_tables || !pass.is_for_good(&failure)) => {
                return Err(failure.into());
            }
            Ok(Err(failure)) => failure.into(),
            Err(panic) => panic.into(),
        };
        // Nothing was compared in this step.
        let text = format!("the tables: {}", cause.in_full());
        found.push(Finding { text, key: None, id: None, unread: Some(Unread::ALL) });
        pass.skip_table();
        if pass.is_done() {
            self.passes.fetch_add(1, Ordering::Relaxed);
        }
        self.note(found);
        Ok(0)
    }

    /// Logs new findings and stores them. From now on, commits to their conversations are refused.
    fn note(&self, found: Vec<Finding>) {
        let mut carried = lock(&self.unstored);
        if found.is_empty() && carried.findings.is_empty() {
            return;
        }
        // Nothing closes the files meanwhile, so the findings are those of the files to which they are written.
        let _no_flush = self.checkpoint.pause();
        let Ok(known) = self.slot.with(Files::findings) else { return };
        // Files that were opened again know only what was stored.
        known.add(carried.findings.clone());
        for finding in known.add(found) {
            carried.attempts = 0;
            tracing::error!(
                finding = finding.text,
                "a scrub has found damage; stop the service and run `turn-metrics check --repair`"
            );
        }
        let unstored = known.unstored();
        if unstored.is_empty() || carried.attempts >= MAX_ATTEMPTS {
            return;
        }
        let stored = unwind::caught_as_fault(|| {
            let txn = self.slot.with(Files::write_tables)??;
            findings::write(&txn, &unstored)?;
            Ok(txn.commit().map_err(Failure::from)?)
        });
        match stored {
            Ok(()) => {
                known.stored(&unstored);
                *carried = Unstored::default();
            }
            // They hold as long as the process runs. The next steps try again.
            Err(fault) => {
                tracing::error!(cause = fault.in_full(), "what a scrub found cannot be stored");
                *carried = Unstored { findings: unstored, attempts: carried.attempts + 1 };
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
