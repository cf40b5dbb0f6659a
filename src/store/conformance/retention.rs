//! Cases about turns that are dropped because of their age.

use super::order::told;
use super::*;
use crate::store::oracle::question_of_1970;

/// A commit that seals a turn at each of these moments. The names of the turns are the moments.
fn sealing(name: &str, version: u64, moments: &[u64]) -> Commit {
    let sealed = moments.iter().map(|at| sealed(&at.to_string(), *at)).collect();
    Commit { sealed, ..commit(name, version, &[], &[]) }
}

/// Seals turns of the conversations `c`, `d` and `e`.
async fn fill(store: &StoreUnderTest) {
    store.commit(sealing("c", 0, &[10, 20])).await.unwrap();
    store.commit(sealing("d", 0, &[30])).await.unwrap();
    store.commit(sealing("c", 1, &[40, 50])).await.unwrap();
    store.commit(sealing("e", 0, &[60])).await.unwrap();
}

/// Returns the ordinals and ids of the turns of `c` from an ordinal on, as they were filled in.
fn from(ordinal: usize) -> Vec<(u64, String)> {
    in_order(&["10", "20", "40", "50"]).split_off(ordinal - 1)
}

pub(crate) async fn old_turns_are_dropped_and_their_ordinals_are_not_given_again(store: &StoreUnderTest) {
    fill(store).await;
    assert_eq!(store.drop_turns(10).await, 0, "a turn of exactly this age stays");
    let before = store.revision(&conversation("c")).await;
    assert_eq!(store.drop_turns(31).await, 3);
    assert_eq!(store.drop_turns(31).await, 0);
    assert_eq!(places(store, "c").await, from(3));
    assert_eq!(places(store, "d").await, []);
    assert_eq!(store.turns(&TurnRange::latest(conversation("c"), 9)).await, all(store, "c").await);
    let after = store.revision(&conversation("c")).await;
    assert_eq!((after.sealed_turns, after.dropped_turns), (4, 2));
    assert!(!after.is_of_the_same_life(&before) && after.to_string() != before.to_string());
    assert_eq!(store.revision(&conversation("e")).await.dropped_turns, 0);
    let committed = store.commit(sealing("c", 2, &[70])).await.unwrap();
    assert_eq!(outcomes(&committed), [("70", TurnOutcome::Sealed(at(5)))]);
    assert_eq!(store.drop_turns(55).await, 2);
    assert_eq!(places(store, "c").await, [(5, "70".to_owned())]);
}

pub(crate) async fn dropped_turns_keep_their_positions_and_no_reader_sees_them(store: &StoreUnderTest) {
    fill(store).await;
    store.drop_turns(45).await;
    let page = store.sealed(None, 99).await.unwrap();
    assert_eq!(told(&page), [(5, "c", "50"), (6, "e", "60")]);
    assert_eq!((page.next.number, page.latest.number), (6, 6));
    store.commit(sealing("d", 1, &[70])).await.unwrap();
    let page = store.sealed(Some(page.next), 99).await.unwrap();
    assert_eq!(told(&page), [(7, "d", "70")]);
}

pub(crate) async fn a_dropped_turn_can_be_sealed_again_and_a_stored_one_is_a_duplicate(store: &StoreUnderTest) {
    fill(store).await;
    store.drop_turns(25).await;
    let again = Commit { sealed: vec![sealed("10", 80), sealed("40", 80)], ..commit("c", 2, &[], &[]) };
    let committed = store.commit(again).await.unwrap();
    assert_eq!(outcomes(&committed), [("10", TurnOutcome::Sealed(at(5))), ("40", TurnOutcome::Duplicate(at(3)))]);
    let seen = store.open(&conversation("c"), &["10", "20", "40"].map(turn_id)).await.sealed_turns;
    assert_eq!(seen, [(turn_id("10"), at(5)), (turn_id("40"), at(3))]);
}

