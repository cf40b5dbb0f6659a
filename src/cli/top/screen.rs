//! The terminal: it is taken, and given back whatever happens.

use std::io::{self, Stdout, Write, stdout};
use std::mem::ManuallyDrop;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::{Frame, Terminal};

/// Whether the terminal is taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The exit code of a program that panicked.
const PANICKED: i32 = 101;

/// The terminal while it is taken: no echo, no line editing, another page than the user's.
pub(super) struct Screen {
    /// Never dropped, since dropping it would write to a standard error that may be gone.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl Screen {
    /// Takes the terminal. From then on, a panic on any thread gives it back and ends the process.
    pub(super) fn take() -> io::Result<Self> {
        let report = panic::take_hook();
        let ui = thread::current().id();
        panic::set_hook(Box::new(move |info| {
            give_back();
            report(info);
            // The thread of the view unwinds and ends by itself. Without another thread, the view would lack news for
            // ever.
            if thread::current().id() != ui {
                std::process::exit(PANICKED);
            }
        }));
        let screen = Self { terminal: ManuallyDrop::new(Terminal::new(CrosstermBackend::new(stdout()))?) };
        enter()?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Draws everything anew the next time, not only what has changed.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        // `Terminal::clear` would ask the terminal where the cursor is, and the thread that reads keys takes the answer.
        let area = self.terminal.size()?.into();
        self.terminal.resize(area)
    }

    /// Gives the terminal back while the process is stopped, as after Ctrl-Z, and takes it again when the process
    /// continues.
    #[cfg(unix)]
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        use rustix::process::{Signal, getpid, kill_process};

        give_back();
        kill_process(getpid(), Signal::STOP)?;
        enter()?;
        self.forget()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide)
}

/// Gives the terminal back, if it is taken. Errors are ignored: the terminal may be gone.
pub(super) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // The mode first: unlike output, this does not wait for a terminal that is stopped.
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = stdout().flush();
    }
}

/// Gives back what a terminal that takes no output can still be given: its mode.
pub(super) fn give_back_mode() {
    let _ = disable_raw_mode();
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::process::{Command, Stdio};

    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::tcgetattr;

    use super::*;

    /// The variable that makes this process the one that panics.
    const PANICS: &str = "TURN_METRICS_TEST_OF_A_PANIC";

    /// Does nothing, unless it is run by the test below.
    #[test]
    fn a_process_that_panics() {
        let Ok(on) = std::env::var(PANICS) else { return };
        let _screen = Screen::take().unwrap();
        assert_ne!(on, "the thread of the view", "on purpose");
        // The process ends before the thread can be joined.
        let _ = thread::spawn(|| panic!("on purpose")).join();
        loop {
            thread::park();
        }
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_reported() {
        for on in ["the thread of the view", "another thread"] {
            let outside = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
            grantpt(&outside).unwrap();
            unlockpt(&outside).unwrap();
            let name = ptsname(&outside, Vec::new()).unwrap();
            let inside = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
            let stdio = || Stdio::from(inside.try_clone().unwrap());
            let modes = || format!("{:?}", tcgetattr(&inside).unwrap());
            let before = modes();
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "cli::top::screen::tests::a_process_that_panics", "--nocapture"]);
            command.env(PANICS, on).stdin(stdio()).stdout(stdio()).stderr(stdio());
            let mut child = command.spawn().unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(PANICKED), "{on}");
            assert_eq!(modes(), before, "{on}");
            drop((command, inside));
            let mut written = Vec::new();
            // Reading fails at the end, since no program has the terminal any more.
            let _ = File::from(outside).read_to_end(&mut written);
            let written = String::from_utf8(written).unwrap();
            let at = |text: &str| written.find(text).unwrap_or_else(|| panic!("{on}: no {text:?} in {written:?}"));
            assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l") && at("\u{1b}[?25h") < at("on purpose"), "{written:?}");
        }
    }
}
