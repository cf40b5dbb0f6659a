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
    let mut settings = args.config.load()?.into_settings();
    // Dropped last, after every span is closed: only then is the span log complete.
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

/// Prints the address. The server does not wait for this: it serves and stops even if nobody reads the line.
async fn tell_address(line: String) {
    if let Err(error) = output::print_apart(line).await {
        tracing::warn!(%error, "the address of the service could not be printed");
    }
}

/// Runs until a signal comes or the service cannot go on, which exits with 1: whoever supervises the process starts it
/// again.
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

    use super::*;
    use crate::runtime::Runtime;

    /// What `ExitCode` shows of itself is all that there is to compare.
    fn shown(code: ExitCode) -> String {
        format!("{code:?}")
    }

    async fn serving(runtime: Runtime) -> Service {
        let listener = service::bind(([127, 0, 0, 1], 0).into()).unwrap();
        Service::start_on(runtime, listener, &Settings::default()).await.unwrap()
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
