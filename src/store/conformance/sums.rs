//! Cases about the sums of erased turns: those that a store lists, and those that it takes in from another one.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::reports::stored;
use super::*;
use crate::report::{Breakdown, BreakdownRow, Contribution, Period, Quarter, RollupLabel};
use crate::store::oracle::{breakdown_of, question_of_1970};
use crate::store::{DropError, ErasedSums, ErasedSumsId, Lineage};

/// Returns all sums of erased turns, which come in pages of this limit.
async fn listed(store: &StoreUnderTest, limit: usize) -> Vec<ErasedSums> {
    let _hold = store.engine().begin_export().get().await.unwrap();
    let (mut sums, mut after) = (Vec::new(), None);
    loop {
        let page = store.engine().erased_sums(after, limit).get().await.unwrap();
        assert!(page.sums.len() <= limit);
        sums.extend(page.sums);
        after = page.next;
        if after.is_none() {
            return sums;
        }
    }
}

async fn take(store: &StoreUnderTest, sums: &[ErasedSums]) -> u64 {
    store.engine().take_erased_sums(sums.to_vec()).get().await.unwrap()
}

/// A question about the time of the turns of [`stored`], by quarters and all labels.
fn question() -> ReportQuestion {
    let (from, to) = (Quarter::of(EpochMillis::new(1_780_000_000_000)).get(), 800);
    let quarter = |nth| Period::new(Quarter::new(from + nth), Quarter::new(from + nth + 1)).unwrap();
    ReportQuestion { periods: (0..to).map(quarter).collect(), ..question_of_1970() }
}

async fn report(store: &StoreUnderTest) -> Breakdown {
    let report = store.report(question()).await.unwrap();
    assert!(!report.is_repricing);
    report.breakdown
}

/// Adds sums up to a report.
fn added(mut breakdown: Breakdown, sums: &[ErasedSums]) -> Breakdown {
    for sums in sums {
        let period = Period::new(sums.id.quarter, Quarter::new(sums.id.quarter.get() + 1)).unwrap();
        breakdown.add(period, &sums.label, &sums.sums.rollup);
        breakdown.add_cost(period, &sums.label, &sums.sums.cost);
    }
    breakdown
}

/// Seals these turns in a conversation that is not there yet, the earliest first.
async fn seal(store: &StoreUnderTest, name: &str, turns: &[StoredTurn]) {
    let sealed = turns.iter().cloned().map(|turn| SealedTurn {
        sealed_at: turn.sealed_at,
        ended_at: turn.ended_at,
        reason: turn.reason,
        model: turn.model,
        provider: turn.provider,
        project: turn.project,
        cache_write_1h_tokens: turn.cache_write_1h_tokens,
        step_details: turn.step_details,
        metrics: turn.metrics,
    });
    let mut sealed: Vec<_> = sealed.collect();
    sealed.sort_by_key(|turn| turn.sealed_at);
    store.commit(Commit { sealed, ..commit(name, 0, &[], &[]) }).await.unwrap();
}

/// Returns the sums of turns as another store would list them.
fn sums_of(turns: &[StoredTurn], lineage: u128) -> Vec<ErasedSums> {
    let mut rows: BTreeMap<(Quarter, RollupLabel), BreakdownRow> = BTreeMap::new();
    let mut labels: Vec<RollupLabel> = Vec::new();
    for turn in turns {
        let Contribution { quarter, parts, .. } = Contribution::of_turn(turn, &*test_prices());
        for (label, part) in parts {
            rows.entry((quarter, label)).or_default().add(&part);
        }
    }
    let sums = rows.into_iter().map(|((quarter, label), sums)| {
        let known = labels.iter().position(|known| *known == label);
        let number = known.unwrap_or_else(|| {
            labels.push(label.clone());
            labels.len() - 1
        });
        let id = ErasedSumsId { lineage: Lineage(Uuid::from_u128(lineage)), quarter, label: number as u64 };
        ErasedSums { id, label, sums }
    });
    sums.collect()
}

