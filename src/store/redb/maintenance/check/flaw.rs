use crate::store::fault::Fault;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::turn::{ConversationId, Ordinal, StepId, TurnId};

/// What is wrong with a row of the tables, or with the main file. Displays as a text to put after the row's name.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The file cannot be read as a database.
    #[error("{}", .0.in_full())]
    Unreadable(Fault),
    /// The file's list of free pages is wrong.
    #[error("its record of free pages is wrong")]
    FreePages,
    /// A fact about the file is damaged.
    #[error("its record `{name}`: {damaged}")]
    Fact {
        /// The name of the fact.
        name: String,
        /// What is wrong with its record.
        damaged: DamagedRecord,
    },
    /// A fact about the file is missing.
    #[error("its record `{name}` is missing")]
    NoFact {
        /// The name of the fact.
        name: &'static str,
    },
    /// The file has no store id.
    #[error("the store's id is missing")]
    NoStoreId,
    /// The file has no lineage.
    #[error("the store's lineage is missing")]
    NoLineage,
    /// The next key is too low: a conversation has it already.
    #[error("the next conversation would get a key that is taken")]
    NextKey,
    /// The row cannot be read.
    #[error(transparent)]
    Record(#[from] DamagedRecord),
    /// The id of the conversation is not valid.
    #[error("its id is none")]
    Id,
    /// Two conversations have the same key.
    #[error("it has the key of {other}")]
    SharedKey {
        /// The other conversation.
        other: String,
    },
    /// The conversation has a key and no record.
    #[error("its record is missing")]
    NoRecord,
    /// The record of the key belongs to another conversation.
    #[error("the record of key {key} names {named}")]
    OtherRecord {
        /// The key.
        key: u64,
        /// The conversation that the record belongs to.
        named: ConversationId,
    },
    /// The number of sealed turns does not match the turns.
    #[error("its record says {recorded} sealed turns, there are {counted}")]
    SealedTurns {
        /// The number in the record.
        recorded: u64,
        /// The number of turns that are there.
        counted: u64,
    },
    /// The usage is not the sum over the turns.
    #[error("its record says other totals than its turns")]
    Totals,
    /// The moment of the latest sealing does not match the turns.
    #[error("the latest sealing in its record is not that of its turns")]
    LastSealing,
    /// The moment of the latest activity does not match the turns.
    #[error("the latest activity in its record is not that of its turns")]
    LastActivity,
    /// The record contradicts the first or the latest turn.
    #[error("its record says other things of its first or its latest turn than they do")]
    OtherTurns,
    /// The version is 0, which is for unknown conversations.
    #[error("its version is 0 though it was changed")]
    Version,
    /// A row of the table by activity has another moment than the conversation's latest activity, or belongs to no
    /// conversation.
    #[error("it has a place by activity that is not its own")]
    OtherPlace,
    /// The conversation has no row in the table by activity.
    #[error("it has no place by activity")]
    NoPlace,
    /// A turn or a position is missing, although a later one is there.
    #[error("it is missing; the next one is {next}")]
    Missing {
        /// The ordinal or position of the next one that is there.
        next: u64,
    },
    /// No conversation has the key of the turn.
    #[error("its conversation is unknown")]
    UnknownConversation,
    /// Ordinals begin at 1.
    #[error("0 is no ordinal")]
    ZeroOrdinal,
    /// The index leads from the id of this turn to another ordinal.
    #[error("the index has its id {turn_id} at {ordinal}")]
    IndexedElsewhere {
        /// The turn's id.
        turn_id: TurnId,
        /// The ordinal that the index has for it.
        ordinal: Ordinal,
    },
    /// The index does not have the id of the turn.
    #[error("the index does not have its id {turn_id}")]
    NotIndexed {
        /// The turn's id.
        turn_id: TurnId,
    },
    /// Two rows of the index name one turn.
    #[error("it names turn {ordinal}, which it names elsewhere")]
    NamedTwice {
        /// The turn.
        ordinal: u64,
    },
    /// A row of the index names a turn that does not exist.
    #[error("it names turn {ordinal}, which is not there")]
    NamedMissing {
        /// The turn.
        ordinal: u64,
    },
    /// Positions begin at 1.
    #[error("0 is no position")]
    ZeroPosition,
    /// A position names a turn that does not exist.
    #[error("it has turn {ordinal} of conversation {conversation}, which is not there")]
    PositionedMissing {
        /// The turn.
        ordinal: u64,
        /// The conversation of the turn.
        conversation: String,
    },
    /// The positions of a conversation's turns are not in the order of their ordinals.
    #[error("it has turn {ordinal} of conversation {conversation}, after turn {before}")]
    OutOfOrder {
        /// The turn.
        ordinal: u64,
        /// The conversation of the turn.
        conversation: String,
        /// The turn of the same conversation at the nearest position before.
        before: u64,
    },
    /// A turn is not in the order of all turns.
    #[error("it has no position")]
    NoPosition,
    /// The tables have a conversation and also the note that the conversation of its key was erased.
    #[error("it was erased, and is there")]
    ErasedAndThere,
    /// The tables have a turn and also the note that it was dropped because of its age.
    #[error("it was dropped, and is there")]
    DroppedAndThere,
    /// The rows of a key are to be removed, but there is no note that its conversation was erased.
    #[error("its rows are to be removed, and it was not erased")]
    NotErased,
    /// Sums of reports differ from the sums of the turns.
    #[error("they are not the sums of the turns")]
    NotTheSums,
    /// The row with the sums of some turns is missing.
    #[error("they are missing")]
    NotThere,
    /// Rows of the same turns have different sums: those of a longer level differ from those of a shorter one, or those
    /// of the conversations from those of the labels.
    #[error("they differ from row to row of the same turns")]
    SumsDiffer,
    /// The open turn is sealed already.
    #[error("it is sealed")]
    Sealed,
    /// The open turn stands under the id of another turn.
    #[error("it is {turn_id}")]
    OtherTurn {
        /// The id in its record.
        turn_id: TurnId,
    },
    /// A step of an open turn is missing.
    #[error("step {place}: it is missing")]
    MissingStep {
        /// The place of the step in its turn, from 0.
        place: u32,
    },
    /// Two steps of an open turn have one id.
    #[error("step {place}: an earlier one has its id {step_id}")]
    RepeatedStep {
        /// The place of the later step.
        place: u32,
        /// The id.
        step_id: StepId,
    },
    /// A step of an open turn cannot be read.
    #[error("step {place}: {damaged}")]
    DamagedStep {
        /// The place of the step.
        place: u32,
        /// What is wrong with its record.
        damaged: DamagedRecord,
    },
    /// The tables have a step beyond the number of steps that the open turn has.
    #[error("step {place}: there are {step_count} steps by the head of the turn")]
    SurplusStep {
        /// The place of the step.
        place: u32,
        /// The number of steps in the head of the turn.
        step_count: u32,
    },
    /// A step belongs to no open turn.
    #[error("step {place}: there is no head of the turn")]
    NoHead {
        /// The place of the step.
        place: u32,
    },
}
