//! The store's actor alone. Many commits wait at the same time, each with one sealed turn.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Arbiter};
use futures_util::future::join_all;
use turn_metrics::actors::{Close, Store};
use turn_metrics::settings::StoreSettings;
use turn_metrics::store::{Commit, CommitError, Location, Version};
use turn_metrics::turn::SealedTurn;

use crate::report::Round;
use crate::work::{CONVERSATIONS, Random, conversation_id, sealed, shuffled};

/// The wait before a commit that was refused as overload is sent again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(5);

/// A started store on a thread of its own, as in a runtime.
pub(crate) struct RunningStore {
    arbiter: Arbiter,
    pub(crate) address: Addr<Store>,
}

impl RunningStore {
    pub(crate) fn start(directory: &Path) -> Self {
        let location = Location::Directory(directory.to_owned());
        let arbiter = Arbiter::new();
        let (started, address) = channel();
        arbiter.spawn_fn(move || {
            let store = Store::open(location, &StoreSettings::default()).unwrap();
            started.send(store.start()).unwrap();
        });
        Self { arbiter, address: address.recv().unwrap() }
    }

    pub(crate) async fn close(self) {
        self.address.send(Close).await.unwrap();
        self.arbiter.stop();
        self.arbiter.join().unwrap();
    }
}

/// What the bench knows of a store's conversations. It needs this to write to them as their actors would.
pub(crate) struct Writers {
    directory: PathBuf,
    /// The conversations in random order, used in rotation: two commits of one conversation never wait at the same
    /// time.
    order: Vec<u64>,
    versions: Vec<Cell<Version>>,
    next_turn: u64,
    random: Random,
    /// Changes each turn before it is sent.
    change: fn(u64, SealedTurn) -> SealedTurn,
}

impl Writers {
    /// Returns the writers of a store in `directory`. The store must have this many commits in each of the
    /// conversations, and no other conversations.
    pub(crate) fn new(directory: &Path, commits: u64, next_turn: u64) -> Self {
        let mut random = Random(next_turn);
        Self {
            directory: directory.to_owned(),
            order: shuffled(CONVERSATIONS, &mut random),
            versions: (0..CONVERSATIONS).map(|_| Cell::new(Version(commits))).collect(),
            next_turn,
            random,
            change: |_, turn| turn,
        }
    }

    /// The same, with each turn as `change` returns it.
    pub(crate) fn sending(self, change: fn(u64, SealedTurn) -> SealedTurn) -> Self {
        Self { change, ..self }
    }

    fn commits(&mut self, count: usize) -> Vec<(usize, Commit)> {
        let turns = (self.next_turn..).take(count).map(|turn| {
            let place = usize::try_from(turn % CONVERSATIONS).unwrap();
            let conversation = self.order[place];
            let commit = Commit {
                conversation_id: conversation_id(conversation),
                expected_version: Version::default(),
                staged: Vec::new(),
                sealed: vec![(self.change)(turn, sealed(turn, &mut self.random))],
                imported_from: None,
            };
            (usize::try_from(conversation).unwrap(), commit)
        });
        let commits = turns.collect();
        self.next_turn += count as u64;
        commits
    }

    /// Opens the store, makes turns durable with `appenders` waiting, and closes it. Ends after `count` turns, or after
    /// `at_most`.
    pub(crate) fn round(&mut self, count: usize, appenders: usize, at_most: Duration) -> Round {
        let commits = self.commits(count);
        actix::System::new().block_on(async {
            let store = RunningStore::start(&self.directory);
            let round = self.append(&store, commits, appenders, at_most).await;
            store.close().await;
            round
        })
    }

    async fn append(
        &self,
        store: &RunningStore,
        commits: Vec<(usize, Commit)>,
        appenders: usize,
        at_most: Duration,
    ) -> Round {
        let commits = RefCell::new(commits.into_iter());
        let start = Instant::now();
        let next = || if start.elapsed() < at_most { commits.borrow_mut().next() } else { None };
        let refused = Cell::new(0);
        let appender = || async {
            // Each appender has an address of its own, as each conversation has. So the mailbox holds one message of
            // each appender.
            let store = store.address.clone();
            let mut times = Vec::new();
            while let Some((conversation, mut commit)) = next() {
                let version = &self.versions[conversation];
                commit.expected_version = version.get();
                let sent = Instant::now();
                match store.send(Arc::new(commit)).await.unwrap() {
                    // The turn is lost, because keeping a copy of every turn to send it again would take time.
                    Err(CommitError::Overloaded) => {
                        refused.set(refused.get() + 1);
                        actix_rt::time::sleep(RETRY_AFTER).await;
                    }
                    committed => {
                        times.push(sent.elapsed());
                        version.set(committed.unwrap().version);
                    }
                }
            }
            times
        };
        let round = Round::of_each(async { join_all((0..appenders).map(|_| appender())).await.concat() }).await;
        Round { refused: refused.get(), ..round }
    }
}
