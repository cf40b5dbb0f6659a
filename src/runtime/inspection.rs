use actix::Recipient;

use crate::actors::{CountWork, InspectConversation, InspectStore, InspectSweeper};

/// Where the actors of a running system tell how they are, for operators and tests.
#[derive(Clone)]
pub struct Inspection {
    /// How much is going on in the directory.
    pub directory: Recipient<CountWork>,
    /// How one conversation's actor is, if it has one.
    pub conversation: Recipient<InspectConversation>,
    /// How the store is.
    pub store: Recipient<InspectStore>,
    /// How the sweeper is.
    pub sweeper: Recipient<InspectSweeper>,
}
