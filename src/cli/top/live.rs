//! The live view: it folds news into the board and draws it, until the user or a signal ends it.

use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{MissedTickBehavior, interval};

use super::board::Board;
use super::draw::{Theme, View};
use super::news::News;
use super::screen::{self, Screen};
use super::sources::{self, Uncosted};
use super::sums::{Sums, local_now};
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::signals::Signals;
use crate::report::Zone;
use crate::terminal::is_color_wanted;

/// How often the screen is drawn at most.
const FRAME: Duration = Duration::from_millis(250);
/// How many news may wait. The feed waits for room.
const INBOX: usize = 1000;
/// How many sealed turns may wait to be asked their costs. The costs of others stay unknown.
const UNCOSTED: usize = 10_000;

/// What the user asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    End,
    Suspend,
    Redraw,
}

pub(super) fn run(client: &Client, server: &str, zone: Option<&Zone>) -> Result<ExitCode, CliError> {
    // Without a server, there is nothing to show. So this fails before the terminal is taken.
    let sums = Sums::ask(client, zone)?;
    let signals = Signals::listen_and(screen::give_back_mode).map_err(CliError::system("listen for signals"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::system("start the view"))?;
    let theme = if is_color_wanted() { Theme::Colored } else { Theme::Plain };
    let ahead_ms = sums.ahead_ms;
    let board = Board::new(sums, local_now().saturating_add(ahead_ms));
    let mut live = Live { board, ahead_ms, server, theme, drawn: None };
    runtime.block_on(live.show(client, zone, signals))
}

struct Live<'a> {
    board: Board,
    /// How far the server's clock is ahead of this computer's clock.
    ahead_ms: i64,
    server: &'a str,
    theme: Theme,
    /// The second that was drawn last, if nothing has changed since but the time.
    drawn: Option<i64>,
}

impl Live<'_> {
    async fn show(&mut self, client: &Client, zone: Option<&Zone>, mut signals: Signals) -> Result<ExitCode, CliError> {
        let mut others = OtherSignals::listen().map_err(CliError::system("listen for signals"))?;
        let (inbox, mut news) = channel(INBOX);
        let (ask_cost, uncosted) = sync_channel(UNCOSTED);
        let (ask_sums, sealed) = sync_channel(1);
        start_sources(client, zone, &inbox, uncosted, sealed).map_err(CliError::system("start the view"))?;
        let terminal = |error| CliError::system("use the terminal")(error);
        let mut screen = Screen::take().map_err(terminal)?;
        let mut keys = read_keys().map_err(terminal)?;
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wish = tokio::select! {
                biased;
                signal = signals.first() => return Ok(signal.exit_code()),
                other = others.next() => match other {
                    OtherSignal::Stop => Some(Wish::Suspend),
                    OtherSignal::End(code) => return Ok(code),
                },
                key = keys.recv() => match key {
                    Some(Ok(event)) => wish(&event),
                    // The terminal has gone.
                    Some(Err(error)) => return Err(terminal(error)),
                    None => return Ok(ExitCode::SUCCESS),
                },
                _ = frames.tick() => {
                    if self.drawn != Some(self.now() / 1000) {
                        self.draw(&mut screen).map_err(terminal)?;
                    }
                    None
                }
                Some(news) = news.recv() => {
                    if let News::Sealed(conversation_id, turn) = &news {
                        // If too many wait, the cost stays unknown.
                        let (conversation_id, ordinal) = (conversation_id.clone(), turn.ordinal.get());
                        let _ = ask_cost.try_send(Uncosted { conversation_id, ordinal });
                        let _ = ask_sums.try_send(());
                    }
                    if let News::Sums(sums) = &news {
                        self.ahead_ms = sums.ahead_ms;
                    }
                    let now = self.now();
                    self.board.take(news, now);
                    self.drawn = None;
                    None
                }
            };
            match wish {
                Some(Wish::End) => return Ok(ExitCode::SUCCESS),
                Some(Wish::Suspend) => {
                    suspend(&mut screen).map_err(terminal)?;
                    self.drawn = None;
                }
                Some(Wish::Redraw) => {
                    screen.forget().map_err(terminal)?;
                    self.draw(&mut screen).map_err(terminal)?;
                }
                None => {}
            }
        }
    }

    fn now(&self) -> i64 {
        local_now().saturating_add(self.ahead_ms)
    }

    fn draw(&mut self, screen: &mut Screen) -> io::Result<()> {
        let now = self.now();
        let view = View { board: &self.board, server: self.server, now, theme: self.theme };
        screen.draw(|frame| view.draw(frame))?;
        self.drawn = Some(now / 1000);
        Ok(())
    }
}

