use std::process::ExitCode;

use super::args::ConfigArgs;
use super::descriptors::make_room;
use super::service::{self, Service};
use super::signals::{Signal, Signals};
use super::{CliError, output};
use crate::settings::Settings;
use crate::telemetry;

/// Runs the service.
///
/// When the service is ready, it prints the line `listening on http://ADDRESS:PORT` to standard output, and nothing
/// else. A program that starts the service with port 0 can read the port in that line. Logs go to standard error.
///
/// SIGTERM and SIGINT (Ctrl-C) stop the service in order: it accepts no more requests, finishes those in flight, closes
/// the store and exits with 0. A second signal ends it at once. Even then, everything acknowledged is durable.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics serve
  turn-metrics serve --config turn-metrics.toml --data-dir /var/lib/turn-metrics
  TURN_METRICS__LOG__LEVEL=debug turn-metrics serve --listen 127.0.0.1:0")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,

    /// Allow an address that other machines can reach, although there is no authentication
    #[arg(long)]
    insecure: bool,
}

pub(super) fn run(args: Args) -> Result<ExitCode, CliError> {
    let mut settings = args.config.load()?.into_settings();
    // This is dropped last, because the span log is complete only after every span is closed.
    let _telemetry =
        telemetry::init(settings.log, settings.span_log_file.as_deref().map(|file| (file, &settings.span_log)))?;
    if !args.insecure {
        service::require_loopback(settings.listen)?;
    }
    make_room(&mut settings.http)?;
    let signals = Signals::listen().map_err(CliError::system("listen for signals"))?;
    actix_web::rt::System::new().block_on(serve(settings, signals))
}

async fn serve(settings: Settings, mut signals: Signals) -> Result<ExitCode, CliError> {
    let listener = service::bind(settings.listen)?;
    let service = Service::start(listener, &settings).await?;
    actix_web::rt::spawn(tell_address(format!("listening on {}\n", service.url())));
    Ok(run_until_the_end(service, signals.first()).await)
}

/// Prints the address. The server does not wait for that: it serves and stops even if nobody reads the line.
async fn tell_address(line: String) {
    if let Err(error) = output::print_apart(line).await {
        tracing::warn!(%error, "the address of the service could not be printed");
    }
}

/// Runs until a signal arrives or the service fails. After a failure the process exits with 1, so that a supervisor
/// starts it again.
async fn run_until_the_end(mut service: Service, signal: impl Future<Output = Signal>) -> ExitCode {
    let code = tokio::select! {
        signal = signal => {
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
    code
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;

    use super::*;
    use crate::report::NoPrices;
    use crate::runtime::Runtime;

    /// Returns an exit code as a text, because `ExitCode` values cannot be compared.
    fn shown(code: ExitCode) -> String {
        format!("{code:?}")
    }

    async fn serving(runtime: Runtime) -> Service {
        let listener = service::bind(([127, 0, 0, 1], 0).into()).unwrap();
        Service::start_on(runtime, Arc::new(NoPrices), listener, &Settings::default()).await.unwrap()
    }

    #[actix_web::test]
    async fn a_signal_exits_with_0() {
        let service = serving(Runtime::builder().start().await.unwrap()).await;
        assert_eq!(shown(run_until_the_end(service, ready(Signal::Terminate)).await), shown(ExitCode::SUCCESS));
    }

    #[actix_web::test]
    async fn a_writer_that_died_exits_with_1() {
        let service = serving(Runtime::with_dying_writer()).await;
        assert_eq!(shown(run_until_the_end(service, pending()).await), shown(ExitCode::FAILURE));
    }
}
