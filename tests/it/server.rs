//! Starts the real binary as a server, and has a client for it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for something that must happen. It ends a broken test, and asserts no speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Repeats a check until it returns a value; `what` describes the value.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
    }
}

/// Returns the command, ready for arguments. Nothing in the caller's environment can change its behaviour.
pub(crate) fn turn_metrics() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turn-metrics"));
    let foreign = std::env::vars_os().map(|(name, _)| name);
    for name in foreign.filter(|name| name.to_string_lossy().starts_with("TURN_METRICS__")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Returns the command of a server on a free port, with this data directory.
pub(crate) fn serve(data_dir: &Path) -> Command {
    serve_by(turn_metrics(), data_dir)
}

fn serve_by(mut command: Command, data_dir: &Path) -> Command {
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
    command
}

/// A running `turn-metrics serve` on a free port. Dropping it kills the process.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// The lines of its standard error.
    log: Receiver<String>,
}

impl Server {
    /// Starts a server on this data directory and waits until it listens.
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// Like [`Self::start`], with settings from the environment, such as `HTTP__MAX_BODY_BYTES`.
    pub(crate) fn start_with(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_by(turn_metrics(), data_dir, settings)
    }

    /// Like [`Self::start_with`], through another command that executes the program.
    pub(crate) fn start_by(command: Command, data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = serve_by(command, data_dir);
        command.envs(settings.iter().map(|(key, value)| (format!("TURN_METRICS__{key}"), value)));
        Self::launch(command.stderr(Stdio::piped()))
    }

    /// Starts the command of a server and waits until it listens. If its standard error is not piped, the test handles
    /// that itself, and the log here stays empty.
    pub(crate) fn launch(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = lines_of(child.stdout.take().unwrap());
        let log = child.stderr.take().map_or_else(|| channel().1, lines_of);
        let first = out.recv_timeout(PATIENCE);
        let address = first.ok().as_deref().and_then(listening_address);
        let address =
            address.unwrap_or_else(|| panic!("no address; the log: {:#?}", log.try_iter().collect::<Vec<_>>()));
        Self { child, address, log }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Kills the process, as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Returns a size of the process's memory in KiB, as Linux reports it: `VmRSS` is the present use, and `VmHWM` the
    /// peak.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Returns the id of the process.
    #[cfg(target_os = "linux")]
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Removes the limit on the size of files under which the process was started.
    #[cfg(target_os = "linux")]
    pub(crate) fn lift_file_size_limit(&self) {
        use rustix::process::{Pid, Resource, getrlimit, prlimit};

        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        prlimit(pid, Resource::Fsize, getrlimit(Resource::Fsize)).unwrap();
    }

    /// Waits until its log has a line with this text.
    pub(crate) fn await_log(&self, text: &str) {
        while !self.log.recv_timeout(PATIENCE).unwrap().contains(text) {}
    }

    /// Returns whether one of the lines of its log that have arrived since the last look has this text.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.log.try_iter().any(|line| line.contains(text))
    }

    /// Waits until the process ends. Returns its status and the rest of its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let mut log = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => log.push(line),
                // The process has ended, so the pipe closes.
                Err(RecvTimeoutError::Disconnected) => {
                    return (until("it ends", || self.child.try_wait().unwrap()), log);
                }
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; the log: {log:#?}"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the lines of a pipe as they arrive. It reads on even if the receiver is gone, so that the writer can
/// continue.
pub(crate) fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    lines
}

fn listening_address(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("listening on http://")?.parse().ok()
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the error message in the body.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error in {self:?}")).to_owned()
    }
}

/// A client with one connection. It speaks just enough HTTP to send requests that no library would send.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// The address of its server.
    #[cfg(target_os = "linux")]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").unwrap()
    }

    pub(crate) fn post_events(&mut self, ndjson: &str) -> Answer {
        self.try_post_events(ndjson).unwrap()
    }

    pub(crate) fn try_post_events(&mut self, ndjson: &str) -> std::io::Result<Answer> {
        self.send("POST", "/events", &[("content-type", "application/x-ndjson")], ndjson.as_bytes())
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
        if method == "POST" {
            write!(request, "content-length: {}\r\n", body.len()).unwrap();
        }
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        request += "\r\n";
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        let answer = self.send_raw(&bytes, method == "HEAD");
        // If the server closes the connection, do not use it again.
        if answer.as_ref().map_or(true, |answer| answer.header("connection") == Some("close")) {
            self.stream = None;
        }
        answer
    }

    /// Sends these bytes unchanged and reads one answer.
    pub(crate) fn send_raw(&mut self, bytes: &[u8], is_head: bool) -> std::io::Result<Answer> {
        let stream = self.stream()?;
        // A server that refuses a body early may stop reading. Its answer still counts.
        let written = stream.get_mut().write_all(bytes);
        let answer = read_answer(stream, is_head);
        if answer.is_err() { written.and(answer) } else { answer }
    }

    /// Sends the head of a `POST /events` with this content length, and waits until the server asks for the body. From
    /// then on, the request is in progress on the server.
    pub(crate) fn begin_post(&mut self, content_length: usize) -> &mut TcpStream {
        let head = format!(
            "POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
             expect: 100-continue\r\ncontent-length: {content_length}\r\n\r\n"
        );
        let stream = self.stream().unwrap().get_mut();
        stream.write_all(head.as_bytes()).unwrap();
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut answer = [0; 25];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, go_on);
        stream
    }

    pub(crate) fn stream(&mut self) -> std::io::Result<&mut BufReader<TcpStream>> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            self.stream = Some(BufReader::new(stream));
        }
        self.stream.as_mut().ok_or_else(|| std::io::ErrorKind::NotConnected.into())
    }
}

fn read_answer(stream: &mut impl BufRead, is_head: bool) -> std::io::Result<Answer> {
    let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let mut line = String::new();
    let mut next_line = |stream: &mut dyn BufRead| -> std::io::Result<String> {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(broken());
        }
        Ok(line.trim_end().to_owned())
    };
    let status = next_line(stream)?.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    let mut headers = Vec::new();
    loop {
        let header = next_line(stream)?;
        match header.split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim_start().to_owned())),
            None if header.is_empty() => break,
            None => return Err(broken()),
        }
    }
    let answer = Answer { status, headers, body: String::new() };
    let mut body = Vec::new();
    if is_head || matches!(status, 204 | 304) {
    } else if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&next_line(stream)?, 16).map_err(|_| broken())?;
            let start = body.len();
            body.resize(start + size, 0);
            stream.read_exact(&mut body[start..])?;
            next_line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else {
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).ok_or_else(broken)?;
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
    }
    Ok(Answer { body: String::from_utf8(body).map_err(|_| broken())?, ..answer })
}

/// Returns an id as it is written in a path.
pub(crate) fn encode(id: &str) -> String {
    id.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Returns the body of `GET /conversations/{id}/metrics`.
pub(crate) fn metrics(client: &mut Client, conversation_id: &str) -> String {
    let answer = client.get(&format!("/conversations/{}/metrics", encode(conversation_id)));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}
