use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::error::{ApiError, Unavailable};

/// Limits how many requests at a time read very many rows or hold much memory until the answer is written. A few more
/// requests wait for a short time. The server does not notice that a client is gone while its request waits, so a
/// client that gives up and asks again and again would otherwise fill the places of others. All further requests are
/// refused, because a long queue would delay every later request of this kind.
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
    /// The maximum number of waiting requests.
    const WAITING: usize = 30;
    /// How long a request waits before it is refused.
    const LONGEST_WAIT: Duration = Duration::from_secs(5);

    pub(crate) fn new() -> Self {
        let inside = Arc::new(Semaphore::new(Self::INSIDE));
        let all = Arc::new(Semaphore::new(Self::INSIDE + Self::WAITING));
        Self { inside, all }
    }

    /// Waits for a place inside, but not if too many requests wait already, and not for long.
    pub(crate) async fn enter(&self) -> Result<Inside, ApiError> {
        let all = Arc::clone(&self.all).try_acquire_owned();
        let too_many = || ApiError::Unavailable(Unavailable::TooManyReports);
        let all = all.map_err(|_| too_many())?;
        let inside = timeout(Self::LONGEST_WAIT, Arc::clone(&self.inside).acquire_owned()).await;
        // The semaphore is never closed.
        let inside = inside.map_err(|_| too_many())?.ok();
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

    #[tokio::test(start_paused = true)]
    async fn a_request_does_not_wait_for_ever_and_then_its_place_is_free() {
        let turnstile = Turnstile::new();
        let _inside = [turnstile.enter().await.unwrap(), turnstile.enter().await.unwrap()];
        for _ in 0..=Turnstile::WAITING {
            let refused = turnstile.enter().await.unwrap_err();
            assert!(matches!(refused, ApiError::Unavailable(Unavailable::TooManyReports)), "{refused}");
        }
        assert_eq!(turnstile.all.available_permits(), Turnstile::WAITING);
    }
}
