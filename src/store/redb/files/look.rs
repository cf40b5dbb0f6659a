use std::path::Path;

use redb::{Builder, Database};

use super::open_error::{OpenError, damaged, explain, failed, of_other_format};
use super::overlay::Overlay;
use crate::store::redb::tables::meta::{FORMAT, Stamp};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::unwind;

/// Opens the database without changing its file. Whatever is then written to the database stays in memory.
pub(crate) fn look_at(builder: &Builder, path: &Path, file: StoreFile) -> Result<Database, OpenError> {
    let overlay = Overlay::open(path).map_err(OpenError::Unreadable)?;
    let database = unwind::caught(|| builder.create_with_backend(overlay));
    let database = database.map_err(|panic| damaged(path, panic))?;
    let database = database.map_err(|error| explain(path, error))?;
    let stamp = unwind::caught(|| Stamp::of(&database, file));
    match stamp.map_err(|panic| damaged(path, panic))? {
        Ok(Stamp::Format(found)) if found != FORMAT => Err(of_other_format(path, found)),
        Ok(Stamp::Foreign) => Err(OpenError::NotOurs { path: path.to_owned() }),
        Ok(_) => Ok(database),
        Err(failure) => Err(failed(path, failure)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::redb::files::stamp::stamp_main;
    use crate::store::redb::tables::meta::WriteMeta;
    use crate::store::redb::tables::write::begin_write;

    #[test]
    fn what_is_written_to_a_database_that_is_looked_at_never_reaches_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("main");
        let database = Builder::new().create(&path).unwrap();
        let txn = begin_write(&database).unwrap();
        stamp_main(&txn).unwrap();
        txn.commit().unwrap();
        database.close().unwrap();
        let before = fs::read(&path).unwrap();

        let looked = look_at(&Builder::new(), &path, StoreFile::Main).unwrap();
        let txn = begin_write(&looked).unwrap();
        WriteMeta::write(&txn).unwrap().touch().unwrap();
        txn.commit().unwrap();
        looked.close().unwrap();
        assert!(fs::read(&path).unwrap() == before);

        let as_journal = look_at(&Builder::new(), &path, StoreFile::Journal);
        assert!(matches!(as_journal, Err(OpenError::NotOurs { .. })), "{as_journal:?}");
        let missing = look_at(&Builder::new(), &directory.path().join("missing"), StoreFile::Main);
        assert!(matches!(missing, Err(OpenError::Unreadable(_))), "{missing:?}");
    }
}
