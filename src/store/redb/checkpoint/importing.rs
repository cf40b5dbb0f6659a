//! Takes in sums of erased turns of other stores.

use super::Checkpoint;
use crate::store::erased_sums::ErasedSums;
use crate::store::fault::Fault;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::rollups::WriteRollups;
use crate::store::redb::tables::write::WriteTables;
use crate::store::redb::unwind;

impl Checkpoint {
    /// Takes in sums in one transaction, and returns how many of them changed something. Sums of this store's own lineage
    /// are passed over. Like a flush in the background, stores a failure for the next commit too: after a failure the
    /// outcome is unknown.
    pub(crate) fn take_erased_sums(&self, sums: &[ErasedSums]) -> Result<u64, Fault> {
        let _one_at_a_time = self.pause();
        self.failure().map_or(Ok(()), Err)?;
        let in_place = self.slot.with(Files::in_place)?;
        in_place.check()?;
        let changed = unwind::caught_as_fault(|| self.take_once(sums)).inspect_err(|cause| {
            *self.failure_of_background() = Some(cause.clone());
        })?;
        // If the file was replaced meanwhile, nobody opens the one that has the sums, so they must not be acknowledged.
        in_place.check()?;
        Ok(changed)
    }

    fn take_once(&self, sums: &[ErasedSums]) -> Result<u64, Fault> {
        let begun = self
            .slot
            .with(|files| -> Result<_, Failure> { Ok((files.lineage(), files.hasher(), files.write_tables()?)) });
        let (lineage, hasher, txn) = begun??;
        let others = sums.iter().filter(|sums| sums.id.lineage != lineage);
        let mut tables = WriteTables::open(&txn, hasher)?;
        let mut rollups = WriteRollups::open(&txn)?;
        let changed = rollups.take_in(others)?;
        tables.grow_by(rollups.growth());
        drop(rollups);
        tables.finish_without_journal()?;
        if changed > 0 {
            txn.commit().map_err(Failure::from)?;
        } else {
            txn.abort().map_err(Failure::from)?;
        }
        Ok(changed)
    }
}
