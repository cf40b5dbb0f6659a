//! How fast turns are parsed, folded and made durable, each compared with a limit or a rival in the same run.
//!
//! `cargo bench` prints a table and writes it to `target/bench-report.md`; `cargo bench -- append` runs the rows whose
//! names begin with `append`. `benches/README.md` explains the rows.

#![allow(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^53")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot run ends by a panic")]

mod actors;
mod append;
mod ask;
mod client;
mod cpu;
mod dashboard;
mod disk;
mod feed;
mod file;
mod fold;
mod growth;
mod load;
mod memory;
mod observe;
mod post;
mod read;
mod report;
mod server;
mod service;
mod sqlite;
mod start;
mod store;
mod transfer;
mod work;

use report::Report;

/// The allocator of the program, for both sides of each row.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // Cargo passes `--bench`; the other arguments are names of rows.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut report = Report::new(wanted);
    fold::run(&mut report);
    actors::run(&mut report);
    append::run(&mut report);
    sqlite::run(&mut report);
    observe::run(&mut report);
    post::run(&mut report);
    cpu::run(&mut report);
    read::run(&mut report);
    feed::run(&mut report);
    transfer::run(&mut report);
    start::run(&mut report);
    disk::run(&mut report);
    let turns = load::turns_stored();
    memory::run(&mut report, turns);
    growth::run(&mut report, turns);
    ask::run(&mut report, turns);
    dashboard::run(&mut report, turns);
    report.finish();
}
