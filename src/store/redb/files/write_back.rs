use std::fs::File;
use std::io;
use std::path::Path;

use redb::StorageBackend;
use redb::backends::FileBackend;

#[cfg(test)]
use super::doom;

/// The number of bytes that are read and written at a time.
const CHUNK_BYTES: usize = 1024 * 1024;
/// The smallest part of a file that the file system allocates.
const BLOCK_BYTES: usize = 4096;

/// Writes the contents of a file to it once more, and syncs it. After `Ok`, a crash leaves the file as it reads now.
///
/// After a failed sync, Linux treats pages as written although they are not: reads show the new bytes, no later sync
/// writes them, and a crash loses them. A process cannot see that this happened to an earlier process. Overwriting
/// bytes with the same bytes is safe: a crash cannot leave anything else.
pub(super) fn write_back(file: &impl StorageBackend) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut at, len) = (0, file.len()?);
    while at < len {
        let left = usize::try_from(len - at).unwrap_or(usize::MAX);
        let chunk = &mut chunk[..left.min(CHUNK_BYTES)];
        file.read(at, chunk)?;
        match file.write(at, chunk) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => write_blocks(file, at, chunk)?,
            written => written?,
        }
        at += chunk.len() as u64;
    }
    file.sync_data()
}

/// Like [`write_back`], for the file at this path. No other process may write to the file meanwhile.
pub(crate) fn write_back_file(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if doom::is_planned() {
        return write_back(&doom::Doomed::open(path)?);
    }
    let file = File::options().read(true).write(true).open(path)?;
    write_back(&FileBackend::new(file).map_err(io::Error::other)?)
}

/// Writes block by block to a full disk. Only a block in a hole of the file needs new space. It reads as zeros, so
/// leaving it out loses nothing.
fn write_blocks(file: &impl StorageBackend, mut at: u64, bytes: &[u8]) -> io::Result<()> {
    for block in bytes.chunks(BLOCK_BYTES) {
        match file.write(at, block) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && block.iter().all(|byte| *byte == 0) => {}
            written => written?,
        }
        at += block.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use redb::backends::InMemoryBackend;

    use super::*;

    /// A file with a hole, on a full disk. It records which bytes are written and synced.
    #[derive(Debug)]
    struct Sparse {
        bytes: InMemoryBackend,
        hole: std::ops::Range<u64>,
        written: Mutex<Vec<std::ops::Range<u64>>>,
        synced: Mutex<usize>,
    }

    impl StorageBackend for Sparse {
        fn len(&self) -> io::Result<u64> {
            self.bytes.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.bytes.read(offset, out)
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            panic!("the length stays as it is")
        }

        fn sync_data(&self) -> io::Result<()> {
            *self.synced.lock().unwrap() = self.written.lock().unwrap().len();
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let range = offset..offset + data.len() as u64;
            if range.start < self.hole.end && self.hole.start < range.end {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let mut before = vec![0; data.len()];
            self.bytes.read(offset, &mut before)?;
            assert!(before == data, "{range:?} is changed");
            self.written.lock().unwrap().push(range);
            Ok(())
        }
    }

    fn sparse(len: u64, hole: std::ops::Range<u64>, content: impl Fn(u64) -> u8) -> Sparse {
        let bytes = InMemoryBackend::new();
        bytes.set_len(len).unwrap();
        bytes.write(0, &(0..len).map(content).collect::<Vec<_>>()).unwrap();
        Sparse { bytes, hole, written: Mutex::default(), synced: Mutex::default() }
    }

    #[test]
    fn every_byte_but_those_of_a_hole_on_a_full_disk_is_written_and_then_synced() {
        let block = BLOCK_BYTES as u64;
        let len = 2 * CHUNK_BYTES as u64 + 100;
        for hole in [0..0, 3 * block..7 * block] {
            let file = sparse(len, hole.clone(), |at| u8::from(!hole.contains(&at)));
            write_back(&file).unwrap();
            let written = file.written.lock().unwrap();
            let covered = |at: u64| written.iter().any(|range| range.contains(&at));
            assert!((0..len).step_by(50).all(|at| covered(at) != hole.contains(&at)), "{hole:?}: {written:?}");
            assert_eq!(*file.synced.lock().unwrap(), written.len(), "something was written after the sync");
        }
        let full = sparse(len, 0..block, |_| 1);
        assert_eq!(write_back(&full).unwrap_err().kind(), io::ErrorKind::StorageFull, "a block with data may be lost");
    }
}
