use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::Error;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::refusal;
use super::unread::Holding;
use crate::settings::HttpSettings;

/// The longest that anything is waited for, far from where adding to a moment overflows.
const MAX_WAIT: Duration = Duration::from_hours(2 * 365 * 24);

/// A client's connection with what the framework lacks: a time limit on the head of each request, not of the first
/// alone; a time limit on a client that takes nothing of its answer; a body for what the framework refuses by itself.
///
/// No file descriptor and no task beside those of the stream within.
pub(super) struct Connection<T> {
    stream: T,
    head: HeadLimit,
    /// How long the client may take nothing of what is written.
    write_timeout: Duration,
    /// When that is over, while it takes nothing.
    stalled: Option<Instant>,
    /// Fires when something is due, or before: moving it for each request would cost more than a wake-up now and then.
    timer: Pin<Box<Sleep>>,
    /// What goes out in the place of a refusal without a body, and how much of it has.
    refusal: Option<(Vec<u8>, usize)>,
}

impl<T> Connection<T> {
    /// A connection that has just been accepted.
    pub(super) fn new(stream: T, settings: &HttpSettings) -> Self {
        let head = HeadLimit::new(settings);
        let timer = Box::pin(sleep_until(after(settings.header_timeout)));
        Self { stream, head, write_timeout: settings.keep_alive, stalled: None, timer, refusal: None }
    }

    /// The limit on its heads, for [`keep_time`] to be told of.
    pub(super) fn head(&self) -> HeadLimit {
        self.head.clone()
    }

    /// Is ready when what is waited for has not come in time.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.stalled.or(self.head.due.get()) else { return Poll::Pending };
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
            if self.stalled.take().is_some() {
                self.head.restart();
            }
            return Poll::Ready(written);
        }
        let write_timeout = self.write_timeout;
        self.stalled.get_or_insert_with(|| after(write_timeout));
        self.poll_due(cx).map(|()| Err(ErrorKind::TimedOut.into()))
    }

    /// Writes a refusal with its body instead of the bare one, which counts as written once all of the other is.
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

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            if buf.filled().len() > before {
                this.head.bytes_came();
            }
            return Poll::Ready(read);
        }
        ready!(this.poll_due(cx));
        if this.stalled.is_some() {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        // All answers are out, so this one cannot get into the midst of another. A client whose buffers have no room
        // for so little is not there.
        this.head.due.set(None);
        let answer = refusal::slow_head(this.head.header_timeout);
        match Pin::new(&mut this.stream).poll_write(cx, &answer) {
            // As if the client had ended it: the framework closes the connection.
            Poll::Ready(Ok(written)) if written == answer.len() => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(ErrorKind::TimedOut.into())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match refusal::find_bare(bytes) {
            None => this.write(cx, bytes),
            Some(0) => this.write_refusal(cx, bytes),
            Some(start) => this.write(cx, &bytes[..start]),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The framework does this last whenever it has been at work. If an answer has just ended, nothing is read
        // after it, and only here the timer comes to know of the time for the next head.
        if this.poll_due(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Until when the head of a connection's next request has to be in.
#[derive(Clone)]
pub(super) struct HeadLimit {
    /// `None` while a request is being answered.
    due: Rc<Cell<Option<Instant>>>,
    header_timeout: Duration,
    /// From one answer to the end of the next head. The first bytes of a head may have come with the request before it,
    /// so there is a limit even if none come after.
    between: Duration,
}

impl HeadLimit {
    fn new(settings: &HttpSettings) -> Self {
        let header_timeout = settings.header_timeout;
        let due = Rc::new(Cell::new(Some(after(header_timeout))));
        Self { due, header_timeout, between: settings.keep_alive.saturating_add(header_timeout) }
    }

    /// Outside a request they are of the next head: the first of them sets its limit, later ones do not move it.
    fn bytes_came(&self) {
        self.due.set(self.due.get().map(|due| due.min(after(self.header_timeout))));
    }

    /// The client has begun to read again what is left of an answer, and comes to its next request later.
    fn restart(&self) {
        self.due.set(self.due.get().map(|_| after(self.between)));
    }

    fn answering(&self) -> Answering {
        self.due.set(None);
        Answering(self.clone())
    }
}

/// A request is being answered, for as long as this is held.
struct Answering(HeadLimit);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.due.set(Some(after(self.0.between)));
    }
}

/// Wrapped around every request: the time for the next head begins when the answer ends.
pub(super) async fn keep_time(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let answering = request.conn_data::<HeadLimit>().map(HeadLimit::answering);
    let response = next.call(request).await?.map_into_boxed_body();
    Ok(match answering {
        Some(answering) => response.map_body(|_, body| BoxBody::new(Holding::new(body, answering))),
        None => response,
    })
}

fn after(wait: Duration) -> Instant {
    Instant::now() + wait.min(MAX_WAIT)
}