pub(crate) async fn stored_turns_and_listed_sums_add_up_to_the_reports(store: &StoreUnderTest) {
    let of = [1, 2, 3].map(|seed| stored(seed, 40));
    for (name, turns) in ["a", "b", "c"].into_iter().zip(&of) {
        seal(store, name, turns).await;
    }
    assert_eq!(listed(store, 99).await, []);
    let before = report(store).await;
    store.erase("b").await.unwrap();
    store.drop_turns(1_780_200_000_000).await;
    let sums = listed(store, 10_000).await;
    assert!(!sums.is_empty());
    let turns = [all(store, "a").await, all(store, "c").await].concat();
    assert!(turns.len() < 80, "turns were dropped");
    let listed_and_stored = added(breakdown_of(&turns, &question(), &*test_prices()), &sums);
    assert!(listed_and_stored == before);
    for limit in [1, 7, sums.len()] {
        assert!(listed(store, limit).await == sums, "at most {limit}");
    }
    let mut ids: Vec<_> = sums.iter().map(|sums| sums.id.to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), sums.len());
}

pub(crate) async fn sums_that_come_again_change_nothing(store: &StoreUnderTest) {
    seal(store, "a", &stored(1, 30)).await;
    let (own, erased) = (all(store, "a").await, stored(2, 30));
    let sums = sums_of(&erased, 7);
    let expected = breakdown_of(own.iter().chain(&erased), &question(), &*test_prices());
    assert_eq!(take(store, &sums).await, sums.len() as u64);
    for again in [&sums[..], &sums[..1], &[], &[&sums[..], &sums[..]].concat()] {
        assert!(report(store).await == expected);
        assert_eq!(take(store, again).await, 0);
    }
    assert!(report(store).await == expected);
    // Sums that were taken in are among those that are listed.
    let listed = listed(store, 10_000).await;
    assert!(added(breakdown_of(&own, &question(), &*test_prices()), &listed) == expected);
    assert_eq!(take(store, &listed).await, 0, "a store takes its own sums in");
    assert!(report(store).await == expected);
}

pub(crate) async fn sums_of_which_more_turns_were_erased_replace_the_earlier_ones(store: &StoreUnderTest) {
    let erased = stored(3, 60);
    let last = sums_of(&erased, 7);
    // The numbers of the labels must be the same each time.
    let number = |sums: &ErasedSums| {
        let of_last = last.iter().find(|last| (last.id.quarter, &last.label) == (sums.id.quarter, &sums.label));
        ErasedSums { id: of_last.unwrap().id, ..sums.clone() }
    };
    for count in [20, 40, 60] {
        let sums: Vec<_> = sums_of(&erased[..count], 7).iter().map(number).collect();
        assert!(take(store, &sums).await > 0);
        let expected = breakdown_of(&erased[..count], &question(), &*test_prices());
        assert!(report(store).await == expected, "{count} turns");
    }
}

pub(crate) async fn sums_of_different_stores_are_added_up(store: &StoreUnderTest) {
    let erased = stored(4, 20);
    for lineage in [1, 2, 3] {
        assert!(take(store, &sums_of(&erased, lineage)).await > 0);
    }
    let thrice = [1, 2, 3].into_iter().flat_map(|_| &erased);
    assert!(report(store).await == breakdown_of(thrice, &question(), &*test_prices()));
}

pub(crate) async fn nothing_is_dropped_while_an_export_is_sent(store: &StoreUnderTest) {
    let sealed = [10, 20, 40].map(|at| sealed(&at.to_string(), at)).into();
    store.commit(Commit { sealed, ..commit("c", 0, &[], &[]) }).await.unwrap();
    let question = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(30) };
    let exports =
        [store.engine().begin_export().get().await.unwrap(), store.engine().begin_export().get().await.unwrap()];
    for export in exports {
        assert_eq!(store.engine().drop_turns(question).get().await, Err(DropError::Exporting));
        drop(export);
    }
    assert_eq!(store.drop_turns(30).await, 2);
}

/// A store that takes in the turns and the sums of another one reports the same as that one.
pub(crate) async fn a_store_that_takes_turns_and_sums_of_another_reports_the_same(
    store: &StoreUnderTest,
    other: &StoreUnderTest,
) {
    for (name, seed) in [("a", 5), ("b", 6)] {
        seal(store, name, &stored(seed, 60)).await;
    }
    store.erase("a").await.unwrap();
    store.drop_turns(1_780_200_000_000).await;
    for sums in listed(store, 50).await.chunks(ErasedSums::AT_ONCE) {
        let lines: Vec<_> = sums.iter().map(|sums| sums.to_line().unwrap()).collect();
        let read: Vec<_> = lines.iter().map(|line| ErasedSums::read_line(line.as_bytes()).unwrap()).collect();
        assert!(read == sums);
        take(other, &read).await;
    }
    seal(other, "b", &all(store, "b").await).await;
    assert!(report(other).await == report(store).await);
}
