use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, Version};
use actix_web::web::Bytes;

/// Wrapped around every request: a client of HTTP/1.0 gets a body of unknown size without chunks, which it does not
/// know. The end of the connection ends such a body.
///
/// The framework sends chunks to any client, and answers further requests that the client has sent already.
pub(super) async fn frame<B: MessageBody + 'static>(
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

/// The body of a connection that has no end but the connection's, if there is one. Shared by the connection and the
/// body.
#[derive(Clone, Default)]
pub(super) struct LastBody(Rc<RefCell<Progress>>);

#[derive(Default)]
enum Progress {
    /// There is none, or it is being sent.
    #[default]
    Sending,
    /// The framework has all of the body, and wakes this when it has written it.
    Handed(Waker),
    /// All of the body is written.
    Written,
    /// The framework knows that the body has ended. What it writes from now on belongs to later answers.
    Ended,
}

impl LastBody {
    /// The framework has written everything that it has.
    pub(super) fn all_is_written(&self) {
        let mut progress = self.0.borrow_mut();
        if let Progress::Handed(body) = &*progress {
            body.wake_by_ref();
            *progress = Progress::Written;
        }
    }

    /// Whether nothing may follow on this connection.
    pub(super) fn has_ended(&self) -> bool {
        matches!(*self.0.borrow(), Progress::Ended)
    }

    fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        let mut progress = self.0.borrow_mut();
        match *progress {
            Progress::Sending | Progress::Handed(_) => {
                *progress = Progress::Handed(cx.waker().clone());
                Poll::Pending
            }
            Progress::Written | Progress::Ended => {
                *progress = Progress::Ended;
                Poll::Ready(())
            }
        }
    }
}

/// A body that ends when all of it is written, so that nothing of a later answer gets between it and the connection's
/// end.
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
