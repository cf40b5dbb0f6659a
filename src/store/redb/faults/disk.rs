use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{BackendError, StorageBackend};

use crate::simulate::random::Random;
use crate::store::{Location, Storage, StoreFile};

/// What a disk writes in one piece, whatever happens.
const SECTOR: usize = 512;

/// A disk that does what a test has planned: lose power, or fail.
///
/// A write goes to a live image and is remembered until it is synced. At a crash, chance decides which unsynced writes
/// remain. If a sync fails, chance decides which writes reached the disk; the others are forgotten, as Linux forgets
/// them: the live image still shows them, no later sync writes them, and a crash removes them. Clones are the same
/// disk.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    main: Image,
    journal: Image,
    /// What was done to both and not synced, in its order.
    unsynced: Vec<(StoreFile, Change)>,
    /// Writes, changes of length and syncs so far.
    changes: u64,
    /// The change at which it crashes.
    crash_at: Option<u64>,
    crashed: bool,
    /// A control: syncing does nothing.
    lies: bool,
    fault: Option<InjectedFault>,
    /// Operations of the fault's kind so far.
    seen: u64,
    /// How often the fault struck.
    struck: u64,
    /// Counts openings, so that a handle from before a crash is of no more use.
    opening: u64,
}

/// What is on the disk of one file.
#[derive(Default)]
struct Image {
    /// What the running system reads.
    live: Vec<u8>,
    /// What is there after a crash, whatever chance does.
    durable: Vec<u8>,
    /// The latest opening; earlier ones are of no more use.
    opening: u64,
    /// The opening that holds the lock.
    holder: Option<u64>,
}

impl State {
    fn image(&mut self, file: StoreFile) -> &mut Image {
        match file {
            StoreFile::Main => &mut self.main,
            StoreFile::Journal => &mut self.journal,
        }
    }

    /// What a failed sync of a file leaves: some of its writes are on the disk, and the others never will be unless they
    /// are written once more. A change of length is not forgotten: file systems log it.
    fn forget_unsynced(&mut self, file: StoreFile) {
        let mut random = Random::new(self.changes);
        let fate = random.below(3);
        for (of, change) in std::mem::take(&mut self.unsynced) {
            if of != file || matches!(change, Change::SetLen(_)) {
                self.unsynced.push((of, change));
            } else if fate == 1 || fate == 2 && random.once_in(2) {
                apply(&mut self.image(file).durable, &change);
            }
        }
    }
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// A failure to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct InjectedFault {
    pub(super) kind: Kind,
    /// How many operations of this kind work before.
    pub(super) after: u64,
    pub(super) error: Failing,
    /// Whether all operations of this kind fail from then on.
    pub(super) for_good: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    SetLen,
    Sync,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failing {
    Eio,
    Enospc,
    /// By an error without a code, in words that name a path.
    Worded,
    /// By a panic: no disk does, but code around one may.
    Panic,
}

/// What nobody but the log may learn.
pub(super) const SECRET: &str = "/var/lib/secret";

impl Failing {
    /// What the system's error says, without the number.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Eio => "Input/output error",
            Self::Enospc => "No space left on device",
            Self::Worded => "the disk cannot use",
            Self::Panic => "the disk panics",
        }
    }

    fn strike(self) -> io::Result<()> {
        match self {
            Self::Eio => Err(io::Error::from_raw_os_error(5)),
            Self::Enospc => Err(io::Error::from_raw_os_error(28)),
            Self::Worded => Err(io::Error::other(format!("{} {SECRET}", self.text()))),
            Self::Panic => panic!("{} {SECRET}", self.text()),
        }
    }
}

impl Disk {
    /// Where a store finds it.
    pub(super) fn location(&self) -> Location {
        let disk = self.clone();
        Location::Storage(Storage::new(move |file| disk.open(file)))
    }

    fn open(&self, file: StoreFile) -> Handle {
        let mut state = self.state();
        state.opening += 1;
        let opening = state.opening;
        state.image(file).opening = opening;
        Handle { disk: self.clone(), file, opening }
    }

    /// A panic is one of the faults, so the lock may be poisoned.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A disk whose files hold these bytes.
    pub(super) fn of(main: Vec<u8>, journal: Vec<u8>) -> Self {
        let disk = Self::default();
        for (file, bytes) in [(StoreFile::Main, main), (StoreFile::Journal, journal)] {
            let mut state = disk.state();
            state.image(file).durable.clone_from(&bytes);
            state.image(file).live = bytes;
        }
        disk
    }

    /// What a file holds.
    pub(super) fn bytes(&self, file: StoreFile) -> Vec<u8> {
        self.state().image(file).live.clone()
    }

    /// Has syncing do nothing from now on.
    pub(super) fn lie(&self) {
        self.state().lies = true;
    }

