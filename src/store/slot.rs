use std::sync::{PoisonError, RwLock};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::schema::Failure;
use super::unwind;

/// Holds the database, which comes and goes: after a failed commit it is closed and opened again.
///
/// The lock is held just to begin a transaction or to swap the database, never while one runs.
#[derive(Debug)]
pub(super) struct Slot(RwLock<State>);

#[derive(Debug)]
enum State {
    Open(Database),
    /// Why there is none.
    Empty(String),
}

impl Slot {
    pub(super) fn new(database: Database) -> Self {
        Self(RwLock::new(State::Open(database)))
    }

    /// Begins a transaction that reads; `Err` says why there is no database.
    pub(super) fn begin_read(&self) -> Result<Result<ReadTransaction, Failure>, String> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(database) => Ok(database.begin_read().map_err(Failure::from)),
            State::Empty(cause) => Err(cause.clone()),
        }
    }

    /// Begins a transaction whose commit returns when it is durable; `Err` says why there is no database.
    pub(super) fn begin_write(&self) -> Result<Result<WriteTransaction, Failure>, String> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(database) => Ok(begin_durable_write(database)),
            State::Empty(cause) => Err(cause.clone()),
        }
    }

    pub(super) fn fill(&self, database: Database) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = State::Open(database);
    }

    /// Closes the database. Reads under way fail.
    pub(super) fn empty(&self, cause: String) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let State::Open(database) = std::mem::replace(&mut *state, State::Empty(cause)) else { return };
        // After a panic within it, closing may panic too, on a lock that the first one poisoned.
        let closed = unwind::caught(|| database.close().map_err(|error| error.to_string()));
        if let Err(error) = closed.and_then(|closed| closed) {
            tracing::warn!(%error, "the database did not close cleanly; it is repaired when it is opened");
        }
    }
}

fn begin_durable_write(database: &Database) -> Result<WriteTransaction, Failure> {
    let mut txn = database.begin_write()?;
    txn.set_durability(redb::Durability::Immediate)?;
    // Without it, opening a large file after a crash walks the whole of it: seconds instead of a millisecond.
    txn.set_quick_repair(true);
    Ok(txn)
}
