use std::process::ExitCode;

use super::args::ConfigArgs;
use super::{CliError, output};
use crate::config::default_file;

/// Prints the settings in force, and where each value comes from.
///
/// The sources of settings are, each overriding the one before: the built-in defaults, the file of `--config`, the
/// environment (`TURN_METRICS__SECTION__KEY`) and flags. The output is itself a configuration file. With `--defaults`
/// it has only the defaults, each with its reason.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics config > turn-metrics.toml
  turn-metrics config --defaults
  TURN_METRICS__HTTP__BODY_TIMEOUT=1m turn-metrics config --config turn-metrics.toml")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,

    /// Print every setting at its default, with the reason for it, whatever is in force
    #[arg(long, conflicts_with_all = ["config", "data_dir", "listen"])]
    defaults: bool,
}

pub(super) fn run(args: Args) -> Result<ExitCode, CliError> {
    let text = if args.defaults { default_file() } else { args.config.load()?.to_string() };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
