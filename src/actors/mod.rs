//! The actors and their messages.
//!
//! A message to the [`Directory`] goes on to the [`Conversation`] it names, which folds its events and sends the
//! [`Store`] one commit for all that waited; the answer comes back when that is durable. The [`Sweeper`] has abandoned
//! and failed turns sealed. A thread that reads a lot starts its own [`StoreReader`]; a listener for sealed turns
//! subscribes to [`Facts`].

mod conversation;
#[cfg(test)]
mod death_tests;
mod directory;
mod facts;
mod load;
mod messages;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod overload_tests;
mod reader;
#[cfg(test)]
mod retire_tests;
mod store;
mod sweeper;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use death_tests::Die;
pub(crate) use messages::AwaitEnd;

pub use conversation::{Conversation, StoreRecipients};
pub use directory::Directory;
pub use facts::{Fact, Facts, Subscription, TurnSealed};
pub use load::Load;
pub use messages::{
    Abandon, BackUp, CheckWrite, Close, ConversationReport, CountWork, Drain, FindRevision, InspectConversation,
    InspectStore, InspectSweeper, ListConversations, ListSealed, ListStaleTurns, ListTurns, Observe, ObserveError,
    OpenConversation, Receipt, StoreReport, SweeperReport, Tick, TurnReceipt, WorkCounts,
};
pub use reader::StoreReader;
pub use store::Store;
pub use sweeper::{Sweeper, SweeperRecipients};
