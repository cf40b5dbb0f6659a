//! Where a panic ends that must not go further.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does `work`; a panic in it is an error that says what the panic said.
///
/// What `work` touched may be half changed: the caller throws it away, or it is shielded by the database, whose
/// transactions are.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        format!("a panic: {}", said.unwrap_or("it said nothing"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_what_it_said() {
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(caught(|| panic!("no")), Err::<(), _>("a panic: no".into()));
        let number = 3;
        assert_eq!(caught(|| panic!("no {number}")), Err::<(), _>("a panic: no 3".into()));
    }
}
