use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::settings::StoreSettings;
use crate::store::redb::maintenance::check::loss::Loss;
use crate::store::redb::maintenance::check::report::CheckReport;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::{
    Commit, DropTurns, Health, Location, OpenError, RedbEngine, StagedTurn, StoreFile, TurnOutcome, Version,
};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenTurn, Ordinal, Progress, RunningTime, StepId, StepTimes, StoredTurn, TurnId,
    Usage,
};

const CONVERSATIONS: u64 = 30;
/// A conversation that was erased before the commits that are in the tables ended.
const ERASED: u64 = 30;
/// A conversation whose erasure is in the journal only, if there is a journal.
const ERASED_IN_JOURNAL: u64 = 31;
/// A conversation whose first turns were dropped because of their age. The turns of the others are younger.
const AGED: u64 = 29;
/// A conversation that was imported without its first turns.
const IMPORTED: u64 = 28;
/// The number of turns that were dropped.
const DROPPED: u64 = 2 * SEALED_AT_ONCE;
/// How much younger the turns of other conversations are, in milliseconds.
const YOUNGER: u64 = 1_000_000;
/// The commits to each conversation that are in the tables, and those that are in the journal only.
const IN_TABLES: u64 = 8;
const IN_JOURNAL: u64 = 3;
/// The turns that a commit seals.
const SEALED_AT_ONCE: u64 = 8;

/// The files of a store, and what the store answered.
pub(super) struct World {
    pub(super) main: Vec<u8>,
    /// `None` if the store was closed in order.
    pub(super) journal: Option<Vec<u8>>,
    sealed: BTreeMap<(String, u64), StoredTurn>,
    open: BTreeMap<(String, String), StagedTurn>,
}

fn id(number: u64) -> ConversationId {
    ConversationId::new(format!("conversation-{number:03}-with-a-name-of-usual-length")).unwrap()
}

/// Returns an open turn after some events.
fn staged(name: &str, events: u64) -> StagedTurn {
    let mut turn = OpenTurn::new(TurnId::new(name).unwrap());
    for event in 0..events {
        let step_id = Some(StepId::new(format!("{name}#{}", event % 3)).unwrap());
        let usage = Usage {
            input_tokens: u32::try_from(900 + event).unwrap().into(),
            output_tokens: 20.into(),
            ..Usage::default()
        };
        turn.fold(&Progress::Usage { step_id, report: usage.into(), is_final: false });
    }
    StagedTurn { turn, last_event_at: RunningTime::new(events) }
}

fn open(directory: &Path) -> RedbEngine {
    World::try_open(directory).unwrap()
}

/// Returns the commit of a conversation after this version.
fn commit(conversation: u64, version: u64) -> Commit {
    let young = if conversation == AGED { 0 } else { YOUNGER };
    let sealed = (0..SEALED_AT_ONCE).map(|nth| {
        let name = format!("turn-{version:03}-{nth}-of-{conversation:03}");
        let times = StepTimes { decode: Some(u32::try_from(nth).unwrap().into()), ..StepTimes::default() };
        let mut turn = staged(&name, 3).turn;
        let step_id = StepId::new(format!("{name}#1")).unwrap();
        turn.fold(&Progress::StepComplete { step_id, times, model: Some("m".into()), provider: None });
        turn.seal(&Done::because("stop"), EpochMillis::new(1000 * version + nth + young))
    });
    let imported_from = (conversation == IMPORTED && version == 0).then_some(Ordinal::after(4));
    let open = ["first", "second"].map(|name| staged(&format!("{name}-of-{conversation:03}"), version + 2).into());
    Commit {
        conversation_id: id(conversation),
        expected_version: Version(version),
        staged: open.into(),
        sealed: sealed.collect(),
        imported_from,
    }
}

/// What a store answers: its sealed and its open turns.
type Answers = (BTreeMap<(String, u64), StoredTurn>, BTreeMap<(String, String), StagedTurn>);

fn answers(store: &RedbEngine) -> Answers {
    let (mut sealed, mut open) = (BTreeMap::new(), BTreeMap::new());
    for id in (0..=ERASED_IN_JOURNAL).map(id) {
        for turn in store.all_turns(&id).unwrap() {
            sealed.insert((id.to_string(), turn.ordinal.get()), turn);
        }
        for turn in store.conversation_state(&id, &[]).unwrap().open_turns {
            open.insert((id.to_string(), turn.turn.id.to_string()), turn);
        }
    }
    (sealed, open)
}

