use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::rows::Tables;
use super::{Pass, Scrubber};
use crate::store::redb::checkpoint::Checkpoint;
use crate::store::redb::files::location::Location;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::files::slot::Slot;
use crate::store::redb::maintenance::check::tests::each_table::filled;
use crate::store::redb::maintenance::check::tests::set_up::{
    damage, hash, id, lose, open, refusal, seal, sealing, sound, staged, told,
};
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::tables::findings::Finding;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::indexed::StoredOrdinal;
use crate::store::redb::tables::meta::{META, ReadMeta};
use crate::store::redb::tables::record::erasure::Erasure;
use crate::store::redb::tables::record::open_turn::StagedRecords;
use crate::store::redb::tables::row::{self, RawKey, Row, Rows, Stored};
use crate::store::redb::tables::schema::{
    ACTIVITY, CONVERSATIONS, ERASED, ERASURES, FINDINGS, INDEX, KEYS, Keys, LABELS, OPEN_STEPS, OPEN_TURNS, OpenTurns,
    POSITIONS, ROLLUPS, TURNS,
};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::{FaultKind, Life, TurnOutcome};

/// Runs a pass over a stopped store, in steps of so many bytes. Returns the findings and the number of steps.
fn pass(directory: &Path, budget: usize) -> (Vec<Finding>, u64, u64) {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    let hasher = TurnHasher::of(ReadMeta::of(&database).unwrap().store_id().unwrap());
    let (mut pass, mut found, mut steps) = (Pass::default(), Vec::new(), 0);
    while !pass.is_done() {
        let txn = database.begin_read().unwrap();
        let tables = Tables::open(&txn, hasher).unwrap();
        pass.step(&tables, budget, &mut found).unwrap();
        tables.name_conversations(&mut found);
        steps += 1;
    }
    (found, pass.rows(), steps)
}

#[tokio::test]
async fn a_sound_store_has_no_findings_however_small_the_steps_are() {
    let directory = filled().await;
    let (found, rows, steps) = pass(directory.path(), usize::MAX);
    assert_eq!((found, steps), (vec![], 19), "one step for each table");
    let (found, again, steps) = pass(directory.path(), 1);
    assert_eq!((found, again), (vec![], rows), "each row is read once");
    // The last row of a table may end a step, so that the next step finds no further row.
    assert!((rows..=rows + 19).contains(&steps), "{steps} steps for {rows} rows");
}

/// Damages a sound store. Asserts that a pass of any steps finds it.
async fn assert_found(expected: &str, of: Option<&str>, damaged: impl FnOnce(&Path)) {
    assert_found_in(&sound().await, expected, of, damaged);
}

fn assert_found_in(directory: &tempfile::TempDir, expected: &str, of: Option<&str>, damaged: impl FnOnce(&Path)) {
    damaged(directory.path());
    for budget in [1, usize::MAX] {
        let (found, ..) = pass(directory.path(), budget);
        let texts: Vec<_> = found.iter().map(|finding| &*finding.text).collect();
        let Some(finding) = found.iter().find(|finding| finding.text == expected) else {
            panic!("{expected:?} is not in {texts:#?}")
        };
        assert_eq!(finding.id, of.map(id), "{expected}");
    }
}

