use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::Error;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::framing::LastBody;
use super::open_connections::{OpenConnections, Place};
use super::refusal;
use crate::http::middleware::flow::Flow;
use crate::http::middleware::unread::Holding;
use crate::http::resources::feed::hang_up::HangUp;
use crate::settings::HttpSettings;

/// The longest wait. Adding it to a moment does not overflow.
const MAX_WAIT: Duration = Duration::from_hours(2 * 365 * 24);

/// A client's connection. It adds seven things that the framework lacks:
///
/// - a time limit on the head of every request, not only on the first one;
/// - a time limit on a client that does not read its answer, or reads it too slowly;
/// - a limit on the bytes that are read while earlier requests are not answered;
/// - an end as soon as the client has reset the connection;
/// - an end of a feed as soon as its client has closed its side;
/// - the closing of an idle connection when others need its place;
/// - a body for the framework's own refusals.
///
/// It uses no file descriptor and no task of its own.
pub(crate) struct Connection<T> {
    stream: T,
    head: HeadLimit,
    /// How long a client may read nothing while bytes are written, and how far it may fall behind the minimum rate.
    write_timeout: Duration,
    bytes_per_second: u64,
    /// How far the client is behind the minimum rate.
    behind: Duration,
    /// Set while the client reads nothing: since when, and until when it may go on so.
    stalled: Option<Stall>,
    /// Fires when a limit is due, or earlier. An occasional early wake-up costs less than moving the timer for each
    /// request.
    timer: Pin<Box<Sleep>>,
    /// The answer that replaces a refusal without a body, and how many of its bytes were written.
    refusal: Option<(Vec<u8>, usize)>,
    last_body: LastBody,
    flow: Flow,
    place: Place,
}

/// A period in which the client reads nothing while bytes are written.
#[derive(Clone, Copy)]
struct Stall {
    since: Instant,
    due: Instant,
}

impl<T> Connection<T> {
    /// Returns a connection that was just accepted. `place` is its place among the open connections.
    pub(crate) fn new(stream: T, settings: &HttpSettings, place: Place) -> Self {
        let head = HeadLimit::new(settings);
        let timer = Box::pin(sleep_until(after(settings.header_timeout)));
        let last_body = LastBody::default();
        Self {
            stream,
            head,
            write_timeout: settings.keep_alive,
            bytes_per_second: settings.min_bytes_per_second.max(1) as u64,
            behind: Duration::ZERO,
            stalled: None,
            timer,
            refusal: None,
            last_body,
            flow: Flow::default(),
            place,
        }
    }

    /// Returns the deadline for the heads of requests, for [`keep_time`].
    pub(crate) fn head(&self) -> HeadLimit {
        self.head.clone()
    }

    /// Returns the open connections of the worker, including this one.
    pub(crate) fn open(&self) -> OpenConnections {
        self.place.open().clone()
    }

    /// Returns the handle that closes the connection as soon as it waits for its client.
    pub(crate) fn hang_up(&self) -> HangUp {
        self.place.hang_up()
    }

    /// Returns the shared state of a body that ends with the connection, for [`frame`](super::framing::frame).
    pub(crate) fn last_body(&self) -> LastBody {
        self.last_body.clone()
    }

    /// Returns the shared state of what is read and served, for [`keep_time`].
    pub(crate) fn flow(&self) -> Flow {
        self.flow.clone()
    }

