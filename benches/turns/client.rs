//! A cheap load generator: it sends prepared bytes over connections that stay open.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::report::Round;
use crate::store::RETRY_AFTER;

/// The status of a request that is refused as overload.
const OVERLOADED: u16 = 503;

pub(crate) fn post_events(lines: &str) -> Vec<u8> {
    let length = lines.len();
    format!("POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n{lines}")
        .into_bytes()
}

/// Builds a request for `path`. Each header must end in a line break.
pub(crate) fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").into_bytes()
}

/// Sends all requests from this one thread, each over the first connection that is free. Every answer must have the
/// status `status`, but a request that is refused as overload is sent again. Connecting is not timed.
pub(crate) fn drive<R: AsRef<[u8]>>(
    address: SocketAddr,
    connections: usize,
    requests: impl Iterator<Item = R>,
    status: u16,
) -> io::Result<Round> {
    block_on(async {
        let connected = try_join_all((0..connections).map(|_| Connection::open(address))).await?;
        let requests = RefCell::new(requests);
        let next = || requests.borrow_mut().next();
        let start = Instant::now();
        let all = connected.into_iter().map(|mut connection| async move {
            let mut times: Vec<Duration> = Vec::new();
            while let Some(request) = next() {
                let sent = Instant::now();
                let mut answered = connection.ask(request.as_ref()).await?;
                while answered == OVERLOADED {
                    tokio::time::sleep(RETRY_AFTER).await;
                    answered = connection.ask(request.as_ref()).await?;
                }
                times.push(sent.elapsed());
                assert_eq!(answered, status, "{}", String::from_utf8_lossy(&connection.answer));
            }
            Ok::<_, io::Error>(times)
        });
        let times = try_join_all(all).await?.concat();
        Ok(Round::timed(times.len(), start.elapsed(), times))
    })
}

/// Returns the answer to one request, including its head.
pub(crate) fn ask(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    block_on(async {
        let mut connection = Connection::open(address).await?;
        connection.ask(request).await?;
        Ok(connection.answer)
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

struct Connection {
    stream: TcpStream,
    /// The latest answer.
    answer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(64 * 1024) })
    }

    /// Reads the answer to its end and returns its status.
    async fn ask(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        let mut end = None;
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            end = end.or_else(|| End::of(&self.answer));
            if end.as_ref().is_some_and(|end| end.is_reached(&self.answer)) {
                return Ok(status(&self.answer));
            }
        }
    }
}

/// How the end of an answer is recognised. The head of the answer says which way applies.
enum End {
    At(usize),
    /// The answer ends with a last chunk, which is empty. The bytes of an empty chunk do not occur elsewhere in these
    /// answers.
    Chunk,
}

impl End {
    fn of(answer: &[u8]) -> Option<Self> {
        let head = memmem::find(answer, b"\r\n\r\n")? + 4;
        if status(answer) == 304 {
            return Some(Self::At(head));
        }
        let length = b"content-length: ";
        let Some(at) = memmem::find(&answer[..head], length) else { return Some(Self::Chunk) };
        let digits = answer[at + length.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        Some(Self::At(head + digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))))
    }

    fn is_reached(&self, answer: &[u8]) -> bool {
        match self {
            Self::At(end) => answer.len() >= *end,
            Self::Chunk => answer.ends_with(b"\r\n0\r\n\r\n"),
        }
    }
}

fn status(answer: &[u8]) -> u16 {
    let digits = answer.get(9..12).and_then(|digits| str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// Returns the value of a header of an answer.
pub(crate) fn header<'a>(answer: &'a [u8], name: &str) -> &'a str {
    let text = str::from_utf8(answer).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {text:?}"))
}

/// Returns the body of an answer, which arrived in one piece or in chunks.
pub(crate) fn body(answer: &[u8]) -> Vec<u8> {
    let (head, mut rest) = answer.split_at(memmem::find(answer, b"\r\n\r\n").unwrap() + 4);
    if memmem::find(head, b"content-length: ").is_some() {
        return rest.to_vec();
    }
    let mut body = Vec::new();
    loop {
        let line = memmem::find(rest, b"\r\n").unwrap();
        let size = usize::from_str_radix(str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..][..size]);
        rest = &rest[line + 2 + size + 2..];
    }
}
