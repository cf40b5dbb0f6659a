//! Output to a terminal, and a pseudo-terminal to read it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Action, Winsize, tcflow, tcsetwinsize};

use crate::server::{Server, serve, turn_metrics};

/// A pseudo-terminal. It has a side for programs and a side for the user.
pub(crate) struct Terminal {
    inside: OwnedFd,
    outside: File,
}

impl Terminal {
    pub(crate) fn open() -> Self {
        let outside = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&outside).unwrap();
        unlockpt(&outside).unwrap();
        let name = ptsname(&outside, Vec::new()).unwrap();
        let inside = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        tcsetwinsize(&outside, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        Self { inside, outside: outside.into() }
    }

    /// Returns the programs' side, as a standard stream.
    pub(crate) fn stdio(&self) -> Stdio {
        self.inside.try_clone().unwrap().into()
    }

    /// Reads all output in the background, as a terminal window does.
    pub(crate) fn screen(&self) -> File {
        self.outside.try_clone().unwrap()
    }

    /// Returns the settings of the terminal, such as whether it echoes keys.
    #[cfg(feature = "tui")]
    pub(crate) fn modes(&self) -> String {
        format!("{:?}", rustix::termios::tcgetattr(&self.inside).unwrap())
    }

    /// Stops all output, as Ctrl-S does.
    pub(crate) fn stop(&self) {
        tcflow(&self.inside, Action::OOff).unwrap();
    }

    /// Resumes output, as Ctrl-Q does.
    pub(crate) fn go_on(&self) {
        tcflow(&self.inside, Action::OOn).unwrap();
    }

    /// Returns all output after every program has ended.
    fn sent(self) -> String {
        let Self { inside, mut outside } = self;
        drop(inside);
        let mut sent = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match outside.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => sent.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The programs' side is closed.
                Err(_) => break,
            }
        }
        String::from_utf8(sent).unwrap()
    }
}

/// Sets or unsets the name of the terminal, and removes all other variables that could decide about colours.
fn set_terminal(command: &mut Command, name: Option<&str>) {
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    // Some libraries take this variable as a sign of a terminal with colours.
    command.env("CI", "true");
    match name {
        Some(name) => command.env("TERM", name),
        None => command.env_remove("TERM"),
    };
}

/// Runs the command on a terminal of this name and returns its output.
fn sent_by(mut command: Command, term: Option<&str>) -> String {
    let terminal = Terminal::open();
    set_terminal(&mut command, term);
    command.stdout(terminal.stdio()).stderr(terminal.stdio());
    let mut child = command.spawn().unwrap();
    // The command holds copies of the programs' side.
    drop(command);
    let sent = terminal.sent();
    child.wait().unwrap();
    sent
}

/// Returns the output of a server that logs to a terminal of this name.
fn sent_by_server(term: Option<&str>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let terminal = Terminal::open();
    let mut command = serve(directory.path());
    set_terminal(&mut command, term);
    command.stderr(terminal.stdio());
    let server = Server::launch(&mut command);
    drop(command);
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
    terminal.sent()
}

/// The names of terminals that show escape sequences as text.
const DUMB: [Option<&str>; 3] = [Some("dumb"), Some(""), None];

fn with_args(args: &[&str]) -> Command {
    let mut command = turn_metrics();
    command.args(args);
    command
}

#[test]
fn a_dumb_or_nameless_terminal_gets_no_escapes_and_another_one_does() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let (url, file) = (server.url(), directory.path().join("events.ndjson"));
    let done = r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;
    std::fs::write(&file, format!("{done}\n")).unwrap();
    let file = file.to_str().unwrap();
    let turns = directory.path().join("turns.ndjson");
    std::fs::write(&turns, r#"{"conversationId":"c","turnId":"u","usage":{},"steps":[]}"#).unwrap();
    let turns = turns.to_str().unwrap();
    for (args, has_escapes) in [
        (&["ingest", file, "--server", &url][..], true),
        (&["import", turns, "--server", &url], true),
        (&["show", "c", "--server", &url], true),
        (&["list", "--server", &url], true),
        (&["report", "--server", &url], true),
        (&["prices", "m", "--server", &url], true),
        #[cfg(feature = "tui")]
        (&["top", "--server", &url], true),
        (&["--help"], true),
        (&["--nonsense"], true),
        (&["demo", "--listen", "127.0.0.1:0", "--exit", "--conversations", "1", "--turns", "1"], true),
        (&["config"], false),
        (&["check", "--data-dir", file], false),
    ] {
        for term in DUMB {
            let dumb = sent_by(with_args(args), term);
            assert!(!dumb.is_empty() && !dumb.contains('\u{1b}'), "{args:?} on {term:?}: {dumb:?}");
        }
        // The control: on other terminals, the escape sequences do appear.
        let colourful = sent_by(with_args(args), Some("xterm"));
        assert_eq!(colourful.contains('\u{1b}'), has_escapes, "{args:?}: {colourful:?}");
    }
    for term in DUMB {
        let dumb = sent_by_server(term);
        assert!(dumb.contains("INFO") && !dumb.contains('\u{1b}'), "{term:?}: {dumb:?}");
    }
    assert!(sent_by_server(Some("xterm")).contains('\u{1b}'));
}

#[test]
fn a_table_is_as_wide_as_the_terminal_allows() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let events = r#"{"type":"usage","conversationId":"c","turnId":"t","stepId":"s","usage":{"inputTokens":2,"outputTokens":1,"cacheReadTokens":1,"cacheWriteTokens":1}}
{"type":"step-complete","conversationId":"c","turnId":"t","stepId":"s","ttftMs":1,"decodeMs":987,"genTotalMs":1}
{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;
    assert_eq!(server.client().post_events(events).status, 200);
    let show = || with_args(&["show", "c", "--server", &server.url()]);
    // It has 120 columns.
    let on_terminal = sent_by(show(), Some("dumb"));
    assert!(on_terminal.contains("987") && !on_terminal.contains("Too narrow"), "{on_terminal}");
    let in_pipe = String::from_utf8(show().output().unwrap().stdout).unwrap();
    assert!(!in_pipe.contains("987") && in_pipe.contains("Too narrow for: cache write, decode."), "{in_pipe}");
}