#[tokio::test]
async fn each_kind_of_damage_is_found_and_names_its_conversation() {
    let unfit = |what| format!("a stored {what} cannot be read: its checksum does not fit");
    assert_found("conversation #1: its id has another key or none", Some("a"), |path| {
        damage(path, KEYS, |keys| drop(keys.remove("a").unwrap()));
    })
    .await;
    assert_found("conversation a: its record is missing", Some("a"), |path| {
        damage(path, CONVERSATIONS, |rows| drop(rows.remove(1).unwrap()));
    })
    .await;
    assert_found(&format!("conversation #1: {}", unfit("conversation")), None, |path| {
        damage(path, CONVERSATIONS, |rows| drop(rows.insert(1, Stored::as_it_is(&[7; 40])).unwrap()));
    })
    .await;
    assert_found("conversation #2: its record says 3 sealed turns, and the last one is 2", Some("b"), |path| {
        damage(path, TURNS, |turns| drop(turns.remove((2, 3)).unwrap()));
    })
    .await;
    assert_found("turn 3 of conversation #2: the turn before it is missing", Some("b"), |path| {
        damage(path, TURNS, |turns| drop(turns.remove((2, 2)).unwrap()));
    })
    .await;
    assert_found(&format!("turn 2 of conversation #1: {}", unfit("sealed turn")), Some("a"), |path| {
        damage(path, TURNS, |turns| drop(turns.insert((1, 2), Stored::as_it_is(&[7; 40])).unwrap()));
    })
    .await;
    assert_found("turn 2 of conversation #2: the index does not have its id", Some("b"), |path| {
        let place = hash(path, "y");
        damage(path, INDEX, |index| drop(index.remove((2, place)).unwrap()));
    })
    .await;
    assert_found(
        "the index at 0000000000000007 of conversation #1: it names turn 9, which is not there",
        Some("a"),
        |path| {
            damage(path, INDEX, |index| drop(index.insert((1, 7), StoredOrdinal::seal((1, 7), 9)).unwrap()));
        },
    )
    .await;
    assert_found(
        "the index at 0000000000000007 of conversation #1: it names turn 2, which has another id",
        Some("a"),
        |path| {
            damage(path, INDEX, |index| drop(index.insert((1, 7), StoredOrdinal::seal((1, 7), 2)).unwrap()));
        },
    )
    .await;
    assert_found(
        &format!("the index at 0000000000000007 of conversation #1: {}", unfit("row of the index")),
        Some("a"),
        |path| {
            damage(path, INDEX, |index| drop(index.insert((1, 7), StoredOrdinal::seal((1, 8), 2)).unwrap()));
        },
    )
    .await;
}

#[tokio::test]
async fn each_kind_of_damage_to_open_turns_lists_and_sums_is_found() {
    let unfit = |what| format!("a stored {what} cannot be read: its checksum does not fit");
    assert_found("open turn x of conversation #1: it is sealed", Some("a"), |path| {
        damage(path, OPEN_TURNS, |open| {
            let head = StagedRecords::encode(&staged("x", 0).into()).unwrap().head;
            open.insert((1, "x"), row::seal(&(1, "x"), &mut head.to_vec())).unwrap();
        });
    })
    .await;
    assert_found("open turn open of conversation #1: step 1: it is missing", Some("a"), |path| {
        damage(path, OPEN_STEPS, |steps| drop(steps.remove((1, "open", 1)).unwrap()));
    })
    .await;
    assert_found("step 1 of open turn open of conversation #2: there is no head of the turn", Some("b"), |path| {
        damage(path, OPEN_TURNS, |open| drop(open.remove((2, "open")).unwrap()));
    })
    .await;
    assert_found("conversation #1: it has no place by activity", Some("a"), |path| {
        damage(path, ACTIVITY, |places| drop(places.remove((u64::MAX - 2, "a")).unwrap()));
    })
    .await;
    assert_found("conversation a: it has a place by activity that is not its own", Some("a"), |path| {
        damage(path, ACTIVITY, |places| {
            let place = (7, "a");
            places.insert(place, row::seal(&place, &mut 1u64.to_le_bytes().to_vec())).unwrap();
        });
    })
    .await;
    assert_found("position 3: the position before it is missing", None, |path| {
        damage(path, POSITIONS, |positions| drop(positions.remove(2).unwrap()));
    })
    .await;
    assert_found("the order of all turns: positions are missing", None, |path| {
        damage(path, POSITIONS, |positions| drop(positions.remove(6).unwrap()));
    })
    .await;
    assert_found("position 5: it has turn 2 of conversation #2, which is not there", Some("b"), |path| {
        damage(path, TURNS, |turns| drop(turns.remove((2, 2)).unwrap()));
    })
    .await;
    let label = |path: &Path| {
        let database = Database::open(path.join(StoreFile::Main.name())).unwrap();
        let labels = database.begin_read().unwrap().open_table(LABELS).unwrap();
        let (hash, _) = labels.first().unwrap().unwrap();
        hash.value()
    };
    let first = label(sound().await.path());
    assert_found(&format!("label {first:016x}: {}", unfit("label of rollups")), None, |path| {
        damage(path, LABELS, |labels| drop(labels.insert(first, Stored::as_it_is(&[7; 40])).unwrap()));
    })
    .await;
    assert_found(&format!("rollup (0, 0, {first}): its label is missing"), None, |path| {
        damage(path, LABELS, |labels| drop(labels.remove(first).unwrap()));
    })
    .await;
    assert_found(&format!("rollup (0, 0, {first}): {}", unfit("rollup")), None, |path| {
        damage(path, ROLLUPS, |rollups| drop(rollups.insert((0, 0, first), Stored::as_it_is(&[7; 40])).unwrap()));
    })
    .await;
}

