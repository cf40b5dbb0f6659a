//! The actors: they take events in, fold them into turns, make the turns durable in the store, and then answer.
//!
//! # Who asks whom
//!
//! ```text
//!                         Tick, ListStaleTurns
//!   Sweeper -------------------------------------------------+
//!      | Abandon            Retention ------ DropTurns ------+
//!      |                                                     v
//!      v                                        commit     Store ------> engine
//!   Directory ----------------> Conversation ------------>   ^             ^
//!      ^   |  Observe, Abandon,     |      OpenConversation, |             |
//!      |   |  Erase                 |      EraseConversation |             |
//!      |   +------------------------|-- series of commits ---+             |
//!      | Observe, Import, Erase     v                        |         StoreReader
//!   callers                       Facts                   callers          ^
//!                                   |                                      |
//!                                   v                            callers on its thread
//!                              subscribers
//! ```
//!
//! # Invariants
//!
//! - Only the directory holds addresses of conversations, so at most one actor of a conversation has work. Every other
//!   actor knows only the messages that it sends, each as a `Recipient`, so a test can stand in for any actor.
//! - Nothing is acknowledged before it is durable.
//! - A conversation's actor is a cache: everything that it has acknowledged is in the store. If it is retired, or dies
//!   by a panic, nothing is lost. So there is no supervisor, and an actor does no work when it stops.
//! - The directory bounds two numbers: the unanswered messages, and the conversations that have an actor. It refuses
//!   messages beyond these limits.
//! - No handler waits for an fsync: the engine answers commits later, from a thread of its own.
//! - The directory commits imported turns itself, past the actors of their conversations. The next commit of such an
//!   actor is a conflict, and the actor loads the new state.
//! - A fact is published after the commit that makes it durable. The facts of a conversation are published in the order
//!   of their ordinals, unless turns of it are imported at the same moment. A slow subscriber delays nobody.
//!
//! # Files
//!
//! A message is defined beside an actor that handles it. If several actors handle it, the list decides:
//!
//! - Questions about turns that callers outside may ask are defined in `reader`. The reader and the store answer them.
//!   Other messages to the store are defined in `store`, and only the store handles them.
//! - Messages about one conversation are defined in `conversation`. The directory passes them on.
//! - The question whether an actor has ended, `AwaitEnd`, is defined in `end`.
//!
//! From the event to the store:
//!
//! - `load`: the amount of work of a directory, as its senders see it.
//! - `directory`: starts conversations, passes messages on to them, retires them.
//! - `conversation`: folds the events of one conversation and commits them in batches.
//! - `import`: imports sealed turns of another store, in their order.
//! - `facts`: publishes to subscribers that a turn was sealed or a conversation erased.
//! - `open_changes`: collects which open turns have changed, for those who show them.
//! - `store`: answers for an engine, and counts the outcomes of commits.
//!
//! Beside that path:
//!
//! - `reader`: answers questions to the store on the thread that asks them.
//! - `feed`: all sealed turns from a position on, in order.
//! - `live_feed`: the same, with erasures and open turns.
//! - `changes`: sealed turns, erasures and changes of open turns in one place, for those who show them.
//! - `retention`: causes turns to be dropped that are too old.
//! - `sweeper`: counts the running time, and causes abandoned and failed turns to be sealed.
//! - `end`: how an actor learns that another actor has ended.
//!
//! Tests of several actors together:
//!
//! - `tests`: directory and sweeper, with paused time.
//! - `death_tests`: actors that panic or end.
//! - `feed_tests`: feeds beside commits, and what a failing or closing store does to them.
//! - `live_feed_tests`: live feeds beside commits and erasures.
//! - `import_tests`: imports of sealed turns beside other work.
//! - `overload_tests`: more work than the limits allow.
//! - `retire_tests`: idle conversations are retired, and nothing is lost.
//! - `model_tests`: directory, conversations and store against a simple model of the contract.

mod changes;
mod conversation;
#[cfg(test)]
mod death_tests;
mod directory;
mod end;
mod facts;
mod feed;
#[cfg(test)]
mod feed_tests;
mod import;
#[cfg(test)]
mod import_tests;
mod live_feed;
#[cfg(test)]
mod live_feed_tests;
mod load;
#[cfg(test)]
mod model_tests;
mod open_changes;
#[cfg(test)]
mod overload_tests;
mod reader;
mod retention;
#[cfg(test)]
mod retire_tests;
mod store;
mod sweeper;
#[cfg(test)]
mod tests;

#[cfg(feature = "server")]
pub(crate) use changes::{Change, Changes, Erasure};
#[cfg(test)]
pub(crate) use death_tests::Die;
pub(crate) use end::AwaitEnd;
#[cfg(feature = "server")]
pub(crate) use open_changes::OpenWatch;

pub use conversation::{
    Abandon, Conversation, ConversationReport, Erase, EraseError, InspectConversation, Observe, ObserveError, Receipt,
    StoreRecipients, TurnReceipt,
};
pub use directory::{CountWork, Directory, Drain, WorkCounts};
pub use facts::{Fact, Facts, Subscription, TurnSealed};
pub use feed::{Feed, FeedStart};
pub use import::{Import, ImportError, ImportFailure, ImportReceipt, ImportedTurn};
pub use live_feed::{FeedEvent, LiveFeed};
pub use load::Load;
pub use reader::{
    BeginExport, BuildReport, FindRevision, ListConversations, ListErasedSums, ListOpenTurns, ListSealed, ListTurns,
    StoreReader,
};
pub use retention::{InspectRetention, Retention, RetentionReport};
pub use store::{
    BackUp, CheckWrite, Close, EraseConversation, InspectStore, ListStaleTurns, OpenConversation, Scrub, Store,
    StoreReport, TakeErasedSums, Tick,
};
pub use sweeper::{InspectSweeper, Sweeper, SweeperRecipients, SweeperReport};
