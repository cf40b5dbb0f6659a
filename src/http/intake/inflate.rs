use std::io::{self, BufRead, ErrorKind, Read};

use actix_web::web::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;

/// Inflates a gzip body while it arrives, in steps of bounded size. The body may have several gzip members.
pub(crate) struct Inflater {
    decoder: MultiGzDecoder<Arrived>,
    /// How many compressed bytes have arrived.
    fed_bytes: usize,
}

/// The memory that an inflater holds at least: the window of the gzip format, and tables.
const WINDOW_BYTES: usize = 48 * 1024;

/// The maximum number of bytes that an inflater keeps of the header of a gzip member: its name, its comment and an extra
/// field.
const HEADER_BYTES: usize = 3 * 64 * 1024;

/// The maximum number of compressed bytes that one step inflates. Members and blocks without any text cost the most
/// time for their length. So many bytes of them take a few milliseconds, and other requests run between two steps.
const STEP_BYTES: usize = 512;

/// What a step of inflating has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inflated {
    /// The step produced this many bytes of text.
    Bytes(usize),
    /// The step produced no text, and compressed bytes are left for the next step.
    NoText,
    /// The inflater needs the next piece, or has reached the end.
    All,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        let arrived = Arrived { bytes: Bytes::new(), is_over: false, left_in_step: 0 };
        Self { decoder: MultiGzDecoder::new(arrived), fed_bytes: 0 }
    }

    /// Returns the maximum number of bytes of memory that the inflater holds.
    pub(crate) fn memory_bytes(&self) -> usize {
        // What has arrived may be a header so far.
        WINDOW_BYTES + self.fed_bytes.min(HEADER_BYTES)
    }

    /// Adds the next compressed piece. The piece before it must have been inflated completely.
    pub(crate) fn feed(&mut self, bytes: Bytes) {
        self.fed_bytes = self.fed_bytes.saturating_add(bytes.len());
        self.decoder.get_mut().bytes = bytes;
    }

    /// Marks the end of the input.
    pub(crate) fn end(&mut self) {
        self.decoder.get_mut().is_over = true;
    }

    /// Takes the next step: inflates at most [`STEP_BYTES`] compressed bytes, and at most as many as fit into `room`.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<Inflated> {
        self.decoder.get_mut().left_in_step = STEP_BYTES;
        match self.decoder.read(room) {
            Ok(0) => Ok(Inflated::All),
            Ok(len) => Ok(Inflated::Bytes(len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Ok(if self.decoder.get_ref().bytes.is_empty() { Inflated::All } else { Inflated::NoText })
            }
            Err(error) => Err(error),
        }
    }
}

/// Compressed bytes that have arrived and are not inflated yet.
struct Arrived {
    bytes: Bytes,
    is_over: bool,
    /// How many more bytes the present step may take.
    left_in_step: usize,
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
        if self.bytes.is_empty() && self.is_over {
            return Ok(&[]);
        }
        match &self.bytes[..self.bytes.len().min(self.left_in_step)] {
            [] => Err(ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }

    fn consume(&mut self, len: usize) {
        self.bytes.advance(len);
        self.left_in_step = self.left_in_step.saturating_sub(len);
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
                    Inflated::All => return Ok(()),
                    Inflated::Bytes(len) => text.extend_from_slice(&room[..len]),
                    Inflated::NoText => {}
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
    fn the_header_of_a_member_counts_as_memory() {
        let mut inflater = Inflater::new();
        let before = inflater.memory_bytes();
        // The header announces a name, which goes on and on.
        let header = [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0][..], &vec![b'n'; 50_000]].concat();
        inflater.feed(Bytes::from(header));
        while inflater.read(&mut [0; 1000]).unwrap() != Inflated::All {}
        assert!(inflater.memory_bytes() >= before + 50_000);
        for _ in 0..100 {
            inflater.feed(Bytes::from_static(&[b'n'; 10_000]));
        }
        assert!(inflater.memory_bytes() < before + 200_000, "a longer one is an error");
    }

    #[test]
    fn a_step_inflates_few_compressed_bytes_whatever_text_they_have() {
        let members = gzip(b"").repeat(10_000);
        // An empty block with fixed codes has 10 bits, and these four blocks have 5 bytes.
        let blocks = [&gzip(b"")[..10], &[0x02, 0x08, 0x20, 0x80, 0x00].repeat(10_000), &[3, 0], &[0; 8]].concat();
        for compressed in [members, blocks] {
            let mut inflater = Inflater::new();
            let len = compressed.len();
            inflater.feed(Bytes::from(compressed));
            let mut steps = 0;
            while inflater.read(&mut [0; 1000]).unwrap() != Inflated::All {
                steps += 1;
            }
            assert!(steps >= len / STEP_BYTES - 1, "{steps} steps for {len} bytes");
            inflater.end();
            assert_eq!(inflater.read(&mut [0; 1000]).unwrap(), Inflated::All);
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
