use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

/// The maximum number of bytes of an answer that a connection gets at once. The connection copies them, and holds the
/// copy until the client has read them. It takes parts until it holds 32 KiB, in memory that doubles as it grows.
const PART_BYTES: usize = 8 * 1024;

/// Returns a body of these bytes. `held` is dropped when the connection has got the last of them.
pub(crate) fn in_parts<H: Unpin + 'static>(bytes: Bytes, held: H) -> BoxBody {
    if bytes.len() <= PART_BYTES { BoxBody::new(bytes) } else { BoxBody::new(InParts { rest: bytes, _held: held }) }
}

/// Removes the next part from the front.
pub(crate) fn next_part(rest: &mut Bytes) -> Bytes {
    rest.split_to(rest.len().min(PART_BYTES))
}

/// A body of known length that the connection gets part by part.
struct InParts<H> {
    rest: Bytes,
    _held: H,
}

impl<H: Unpin> MessageBody for InParts<H> {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let part = next_part(&mut self.rest);
        Poll::Ready((!part.is_empty()).then_some(Ok(part)))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;

    #[actix_web::test]
    async fn a_long_body_comes_whole_in_parts_and_lets_go_at_its_end() {
        for len in [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 7] {
            let bytes: Bytes = (0..len).map(|n| n.to_le_bytes()[0]).collect::<Vec<_>>().into();
            let held = Arc::new(());
            let mut body = Box::pin(in_parts(bytes.clone(), Arc::clone(&held)));
            assert_eq!(body.size(), BodySize::Sized(len as u64));
            let mut came = Vec::new();
            while let Some(part) = poll_fn(|cx| body.as_mut().poll_next(cx)).await {
                let part = part.unwrap();
                assert!(part.len() <= PART_BYTES);
                came.extend_from_slice(&part);
            }
            assert!(came == bytes, "{len} bytes");
            drop(body);
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }
}
