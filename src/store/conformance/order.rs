//! Cases about the order of all turns.

use super::*;

/// Returns the position, the conversation and the id of each turn of a page.
pub(super) fn told(page: &SealedPage) -> Vec<(u64, &str, &str)> {
    let told = page.turns.iter().map(|sealed| {
        assert_eq!(sealed.position.lineage, page.latest.lineage);
        (sealed.position.number, sealed.conversation_id.as_str(), sealed.turn.metrics.turn_id.as_str())
    });
    told.collect()
}

async fn seal_some(store: &StoreUnderTest) {
    store.commit(commit("b", 0, &[], &["x", "y"])).await.unwrap();
    store.commit(commit("a", 0, &["open"], &["x"])).await.unwrap();
    store.commit(commit("c", 0, &[], &["x"])).await.unwrap();
    store.commit(commit("b", 1, &[], &["z"])).await.unwrap();
    store.commit(commit("a", 1, &[], &["open"])).await.unwrap();
}

const SOME: [(u64, &str, &str); 6] =
    [(1, "b", "x"), (2, "b", "y"), (3, "a", "x"), (4, "c", "x"), (5, "b", "z"), (6, "a", "open")];

pub(crate) async fn positions_are_dense_and_follow_the_order_of_commits(store: &StoreUnderTest) {
    let empty = store.sealed(None, 10).await.unwrap();
    assert_eq!((empty.turns.len(), empty.next.number, empty.latest.number), (0, 0, 0));
    seal_some(store).await;
    let page = store.sealed(None, usize::MAX).await.unwrap();
    assert_eq!(told(&page), SOME);
    assert_eq!((page.next, page.latest.number), (page.latest, 6));
    for sealed in &page.turns {
        let of_it = all(store, sealed.conversation_id.as_str()).await;
        assert!(of_it.contains(&sealed.turn), "the turn differs from that in its conversation");
    }
    assert_eq!(
        store.sealed(Some(empty.next), 99).await,
        Ok(page),
        "the position of an empty page must lead to the first turn"
    );
}

pub(crate) async fn only_a_newly_sealed_turn_takes_a_position(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &["x", "y"], &[])).await.unwrap();
    store.commit(commit("c", 1, &[], &["x"])).await.unwrap();
    store.commit(commit("c", 2, &["x", "y"], &["x"])).await.unwrap();
    store.commit(commit("c", 0, &[], &["refused"])).await.unwrap_err();
    store.commit(commit("d", 0, &[], &["y", "y", "x"])).await.unwrap();
    let page = store.sealed(None, 9).await.unwrap();
    assert_eq!(told(&page), [(1, "c", "x"), (2, "d", "y"), (3, "d", "x")]);
}

pub(crate) async fn pages_of_the_order_have_no_gap_and_no_overlap(store: &StoreUnderTest) {
    seal_some(store).await;
    for limit in 1..=7 {
        let (mut after, mut pages) = (None, Vec::new());
        loop {
            let page = store.sealed(after, limit).await.unwrap();
            assert!(page.turns.len() <= limit && page.latest.number == 6);
            after = Some(page.next);
            let is_last = page.next == page.latest;
            pages.push(page);
            if is_last {
                break;
            }
        }
        assert_eq!(pages.iter().flat_map(told).collect::<Vec<_>>(), SOME, "in pages of {limit}");
    }
    let latest = store.sealed(None, 0).await.unwrap();
    assert_eq!((latest.turns.len(), latest.next.number, latest.latest.number), (0, 0, 6));
    let end = store.sealed(Some(latest.latest), 9).await.unwrap();
    assert_eq!((end.turns.len(), end.next), (0, latest.latest));
    let many: Vec<_> = (0..=SealedPage::MAX_POSITIONS).map(|nth| format!("t{nth}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    store.commit(commit("many", 0, &[], &many)).await.unwrap();
    let page = store.sealed(Some(latest.latest), usize::MAX).await.unwrap();
    assert_eq!(page.turns.len(), SealedPage::MAX_POSITIONS);
    assert_eq!(page.next.number + 1, page.latest.number);
}

pub(crate) async fn a_position_that_was_never_given_is_refused(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &[], &["x"])).await.unwrap();
    let latest = store.sealed(None, 0).await.unwrap().latest;
    for number in [2, u64::MAX] {
        let never = Position { number, ..latest };
        assert_eq!(store.sealed(Some(never), 9).await, Err(ListSealedError::OtherLineage(never)));
    }
}

pub(crate) async fn a_position_of_another_store_is_refused(store: &StoreUnderTest, other: &StoreUnderTest) {
    for store in [store, other] {
        store.commit(commit("c", 0, &[], &["x"])).await.unwrap();
    }
    let foreign = other.sealed(None, 9).await.unwrap().turns[0].position;
    assert_eq!(store.sealed(Some(foreign), 9).await, Err(ListSealedError::OtherLineage(foreign)));
    assert!(other.sealed(Some(foreign), 9).await.is_ok());
}
