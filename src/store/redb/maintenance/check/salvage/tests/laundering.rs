use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::backends::InMemoryBackend;
use redb::{Builder, ReadableDatabase};

use super::world::World;
use super::{damages, is_clean};
use crate::report::NoPrices;
use crate::simulate::random::Random;
use crate::store::redb::files::look::look_at;
use crate::store::redb::maintenance::compact::{CompactError, compact};
use crate::store::redb::tables::schema::copy_tables;
use crate::store::redb::unwind;
use crate::store::{BackupError, StoreFile};

/// The number of damaged files in a run of the test. `TURN_METRICS_TEST_DAMAGES` sets another number.
const DAMAGES: u64 = 12;

/// Returns whether a copy that verifies nothing hides the damage: it succeeds, and its pages are sound.
fn is_hidden_by_a_blind_copy(directory: &Path) -> bool {
    let copied = unwind::caught(|| {
        let main = look_at(&Builder::new(), &directory.join(StoreFile::Main.name()), StoreFile::Main).ok()?;
        let mut copy = Builder::new().create_with_backend(InMemoryBackend::new()).ok()?;
        let txn = copy.begin_write().ok()?;
        copy_tables(&main.begin_read().ok()?, &txn).ok()?;
        txn.commit().ok()?;
        copy.check_integrity().ok()
    });
    copied == Ok(Some(true))
}

#[tokio::test]
async fn no_damaged_file_is_compacted_backed_up_or_exported_as_if_it_were_sound() {
    let world = World::closed().await;
    let mut random = Random::new(3);
    let (mut damaged, mut hidden, mut refused) = (0, 0, 0);
    let (mut exports, mut incomplete) = (0, 0);
    for _ in 0..damages(DAMAGES) {
        let mut main = world.main.clone();
        let (at, bit) = (random.below(main.len()), random.below(8));
        main[at] ^= 1 << bit;
        let damage = format!("bit {bit} of byte {at}");
        let directory = World::place(&main, None);
        let names =
            || -> Vec<_> { fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect() };
        if !is_clean(directory.path()) {
            damaged += 1;
            hidden += u64::from(is_hidden_by_a_blind_copy(directory.path()));
            let refused = compact(directory.path(), Arc::new(NoPrices));
            let Err(error) = refused else { panic!("{damage}: the file was compacted") };
            assert!(matches!(error, CompactError::Damaged { .. }), "{damage}: {error}");
            assert!(error.to_string().contains("check --repair"), "{error}");
            assert!(fs::read(directory.path().join(StoreFile::Main.name())).unwrap() == main, "{damage}");
            assert_eq!(names().len(), 1, "{damage}: {:?}", names());
        }
        let Ok(store) = World::try_open(directory.path()) else { continue };
        match world.export(&store, &damage) {
            Some(0) => exports += 1,
            Some(_) | None => incomplete += 1,
        }
        let copy = store.back_up();
        World::lose(store).await;
        assert!(!names().iter().any(|name| name.to_string_lossy().contains(".backup")), "{damage}: {:?}", names());
        match copy {
            Ok(mut copy) => {
                let restored = tempfile::tempdir().unwrap();
                let mut file = fs::File::create(restored.path().join(StoreFile::Main.name())).unwrap();
                io::copy(&mut copy.bytes, &mut file).unwrap();
                assert!(is_clean(restored.path()), "{damage}: a backup is damaged");
                world.assert_same(restored.path(), &damage).await;
            }
            Err(error) => {
                refused += 1;
                assert!(matches!(error, BackupError::Damaged(_)), "{damage}: {}", error.in_full());
                assert!(error.to_string().contains("check --repair"), "{error}");
            }
        }
    }
    println!("{exports} exports were whole, {incomplete} said that turns are missing");
    assert!(exports > 0 && incomplete > 0);
    println!("{damaged} damaged files: a blind copy hides {hidden}; {refused} backups were refused");
    assert!(damaged > 0 && hidden > 0, "the control: of {damaged} damaged files a blind copy hides {hidden}");
}
