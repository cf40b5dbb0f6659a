use std::path::Path;

use redb::ReadableTable;

use super::set_up::{assert_found_and_repaired, damage, damage_meta, hash, open, sealing, sound, told};
use crate::store::TurnOutcome;
use crate::store::contract::Life;
use crate::store::redb::maintenance::check::repair;
use crate::store::redb::tables::indexed::StoredOrdinal;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::erasure::Erasure;
use crate::store::redb::tables::row;
use crate::store::redb::tables::row::{KeyOf, Row, Rows, Stored};
use crate::store::redb::tables::schema::{
    ACTIVITY, Activity, CONVERSATIONS, ERASED, ERASURES, INDEX, KEYS, OPEN_TURNS, TURNS,
};
use crate::turn::EpochMillis;

/// Inserts a row for a conversation's key into the table by activity.
fn list(activity: &mut redb::Table<'_, (u64, &'static str), Row<Activity>>, place: (u64, &str), key: u64) {
    activity.insert(place, row::seal(&place, &mut key.to_le_bytes().to_vec())).unwrap();
}

#[tokio::test]
async fn each_kind_of_disagreement_is_named_and_repaired() {
    assert_found_and_repaired("turn 2 of conversation a: it is missing; the next one is 3", |path| {
        damage(path, TURNS, |turns| drop(turns.remove((1, 2)).unwrap()));
    })
    .await;
    assert_found_and_repaired("conversation a: its record says 3 sealed turns, there are 2", |path| {
        damage(path, TURNS, |turns| drop(turns.remove((1, 3)).unwrap()));
    })
    .await;
    assert_found_and_repaired("turn 2 of conversation b: the index does not have its id y", |path| {
        let place = hash(path, "y");
        damage(path, INDEX, |index| drop(index.remove((2, place)).unwrap()));
    })
    .await;
    assert_found_and_repaired("turn 1 of conversation a: the index does not have its id x", |path| {
        let place = hash(path, "x");
        damage(path, INDEX, |index| drop(index.insert((1, place), StoredOrdinal::seal((1, place), 3)).unwrap()));
    })
    .await;
    assert_found_and_repaired("turn 1 of conversation a: the index has its id x at 9", |path| {
        let place = hash(path, "x");
        damage(path, INDEX, |index| drop(index.insert((1, place), StoredOrdinal::seal((1, place), 9)).unwrap()));
    })
    .await;
    assert_found_and_repaired(
        "the index of conversation a at 0000000000000007: it names turn 9, which is not there",
        |path| {
            damage(path, INDEX, |index| drop(index.insert((1, 7), StoredOrdinal::seal((1, 7), 9)).unwrap()));
        },
    )
    .await;
    assert_found_and_repaired(
        "the index of conversation a at ffffffffffffffff: it names turn 2, which it names elsewhere",
        |path| {
            damage(path, INDEX, |index| {
                drop(index.insert((1, u64::MAX), StoredOrdinal::seal((1, u64::MAX), 2)).unwrap());
            });
        },
    )
    .await;
    assert_found_and_repaired("open turn x of conversation a: it is sealed", |path| {
        damage(path, OPEN_TURNS, |open| {
            let mut staged = open.get((1, "open")).unwrap().unwrap().value().verify(&(1, "open")).unwrap().to_vec();
            open.insert((1, "x"), row::seal(&(1, "x"), &mut staged)).unwrap();
        });
    })
    .await;
    assert_found_and_repaired("conversation a: its record is missing", |path| {
        damage(path, CONVERSATIONS, |records| drop(records.remove(1).unwrap()));
    })
    .await;
    assert_found_and_repaired("conversation #1: the record of key 1 names a", |path| {
        damage(path, KEYS, |keys| drop(keys.remove("a").unwrap()));
    })
    .await;
    let place = u64::MAX - 2;
    assert_found_and_repaired("conversation a: it has no place by activity", |path| {
        damage(path, ACTIVITY, |activity| drop(activity.remove((place, "a")).unwrap()));
    })
    .await;
    assert_found_and_repaired("conversation b: it has no place by activity", |path| {
        damage(path, ACTIVITY, |activity| list(activity, (place, "b"), 1));
    })
    .await;
    assert_found_and_repaired("conversation a: it has a place by activity that is not its own", |path| {
        damage(path, ACTIVITY, |activity| list(activity, (place - 1, "a"), 1));
    })
    .await;
    assert_found_and_repaired("conversation c: it has a place by activity that is not its own", |path| {
        damage(path, ACTIVITY, |activity| list(activity, (place, "c"), 9));
    })
    .await;
    assert_found_and_repaired("conversation a: the latest activity in its record is not that of its turns", |path| {
        damage(path, CONVERSATIONS, |records| {
            let record = {
                let record = records.get(1).unwrap().unwrap();
                ConversationRecord::decode(record.value().verify(&1).unwrap()).unwrap()
            };
            let record = ConversationRecord { last_at: EpochMillis::new(9), ..record };
            records.insert(1, row::seal(&1, &mut record.encode().unwrap())).unwrap();
        });
    })
    .await;
    assert_found_and_repaired("the file: the next conversation would get a key that is taken", |path| {
        damage_meta(path, |meta| meta.set_next_key(2).unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_file_without_a_lineage_gets_one_by_a_repair() {
    assert_found_and_repaired("the file: the store's lineage is missing", |path| {
        damage_meta(path, |meta| meta.forget_lineage());
    })
    .await;
}

#[tokio::test]
async fn a_turn_that_is_sealed_twice_keeps_its_first_ordinal_and_the_second_is_named_as_lost() {
    let directory = sound().await;
    let place = (1, hash(directory.path(), "x"));
    damage(directory.path(), TURNS, |turns| {
        let mut record = turns.get((1, 1)).unwrap().unwrap().value().verify(&(1, 1)).unwrap().to_vec();
        turns.insert((1, 4), row::seal(&(1, 4), &mut record)).unwrap();
    });
    damage(directory.path(), INDEX, |index| drop(index.insert(place, StoredOrdinal::seal(place, 4)).unwrap()));
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    let lost: Vec<_> = after.losses.iter().map(ToString::to_string).collect();
    assert_eq!((told(&after), lost), (vec![], vec!["turn 4 of conversation a".to_owned()]));
    let store = open(directory.path());
    for (turn, expected) in [("x", 1), ("new", 5)] {
        let (_, outcome) = store.commit(sealing("a", 1, turn)).await.unwrap().outcomes[0].clone();
        let is_right = match outcome {
            TurnOutcome::Duplicate(at) => turn == "x" && at.get() == expected,
            TurnOutcome::Sealed(at) => turn == "new" && at.get() == expected,
            TurnOutcome::Staged => false,
        };
        assert!(is_right, "{turn}: {outcome:?}");
    }
    store.close().await;
}

#[tokio::test]
async fn a_lost_turn_that_the_index_names_twice_is_named_once_after_the_repair() {
    let directory = sound().await;
    damage(directory.path(), TURNS, |turns| drop(turns.insert((1, 2), Stored::as_it_is(b"nonsense")).unwrap()));
    let place = (1, u64::MAX);
    damage(directory.path(), INDEX, |index| drop(index.insert(place, StoredOrdinal::seal(place, 2)).unwrap()));
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);
}

#[tokio::test]
async fn an_erasure_that_waits_for_a_row_of_an_earlier_journal_goes_on_after_a_repair() {
    let directory = sound().await;
    let erasure = Erasure { life: Life(7), key: 9, row: 1 << 40 };
    damage(directory.path(), ERASURES, |erasures| {
        drop(erasures.insert(7, row::seal(&7, &mut erasure.encode())).unwrap());
    });
    damage(directory.path(), ERASED, |erased| {
        drop(erased.insert(9, row::seal(&9, &mut 1_u64.to_le_bytes().to_vec())).unwrap());
    });
    damage_meta(directory.path(), |meta| meta.set_next_key(2).unwrap());
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);
    let store = open(directory.path());
    assert!(store.begin_export().await.is_ok(), "an export waits for the erasure");
    store.close().await;
}

/// Inserts a row of eight bytes.
fn number<T: Rows>(table: &mut redb::Table<'_, T::Key, Row<T>>, key: &KeyOf<'_, T>, number: u64) {
    table.insert(key, row::seal(key, &mut number.to_le_bytes().to_vec())).unwrap();
}

#[tokio::test]
async fn one_repair_ends_clean_whatever_contradicts_what() {
    type Damage = dyn Fn(&Path);
    let contradictions: [(&str, &Damage); 8] = [
        ("two ids with one key", &|path| damage(path, KEYS, |keys| number(keys, &"c", 1))),
        ("an id with the key of another one", &|path| damage(path, KEYS, |keys| number(keys, &"a", 2))),
        ("an id whose key no record has", &|path| damage(path, KEYS, |keys| number(keys, &"a", 9))),
        ("a conversation with two keys", &|path| {
            damage(path, CONVERSATIONS, |records| {
                let mut record = records.get(1).unwrap().unwrap().value().verify(&1).unwrap().to_vec();
                records.insert(7, row::seal(&7, &mut record)).unwrap();
            });
            damage(path, TURNS, |turns| {
                let mut record = turns.get((1, 1)).unwrap().unwrap().value().verify(&(1, 1)).unwrap().to_vec();
                turns.insert((7, 1), row::seal(&(7, 1), &mut record)).unwrap();
            });
        }),
        ("a record with the id of another conversation", &|path| {
            damage(path, CONVERSATIONS, |records| {
                let mut record = records.get(1).unwrap().unwrap().value().verify(&1).unwrap().to_vec();
                records.insert(2, row::seal(&2, &mut record)).unwrap();
            });
        }),
        ("a conversation that is noted as erased", &|path| {
            damage(path, ERASED, |erased| number(erased, &1, 3));
            let erasure = Erasure { life: Life(7), key: 1, row: 1 };
            damage(path, ERASURES, |rows| drop(rows.insert(7, row::seal(&7, &mut erasure.encode())).unwrap()));
        }),
        ("an open turn of an unknown conversation", &|path| {
            damage(path, OPEN_TURNS, |open| {
                let mut head = open.get((1, "open")).unwrap().unwrap().value().verify(&(1, "open")).unwrap().to_vec();
                open.insert((9, "open"), row::seal(&(9, "open"), &mut head)).unwrap();
            });
        }),
        ("a turn with an ordinal that no turn can have", &|path| {
            damage(path, TURNS, |turns| {
                let mut record = turns.get((1, 1)).unwrap().unwrap().value().verify(&(1, 1)).unwrap().to_vec();
                turns.insert((1, 0), row::seal(&(1, 0), &mut record)).unwrap();
            });
        }),
    ];
    for (contradiction, damaged) in contradictions {
        let directory = sound().await;
        damaged(directory.path());
        let (_, after) = repair(directory.path()).unwrap().1.unwrap();
        assert_eq!(told(&after), [""; 0], "{contradiction}: {:?}", after.losses);
        let names = after.losses.iter().filter(|loss| loss.to_string().starts_with("the name of")).count();
        assert_eq!(names, usize::from(contradiction == "two ids with one key"), "{contradiction}: {:?}", after.losses);
    }
}
