use std::path::{Path, PathBuf};
use std::{fs, io};

use redb::{Builder, Database, WriteTransaction};

use super::error::CheckError;
use super::state::{self, State};
use crate::link;
use crate::report::{NoPrices, PriceBook};
use crate::store::fault::Fault;
use crate::store::redb::checkpoint::transfer::{Sums, Transfer};
use crate::store::redb::files::file::open_database;
use crate::store::redb::files::header::StoreHeader;
use crate::store::redb::files::open_error::{OpenError, explain, failed};
use crate::store::redb::files::path::has_content;
use crate::store::redb::files::replay::{DamagedRow, RowFlaw};
use crate::store::redb::files::write_back::write_back_file;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::tally::{Lacking, Recent};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::meta::{ReadMeta, WriteMeta};
use crate::store::redb::tables::schema::LOST_JOURNAL_ROWS;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::unwind;
use crate::turn::RunningTime;

/// The paths of the files of a store. If a path is a symbolic link, the path is that of the file that it leads to.
pub(super) struct Paths {
    pub(super) main: PathBuf,
    pub(super) journal: PathBuf,
    /// The path of the journal, which may be a link.
    named_journal: PathBuf,
}

impl Paths {
    pub(super) fn existing(directory: &Path) -> Result<Self, CheckError> {
        // If a path is a symbolic link, the repair works on the file that it leads to and puts the copy beside that
        // file.
        let [path, journal] = [StoreFile::Main, StoreFile::Journal].map(|file| {
            let path = directory.join(file.name());
            link::target(&path).unwrap_or(path)
        });
        let named_journal = directory.join(StoreFile::Journal.name());
        match fs::metadata(&path) {
            // A journal may have turns, from which a new main file can be built.
            Ok(file) if file.is_file() && file.len() == 0 && !has_content(&journal) => Err(CheckError::Empty { path }),
            Ok(file) if file.is_file() => Ok(Self { main: path, journal, named_journal }),
            found => Err(match (OpenError::of_missing(directory), found) {
                (Some(obstacle), _) => obstacle.into(),
                (None, Err(source)) if source.kind() != io::ErrorKind::NotFound => {
                    OpenError::Unreadable { path, source }.into()
                }
                (None, _) => CheckError::Missing { path },
            }),
        }
    }

    /// Looks at the main file and at the journal. The journal may be missing if the main file does not need it.
    pub(super) fn states(&self) -> Result<(State, Option<State>), OpenError> {
        let main = State::of(&self.main, StoreFile::Main)?;
        let is_needed = || match &main {
            State::Sound(tables, _) => {
                let header = unwind::caught(|| StoreHeader::of(tables));
                header.is_ok_and(|header| header.is_ok_and(|header| header.bond.journal_id.is_some()))
            }
            State::Damaged(_) | State::Rowless(_) => true,
        };
        if let Some(dangling) = OpenError::of_dangling_journal(&self.named_journal, true)
            && is_needed()
        {
            return Err(dangling);
        }
        if self.journal.is_dir() {
            return Err(OpenError::NoJournal { path: self.journal.clone(), is_needed: is_needed() });
        }
        let journal = has_content(&self.journal).then(|| State::of(&self.journal, StoreFile::Journal)).transpose();
        let journal = journal.map_err(|refused| refused.of_journal(is_needed()))?;
        let main = match (main, &journal) {
            (State::Rowless(refused), None | Some(State::Rowless(_))) => return Err(refused),
            // What the journal has is all that is left.
            (State::Rowless(_), Some(_)) => State::Damaged(state::damage(StoreFile::Main)),
            (main, _) => main,
        };
        let journal = match journal {
            // No row is left, so the main file has to go on without the rest.
            Some(State::Rowless(_)) => Some(State::Damaged(state::damage(StoreFile::Journal))),
            journal => journal,
        };
        if let (State::Sound(tables, _), Some(State::Sound(rows, _))) = (&main, &journal) {
            let is_shorter = unwind::caught(|| StoreHeader::of(tables)?.has_seen_more(rows));
            if matches!(is_shorter, Ok(Ok(true))) {
                let journal = journal.map(|journal| state::of_shorter(&self.journal, journal)).transpose()?;
                return Ok((main, journal));
            }
        }
        Ok((main, journal))
    }

