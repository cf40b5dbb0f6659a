//! The size of a file, and how to make the file smaller.

use std::fs;
use std::path::Path;

use redb::{CompactionError, Database};

/// Moves the pages of a database together until the file gets no smaller.
pub(crate) fn pack(database: &mut Database) -> Result<(), CompactionError> {
    while database.compact()? {}
    Ok(())
}

/// Returns whether so much of a file is free that packing it is worth the time.
pub(crate) fn is_sparse(file_bytes: u64, live_bytes: u64) -> bool {
    // Pages are three quarters full, so a file without a free page is a third larger than its rows.
    const SMALL: u64 = 16 * 1024 * 1024;
    file_bytes > live_bytes.saturating_mul(2).saturating_add(SMALL)
}

/// Returns the size of a file; 0 if there is no file.
pub(crate) fn file_size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_sparse_when_it_is_far_larger_than_its_rows() {
        assert!(!is_sparse(10_000_000, 0) && !is_sparse(1_400_000_000, 1_000_000_000));
        assert!(is_sparse(20_000_000, 1_000_000) && is_sparse(2_100_000_000, 1_000_000_000));
    }
}
