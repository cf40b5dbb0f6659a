use std::path::Path;

use super::set_up::{assert_found_and_repaired, damage, id, open, sealing, sound, staged, told};
use crate::store::Commit;
use crate::store::redb::maintenance::check::check;
use crate::store::redb::tables::row::{Row, Stored};
use crate::store::redb::tables::schema::{OPEN_STEPS, OPEN_TURNS, OpenTurnSteps, StepKey};
use crate::store::redb::tables::{record, row};
use crate::turn::{OpenStep, StepId, TurnId};

/// Inserts a sound row for a step of a turn.
fn put_step(steps: &mut redb::Table<'_, StepKey, Row<OpenTurnSteps>>, place: (u64, &str, u32), step: &OpenStep) {
    let mut record = record::encode_step(&TurnId::new(place.1).unwrap(), place.2, step).unwrap();
    steps.insert(place, row::seal(&place, &mut record)).unwrap();
}

#[tokio::test]
async fn each_disagreement_of_heads_and_steps_is_named_and_repaired() {
    type Damage = fn(&mut redb::Table<'_, StepKey, Row<OpenTurnSteps>>);
    let step = |id: &str| OpenStep::new(StepId::new(id).unwrap());
    let cases: [(&str, Damage, &[&str]); 8] = [
        ("step 0: it is missing", |rows| drop(rows.remove((1, "open", 0)).unwrap()), &["other"]),
        ("step 1: it is missing", |rows| drop(rows.remove((1, "open", 1)).unwrap()), &["other"]),
        ("step 2: it is missing", |rows| drop(rows.remove((1, "open", 2)).unwrap()), &["other"]),
        (
            "step 1: a stored step of an open turn cannot be read: its checksum does not fit",
            |rows| drop(rows.insert((1, "open", 1), Stored::as_it_is(b"nonsense")).unwrap()),
            &["other"],
        ),
        (
            "step 1: a stored step of an open turn cannot be read: Hit the end of buffer, expected more data",
            |rows| drop(rows.insert((1, "open", 1), row::seal(&(1, "open", 1), &mut b"\x01".to_vec())).unwrap()),
            &["other"],
        ),
        (
            "step 2: an earlier one has its id open#0",
            |rows| put_step(rows, (1, "open", 2), &OpenStep::new(StepId::new("open#0").unwrap())),
            &["other"],
        ),
        (
            "step 3: there are 3 steps by the head of the turn",
            |rows| put_step(rows, (1, "open", 3), &OpenStep::new(StepId::new("open#3").unwrap())),
            &["open", "other"],
        ),
        (
            "step 7: there is no head of the turn",
            |rows| put_step(rows, (1, "opened", 7), &OpenStep::new(StepId::new("s").unwrap())),
            &["open", "other"],
        ),
    ];
    for (expected, damaged, left) in cases {
        let name = if expected.starts_with("step 7") { "opened" } else { "open" };
        let expected = format!("open turn {name} of conversation a: {expected}");
        let directory = assert_found_and_repaired(&expected, |path| damage(path, OPEN_STEPS, damaged)).await;
        let store = open(directory.path());
        let open_of = |name| {
            let mut open = store.conversation_state(&id(name), &[]).unwrap().open_turns;
            open.sort_by(|one, other| one.turn.id.cmp(&other.turn.id));
            open
        };
        let whole = [staged("open", 3), staged("other", 0)];
        let expected: Vec<_> = whole.iter().filter(|staged| left.contains(&staged.turn.id.as_str())).cloned().collect();
        assert_eq!(open_of("a"), expected);
        assert_eq!(open_of("b"), whole);
        store.close().await;
    }
    // The step belongs to a turn that is sealed.
    assert_found_and_repaired("open turn x of conversation a: step 0: there is no head of the turn", |path| {
        damage(path, OPEN_STEPS, |rows| put_step(rows, (1, "x", 0), &step("s")));
    })
    .await;
}

#[tokio::test]
async fn an_open_turn_with_a_damaged_row_begins_anew_and_leaves_nothing_of_before() {
    type Damage = fn(&Path);
    let damages: [Damage; 2] = [
        |path| damage(path, OPEN_STEPS, |rows| drop(rows.insert((1, "open", 1), Stored::as_it_is(b"")).unwrap())),
        |path| damage(path, OPEN_TURNS, |rows| drop(rows.insert((1, "open"), Stored::as_it_is(b"")).unwrap())),
    ];
    for damaged in damages {
        let directory = sound().await;
        damaged(directory.path());
        let store = open(directory.path());
        assert_eq!(store.conversation_state(&id("a"), &[]).unwrap().open_turns, [staged("other", 0)]);
        assert_eq!(store.damaged_records(), 1);
        let anew = staged("open", 1);
        store
            .commit(Commit { staged: vec![anew.clone().into()], sealed: Vec::new(), ..sealing("a", 1, "none") })
            .await
            .unwrap();
        store.close().await;
        assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
        let store = open(directory.path());
        assert_eq!(store.conversation_state(&id("a"), &[]).unwrap().open_turns, [anew, staged("other", 0)]);
        store.close().await;
    }
}
