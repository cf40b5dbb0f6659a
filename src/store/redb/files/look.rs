use std::path::Path;

use redb::{Builder, Database};

use super::open_error::{OpenError, damaged, explain, failed, of_other_format};
use super::overlay::Overlay;
use crate::store::redb::tables::meta::{FORMAT, Stamp};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::unwind;

/// Opens the database without changing its file, whatever happens to it then.
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
