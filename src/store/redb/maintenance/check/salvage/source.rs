use redb::Database;

use super::pages::PageFile;

/// The main file from which a new one is built.
pub(in crate::store::redb::maintenance::check) enum MainSource<'a> {
    /// The file can be read by redb.
    Sound(&'a Database),
    Damaged(&'a PageFile),
}

/// The journal whose commits the new main file takes in.
pub(in crate::store::redb::maintenance::check) enum JournalSource<'a> {
    Missing,
    /// The file can be read by redb.
    Sound(&'a Database),
    Damaged(&'a PageFile),
}
