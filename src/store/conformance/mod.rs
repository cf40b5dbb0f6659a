//! The conformance suite: the promises of every store, with one case for each promise.
//!
//! The cases use the contract of a store only. No case depends on an engine: none uses a file, a restart or a queue.
//! [`conformance!`] makes a test of each case for one store, so that a failure names the case and the store.
//!
//! - `commits`: ordinals, duplicates, versions, conflicts, staging.
//! - `activity`: lists of conversations.
//! - `reads`: states, ranges, revisions, stale turns.
//! - `reports`: sums over turns.
//! - `lifecycle`: the running time, and the end of a store.
//! - `order`: the order of all turns.
//! - `erasure`: erased conversations.
//! - `import`: turns that come from another store.
//! - `retention`: turns that are dropped because of their age.
//! - `sums`: the sums of erased turns that one store hands to another.
//! - `concurrency`: commits that are under way together.

pub(crate) mod activity;
pub(crate) mod commits;
pub(crate) mod concurrency;
pub(crate) mod erasure;
pub(crate) mod import;
pub(crate) mod lifecycle;
pub(crate) mod order;
pub(crate) mod reads;
pub(crate) mod reports;
pub(crate) mod retention;
pub(crate) mod sums;

use std::sync::Arc;
use std::time::Duration;

use super::oracle::change;
use super::{
    Commit, CommitError, CommitSeries, Committed, CommittedSeries, ConversationOrder, ConversationQuestion,
    ConversationState, DropTurns, Engine, ListSealedError, ListedConversation, OpenTurns, Position, PositionedTurn,
    RangeEnd, Report, ReportError, ReportQuestion, Revision, SealedPage, StagedChange, StagedTurn, StaleBefore,
    StaleTurn, TurnOutcome, TurnRange, Version,
};
use crate::report::{PicoDollars, PriceBook, PricedStep, SharedPriceBook};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenTurn, Ordinal, Progress, RunningTime, SealedTurn, StepId, StoredTurn,
    TurnId, TurnLabels, Usage,
};

/// The prices of the stores under test: a token of the model `m` costs seven pico-dollars, a token of the model `dear`
/// a million, and other models have no price.
pub(crate) fn test_prices() -> SharedPriceBook {
    Arc::new(TestPrices { dear: 1_000_000 })
}

/// Prices for tests. A test can set the price of the model `dear`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TestPrices {
    /// The price of a token of the model `dear` in pico-dollars.
    pub(crate) dear: i128,
}

impl PriceBook for TestPrices {
    fn price(&self, step: &PricedStep<'_>) -> Option<PicoDollars> {
        let price = match step.model {
            "m" => 7,
            "dear" => self.dear,
            _ => return None,
        };
        Some(PicoDollars::new(price * i128::from(step.prompt_tokens + step.output_tokens)))
    }

    fn digest(&self) -> u64 {
        u64::try_from(self.dear).unwrap()
    }
}

/// The store that a case tests. A clone is the same store. If a read fails, the method panics, and so the case fails.
#[derive(Clone)]
pub(crate) struct StoreUnderTest(Arc<dyn Engine>);

impl StoreUnderTest {
    pub(crate) fn new(engine: impl Engine) -> Self {
        Self(Arc::new(engine))
    }

    fn engine(&self) -> &dyn Engine {
        &*self.0
    }

    fn commit(&self, commit: Commit) -> impl Future<Output = Result<Committed, CommitError>> + use<> {
        self.0.commit(Arc::new(commit)).get()
    }

    fn commit_series(&self, commits: Vec<Commit>) -> impl Future<Output = CommittedSeries> + use<> {
        self.0.commit_series(Arc::new(CommitSeries { commits })).get()
    }

    /// Erases a conversation. Returns whether there was anything to erase.
    fn erase(&self, name: &str) -> impl Future<Output = Result<bool, CommitError>> + use<> {
        self.0.erase(conversation(name)).get()
    }

