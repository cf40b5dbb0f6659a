//! HTTP servers in this process, each with workers on threads of their own: this service, and a plain server of
//! actix-web that it is compared with.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};
use turn_metrics::http::{self, Api};
use turn_metrics::runtime::Runtime;
use turn_metrics::settings::HttpSettings;

/// A server that runs until it is stopped.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

impl Serving {
    /// Starts the service on this data directory, with default settings and without a log.
    pub(crate) fn ours(directory: &Path) -> Self {
        Self::ours_with(directory, HttpSettings::default())
    }

    /// Starts the service with these settings.
    pub(crate) fn ours_with(directory: &Path, settings: HttpSettings) -> Self {
        let directory = directory.to_owned();
        Self::start(|listener, started| async move {
            let runtime = Runtime::builder().data_dir(directory).start().await.unwrap();
            let api = Api::new(runtime.handles().clone(), settings);
            run(http::serve(listener, api).unwrap(), &started).await;
            runtime.shutdown().await;
        })
    }

    /// Starts the framework's own server, with as many workers as ours and only what `configure` mounts.
    pub(crate) fn rival(configure: impl Fn(&mut ServiceConfig) + Clone + Send + 'static) -> Self {
        Self::start(|listener, started| async move {
            let workers = thread::available_parallelism().unwrap().get();
            let server = HttpServer::new(move || App::new().configure(configure.clone())).workers(workers);
            run(server.disable_signals().listen(listener).unwrap().run(), &started).await;
        })
    }

    fn start<Done: Future<Output = ()>>(
        serve: impl FnOnce(TcpListener, Sender<ServerHandle>) -> Done + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (started, handle) = channel();
        let thread = thread::spawn(move || actix::System::new().block_on(serve(listener, started)));
        Self { address, handle: handle.recv().unwrap(), thread }
    }

    pub(crate) fn stop(self) {
        let stopped = self.handle.stop(true);
        actix::System::new().block_on(stopped);
        self.thread.join().unwrap();
    }
}

async fn run(server: Server, started: &Sender<ServerHandle>) {
    started.send(server.handle()).unwrap();
    server.await.unwrap();
}
