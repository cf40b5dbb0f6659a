use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::error::{ApiError, Unavailable};

/// Lets few requests at a time do what reads very many rows, or holds much until it is answered. A few more wait, and the
/// rest is refused: what waits would hold up everybody who asks the same later.
#[derive(Debug, Clone)]
pub(crate) struct Turnstile {
    inside: Arc<Semaphore>,
    /// Those inside and those that wait.
    all: Arc<Semaphore>,
}

/// A place inside, until this is dropped.
#[derive(Debug)]
pub(crate) struct Inside {
    _inside: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

impl Turnstile {
    /// So many may be inside: one is answered while another one is computed.
    const INSIDE: usize = 2;
    /// The wait of the last one is some seconds.
    const WAITING: usize = 30;

    pub(crate) fn new() -> Self {
        let inside = Arc::new(Semaphore::new(Self::INSIDE));
        let all = Arc::new(Semaphore::new(Self::INSIDE + Self::WAITING));
        Self { inside, all }
    }

    /// Waits for a place inside, unless too many wait already.
    pub(crate) async fn enter(&self) -> Result<Inside, ApiError> {
        let all = Arc::clone(&self.all).try_acquire_owned();
        let all = all.map_err(|_| ApiError::Unavailable(Unavailable::TooManyReports))?;
        // Nobody closes the semaphore.
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
        // One that leaves makes room for the first that waits, and one that gives up makes room for another one.
        inside.pop();
        inside.push(waiting.remove(0).await.unwrap());
        assert!(poll!(&mut waiting[0]).is_pending());
        waiting.clear();
        inside.pop();
        turnstile.enter().await.unwrap();
    }
}
