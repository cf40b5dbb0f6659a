use std::fmt;
use std::io;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{BackendError, StorageBackend};

use crate::simulate::random::Random;
use crate::store::{Location, Storage, StoreFile};

/// The number of bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A disk that does what a test has planned: lose power, or fail.
///
/// A write goes to a live image and is remembered until it is synced. At a crash, chance decides which unsynced writes
/// remain. If a sync fails, chance decides which writes reached the disk; the disk forgets the others, as Linux does:
/// the live image still shows them, no later sync writes them, and a crash removes them. Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    main: Image,
    journal: Image,
    /// The changes of both files that are not synced, in the order in which they were made.
    unsynced: Vec<(StoreFile, Change)>,
    /// The number of writes, changes of length and syncs so far.
    changes: u64,
    /// The number of the change at which the disk crashes.
    crash_at: Option<u64>,
    crashed: bool,
    /// Whether syncs do nothing. A control sets this.
    lies: bool,
    fault: Option<InjectedFault>,
    /// The bytes that cannot be read until one of them is written.
    unreadable: Option<(StoreFile, Range<usize>)>,
    /// The number of operations of the fault's kind so far.
    seen: u64,
    /// How often the fault struck.
    struck: u64,
    /// The number of openings. A handle of an earlier opening does not work after a crash.
    opening: u64,
}

/// The contents of one file on the disk.
#[derive(Default)]
struct Image {
    /// The bytes that the running system reads.
    live: Vec<u8>,
    /// The bytes that remain after a crash in any case, before chance adds unsynced writes.
    durable: Vec<u8>,
    /// The latest opening of the file. Handles of earlier openings do not work any more.
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

    /// Does what a failed sync of a file does: some writes reach the disk, and the others never will unless they are
    /// written once more. Changes of length are not forgotten, since file systems keep them in their logs.
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

/// A planned failure of operations.
#[derive(Debug, Clone, Copy)]
pub(super) struct InjectedFault {
    pub(super) kind: Kind,
    /// The number of operations of this kind that succeed before the failure.
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
    /// With an error that has no code, and a text that names a path.
    Worded,
    /// With a panic. No disk panics, but the code that uses a disk may.
    Panic,
}

/// A path in the text of an error. Only the log may show it.
pub(super) const SECRET: &str = "/var/lib/secret";

impl Failing {
    /// Returns the text of the error, without its number.
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
    /// Returns the location that opens a store on this disk.
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

    /// Returns the locked state. The lock may be poisoned, since a panic is one of the faults.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns a disk whose files have these bytes.
    pub(super) fn of(main: Vec<u8>, journal: Vec<u8>) -> Self {
        let disk = Self::default();
        for (file, bytes) in [(StoreFile::Main, main), (StoreFile::Journal, journal)] {
            let mut state = disk.state();
            state.image(file).durable.clone_from(&bytes);
            state.image(file).live = bytes;
        }
        disk
    }

    /// Returns the bytes of a file, as the running system reads them.
    pub(super) fn bytes(&self, file: StoreFile) -> Vec<u8> {
        self.state().image(file).live.clone()
    }

    /// Makes all syncs do nothing from now on.
    pub(super) fn lie(&self) {
        self.state().lies = true;
    }

    /// Plans a crash after this many further changes.
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

    /// Makes each read of one of these bytes fail from now on. A write to them ends that, as the disk then puts another
    /// sector in their place.
    pub(super) fn make_unreadable(&self, file: StoreFile, bytes: Range<usize>) {
        self.state().unreadable = Some((file, bytes));
    }

    /// Makes all bytes readable. Returns those that were not.
    pub(super) fn make_readable(&self) -> Option<(StoreFile, Range<usize>)> {
        self.state().unreadable.take()
    }

    pub(super) fn heal(&self) {
        self.state().fault = None;
    }

    /// Returns how often the planned fault has struck.
    pub(super) fn struck(&self) -> u64 {
        self.state().struck
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Starts the disk again after a crash. Chance decides which unsynced changes are there.
    pub(super) fn come_back(&self, random: &mut Random) {
        let mut state = self.state();
        // Besides a mixture, this also tries that all or no changes are there: these cases are the likeliest in
        // reality, and drawing each change by itself would hardly ever give them.
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

/// Writes some of the sectors of `bytes`, drawn at random.
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
            // The write may be on the disk although the earlier change of length is not.
            if image.len() < end {
                image.resize(end, 0);
            }
            image[*at..end].copy_from_slice(bytes);
        }
    }
}

/// The handle of one opening of a file.
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

    /// Makes the change, or only a part of it if the disk crashes at this moment.
    fn change(&self, kind: Kind, change: Change) -> io::Result<()> {
        let crashed_before = self.disk.has_crashed();
        let mut state = self.enter(kind)?;
        if crashed_before {
            return Err(power_is_off());
        }
        if let Change::Write { at, bytes } = &change {
            let written = *at..at + bytes.len();
            state.unreadable.take_if(|(file, bad)| *file == self.file && overlap(bad, &written));
        }
        apply(&mut state.image(self.file).live, &change);
        state.unsynced.push((self.file, change));
        if state.crashed { Err(power_is_off()) } else { Ok(()) }
    }
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
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
        let read = place(offset)..end.unwrap_or(usize::MAX);
        if state.unreadable.as_ref().is_some_and(|(file, bad)| *file == self.file && overlap(bad, &read)) {
            state.struck += 1;
            Failing::Eio.strike()?;
        }
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

    /// Locks the file as a real file is locked. So a test notices if a database is opened again while the old one still
    /// has the file.
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

/// Leaves out the images, which would fill the screen.
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
