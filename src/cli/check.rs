use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::CliError;
use super::args::StoreArgs;
use super::output::{self, plain};
use crate::store::{CheckError, CheckReport, check, keep_quiet, repair};

const CLEAN: u8 = 0;
const REPAIRED: u8 = 1;
const DAMAGED: u8 = 2;
const NOT_CHECKED: u8 = 3;
/// The exit code for wrong usage, from `sysexits.h`.
pub(super) const USAGE: u8 = 64;

/// Verifies the database of a stopped server: that its pages are sound and its contents are consistent.
///
/// Each violation is a line on standard output, and the summary is on standard error. Without `--repair` no byte is
/// changed. A repair keeps the sealed turns that can be read, and derives the other data from them: the index of their
/// ids, the counts and totals of conversations, and which open turns are sealed already. A record that cannot be read
/// is moved aside, and its ordinal is not given again. If a killed server left a journal, it is checked too, and a
/// repair moves its contents into the main file. If pages of a file are damaged, the repair builds a new main file from
/// every row that its checksum proves right, which needs disk space for it. Each turn or range of turns that is lost is
/// a line on standard output. The original files are kept beside the repaired ones, as
/// `turn-metrics.redb.before-repair-N` and, for the journal, `turn-metrics.journal.redb.before-repair-N`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics check
  turn-metrics check --data-dir /var/lib/turn-metrics --repair

Exit codes, which differ from those of the other commands: 0 clean, 1 damaged before and now repaired, 2 damaged,
3 not checked (missing, empty, in use by a server, of another program or a later version), 64 wrong usage.")]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,

    /// Repair the files, and keep copies of the original ones
    #[arg(long)]
    repair: bool,
}

/// The ways in which a check fails without a result.
#[derive(Debug, thiserror::Error)]
enum CheckFailure {
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Output(#[from] CliError),
}

/// Returns whether these arguments of the process are for the command `check`.
pub(super) fn is_meant(mut args: impl Iterator<Item = OsString>) -> bool {
    args.nth(1).is_some_and(|command| command == "check")
}

pub(super) fn run(args: Args) -> Result<ExitCode, CliError> {
    keep_quiet();
    let settings = match args.store.load() {
        Ok(configuration) => configuration.into_settings(),
        Err(error) => return Ok(not_checked(&error)),
    };
    let done = if args.repair { repaired(&settings.data_dir) } else { checked(&settings.data_dir) };
    match done {
        Ok(code) => Ok(code.into()),
        Err(CheckFailure::Output(error)) => Err(error),
        Err(CheckFailure::Check(error)) => match &error {
            CheckError::Repair { before, .. }
            | CheckError::NotRepaired { before, .. }
            | CheckError::Copy { before, .. } => failed(&error, before),
            _ => Ok(not_checked(&error)),
        },
    }
}

fn not_checked(error: &dyn std::error::Error) -> ExitCode {
    output::note(output::last_word(error).trim_end());
    NOT_CHECKED.into()
}

/// Reports the violations that were found before the failure, since they show that the file is damaged.
fn failed(error: &CheckError, before: &CheckReport) -> Result<ExitCode, CliError> {
    tell(before)?;
    output::note(&sum(before));
    output::note(&format!("turn-metrics: {error}"));
    Ok(DAMAGED.into())
}

fn checked(directory: &Path) -> Result<u8, CheckFailure> {
    let report = check(directory)?;
    tell(&report)?;
    output::note(&sum(&report));
    if report.violations.is_empty() {
        return Ok(CLEAN);
    }
    output::note("`turn-metrics check --repair` repairs this, and keeps the damaged files");
    Ok(DAMAGED)
}

fn repaired(directory: &Path) -> Result<u8, CheckFailure> {
    let (before, repaired) = repair(directory)?;
    tell(&before)?;
    output::note(&sum(&before));
    let Some((copy, after)) = repaired else { return Ok(CLEAN) };
    output::note(&format!("the original file is kept as {}", copy.display()));
    if !after.losses.is_empty() {
        output::note("what is lost:");
    }
    after.losses.iter().try_for_each(|loss| output::print(&(plain(&format!("lost: {loss}")) + "\n")))?;
    if after.violations.is_empty() {
        output::note(&format!("repaired; now it is {}", sum(&after)));
        return Ok(REPAIRED);
    }
    output::note("what could not be repaired:");
    tell(&after)?;
    Ok(DAMAGED)
}

/// The texts in the file may come from anybody, so control characters are escaped for the terminal.
fn tell(report: &CheckReport) -> Result<(), CliError> {
    report.violations.iter().try_for_each(|violation| output::print(&(plain(&violation.to_string()) + "\n")))
}

fn sum(report: &CheckReport) -> String {
    let CheckReport { violations, conversations, sealed_turns, open_turns, lost_turns, .. } = report;
    let state = match violations.len() {
        0 => "clean".to_owned(),
        1 => "damaged in 1 place".to_owned(),
        places => format!("damaged in {places} places"),
    };
    let lost = if *lost_turns == 0 { String::new() } else { format!(", {lost_turns} lost before") };
    format!("{state}: {conversations} conversations, {sealed_turns} sealed turns, {open_turns} open turns{lost}")
}
