//! Catches panics that must not unwind further.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::store::fault::Fault;

/// A caught panic. Displays its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a panic: {said}")]
pub(crate) struct Panic {
    said: String,
}

impl From<Panic> for Fault {
    fn from(panic: Panic) -> Self {
        Self::panicked(panic)
    }
}

thread_local! {
    /// How many calls of [`caught`] this thread is in.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
}

/// Keeps panics that are caught off standard error, for programs that report damage to their users in their own words.
/// Other panics are still printed.
#[cfg(feature = "server")]
pub(crate) fn keep_quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.get() == 0 {
                before(info);
            }
        }));
    });
}

/// Returns whether this thread is in a call of [`caught`]. A panic there is most likely one of redb, because of damage.
#[cfg(feature = "server")]
pub(crate) fn is_catching() -> bool {
    CATCHING.get() > 0
}

/// Does `work`, and returns a panic in it as an error.
///
/// After a panic, data that `work` has changed may be inconsistent. So the caller must drop such data, or a database
/// transaction must protect it.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    CATCHING.set(CATCHING.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(CATCHING.get() - 1);
    done.map_err(|panic| {
        let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Panic { said: said.unwrap_or("it said nothing").to_owned() }
    })
}

/// Does `work`, which may fail, and returns a panic in it as a fault.
pub(crate) fn caught_as_fault<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    caught(work)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FaultKind;

    #[test]
    fn a_caught_panic_displays_its_message() {
        let said = |panic: Panic| panic.to_string();
        assert_eq!(caught(|| 7), Ok(7));
        #[cfg(feature = "server")]
        assert_eq!((caught(is_catching), is_catching()), (Ok(true), false));
        assert_eq!(caught(|| panic!("no")).map_err(said), Err::<(), _>("a panic: no".into()));
        let number = 3;
        assert_eq!(caught(|| panic!("no {number}")).map_err(said), Err::<(), _>("a panic: no 3".into()));
    }

    #[test]
    fn the_message_of_a_panic_reaches_only_the_log() {
        let fault = caught_as_fault::<()>(|| panic!("/var/lib/secret")).unwrap_err();
        assert_eq!((fault.kind(), fault.to_string()), (FaultKind::Panicked, "the store's code panicked".into()));
        assert_eq!(fault.in_full(), "a panic: /var/lib/secret");
        assert_eq!(caught_as_fault(|| Err::<(), _>(Fault::closed())), Err(Fault::closed()));
    }
}
