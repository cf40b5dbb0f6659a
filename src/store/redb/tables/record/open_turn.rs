use std::sync::Arc;

use super::damaged::DamagedRecord;
use super::{HEAD, decode_step, encode_head, encode_step};
use crate::store::contract::{StagedChange, StagedTurn};
use crate::turn::{OpenHead, OpenStep, OpenSteps, OpenTurn, RunningTime, TurnId};

/// A head as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StagedHead {
    pub(crate) turn_id: TurnId,
    pub(crate) step_count: u32,
    pub(crate) last_event_at: RunningTime,
    pub(crate) head: OpenHead,
}

/// The records of what a commit stages of an open turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StagedRecords {
    pub(crate) head: Arc<[u8]>,
    /// Those of the steps that changed, each with its place.
    pub(crate) steps: Vec<(u32, Arc<[u8]>)>,
}

impl StagedRecords {
    pub(crate) fn encode(change: &StagedChange) -> Result<Self, DamagedRecord> {
        let step = |(place, step): &(u32, OpenStep)| -> Result<(u32, Arc<[u8]>), DamagedRecord> {
            Ok((*place, encode_step(&change.turn_id, *place, step)?.into()))
        };
        let steps = change.steps.iter().map(step).collect::<Result<_, _>>()?;
        Ok(Self { head: encode_head(change)?.into(), steps })
    }
}

impl StagedHead {
    /// Puts the turn together. `steps` has the records of its steps, in order.
    pub(crate) fn with_steps<'a>(
        self,
        steps: impl Iterator<Item = Result<&'a [u8], DamagedRecord>>,
    ) -> Result<StagedTurn, DamagedRecord> {
        let Self { turn_id, step_count, last_event_at, head } = self;
        let steps = (0..).zip(steps).map(|(place, record)| decode_step(&turn_id, place, record?));
        let steps: OpenSteps = steps.collect::<Result<_, _>>()?;
        // Of two steps with one id only one is taken.
        if steps.count() != step_count {
            let why = format!("it has {} steps, and its head says {step_count}", steps.count());
            return Err(DamagedRecord::new(HEAD, why));
        }
        Ok(StagedTurn { turn: OpenTurn { id: turn_id, head, steps }, last_event_at })
    }
}
