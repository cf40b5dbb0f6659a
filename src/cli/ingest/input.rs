use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use flate2::bufread::MultiGzDecoder;
use tokio::sync::mpsc;

use crate::turn::{Encoding, is_array};

const CHUNK_BYTES: usize = 64 * 1024;
/// The number of chunks that are read ahead: 1 MiB in total.
const CHUNKS_AHEAD: usize = 16;
/// An array is recognised even if this many bytes of white space come before it.
const MAX_SPACE_BYTES: usize = 4096;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The bytes to send. A separate thread reads them, because a task that reads a pipe itself could not wait for a timer
/// at the same time.
pub(super) struct Input {
    chunks: mpsc::Receiver<Result<Chunk, InputError>>,
    total_bytes: Option<u64>,
}

/// The next part of an input, decompressed if it is gzip.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    /// How many bytes of the input were read up to the end of this part.
    pub(super) position: u64,
}

/// The reason why reading ended early.
#[derive(Debug)]
pub(super) enum InputError {
    Io(io::Error),
    Utf16,
    Utf32,
    Array,
}

impl Input {
    /// Opens a file, or standard input for `-`. `is_first_used` says whether the first line is to be sent. If it is
    /// not, a JSON array is accepted, because the line that shows the array is skipped.
    pub(super) fn open(path: &Path, is_first_used: bool) -> io::Result<Self> {
        if path == Path::new("-") {
            return Self::read(io::stdin(), None, is_first_used);
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        let total_bytes = metadata.is_file().then_some(metadata.len());
        Self::read(file, total_bytes, is_first_used)
    }

    pub(super) fn read(
        source: impl Read + Send + 'static,
        total_bytes: Option<u64>,
        is_first_used: bool,
    ) -> io::Result<Self> {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let position = Arc::new(AtomicU64::new(0));
        let counted = Counted { source, position: position.clone() };
        thread::Builder::new().name("input".into()).spawn(move || {
            let error = match Text::of(counted, is_first_used) {
                Ok(mut text) => text.send(&position, &sender),
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                let _ = sender.blocking_send(Err(error));
            }
        })?;
        Ok(Self { chunks, total_bytes })
    }

    /// Returns the size of the input, if it is known.
    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// Returns the next part, or `None` at the end. Dropping the future loses no data.
    pub(super) async fn next(&mut self) -> Option<Result<Chunk, InputError>> {
        self.chunks.recv().await
    }
}

/// The text of an input. Gzip is decompressed whatever the name of the file is, and a byte order mark is removed.
struct Text {
    source: Box<dyn Read>,
    /// The first bytes, which were read to detect the encoding and an array.
    head: Vec<u8>,
}

impl Text {
    fn of(source: impl Read + 'static, is_first_used: bool) -> Result<Self, InputError> {
        let mut text = Self { source: Box::new(source), head: Vec::new() };
        text.look_ahead()?;
        if Encoding::of(&text.head) == Some(Encoding::Gzip) {
            let compressed = Cursor::new(text.head).chain(text.source);
            let inflated = MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, compressed));
            text = Self { source: Box::new(Inflated(inflated)), head: Vec::new() };
            text.look_ahead()?;
        }
        match Encoding::of(&text.head) {
            Some(Encoding::Utf16) => return Err(InputError::Utf16),
            Some(Encoding::Utf32) => return Err(InputError::Utf32),
            // Gzip inside gzip is not decompressed again, and is reported as a bad line.
            Some(Encoding::Gzip) | None => {}
        }
        if text.head.starts_with(BYTE_ORDER_MARK) {
            text.head.drain(..BYTE_ORDER_MARK.len());
        }
        if is_first_used && text.is_array()? { Err(InputError::Array) } else { Ok(text) }
    }

    /// Reads the first bytes. They may be too few to detect the encoding if the input is shorter, or if the writer of a
    /// pipe pauses within its first event.
    fn look_ahead(&mut self) -> Result<(), InputError> {
        while self.head.len() < Encoding::HEAD_BYTES && self.read_on(Encoding::HEAD_BYTES - self.head.len())? > 0 {}
        Ok(())
    }

    /// Returns whether the text is one JSON array. Reads more while there is only white space and a bracket.
    fn is_array(&mut self) -> Result<bool, InputError> {
        loop {
            match is_array(&self.head) {
                Some(is_array) => return Ok(is_array),
                None if self.head.len() >= MAX_SPACE_BYTES || self.read_on(1)? == 0 => return Ok(false),
                None => {}
            }
        }
    }

    /// Reads at most this many more bytes into the head.
    fn read_on(&mut self, max_bytes: usize) -> Result<usize, InputError> {
        let start = self.head.len();
        self.head.resize(start + max_bytes, 0);
        let read = read(&mut self.source, &mut self.head[start..]);
        self.head.truncate(start + read.as_ref().copied().unwrap_or(0));
        read.map_err(InputError::Io)
    }

    /// Sends the whole text, up to its end or an error.
    fn send(&mut self, position: &AtomicU64, sender: &mpsc::Sender<Result<Chunk, InputError>>) -> Option<InputError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut bytes = std::mem::take(&mut self.head);
        loop {
            let chunk = Chunk { bytes, position: position.load(Ordering::Relaxed) };
            if !chunk.bytes.is_empty() && sender.blocking_send(Ok(chunk)).is_err() {
                return None;
            }
            bytes = match read(&mut self.source, &mut buffer) {
                Ok(0) => return None,
                Ok(len) => buffer[..len].to_vec(),
                Err(error) => return Some(InputError::Io(error)),
            };
        }
    }
}

