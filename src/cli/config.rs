use std::process::ExitCode;

use super::args::ConfigArgs;
use super::{CliError, output};

/// Prints the settings in force, each with where it comes from.
///
/// Settings are taken from, each stronger than the one before: the built-in defaults, the file of `--config`, the
/// environment (`TURN_METRICS__SECTION__KEY`) and flags. What is printed is itself a configuration file.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics config > turn-metrics.toml
  TURN_METRICS__HTTP__BODY_TIMEOUT=1m turn-metrics config --config turn-metrics.toml")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: Args) -> Result<ExitCode, CliError> {
    let configuration = args.config.load()?;
    output::print(&configuration.to_string())?;
    Ok(ExitCode::SUCCESS)
}
