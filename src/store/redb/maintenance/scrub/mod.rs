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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
}

impl Scrubber {
    pub(crate) fn new(slot: Arc<Slot>, checkpoint: Arc<Checkpoint>) -> Self {
        Self { slot, checkpoint, passes: AtomicU64::new(0), rows: AtomicU64::new(0) }
    }

    /// Returns how many passes have read all rows since the start.
    pub(crate) fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// Returns how many rows all passes have read since the start.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Runs one pass from its beginning to its end.
    pub(crate) fn run(&self) -> Result<(), Fault> {
        let mut pass = Pass::default();
        while !pass.is_done() {
            self.step(&mut pass)?;
        }
        Ok(())
    }

    /// Runs the next step of a pass. Returns how many bytes of rows it has read. An error says why the store cannot be
    /// read now; the step can be tried again.
    pub(crate) fn step(&self, pass: &mut Pass) -> Result<usize, Fault> {
        let mut found = Vec::new();
        let rows_before = pass.rows();
        let (begun, hasher) = self.slot.with(|files| (files.begin_read(), files.hasher()))?;
        let place = "the tables";
        let stepped = unwind::caught(|| -> Result<usize, Failure> {
            let txn = begun?;
            let tables = Tables::open(&txn, hasher)?;
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
            Ok(Err(failure)) if failure.may_pass() => return Err(failure.into()),
            Ok(Err(failure)) => failure.into(),
            Err(panic) => panic.into(),
        };
        // Nothing was compared in this step.
        let text = format!("{place}: {}", cause.in_full());
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
        if found.is_empty() {
            return;
        }
        // Nothing closes the files meanwhile, so the findings are those of the files to which they are written.
        let _no_flush = self.checkpoint.pause();
        let Ok(known) = self.slot.with(Files::findings) else { return };
        for finding in known.add(found) {
            tracing::error!(
                finding = finding.text,
                "a scrub has found damage; stop the service and run `turn-metrics check --repair`"
            );
        }
        let unstored = known.unstored();
        if unstored.is_empty() {
            return;
        }
        let stored = unwind::caught_as_fault(|| {
            let txn = self.slot.with(Files::write_tables)??;
            findings::write(&txn, &unstored)?;
            Ok(txn.commit().map_err(Failure::from)?)
        });
        match stored {
            Ok(()) => known.stored(&unstored),
            // They hold until the files are closed. The next step that finds something tries again.
            Err(fault) => tracing::error!(cause = fault.in_full(), "what a scrub found cannot be stored"),
        }
    }
}
