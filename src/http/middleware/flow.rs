use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_web::HttpMessage;
use actix_web::dev::ServiceRequest;
use actix_web::http::header::CONTENT_LENGTH;

/// How many bytes are read ahead: at once, and while a request is answered. The framework parses all of them into
/// requests, and a short head takes many times its bytes in memory.
const AHEAD_BYTES: usize = 4 * 1024;

/// How many bytes of a request's body are read before the handler has taken them. The framework itself reads up to
/// 128 KiB of a body whose handler takes nothing, for each connection.
const BODY_BYTES: usize = 16 * 1024;

/// What a connection may read, and when it may serve its next request. The connection and its requests share this
/// state.
///
/// The framework itself reads and parses requests although their client reads no answers. It also serves them until
/// the unwritten answers have a certain size.
#[derive(Clone, Default)]
pub(crate) struct Flow(Rc<State>);

struct State {
    /// How many more bytes may be read until all answers are written.
    left: Cell<usize>,
    /// How many more bytes of the request may be read when the handler has taken what was read of the body.
    later: Cell<usize>,
    /// Whether a read was put off because of `left`.
    is_held: Cell<bool>,
    /// Whether a request is being answered.
    is_serving: Cell<bool>,
    /// Whether an answer has ended of which some bytes may not be written yet.
    is_unwritten: Cell<bool>,
    /// Wakes the request that waits until the answer before it is written.
    next: RefCell<Option<Waker>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            left: Cell::new(AHEAD_BYTES),
            later: Cell::default(),
            is_held: Cell::default(),
            is_serving: Cell::default(),
            is_unwritten: Cell::default(),
            next: RefCell::default(),
        }
    }
}

impl Flow {
    /// Returns how many bytes may be read now. If there are none, [`all_is_written`](Self::all_is_written) or
    /// [`body_is_taken`](Self::body_is_taken) says when to read again.
    pub(crate) fn may_read(&self) -> Option<usize> {
        let left = self.0.left.get();
        self.0.is_held.set(left == 0);
        (left > 0).then_some(left)
    }

    /// Notes that this many bytes were read.
    pub(crate) fn was_read(&self, bytes: usize) {
        self.0.left.set(self.0.left.get().saturating_sub(bytes));
    }

    /// Notes that the framework has written everything that it had. Returns whether the connection has to be polled
    /// again, because it may read again.
    pub(crate) fn all_is_written(&self) -> bool {
        let state = &self.0;
        if !state.is_serving.get() {
            state.left.set(AHEAD_BYTES);
            state.later.set(0);
        }
        state.is_unwritten.set(false);
        if let Some(next) = state.next.take() {
            next.wake();
        }
        state.left.get() > 0 && state.is_held.take()
    }

    /// Waits until the answer before this request is written. From then on the request's body may be read.
    pub(crate) async fn serve(self, request: &ServiceRequest) -> Serving {
        poll_fn(|cx| self.poll_written(cx)).await;
        // The framework has refused a length that is not a number.
        let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = if request.chunked().unwrap_or(false) { usize::MAX } else { length.unwrap_or(0) };
        let all = AHEAD_BYTES.saturating_add(body);
        let first = all.min(BODY_BYTES);
        self.0.left.set(first);
        self.0.later.set(all - first);
        self.0.is_serving.set(true);
        Serving(self)
    }

    fn poll_written(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.0.is_unwritten.get() {
            return Poll::Ready(());
        }
        // The framework writes and flushes at the end of each round of work, and so after this call.
        *self.0.next.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Notes that the handler has taken all that was read of the body. Returns whether the connection has to be polled
    /// again, because it may read again.
    pub(crate) fn body_is_taken(&self) -> bool {
        let state = &self.0;
        let more = BODY_BYTES.saturating_sub(state.left.get()).min(state.later.get());
        state.left.set(state.left.get() + more);
        state.later.set(state.later.get() - more);
        state.left.get() > 0 && state.is_held.take()
    }

    /// Notes that all of the body of the request in progress has been read, or is not needed.
    pub(crate) fn needs_no_body(&self) {
        self.0.left.set(self.0.left.get().min(AHEAD_BYTES));
        self.0.later.set(0);
    }
}

/// Means that a request is being answered. When it is dropped, its answer has ended.
pub(crate) struct Serving(Flow);

impl Serving {
    /// Notes that the answer has begun, so the rest of the request's body is not needed.
    pub(crate) fn needs_no_body(&self) {
        self.0.needs_no_body();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.is_serving.set(false);
        self.0.0.is_unwritten.set(true);
    }
}
