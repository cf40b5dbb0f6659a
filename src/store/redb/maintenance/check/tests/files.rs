use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use super::set_up::{bytes, damage_journal, id, lose, open, refusal, seal, sound, told, with_a_journal};
use crate::report::NoPrices;
use crate::store::TurnRange;
use crate::store::redb::maintenance::check::copy::keep_copy;
use crate::store::redb::maintenance::check::error::CheckError;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::maintenance::compact::compact;
use crate::store::redb::tables::store_file::StoreFile;

#[tokio::test]
async fn a_sound_file_is_clean_and_neither_check_nor_repair_changes_a_byte() {
    let directory = sound().await;
    let before = bytes(directory.path());
    let report = check(directory.path()).unwrap();
    assert_eq!(told(&report), [""; 0]);
    assert_eq!((report.conversations, report.sealed_turns, report.open_turns), (2, 6, 4));
    assert_eq!(repair(directory.path()).unwrap(), (report, None));
    assert!(bytes(directory.path()) == before);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a copy of a sound file was made");
}

#[tokio::test]
async fn a_running_store_is_not_checked_and_a_missing_one_is_told() {
    let directory = sound().await;
    let store = open(directory.path());
    let refused = check(directory.path()).unwrap_err();
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    store.close().await;
    assert!(matches!(check(&directory.path().join("none")), Err(CheckError::Missing { .. })));
}

/// Returns a store with a flipped bit in stored ids. The ids still decode, so only the checksums of the pages show the
/// damage. All copies of the ids are changed, as some are in old pages.
async fn with_damaged_pages() -> tempfile::TempDir {
    let directory = sound().await;
    let mut image = bytes(directory.path());
    let found: Vec<_> = (0..image.len() - 5).filter(|at| image[*at..].starts_with(b"other")).collect();
    assert!(!found.is_empty());
    for at in found {
        image[at] ^= 1;
    }
    fs::write(directory.path().join(StoreFile::Main.name()), &image).unwrap();
    directory
}

#[tokio::test]
async fn damaged_pages_are_found_and_a_repair_saves_what_they_still_have() {
    let directory = with_damaged_pages().await;
    let before = bytes(directory.path());
    let report = check(directory.path()).unwrap();
    assert_eq!(told(&report), ["the file: pages of the main file are damaged"]);
    assert!(bytes(directory.path()) == before, "the check changed the file");
    let (copy, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!((told(&after), after.sealed_turns, after.open_turns), (vec![], 6, 2));
    let lost: Vec<_> = after.losses.iter().map(ToString::to_string).collect();
    let kept = ["a", "b"]
        .map(|name| format!("open turn open of conversation {name}: it is kept, and its latest events may be lost"));
    let open = "open turns whose heads were damaged, if there were others than those that are kept or named";
    assert_eq!(lost, [&*kept[0], &*kept[1], open], "the damaged page may be of an earlier time");
    assert!(fs::read(copy).unwrap() == before, "the damaged file was not kept");
    assert!(check(directory.path()).unwrap().violations.is_empty());
}

#[test]
fn an_empty_file_is_told_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(StoreFile::Main.name()), "").unwrap();
    let (checked, repaired) = (check(directory.path()).unwrap_err(), repair(directory.path()).unwrap_err());
    assert!(checked.to_string().ends_with("the file is empty"), "{checked}");
    assert_eq!(checked.to_string(), repaired.to_string());
    assert_eq!(bytes(directory.path()), b"");
}

