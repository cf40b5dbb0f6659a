use std::io::{self, ErrorKind, Write};

/// A writer that takes one line, with its line break, in each call of `write`. If only a part of a line was written,
/// for example because the disk is full, the next line still starts on a new line.
pub(super) struct WholeLines<W> {
    writer: W,
    /// Whether the latest line was cut off.
    is_torn: bool,
}

impl<W: Write> WholeLines<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, is_torn: false }
    }
}

impl<W: Write> Write for WholeLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.is_torn {
            self.writer.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            let written = match self.writer.write(rest) {
                Ok(0) => Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
                written => written,
            };
            match written {
                Ok(count) => rest = &rest[count..],
                Err(error) => {
                    self.is_torn = rest.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The free space on the disk.
    struct Disk {
        room: usize,
        text: String,
    }

    impl Write for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.text += std::str::from_utf8(&bytes[..taken]).unwrap();
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_a_full_disk_cut_off_damages_no_other_line() {
        let mut disk = Disk { room: 8, text: String::new() };
        let mut lines = WholeLines::new(&mut disk);
        lines.write_all(b"one\n").unwrap();
        for _ in 0..2 {
            assert_eq!(lines.write_all(b"two two\n").unwrap_err().kind(), ErrorKind::StorageFull);
        }
        lines.writer.room = 100;
        lines.write_all(b"three\n").unwrap();
        lines.write_all(b"four\n").unwrap();
        assert_eq!(disk.text, "one\ntwo \nthree\nfour\n");
    }
}
