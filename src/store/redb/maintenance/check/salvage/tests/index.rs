use std::fs;

use super::super::rows::wanted;
use super::super::walk::walk;
use super::super::{open_pages, pages};
use crate::store::TurnOutcome;
use crate::store::redb::maintenance::check::repair;
use crate::store::redb::maintenance::check::tests::set_up::{bytes, damage, hash, open, sealing, sound};
use crate::store::redb::tables::schema::TURNS;
use crate::store::redb::tables::store_file::StoreFile;

#[tokio::test]
async fn a_damaged_page_of_the_index_still_tells_which_turns_must_not_be_sealed_again() {
    let directory = sound().await;
    damage(directory.path(), TURNS, |turns| drop(turns.remove((1, 2)).unwrap()));
    let place = |id| [1, hash(directory.path(), id)].map(u64::to_le_bytes).concat();
    let (of_lost, of_other) = (place("y"), place("x"));
    let path = directory.path().join(StoreFile::Main.name());
    let reached = walk(&open_pages(&path).unwrap(), &wanted().unwrap(), &mut |_, _, _| Ok(())).unwrap();
    let mut image = bytes(directory.path());
    let mut damaged = 0;
    for (number, page) in (0..).zip(image.chunks_mut(pages::PAGE_BYTES)) {
        let find = |key: &[u8]| page.windows(key.len()).position(|window| window == key);
        if find(&of_lost).is_none() {
            continue;
        }
        if reached.has_block(number) {
            // No single flipped bit explains this.
            let at = find(&of_other).unwrap();
            page[at + 8..at + 16].fill(0xA5);
            damaged += 1;
        } else {
            page.fill(0);
        }
    }
    assert_eq!(damaged, 1);
    fs::write(&path, image).unwrap();
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(after.violations, []);
    let store = open(directory.path());
    let again = store.commit(sealing("a", 1, "y")).await.unwrap().outcomes;
    assert!(matches!(again[0].1, TurnOutcome::Duplicate(at) if at.get() == 2), "{again:?}");
    store.close().await;
}