/// Returns the life and the key of the conversation that is being erased.
fn erasure(directory: &Path) -> (u64, u64) {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    let erasures = database.begin_read().unwrap().open_table(ERASURES).unwrap();
    let (life, erasure) = erasures.first().unwrap().unwrap();
    let life = life.value();
    (life, Erasure::decode(Life(life), erasure.value().verify(&life).unwrap()).unwrap().key)
}

#[tokio::test]
async fn each_kind_of_damage_to_erasures_is_found() {
    for expected in [
        |_: u64, key: u64| format!("turn 1 of conversation #{key}: its conversation is unknown"),
        |life: u64, key: u64| format!("the erasure {life:016x}: no note says that conversation #{key} was erased"),
    ] {
        let directory = filled().await;
        let (life, key) = erasure(directory.path());
        assert_found_in(&directory, &expected(life, key), None, |path| {
            damage(path, ERASED, |erased| drop(erased.remove(key).unwrap()));
        });
    }
    let directory = filled().await;
    assert_found_in(&directory, "the erased conversation #1: its record is there", Some("a"), |path| {
        damage(path, ERASED, |erased| {
            erased.insert(1, row::seal(&1, &mut 2u64.to_le_bytes().to_vec())).unwrap();
        });
    });
}

#[tokio::test]
async fn a_conversation_with_a_finding_takes_nothing_new_until_a_repair_and_others_go_on() {
    let directory = sound().await;
    let place = hash(directory.path(), "y");
    damage(directory.path(), INDEX, |index| {
        index.insert((1, place), StoredOrdinal::seal((1, place), 2 << 20)).unwrap();
    });
    let store = open(directory.path());
    // The look-up searches the turns, so nothing is sealed twice even before the scrub.
    let again = store.commit(sealing("b", 1, "y")).await.unwrap();
    assert!(matches!(again.outcomes[0].1, TurnOutcome::Duplicate(at) if at.get() == 2));
    let report = store.scrub().unwrap();
    assert!(report.findings > 0 && report.scrub_passes >= 1 && report.scrubbed_rows > 20, "{report:?}");
    let (findings, again) = (report.findings, store.scrub().unwrap().findings);
    assert_eq!(again, findings, "a finding that is met again is the same one");
    let mut running = Some(store);
    for (version, turn) in [(1, "v"), (2, "w")] {
        let store = running.take().unwrap_or_else(|| open(directory.path()));
        assert_eq!(store.damage().findings, findings);
        let refused = store.commit(sealing("a", 1, "new")).await.unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("run `turn-metrics check --repair`"), "{said}");
        seal(&store, "b", version, &[turn]).await;
        assert_eq!(store.all_turns(&id("a")).unwrap().len(), 3, "it can be read");
        lose(store).await;
    }
    let before = told(&check(directory.path()).unwrap());
    assert!(before.iter().any(|line| line.starts_with("a scrub found the index at")), "{before:#?}");
    let (_, repaired) = repair(directory.path()).unwrap();
    assert_eq!(told(&repaired.unwrap().1), [""; 0]);
    let store = open(directory.path());
    assert_eq!(store.scrub().unwrap().findings, 0);
    seal(&store, "a", 1, &["new"]).await;
    store.close().await;
}