    /// Plans a crash after so many more changes.
    pub(super) fn plan_crash(&self, after: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.changes + after);
    }

    pub(super) fn plan_no_crash(&self) {
        self.state().crash_at = None;
    }

    pub(super) fn plan_fault(&self, fault: InjectedFault) {
        let mut state = self.state();
        (state.fault, state.seen, state.struck) = (Some(fault), 0, 0);
    }

    pub(super) fn heal(&self) {
        self.state().fault = None;
    }

    /// How often the planned fault struck.
    pub(super) fn struck(&self) -> u64 {
        self.state().struck
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Comes back from a crash with what chance left.
    pub(super) fn come_back(&self, random: &mut Random) {
        let mut state = self.state();
        // Beside the mixture, the extremes: they are the likeliest in life, and chance alone would hardly try them.
        let fate = random.below(4);
        for (file, change) in std::mem::take(&mut state.unsynced) {
            let durable = &mut state.image(file).durable;
            match (fate, change) {
                (0, _) => {}
                (1, change) => apply(durable, &change),
                (_, change @ Change::SetLen(_)) => {
                    if random.once_in(2) {
                        apply(durable, &change);
                    }
                }
                (_, Change::Write { at, bytes }) => match random.below(3) {
                    0 => {}
                    1 => apply(durable, &Change::Write { at, bytes }),
                    _ => tear(durable, at, &bytes, random),
                },
            }
        }
        state.opening += 1;
        let opening = state.opening;
        for file in [StoreFile::Main, StoreFile::Journal] {
            let image = state.image(file);
            image.live = image.durable.clone();
            (image.holder, image.opening) = (None, opening);
        }
        (state.crashed, state.crash_at) = (false, None);
    }
}

/// Writes some of the sectors.
fn tear(image: &mut Vec<u8>, at: usize, bytes: &[u8], random: &mut Random) {
    let mut from = at;
    while from < at + bytes.len() {
        let to = ((from / SECTOR + 1) * SECTOR).min(at + bytes.len());
        if random.once_in(2) {
            apply(image, &Change::Write { at: from, bytes: bytes[from - at..to - at].to_vec() });
        }
        from = to;
    }
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => image.resize(*len, 0),
        Change::Write { at, bytes } => {
            let end = at + bytes.len();
            // The write may be on the disk though the change of length that made room for it is not.
            if image.len() < end {
                image.resize(end, 0);
            }
            image[*at..end].copy_from_slice(bytes);
        }
    }
}

/// What one opening of a file holds of the disk.
struct Handle {
    disk: Disk,
    file: StoreFile,
    opening: u64,
}

impl Handle {
    fn enter(&self, kind: Kind) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.state();
        if state.image(self.file).opening != self.opening {
            return Err(io::Error::other("a handle from before the crash"));
        }
        if kind != Kind::Read && !state.crashed {
            state.crashed = state.crash_at.is_some_and(|at| state.changes >= at);
            state.changes += 1;
        }
        if let Some(fault) = state.fault.filter(|fault| fault.kind == kind) {
            state.seen += 1;
            if if fault.for_good { state.seen > fault.after } else { state.seen == fault.after + 1 } {
                state.struck += 1;
                if kind == Kind::Sync {
                    state.forget_unsynced(self.file);
                }
                fault.error.strike()?;
            }
        }
        Ok(state)
    }

    /// Does the change, or as much of it as a crash at this moment lets happen.
    fn change(&self, kind: Kind, change: Change) -> io::Result<()> {
        let crashed_before = self.disk.has_crashed();
        let mut state = self.enter(kind)?;
        if crashed_before {
            return Err(power_is_off());
        }
        apply(&mut state.image(self.file).live, &change);
        state.unsynced.push((self.file, change));
        if state.crashed { Err(power_is_off()) } else { Ok(()) }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

fn place(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.enter(Kind::Read)?.image(self.file).live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.enter(Kind::Read)?;
        if state.crashed {
            return Err(power_is_off());
        }
        let end = place(offset).checked_add(out.len());
        let live = &state.image(self.file).live;
        let bytes = end.and_then(|end| live.get(place(offset)..end));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Kind::SetLen, Change::SetLen(place(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.enter(Kind::Sync)?;
        if state.crashed {
            return Err(power_is_off());
        }
        if !state.lies {
            let mut others = Vec::new();
            for (file, change) in std::mem::take(&mut state.unsynced) {
                if file == self.file {
                    apply(&mut state.image(file).durable, &change);
                } else {
                    others.push((file, change));
                }
            }
            state.unsynced = others;
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Kind::Write, Change::Write { at: place(offset), bytes: data.to_vec() })
    }

    fn close(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let image = state.image(self.file);
        if image.holder == Some(self.opening) {
            image.holder = None;
        }
        Ok(())
    }

    /// As a file does, so that a database opened again while the old one still has it is noticed.
    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        let mut state = self.disk.state();
        let image = state.image(self.file);
        if image.holder.is_none() {
            image.holder = Some(self.opening);
        }
        Ok(image.holder == Some(self.opening))
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        self.disk.state().image(self.file).holder = None;
        Ok(())
    }
}

/// Without the images, which would fill the screen.
impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("opening", &self.opening).finish_non_exhaustive()
    }
}
