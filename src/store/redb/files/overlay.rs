use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

const BLOCK: usize = 4096;

/// A read-only view of a file: the database's writes stay in memory and are dropped at the end.
///
/// redb writes even when it opens and closes a file, but looking at a file of another version, or at a damaged one,
/// must not change a byte of it. The file is locked as if it were written, so that no other process changes it
/// meanwhile.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: FileBackend,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// How many bytes of the file are visible: fewer than all after the database has cut the file.
    of_file: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Self { file, written: Mutex::new(Written { len, of_file: len, blocks: BTreeMap::new() }) })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_block(&self, written: &Written, number: u64) -> io::Result<Vec<u8>> {
        if let Some(block) = written.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = vec![0; BLOCK];
        let at = number * BLOCK as u64;
        let there = usize::try_from(written.of_file.saturating_sub(at)).unwrap_or(BLOCK).min(BLOCK);
        self.file.read(at, &mut block[..there])?;
        Ok(block)
    }
}

/// Splits `len` bytes at `offset` into blocks. Returns for each part the number of its block, its first byte within the
/// block, and its length.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = usize::try_from(at % BLOCK as u64).unwrap_or_default();
        let count = (len - done).min(BLOCK - within);
        done += count;
        (count > 0).then_some((at / BLOCK as u64, within, count))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > written.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        for (number, within, count) in parts(offset, out.len()) {
            let block = self.read_block(&written, number)?;
            out[done..done + count].copy_from_slice(&block[within..within + count]);
            done += count;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        if len < written.len {
            written.of_file = written.of_file.min(len);
            let last = len / BLOCK as u64;
            written.blocks.retain(|number, _| *number <= last);
            if let Some(block) = written.blocks.get_mut(&last) {
                block[usize::try_from(len % BLOCK as u64).unwrap_or_default()..].fill(0);
            }
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let mut done = 0;
        for (number, within, count) in parts(offset, data.len()) {
            let mut block = self.read_block(&written, number)?;
            block[within..within + count].copy_from_slice(&data[done..done + count]);
            written.blocks.insert(number, block);
            done += count;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::random::Random;

    #[test]
    fn it_reads_as_a_file_that_is_written_and_leaves_the_file_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let original: Vec<u8> = (0..30_000u32).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(&path, &original).unwrap();
        let overlay = Overlay::open(&path).unwrap();
        let mut expected = original.clone();
        let mut random = Random::new(1);
        for _ in 0..500 {
            if random.once_in(10) {
                let len = random.below(40_000);
                overlay.set_len(len as u64).unwrap();
                expected.resize(len, 0);
            } else {
                let at = random.below(expected.len());
                let data = vec![0xAB; random.below(9000).min(expected.len() - at)];
                overlay.write(at as u64, &data).unwrap();
                expected[at..at + data.len()].copy_from_slice(&data);
            }
            let mut all = vec![0; expected.len()];
            overlay.read(0, &mut all).unwrap();
            assert!(all == expected);
            assert_eq!(overlay.len().unwrap(), expected.len() as u64);
        }
        assert!(overlay.read(expected.len() as u64, &mut [0]).is_err());
        assert!(std::fs::read(&path).unwrap() == original);
    }
}
