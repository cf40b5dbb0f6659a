//! `turn-metrics top`: on a pseudo-terminal, as a user sees it, and in a pipe.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::Value;

use crate::server::{PATIENCE, Server, turn_metrics, until};
use crate::terminal::Terminal;

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const HIDE_CURSOR: &str = "\u{1b}[?25l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";

/// What a terminal shows: the program moves the cursor, and writes only what changes.
#[derive(Default)]
struct Picture {
    lines: Vec<Vec<char>>,
    at: (usize, usize),
    /// The beginning of an escape sequence.
    escape: Option<String>,
}

impl Picture {
    fn take(&mut self, c: char) {
        if let Some(mut escape) = self.escape.take() {
            escape.push(c);
            match (escape.strip_prefix('['), c) {
                (Some(parameters), 'H') => {
                    let (line, column) = parameters.trim_end_matches('H').split_once(';').unwrap_or(("1", "1"));
                    let number = |text: &str| text.parse::<usize>().unwrap() - 1;
                    self.at = (number(line), number(column));
                }
                (Some(_), 'J') => self.lines.clear(),
                (Some(rest), _) if rest.is_empty() || !c.is_ascii_alphabetic() => self.escape = Some(escape),
                _ => {}
            }
            return;
        }
        match c {
            '\u{1b}' => self.escape = Some(String::new()),
            '\r' => self.at.1 = 0,
            '\n' => self.at.0 += 1,
            _ => {
                let (line, column) = self.at;
                self.lines.resize(self.lines.len().max(line + 1), Vec::new());
                let line = &mut self.lines[line];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                self.at.1 += 1;
            }
        }
    }

    fn text(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.iter().collect()).collect()
    }

    fn has(&self, text: &str) -> bool {
        self.text().iter().any(|line| line.contains(text))
    }
}

/// A running `top` on a terminal of its own. Dropping it kills the process.
struct Top {
    child: Child,
    terminal: Terminal,
    /// What it writes, in parts.
    written: Receiver<String>,
    /// All that was read so far.
    seen: String,
    picture: Picture,
    modes_before: String,
}

impl Top {
    fn start(server: &str) -> Self {
        Self::start_with(server, |_| {})
    }

