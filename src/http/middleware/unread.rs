use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage};
use futures_util::Stream;

use super::flow::Flow;

/// Middleware around every request. It closes the connection if the answer leaves a part of the request's body unread, and
/// lets the connection read on when the handler has taken what was read.
///
/// The framework closes such connections itself, except for a chunked body that has been dropped. It reads such a body
/// to its end without a time limit, so a client that stalls would keep the connection. This middleware holds the body until the
/// answer is sent. Then the framework closes these connections too.
pub(crate) async fn close_unread<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Result<ServiceResponse<B>, Error>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let is_chunked = request.chunked().unwrap_or(false);
    if !is_chunked && !request.headers().contains_key(CONTENT_LENGTH) {
        return Ok(next(request).await?.map_into_boxed_body());
    }
    let flow = request.conn_data::<Flow>().cloned();
    let payload = Shared { payload: Rc::new(RefCell::new(request.take_payload())), flow };
    request.set_payload(Payload::Stream { payload: Box::pin(payload.clone()) });
    let response = next(request).await?.map_into_boxed_body();
    Ok(if is_chunked { response.map_body(|_, body| BoxBody::new(Holding::new(body, payload))) } else { response })
}

/// A request's body that lives longer than its reader.
#[derive(Clone)]
struct Shared {
    payload: Rc<RefCell<Payload>>,
    flow: Option<Flow>,
}

impl Stream for Shared {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let part = Pin::new(&mut *self.payload.borrow_mut()).poll_next(cx);
        match (&self.flow, &part) {
            (Some(flow), Poll::Ready(None)) => flow.needs_no_body(),
            // The connection is polled by the same task.
            (Some(flow), Poll::Pending) if flow.body_is_taken() => cx.waker().wake_by_ref(),
            _ => {}
        }
        part
    }
}

/// The body of an answer together with a value. The value is dropped when the body has been sent.
pub(crate) struct Holding<T> {
    body: BoxBody,
    _held: T,
}

impl<T> Holding<T> {
    pub(crate) fn new(body: BoxBody, held: T) -> Self {
        Self { body, _held: held }
    }
}

impl<T: Unpin> MessageBody for Holding<T> {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}