#[tokio::test]
async fn the_name_of_the_copy_is_made_durable_when_the_copy_is_whole() {
    let directory = sound().await;
    let (path, synced) = (directory.path().join(StoreFile::Main.name()), std::cell::Cell::new(0));
    let copy = keep_copy(&path, |parent| {
        assert_eq!(parent, directory.path());
        let copy = fs::read(parent.join("turn-metrics.redb.before-repair-1")).unwrap();
        assert!(copy == bytes(directory.path()));
        synced.set(synced.get() + 1);
        Ok(())
    });
    assert!(copy.is_ok() && synced.get() == 1, "{copy:?}");

    let refused = keep_copy(&path, |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
    assert!(refused.source.kind() == io::ErrorKind::StorageFull, "{refused:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "the copy whose name is not durable is left");
}

#[cfg(unix)]
#[tokio::test]
async fn linked_files_are_repaired_where_they_are_and_copied_beside_that() {
    let (directory, far) = (with_a_journal().await, tempfile::tempdir().unwrap());
    damage_journal(directory.path(), |rows| drop(rows.remove(2).unwrap()));
    for file in [StoreFile::Main, StoreFile::Journal] {
        let (link, to) = (directory.path().join(file.name()), far.path().join(file.name()));
        fs::rename(&link, &to).unwrap();
        std::os::unix::fs::symlink(&to, &link).unwrap();
    }
    let before = bytes(far.path());
    let (_, repaired) = repair(directory.path()).unwrap();
    let (copy, after) = repaired.unwrap();
    assert_eq!(told(&after), [""; 0]);
    assert!(copy.starts_with(far.path()) && fs::read(copy).unwrap() == before);
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
    };
    let (main, journal) = (StoreFile::Main.name(), StoreFile::Journal.name());
    let copy = |name: &str| format!("{name}.before-repair-1");
    assert_eq!(names(far.path()), [copy(journal), main.to_owned(), copy(main)]);
    assert_eq!(names(directory.path()), [journal, main]);
    assert!(directory.path().join(main).is_symlink() && directory.path().join(journal).is_symlink());
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_in_the_place_of_a_journal_is_named_with_a_way_that_works() {
    type Put = fn(&Path);
    let ways: [(Put, &str); 3] = [
        (
            |journal| std::os::unix::fs::symlink(journal.with_file_name("nowhere/journal"), journal).unwrap(),
            "is a symbolic link",
        ),
        (|journal| fs::create_dir(journal).unwrap(), "is no journal"),
        (|journal| fs::write(journal, "of somebody else").unwrap(), "is no journal"),
    ];
    for (put, what) in ways {
        for is_needed in [true, false] {
            let directory = if is_needed { with_a_journal().await } else { sound().await };
            let path = directory.path();
            let journal = path.join(StoreFile::Journal.name());
            let away = path.join("away");
            if is_needed {
                fs::rename(&journal, &away).unwrap();
            }
            put(&journal);
            let advice = if is_needed { "run `turn-metrics check --repair`" } else { "is complete without a journal" };
            let mut told_by = vec![refusal(path).to_string()];
            // A link to nothing is in the way of a server only, which makes a journal.
            if is_needed || what == "is no journal" {
                told_by.extend([check(path).unwrap_err().to_string(), repair(path).unwrap_err().to_string()]);
            }
            for refused in told_by {
                assert!(
                    [StoreFile::Journal.name(), what, advice].iter().all(|part| refused.contains(part)),
                    "{refused}"
                );
            }
            fs::rename(&journal, path.join("in its place")).unwrap();
            if is_needed {
                // Without the journal, as the message says.
                assert!(repair(path).unwrap().1.is_some());
            }
            open(path).close().await;
        }
    }
}

#[tokio::test]
async fn a_main_file_without_a_row_is_built_anew_from_what_the_journal_has() {
    for bytes_left in [0, 4096, 16_384] {
        let directory = sound().await;
        let store = open(directory.path());
        seal(&store, "a", 1, &["t4"]).await;
        seal(&store, "c", 0, &["t1", "t2"]).await;
        seal(&store, "a", 2, &["t5"]).await;
        lose(store).await;
        let main = fs::File::options().write(true).open(directory.path().join(StoreFile::Main.name())).unwrap();
        main.set_len(bytes_left).unwrap();
        let (_, after) = repair(directory.path()).unwrap().1.unwrap();
        let named = after.losses.iter().map(ToString::to_string);
        assert!(named.into_iter().any(|loss| loss == "turns 1 to 3 of conversation a"), "{:?}", after.losses);
        assert_eq!((told(&after), after.sealed_turns), (vec![], 4), "{bytes_left} bytes were left");
        let store = open(directory.path());
        seal(&store, "a", 3, &["t6"]).await;
        for (name, ordinals) in [("a", &[4, 5, 6][..]), ("c", &[1, 2])] {
            let turns = store.turns(&TurnRange::after(id(name), 0, 9)).unwrap();
            assert_eq!(turns.iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>(), ordinals);
        }
        store.close().await;
        assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_opened_is_not_taken_for_a_missing_one() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join(StoreFile::Main.name());
    // A link that leads to itself.
    std::os::unix::fs::symlink(&main, &main).unwrap();
    let refused = [check(directory.path()), repair(directory.path()).map(|(report, _)| report)];
    for refused in refused.map(Result::unwrap_err) {
        assert!(refused.to_string().contains("turn-metrics.redb cannot be read and written"), "{refused}");
    }
    let refused = compact(directory.path(), Arc::new(NoPrices)).unwrap_err();
    assert!(refused.to_string().contains("turn-metrics.redb cannot be read and written"), "{refused}");
}
