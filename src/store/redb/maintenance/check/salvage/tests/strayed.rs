use std::fs;
use std::path::Path;

use redb::TableHandle;

use super::super::rows::wanted;
use super::super::walk::walk;
use super::super::{open_pages, pages};
use super::world::World;
use crate::store::StoreFile;
use crate::store::redb::maintenance::check::repair;
use crate::store::redb::maintenance::check::tests::set_up::{damage, lost, sound};
use crate::store::redb::tables::row::Stored;
use crate::store::redb::tables::schema::{LOST_TURNS, POSITIONS, TURNS};

pub(super) const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// Returns where the pages of a table begin that are of this type.
pub(super) fn pages_of(path: &Path, image: &[u8], table: &str, page_type: u8) -> Vec<usize> {
    let file = open_pages(path).unwrap();
    let [all, others] = [true, false].map(|takes_it| {
        let mut tables = wanted().unwrap();
        tables.retain(|wanted| takes_it && wanted.name == table);
        walk(&file, &tables, &mut |_, _, _| Ok(())).unwrap()
    });
    let is_of_table = |number: &u64| all.has_block(*number) && !others.has_block(*number);
    let places = (0..file.blocks()).filter(is_of_table).map(|n| usize::try_from(n).unwrap() * pages::PAGE_BYTES);
    places.filter(|at| image[*at] == page_type).collect()
}

#[tokio::test]
async fn a_page_of_another_table_in_the_place_of_a_page_costs_only_the_rows_of_the_page() {
    for world in [World::closed().await, World::killed().await] {
        let directory = World::place(&world.main, world.journal.as_deref());
        let path = directory.path().join(StoreFile::Main.name());
        let leaves = pages_of(&path, &world.main, TURNS.name(), LEAF);
        let others = pages_of(&path, &world.main, POSITIONS.name(), BRANCH);
        let leaf = leaves[leaves.len() / 2];
        let other = others[0];
        let mut main = world.main.clone();
        main.copy_within(other..other + pages::PAGE_BYTES, leaf);
        let directory = World::place(&main, world.journal.as_deref());
        let path = directory.path().join(StoreFile::Main.name());
        let mut tables = wanted().unwrap();
        tables.retain(|table| table.name == TURNS.name());
        let (mut proved, mut strayed) = (0, 0);
        let mut count = |_: &str, _: pages::Leaf<'_>, is_proved: bool| {
            *(if is_proved { &mut proved } else { &mut strayed }) += 1;
            Ok(())
        };
        walk(&open_pages(&path).unwrap(), &tables, &mut count).unwrap();
        // The control: pages that have the checksums of the strayed page's pointers are read as leaves of the table.
        assert!(strayed > 1, "{strayed}");
        assert_eq!(proved, leaves.len() - 1);
        let repaired = world.repair(directory.path(), "a strayed page").await;
        let noted = lost(directory.path(), LOST_TURNS);
        println!("{} turns lost, {noted} noted, {:?}", repaired.lost_sealed, repaired.losses);
        assert!(!repaired.was_clean);
        assert!(noted <= repaired.lost_sealed as u64, "{noted} rows for {} turns", repaired.lost_sealed);
    }
}

#[tokio::test]
async fn the_ordinal_of_a_damaged_row_is_not_believed() {
    let directory = sound().await;
    // The damaged page makes the repair a salvage, which moves the row of an unknown conversation aside.
    damage(directory.path(), TURNS, |turns| {
        turns.insert((1, 3 | 1 << 40), Stored::as_it_is(b"nonsense")).unwrap();
        turns.insert((9, 1 << 40), Stored::as_it_is(b"nonsense")).unwrap();
    });
    let path = directory.path().join(StoreFile::Main.name());
    let mut image = fs::read(&path).unwrap();
    let leaf = pages_of(&path, &image, POSITIONS.name(), LEAF)[0];
    image[leaf + 64..leaf + 128].fill(0xA5);
    fs::write(&path, image).unwrap();
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(after.violations, []);
    assert_eq!(lost(directory.path(), LOST_TURNS), 1, "{:?}", after.losses);
}