    fn start_with(server: &str, change: impl FnOnce(&mut Command)) -> Self {
        let terminal = Terminal::open();
        let modes_before = terminal.modes();
        let mut command = turn_metrics();
        command.args(["top", "--server", server]).env("TERM", "xterm");
        change(&mut command);
        command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
        let child = command.spawn().unwrap();
        let mut screen = terminal.screen();
        let (send, written) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = screen.read(&mut buffer) {
                if send.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { child, terminal, written, seen: String::new(), picture: Picture::default(), modes_before }
    }

    /// Reads until what was read fulfils the condition.
    fn read_until(&mut self, what: &str, is_met: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !is_met(self) {
            let part = self.written.recv_timeout(PATIENCE.saturating_sub(started.elapsed()));
            let part = part.unwrap_or_else(|_| panic!("{what}: never in {:#?}, {:?}", self.picture.text(), self.seen));
            part.chars().for_each(|c| self.picture.take(c));
            self.seen.push_str(&part);
        }
    }

    /// Reads until a line of the terminal has this text.
    fn shows(&mut self, text: &str) {
        self.read_until(text, |top| top.picture.has(text));
    }

    /// Reads until the view has entered its own page or left it this often in all.
    fn sends(&mut self, escape: &str, times: usize) {
        self.read_until(escape, |top| top.seen.matches(escape).count() == times);
    }

    fn press(&self, keys: &str) {
        self.terminal.screen().write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits until it has ended with this exit code, and checks that the terminal is as before.
    fn ends(&mut self, code: i32) {
        let status: ExitStatus = until("it ends", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(code), "{:?}", self.seen);
        let entered = self.seen.matches(ENTER).count();
        self.sends(LEAVE, entered);
        self.read_until("the cursor is shown", |top| {
            top.seen.rfind(SHOW_CURSOR) > top.seen.rfind(HIDE_CURSOR) && top.seen.rfind(LEAVE) > top.seen.rfind(ENTER)
        });
        assert_eq!(self.terminal.modes(), self.modes_before);
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    (directory, server)
}

fn usage(conversation: &str) -> String {
    format!(
        "{{\"type\":\"turn-start\",\"conversationId\":\"{conversation}\",\"turnId\":\"t\",\"model\":\"claude-sonnet-4-5\",\"provider\":\"anthropic\"}}\n\
         {{\"type\":\"usage\",\"conversationId\":\"{conversation}\",\"turnId\":\"t\",\"stepId\":\"s\",\"usage\":{{\"inputTokens\":1000000,\"outputTokens\":1000}}}}\n\
         {{\"type\":\"step-complete\",\"conversationId\":\"{conversation}\",\"turnId\":\"t\",\"stepId\":\"s\",\"ttftMs\":777,\"decodeMs\":9000,\"genTotalMs\":9777}}\n"
    )
}

fn done(conversation: &str) -> String {
    format!("{{\"type\":\"done\",\"conversationId\":\"{conversation}\",\"turnId\":\"t\",\"reason\":\"stop\"}}\n")
}

fn post(server: &Server, events: &str) {
    assert_eq!(server.client().post_events(events).status, 200);
}

#[test]
fn a_turn_is_shown_while_it_is_worked_on_and_when_it_is_sealed_with_its_cost() {
    let (_directory, server) = start();
    let mut top = Top::start(&server.url());
    top.shows(" live ");
    assert_ne!(top.terminal.modes(), top.modes_before, "keys are read one by one");
    post(&server, &usage("first"));
    top.shows("first");
    top.shows("1M");
    post(&server, &(usage("second") + &done("second")));
    top.shows("second");
    top.shows("777");
    // The cost of the turn, as the server computes it.
    let page = server.client().get("/conversations/second/turns?cost=true").json();
    assert_eq!(page["turns"][0]["cost"]["usd"], "6.022500000000");
    top.shows("6.0225");
    top.press("q");
    top.ends(0);
}

#[test]
fn the_terminal_is_given_back_whatever_ends_the_view() {
    let (_directory, server) = start();
    let begin = || {
        let mut top = Top::start(&server.url());
        top.shows(" live ");
        top
    };
    for key in ["q", "\u{1b}", "\u{3}"] {
        let mut top = begin();
        top.press(key);
        top.ends(0);
    }
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129), ("QUIT", 131)] {
        let mut top = begin();
        top.signal(signal);
        top.ends(code);
    }
}

#[test]
fn a_view_that_is_stopped_gives_the_terminal_back_until_it_continues() {
    let (_directory, server) = start();
    let mut top = Top::start(&server.url());
    top.shows(" live ");
    for (nth, stop) in [|top: &Top| top.press("\u{1a}"), |top: &Top| top.signal("TSTP")].into_iter().enumerate() {
        stop(&top);
        let pid = Pid::from_child(&top.child);
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "{status:?}");
        top.sends(LEAVE, nth + 1);
        top.sends(SHOW_CURSOR, nth + 1);
        assert_eq!(top.terminal.modes(), top.modes_before);
        // What the shell writes meanwhile is not left on the screen.
        top.picture.lines.clear();
        top.signal("CONT");
        top.sends(ENTER, nth + 2);
        top.shows(" live ");
        top.shows("just sealed");
        assert_ne!(top.terminal.modes(), top.modes_before);
    }
    top.press("q");
    top.ends(0);
}