pub(crate) async fn reports_and_lists_keep_what_dropped_turns_have_added(store: &StoreUnderTest) {
    let with_tokens = |moment: u64| {
        let mut turn = open_turn(&moment.to_string());
        turn.fold(&report("t", 0, u32::try_from(moment).unwrap()));
        turn.seal(&Done::because("stop"), EpochMillis::new(moment))
    };
    let sealed = [10, 20, 40].map(with_tokens).into();
    store.commit(Commit { sealed, ..commit("c", 0, &["open"], &[]) }).await.unwrap();
    let listed = store.conversations(None, 9).await;
    let report = store.report(question_of_1970()).await;
    for before in [15, 25] {
        assert_eq!(store.drop_turns(before).await, 1);
        assert_eq!(store.report(question_of_1970()).await, report, "before {before}");
        for order in [ConversationOrder::Recent, ConversationOrder::Tokens, ConversationOrder::Cost] {
            assert_eq!(store.list(ConversationQuestion::first(order, 9)).await, listed, "{order:?} before {before}");
        }
    }
    assert_eq!(store.drop_turns(45).await, 1);
    assert_eq!(store.report(question_of_1970()).await, report);
}

pub(crate) async fn a_conversation_without_a_turn_left_is_not_listed_before_its_next_turn(store: &StoreUnderTest) {
    fill(store).await;
    store.commit(commit("c", 2, &["open"], &[])).await.unwrap();
    store.drop_turns(55).await;
    store.commit(commit("c", 3, &["other"], &[])).await.unwrap();
    for order in [ConversationOrder::Recent, ConversationOrder::Turns, ConversationOrder::Cost] {
        let listed = store.list(ConversationQuestion::first(order, 99)).await;
        let names: Vec<_> = listed.iter().map(|listed| listed.conversation_id.as_str()).collect();
        assert_eq!(names, ["e"], "{order:?}");
    }
    let state = state(store, "c").await;
    assert_eq!((state.version, state.open_turns.len()), (Version(4), 2), "open turns stay");
    // The turn has the report time of the last one that was dropped.
    let committed =
        store.commit(Commit { sealed: vec![sealed("next", 50)], ..commit("c", 4, &[], &[]) }).await.unwrap();
    assert_eq!(outcomes(&committed), [("next", TurnOutcome::Sealed(at(5)))]);
    for order in [ConversationOrder::Recent, ConversationOrder::Turns] {
        let listed = store.list(ConversationQuestion::first(order, 99)).await;
        let of = listed.iter().find(|listed| listed.conversation_id == conversation("c")).unwrap();
        assert_eq!((of.sealed_turns, of.first_at, of.open_turns), (5, EpochMillis::new(10), 2), "{order:?}");
    }
}

pub(crate) async fn a_conversation_with_dropped_turns_is_erased_and_begins_anew(store: &StoreUnderTest) {
    fill(store).await;
    let report = store.report(question_of_1970()).await;
    store.drop_turns(25).await;
    assert_eq!(store.erase("c").await, Ok(true));
    assert_eq!(places(store, "c").await, []);
    assert_eq!(store.report(question_of_1970()).await, report);
    let committed = store.commit(sealing("c", 0, &[10])).await.unwrap();
    assert_eq!(outcomes(&committed), [("10", TurnOutcome::Sealed(at(1)))]);
    let revision = store.revision(&conversation("c")).await;
    assert_eq!((revision.sealed_turns, revision.dropped_turns), (1, 0));
    assert_eq!(places(store, "c").await, [(1, "10".to_owned())]);
    assert_eq!(told(&store.sealed(None, 99).await.unwrap()), [(3, "d", "30"), (6, "e", "60"), (7, "c", "10")]);
}

pub(crate) async fn all_old_turns_of_a_long_conversation_are_dropped(store: &StoreUnderTest) {
    let moments: Vec<_> = (1..=700).collect();
    for (version, moments) in (0..).zip(moments.chunks(100)) {
        store.commit(sealing("c", version, moments)).await.unwrap();
    }
    store.commit(sealing("d", 0, &[10, 800])).await.unwrap();
    assert_eq!(store.drop_turns(651).await, 651);
    let left: Vec<_> = all(store, "c").await.iter().map(|turn| turn.ordinal.get()).collect();
    assert_eq!(left, (651..=700).collect::<Vec<_>>());
    assert_eq!(places(store, "d").await, [(2, "800".to_owned())]);
    let mut seen = 0;
    let mut after = None;
    loop {
        let page = store.sealed(after, 99).await.unwrap();
        seen += page.turns.len();
        if page.next == page.latest {
            break;
        }
        after = Some(page.next);
    }
    assert_eq!(seen, 51);
}
