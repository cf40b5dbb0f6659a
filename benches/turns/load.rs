//! Fills stores with many turns.

use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use turn_metrics::store::{Commit, CommitError, Version};
use turn_metrics::turn::SealedTurn;

use crate::store::{RETRY_AFTER, RunningStore};
use crate::work::{Random, conversation_id, sealed, shuffled};

/// The number of turns in each commit.
const TURNS_A_COMMIT: u64 = 10;
const AT_ONCE: usize = 512;

/// The number of stored turns in the rows about large stores. The goals are for 10 million.
pub(crate) fn turns_stored() -> u64 {
    let asked = std::env::var("TURN_METRICS_BENCH_TURNS").ok();
    asked.map_or(1_000_000, |turns| turns.parse().expect("TURN_METRICS_BENCH_TURNS is not a number of turns"))
}

/// Stores this many turns, spread evenly over the conversations. The number for each conversation must be a multiple of
/// ten. Returns the number of commits of each conversation.
pub(crate) fn load(directory: &Path, conversations: u64, turns: u64) -> u64 {
    load_as(directory, conversations, turns, |_, turn| turn)
}

/// The same, with each turn as `change` returns it.
pub(crate) fn load_as(
    directory: &Path,
    conversations: u64,
    turns: u64,
    change: impl Fn(u64, SealedTurn) -> SealedTurn,
) -> u64 {
    let commits = turns / conversations / TURNS_A_COMMIT;
    let mut random = Random(0);
    let order = shuffled(conversations, &mut random);
    actix::System::new().block_on(async {
        let store = RunningStore::start(directory);
        let mut next_turn = 0;
        for version in 0..commits {
            let of_each = order.iter().map(|conversation| {
                next_turn += TURNS_A_COMMIT;
                let turns = next_turn - TURNS_A_COMMIT..next_turn;
                let commit = Commit {
                    conversation_id: conversation_id(*conversation),
                    expected_version: Version(version),
                    staged: Vec::new(),
                    sealed: turns.map(|turn| change(turn, sealed(turn, &mut random))).collect(),
                    imported_from: None,
                };
                let commit = Arc::new(commit);
                let store = store.address.clone();
                async move {
                    while let Err(error) = store.send(Arc::clone(&commit)).await.unwrap() {
                        assert_eq!(error, CommitError::Overloaded);
                        actix_rt::time::sleep(RETRY_AFTER).await;
                    }
                }
            });
            stream::iter(of_each).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
        }
        store.close().await;
    });
    commits
}
