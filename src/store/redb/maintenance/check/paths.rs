use std::fs;
use std::path::{Path, PathBuf};

use redb::{Builder, Database};

use super::error::CheckError;
use crate::link;
use crate::store::fault::Fault;
use crate::store::redb::checkpoint::transfer::Moving;
use crate::store::redb::files::head::Head;
use crate::store::redb::files::look::look_at;
use crate::store::redb::files::open_error::{OpenError, explain, failed};
use crate::store::redb::files::path::has_content;
use crate::store::redb::files::replay::{DamagedRow, Replayed};
use crate::store::redb::files::write_back::write_back_file;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::meta::{ReadMeta, WriteMeta};
use crate::store::redb::tables::schema::LOST_ROWS;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::tables::write::begin_write;

/// Where the files of a store are.
pub(super) struct Paths {
    pub(super) main: PathBuf,
    pub(super) journal: PathBuf,
}

impl Paths {
    pub(super) fn existing(directory: &Path) -> Result<Self, CheckError> {
        // If a path is a symbolic link, the repair works on the file that it leads to and puts the copy beside that
        // file.
        let [path, journal] = [StoreFile::Main, StoreFile::Journal].map(|file| {
            let path = directory.join(file.name());
            link::target(&path).unwrap_or(path)
        });
        match fs::metadata(&path) {
            Ok(file) if file.is_file() && file.len() == 0 => Err(CheckError::Empty { path }),
            Ok(file) if file.is_file() => Ok(Self { main: path, journal }),
            _ => Err(OpenError::of_missing(directory).map_or(CheckError::Missing { path }, CheckError::Open)),
        }
    }

    /// Opens the files without changing them. The journal may be missing, where it has nothing to say.
    pub(super) fn look(&self) -> Result<(Database, Option<Database>), OpenError> {
        let main = look_at(&Builder::new(), &self.main, StoreFile::Main)?;
        let has_journal = has_content(&self.journal);
        let journal = has_journal.then(|| look_at(&Builder::new(), &self.journal, StoreFile::Journal));
        Ok((main, journal.transpose()?))
    }

    /// Opens the files to change them.
    pub(super) fn open(&self) -> Result<(Database, Option<Database>), OpenError> {
        let open = |path: &Path| Builder::new().open(path).map_err(|error| explain(path, error));
        let main = open(&self.main)?;
        let journal = has_content(&self.journal).then(|| {
            // As every opening does. The lock on the main file keeps others from the journal meanwhile.
            write_back_file(&self.journal).map_err(|error| failed(&self.journal, Fault::disk(error)))?;
            open(&self.journal)
        });
        Ok((main, journal.transpose()?))
    }

    /// Writes all of the journal into the main file, which then no longer needs the journal. Returns the damaged rows
    /// of the journal.
    pub(super) fn merge(&self, main: &Database, journal: Option<&Database>) -> Result<Vec<DamagedRow>, OpenError> {
        let failed = |failure: Failure| failed(&self.main, failure);
        let head = Head::of(main).map_err(failed)?;
        let mut damaged = Vec::new();
        let mut memtable = None;
        match journal {
            Some(journal) => {
                let Replayed { memtable: replayed, damaged: rows } = head.replay(main, journal, &self.journal)?;
                (memtable, damaged) = (Some(replayed), rows);
            }
            None if head.bond.journal_id.is_some() => {
                let why = "the whole journal is missing, and what was acknowledged last with it".to_owned();
                damaged.push(DamagedRow { number: head.checkpoint.number + 1, why, bytes: Vec::new() });
            }
            None => {}
        }
        let write = || {
            let txn = begin_write(main)?;
            let last = memtable.as_ref().map_or(head.checkpoint, Memtable::last_row);
            if let Some(memtable) = &memtable {
                let pieces = memtable.contents().all().cloned().collect();
                let runs = memtable.runs().cloned().collect();
                let moving = Moving { pieces, runs, checkpoint: Some(last), newest: last };
                moving.write(&txn, TurnHasher::of(head.bond.store_id))?;
            }
            let mut meta = WriteMeta::write(&txn)?;
            if let Some(journal) = journal {
                let running = ReadMeta::of(journal)?.running_time()?.max(meta.running_time()?);
                meta.set_running_time(running)?;
            }
            meta.release_journal(last)?;
            // From here on turns are missing, also where the process ends before the rest of the repair.
            if !damaged.is_empty() {
                meta.draw_lineage()?;
            }
            drop(meta);
            for row in &damaged {
                txn.open_table(LOST_ROWS)?.insert(row.number, &*row.bytes)?;
            }
            Ok(txn.commit()?)
        };
        write().map_err(failed)?;
        Ok(damaged)
    }
}
