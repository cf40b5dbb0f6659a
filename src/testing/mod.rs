//! What tests of actors share.

mod clock;
mod probe;

pub use clock::TestClock;
pub use probe::Probe;