impl World {
    async fn new(is_closed: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let mut versions = 0..IN_TABLES;
        for version in versions.by_ref() {
            for conversation in 0..=ERASED_IN_JOURNAL {
                store.commit(commit(conversation, version)).await.unwrap();
            }
        }
        assert_eq!(store.erase(id(ERASED)).await, Ok(true));
        // In two parts, so that there is an earlier note too.
        for before in [1000, 2000] {
            let old = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(before) };
            while !store.drop_turns(old).await.unwrap().is_done {}
        }
        assert_eq!(store.revision(&id(AGED)).unwrap().dropped_turns, DROPPED);
        store.close().await;
        if !is_closed {
            let store = open(directory.path());
            assert_eq!(store.erase(id(ERASED_IN_JOURNAL)).await, Ok(true));
            for version in IN_TABLES..IN_TABLES + IN_JOURNAL {
                for conversation in 0..CONVERSATIONS {
                    store.commit(commit(conversation, version)).await.unwrap();
                }
            }
            Self::lose(store).await;
        }
        let read = |file: StoreFile| fs::read(directory.path().join(file.name()));
        let (main, journal) = (read(StoreFile::Main).unwrap(), read(StoreFile::Journal).ok());
        assert_eq!(journal.is_none(), is_closed);
        assert_eq!(check(directory.path()).unwrap().violations, []);
        let store = open(directory.path());
        let (sealed, open) = answers(&store);
        Self::lose(store).await;
        Self { main, journal, sealed, open }
    }

    /// Returns a store that was closed in order.
    pub(super) async fn closed() -> &'static Self {
        static WORLD: OnceCell<World> = OnceCell::const_new();
        WORLD.get_or_init(|| Self::new(true)).await
    }

    /// Returns a store as a kill leaves it: its latest commits are in the journal only.
    pub(super) async fn killed() -> &'static Self {
        static WORLD: OnceCell<World> = OnceCell::const_new();
        WORLD.get_or_init(|| Self::new(false)).await
    }

    /// Returns how many sealed turns are in the journal only.
    pub(super) fn sealed_in_journal(&self) -> usize {
        self.sealed.keys().filter(|(_, ordinal)| *ordinal > IN_TABLES * SEALED_AT_ONCE).count()
    }

    pub(super) fn sealed_turns(&self) -> usize {
        self.sealed.len()
    }

    pub(super) fn try_open(directory: &Path) -> Result<RedbEngine, OpenError> {
        RedbEngine::open(Location::Directory(directory.to_owned()), &StoreSettings::default())
    }

    /// Ends a store as a kill of its process does.
    pub(super) async fn lose(store: RedbEngine) {
        let mut writer = store.health();
        drop(store);
        writer.wait_for(|state| *state != Health::Running).await.unwrap();
    }

    /// Asserts that a store answers as this one did.
    pub(super) async fn assert_same(&self, directory: &Path, damage: &str) {
        let store = open(directory);
        let (sealed, open) = answers(&store);
        Self::lose(store).await;
        assert!(sealed == self.sealed && open == self.open, "{damage}: a copy has other values");
    }

    /// Reads all sealed turns as an export does. Asserts that each is right, comes once, and that the export says so if it
    /// leaves some out. Returns how many it leaves out; `None` if it fails.
    pub(super) fn export(&self, store: &RedbEngine, damage: &str) -> Option<u64> {
        let (mut after, mut exported, mut left_out) = (None, BTreeSet::new(), 0);
        loop {
            let page = store.sealed_turns(after, 100).ok()?;
            left_out += page.left_out;
            for sealed in page.turns {
                let place = (sealed.conversation_id.to_string(), sealed.turn.ordinal.get());
                assert!(
                    self.sealed.get(&place) == Some(&sealed.turn),
                    "{damage}: {place:?} is exported as another turn"
                );
                assert!(exported.insert(place), "{damage}: a turn is exported twice");
            }
            if page.next == page.latest {
                break;
            }
            after = Some(page.next);
        }
        let lacking = self.sealed.len() - exported.len();
        assert!(lacking as u64 <= left_out, "{damage}: the export lacks {lacking} turns and reports {left_out}");
        Some(left_out)
    }

    /// Writes files like those of this store into a new directory.
    pub(super) fn place(main: &[u8], journal: Option<&[u8]>) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(StoreFile::Main.name()), main).unwrap();
        if let Some(journal) = journal {
            fs::write(directory.path().join(StoreFile::Journal.name()), journal).unwrap();
        }
        directory
    }

    /// Repairs damaged files. Asserts that the store then is clean, opens and takes commits, that each of its turns is
    /// right, and that each turn that it lacks is named.
    pub(super) async fn repair(&self, directory: &Path, damage: &str) -> Repaired {
        let files = || [StoreFile::Main, StoreFile::Journal].map(|file| fs::read(directory.join(file.name())).ok());
        let damaged = files();
        let (before, repaired) = repair(directory).unwrap_or_else(|error| panic!("{damage}: {error}"));
        let Some((copy, after)) = repaired else {
            assert_eq!(before.violations, [], "{damage}: there was no repair");
            assert!(files() == damaged, "{damage}: the files changed without a repair");
            return Repaired { was_clean: true, lost_sealed: 0, lost_open: 0, losses: Vec::new() };
        };
        assert_eq!(after.violations, [], "{damage}: {:?}", after.losses);
        assert!(fs::read(copy).ok() == damaged[0], "{damage}: the damaged file was not kept");
        let left: Vec<_> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".unfinished-repair")), "{damage}: {left:?}");
        let CheckReport { losses, .. } = after;
        let store = open(directory);
        let (sealed, open_turns) = answers(&store);
        let lost_sealed = self.compare_sealed(&sealed, &losses, damage);
        let lost_open = self.compare_open(&open_turns, &losses, damage);
        for number in 0..CONVERSATIONS {
            let version = store.conversation_state(&id(number), &[]).unwrap().version;
            let turn = OpenTurn::new(TurnId::new(format!("new-{number}")).unwrap());
            let sealed = vec![turn.seal(&Done::because("stop"), EpochMillis::new(1 << 40))];
            let new = Commit {
                conversation_id: id(number),
                expected_version: version,
                staged: Vec::new(),
                sealed,
                imported_from: None,
            };
            let committed = store.commit(new).await.unwrap();
            let TurnOutcome::Sealed(ordinal) = committed.outcomes[0].1 else { panic!("{damage}: {committed:?}") };
            let ordinal = ordinal.get();
            let last = self.last_ordinal(number);
            let is_named = losses.iter().any(is_of_a_journal) || losses.iter().any(is_of_an_unknown_conversation);
            assert!(ordinal == last + 1 || is_named, "{damage}: the ordinal {ordinal} was given after {last}");
        }
        store.close().await;
        assert_eq!(check(directory).unwrap().violations, [], "{damage}: after new commits");
        Repaired { was_clean: false, lost_sealed, lost_open, losses }
    }

    fn last_ordinal(&self, number: u64) -> u64 {
        let id = id(number).to_string();
        self.sealed.range((id.clone(), 0)..=(id, u64::MAX)).next_back().unwrap().0.1
    }

    fn compare_sealed(&self, found: &BTreeMap<(String, u64), StoredTurn>, losses: &[Loss], damage: &str) -> usize {
        let mut lost = 0;
        let may_be_back = |(id, ordinal): &(String, u64)| may_be_back(id, losses) || was_dropped(id, *ordinal, losses);
        for (place, turn) in found.iter().filter(|(place, _)| !may_be_back(place)) {
            assert!(self.sealed.get(place) == Some(turn), "{damage}: {place:?} is another turn");
        }
        for place in self.sealed.keys().filter(|place| !found.contains_key(place)) {
            lost += 1;
            let is_named = |loss: &Loss| match loss {
                Loss::Turns { conversation, first, last } => {
                    *conversation == place.0 && (first..=last).contains(&&place.1)
                }
                _ => false,
            };
            let is_unknown = !found.keys().any(|(id, _)| *id == place.0);
            let is_named = losses.iter().any(is_named)
                || losses.iter().any(is_of_a_journal) && place.1 > IN_TABLES * SEALED_AT_ONCE
                || is_unknown && losses.iter().any(is_of_an_unknown_conversation);
            assert!(is_named, "{damage}: {place:?} is lost and not named in {losses:?}");
        }
        lost
    }

    fn compare_open(&self, found: &BTreeMap<(String, String), StagedTurn>, losses: &[Loss], damage: &str) -> usize {
        let is_named = |place: &(String, String)| {
            losses.iter().any(|loss| match loss {
                Loss::OpenTurn { conversation, turn_id } | Loss::LatestEvents { conversation, turn_id } => {
                    (conversation, turn_id) == (&place.0, &place.1)
                        || conversation.starts_with('#') && *turn_id == place.1
                }
                Loss::UnknownOpenTurns => true,
                loss => is_of_a_journal(loss),
            })
        };
        let mut lost = 0;
        for (place, turn) in found.iter().filter(|(place, _)| !may_be_back(&place.0, losses)) {
            let is_right = self.open.get(place) == Some(turn);
            assert!(is_right || is_named(place) && self.open.contains_key(place), "{damage}: {place:?} is wrong");
            lost += usize::from(!is_right);
        }
        for place in self.open.keys().filter(|place| !found.contains_key(place)) {
            lost += 1;
            assert!(is_named(place), "{damage}: {place:?} is lost and not named in {losses:?}");
        }
        lost
    }
}

fn is_of_a_journal(loss: &Loss) -> bool {
    matches!(loss, Loss::JournalRows { .. } | Loss::Commits { .. } | Loss::JournalEnd { .. })
}

/// Returns whether a conversation was erased in a row of the journal that is lost.
fn may_be_back(conversation: &str, losses: &[Loss]) -> bool {
    conversation == id(ERASED_IN_JOURNAL).as_str() && losses.iter().any(is_of_a_journal)
}

/// Returns whether a turn was dropped and the note of that is lost.
fn was_dropped(conversation: &str, ordinal: u64, losses: &[Loss]) -> bool {
    conversation == id(AGED).as_str() && ordinal <= DROPPED && losses.contains(&Loss::NotesOfDroppedTurns)
}

fn is_of_an_unknown_conversation(loss: &Loss) -> bool {
    matches!(loss, Loss::Turns { conversation, .. } if conversation.starts_with('#'))
}

/// What a repair did.
#[derive(Debug)]
pub(super) struct Repaired {
    pub(super) was_clean: bool,
    pub(super) lost_sealed: usize,
    pub(super) lost_open: usize,
    pub(super) losses: Vec<Loss>,
}
