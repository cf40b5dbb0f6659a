//! The `turn-metrics` program.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;

/// Messages are allocated on one thread and freed on another. The default allocator of Linux is slow at that.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let error = match turn_metrics::cli::run().context("turn-metrics") {
        Ok(code) => return code,
        Err(error) => error,
    };
    // If stderr is closed, the error cannot be reported.
    let _ = writeln!(io::stderr(), "{error:#}");
    ExitCode::FAILURE
}
