//! Places and starts the actors, and shuts them down in order.

mod handles;

pub use handles::Handles;
