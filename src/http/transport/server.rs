use std::future::ready;
use std::io;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_http::HttpService;
use actix_http::error::DispatchError;
use actix_server::GracefulShutdownSignal;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, map_config};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{AppConfig, Server, ServiceFactory, ServiceRequest, ServiceResponse, fn_service};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpResponse, rt, web};
use tokio::net::TcpStream;

use super::connection::{Connection, keep_time};
use super::framing::frame;
use super::open_connections::OpenConnections;
use crate::http::error::ApiError;
use crate::http::middleware::cors::ConversationCors;
use crate::http::middleware::expect::refuse_expectations;
use crate::http::middleware::host::{Hosts, check_host};
use crate::http::middleware::origin::refuse_pages;
use crate::http::middleware::trace::trace;
use crate::http::middleware::unread::close_unread;
use crate::http::pages::mount::pages;
use crate::http::resources::api::Api;
use crate::http::resources::mount::{backup_resource, resources};
use crate::settings::{HttpSettings, Workers};

/// How long a client may go on sending its body after the answer was sent, so that it gets to read the answer. The
/// framework's own server allows the same time.
const LINGER: Duration = Duration::from_secs(1);

/// Answers requests on `listener` until its handle stops the server. It handles no signals.
///
/// Call this within an actix system, and await it. It fails if the listener cannot be used.
pub fn serve(listener: TcpListener, api: Api) -> io::Result<Server> {
    let settings = &api.settings;
    let workers = worker_count(settings);
    let most = connections_of_a_worker(settings.max_connections, workers);
    limit_unread(&listener, settings);
    lengthen_queue(&listener);
    let server = Server::build()
        .workers(workers)
        // The framework counts the connections of each worker. It accepts a few more than may stay open, so that an
        // idle one can make room.
        .max_concurrent_connections(with_headroom(most))
        .shutdown_timeout(settings.shutdown_timeout.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
        .disable_signals();
    let hosts = Hosts::of(listener.local_addr()?, &settings.host_names);
    let stopping = server.graceful_shutdown_signal();
    let (stopped, feed) = (stopping.clone(), api.feed.clone());
    rt::spawn(async move {
        stopped.notified().await;
        feed.end();
    });
    Ok(server.listen("http", listener, move || connections(&api, &hosts, most, stopping.clone()))?.run())
}

/// Returns the number of threads that answer requests.
pub(crate) fn worker_count(settings: &HttpSettings) -> usize {
    let workers = match settings.workers {
        Workers::Auto => available_parallelism().map_or(1, NonZeroUsize::get),
        Workers::Exactly(workers) => workers,
    };
    workers.clamp(1, Workers::MAX)
}

/// Returns how many connections of each worker may stay open.
fn connections_of_a_worker(max_connections: usize, workers: usize) -> usize {
    (max_connections / workers).max(1)
}

/// Returns how many connections a worker accepts if this number of connections may stay open.
pub(crate) fn with_headroom(connections: usize) -> usize {
    connections.saturating_add((connections / 8).max(1))
}

/// Returns how many connections all workers accept. Each connection needs a descriptor.
pub(crate) fn accepted_connections(max_connections: usize, workers: usize) -> usize {
    workers.saturating_mul(with_headroom(connections_of_a_worker(max_connections, workers)))
}

/// The maximum number of bytes of an answer that the operating system holds for a connection until its client takes
/// them. By default it would hold several MiB. This size allows 10 MiB a second at a round-trip time of 20 ms.
#[cfg(unix)]
const SEND_BUFFER_BYTES: usize = 208 * 1024;

/// Limits what the operating system holds for clients that do not read, in bytes and, on Linux, in time. Accepted
/// connections inherit the limits.
fn limit_unread(listener: &TcpListener, settings: &HttpSettings) {
    #[cfg(unix)]
    if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(listener, SEND_BUFFER_BYTES) {
        tracing::warn!(%error, "the buffers of connections could not be limited");
    }
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from(settings.keep_alive.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(listener, millis) {
            tracing::warn!(%error, "the time of unread answers could not be limited");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (listener, settings);
}

/// The number of connections that may wait until the server accepts them. The standard library allows 128. If more wait,
/// the system drops the attempts of further clients, which try again after a second.
#[cfg(unix)]
const WAITING_CONNECTIONS: i32 = 4096;

/// Lets more connections wait than a listener of the standard library does.
fn lengthen_queue(listener: &TcpListener) {
    #[cfg(unix)]
    if let Err(error) = rustix::net::listen(listener, WAITING_CONNECTIONS) {
        tracing::warn!(%error, "the queue of new connections could not be made longer");
    }
    #[cfg(not(unix))]
    let _ = listener;
}

/// Builds the service for the connections of one worker. It is like that of the framework's own server, but uses
/// [`Connection`].
fn connections(
    api: &Api,
    hosts: &Hosts,
    most: usize,
    stopping: GracefulShutdownSignal,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<> {
    let settings = api.settings.clone();
    let open = OpenConnections::new(most);
    let app = app(&api.on_this_thread(), hosts).into_factory().map_err(|error| error.error_response());
    let http = HttpService::build()
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .keep_alive(settings.keep_alive)
        // The framework's limit would apply to the first head alone. The connection has its own limit.
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(LINGER)
        .on_connect_ext(|connection: &Connection<TcpStream>, data| {
            data.insert(connection.head());
            data.insert(connection.open());
            data.insert(connection.last_body());
            data.insert(connection.hang_up());
            data.insert(connection.flow());
        })
        .h1(map_config(app, |()| AppConfig::default()));
    fn_service(move |stream: TcpStream| {
        let peer = stream.peer_addr().ok();
        // With Nagle's algorithm, an answer in several parts would wait until the client acknowledges the first part.
        // The call fails if the client has gone already; the first read finds that.
        let _ = stream.set_nodelay(true);
        ready(Ok::<_, DispatchError>((Connection::new(stream, &settings, open.enter()), peer)))
    })
    .and_then(http)
}

/// Builds the whole application of one worker. It answers requests to these hosts.
pub(crate) fn app(
    api: &Api,
    hosts: &Hosts,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody + use<>>,
        Error = Error,
        InitError = (),
    > + use<>,
> {
    let hosts = Rc::new(hosts.clone());
    App::new()
        .configure(resources(api))
        .configure(backup_resource(api))
        .configure(pages(api))
        .default_service(web::to(|| async { Err::<HttpResponse, _>(ApiError::NotFound) }))
        .wrap(ConversationCors::new(&api.settings.allowed_origins))
        .wrap(from_fn(move |request, next| around(Rc::clone(&hosts), request, next)))
}

/// Runs all middleware except CORS in one function. Each separate middleware would cost a future on the heap, and would
/// move the request into it and the answer out of it.
///
/// From the outside in: time limits, the framing of the answer, the request's id and span, bodies left unread, the
/// host, the page, what the request expects, then CORS and the routes. A middleware that refuses a request lies inside
/// the one that gives the refusal its id and turns it into JSON.
async fn around(
    hosts: Rc<Hosts>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let answer = |request| next.call(request);
    let as_expected = |request| refuse_expectations(request, answer);
    let for_programs = |request| refuse_pages(request, as_expected);
    let for_this_host = |request| check_host(&hosts, request, for_programs);
    let guarded = |request| close_unread(request, for_this_host);
    let traced = |request| trace(request, guarded);
    keep_time(request, |request| frame(request, traced)).await
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpStream};
    use std::sync::{Arc, Mutex};

    use actix_web::dev::ServerHandle;
    use actix_web::http::Method;
    use actix_web::test::TestRequest;
    use futures_util::future::join_all;

    use super::*;
    use crate::http::access::{PAGES, ROUTES};
    use crate::http::stand_in::{Seen, StandIn, ask, done, get, observed, sealed_turns};
    use crate::runtime::Runtime;

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_system_holds_for_a_client_that_does_not_read_is_limited_in_bytes_and_in_time() {
        use rustix::net::sockopt::{socket_send_buffer_size, tcp_user_timeout};

        let accept = |settings: Option<&HttpSettings>| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Some(settings) = settings {
                limit_unread(&listener, settings);
            }
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.set_nonblocking(true).unwrap();
            let (mut written, bytes) = (0, vec![0; 64 * 1024]);
            // The client reads nothing.
            while let Ok(more @ 1..) = accepted.write(&bytes) {
                written += more;
            }
            drop(client);
            (socket_send_buffer_size(&accepted).unwrap(), tcp_user_timeout(&accepted).unwrap(), written)
        };
        let settings = HttpSettings { keep_alive: Duration::from_secs(7), ..HttpSettings::default() };
        let (buffer, timeout, written) = accept(Some(&settings));
        // Linux doubles the size that it is asked for.
        assert_eq!((buffer, timeout), (2 * SEND_BUFFER_BYTES, 7000), "accepted connections inherit the limits");
        // Control: without the setting, the system has no limit in time and holds more bytes.
        let (_, timeout, without) = accept(None);
        assert_eq!(timeout, 0);
        assert!(written < without, "{written} and {without} bytes");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn many_connections_may_wait_to_be_accepted() {
        // Returns how many of 300 clients are connected, while nobody accepts them.
        let connected = |is_longer: bool| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            rustix::net::listen(&listener, 16).unwrap();
            if is_longer {
                lengthen_queue(&listener);
            }
            let address = listener.local_addr().unwrap();
            let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
            let clients: Vec<_> = (0..300).map_while(connect).collect();
            clients.len()
        };
        let (longer, control) = (connected(true), connected(false));
        assert!(control < 100 && longer > 2 * control, "{longer} and {control} connections");
    }

    #[actix_web::test]
    async fn there_is_nothing_at_other_paths() {
        let api = StandIn::default().serving();
        for path in ["/nowhere", "/conversations/", "/conversations/c/metrics/", "/Health"] {
            get(&api, path).await.failure(404);
        }
    }

    #[actix_web::test]
    async fn other_methods_are_told_which_a_route_allows() {
        let api = StandIn { check: Some(Ok(())), ..StandIn::default() }.serving();
        for route in ROUTES.iter().chain(&PAGES) {
            let path = route.path.replace("{id}", "c");
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
                let request = TestRequest::default().method(method.parse().unwrap()).uri(&path);
                let answer = ask(&api, request).await;
                let is_allowed = route.methods.split(", ").any(|allowed| allowed == method);
                assert_eq!(answer.status != 405, is_allowed, "{method} {path}");
                if !is_allowed {
                    assert_eq!(answer.header("allow"), Some(route.methods), "{method} {path}");
                }
                if method == "PUT" {
                    assert!(answer.failure(405).contains(route.methods));
                }
            }
        }
        for path in
            ["/conversations/c/metrics", "/conversations/c/turns", "/conversations", "/stats", "/health", "/ready"]
        {
            ask(&api, TestRequest::default().method(Method::HEAD).uri(path)).await.success();
        }
    }

    /// A server that listens on a port of its own.
    struct Running {
        address: SocketAddr,
        handle: ServerHandle,
        server: rt::task::JoinHandle<io::Result<()>>,
        seen: Arc<Mutex<Seen>>,
    }

    fn run(system: StandIn, settings: HttpSettings) -> Running {
        let (api, seen) = system.start_with(settings);
        run_api(api, seen)
    }

    fn run_api(mut api: Api, seen: Arc<Mutex<Seen>>) -> Running {
        api.settings.workers = Workers::Exactly(1);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve(listener, api).unwrap();
        let handle = server.handle();
        Running { address, handle, server: rt::spawn(server), seen }
    }

    impl Running {
        /// Sends `text`, and returns all bytes that arrive until the server closes the connection.
        async fn exchange(&self, text: String, and_hang_up: bool) -> String {
            let address = self.address;
            rt::task::spawn_blocking(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                // If no answer comes, the test fails instead of waiting forever.
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                stream.write_all(text.as_bytes()).unwrap();
                if and_hang_up {
                    stream.shutdown(Shutdown::Write).unwrap();
                }
                let mut answer = String::new();
                let read = stream.read_to_string(&mut answer);
                assert!(read.is_ok(), "{read:?} after {answer:?}");
                answer
            })
            .await
            .unwrap()
        }

        async fn ask(&self, head: &str, body: &str) -> String {
            self.exchange(format!("{head}\r\nhost: localhost\r\n\r\n{body}"), false).await
        }

        async fn stop(self) {
            self.handle.stop(true).await;
            self.server.await.unwrap().unwrap();
        }
    }

    const POST: &str = "POST /events HTTP/1.1\r\ncontent-type: application/x-ndjson";

    /// The header fields of requests whose bodies never arrive.
    const FRAMINGS: [&str; 2] = ["content-length: 1000", "transfer-encoding: chunked"];

    fn body_of(answer: &str) -> &str {
        answer.split_once("\r\n\r\n").unwrap().1
    }

    #[actix_web::test]
    async fn head_is_get_without_the_body() {
        for count in [3, 1000] {
            let system = StandIn { turns: sealed_turns(count), ..StandIn::default() };
            // With this small cache, the longer answer is streamed.
            let server = run(system, HttpSettings { cache_bytes: 64 * 1024, ..HttpSettings::default() });
            let rest = "/conversations/c/metrics HTTP/1.1\r\nconnection: close\r\nx-request-id: 1";
            let head = server.ask(&format!("HEAD {rest}"), "").await;
            let get = server.ask(&format!("GET {rest}"), "").await;
            let fields = |answer: &str| -> Vec<String> {
                let fields = answer.split_once("\r\n\r\n").unwrap().0.lines().map(str::to_owned);
                let mut fields: Vec<_> = fields.filter(|field| !field.starts_with("date: ")).collect();
                fields.sort();
                fields
            };
            assert_eq!(fields(&head), fields(&get), "{count} turns");
            assert_eq!(body_of(&head), "");
            let length = format!("content-length: {}", body_of(&get).len());
            assert_eq!(head.contains(&length), count == 3, "{head}");
            assert_eq!(head.contains("transfer-encoding: chunked"), count == 1000, "{head}");
            server.stop().await;
        }
    }

    #[actix_web::test]
    async fn workers_read_the_store_by_themselves() {
        let runtime = Runtime::builder().start().await.unwrap();
        let observe = observed("c", &["t"]);
        runtime.handles().intake.observe.send(observe).await.unwrap().unwrap();
        let (mut api, seen) = StandIn { gone: true, ..StandIn::default() }.start_with(HttpSettings::default());
        api.handles.reads.reader.clone_from(&runtime.handles().reads.reader);
        let server = run_api(api, seen);
        for resource in ["metrics", "turns"] {
            let get = format!("GET /conversations/c/{resource} HTTP/1.1\r\nconnection: close");
            let answer = server.ask(&get, "").await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""turnId":"t""#), "{answer}");
        }
        server.stop().await;
        runtime.shutdown().await;
    }

    #[actix_web::test]
    async fn an_answer_that_breaks_off_is_not_taken_for_whole() {
        let system = StandIn { turns: sealed_turns(1000), reads: Some(12), ..StandIn::default() };
        let server = run(system, HttpSettings { cache_bytes: 1024, ..HttpSettings::default() });
        let answer = server.ask("GET /conversations/c/metrics HTTP/1.1", "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "the last chunk is missing");
        server.stop().await;
    }

    #[actix_web::test]
    async fn a_body_cut_short_changes_nothing() {
        let server = run(StandIn::default(), HttpSettings::default());
        let event = done("c", "t") + "\n";
        let announced = format!("{POST}\r\ncontent-length: {}\r\n\r\n{event}", event.len() * 2);
        let chunked = format!("{POST}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n", event.len());
        for request in [announced, chunked] {
            let answer = server.exchange(request, true).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        }
        assert!(server.seen.lock().unwrap().observes.is_empty());
        server.stop().await;
    }

    #[actix_web::test]
    async fn a_stalled_body_is_answered_and_the_connection_closed() {
        let body_timeout = Duration::from_millis(20);
        let server = run(StandIn::default(), HttpSettings { body_timeout, ..HttpSettings::default() });
        let answers =
            FRAMINGS.map(|framing| server.exchange(format!("{POST}\r\n{framing}\r\nhost: localhost\r\n\r\n"), false));
        for answer in join_all(answers).await {
            assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("connection: close"), "{answer}");
            assert!(body_of(&answer).starts_with(r#"{"error":"#), "{answer}");
        }
        server.stop().await;
    }

    #[actix_web::test]
    async fn a_body_that_nobody_reads_does_not_keep_the_connection() {
        let server = run(StandIn::default(), HttpSettings::default());
        let requests = [("GET /health", 200), ("POST /nowhere", 404), ("POST /events", 415)];
        let exchanges = FRAMINGS.into_iter().flat_map(|framing| {
            let server = &server;
            requests.map(|(request, status)| async move {
                let answer = server.ask(&format!("{request} HTTP/1.1\r\n{framing}"), "").await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            })
        });
        join_all(exchanges).await;
        server.stop().await;
    }

    #[actix_web::test]
    async fn a_body_over_the_limit_is_answered_before_it_has_come() {
        let server = run(StandIn::default(), HttpSettings { max_transfer_bytes: 100, ..HttpSettings::default() });
        let answer = server.ask(&format!("{POST}\r\ncontent-length: 101"), "").await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        let chunk = format!("65\r\n{}\r\n", "\n".repeat(0x65));
        let answer = server.ask(&format!("{POST}\r\ntransfer-encoding: chunked"), &chunk).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        server.stop().await;
    }

    #[actix_web::test]
    async fn a_connection_serves_one_request_after_another() {
        let server = run(StandIn::default(), HttpSettings::default());
        let event = done("c", "t");
        let post = format!("{POST}\r\ncontent-length: {}\r\nhost: localhost\r\n\r\n{event}", event.len());
        let chunked = format!(
            "{POST}\r\ntransfer-encoding: chunked\r\nhost: localhost\r\n\r\n{:x}\r\n{event}\r\n0\r\n\r\n",
            event.len()
        );
        let bad = format!("{POST}\r\ncontent-length: 2\r\nhost: localhost\r\n\r\n{{}}");
        let last = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let answers = server.exchange(format!("{post}{bad}{chunked}{last}"), false).await;
        let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(statuses, ["200", "400", "200", "200"], "{answers}");
        server.stop().await;
    }
}
