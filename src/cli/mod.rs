//! The command line: a file for each command, and files that the commands share.
//!
//! Invariant: a command reads or changes a running server only over HTTP. Only `check` and `compact` open the files of
//! a store, and only while no server runs on them.
//!
//! # Commands
//!
//! - `serve`: runs the service.
//! - `demo`: runs the service on the events of a simulated kernel.
//! - `ingest`: posts files and pipes of events.
//! - `show`: prints the turns of a conversation.
//! - `list`: prints a list of conversations.
//! - `report`: prints sums over the turns of many conversations.
//! - `top`: shows live what a server does.
//! - `prices`: prints the prices of models.
//! - `erase`: erases a conversation.
//! - `check`: verifies and repairs the files of a stopped server.
//! - `compact`: makes the database of a stopped server smaller.
//! - `backup`: copies the database of a running server.
//! - `export`: writes all turns of a running server.
//! - `import`: brings exported turns to a running server.
//! - `config`: prints the settings in force.
//!
//! # Shared by the commands
//!
//! - `args`: arguments of several commands.
//! - `client`: the requests to a running server over HTTP.
//! - `answers`: the server's answers to questions.
//! - `send`: posts events until they are acknowledged.
//! - `service`: the whole service in this process.
//! - `descriptors`: the file descriptors that the process may have.
//! - `price_book`: the prices of models that a service uses.
//! - `signals`: SIGINT, SIGTERM and SIGXFSZ.
//! - `new_file`: a file that gets its name when it is complete.
//! - `output`: writes to standard output and standard error.
//! - `table`: draws tables that fit their terminal.
//! - `figures`: how tables show figures.
//! - `sheet`: CSV.
//! - `testing`: a server for tests, which gives scripted answers.

mod answers;
mod args;
mod backup;
mod check;
mod client;
mod compact;
mod config;
mod demo;
mod descriptors;
mod erase;
mod export;
mod figures;
mod import;
mod ingest;
mod list;
mod new_file;
mod output;
mod price_book;
mod prices;
mod report;
mod send;
mod serve;
mod service;
mod sheet;
mod show;
mod signals;
mod table;
#[cfg(test)]
mod testing;
#[cfg(feature = "tui")]
mod top;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::ConfigError;
use crate::deceptive;
use crate::store::CompactError;
use crate::telemetry::TelemetryError;
use crate::terminal::is_color_wanted;

pub use backup::BackupFailure;
pub use client::ClientError;
pub use export::ExportFailure;
pub use import::ImportFailure;
pub use ingest::error::{IngestError, IngestFailure};
pub use new_file::NewFileError;
pub use price_book::PriceBookError;
pub use send::SendError;
pub use service::ServiceError;

/// Keeps metrics of every turn of LLM agents, durably: tokens and times, step by step.
///
/// A kernel posts its events as NDJSON to `POST /events`; the metrics of a conversation are at
/// `GET /conversations/{id}/metrics`.
#[derive(Parser)]
#[command(name = "turn-metrics", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Begin with `turn-metrics demo`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 or 143 ended by SIGINT or SIGTERM before it was done.
`ingest` also exits with 3 if it skipped refused lines or conversations, `prices check` if a model has no price. `check` has other exit codes; see its help.
Set NO_COLOR to turn colours off.";

#[derive(Subcommand)]
enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    Ingest(ingest::Args),
    List(list::Args),
    Show(show::Args),
    Report(report::Args),
    #[cfg(feature = "tui")]
    Top(top::Args),
    Prices(prices::Args),
    Erase(erase::Args),
    Check(check::Args),
    Compact(compact::Args),
    Backup(backup::Args),
    Export(export::Args),
    Import(import::Args),
    Config(config::Args),
}

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The telemetry could not be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The service could not start, or could not continue.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The server did not answer as expected.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Events were not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// No backup was made.
    #[error(transparent)]
    Backup(#[from] BackupFailure),
    /// The turns were not exported, or not all of them.
    #[error(transparent)]
    Export(#[from] ExportFailure),
    /// The turns were not imported, or not all of them.
    #[error(transparent)]
    Import(#[from] ImportFailure),
    /// The database was not made smaller.
    #[error(transparent)]
    Compact(#[from] CompactError),
    /// A file of prices cannot be used.
    #[error(transparent)]
    Prices(#[from] PriceBookError),
    /// Not all of the input was taken in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The operating system refused something that every command needs.
    #[error("cannot {what}")]
    System {
        /// What the command tried to do.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

impl CliError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Runs the command that the arguments of the process name. Exits the process if the arguments are not valid.
pub fn run() -> Result<ExitCode, CliError> {
    // This must come before every write to a file, and the output may be a file.
    signals::survive_file_size_limit().map_err(CliError::system("handle the limit on the size of files"))?;
    let cli = match parsed_arguments(std::env::args_os().collect()) {
        Ok(cli) => cli,
        // For `check`, exit code 2 means a damaged database, so wrong usage needs another code.
        Err(error) if error.use_stderr() && check::is_meant(std::env::args_os()) => {
            output::note(error.to_string().trim_end());
            return Ok(check::USAGE.into());
        }
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Serve(args) => Ok(output::end_of_server(serve::run(args))),
        Command::Demo(args) => Ok(output::end_of_server(demo::run(&args))),
        Command::Ingest(args) => ingest::run(&args),
        Command::List(args) => list::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Report(args) => report::run(&args),
        #[cfg(feature = "tui")]
        Command::Top(args) => top::run(&args),
        Command::Prices(args) => prices::run(&args),
        Command::Erase(args) => erase::run(&args),
        Command::Check(args) => check::run(args),
        Command::Compact(args) => compact::run(args),
        Command::Backup(args) => backup::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Config(args) => config::run(args),
    }
}

/// Returns the arguments of a process. The message of an error has no character of them that would deceive its reader.
fn parsed_arguments(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let plain: Vec<_> = arguments.iter().map(|argument| deceptive::plain(&argument.to_string_lossy()).into()).collect();
    parsed(arguments.into_iter()).map_err(|error| {
        parsed(plain.into_iter()).err().unwrap_or_else(|| {
            // They are valid in their plain form, so there is no other message.
            let text = error.to_string();
            let lines: Vec<_> = text.trim_start_matches("error: ").lines().map(deceptive::plain).collect();
            clap::Error::raw(error.kind(), lines.join("\n") + "\n")
        })
    })
}

fn parsed(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    // Without this, clap colours its texts even on a dumb terminal if the environment names a CI system.
    let color = if is_color_wanted() { ColorChoice::Auto } else { ColorChoice::Never };
    Cli::from_arg_matches(&Cli::command().color(color).try_get_matches_from(arguments)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_about_arguments_has_characters_that_deceive_its_reader() {
        let deceptive = "no\u{1b}[31msuch\u{202e}";
        for before in
            [&["show"] as &[_], &["erase"], &["list", "--tz"], &["report", "--since"], &["list", "--order"], &[]]
        {
            let arguments = ["turn-metrics"].iter().chain(before).chain(&[deceptive]).map(OsString::from).collect();
            let Err(error) = parsed_arguments(arguments) else { panic!("{before:?} is valid") };
            let told = error.to_string();
            assert!(told.starts_with("error: ") && told.contains("such"), "{told}");
            assert!(!told.contains(|c: char| deceptive::is_deceptive(c) || (c.is_control() && c != '\n')), "{told:?}");
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_says_what_it_does_and_gives_an_example() {
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{help}");
            assert!(help.len() > 300, "{help}");
        }
    }
}
