use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::answers::ListedTurn;
use super::args::ServerUrl;
use super::client::{Client, HttpReceipt, HttpTurnReceipt, TurnQuestion};
use super::send::Sender;
use super::service::{self, Service, ServiceError};
use super::show::render;
use super::signals::Signals;
use super::table::Screen;
use super::{CliError, output};
use crate::clock::{Clock, SystemClock};
use crate::http::BadLines;
use crate::private_file;
use crate::settings::{LogLevel, LogSettings, Settings, SimulationSettings};
use crate::simulate::{History, SimulatedLine, Simulation};
use crate::telemetry;
use crate::turn::ConversationId;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 24210);
/// The number of lines of the history that are sent in one request.
const PAST_LINES_AT_ONCE: usize = 4000;
/// The number of lines that are sent in one request.
const LINES_AT_ONCE: usize = 20;
/// The pause between two requests, so that a person can watch.
const PAUSE: Duration = Duration::from_millis(40);
/// The maximum number of pauses. Even a long demonstration soon ends.
const MAX_PAUSES: u32 = 75;
/// The number of conversations that go on until the end of the demonstration.
const LASTING_CONVERSATIONS: usize = 3;
/// The number of their lines that are sent in one request, and the pause between two requests. So some turn is sealed
/// every few seconds.
const LASTING_LINES_AT_ONCE: usize = 5;
const LASTING_PAUSE: Duration = Duration::from_millis(250);
/// The number of turns in the table at the end.
const TABLE_TURNS: usize = 20;
const RETRIES: u32 = 5;

/// Shows the whole service at work with simulated traffic.
///
/// Starts the service in this process on a temporary directory. Prints the address of the dashboard, and sends the
/// service the events of a simulated kernel over HTTP: first those of the past month, so that charts have something to
/// show, then those of parallel conversations with tool calls, prompt caches, and turns that fail or are aborted. Prints
/// each of these turns as it is sealed, then the metrics of one conversation, then commands to try. The kernel goes on
/// working until Ctrl-C, which ends the service and removes the temporary directory.
///
/// Models and their prices are real. Everything else is made up.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics demo
  turn-metrics demo --conversations 50 --turns 20 --exit")]
pub(super) struct Args {
    /// Listen on this address of this machine; by default 127.0.0.1:24210, or a free port if that is taken
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// The number of conversations that run side by side
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    conversations: u32,

    /// Turns of each conversation
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    turns: u32,

    /// The number of days before today that have turns
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=365))]
    days: u32,

    /// The seed of the simulation; the same seed produces the same traffic
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// End after the table instead of running until Ctrl-C
    #[arg(long)]
    exit: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let _telemetry = telemetry::init(LogSettings { level: LogLevel::Warn, ..LogSettings::default() }, None)?;
    let signals = Signals::listen().map_err(CliError::system("listen for signals"))?;
    let data_dir = private_file::temporary_directory("turn-metrics-demo-")
        .map_err(CliError::system("make a temporary directory"))?;
    let result = actix_web::rt::System::new().block_on(demonstrate(args, &data_dir, signals));
    data_dir.close().map_err(CliError::system("remove the temporary directory"))?;
    result
}

async fn demonstrate(args: &Args, data_dir: &TempDir, mut signals: Signals) -> Result<ExitCode, CliError> {
    let listener = listen(args.listen)?;
    let settings = Settings { data_dir: data_dir.path().to_owned(), ..Settings::default() };
    let mut service = Service::start(listener, &settings).await?;
    let url = service.url();
    let work = async {
        output::print_apart(format!("The dashboard: {url}/\nA simulated kernel sends events to this address.\n\n"))
            .await?;
        let sender = Sender::new(Client::new(url.clone()), RETRIES);
        send_history(args, &sender).await?;
        drive(args, &sender, &url).await?;
        if args.exit {
            return Ok(());
        }
        let text = "\nThe kernel goes on working. Ctrl-C ends the service and removes its data.\n";
        output::print_apart(text.to_owned()).await?;
        send_until_the_end(args, &sender).await
    };
    let result = tokio::select! {
        result = work => result,
        _ = signals.first() => Ok(()),
        error = service.failed() => Err(error.into()),
    };
    service.stop().await;
    result.map(|()| ExitCode::SUCCESS)
}

fn listen(wanted: Option<SocketAddr>) -> Result<TcpListener, ServiceError> {
    if let Some(address) = wanted {
        service::require_loopback(address)?;
        return service::bind(address);
    }
    service::bind(DEFAULT_LISTEN).or_else(|_| {
        output::note(&format!("port {} is taken, so a free one is used", DEFAULT_LISTEN.port()));
        service::bind((Ipv4Addr::LOCALHOST, 0).into())
    })
}

