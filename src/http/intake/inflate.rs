use std::io::{self, BufRead, ErrorKind, Read};

use actix_web::web::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;

/// Inflates a gzip body while it arrives, in pieces of bounded size. The body may have several gzip members.
pub(crate) struct Inflater(MultiGzDecoder<Arrived>);

/// The memory that an inflater holds: the window of the gzip format, and tables.
pub(crate) const INFLATER_BYTES: usize = 48 * 1024;

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(MultiGzDecoder::new(Arrived { bytes: Bytes::new(), is_over: false }))
    }

    /// Adds the next compressed piece. The piece before it must have been inflated completely.
    pub(crate) fn feed(&mut self, bytes: Bytes) {
        self.0.get_mut().bytes = bytes;
    }

    /// Marks the end of the input.
    pub(crate) fn end(&mut self) {
        self.0.get_mut().is_over = true;
    }

    /// Inflates as many bytes as fit into `room`. Returns 0 if the inflater needs the next piece, or has reached the
    /// end.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.0.read(room) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            read => read,
        }
    }
}

/// Compressed bytes that have arrived and are not inflated yet.
struct Arrived {
    bytes: Bytes,
    is_over: bool,
}

impl Read for Arrived {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let len = self.fill_buf()?.read(room)?;
        self.consume(len);
        Ok(len)
    }
}

impl BufRead for Arrived {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.bytes.is_empty() && !self.is_over { Err(ErrorKind::WouldBlock.into()) } else { Ok(&self.bytes) }
    }

    fn consume(&mut self, len: usize) {
        self.bytes.advance(len);
    }
}

#[cfg(test)]
pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    use std::io::Write;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inflates compressed bytes that arrive in pieces of this length.
    fn inflate(compressed: &[u8], piece_bytes: usize, room_bytes: usize) -> io::Result<Vec<u8>> {
        let mut inflater = Inflater::new();
        let mut text = Vec::new();
        let mut room = vec![0; room_bytes];
        let mut drain = |inflater: &mut Inflater| -> io::Result<()> {
            loop {
                match inflater.read(&mut room)? {
                    0 => return Ok(()),
                    len => text.extend_from_slice(&room[..len]),
                }
            }
        };
        for piece in compressed.chunks(piece_bytes) {
            inflater.feed(Bytes::copy_from_slice(piece));
            drain(&mut inflater)?;
        }
        inflater.end();
        drain(&mut inflater)?;
        Ok(text)
    }

    #[test]
    fn gzip_members_are_inflated_whatever_pieces_they_arrive_in() {
        let texts = [&b"hello"[..], b"", &b"the same again ".repeat(10_000)];
        let compressed: Vec<u8> = texts.iter().flat_map(|text| gzip(text)).collect();
        for piece_bytes in [1, 2, 3, 7, 100, 1_000_000] {
            for room_bytes in [1, 100, 64 * 1024] {
                assert_eq!(inflate(&compressed, piece_bytes, room_bytes).unwrap(), texts.concat());
            }
        }
    }

    #[test]
    fn broken_or_truncated_gzip_is_an_error() {
        let whole = gzip(&b"hello hello hello ".repeat(100));
        let mut flipped = whole.clone();
        let last = flipped.len() - 6;
        flipped[last] ^= 1;
        let cut = (0..whole.len()).map(|len| whole[..len].to_vec());
        for broken in cut.chain([flipped, b"no gzip".to_vec(), [&*whole, b"rest"].concat()]) {
            for piece_bytes in [1, 1_000_000] {
                assert!(inflate(&broken, piece_bytes, 1000).is_err(), "{broken:?}");
            }
        }
    }
}