    /// Is ready when a time limit is exceeded.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stalled = self.stalled.map(|stall| stall.due);
        let Some(due) = stalled.or(self.head.due.get()) else { return Poll::Pending };
        if self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        ready!(self.timer.as_mut().poll(cx));
        if self.timer.deadline() < due {
            self.timer.as_mut().reset(due);
            ready!(self.timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

impl<T: AsyncWrite + Unpin> Connection<T> {
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, bytes) {
            if let Some(Stall { since, .. }) = self.stalled.take() {
                self.behind += since.elapsed();
                self.head.restart();
            }
            let count = *written.as_ref().unwrap_or(&0) as u64;
            let paid = Duration::from_micros(count.saturating_mul(1_000_000) / self.bytes_per_second);
            self.behind = self.behind.saturating_sub(paid);
            self.place.is_active();
            return Poll::Ready(written);
        }
        self.place.waits(true, cx);
        if self.place.is_to_close() {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        let wait = self.write_timeout.saturating_sub(self.behind);
        self.stalled.get_or_insert_with(|| Stall { since: Instant::now(), due: after(wait) });
        self.poll_due(cx).map(|()| Err(ErrorKind::TimedOut.into()))
    }

    /// Writes the refusal with a body in place of the bare one. Reports the bare one as written when all of the other
    /// is written.
    fn write_refusal(&mut self, cx: &mut Context<'_>, bare: &[u8]) -> Poll<io::Result<usize>> {
        let (answer, mut sent) = self.refusal.take().unwrap_or_else(|| (refusal::with_body(bare), 0));
        while sent < answer.len() {
            match self.write(cx, &answer[sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => sent += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.refusal = Some((answer, sent));
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(bare.len()))
    }
}

impl<T: AsyncRead + Unpin> Connection<T> {
    /// Reads at most as many bytes as may be read ahead.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(most) = self.flow.may_read() else { return Poll::Pending };
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most.min(buf.remaining())));
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let count = part.filled().len();
        buf.advance(count);
        self.flow.was_read(count);
        read.map_err(|error| match error.kind() {
            // The framework would take a reset for the end of the client's requests, and go on answering them.
            ErrorKind::ConnectionReset => io::Error::new(ErrorKind::ConnectionAborted, error),
            _ => error,
        })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if let Poll::Ready(read) = this.poll_ahead(cx, buf) {
            if buf.filled().len() > before {
                this.head.bytes_came();
                if this.head.due.get().is_none() {
                    this.place.is_active();
                }
            } else if read.is_ok() && this.head.due.get().is_none() && this.place.leaves_with_client() {
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            }
            return Poll::Ready(read);
        }
        let is_idle = this.head.due.get().is_some();
        if is_idle {
            this.place.may_outlive_client();
        } else if this.place.is_to_close() {
            // A request began after the connection was told to close.
            this.place.is_active();
        }
        this.place.waits(is_idle || this.stalled.is_some(), cx);
        // Report the end of the stream, as if the client had ended it. Then the framework closes the connection.
        if is_idle && this.place.is_to_close() {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_due(cx));
        if this.stalled.is_some() {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        // All answers are written, so this answer cannot interrupt another one. If the buffers have no room for these
        // few bytes, the client does not read and gets no answer.
        this.head.due.set(None);
        let answer = refusal::slow_head(this.head.header_timeout);
        match Pin::new(&mut this.stream).poll_write(cx, &answer) {
            // Report the end of the stream, so that the framework closes the connection.
            Poll::Ready(Ok(written)) if written == answer.len() => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(ErrorKind::TimedOut.into())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.last_body.has_ended() {
            // The client would take all further bytes as a part of the last body, so send none.
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        // The framework refuses a request only after all answers are sent. An answer in progress is not searched for a
        // refusal.
        let bare = if this.head.may_refuse() { refusal::find_bare(bytes) } else { None };
        match bare {
            None => this.write(cx, bytes),
            Some(0) => this.write_refusal(cx, bytes),
            Some(start) => this.write(cx, &bytes[..start]),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The framework flushes only after it has written everything.
        this.last_body.all_is_written();
        if this.flow.all_is_written() {
            cx.waker().wake_by_ref();
        }
        // The framework flushes at the end of each round of work. If an answer has just ended and nothing is read after
        // it, only this call sets the timer for the next head.
        if this.poll_due(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The deadline for the head of the next request on a connection.
#[derive(Clone)]
pub(crate) struct HeadLimit {
    /// The deadline; `None` while a request is being answered.
    due: Rc<Cell<Option<Instant>>>,
    /// Whether a body was sent whose end is only marked by the end of the connection. Some of that body may not be
    /// written yet when its request already counts as answered.
    unmarked: Rc<Cell<bool>>,
    header_timeout: Duration,
    /// The time from the end of an answer to the end of the next head. It starts when the answer ends, because the
    /// first bytes of the next head may have arrived together with the request before.
    between: Duration,
}

impl HeadLimit {
    fn new(settings: &HttpSettings) -> Self {
        let header_timeout = settings.header_timeout;
        let due = Rc::new(Cell::new(Some(after(header_timeout))));
        Self {
            due,
            unmarked: Rc::default(),
            header_timeout,
            between: settings.keep_alive.saturating_add(header_timeout),
        }
    }

    /// Handles bytes that arrive while no request is being answered. They belong to the next head. The first of them
    /// sets the deadline of that head, and later ones do not move it.
    fn bytes_came(&self) {
        self.due.set(self.due.get().map(|due| due.min(after(self.header_timeout))));
    }

    /// Restarts the time for the next request, because a client that had stopped reading reads again.
    fn restart(&self) {
        self.due.set(self.due.get().map(|_| after(self.between)));
    }

    /// Returns whether the bytes that the framework writes now may be a refusal of its own.
    fn may_refuse(&self) -> bool {
        self.due.get().is_some() && !self.unmarked.get()
    }

    fn answering(&self, version: Version) -> Answering {
        self.due.set(None);
        self.unmarked.set(self.unmarked.get() || version < Version::HTTP_11);
        Answering(self.clone())
    }
}

/// Means that a request is being answered. When it is dropped, the time for the next head starts.
struct Answering(HeadLimit);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.due.set(Some(after(self.0.between)));
    }
}

/// Middleware around every request. A request waits until the answer before it is written. When its own answer ends,
/// the time for the next head starts. If there are too many connections, the connection ends with the answer.
pub(crate) async fn keep_time<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Result<ServiceResponse<B>, Error>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let answering = request.conn_data::<HeadLimit>().map(|head| head.answering(request.version()));
    let serving = match request.conn_data::<Flow>().cloned() {
        Some(flow) => Some(flow.serve(&request).await),
        None => None,
    };
    let open = request.conn_data::<OpenConnections>().cloned();
    let mut response = next(request).await?.map_into_boxed_body();
    if let Some(serving) = &serving {
        serving.needs_no_body();
    }
    if open.is_some_and(|open| open.is_crowded()) {
        // No other connection was idle, so this one makes room when its answer ends.
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(match answering {
        Some(answering) => response.map_body(|_, body| BoxBody::new(Holding::new(body, (answering, serving)))),
        None => response,
    })
}

fn after(wait: Duration) -> Instant {
    Instant::now() + wait.min(MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use actix_web::http::header::CONTENT_LENGTH;
    use actix_web::test::TestRequest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{advance, timeout};

    use super::*;

    const BETWEEN: Duration = Duration::from_secs(80);
    const BARE: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    /// Returns a connection and its client. The connection accepts `capacity` bytes until the client reads some.
    fn connect(capacity: usize) -> (Connection<DuplexStream>, DuplexStream) {
        let (client, server) = duplex(capacity);
        // The limit of a head is 5 seconds; that of a pause or an unread answer is 75 seconds.
        let place = OpenConnections::new(1).enter();
        (Connection::new(server, &HttpSettings::default(), place), client)
    }

    /// Reads to the end of the connection, for at most an hour.
    async fn end_of(connection: &mut Connection<DuplexStream>) -> io::Result<usize> {
        timeout(Duration::from_hours(1), connection.read_to_end(&mut Vec::new())).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_is_due_from_its_first_byte_and_an_answer_has_no_limit() {
        let (mut connection, mut client) = connect(1000);
        let head = connection.head();
        advance(Duration::from_secs(4)).await;
        let answering = head.answering(Version::HTTP_11);
        assert!(timeout(Duration::from_hours(1), connection.read_u8()).await.is_err(), "no limit while it is answered");
        drop(answering);
        connection.flush().await.unwrap();
        client.write_all(b"GE").await.unwrap();
        let started = Instant::now();
        assert_eq!(end_of(&mut connection).await.unwrap(), 2);
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        drop(connection);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("5000 ms"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_an_answer_sets_the_timer_with_no_read_after_it() {
        let (mut connection, _client) = connect(1000);
        drop(connection.head().answering(Version::HTTP_11));
        let started = Instant::now();
        let mut connection = Pin::new(&mut connection);
        // Flush only, and wait to be woken after each flush.
        let woken = std::future::poll_fn(|cx| {
            assert!(connection.as_mut().poll_flush(cx).is_ready());
            if started.elapsed() < BETWEEN { Poll::Pending } else { Poll::Ready(()) }
        });
        timeout(Duration::from_hours(1), woken).await.unwrap();
        assert_eq!(started.elapsed(), BETWEEN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
        let (mut connection, _client) = connect(10);
        let _answering = connection.head().answering(Version::HTTP_11);
        let started = Instant::now();
        let error = connection.write_all(&[b'x'; 11]).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::TimedOut, 75));

        // While the client reads fast enough, it has the same time again after each read.
        let (mut connection, mut client) = connect(100_000);
        let _answering = connection.head().answering(Version::HTTP_11);
        let reading = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(70)).await;
                client.read_exact(&mut vec![0; 100_000]).await.unwrap();
            }
        };
        let answer = vec![b'x'; 400_000];
        let (written, ()) = tokio::join!(connection.write_all(&answer), reading);
        written.unwrap();

        // A client that reads a little now and then is too slow, and its connection is closed too.
        let (mut connection, mut client) = connect(1000);
        let _answering = connection.head().answering(Version::HTTP_11);
        let started = Instant::now();
        let reading = async {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                client.read_exact(&mut [0; 100]).await.unwrap();
            }
        };
        let error = tokio::select! {
            written = connection.write_all(&answer) => written.unwrap_err(),
            () = reading => unreachable!(),
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!((75..90).contains(&started.elapsed().as_secs()), "after {:?}", started.elapsed());
    }

    #[tokio::test]
    async fn little_is_read_ahead_until_all_is_written() {
        let (mut connection, mut client) = connect(100_000);
        client.write_all(&vec![b'x'; 50_000]).await.unwrap();
        let read = read_now(&mut connection).await;
        assert!((1..=8192).contains(&read), "{read} bytes");
        assert_eq!(read_now(&mut connection).await, 0);
        connection.flush().await.unwrap();
        assert_eq!(read_now(&mut connection).await, read);

        // While a request is answered, a flush permits no more. The request's own body may always be read.
        let request = TestRequest::get().insert_header((CONTENT_LENGTH, 10_000)).to_srv_request();
        let serving = connection.flow().serve(&request).await;
        assert_eq!(read_now(&mut connection).await, 10_000 + read);
        connection.flush().await.unwrap();
        assert_eq!(read_now(&mut connection).await, 0);
        drop(serving);
        connection.flush().await.unwrap();
        assert_eq!(read_now(&mut connection).await, read);
    }

    #[tokio::test]
    async fn little_of_a_body_is_read_before_its_handler_takes_it() {
        let (mut connection, mut client) = connect(100_000);
        client.write_all(&vec![b'x'; 90_000]).await.unwrap();
        let flow = connection.flow();
        let request = TestRequest::get().insert_header((CONTENT_LENGTH, 50_000)).to_srv_request();
        let serving = flow.clone().serve(&request).await;
        let mut all = read_now(&mut connection).await;
        assert!(all <= 20_000, "{all} bytes");
        connection.flush().await.unwrap();
        assert_eq!(read_now(&mut connection).await, 0, "the handler has taken nothing");
        // The handler takes what was read, again and again.
        while flow.body_is_taken() {
            let read = read_now(&mut connection).await;
            assert!((1..=20_000).contains(&read), "{read} bytes");
            all += read;
        }
        assert!((50_000..60_000).contains(&all), "the body, and little of what follows it: {all} bytes");
        drop(serving);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_to_make_room_is_not_kept_by_the_bytes_of_a_head() {
        let (client, server) = duplex(1000);
        let open = OpenConnections::new(1);
        let mut connection = Connection::new(server, &HttpSettings::default(), open.enter());
        let (mut client, started) = (client, Instant::now());
        assert_eq!(read_now(&mut connection).await, 0);
        let _other = open.enter();
        client.write_all(b"G").await.unwrap();
        assert_eq!(end_of(&mut connection).await.unwrap(), 1);
        assert!(started.elapsed().is_zero(), "{:?}", started.elapsed());
        // Control: bytes of a request that is being answered keep it.
        let (client, server) = duplex(1000);
        let mut connection = Connection::new(server, &HttpSettings::default(), open.enter());
        assert_eq!(read_now(&mut connection).await, 0);
        let _another = open.enter();
        let _answering = connection.head().answering(Version::HTTP_11);
        let mut client = client;
        client.write_all(b"x").await.unwrap();
        assert!(timeout(Duration::from_hours(1), connection.read_to_end(&mut Vec::new())).await.is_err());
    }

    #[tokio::test]
    async fn a_feed_ends_when_its_client_closes_its_side() {
        for is_feed in [true, false] {
            let (mut connection, client) = connect(1000);
            let _answering = connection.head().answering(Version::HTTP_11);
            if is_feed {
                connection.hang_up().when_client_leaves();
            }
            drop(client);
            let read = connection.read(&mut [0; 10]).await.map_err(|error| error.kind());
            assert_eq!(read, if is_feed { Err(ErrorKind::ConnectionAborted) } else { Ok(0) });
        }
    }

    #[tokio::test]
    async fn a_request_waits_until_the_answer_before_it_is_written() {
        let (mut connection, _client) = connect(1000);
        let flow = connection.flow();
        let request = TestRequest::get().to_srv_request();
        drop(flow.clone().serve(&request).await);
        let mut next = Box::pin(flow.serve(&request));
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        connection.flush().await.unwrap();
        assert!(futures_util::poll!(next.as_mut()).is_ready());
    }

    /// Reads all bytes that may be read now, and returns their number.
    async fn read_now(connection: &mut Connection<DuplexStream>) -> usize {
        let (mut all, mut part) = (0, [0; 3000]);
        while let Poll::Ready(read) = futures_util::poll!(pin!(connection.read(&mut part))) {
            all += read.unwrap();
        }
        all
    }

    #[tokio::test]
    async fn a_client_that_resets_its_connection_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = Connection::new(stream, &HttpSettings::default(), OpenConnections::new(1).enter());
        client.write_all(b"GET /").await.unwrap();
        client.set_zero_linger().unwrap();
        drop(client);
        let mut came = Vec::new();
        let error = connection.read_to_end(&mut came).await.unwrap_err();
        // The framework ends the connection on any error except a reset that follows some bytes.
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "after {came:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_looks_like_a_refusal_goes_out_as_it_is() {
        for version in [Version::HTTP_10, Version::HTTP_11] {
            let (mut connection, mut client) = connect(1000);
            let answering = connection.head().answering(version);
            let mut sent = [&b"\0\xff\x01"[..], BARE].concat();
            connection.write_all(&sent).await.unwrap();
            drop(answering);
            // The framework asks for the last part of a body, and writes the end of the body a moment later.
            let end = if version == Version::HTTP_11 { &b"\r\n0\r\n\r\n"[..] } else { b"" };
            let last = [BARE, end].concat();
            connection.write_all(&last).await.unwrap();
            sent.extend(last);
            drop(connection);
            let mut came = Vec::new();
            client.read_to_end(&mut came).await.unwrap();
            assert!(came == sent, "{version:?}: {}", String::from_utf8_lossy(&came));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_has_its_body_however_little_is_taken_at_once() {
        for capacity in [1, 7, 1000] {
            let (mut connection, mut client) = connect(capacity);
            let writing = async move {
                connection.write_all(&[b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1", BARE].concat()).await
            };
            let mut answers = String::new();
            let (written, read) = tokio::join!(writing, client.read_to_string(&mut answers));
            written.unwrap();
            read.unwrap();
            let (_, refusal) = answers.split_once("\r\n\r\n1").unwrap();
            assert!(refusal.starts_with("HTTP/1.1 400 ") && refusal.ends_with("\"}"), "{answers}");
        }
    }
}
