use std::fs;
use std::path::Path;

use redb::ReadableTable;

use super::set_up::{
    bytes, change_entry, damage_journal, id, lose, mark, open, places, refusal, seal, sound, told, turn, with_a_journal,
};
use crate::store::redb::files::open_error::OpenError;
use crate::store::redb::journal::chain::chain;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::tables::record;
use crate::store::redb::tables::row::Stored;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::{Life, TurnRange};
use crate::turn::{Done, EpochMillis};

/// Asserts that the store does not open, that a check finds `found`, and that a repair keeps the turns with the
/// ordinals `turns`.
async fn assert_repaired(directory: &Path, found: &[&str], turns: &[u64]) {
    let refused = refusal(directory);
    assert!(refused.to_string().contains("journal"), "{refused}");
    assert_eq!(told(&check(directory).unwrap()), found);
    let (_, after) = repair(directory).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);
    assert!(!directory.join(StoreFile::Journal.name()).exists());
    let store = open(directory);
    let kept = store.turns(&TurnRange::after(id("a"), 0, 9)).unwrap();
    assert_eq!(kept.iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>(), turns);
    store.close().await;
    assert_eq!(told(&check(directory).unwrap()), [""; 0]);
}

#[tokio::test]
async fn the_journal_is_checked_as_if_it_were_in_the_tables_and_no_byte_changes() {
    let directory = with_a_journal().await;
    let journal = directory.path().join(StoreFile::Journal.name());
    let before = (bytes(directory.path()), fs::read(&journal).unwrap());
    let report = check(directory.path()).unwrap();
    assert_eq!((told(&report), report.sealed_turns), (vec![], 3));
    assert_eq!(repair(directory.path()).unwrap(), (report, None));
    assert!((bytes(directory.path()), fs::read(&journal).unwrap()) == before);
}

#[tokio::test]
async fn a_row_of_the_journal_that_is_damaged_or_gone_is_named_and_costs_what_followed_it_in_its_conversation() {
    let directory = with_a_journal().await;
    damage_journal(directory.path(), |rows| {
        let first = mark(rows, 1);
        rows.insert(2, chain(first, &mut b"\x01\xff".to_vec())).unwrap();
    });
    let follows = "conversation a goes from version 1 and 1 sealed turns to version 3 after 2 sealed turns";
    let found = [
        "row 2 of the journal: a stored row of the journal cannot be read: Hit the end of buffer, expected more data",
        &format!("row 3 of the journal: {follows}"),
    ];
    assert_repaired(directory.path(), &found, &[1]).await;

    let directory = with_a_journal().await;
    damage_journal(directory.path(), |rows| drop(rows.remove(2).unwrap()));
    let found = ["row 2 of the journal: it is missing; the next one is 3", &format!("row 3 of the journal: {follows}")];
    assert_repaired(directory.path(), &found, &[1]).await;
}

#[tokio::test]
async fn a_journal_that_is_gone_is_told_and_a_repair_goes_on_without_it() {
    let directory = with_a_journal().await;
    fs::remove_file(directory.path().join(StoreFile::Journal.name())).unwrap();
    let found = ["row 1 of the journal: the whole journal is missing, and what was acknowledged last with it"];
    assert_repaired(directory.path(), &found, &[]).await;
}

#[tokio::test]
async fn a_repair_of_half_a_commit_moves_no_ordinal() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    seal(&store, "a", 0, &["v"]).await;
    seal(&store, "a", 1, &["x", "y", "z"]).await;
    seal(&store, "a", 2, &["w"]).await;
    lose(store).await;
    change_entry(directory.path(), 2, |entry| entry.sealed[1] = b"\xff\xff".as_slice().into());
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);
    assert_eq!(places(directory.path()).await, [(1, "v".to_owned())]);
}

#[tokio::test]
async fn a_row_of_the_journal_that_is_exchanged_damaged_or_taken_out_is_told_when_the_store_is_opened() {
    let refused_row = |directory: &Path| match refusal(directory) {
        OpenError::DamagedRow { row, flaw, .. } => format!("row {row}: {flaw}"),
        other => panic!("{other:?}"),
    };
    // The row has a right checksum and follows in its conversation, but it is not the row that the next one links to.
    let directory = with_a_journal().await;
    change_entry(directory.path(), 2, |entry| {
        let other = turn("other").seal(&Done::because("stop"), EpochMillis::new(2));
        entry.sealed[0] = record::encode_sealed(&other).unwrap().into();
    });
    assert_eq!(
        refused_row(directory.path()),
        "row 3: it does not follow the row before it, one of which was exchanged"
    );

    // The damaged row is the last one, so no other row links to it.
    let directory = with_a_journal().await;
    damage_journal(directory.path(), |rows| {
        let mut bytes = rows.get(3).unwrap().unwrap().value().unverified().to_vec();
        let id = bytes.windows(2).position(|bytes| bytes == b"t2").unwrap();
        bytes[id] ^= 1;
        rows.insert(3, Stored::as_it_is(&bytes)).unwrap();
    });
    let unfit = "row 3: a stored row of the journal cannot be read: its checksum does not fit";
    assert_eq!(refused_row(directory.path()), unfit);

    let directory = with_a_journal().await;
    damage_journal(directory.path(), |rows| drop(rows.remove(2).unwrap()));
    assert_eq!(refused_row(directory.path()), "row 2: it is missing; the next one is 3");
}

#[tokio::test]
async fn a_row_of_the_journal_of_another_life_is_told_and_not_taken() {
    for (seals, of_tables) in [(1, true), (2, true), (2, false)] {
        let directory = if of_tables { sound().await } else { tempfile::tempdir().unwrap() };
        let store = open(directory.path());
        let version = u64::from(of_tables);
        for nth in 0..seals {
            seal(&store, "a", version + nth, &[&format!("t{nth}")]).await;
        }
        lose(store).await;
        let mut last = 0;
        damage_journal(directory.path(), |rows| last = rows.last().unwrap().unwrap().0.value());
        change_entry(directory.path(), last, |entry| entry.conversation.life = Life(7));
        let refused = refusal(directory.path()).to_string();
        assert!(refused.contains("conversation a is of another life"), "{refused}");
        let (_, after) = repair(directory.path()).unwrap().1.unwrap();
        assert_eq!(told(&after), [""; 0]);
    }
}
