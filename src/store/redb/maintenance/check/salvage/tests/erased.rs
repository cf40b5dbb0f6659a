use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Database, ReadableTable, TableHandle};

use super::super::rows::wanted;
use super::super::walk::walk;
use super::super::{open_pages, pages};
use super::heaps::overwrite_branches;
use super::strayed::{LEAF, pages_of};
use super::world::World;
use crate::simulate::random::Random;
use crate::store::oracle::question_of_1970;
use crate::store::redb::maintenance::check::tests::set_up::{bytes, id, open, seal, sealing, turn};
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::row;
use crate::store::redb::tables::schema::{ERASED, POSITIONS, TURNS};
use crate::store::{Commit, DropTurns, RedbEngine, Report, StoreFile};
use crate::turn::{Done, EpochMillis};

/// Takes the turn at a position out of the tables. The position stays as it is, or says that the turn was erased. Returns
/// the rows that the position and the turn had.
fn take_out(directory: &Path, position: u64, notes_it: bool) -> [Vec<u8>; 2] {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    let txn = database.begin_write().unwrap();
    let before = {
        let mut positions = txn.open_table(POSITIONS).unwrap();
        let (at, before) = {
            let row = positions.get(position).unwrap().unwrap();
            let at = AtPosition::decode(row.value().verify(&position).unwrap()).unwrap();
            (at, row.value().unverified().to_vec())
        };
        let AtPosition::Sealed { key, ordinal } = at else { panic!("{at:?}") };
        let mut turns = txn.open_table(TURNS).unwrap();
        let turn = turns.remove((key, ordinal.get())).unwrap().unwrap().value().unverified().to_vec();
        if notes_it {
            let mut record = AtPosition::Erased.encode().unwrap();
            positions.insert(position, row::seal(&position, &mut record)).unwrap();
        }
        [before, turn]
    };
    txn.commit().unwrap();
    database.close().unwrap();
    before
}

#[tokio::test]
async fn an_erased_turn_does_not_come_back_from_a_freed_page() {
    let world = World::closed().await;
    for notes_it in [true, false] {
        // The change may reuse the pages that it frees, and then the turn is gone, or nobody can know which turn had the
        // position. So positions are tried until both earlier rows are still in the file.
        let attempts = (100..).step_by(100).take(15).map(|position| {
            let directory = World::place(&world.main, None);
            let before = take_out(directory.path(), position, notes_it);
            let main = fs::read(directory.path().join(StoreFile::Main.name())).unwrap();
            (directory, before, main)
        });
        let has_row = |main: &[u8], row: &[u8]| main.windows(row.len()).any(|bytes| bytes == row);
        let has_both = |(_, rows, main): &(_, [Vec<u8>; 2], Vec<u8>)| rows.iter().all(|row| has_row(main, row));
        let (directory, _, mut main) = attempts.into_iter().find(has_both).unwrap();
        let path = directory.path().join(StoreFile::Main.name());
        overwrite_branches(&mut main, &mut Random::new(1));
        fs::write(&path, main).unwrap();
        let (_, after) = repair(directory.path()).unwrap().1.unwrap();
        assert_eq!(after.violations, []);
        // The control: without the note, the turn comes back, so a freed page still has it.
        let expected = world.sealed_turns() - usize::from(notes_it);
        assert_eq!(after.sealed_turns, expected as u64, "{:?}", after.losses);
        assert!(!after.losses.iter().any(|loss| loss.to_string().starts_with("turn")), "{:?}", after.losses);
        let store: RedbEngine = World::try_open(directory.path()).unwrap();
        World::lose(store).await;
        assert_eq!(check(directory.path()).unwrap().violations, []);
    }
}

/// A stopped store in which a conversation was erased and turns of another one were dropped.
struct Removed {
    directory: tempfile::TempDir,
    /// A page of the turns from before that.
    earlier: Vec<u8>,
    /// The report after that.
    report: Report,
}

impl Removed {
    fn path(&self) -> PathBuf {
        self.directory.path().join(StoreFile::Main.name())
    }

    /// Repairs the damaged store, which then is as it was: nothing is lost or back, and exports work.
    async fn assert_repaired(&self) {
        let (_, after) = repair(self.directory.path()).unwrap().1.unwrap();
        assert_eq!((after.violations, after.losses, after.sealed_turns), (vec![], vec![], 2));
        let store = open(self.directory.path());
        drop(store.begin_export().await.unwrap());
        assert_eq!(store.report(&question_of_1970()).unwrap(), self.report);
        store.close().await;
    }
}

async fn with_removed_turns() -> Removed {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(StoreFile::Main.name());
    let store = open(directory.path());
    let aged = [("x", 1), ("y", 2), ("z", 9)];
    let sealed = aged.map(|(id, at)| turn(id).seal(&Done::because("stop"), EpochMillis::new(at))).into();
    store.commit(Commit { sealed, ..sealing("aged", 0, "x") }).await.unwrap();
    let young = vec![turn("young").seal(&Done::because("stop"), EpochMillis::new(9))];
    store.commit(Commit { sealed: young, ..sealing("stays", 0, "young") }).await.unwrap();
    seal(&store, "gone", 0, &["a", "b", "c"]).await;
    store.close().await;
    let image = bytes(directory.path());
    let leaf = pages_of(&path, &image, TURNS.name(), LEAF)[0];
    let earlier = image[leaf..leaf + pages::PAGE_BYTES].to_vec();
    let store = open(directory.path());
    assert_eq!(store.erase(id("gone")).await, Ok(true));
    drop(store.begin_export().await.unwrap());
    let old = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(5) };
    while !store.drop_turns(old).await.unwrap().is_done {}
    let report = store.report(&question_of_1970()).unwrap();
    store.close().await;
    Removed { directory, earlier, report }
}

#[tokio::test]
async fn an_earlier_page_in_the_place_of_another_one_brings_no_erased_or_dropped_turn_back() {
    let removed = with_removed_turns().await;
    let path = removed.path();
    let mut image = bytes(removed.directory.path());
    let leaf = pages_of(&path, &image, TURNS.name(), LEAF)[0];
    image[leaf..leaf + pages::PAGE_BYTES].copy_from_slice(&removed.earlier);
    fs::write(&path, image).unwrap();
    removed.assert_repaired().await;
}

#[tokio::test]
async fn a_conversation_whose_note_of_its_erasure_is_lost_is_not_named_as_lost() {
    let removed = with_removed_turns().await;
    let path = removed.path();
    let mut image = bytes(removed.directory.path());
    let leaf = pages_of(&path, &image, ERASED.name(), LEAF)[0];
    let reached = walk(&open_pages(&path).unwrap(), &wanted().unwrap(), &mut |_, _, _| Ok(())).unwrap();
    for (number, page) in (0..).zip(image.chunks_mut(pages::PAGE_BYTES)).skip(1) {
        // No earlier page has the note either.
        if !reached.has_block(number) {
            page.fill(0);
        }
    }
    image[leaf..leaf + pages::PAGE_BYTES].fill(0);
    fs::write(&path, image).unwrap();
    removed.assert_repaired().await;
    assert_eq!(check(removed.directory.path()).unwrap().violations, []);
}
