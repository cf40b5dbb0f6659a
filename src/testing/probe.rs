use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Context, Handler, Message, Recipient, ResponseFuture};
use tokio::sync::Notify;

/// Stands in for an actor: it records each message and answers as the test tells it to.
///
/// Clones share one probe. So a test keeps one clone to inspect, and passes on its [`recipient`](Probe::recipient).
pub struct Probe<M>
where
    M: Message + Send,
    M::Result: Send,
{
    seen: Arc<Seen<M>>,
    recipient: Recipient<M>,
}

struct Seen<M> {
    messages: Mutex<Vec<M>>,
    more: Notify,
}

impl<M> Seen<M> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<M>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Probe<M>
where
    M: Message + Clone + Send + Unpin + 'static,
    M::Result: Send,
{
    /// Starts a probe on the current thread. `answer` computes the answer to each message.
    pub fn start<F>(answer: impl FnMut(M) -> F + Unpin + 'static) -> Self
    where
        F: Future<Output = M::Result> + 'static,
    {
        let seen = Arc::new(Seen { messages: Mutex::new(Vec::new()), more: Notify::new() });
        let actor = Answerer { seen: Arc::clone(&seen), answer };
        Self { seen, recipient: actor.start().recipient() }
    }

    /// Returns the recipient that sends messages to the probe.
    pub fn recipient(&self) -> Recipient<M> {
        self.recipient.clone()
    }

    /// Returns the messages so far.
    pub fn seen(&self) -> Vec<M> {
        self.seen.lock().clone()
    }

    /// Waits until there are at least `count` messages, and returns all messages so far.
    pub async fn wait_for(&self, count: usize) -> Vec<M> {
        loop {
            let more = self.seen.more.notified();
            let seen = self.seen();
            if seen.len() >= count {
                return seen;
            }
            more.await;
        }
    }
}

struct Answerer<M, A> {
    seen: Arc<Seen<M>>,
    answer: A,
}

impl<M: Unpin + 'static, A: Unpin + 'static> Actor for Answerer<M, A> {
    type Context = Context<Self>;
}

impl<M, A, F> Handler<M> for Answerer<M, A>
where
    M: Message + Clone + Unpin + 'static,
    A: FnMut(M) -> F + Unpin + 'static,
    F: Future<Output = M::Result> + 'static,
{
    type Result = ResponseFuture<M::Result>;

    fn handle(&mut self, message: M, _: &mut Self::Context) -> Self::Result {
        self.seen.lock().push(message.clone());
        self.seen.more.notify_waiters();
        Box::pin((self.answer)(message))
    }
}
