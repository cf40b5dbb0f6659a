//! Tests of the checker. Each way of breaking the promise is given to it as data, and it must find the right kind.

use super::checker::{History, Kind, Note, Outcome, StoredTurn, check};
use super::script::{Script, Scripts};

/// Two clients that sent the same three turns of a conversation, and the stored turns.
struct Case {
    scripts: Scripts,
    histories: Vec<History>,
    outcome: Outcome,
}

fn sealed(turn: &Script, ordinal: u64, duplicate: bool) -> Note {
    Note::Sealed { turn: turn.name.clone(), ordinal, duplicate }
}

fn sound() -> Case {
    // The first turns of this conversation that have a step, so that an event can be forgotten.
    let turns = (0..).map(|n| Script::of(7, "c", n)).filter(|script| script.len() >= 5).take(3).collect::<Vec<_>>();
    let mut histories = vec![History::new(), History::new()];
    let mut stored = Vec::new();
    for (ordinal, turn) in (1..).zip(&turns) {
        let end = turn.len() - 1;
        for (client, history) in histories.iter_mut().enumerate() {
            history.push(Note::Accepted { turn: turn.name.clone(), events: 0..end });
            history.push(Note::Accepted { turn: turn.name.clone(), events: end..end + 1 });
            history.push(sealed(turn, ordinal, client == 1));
        }
        stored.push(StoredTurn { turn: turn.name.1.clone(), ordinal, folded: turn.fold(|_| true) });
    }
    let scripts = turns.into_iter().map(|script| (script.name.clone(), script)).collect();
    Case { scripts, histories, outcome: Outcome::from([("c".into(), stored)]) }
}

impl Case {
    fn script(&self, place: usize) -> Script {
        self.scripts[&("c".into(), self.outcome["c"][place].turn.clone())].clone()
    }

    fn stored(&mut self) -> &mut Vec<StoredTurn> {
        self.outcome.get_mut("c").unwrap()
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> =
            check(&self.scripts, &self.histories, &self.outcome).iter().map(|violation| violation.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

#[test]
fn a_kept_promise_has_no_violation() {
    let mut case = sound();
    assert_eq!(case.kinds(), []);
    // Turns that were not acknowledged may be stored or not.
    let unknown = Script::of(7, "d", 0);
    case.scripts.insert(unknown.name.clone(), unknown.clone());
    assert_eq!(case.kinds(), []);
    let folded = unknown.fold(|_| true);
    case.outcome.insert("d".into(), vec![StoredTurn { turn: unknown.name.1, ordinal: 1, folded }]);
    assert_eq!(case.kinds(), []);
}

#[test]
fn each_broken_promise_is_found_as_the_right_kind() {
    type Break = fn(&mut Case);
    let breaks: &[(&[Kind], Break)] = &[
        (&[Kind::Lost], |case| drop(case.stored().pop())),
        (&[Kind::Lost, Kind::Moved], |case| {
            case.stored().remove(1);
            case.stored()[1].ordinal = 2;
        }),
        (&[Kind::Lost], |case| case.outcome.clear()),
        (&[Kind::Moved], |case| {
            case.stored().swap(0, 1);
            case.stored()[0].ordinal = 1;
            case.stored()[1].ordinal = 2;
        }),
        (&[Kind::Moved, Kind::Gap], |case| case.stored()[2].ordinal = 4),
        (&[Kind::Gap], |case| case.stored().swap(0, 1)),
        (&[Kind::Duplicate], |case| {
            let again = StoredTurn { ordinal: 4, ..case.stored()[0].clone() };
            case.stored().push(again);
        }),
        (&[Kind::Contradiction], |case| {
            let turn = case.script(1);
            case.histories[1].push(sealed(&turn, 3, true));
        }),
        (&[Kind::Contradiction], |case| {
            let turn = case.script(2);
            case.histories[1].push(sealed(&turn, 3, false));
        }),
        (&[Kind::Moved, Kind::Reordered], |case| {
            case.histories.pop();
            let (first, second) = (case.script(0), case.script(1));
            case.histories[0][2] = sealed(&first, 2, false);
            case.histories[0][5] = sealed(&second, 1, false);
        }),
        (&[Kind::Untold], |case| {
            case.histories.pop();
            case.histories[0].pop();
        }),
        (&[Kind::Forgotten], |case| {
            let turn = case.script(0);
            case.stored()[0].folded = turn.fold(|event| event != 0);
        }),
        (&[Kind::Forgotten], |case| {
            let turn = case.script(2);
            case.stored()[2].folded = turn.fold(|_| false);
        }),
        (&[Kind::Metrics], |case| case.stored()[0].folded.metrics.usage.output_tokens = 999_999.into()),
        (&[Kind::Invented], |case| {
            let folded = Script::of(7, "c", 99).fold(|_| true);
            case.stored().push(StoredTurn { turn: "t99".into(), ordinal: 4, folded });
        }),
    ];
    for (n, (expected, breaks)) in breaks.iter().enumerate() {
        let mut case = sound();
        breaks(&mut case);
        assert_eq!(case.kinds(), *expected, "break number {n}");
    }
}

#[test]
fn an_event_acknowledged_to_only_one_client_must_be_there() {
    for event in 0..sound().script(0).len() - 1 {
        let mut case = sound();
        let turn = case.script(0);
        // Each event was acknowledged to only one of the clients. The stored turn lacks one of them.
        case.histories[0][0] = Note::Accepted { turn: turn.name.clone(), events: 0..event };
        case.histories[1][0] = Note::Accepted { turn: turn.name.clone(), events: event..turn.len() - 1 };
        case.stored()[0].folded = turn.fold(|other| other != event);
        assert_eq!(case.kinds(), [Kind::Forgotten], "event {event}");
    }
}
