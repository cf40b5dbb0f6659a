//! The whole service in this process: the HTTP server, the actors and the store.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::rt::task::JoinHandle;

use super::args::ServerUrl;
use super::price_book::{self, PriceBookError};
use crate::actors::{CountWork, WorkCounts};
use crate::clock;
use crate::http::{self, Api};
use crate::report::SharedPriceBook;
use crate::runtime::{Operations, Runtime, StartError};
use crate::settings::Settings;
use crate::telemetry;

/// The reason why the service cannot start or continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Other machines can reach the address, and the user has not allowed that.
    #[error(
        "refused to listen on {0}: other machines may reach that address and the service has no authentication; \
         listen on 127.0.0.1, or give --insecure if the network keeps strangers out"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The actors or the store did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The process is allowed too few file descriptors.
    #[error(
        "the process may open only {limit} files, and the service needs at least {needed}: raise the limit \
         (`ulimit -n`)"
    )]
    TooFewDescriptors {
        /// How many files the process may open.
        limit: u64,
        /// How many files the service needs.
        needed: u64,
    },
    /// The configured prices cannot be used.
    #[error(transparent)]
    Prices(#[from] PriceBookError),
    /// The HTTP server did not start.
    #[error("cannot start the HTTP server")]
    Http(#[source] io::Error),
    /// The store's writer has died, so nothing can be acknowledged any more.
    #[error("the store's writer is gone, nothing can be made durable any more")]
    StoreFailed,
    /// The HTTP server ended although the service did not stop it.
    #[error("the HTTP server has ended: it was stopped")]
    HttpStopped,
    /// The HTTP server failed.
    #[error("the HTTP server has ended: {0}")]
    HttpFailed(io::Error),
}

/// Refuses an address that other machines may reach.
pub(super) fn require_loopback(address: SocketAddr) -> Result<(), ServiceError> {
    // An IPv4 address may be written as an IPv6 address.
    if address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(ServiceError::NotLoopback(address)) }
}

/// Binds the address.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, ServiceError> {
    TcpListener::bind(address).map_err(|source| ServiceError::Listen { address, source })
}

/// The running service.
pub(super) struct Service {
    address: SocketAddr,
    runtime: Runtime,
    server: ServerHandle,
    /// Resolves when the server ends.
    serving: JoinHandle<io::Result<()>>,
    /// Two limits in one: how long the HTTP server may take to stop, and then how long the store may take to close.
    patience: Duration,
}

impl Service {
    /// Starts the service. The address is bound before the database is opened. So if the service is started twice by
    /// mistake, the error names the address, which is the cause, and not the lock of the database.
    pub(super) async fn start(listener: TcpListener, settings: &Settings) -> Result<Self, ServiceError> {
        let book = price_book::book(&settings.prices)?;
        let runtime = Runtime::builder()
            .data_dir(settings.data_dir.clone())
            .prices(Arc::clone(&book))
            .turns(settings.turns.clone())
            .store(settings.store.clone())
            .retention(settings.retention.clone())
            .start()
            .await?;
        Self::start_on(runtime, book, listener, settings).await
    }

    /// Serves a runtime that is running already, with these prices.
    pub(super) async fn start_on(
        runtime: Runtime,
        book: SharedPriceBook,
        listener: TcpListener,
        settings: &Settings,
    ) -> Result<Self, ServiceError> {
        let address = listener.local_addr().map_err(ServiceError::Http)?;
        let zone = settings.reports.time_zone.clone().unwrap_or_else(clock::system_time_zone);
        let api = Api::new(runtime.handles().clone(), settings.http.clone()).with_prices(book).with_time_zone(zone);
        let server = match http::serve(listener, api) {
            Ok(server) => server,
            Err(error) => {
                runtime.shutdown().await;
                return Err(ServiceError::Http(error));
            }
        };
        let handle = server.handle();
        let serving = actix_web::rt::spawn(server);
        let patience = settings.http.shutdown_timeout.saturating_add(Duration::from_secs(5));
        tracing::info!(url = %ServerUrl::of(address), "listening");
        Ok(Self { address, runtime, server: handle, serving, patience })
    }

    /// Returns the address that the service listens on, with the actual port.
    pub(super) fn url(&self) -> ServerUrl {
        ServerUrl::of(self.address)
    }

    /// Resolves when the service cannot continue, and returns the reason.
    pub(super) async fn failed(&mut self) -> ServiceError {
        tokio::select! {
            () = self.runtime.failed() => ServiceError::StoreFailed,
            ended = &mut self.serving => match ended {
                Ok(Ok(())) => ServiceError::HttpStopped,
                Ok(Err(error)) => ServiceError::HttpFailed(error),
                Err(panic) => ServiceError::HttpFailed(io::Error::other(panic)),
            },
        }
    }

    /// Stops in order: accepts no more connections, finishes the requests in flight, drains the actors and closes the
    /// store.
    pub(super) async fn stop(self) {
        // Close the store even if the HTTP server does not stop in time.
        if tokio::time::timeout(self.patience, self.server.stop(true)).await.is_err() {
            tracing::warn!("the HTTP server did not stop in time");
        }
        let end = async {
            log_warnings(&self.runtime.handles().operations).await;
            self.runtime.shutdown().await;
        };
        if tokio::time::timeout(self.patience, end).await.is_err() {
            // A sync that hangs cannot be cancelled, and its thread ends only with the process.
            tracing::error!("the store did not close in time; what was acknowledged is durable");
            telemetry::flush();
            std::process::exit(1);
        }
    }
}

/// Logs the number of warnings in receipts. Only the first warning of a kind was logged for each conversation.
async fn log_warnings(operations: &Operations) {
    if let Ok(WorkCounts { warnings: count @ 1.., .. }) = operations.count_work.send(CountWork).await {
        tracing::info!(warnings = count, "since the start, receipts had warnings about events that are probably wrong");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_allowed() {
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            require_loopback(address.parse().unwrap()).unwrap();
        }
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"] {
            assert!(require_loopback(address.parse().unwrap()).is_err(), "{address}");
        }
        let message = require_loopback("0.0.0.0:24210".parse().unwrap()).unwrap_err().to_string();
        assert!(message.starts_with("refused to listen on 0.0.0.0:24210: "), "{message}");
        assert!(message.contains("--insecure"), "{message}");
    }

    #[test]
    fn an_address_that_is_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(bind(address).unwrap_err().to_string(), format!("cannot listen on {address}"));
    }
}
