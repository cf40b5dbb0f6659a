use std::sync::Arc;

use crate::turn::{OpenHead, RunningTime, TurnId};

/// The head of an open turn, as decoded from its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StagedHead {
    pub(crate) turn_id: TurnId,
    pub(crate) step_count: u32,
    pub(crate) last_event_at: RunningTime,
    pub(crate) head: OpenHead,
}

/// The records that a commit stages of an open turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StagedRecords {
    pub(crate) turn_id: TurnId,
    /// The number of steps of the turn, as in its head.
    pub(crate) step_count: u32,
    pub(crate) head: Arc<[u8]>,
    /// The records of the steps that changed, each with the place of its step.
    pub(crate) steps: Vec<(u32, Arc<[u8]>)>,
}
