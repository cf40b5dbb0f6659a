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

/// The position of the turn that is taken out.
const POSITION: u64 = 100;

/// Takes a turn out of the tables. Its position stays as it is, or says that the turn was erased.
fn take_out(directory: &Path, notes_it: bool) {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let mut positions = txn.open_table(POSITIONS).unwrap();
        let at = {
            let row = positions.get(POSITION).unwrap().unwrap();
            AtPosition::decode(row.value().verify(&POSITION).unwrap()).unwrap()
        };
        let AtPosition::Sealed { key, ordinal } = at else { panic!("{at:?}") };
        txn.open_table(TURNS).unwrap().remove((key, ordinal.get())).unwrap().unwrap();
        if notes_it {
            let mut record = AtPosition::Erased.encode().unwrap();
            positions.insert(POSITION, row::seal(&POSITION, &mut record)).unwrap();
        }
    }
    txn.commit().unwrap();
    database.close().unwrap();
}

#[tokio::test]
async fn an_erased_turn_does_not_come_back_from_a_freed_page() {
    let world = World::closed().await;
    for notes_it in [true, false] {
        let directory = World::place(&world.main, None);
        take_out(directory.path(), notes_it);
        let path = directory.path().join(StoreFile::Main.name());
        let mut main = fs::read(&path).unwrap();
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
