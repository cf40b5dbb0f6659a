//! The two files of a store: where they are, and how they are made, opened, replayed and closed.
//!
//! Invariants: a file that is not ours is never changed. A store is not opened without its journal, nor beside the
//! journal of another store.
//!
//! - `location`: where a store keeps its files.
//! - `storage`: where a test keeps the files of a store instead.
//! - `replay`: reads the journal into a memtable.
//! - `misfit`: why a journal does not belong to the database.
//! - `open_error`: why a store could not be opened.
//! - `path`: symbolic links, empty files, and file names that survive a power cut.
//! - `file`: the operations that change a file or its name.
//! - `watch`: notices that another program writes over an open file.
//! - `doom`: in tests, lets a thread make only a limited number of changes to files.
//! - `overlay`: a view of a file that keeps writes in memory.
//! - `look`: opens a database through an overlay.
//! - `write_back`: writes a file once more, because an earlier sync of it may have failed.
//! - `stamp`: makes an empty database a file of a store, and refuses a file of another program or format.
//! - `header`: what binds the two files to each other.
//! - `create`: makes new files, or refuses to make them.
//! - `open_files`: both files and the memtable.
//! - `open`: opens both files.
//! - `in_place`: whether the open files are still the files that their names lead to, and as the store left them.
//! - `unfinished`: the names of files that are being written, which a crash may leave.
//! - `size`: the size of a file, and how to pack it.
//! - `retire`: removes the journal when all of its rows are in the tables, and closes the files.
//! - `slot`: holds the open files for the threads that share them.

pub(crate) mod create;
#[cfg(test)]
pub(crate) mod doom;
pub(crate) mod file;
pub(crate) mod header;
pub(crate) mod in_place;
pub(crate) mod location;
pub(crate) mod look;
pub(crate) mod misfit;
pub(crate) mod open;
pub(crate) mod open_error;
pub(crate) mod open_files;
pub(crate) mod overlay;
pub(crate) mod path;
pub(crate) mod replay;
pub(crate) mod retire;
pub(crate) mod size;
pub(crate) mod slot;
pub(crate) mod stamp;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod storage;
pub(crate) mod unfinished;
pub(crate) mod watch;
pub(crate) mod write_back;
