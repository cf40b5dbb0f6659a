use actix::Recipient;

use crate::actors::{BackUp, CheckWrite, FindRevision, ListTurns, Load, Observe};

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
    /// Gives a copy of the whole store.
    pub back_up: Recipient<BackUp>,
    /// Shows how much is being worked on, so that more can be refused before it is read.
    pub load: Load,
}
