use std::fs;
use std::path::Path;

use redb::{Database, ReadableTable};

use super::heaps::overwrite_branches;
use super::world::World;
use crate::simulate::random::Random;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::row;
use crate::store::redb::tables::schema::{POSITIONS, TURNS};
use crate::store::{RedbEngine, StoreFile};

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