    /// Drops the turns that were sealed before a moment. Returns how many were dropped.
    async fn drop_turns(&self, before: u64) -> u64 {
        let question = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(before) };
        let mut dropped = 0;
        for _ in 0..1000 {
            let step = self.0.drop_turns(question).get().await.unwrap();
            dropped += step.turns;
            if step.is_done {
                return dropped;
            }
        }
        panic!("dropping does not end");
    }

    /// Returns the state of a conversation, and which of these turns are sealed.
    async fn open(&self, id: &ConversationId, turn_ids: &[TurnId]) -> ConversationState {
        self.0.open(id.clone(), turn_ids.to_vec()).get().await.unwrap()
    }

    /// Returns sealed turns of a conversation, in the order of their ordinals.
    async fn turns(&self, range: &TurnRange) -> Vec<StoredTurn> {
        self.0.turns(range.clone()).get().await.unwrap()
    }

    /// Returns the open turns of a conversation.
    async fn open_turns(&self, id: &ConversationId) -> OpenTurns {
        self.0.open_turns(id.clone()).get().await.unwrap()
    }

    /// Returns a page of the stale turns. The store chooses the order.
    async fn stale_turns(&self, before: StaleBefore, after: Option<&StaleTurn>, limit: usize) -> Vec<StaleTurn> {
        self.0.stale_turns(before, after.cloned(), limit).get().await.unwrap()
    }

    /// Returns sealed turns of all conversations, in the order in which they became durable.
    async fn sealed(&self, after: Option<Position>, limit: usize) -> Result<SealedPage, ListSealedError> {
        self.0.sealed_turns(after, limit).get().await
    }

    /// Returns conversations that have a sealed turn.
    async fn list(&self, question: ConversationQuestion) -> Vec<ListedConversation> {
        self.0.conversations(question).get().await.unwrap()
    }

    /// Returns conversations that have a sealed turn, the one with the latest activity first.
    async fn conversations(&self, after: Option<&ListedConversation>, limit: usize) -> Vec<ListedConversation> {
        let first = ConversationQuestion::first(ConversationOrder::Recent, limit);
        self.list(after.map_or(first.clone(), |after| first.after(after))).await
    }

    /// Returns sums over turns.
    async fn report(&self, question: ReportQuestion) -> Result<Report, ReportError> {
        self.0.report(question).get().await
    }

    /// Returns the revision of a conversation's sealed turns.
    async fn revision(&self, id: &ConversationId) -> Revision {
        self.0.revision(id.clone()).get().await.unwrap()
    }
}

