//! Tests of the program from outside, with real processes over real sockets. They are one binary, so that linking
//! happens once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by a panic")]

mod asking;
mod attack;
mod backup;
mod bad_input;
#[cfg(unix)]
mod browser;
mod check;
mod clock;
mod compact;
mod concurrency;
mod connection;
mod damaged_files;
mod embedding;
mod erase;
#[cfg(feature = "testing")]
mod examples;
mod feed;
#[cfg(target_os = "linux")]
mod file_size;
mod framing;
mod full_disk;
mod host;
mod http10;
mod import;
mod kill_loop;
mod light;
#[cfg(unix)]
mod links;
mod log;
#[cfg(unix)]
mod lost_files;
mod order;
#[cfg(all(feature = "otel", feature = "testing"))]
mod otel;
mod overload;
mod pages;
mod program;
mod public_api;
mod receipt;
mod reports;
mod restart;
mod retention;
mod routes;
mod server;
mod shutdown;
mod span_log;
#[cfg(unix)]
mod suspend;
#[cfg(unix)]
mod terminal;
mod tidy;
#[cfg(all(unix, feature = "tui"))]
mod top;
#[cfg(unix)]
mod unread_log;
mod vectors;
mod writes;
