use super::world::World;
use crate::simulate::random::Random;
use crate::store::redb::maintenance::check::{check, repair};

const PAGE_BYTES: usize = 4096;

/// Returns where the pages of a type begin.
fn pages(image: &[u8], page_type: u8) -> Vec<usize> {
    let is_page = |at: &usize| image[*at] == page_type && image[at + 2..at + 4] != [0, 0];
    (PAGE_BYTES..image.len()).step_by(PAGE_BYTES).filter(is_page).collect()
}

/// Overwrites all branches of a file.
pub(super) fn overwrite_branches(image: &mut [u8], random: &mut Random) {
    let branches = pages(image, 2);
    assert!(!branches.is_empty());
    for at in branches {
        for byte in &mut image[at..at + PAGE_BYTES] {
            *byte = u8::try_from(random.below(256)).unwrap();
        }
    }
}

fn flip_in_leaves(image: &mut [u8], leaves: usize, flips: usize, random: &mut Random) {
    let all = pages(image, 1);
    assert!(all.len() > leaves, "{}", all.len());
    for _ in 0..leaves {
        let at = all[random.below(all.len())];
        for _ in 0..flips {
            image[at + random.below(PAGE_BYTES)] ^= 1 << random.below(8);
        }
    }
}

#[tokio::test]
async fn all_branches_overwritten_and_many_leaves_flipped_costs_only_what_is_named() {
    for (name, world) in [("closed", World::closed().await), ("killed", World::killed().await)] {
        for (seed, branches, leaves, flips) in [(1, true, 0, 0), (2, true, 12, 1), (3, false, 40, 3), (4, true, 30, 40)]
        {
            let mut random = Random::new(seed);
            let mut main = world.main.clone();
            if branches {
                overwrite_branches(&mut main, &mut random);
            }
            flip_in_leaves(&mut main, leaves, flips, &mut random);
            let directory = World::place(&main, world.journal.as_deref());
            let damage = format!("{name}: branches {branches}, {flips} flips in each of {leaves} leaves");
            let repaired = world.repair(directory.path(), &damage).await;
            assert!(!repaired.was_clean);
            let all = world.sealed_turns();
            println!(
                "{damage}: {} of {all} sealed turns and {} open turns lost, {} losses named",
                repaired.lost_sealed,
                repaired.lost_open,
                repaired.losses.len()
            );
            assert!(repaired.lost_sealed * 5 < all, "{damage}: {} of {all} turns are lost", repaired.lost_sealed);
        }
    }
}

#[tokio::test]
async fn a_damaged_journal_costs_only_its_own_rows_which_are_named() {
    let world = World::killed().await;
    let whole = world.journal.as_ref().unwrap();
    for (seed, header, branches, leaves, flips) in
        [(1, true, false, 0, 0), (2, false, true, 2, 1), (3, false, false, 6, 30), (4, true, true, 4, 40)]
    {
        let mut random = Random::new(seed);
        let mut journal = whole.clone();
        if header {
            journal[..320].fill(0xAB);
        }
        if branches {
            overwrite_branches(&mut journal, &mut random);
        }
        flip_in_leaves(&mut journal, leaves, flips, &mut random);
        let directory = World::place(&world.main, Some(&journal));
        let damage = format!("journal: header {header}, branches {branches}, {flips} flips in each of {leaves} leaves");
        let repaired = world.repair(directory.path(), &damage).await;
        assert!(!repaired.was_clean);
        println!(
            "{damage}: {} sealed turns and {} open turns lost, {:?}",
            repaired.lost_sealed, repaired.lost_open, repaired.losses
        );
        assert!(repaired.lost_sealed <= world.sealed_in_journal(), "{damage}: turns of the main file are lost");
    }
}

#[tokio::test]
async fn a_journal_of_which_only_the_header_is_left_costs_its_rows_which_are_named() {
    let world = World::killed().await;
    let header = &world.journal.as_ref().unwrap()[..PAGE_BYTES];
    let directory = World::place(&world.main, Some(header));
    let repaired = world.repair(directory.path(), "a journal that is cut short").await;
    assert!(!repaired.was_clean && !repaired.losses.is_empty(), "{repaired:?}");
    assert!(repaired.lost_sealed <= world.sealed_in_journal(), "turns of the main file are lost");

    let directory = World::place(&world.main[..PAGE_BYTES], None);
    let refused = check(directory.path()).unwrap_err().to_string();
    assert!(refused.contains("no row of a store is left in it") && !refused.contains("tells more"), "{refused}");
}

#[tokio::test]
async fn two_blank_pages_neither_end_a_check_nor_a_repair_with_a_panic() {
    let world = World::killed().await;
    let last = world.main.len() / PAGE_BYTES - 1;
    for first in [last - 1, last / 2, 1] {
        let mut main = world.main.clone();
        main[first * PAGE_BYTES..][..PAGE_BYTES].fill(0);
        main[last * PAGE_BYTES..][..PAGE_BYTES].fill(0);
        let directory = World::place(&main, world.journal.as_deref());
        // Each ends with an answer. What a repair saves is the matter of the other tests.
        assert!(check(directory.path()).is_ok(), "pages {first} and {last}");
        let _ = repair(directory.path());
    }
}
