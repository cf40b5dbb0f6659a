use actix::{Actor, Recipient};

use crate::actors::{BackUp, CheckWrite, FindRevision, ListTurns, Load, Observe, StoreReader};

/// Where a running system takes its messages: all that a caller of it needs.
#[derive(Clone)]
pub struct Handles {
    /// Takes events in.
    pub observe: Recipient<Observe>,
    /// Reads sealed turns.
    pub list_turns: Recipient<ListTurns>,
    /// Tells what a conversation's sealed turns are right now, without reading them.
    pub find_revision: Recipient<FindRevision>,
    /// Tells whether a durable write works.
    pub check_write: Recipient<CheckWrite>,
    /// Reads the store on any thread, to be started there by [`Handles::on_this_thread`]; `None` where there is none, as
    /// in a test that answers for the store itself.
    pub reader: Option<StoreReader>,
    /// Gives a copy of the whole store.
    pub back_up: Recipient<BackUp>,
    /// Shows how much is being worked on, so that more can be refused before it is read.
    pub load: Load,
}

impl Handles {
    /// The same handles, but reads are answered on the calling thread, without a way to another thread and back: for
    /// one that asks much, such as a worker of an HTTP server.
    ///
    /// To be called in an actix arbiter, once for each thread: it starts an actor. Without a reader the handles stay
    /// as they are.
    ///
    /// ```
    /// # use turn_metrics::actors::FindRevision;
    /// # use turn_metrics::runtime::Runtime;
    /// # use turn_metrics::turn::ConversationId;
    /// # actix::System::new().block_on(async {
    /// let runtime = Runtime::builder().start().await?;
    /// let handles = runtime.handles().on_this_thread();
    /// let conversation_id = ConversationId::new("c")?;
    /// assert_eq!(handles.find_revision.send(FindRevision { conversation_id }).await??.sealed_turns, 0);
    /// # runtime.shutdown().await;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn on_this_thread(&self) -> Self {
        let Some(reader) = &self.reader else { return self.clone() };
        let reader = reader.clone().start();
        Self { list_turns: reader.clone().recipient(), find_revision: reader.recipient(), ..self.clone() }
    }
}