#[tokio::test]
async fn a_table_that_cannot_be_read_is_a_finding_and_the_pass_goes_on() {
    let directory = sound().await;
    damage(directory.path(), KEYS, |keys| drop(keys.insert("a", Stored::as_it_is(&[1; 16])).unwrap()));
    // redb panics when it reads a key that is no text.
    let path = directory.path().join(StoreFile::Main.name());
    let mut bytes = std::fs::read(&path).unwrap();
    let mut of_keys = Vec::new();
    for at in 0..bytes.len() - 17 {
        if bytes[at] == b'a' && bytes[at + 1..at + 17] == [1; 16]
            || bytes[at] == b'a' && bytes[at + 1] == b'b' && bytes[at + 2..at + 18] == [1; 16]
        {
            of_keys.push(at);
        }
    }
    assert!(!of_keys.is_empty());
    for at in of_keys {
        bytes[at] = 0xff;
    }
    std::fs::write(&path, bytes).unwrap();
    let store = open(directory.path());
    let report = store.scrub().unwrap();
    assert!(report.findings > 0 && report.scrub_passes >= 1, "{report:?}");
    let refused = store.commit(sealing("a", 1, "new")).await.unwrap_err();
    assert!(refused.to_string().starts_with("the store is unavailable"), "{refused}");
    lose(store).await;
}