    /// Opens the files for writing.
    pub(super) fn open(&self) -> Result<(Database, Option<Database>), OpenError> {
        let open = |path: &Path| open_database(&Builder::new(), path).map_err(|error| explain(path, error));
        let main = open(&self.main)?;
        let journal = has_content(&self.journal).then(|| {
            // Every opening writes the journal back. The lock on the main file keeps other processes away from the
            // journal meanwhile.
            write_back_file(&self.journal).map_err(|error| failed(&self.journal, Fault::disk(error)))?;
            open(&self.journal)
        });
        Ok((main, journal.transpose()?))
    }

    /// Reads the changes in the journal that the tables lack.
    pub(super) fn unmerged(&self, main: &Database, journal: Option<&Database>) -> Result<Unmerged, OpenError> {
        let failed = |failure: Failure| failed(&self.main, failure);
        let header = StoreHeader::of(main).map_err(failed)?;
        let (mut damaged, mut memtable, mut running) = (Vec::new(), None, RunningTime::default());
        match journal {
            Some(journal) => {
                let replayed = header.replay(main, journal, &self.journal)?;
                (memtable, damaged) = (Some(replayed.memtable), replayed.damaged);
                damaged.extend(replayed.unplaced);
                running = ReadMeta::of(journal).and_then(|meta| meta.running_time()).map_err(failed)?;
            }
            None if header.bond.journal_id.is_some() => {
                let number = header.checkpoint.number + 1;
                damaged.push(DamagedRow::new(number, RowFlaw::NoJournal, &[]));
            }
            None => {}
        }
        Ok(Unmerged { header, memtable, running, damaged })
    }
}

/// The changes that the journal has and the main file lacks.
pub(super) struct Unmerged {
    header: StoreHeader,
    /// `None` if there is no journal.
    memtable: Option<Memtable>,
    running: RunningTime,
    /// The rows of the journal that could not be read in full.
    pub(super) damaged: Vec<DamagedRow>,
}

impl Unmerged {
    /// Returns the sums over the turns of the journal, without costs: see [`NoPrices`].
    fn sums(memtable: &Memtable, meta: &WriteMeta<'_>) -> Result<Sums, Failure> {
        let rolled_up = memtable.rolled_up_at_last();
        let mut recent = Recent::default();
        recent.count(&memtable.all_uncounted(), &NoPrices);
        let tally = recent.not_in(&Lacking::of(meta, memtable.rolled_up_then().row)?);
        Ok(Sums { tally, digest: NoPrices.digest(), rolled_up, to: None })
    }

    /// Writes all changes into the main file, which then no longer needs the journal.
    pub(super) fn write(&self, txn: &WriteTransaction) -> Result<(), Failure> {
        let last = self.memtable.as_ref().map_or(self.header.checkpoint, Memtable::last_row);
        if let Some(memtable) = &self.memtable {
            let pieces = memtable.contents().all().cloned().collect();
            let runs = memtable.runs().cloned().collect();
            let sums = Some(Self::sums(memtable, &WriteMeta::write(txn)?)?);
            let transfer = Transfer { pieces, runs, checkpoint: Some(last), newest: last, last_row: last.number, sums };
            transfer.write(txn, TurnHasher::of(self.header.bond.store_id))?;
        }
        let mut meta = WriteMeta::write(txn)?;
        let running = self.running.max(meta.running_time()?);
        meta.set_running_time(running)?;
        meta.release_journal(last)?;
        let repair = meta.next_repair()?;
        drop(meta);
        for row in &self.damaged {
            txn.open_table(LOST_JOURNAL_ROWS)?.insert((repair, row.number), &*row.bytes)?;
        }
        Ok(())
    }
}
