use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::{link, private_file};

/// A file that is renamed when it is full: `spans.ndjson` to `spans.ndjson.1`, and that one to `spans.ndjson.2`, and so
/// on. The oldest file is deleted. Each call of `write` writes one line, which is never split between files.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    /// The maximum number of files, including the current one.
    max_files: usize,
    /// The open file. `None` until the next line, if a failed write may have left half a line.
    file: Option<OpenFile>,
    /// Whether the log has reported that files cannot be renamed.
    is_stuck: bool,
}

#[derive(Debug)]
struct OpenFile {
    file: BufWriter<File>,
    bytes: u64,
    /// Whether this is a regular file: a pipe or a terminal has no size limit and is not rotated.
    can_be_full: bool,
}

impl RotatingFile {
    pub(super) fn open(path: &Path, max_bytes: usize, max_files: usize) -> io::Result<Self> {
        let file = Some(open(path)?);
        Ok(Self { path: path.to_owned(), max_bytes: max_bytes as u64, max_files, file, is_stuck: false })
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Close the file only after its buffer is flushed. If the flush fails, the file stays open and a later write
        // tries again.
        if let Some(open) = &mut self.file {
            open.file.flush()?;
        }
        self.file = None;
        let Err(error) = self.set_aside() else {
            self.is_stuck = false;
            return Ok(());
        };
        // Log this once, because the next full file will probably meet the same obstacle.
        if !std::mem::replace(&mut self.is_stuck, true) {
            let file = self.path.display();
            tracing::warn!(%error, %file, "a full file could not be renamed, so it is overwritten");
        }
        if_there(OpenOptions::new().write(true).truncate(true).open(&self.path).map(drop))
    }

    /// Renames the files to make room for a new one. If a file cannot be renamed, the next rename overwrites it.
    fn set_aside(&self) -> io::Result<()> {
        // If the path is a link, rename the file that it leads to, in that file's directory. The link stays.
        let path = link::target(&self.path)?;
        if self.max_files <= 1 {
            return if_there(fs::remove_file(&path));
        }
        let aside = |nth| link::beside(&path, &format!(".{nth}"));
        let mut done = Ok(());
        for nth in (1..self.max_files).rev() {
            let from = if nth == 1 { path.clone() } else { aside(nth - 1) };
            let moved = if_there(fs::rename(from, aside(nth)));
            // Rename the other files nevertheless.
            done = done.and(moved);
        }
        done
    }
}

/// A file that does not exist need not be renamed.
fn if_there(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn open(path: &Path) -> io::Result<OpenFile> {
    if let Some(directory) = path.parent() {
        link::create_directory(directory)?;
    }
    let mut file = private_file::options().create(true).append(true).read(true).open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = metadata.len();
    // A killed process may have left half a line. The next line must not be joined with it.
    if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok(OpenFile { file: BufWriter::new(file), bytes, can_be_full: metadata.is_file() })
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let len = line.len() as u64;
        let is_full = |open: &OpenFile| open.can_be_full && open.bytes > 0 && open.bytes + len > self.max_bytes;
        let mut now = match self.file.take() {
            Some(open) => open,
            None => open(&self.path)?,
        };
        if is_full(&now) {
            self.file = Some(now);
            self.rotate()?;
            now = open(&self.path)?;
        }
        let written = now.file.write_all(line);
        // If the buffer is not empty, it holds the whole line and writes it later. If it is empty, half of the line may
        // be in the file: close the file, so that the next line starts on a new line.
        if written.is_ok() || !now.file.buffer().is_empty() {
            now.bytes += if written.is_ok() { len } else { 0 };
            self.file = Some(now);
        }
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |open| open.file.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(directory: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn write(file: &mut RotatingFile, lines: std::ops::Range<u32>) {
        for n in lines {
            file.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        file.flush().unwrap();
    }

    fn expected(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_full_file_is_renamed_and_the_oldest_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        let mut file = RotatingFile::open(&path, 14, 3).unwrap();
        write(&mut file, 0..7);
        let files = [("t", "line 6\n"), ("t.1", "line 4\nline 5\n"), ("t.2", "line 2\nline 3\n")];
        assert_eq!(read(directory.path()), expected(&files));
        drop(file);
        write(&mut RotatingFile::open(&path, 14, 3).unwrap(), 7..8);
        assert_eq!(read(directory.path())[0].1, "line 6\nline 7\n", "a reopened file is appended to");
    }

    #[test]
    fn a_line_longer_than_a_file_gets_its_own_file_and_one_file_may_be_the_maximum() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = RotatingFile::open(&directory.path().join("t"), 3, 1).unwrap();
        write(&mut file, 0..2);
        assert_eq!(read(directory.path()), expected(&[("t", "line 1\n")]));
    }

    #[test]
    fn a_file_that_cannot_be_renamed_is_overwritten_and_no_line_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        fs::create_dir(directory.path().join("t.1")).unwrap();
        let mut file = RotatingFile::open(&path, 14, 2).unwrap();
        write(&mut file, 0..7);
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 6\n");
        fs::remove_dir(directory.path().join("t.1")).unwrap();
        write(&mut file, 7..9);
        assert_eq!(read(directory.path()), expected(&[("t", "line 8\n"), ("t.1", "line 6\nline 7\n")]));
    }

    #[test]
    fn the_other_files_are_renamed_if_an_old_one_cannot_be() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("t.2")).unwrap();
        let mut file = RotatingFile::open(&directory.path().join("t"), 14, 3).unwrap();
        write(&mut file, 0..5);
        fs::remove_dir(directory.path().join("t.2")).unwrap();
        assert_eq!(read(directory.path()), expected(&[("t", "line 4\n"), ("t.1", "line 2\nline 3\n")]));
    }

    #[cfg(unix)]
    #[test]
    fn a_linked_file_is_renamed_in_its_own_directory_and_the_link_stays() {
        let (directory, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = directory.path().join("t");
        // The target of the link does not exist yet.
        std::os::unix::fs::symlink(far.path().join("trace"), &link).unwrap();
        write(&mut RotatingFile::open(&link, 14, 3).unwrap(), 0..5);
        let files = [("trace", "line 4\n"), ("trace.1", "line 2\nline 3\n"), ("trace.2", "line 0\nline 1\n")];
        assert_eq!(read(far.path()), expected(&files));
        write(&mut RotatingFile::open(&link, 14, 1).unwrap(), 5..8);
        assert_eq!(fs::read_to_string(far.path().join("trace")).unwrap(), "line 6\nline 7\n");
        assert!(link.is_symlink() && fs::read_dir(directory.path()).unwrap().count() == 1);
    }

    #[cfg(unix)]
    #[test]
    fn the_error_for_a_missing_directory_names_what_is_in_its_place() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nothing", directory.path().join("logs")).unwrap();
        let error = RotatingFile::open(&directory.path().join("logs/t"), 14, 3).unwrap_err();
        assert!(error.to_string().contains("a symbolic link to"), "{error}");
    }

    #[test]
    fn half_a_line_of_a_killed_process_is_not_joined_with_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/t");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "{\"half").unwrap();
        write(&mut RotatingFile::open(&path, 1000, 1).unwrap(), 0..1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"half\nline 0\n");
    }
}
