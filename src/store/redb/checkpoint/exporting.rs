//! What an export needs: that no turn is dropped while it is being sent, and that the sums of erased conversations are in
//! their place when it begins.
//!
//! An export has the sums of erased turns first, and then the stored turns. A turn that is dropped in between would be in
//! neither part. Erasing needs no such care: the turns of an erased conversation are in no read from the erasure on, so a
//! later move of their sums adds nothing twice.

use std::sync::Arc;

use super::Checkpoint;
use crate::store::fault::Fault;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::unwind;

impl Checkpoint {
    /// Keeps turns from being dropped until the returned value is dropped, for some hours at most.
    pub(crate) fn begin_export(&self) -> Arc<()> {
        // A step of dropping that is under way ends first.
        let _no_step = self.pause();
        self.exports.begin()
    }

    /// Moves some of the sums of erased conversations to the sums of erased turns. Returns whether all are moved. Like a
    /// flush in the background, stores a failure for the next commit too.
    pub(crate) fn settle_erasures(&self) -> Result<bool, Fault> {
        let begun = self.slot.with(|files| -> Result<_, Failure> {
            Ok((!files.memtable().contents().erased().is_empty(), files.read_tables()?))
        });
        let (has_recent, tables) = begun??;
        let next = tables.next_erasure(u64::MAX)?;
        if !has_recent && next.is_none() {
            return Ok(true);
        }
        let is_moved = tables.next_erasure(tables.meta()?.checkpoint()?.number)?.is_some();
        drop(tables);
        if !is_moved {
            let _one_at_a_time = self.pause();
            self.failure().map_or(Ok(()), Err)?;
            let flushed = unwind::caught_as_fault(|| self.flush_once());
            return flushed.map(|()| false).inspect_err(|cause| {
                *self.failure_of_background() = Some(cause.clone());
            });
        }
        if !self.reprice_in_background() {
            self.erase_in_background();
        }
        self.failure().map_or(Ok(false), Err)
    }
}