fn read(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Decompresses gzip. If the data is cut off, the error says so.
struct Inflated<R>(R);

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => io::Error::new(ErrorKind::UnexpectedEof, "the gzip data is cut off"),
            _ => error,
        })
    }
}

/// A source that counts the bytes that were read.
struct Counted<R> {
    source: R,
    position: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(buffer)?;
        self.position.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    async fn text_of(source: Vec<u8>) -> Result<Vec<u8>, InputError> {
        let len = source.len() as u64;
        let mut input = Input::read(Cursor::new(source), None, true).unwrap();
        let mut text = Vec::new();
        let mut position = 0;
        while let Some(chunk) = input.next().await {
            let chunk = chunk?;
            text.extend(chunk.bytes);
            position = chunk.position;
        }
        assert!(position == len || text.is_empty());
        Ok(text)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn gzip_is_detected_by_its_first_bytes_and_a_byte_order_mark_is_removed() {
        let long = b"line\n".repeat(100_000);
        for text in [&b""[..], b"a", b"abc\n", &long] {
            assert_eq!(text_of(text.to_vec()).await.unwrap(), text);
            assert_eq!(text_of(gzip(text)).await.unwrap(), text);
            assert_eq!(text_of([gzip(text), gzip(b"more")].concat()).await.unwrap(), [text, b"more"].concat());
            assert_eq!(text_of([BYTE_ORDER_MARK, text].concat()).await.unwrap(), text);
            assert_eq!(text_of(gzip(&[BYTE_ORDER_MARK, text].concat())).await.unwrap(), text);
        }
    }

    #[tokio::test]
    async fn an_array_is_an_error_if_its_first_line_is_used() {
        let space = " \r\n".repeat(100);
        for text in ["[\n{}\n]", "[]", "[{}, {}]", &format!("{space}[{space}{{}}]")] {
            for text in [text.as_bytes().to_vec(), gzip(text.as_bytes()), [BYTE_ORDER_MARK, text.as_bytes()].concat()] {
                assert!(matches!(text_of(text).await, Err(InputError::Array)));
            }
            let mut rest = Input::read(Cursor::new(text.to_owned()), None, false).unwrap();
            assert!(rest.next().await.unwrap().is_ok());
        }
        for text in ["[", "[7]", "[12:30] started\n{}", "\n\n{\"a\":[{}]}", &" ".repeat(100_000)] {
            assert_eq!(text_of(text.into()).await.unwrap(), text.as_bytes());
        }
    }

    #[tokio::test]
    async fn utf_16_utf_32_and_truncated_gzip_are_errors() {
        let utf_16: Vec<u8> = "{\"type\":\"x\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(matches!(text_of(utf_16.clone()).await, Err(InputError::Utf16)));
        assert!(matches!(text_of(gzip(&utf_16)).await, Err(InputError::Utf16)));
        let utf_32: Vec<u8> = "{}".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert!(matches!(text_of(utf_32).await, Err(InputError::Utf32)));
        let whole = gzip(&b"line\n".repeat(1000));
        for end in [5, 12, whole.len() / 2, whole.len() - 4] {
            let Err(InputError::Io(error)) = text_of(whole[..end].to_vec()).await else { panic!("{end}") };
            assert_eq!(error.to_string(), "the gzip data is cut off", "{end}");
        }
    }
}
