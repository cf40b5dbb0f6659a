//! The actors: they take events in, fold them into turns, have the store make these durable, and answer then.
//!
//! # Who asks whom
//!
//! ```text
//!                         Tick, ListStaleTurns
//!   Sweeper -------------------------------------------------+
//!      | Abandon                                             v
//!      v                                        commit     Store ------> engine
//!   Directory ----------------> Conversation ------------>   ^             ^
//!      ^      Observe, Abandon      |      OpenConversation  |             |
//!      | Observe                    v                        |         StoreReader
//!   callers                       Facts                   callers          ^
//!                                   |                                      |
//!                                   v                            callers on its thread
//!                              subscribers
//! ```
//!
//! # Invariants
//!
//! - The directory alone holds addresses of conversations, so at most one actor of a conversation has work. Every other
//!   actor knows only the messages that it sends, each as a `Recipient`, so a test can stand in for any of them.
//! - Nothing is acknowledged before it is durable.
//! - A conversation's actor is a cache: all it has acknowledged is in the store. Retiring it, or losing it to a panic,
//!   loses nothing. Hence there is no supervisor, and no work when an actor stops.
//! - The directory bounds the messages that are not answered and the conversations that have an actor, and refuses what
//!   is beyond.
//! - No handler waits for an fsync: the engine answers commits later, from a thread of its own.
//! - A fact is told after the commit that makes it durable, in the order of ordinals within its conversation. A slow
//!   subscriber delays nobody.
//!
//! # Files
//!
//! Each message stands with the first actor that takes it: questions about sealed turns in `reader`, those that change turns
//! in `conversation`, the end of an actor in `end`.
//!
//! - `facts`: tells subscribers of sealed turns.
//! - `load`: how much a directory has to do, shown to those who send it more.
//! - `end`: how others learn that an actor has ended.
//! - `reader`: answers questions about sealed turns on the thread that asks them.
//! - `store`: answers for an engine, and counts what became of the commits.
//! - `conversation`: folds the events of one conversation and commits them in batches.
//! - `directory`: starts conversations, passes messages on to them, retires them.
//! - `sweeper`: counts the running time, and causes abandoned and failed turns to be sealed.
//! - `tests`: messages through directory, conversations and a store.
//! - `death_tests`: actors that panic or end.
//! - `overload_tests`: more work than may wait.
//! - `retire_tests`: idle conversations are retired, and nothing is lost by it.
//! - `model_tests`: all of them against a plain model of the contract.

mod conversation;
#[cfg(test)]
mod death_tests;
mod directory;
mod end;
mod facts;
mod load;
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
pub(crate) use end::AwaitEnd;

pub use conversation::{
    Abandon, Conversation, ConversationReport, InspectConversation, Observe, ObserveError, Receipt, StoreRecipients,
    TurnReceipt,
};
pub use directory::{CountWork, Directory, Drain, WorkCounts};
pub use facts::{Fact, Facts, Subscription, TurnSealed};
pub use load::Load;
pub use reader::{BuildReport, FindRevision, ListConversations, ListOpenTurns, ListSealed, ListTurns, StoreReader};
pub use store::{BackUp, CheckWrite, Close, InspectStore, ListStaleTurns, OpenConversation, Store, StoreReport, Tick};
pub use sweeper::{InspectSweeper, Sweeper, SweeperRecipients, SweeperReport};