/// Returns the next lines as one body. It is empty if there are no more lines.
fn next_lines(lines: &mut impl Iterator<Item = SimulatedLine>, count: usize) -> String {
    lines.take(count).flat_map(|line| [line.line, "\n".to_owned()]).collect()
}

async fn send(sender: &Sender, body: String) -> Result<HttpReceipt, CliError> {
    let receipt = sender.send(body.into_bytes(), BadLines::Refuse, output::note).await?;
    for refused in &receipt.refused {
        output::note(&refused.error);
    }
    Ok(receipt)
}

/// Sends the turns of the days before this moment.
async fn send_history(args: &Args, sender: &Sender) -> Result<(), CliError> {
    let mut history = History::new(args.seed, args.days, SystemClock.now());
    let mut turns = 0;
    loop {
        let body = next_lines(&mut history, PAST_LINES_AT_ONCE);
        if body.is_empty() {
            break;
        }
        turns += send(sender, body).await?.sealed.len();
    }
    if turns > 0 {
        let days = args.days;
        output::print_apart(format!("history {turns} turns of the past {days} days\n")).await?;
    }
    Ok(())
}

/// Sends the events of conversations that never end, at a pace at which a person can watch.
async fn send_until_the_end(args: &Args, sender: &Sender) -> Result<(), CliError> {
    let mut simulation = Simulation::new(&SimulationSettings {
        seed: args.seed.wrapping_add(1),
        prefix: "live".into(),
        conversations: LASTING_CONVERSATIONS,
        turns: usize::MAX,
        ..SimulationSettings::default()
    });
    loop {
        send(sender, next_lines(&mut simulation, LASTING_LINES_AT_ONCE)).await?;
        tokio::time::sleep(LASTING_PAUSE).await;
    }
}

/// Sends the events of the simulated kernel and shows the sealed turns.
async fn drive(args: &Args, sender: &Sender, url: &ServerUrl) -> Result<(), CliError> {
    let client = Client::new(url.clone());
    let mut simulation = Simulation::new(&SimulationSettings {
        seed: args.seed,
        prefix: "demo".into(),
        conversations: args.conversations as usize,
        turns: args.turns as usize,
        ..SimulationSettings::default()
    });
    let mut shown = None;
    let mut pauses = 0;
    loop {
        let body = next_lines(&mut simulation, LINES_AT_ONCE);
        if body.is_empty() {
            break;
        }
        let receipt = send(sender, body).await?;
        for sealed in receipt.sealed {
            shown.get_or_insert_with(|| sealed.conversation_id.clone());
            print_sealed(&client, sealed).await?;
        }
        if pauses < MAX_PAUSES {
            pauses += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
    let Some(id) = shown else { return Ok(()) };
    let turns = page(&client, &id, 0, TABLE_TURNS).await?;
    output::print_apart(format!("\nThe metrics of conversation {id}, times in milliseconds:\n\n")).await?;
    output::print_apart(render(&turns, &[], &crate::clock::system_time_zone(), Screen::of_stdout())).await?;
    // Show commands with the name by which the user started this program.
    let program = std::env::args().next().unwrap_or_else(|| "turn-metrics".into());
    let mut hint = format!(
        "\nTry:\n  curl {url}/conversations/{id}/metrics\n  {program} show {id} --server {url}\n  {program} report --by model --server {url}\n"
    );
    if cfg!(feature = "tui") {
        hint.extend(["  ", &program, " top --server ", &url.to_string(), "\n"]);
    }
    output::print_apart(hint).await
}

/// Prints a line for a sealed turn, with the metrics that the service returns.
async fn print_sealed(client: &Client, sealed: HttpTurnReceipt) -> Result<(), CliError> {
    let HttpTurnReceipt { conversation_id: id, ordinal, .. } = sealed;
    for ListedTurn { turn, .. } in page(client, &id, ordinal.saturating_sub(1), 1).await? {
        let usage = turn.metrics.usage;
        let name = format!("{id} turn {ordinal}");
        let steps = turn.metrics.steps.len();
        let (input, output, reason) = (usage.input_tokens, usage.output_tokens, turn.reason);
        let line = format!("sealed  {name:<20} {steps} steps {input:>8} tokens in {output:>6} out  {reason}\n");
        output::print_apart(line).await?;
    }
    Ok(())
}

async fn page(client: &Client, id: &ConversationId, after: u64, limit: usize) -> Result<Vec<ListedTurn>, CliError> {
    let (client, id) = (client.clone(), id.clone());
    let question = TurnQuestion { after, limit, ..TurnQuestion::default() };
    match spawn_blocking(move || client.turns(&id, question)).await {
        Ok(page) => Ok(page?.turns),
        Err(error) => Err(CliError::system("read the sealed turns of the demonstration")(error.into())),
    }
}
