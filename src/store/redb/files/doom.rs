//! Lets the n-th change that a thread makes to files fail, and all later changes of that thread.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::simulate::random::Random;

thread_local! {
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
    static LIES: Cell<bool> = const { Cell::new(false) };
}

struct Plan {
    changes_left: u64,
    struck: bool,
    unsynced: Vec<Replaced>,
    openings: u64,
}

/// The bytes that an unsynced write replaced.
struct Replaced {
    opening: u64,
    file: FileBackend,
    at: u64,
    bytes: Vec<u8>,
}

/// Lets this thread make this many further changes to files. A sync counts as a change.
pub(crate) fn plan(changes: u64) {
    let plan = Plan { changes_left: changes, struck: false, unsynced: Vec::new(), openings: 0 };
    PLAN.set(Some(plan));
}

/// Says whether syncs of this thread do nothing from now on.
pub(crate) fn lie(lies: bool) {
    LIES.set(lies);
}

/// Ends the plan, and returns whether a change has failed. With `power_cut`, unsynced writes are then undone at random.
pub(crate) fn end(power_cut: Option<&mut Random>) -> bool {
    let plan = PLAN.take().unwrap();
    if let (true, Some(random)) = (plan.struck, power_cut) {
        for replaced in plan.unsynced.iter().rev().filter(|_| random.once_in(2)) {
            replaced.file.write(replaced.at, &replaced.bytes).unwrap();
        }
    }
    plan.struck
}

pub(in crate::store::redb::files) fn is_planned() -> bool {
    PLAN.with_borrow(Option::is_some)
}

pub(super) fn change() -> io::Result<()> {
    PLAN.with_borrow_mut(|plan| {
        let Some(plan) = plan else { return Ok(()) };
        plan.struck |= plan.changes_left == 0;
        plan.changes_left = plan.changes_left.saturating_sub(1);
        if plan.struck { Err(io::Error::other("the end has come")) } else { Ok(()) }
    })
}

/// A file that a thread with a plan has opened.
#[derive(Debug)]
pub(crate) struct Doomed {
    file: File,
    backend: FileBackend,
    opening: u64,
}

impl Doomed {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let backend = FileBackend::new(file.try_clone()?).map_err(io::Error::other)?;
        let opening =
            PLAN.with_borrow_mut(|plan| plan.as_mut().map_or(0, |plan| (plan.openings += 1, plan.openings).1));
        Ok(Self { file, backend, opening })
    }
}

impl StorageBackend for Doomed {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        change()?;
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        change()?;
        PLAN.with_borrow_mut(|plan| {
            if let Some(plan) = plan.as_mut().filter(|_| !LIES.get()) {
                plan.unsynced.retain(|replaced| replaced.opening != self.opening);
            }
        });
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        change()?;
        let mut before = vec![0; data.len()];
        self.backend.read(offset, &mut before)?;
        let file = FileBackend::new(self.file.try_clone()?).map_err(io::Error::other)?;
        let replaced = Replaced { opening: self.opening, file, at: offset, bytes: before };
        PLAN.with_borrow_mut(|plan| {
            if let Some(plan) = plan {
                plan.unsynced.push(replaced);
            }
        });
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