/// Starts the threads that ask the server. They end with the process.
fn start_sources(
    client: &Client,
    zone: Option<&Zone>,
    inbox: &Sender<News>,
    uncosted: Receiver<Uncosted>,
    sealed: Receiver<()>,
) -> io::Result<()> {
    let start =
        |name: &str, run: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.to_owned()).spawn(run).map(drop);
    let (asker, told) = (client.clone(), inbox.clone());
    start("feed", Box::new(move || sources::follow_feed(&asker, &told, sources::pause)))?;
    let (asker, told) = (client.clone(), inbox.clone());
    start("costs", Box::new(move || sources::ask_costs(&asker, &uncosted, &told)))?;
    let (asker, told, zone) = (client.clone(), inbox.clone(), zone.cloned());
    start("sums", Box::new(move || sources::ask_sums(&asker, zone.as_ref(), &sealed, &told)))
}

/// Reads keys on a thread of its own, which ends with the process or after an error.
fn read_keys() -> io::Result<tokio::sync::mpsc::Receiver<io::Result<Event>>> {
    let (send, keys) = channel(100);
    thread::Builder::new().name("keys".into()).spawn(move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if send.blocking_send(event).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(keys)
}

/// Returns what an event of the terminal means. In raw mode, Ctrl-C and Ctrl-Z are keys.
fn wish(event: &Event) -> Option<Wish> {
    let Event::Key(KeyEvent { code, modifiers, kind, .. }) = event else {
        return matches!(event, Event::Resize(..)).then_some(Wish::Redraw);
    };
    if *kind == KeyEventKind::Release {
        return None;
    }
    let with_control = modifiers.contains(KeyModifiers::CONTROL);
    match code {
        KeyCode::Char('q' | 'Q') if !with_control => Some(Wish::End),
        KeyCode::Esc => Some(Wish::End),
        KeyCode::Char('c' | 'd') if with_control => Some(Wish::End),
        KeyCode::Char('z') if with_control => Some(Wish::Suspend),
        KeyCode::Char('l') if with_control => Some(Wish::Redraw),
        _ => None,
    }
}

#[cfg(unix)]
fn suspend(screen: &mut Screen) -> io::Result<()> {
    screen.suspend()
}

/// There is no job control.
#[cfg(not(unix))]
fn suspend(screen: &mut Screen) -> io::Result<()> {
    screen.forget()
}

/// The signals that only a program that has taken the terminal must handle.
enum OtherSignal {
    /// SIGTSTP, as `kill -TSTP` sends it.
    Stop,
    End(ExitCode),
}

#[cfg(unix)]
struct OtherSignals {
    stop: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl OtherSignals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            stop: signal(SignalKind::from_raw(libc::SIGTSTP))?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> OtherSignal {
        // 128 plus the number of the signal, as in shells.
        tokio::select! {
            Some(()) = self.stop.recv() => OtherSignal::Stop,
            Some(()) = self.hang_up.recv() => OtherSignal::End(129.into()),
            Some(()) = self.quit.recv() => OtherSignal::End(131.into()),
            else => std::future::pending().await,
        }
    }
}

#[cfg(not(unix))]
struct OtherSignals;

#[cfg(not(unix))]
impl OtherSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> OtherSignal {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_key(code: KeyCode, modifiers: KeyModifiers) -> Option<Wish> {
        wish(&Event::Key(KeyEvent::new(code, modifiers)))
    }

    #[test]
    fn q_escape_and_control_c_end_the_view() {
        let none = KeyModifiers::NONE;
        for (code, modifiers) in [
            (KeyCode::Char('q'), none),
            (KeyCode::Char('Q'), KeyModifiers::SHIFT),
            (KeyCode::Esc, none),
            (KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert_eq!(of_key(code, modifiers), Some(Wish::End), "{code:?}");
        }
        assert_eq!(of_key(KeyCode::Char('z'), KeyModifiers::CONTROL), Some(Wish::Suspend));
        assert_eq!(of_key(KeyCode::Char('l'), KeyModifiers::CONTROL), Some(Wish::Redraw));
        assert_eq!(wish(&Event::Resize(80, 24)), Some(Wish::Redraw));
        for (code, modifiers) in [(KeyCode::Char('c'), none), (KeyCode::Enter, none), (KeyCode::Char('z'), none)] {
            assert_eq!(of_key(code, modifiers), None, "{code:?}");
        }
        let release = KeyEvent::new_with_kind(KeyCode::Char('q'), none, KeyEventKind::Release);
        assert_eq!(wish(&Event::Key(release)), None);
    }
}