/// Makes a test of each case. `$open` is the path of an `async fn` without arguments that returns a new, empty store,
/// and a value that has to live as long as the store.
macro_rules! conformance {
    ($open:path) => {
        $crate::store::conformance::conformance! { $open,
            commits {
                ordinals_have_no_gap_and_follow_the_order_given
                each_conversation_has_ordinals_of_its_own
                a_turn_that_is_sealed_again_is_a_duplicate_and_stays_as_it_was
                a_turn_sealed_twice_in_one_commit_is_sealed_once
                a_turn_staged_and_sealed_in_one_commit_is_sealed
                a_turn_staged_twice_in_one_commit_stays_as_staged_last
                a_staged_turn_replaces_its_earlier_state
                a_step_is_staged_alone_and_the_others_stay
                a_change_that_is_staged_again_is_harmless
                steps_staged_in_any_number_of_commits_make_the_whole_turn
                a_turn_that_begins_anew_has_none_of_its_earlier_steps
                a_sealed_turn_leaves_no_staged_step
                a_turn_is_open_until_it_is_sealed
                a_late_turn_opens_nothing_and_holds_up_no_other
                the_version_rises_with_each_change_and_only_then
                a_commit_from_another_version_is_a_conflict
                a_refused_commit_changes_nothing
                the_moment_of_sealing_never_falls
            }
            reads {
                an_unknown_conversation_is_empty
                a_sealed_turn_is_given_out_with_all_it_has
                an_open_turn_is_given_out_with_all_it_has
                ids_that_resemble_each_other_are_told_apart
                opening_tells_which_of_some_turns_are_sealed
                a_range_begins_after_an_ordinal_and_ends_at_its_limit
                a_range_ends_before_an_ordinal_and_may_begin_at_its_end
                the_open_turns_come_by_id_with_the_number_of_sealed_ones
                a_revision_changes_with_the_sealed_turns_alone
                a_turn_is_stale_if_its_latest_event_came_before
                a_failed_turn_is_stale_by_a_moment_of_its_own
                stale_turns_come_page_by_page_each_once
                pages_go_on_after_turns_that_were_sealed_meanwhile
            }
            lifecycle {
                the_running_time_is_the_sum_of_its_ticks
                a_store_that_works_shows_that_it_can_write
                closing_writes_what_waits_and_then_nothing_is_answered
                a_close_whose_answer_is_dropped_takes_effect
            }
            order {
                positions_are_dense_and_follow_the_order_of_commits
                only_a_newly_sealed_turn_takes_a_position
                pages_of_the_order_have_no_gap_and_no_overlap
                a_position_that_was_never_given_is_refused
            }
            erasure {
                an_erased_conversation_is_in_no_read
                only_a_conversation_that_is_there_can_be_erased
                a_conversation_that_was_erased_begins_anew
                erased_turns_keep_their_positions_and_no_reader_sees_them
                reports_and_sums_keep_what_erased_turns_have_added
                a_commit_from_before_an_erasure_is_a_conflict
                erasures_and_commits_take_effect_in_the_order_sent
            }
            import {
                imported_turns_keep_their_ordinals_and_moments
                a_conversation_that_begins_with_a_later_ordinal_has_only_its_turns
                imported_turns_are_appended_to_a_conversation_that_has_turns
                importing_again_changes_nothing
                an_import_ends_the_open_turns_that_it_has_and_no_others
                turns_that_follow_an_import_are_not_sealed_before_its_latest_turn
                imported_turns_are_dropped_and_erased_like_others
                imported_turns_alone_fit_any_version
                a_series_takes_positions_in_its_order
                a_series_ends_at_the_first_refusal
            }
            retention {
                old_turns_are_dropped_and_their_ordinals_are_not_given_again
                dropped_turns_keep_their_positions_and_no_reader_sees_them
                a_dropped_turn_can_be_sealed_again_and_a_stored_one_is_a_duplicate
                reports_and_lists_keep_what_dropped_turns_have_added
                a_conversation_without_a_turn_left_is_not_listed_before_its_next_turn
                a_conversation_with_dropped_turns_is_erased_and_begins_anew
                all_old_turns_of_a_long_conversation_are_dropped
            }
            sums {
                stored_turns_and_listed_sums_add_up_to_the_reports
                sums_that_come_again_change_nothing
                sums_of_which_more_turns_were_erased_replace_the_earlier_ones
                sums_of_different_stores_are_added_up
                nothing_is_dropped_while_an_export_is_sent
            }
            activity {
                conversations_come_by_their_latest_turn_and_then_by_id
                pages_of_conversations_have_no_gap_and_no_overlap
                conversations_are_listed_in_each_order_with_the_figures_of_their_whole_life
                a_list_has_the_conversations_that_are_asked_for
            }
            reports {
                a_report_is_the_sum_of_all_turns_of_its_periods
                a_turn_is_in_the_next_report_once
                a_report_counts_the_selected_labels
                a_report_with_too_many_rows_is_refused
            }
            concurrency {
                commits_of_one_conversation_take_effect_in_the_order_sent
                the_first_of_several_commits_from_one_version_wins
                a_commit_whose_answer_is_dropped_takes_effect
                conversations_that_commit_at_the_same_time_do_not_affect_each_other
                a_reader_of_the_order_misses_nothing_and_sees_nothing_twice
            }
        }

        #[tokio::test]
        async fn revisions_of_two_stores_differ() {
            let (store, other) = ($open().await, $open().await);
            $crate::store::conformance::reads::revisions_of_two_stores_differ(&store.0, &other.0).await;
        }

        #[tokio::test]
        async fn a_store_that_takes_turns_and_sums_of_another_reports_the_same() {
            use $crate::store::conformance::sums;
            let (store, other) = ($open().await, $open().await);
            sums::a_store_that_takes_turns_and_sums_of_another_reports_the_same(&store.0, &other.0).await;
        }

        #[tokio::test]
        async fn a_position_of_another_store_is_refused() {
            let (store, other) = ($open().await, $open().await);
            $crate::store::conformance::order::a_position_of_another_store_is_refused(&store.0, &other.0).await;
        }
    };
    ($open:path, $($file:ident { $($case:ident)* })*) => { $($(
        #[tokio::test]
        async fn $case() {
            let store = $open().await;
            $crate::store::conformance::$file::$case(&store.0).await;
        }
    )*)* };
}
pub(crate) use conformance;

