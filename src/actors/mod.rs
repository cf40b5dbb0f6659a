//! The actors and their messages.

mod messages;

pub use messages::{
    Abandon, CheckWrite, Close, Drain, FindRevision, ListStaleTurns, ListTurns, Observe, ObserveError,
    OpenConversation, Receipt, TurnReceipt,
};