/// Damages each leaf that has the first turn of the conversation 2, so that reading it fails.
fn break_first_leaf(directory: &Path) {
    let path = directory.join(StoreFile::Main.name());
    let mut bytes = std::fs::read(&path).unwrap();
    let key = [2u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
    let mut broken = 0;
    for at in (4096..bytes.len()).step_by(4096) {
        let rows = usize::from(u16::from_le_bytes([bytes[at + 2], bytes[at + 3]]));
        let keys = at + 4 + 4 * rows;
        if bytes[at] == 1 && rows < 200 && bytes[keys..keys + 16 * rows].chunks(16).any(|found| found == key) {
            bytes[at + 2..at + 4].fill(0xff);
            broken += 1;
        }
    }
    assert!(broken > 0);
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn conversations_behind_a_page_that_cannot_be_read_are_compared_and_those_in_it_take_nothing_new() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let ids: Vec<_> = (0..300).map(|nth| format!("t{nth}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    for name in ["a", "b", "c", "d", "e"] {
        seal(&store, name, 0, &ids).await;
    }
    store.close().await;
    // Like pages of an earlier moment: the index lacks the turns.
    damage(directory.path(), INDEX, |index| {
        for key in [2, 4] {
            index.retain_in((key, 0)..=(key, u64::MAX), |_, _| false).unwrap();
        }
    });
    break_first_leaf(directory.path());
    let store = open(directory.path());
    let report = store.scrub().unwrap();
    assert!(report.findings > 0 && report.scrub_passes == 1, "{report:?}");
    assert_eq!(store.scrub().unwrap().findings, report.findings, "the next pass finds the same");
    let mut running = Some(store);
    for version in 1..=2 {
        let store = running.take().unwrap_or_else(|| open(directory.path()));
        for turn in [ids[0], ids[150], ids[299], "new"] {
            for name in ["b", "d"] {
                let refused = store.commit(sealing(name, 1, turn)).await.map(drop).unwrap_err();
                assert!(refused.to_string().starts_with("the store is unavailable"), "{refused}");
            }
        }
        assert!(matches!(
            store.commit(sealing("e", version, ids[7])).await.unwrap().outcomes[0].1,
            TurnOutcome::Duplicate(at) if at.get() == 8
        ));
        seal(&store, "e", version, &[&format!("new {version}")]).await;
        lose(store).await;
    }
}

#[tokio::test]
async fn a_key_that_is_no_text_is_a_finding_and_the_rows_behind_it_are_read() {
    fn insert<T: Rows>(directory: &Path, key: &[u8], value: &[u8]) {
        damage(directory, TableDefinition::<RawKey<T::Key>, Row<T>>::new(T::NAME), |rows| {
            rows.insert(key, Stored::as_it_is(value)).unwrap();
        });
    }
    let directory = sound().await;
    insert::<Keys>(directory.path(), b"a\xff", &[1; 16]);
    insert::<Keys>(directory.path(), b"b", &[1; 16]);
    insert::<OpenTurns>(directory.path(), b"\x01\0\0\0\0\0\0\0p\xff", &[1; 16]);
    insert::<OpenTurns>(directory.path(), b"\x02\0\0\0\0\0\0\0other", &[1; 16]);
    for budget in [1, usize::MAX] {
        let (found, ..) = pass(directory.path(), budget);
        let texts: Vec<_> = found.iter().map(|finding| &*finding.text).collect();
        for expected in [
            "the row of the table conversation_keys under the bytes a\\xff: a stored key of a conversation cannot be \
             read: its key is none",
            "conversation b: a stored key of a conversation cannot be read: its checksum does not fit",
            "open turn other of conversation #2: a stored open turn cannot be read: its checksum does not fit",
        ] {
            assert!(texts.contains(&expected), "{expected:?} is not in {texts:#?}");
        }
        assert!(texts.iter().any(|text| text.contains("under the bytes \\x01\\x00")), "{texts:#?}");
    }
}

#[tokio::test]
async fn a_damaged_fact_about_the_file_is_told_and_never_used() {
    let directory = sound().await;
    let path = directory.path().join(StoreFile::Main.name());
    let sound = std::fs::read(&path).unwrap();
    let name = b"store_id";
    let places: Vec<_> = (0..sound.len() - name.len()).filter(|at| sound[*at..].starts_with(name)).collect();
    assert!(!places.is_empty());
    let mut bytes = sound;
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    let refused = refusal(directory.path());
    let fault = crate::store::Fault::from(refused);
    assert_eq!(fault.kind(), FaultKind::Damaged, "{}", fault.in_full());
}

/// Damages the tables of a running store, and scrubs it twice. Returns the findings that the store has then.
fn found_while_it_runs(damage: impl FnOnce(&WriteTransaction)) -> Vec<String> {
    let slot = Arc::new(Slot::new(Location::Memory.open(1 << 20).unwrap()));
    let txn = slot.with(Files::write_tables).unwrap().unwrap();
    damage(&txn);
    txn.commit().unwrap();
    let scrubber = Scrubber::new(Arc::clone(&slot), Arc::new(Checkpoint::new(Arc::clone(&slot), 1 << 20)));
    for pass in 1..=2 {
        scrubber.run().unwrap();
        assert_eq!(scrubber.passes(), pass);
    }
    let txn = slot.with(Files::begin_read).unwrap().unwrap();
    let findings = txn.open_table(FINDINGS).unwrap();
    findings.iter().unwrap().map(|row| row.unwrap().0.value().to_owned()).collect()
}

#[test]
fn damage_to_a_fact_or_to_the_tree_of_tables_of_a_running_store_is_a_finding() {
    let fact = |name: &'static str| {
        found_while_it_runs(|txn| {
            txn.open_table(META).unwrap().insert(name, Stored::as_it_is(&[7; 24])).unwrap();
        })
    };
    let unfit = "a stored record of the store's own cannot be read: its checksum does not fit";
    assert_eq!(fact("store_id"), [format!("`store_id` of the store: {unfit}")]);
    let told = "the order of all turns: the store's own record `rolled_up` is missing or damaged".to_owned();
    assert_eq!(fact("rolled_up"), [format!("`rolled_up` of the store: {unfit}"), told]);
    let without_table = found_while_it_runs(|txn| assert!(txn.delete_table(TURNS).unwrap()));
    assert_eq!(without_table, ["the tables: Table 'turns' does not exist"]);
}
