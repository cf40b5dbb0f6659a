use std::process::ExitCode;

use super::args::ConfigArgs;
use super::service::{self, Service};
use super::signals::Signals;
use super::{CliError, output};
use crate::config::Settings;
use crate::telemetry;

/// Runs the service.
///
/// When it is ready, the one line `listening on http://ADDRESS:PORT` goes to standard output; programs that start it
/// with port 0 read the port from there. Logs go to standard error.
///
/// SIGTERM and SIGINT (Ctrl-C) stop it in order: it accepts no more, finishes what is in flight, closes the store and
/// exits with 0. A second signal ends it at once; what was acknowledged is durable all the same.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics serve
  turn-metrics serve --config turn-metrics.toml --data-dir /var/lib/turn-metrics
  TURN_METRICS__LOG__LEVEL=debug turn-metrics serve --listen 127.0.0.1:0")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,

    /// Listen on an address that other machines can reach, though there is no authentication
    #[arg(long)]
    insecure: bool,
}

pub(super) fn run(args: Args) -> Result<ExitCode, CliError> {
    let settings = args.config.load()?.into_settings();
    telemetry::init(settings.log)?;
    if !args.insecure {
        service::require_loopback(settings.http.listen)?;
    }
    let signals = Signals::listen().map_err(CliError::system("listen for signals"))?;
    actix_web::rt::System::new().block_on(serve(settings, signals))
}

async fn serve(settings: Settings, mut signals: Signals) -> Result<ExitCode, CliError> {
    let listener = service::bind(settings.http.listen)?;
    let mut service = Service::start(listener, &settings).await?;
    tracing::info!(url = %service.url(), "listening");
    if let Err(error) = output::print(&format!("listening on {}\n", service.url())) {
        tracing::warn!(%error, "nobody was told where the service listens");
    }
    let code = tokio::select! {
        signal = signals.first() => {
            tracing::info!(signal = signal.name(), "stopping");
            ExitCode::SUCCESS
        }
        error = service.failed() => {
            tracing::error!(%error, "the service cannot go on");
            ExitCode::FAILURE
        }
    };
    service.stop().await;
    tracing::info!("stopped");
    Ok(code)
}
