//! Compares the acknowledgements to the clients with the turns that are stored at the end. Pure: it needs no server.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::script::{Folded, Name, Scripts};

/// An acknowledgement to a client. The client adds it to its history when it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// These events of a turn are durable.
    Accepted { turn: Name, events: Range<usize> },
    /// A turn is sealed and has this ordinal.
    Sealed { turn: Name, ordinal: u64, duplicate: bool },
}

/// The acknowledgements to a client, in order.
pub(crate) type History = Vec<Note>;

/// The turns of each conversation, as the server returns them.
pub(crate) type Outcome = BTreeMap<String, Vec<StoredTurn>>;

/// A turn as the server returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredTurn {
    pub(crate) turn: String,
    pub(crate) ordinal: u64,
    pub(crate) folded: Folded,
}

/// A way to break the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A turn was acknowledged as sealed and is missing.
    Lost,
    /// A turn has another ordinal than was acknowledged.
    Moved,
    /// The ordinals of a conversation are not 1, 2, 3, ...
    Gap,
    /// A turn is stored twice.
    Duplicate,
    /// Two acknowledgements contradict each other.
    Contradiction,
    /// A client had one turn sealed after another, but the store has them in the opposite order.
    Reordered,
    /// A `done` was acknowledged, but the answer did not contain the turn's ordinal.
    Untold,
    /// A sealed turn lacks an event that was acknowledged while it was open.
    Forgotten,
    /// A turn's metrics are not those of the fold of its events.
    Metrics,
    /// A turn is stored that no client sent.
    Invented,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    /// The place and the details.
    pub(crate) what: String,
}

/// Returns everything in `outcome` that contradicts the acknowledgements in the histories.
pub(crate) fn check(scripts: &Scripts, histories: &[History], outcome: &Outcome) -> Vec<Violation> {
    let mut check = Check { scripts, told: Told::default(), violations: Vec::new() };
    for history in histories {
        check.read(history);
    }
    check.hold_against(outcome);
    check.violations
}

/// The acknowledgements of all histories together.
#[derive(Default)]
struct Told {
    ordinals: BTreeMap<Name, u64>,
    /// The turns by conversation and ordinal.
    at: BTreeMap<(String, u64), String>,
    sealed_first: BTreeSet<Name>,
    accepted: BTreeMap<Name, BTreeSet<usize>>,
}

struct Check<'a> {
    scripts: &'a Scripts,
    told: Told,
    violations: Vec<Violation>,
}

impl Check<'_> {
    fn report(&mut self, kind: Kind, what: String) {
        self.violations.push(Violation { kind, what });
    }

    fn read(&mut self, history: &History) {
        let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
        for note in history {
            match note {
                Note::Accepted { turn, events } => {
                    self.told.accepted.entry(turn.clone()).or_default().extend(events.clone());
                }
                Note::Sealed { turn, ordinal, duplicate } => {
                    let latest = latest.entry(&turn.0).or_default();
                    if !duplicate && *ordinal < *latest {
                        self.report(Kind::Reordered, format!("{turn:?} at {ordinal} was sealed after {latest}"));
                    }
                    *latest = (*latest).max(*ordinal);
                    self.sealed(turn, *ordinal, *duplicate);
                }
            }
        }
    }

    fn sealed(&mut self, turn: &Name, ordinal: u64, duplicate: bool) {
        let first = *self.told.ordinals.entry(turn.clone()).or_insert(ordinal);
        if first != ordinal {
            self.report(Kind::Contradiction, format!("{turn:?} was acknowledged at {first} and at {ordinal}"));
        }
        let other = self.told.at.entry((turn.0.clone(), ordinal)).or_insert_with(|| turn.1.clone()).clone();
        if other != turn.1 {
            self.report(Kind::Contradiction, format!("{turn:?} was acknowledged at {ordinal}, and so was {other}"));
        }
        if !duplicate && !self.told.sealed_first.insert(turn.clone()) {
            self.report(Kind::Contradiction, format!("{turn:?} was acknowledged twice as newly sealed"));
        }
    }

    fn hold_against(&mut self, outcome: &Outcome) {
        let mut found: BTreeMap<Name, &StoredTurn> = BTreeMap::new();
        for (conversation, turns) in outcome {
            for (expected, stored) in (1..).zip(turns) {
                let name = (conversation.clone(), stored.turn.clone());
                if stored.ordinal != expected {
                    self.report(Kind::Gap, format!("{name:?} is at {}, where {expected} should be", stored.ordinal));
                }
                if found.contains_key(&name) {
                    self.report(Kind::Duplicate, format!("{name:?} is there twice"));
                } else {
                    found.insert(name.clone(), stored);
                }
                self.check_metrics(&name, stored);
            }
        }
        let ordinals = std::mem::take(&mut self.told.ordinals);
        for (turn, ordinal) in &ordinals {
            match found.get(turn) {
                None => self.report(Kind::Lost, format!("{turn:?}, acknowledged at {ordinal}")),
                Some(stored) if stored.ordinal != *ordinal => {
                    self.report(Kind::Moved, format!("{turn:?} from {ordinal} to {}", stored.ordinal));
                }
                Some(_) => {}
            }
        }
        let scripts = self.scripts;
        for (turn, events) in std::mem::take(&mut self.told.accepted) {
            let ends = scripts.get(&turn).is_some_and(|script| events.contains(&(script.len() - 1)));
            if ends && !ordinals.contains_key(&turn) {
                self.report(Kind::Untold, format!("{turn:?}"));
            }
        }
    }

    fn check_metrics(&mut self, name: &Name, stored: &StoredTurn) {
        let Some(script) = self.scripts.get(name) else {
            return self.report(Kind::Invented, format!("{name:?}"));
        };
        // Events that were not acknowledged may be stored or not.
        let whole = script.fold(|_| true);
        let told = self.told.accepted.get(name).cloned().unwrap_or_default();
        let least = script.fold(|event| told.contains(&event));
        if stored.folded == whole || stored.folded == least {
            return;
        }
        // If the metrics are those of the turn without one acknowledged event, that event was forgotten.
        let forgotten = (0..script.len()).find(|one| script.fold(|event| event != *one) == stored.folded);
        let lacks_a_step = stored.folded.metrics.steps.len() < whole.metrics.steps.len();
        let kind = if forgotten.is_some() || lacks_a_step { Kind::Forgotten } else { Kind::Metrics };
        self.report(kind, format!("{name:?} is {:?} instead of {whole:?}", stored.folded));
    }
}
