use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, Version};
use actix_web::web::Bytes;

/// Middleware around every request. A client of HTTP/1.0 does not understand chunks, so it gets a body of unknown
/// length without them. The end of the connection then marks the end of the body.
///
/// The framework would send chunks to any client. It would also answer pipelined requests after such a body.
pub(crate) async fn frame<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Result<ServiceResponse<B>, Error>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if request.version() >= Version::HTTP_11 {
        return Ok(next(request).await?.map_into_boxed_body());
    }
    let last = request.conn_data::<LastBody>().cloned();
    let mut response = next(request).await?.map_into_boxed_body();
    if response.response().body().size() != BodySize::Stream {
        return Ok(response);
    }
    let head = response.response_mut().head_mut();
    head.no_chunking(true);
    head.set_connection_type(ConnectionType::Close);
    Ok(match last {
        Some(last) => response.map_body(|_, body| BoxBody::new(Unframed { body, last })),
        None => response,
    })
}

/// The state of a body that ends with its connection. The connection and the body share this state.
#[derive(Clone, Default)]
pub(crate) struct LastBody(Rc<RefCell<BodyState>>);

#[derive(Default)]
enum BodyState {
    /// There is no such body, or it is still being sent.
    #[default]
    Sending,
    /// The framework has taken all of the body. The waker wakes the body when everything is written.
    Handed(Waker),
    /// All of the body is written.
    Written,
    /// The framework knows that the body has ended. It may now write later answers, which must not reach the client.
    Ended,
}

impl LastBody {
    /// Notes that the framework has written everything that it had.
    pub(crate) fn all_is_written(&self) {
        let mut state = self.0.borrow_mut();
        if let BodyState::Handed(body) = &*state {
            body.wake_by_ref();
            *state = BodyState::Written;
        }
    }

    /// Returns whether nothing more may be sent on this connection.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(*self.0.borrow(), BodyState::Ended)
    }

    fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        match *state {
            BodyState::Sending | BodyState::Handed(_) => {
                *state = BodyState::Handed(cx.waker().clone());
                Poll::Pending
            }
            BodyState::Written | BodyState::Ended => {
                *state = BodyState::Ended;
                Poll::Ready(())
            }
        }
    }
}

/// A body that ends only when all of it is written, so that no later answer is written before the connection ends.
struct Unframed {
    body: BoxBody,
    last: LastBody,
}

impl MessageBody for Unframed {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match ready!(Pin::new(&mut self.body).poll_next(cx)) {
            None => self.last.poll_end(cx).map(|()| None),
            part => Poll::Ready(part),
        }
    }
}
