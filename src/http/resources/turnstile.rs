use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::error::{ApiError, Unavailable};

/// Limits how many requests at a time read very many rows or hold much memory until the answer is sent. A few more
/// requests wait. All further requests are refused, because a long queue would delay every later request of this kind.
#[derive(Debug, Clone)]
pub(crate) struct Turnstile {
    inside: Arc<Semaphore>,
    /// The places of the requests that are inside or wait.
    all: Arc<Semaphore>,
}

/// A place inside. Dropping this value frees the place.
#[derive(Debug)]
pub(crate) struct Inside {
    _inside: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

impl Turnstile {
    /// The maximum number of requests inside: one is answered while the other one is computed.
    const INSIDE: usize = 2;
    /// The maximum number of waiting requests. The last of them waits for some seconds.
    const WAITING: usize = 30;

    pub(crate) fn new() -> Self {
        let inside = Arc::new(Semaphore::new(Self::INSIDE));
        let all = Arc::new(Semaphore::new(Self::INSIDE + Self::WAITING));
        Self { inside, all }
    }

    /// Waits for a place inside, unless too many requests wait already.
    pub(crate) async fn enter(&self) -> Result<Inside, ApiError> {
        let all = Arc::clone(&self.all).try_acquire_owned();
        let all = all.map_err(|_| ApiError::Unavailable(Unavailable::TooManyReports))?;
        // The semaphore is never closed.
        let inside = Arc::clone(&self.inside).acquire_owned().await.ok();
        Ok(Inside { _inside: inside, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn few_are_inside_some_wait_in_order_and_the_rest_is_refused() {
        let turnstile = Turnstile::new();
        let mut inside = Vec::new();
        for _ in 0..Turnstile::INSIDE {
            inside.push(turnstile.enter().await.unwrap());
        }
        let mut waiting: Vec<_> = (0..Turnstile::WAITING).map(|_| Box::pin(turnstile.enter())).collect();
        for wait in &mut waiting {
            assert!(poll!(wait).is_pending());
        }
        let refused = turnstile.enter().await.unwrap_err();
        assert!(matches!(refused, ApiError::Unavailable(Unavailable::TooManyReports)), "{refused}");
        // A request that leaves makes room for the first waiting request. A request that stops waiting makes room for a
        // new one.
        inside.pop();
        inside.push(waiting.remove(0).await.unwrap());
        assert!(poll!(&mut waiting[0]).is_pending());
        waiting.clear();
        inside.pop();
        turnstile.enter().await.unwrap();
    }
}