fn conversation(name: &str) -> ConversationId {
    ConversationId::new(name).unwrap()
}

fn turn_id(name: &str) -> TurnId {
    TurnId::new(name).unwrap()
}

fn open_turn(name: &str) -> OpenTurn {
    let mut turn = OpenTurn::new(turn_id(name));
    turn.fold(&Progress::Start(TurnLabels::of_model("m")));
    turn
}

/// An open turn whose latest event came at this running time.
fn staged(name: &str, at: u64) -> StagedTurn {
    StagedTurn { turn: open_turn(name), last_event_at: RunningTime::new(at) }
}

/// An open turn like that of [`staged`], with this many steps.
fn staged_with_steps(name: &str, at: u64, steps: u32) -> StagedTurn {
    let mut staged = staged(name, at);
    (0..steps).for_each(|step| staged.turn.fold(&report(name, step, step)));
    staged
}

/// An event that reports the usage of a step.
fn report(turn: &str, step: u32, tokens: u32) -> Progress {
    let step_id = Some(StepId::new(format!("{turn}#{step}")).unwrap());
    let usage = Usage { input_tokens: tokens.into(), ..Usage::default() };
    Progress::Usage { step_id, report: usage.into(), is_final: false }
}

/// A turn that is sealed at this moment.
fn sealed(name: &str, at: u64) -> SealedTurn {
    open_turn(name).seal(&Done { duration: Some(9.into()), ..Done::because("stop") }, EpochMillis::new(at))
}

/// A commit that stages the turns `open` and seals the turns `ended`, at fixed times.
fn commit(name: &str, version: u64, open: &[&str], ended: &[&str]) -> Commit {
    Commit {
        conversation_id: conversation(name),
        expected_version: Version(version),
        staged: open.iter().map(|turn| staged(turn, 5).into()).collect(),
        sealed: ended.iter().map(|turn| sealed(turn, 7)).collect(),
        imported_from: None,
    }
}

fn at(ordinal: u64) -> Ordinal {
    Ordinal::new(ordinal).unwrap()
}

fn outcomes(committed: &Committed) -> Vec<(&str, TurnOutcome)> {
    committed.outcomes.iter().map(|(id, outcome)| (id.as_str(), *outcome)).collect()
}

/// All sealed turns of a conversation.
async fn all(store: &StoreUnderTest, name: &str) -> Vec<StoredTurn> {
    let (mut turns, mut after) = (Vec::<StoredTurn>::new(), 0);
    loop {
        let range = TurnRange::after(conversation(name), after, usize::MAX);
        // A list may have fewer turns than are left. Only an empty list means the end.
        let list = store.turns(&range).await;
        let Some(latest) = list.last() else { return turns };
        after = latest.ordinal.get();
        turns.extend(list);
    }
}

/// The ordinals and ids of all sealed turns of a conversation.
async fn places(store: &StoreUnderTest, name: &str) -> Vec<(u64, String)> {
    let turns = all(store, name).await;
    turns.iter().map(|turn| (turn.ordinal.get(), turn.metrics.turn_id.to_string())).collect()
}

/// What [`places`] returns if exactly these turns are sealed, in this order.
fn in_order(names: &[&str]) -> Vec<(u64, String)> {
    (1..).zip(names.iter().map(ToString::to_string)).collect()
}

/// The state of a conversation, with its open turns by id.
async fn state(store: &StoreUnderTest, name: &str) -> ConversationState {
    let mut state = store.open(&conversation(name), &[]).await;
    state.open_turns.sort_by(|a, b| a.turn.id.cmp(&b.turn.id));
    state
}

/// Returns the open turns whose latest event came before this running time, each with its conversation, in order.
async fn stale(store: &StoreUnderTest, before: impl Into<StaleBefore>) -> Vec<(String, String)> {
    named(&store.stale_turns(before.into(), None, usize::MAX).await)
}

fn named(stale: &[StaleTurn]) -> Vec<(String, String)> {
    let mut named: Vec<_> =
        stale.iter().map(|turn| (turn.conversation_id.to_string(), turn.turn_id.to_string())).collect();
    named.sort();
    named
}
