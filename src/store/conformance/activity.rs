//! Cases about lists of conversations, by latest activity and in other orders.

use super::reports::turns;
use super::*;
use crate::store::oracle::listing_of;

/// Returns each listed conversation with the moment of its latest activity and the number of its sealed turns.
fn told(page: &[ListedConversation]) -> Vec<(&str, u64, u64)> {
    page.iter().map(|listed| (listed.conversation_id.as_str(), listed.last_at.get(), listed.sealed_turns)).collect()
}

/// Seals a turn. Its kernel says that the turn ended at `ended_at`, or does not say when it ended.
async fn seal(store: &StoreUnderTest, name: &str, turn: &str, sealed_at: u64, ended_at: Option<u64>) {
    let version = state(store, name).await.version.0;
    let ended_at = ended_at.map(EpochMillis::new);
    let turn = SealedTurn { ended_at, ..sealed(turn, sealed_at) };
    store.commit(Commit { sealed: vec![turn], ..commit(name, version, &[], &[]) }).await.unwrap();
}

pub(crate) async fn conversations_come_by_their_latest_turn_and_then_by_id(store: &StoreUnderTest) {
    assert_eq!(store.conversations(None, 9).await, []);
    store.commit(commit("only open", 0, &["x"], &[])).await.unwrap();
    assert_eq!(store.conversations(None, 9).await, [], "a conversation without a sealed turn is listed");
    seal(store, "b", "x", 100, None).await;
    seal(store, "c", "x", 100, Some(300)).await;
    seal(store, "a", "x", 100, Some(100)).await;
    assert_eq!(told(&store.conversations(None, 9).await), [("c", 300, 1), ("a", 100, 1), ("b", 100, 1)]);
    seal(store, "b", "y", 400, Some(350)).await;
    seal(store, "c", "y", 900, Some(50)).await;
    let expected = [("b", 350, 2), ("a", 100, 1), ("c", 50, 2)];
    assert_eq!(
        told(&store.conversations(None, 9).await),
        expected,
        "the turn with the last ordinal must count, not the latest moment"
    );
    seal(store, "c", "z", 0, None).await;
    let expected = [("c", 900, 3), ("b", 350, 2), ("a", 100, 1)];
    assert_eq!(
        told(&store.conversations(None, 9).await),
        expected,
        "a moment of sealing that was raised must count as stored"
    );
    store.commit(commit("a", 1, &["open"], &["x"])).await.unwrap();
    assert_eq!(told(&store.conversations(None, 9).await), expected, "open turns or duplicates count as activity");
}

pub(crate) async fn pages_of_conversations_have_no_gap_and_no_overlap(store: &StoreUnderTest) {
    let mut expected = Vec::new();
    for nth in 0..12_u64 {
        let (name, at) = (format!("c{}", nth * 7 % 12), 100 + nth % 4);
        seal(store, &name, "x", at, None).await;
        expected.push((u64::MAX - at, name));
        // One of the tested stores moves everything into its tables before each read. This read makes it move each turn
        // by itself.
        store.conversations(None, 1).await;
    }
    expected.sort();
    for limit in 1..=13 {
        let mut found: Vec<ListedConversation> = Vec::new();
        loop {
            let page = store.conversations(found.last(), limit).await;
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

/// Reads a whole list in pages of one to three conversations.
async fn pages(store: &StoreUnderTest, question: &ConversationQuestion) -> Vec<ListedConversation> {
    let mut found: Vec<ListedConversation> = Vec::new();
    loop {
        let limit = 1 + found.len() % 3;
        let next = ConversationQuestion { limit, ..question.clone() };
        let page = store.list(found.last().map_or(next.clone(), |last| next.after(last))).await;
        assert!(page.len() <= limit);
        let is_last = page.len() < limit;
        found.extend(page);
        if is_last {
            return found;
        }
    }
}

/// Stores conversations with different numbers of turns, some of them with open turns. Returns what a list must say of
/// each.
async fn some(store: &StoreUnderTest) -> Vec<ListedConversation> {
    let mut expected = Vec::new();
    for (seed, count) in [(1, 5), (2, 1), (3, 30), (4, 5), (5, 2), (6, 12)] {
        let name = format!("c{}", seed * 5 % 7);
        for part in turns(seed, count).chunks(4) {
            let version = state(store, &name).await.version.0;
            let open = if part.len() < 4 { &["open", "another"][..] } else { &[] };
            store.commit(Commit { sealed: part.to_vec(), ..commit(&name, version, open, &[]) }).await.unwrap();
            // One of the tested stores moves everything into its tables before each read. This read makes it move each
            // commit by itself.
            store.conversations(None, 1).await;
        }
        let open_turns = state(store, &name).await.open_turns.len();
        expected.extend(listing_of(&conversation(&name), &all(store, &name).await, open_turns, &*test_prices()));
    }
    store.commit(commit("only open", 0, &["x"], &[])).await.unwrap();
    expected
}

const ORDERS: [ConversationOrder; 4] =
    [ConversationOrder::Recent, ConversationOrder::Tokens, ConversationOrder::Cost, ConversationOrder::Turns];

pub(crate) async fn conversations_are_listed_in_each_order_with_the_figures_of_their_whole_life(
    store: &StoreUnderTest,
) {
    let mut expected = some(store).await;
    for order in ORDERS {
        expected.sort_by_key(|listed| order.place(listed));
        assert_eq!(pages(store, &ConversationQuestion::first(order, 0)).await, expected, "by {order:?}");
        assert_eq!(store.list(ConversationQuestion::first(order, 99)).await, expected, "by {order:?}");
        assert_eq!(store.list(ConversationQuestion::first(order, 0)).await, []);
    }
}

pub(crate) async fn a_list_has_the_conversations_that_are_asked_for(store: &StoreUnderTest) {
    let expected = some(store).await;
    let mut moments: Vec<_> = expected.iter().map(|listed| listed.last_at).collect();
    moments.sort();
    for order in ORDERS {
        let all = ConversationQuestion::first(order, 99);
        for question in [
            ConversationQuestion { last_at: Some((moments[1], moments[4])), ..all.clone() },
            ConversationQuestion { last_at: Some((moments[4], moments[1])), ..all.clone() },
            ConversationQuestion { last_at: Some((EpochMillis::new(0), EpochMillis::new(u64::MAX))), ..all.clone() },
            ConversationQuestion { model: Some("m".into()), ..all.clone() },
            ConversationQuestion { prefix: "c3".to_owned(), ..all.clone() },
        ] {
            let mut expected: Vec<_> = expected.iter().filter(|listed| question.chooses(listed)).cloned().collect();
            expected.sort_by_key(|listed| order.place(listed));
            assert_eq!(pages(store, &question).await, expected, "{question:?}");
        }
    }
}
