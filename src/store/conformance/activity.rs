//! The conversations by their latest activity.

use super::*;

/// The conversations of a page, when they were active last, and the numbers of their turns.
fn told(page: &[ActiveConversation]) -> Vec<(&str, u64, u64)> {
    page.iter().map(|listed| (listed.conversation_id.as_str(), listed.last_at.get(), listed.sealed_turns)).collect()
}

/// Seals a turn that its kernel says has ended at a moment, or says nothing of it.
async fn seal(store: &StoreUnderTest, name: &str, turn: &str, sealed_at: u64, ended_at: Option<u64>) {
    let version = state(store, name).await.version.0;
    let ended_at = ended_at.map(EpochMillis::new);
    let turn = SealedTurn { ended_at, ..sealed(turn, sealed_at) };
    store.commit(Commit { sealed: vec![turn], ..commit(name, version, &[], &[]) }).await.unwrap();
}

pub(crate) async fn conversations_come_by_their_latest_turn_and_then_by_id(store: &StoreUnderTest) {
    assert_eq!(store.conversations(None, 9).await, []);
    store.commit(commit("only open", 0, &["x"], &[])).await.unwrap();
    assert_eq!(store.conversations(None, 9).await, [], "one without a sealed turn is not listed");
    seal(store, "b", "x", 100, None).await;
    seal(store, "c", "x", 100, Some(300)).await;
    seal(store, "a", "x", 100, Some(100)).await;
    assert_eq!(told(&store.conversations(None, 9).await), [("c", 300, 1), ("a", 100, 1), ("b", 100, 1)]);
    seal(store, "b", "y", 400, Some(350)).await;
    seal(store, "c", "y", 900, Some(50)).await;
    let expected = [("b", 350, 2), ("a", 100, 1), ("c", 50, 2)];
    assert_eq!(told(&store.conversations(None, 9).await), expected, "the last ordinal counts, not the latest moment");
    seal(store, "c", "z", 0, None).await;
    let expected = [("c", 900, 3), ("b", 350, 2), ("a", 100, 1)];
    assert_eq!(
        told(&store.conversations(None, 9).await),
        expected,
        "a raised moment of sealing counts as it is stored"
    );
    store.commit(commit("a", 1, &["open"], &["x"])).await.unwrap();
    assert_eq!(told(&store.conversations(None, 9).await), expected, "open turns and duplicates are no activity");
}

pub(crate) async fn pages_of_conversations_meet_without_a_gap_or_a_double(store: &StoreUnderTest) {
    let mut expected = Vec::new();
    for nth in 0..12_u64 {
        let (name, at) = (format!("c{}", nth * 7 % 12), 100 + nth % 4);
        seal(store, &name, "x", at, None).await;
        expected.push((u64::MAX - at, name));
        // What was read before stays in the tables, and this comes into the memtable.
        store.conversations(None, 1).await;
    }
    expected.sort();
    for limit in 1..=13 {
        let mut found: Vec<ActiveConversation> = Vec::new();
        loop {
            let after = found.last().map(ActiveConversation::place);
            let page = store.conversations(after.as_ref(), limit).await;
            assert!(page.len() <= limit);
            let is_last = page.len() < limit;
            found.extend(page);
            if is_last {
                break;
            }
        }
        let places: Vec<_> = told(&found).into_iter().map(|(name, at, _)| (u64::MAX - at, name.to_owned())).collect();
        assert_eq!(places, expected, "in pages of {limit}");
    }
}
