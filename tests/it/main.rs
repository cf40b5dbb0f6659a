//! The outside, proved on real processes over real sockets. One binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by a panic")]

mod backup;
mod bad_input;
mod check;
mod concurrency;
mod full_disk;
mod kill_loop;
mod overload;
mod program;
mod restart;
mod server;
mod shutdown;
mod tidy;
mod vectors;