#[test]
fn a_terminal_that_takes_no_output_gets_its_mode_back_at_the_second_signal() {
    let (_directory, server) = start();
    let mut top = Top::start(&server.url());
    top.shows(" live ");
    top.terminal.stop();
    // Two signals of one kind may be one to the process, so further ones follow.
    let status = until("it ends", || {
        top.signal("TERM");
        top.child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(143));
    assert_eq!(top.terminal.modes(), top.modes_before);
}

#[test]
fn a_view_whose_terminal_has_gone_ends() {
    let (_directory, server) = start();
    let terminal = Terminal::open();
    let mut command = turn_metrics();
    command.args(["top", "--server", &server.url()]).env("TERM", "xterm");
    let mut child = command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains("sealed") {
        let length = terminal.screen().read(&mut buffer).unwrap();
        seen += &String::from_utf8_lossy(&buffer[..length]);
    }
    drop((command, terminal));
    assert_eq!(until("it ends", || child.try_wait().unwrap()).code(), Some(1));
}

#[test]
fn a_view_whose_server_is_killed_says_so_and_misses_no_turn_when_the_server_is_back() {
    let (directory, server) = start();
    let address: SocketAddr = server.address;
    let mut top = Top::start(&server.url());
    top.shows(" live ");
    post(&server, &(usage("first") + &done("first")));
    top.shows("first");
    server.kill();
    top.shows("No connection since ");
    let mut command = turn_metrics();
    command.args(["serve", "--listen", &address.to_string(), "--data-dir"]).arg(directory.path());
    let server = Server::launch(command.stderr(Stdio::piped()));
    // This turn may be sealed before the view is connected again.
    post(&server, &(usage("second") + &done("second")));
    top.shows("second");
    top.shows(" live ");
    server.kill();
    top.shows("No connection since ");
    top.press("q");
    top.ends(0);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let (_directory, server) = start();
    // What sets the colour of a text, but not what resets it.
    let is_colored = |top: &Top| top.seen.contains("\u{1b}[38;5;") || top.seen.contains("\u{1b}[1m");
    let mut top = Top::start(&server.url());
    top.shows("q ends");
    assert!(!is_colored(&top), "NO_COLOR is set: {:?}", top.seen);
    let mut top = Top::start_with(&server.url(), |command| {
        command.env_remove("NO_COLOR");
    });
    top.shows("q ends");
    assert!(is_colored(&top), "{:?}", top.seen);
}

#[test]
fn a_dumb_terminal_gets_the_sums_once() {
    let (_directory, server) = start();
    let mut top = Top::start_with(&server.url(), |command| {
        command.env("TERM", "dumb");
    });
    top.shows("today");
    top.shows("cost $");
    assert_eq!(until("it ends", || top.child.try_wait().unwrap()).code(), Some(0));
    assert!(!top.seen.contains('\u{1b}'), "{:?}", top.seen);
}

#[test]
fn without_a_server_the_terminal_is_not_touched() {
    // The port is bound, so that no other process gets it, but nothing listens, so that connections are refused.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut top = Top::start(&format!("http://{}", socket.local_addr().unwrap()));
    top.shows("turn-metrics: cannot reach http://");
    assert_eq!(until("it ends", || top.child.try_wait().unwrap()).code(), Some(1));
    assert!(!top.seen.contains('\u{1b}'), "{:?}", top.seen);
}

fn once(server: &Server, flags: &[&str]) -> String {
    let output = turn_metrics().args(["top", "--once", "--server", &server.url()]).args(flags).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn once_prints_the_figures_of_the_api_exactly() {
    let (_directory, server) = start();
    let empty: Value = serde_json::from_str(&once(&server, &["--json"])).unwrap();
    for name in ["today", "lastHour", "lastHourByModel"] {
        assert_eq!(empty[name]["rows"], serde_json::json!([]), "{name}");
    }
    post(&server, &(usage("c") + &done("c")));
    let line = once(&server, &["--json", "--tz", "Asia/Kathmandu"]);
    assert_eq!(line.lines().count(), 1);
    let shown: Value = serde_json::from_str(&line).unwrap();
    for (name, by) in [("today", ""), ("lastHour", ""), ("lastHourByModel", "&by=model")] {
        let (from, to) = (&shown[name]["from"], &shown[name]["to"]);
        let query = format!("/stats?bucket=all&from={from}&to={to}&tz=Asia/Kathmandu{by}");
        let expected = server.client().get(&query).body;
        assert!(line.contains(&format!("\"{name}\":{expected}")), "{line} lacks {expected}");
    }
    assert_eq!(shown["today"]["rows"][0]["cost"]["usd"], "6.022500000000");
    // In Nepal, days begin at a quarter to the hour in UTC.
    assert_eq!(shown["today"]["from"].as_i64().unwrap() % 3_600_000, 900_000);
    let text = once(&server, &[]);
    assert!(text.contains("  claude-sonnet-4-5") && text.contains("6.0225"), "{text}");
    // A pipe gets the same without the flag.
    let piped = turn_metrics().args(["top", "--server", &server.url()]).output().unwrap();
    assert_eq!(String::from_utf8(piped.stdout).unwrap().lines().count(), text.lines().count());
}
