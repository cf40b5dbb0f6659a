use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// The place of a sealed turn in its conversation: 1 for the first, gap-free, in append order, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ordinal(NonZeroU64);

impl Ordinal {
    /// Returns the ordinal `n`, or `None` if `n` is 0.
    pub fn new(n: u64) -> Option<Self> {
        NonZeroU64::new(n).map(Self)
    }

    /// Returns the ordinal as a plain number, at least 1.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// Returns the ordinal of the turn that is sealed after `sealed` others.
    pub fn after(sealed: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(sealed))
    }
}

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
