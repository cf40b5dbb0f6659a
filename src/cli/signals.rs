//! SIGINT and SIGTERM: the first signal is reported to the command, and the second one ends the process. SIGXFSZ is
//! ignored.

use std::future::pending;
use std::io;
use std::process::{self, ExitCode};
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

/// The signal that the process received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// Returns the exit code of a process that the signal ended: 128 plus the number of the signal, as in shells.
    fn code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }

    pub(super) fn exit_code(self) -> ExitCode {
        self.code().into()
    }
}

/// Receives the first signal.
pub(super) struct Signals(oneshot::Receiver<Signal>);

impl Signals {
    /// Listens for signals from now on. It does so on a separate thread, so that a second signal ends the process even
    /// if all other threads are busy or stuck.
    pub(super) fn listen() -> io::Result<Self> {
        Self::listen_and(|| {})
    }

    /// Like [`Self::listen`]. Before a second signal ends the process, `clean_up` is called.
    pub(super) fn listen_and(clean_up: fn()) -> io::Result<Self> {
        let (send_first, first) = oneshot::channel();
        let (send_ready, ready) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                let mut source = match Source::new() {
                    Ok(source) => source,
                    Err(error) => {
                        let _ = send_ready.send(Err(error));
                        return;
                    }
                };
                let _ = send_ready.send(Ok(()));
                // Sending fails if the command has ended already.
                let _ = send_first.send(source.next().await);
                let second = source.next().await;
                clean_up();
                process::exit(second.code().into());
            });
        })?;
        ready.recv().map_err(io::Error::other)??;
        Ok(Self(first))
    }

    /// Waits for the first signal.
    pub(super) async fn first(&mut self) -> Signal {
        match (&mut self.0).await {
            Ok(signal) => signal,
            Err(_) => pending().await,
        }
    }
}

/// Makes a write beyond the limit on the size of files (`ulimit -f`) fail like a write to a full disk. Otherwise the
/// system would end the process without a message.
#[cfg(unix)]
pub(super) fn survive_file_size_limit() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    // Only the registration needs a runtime. The handler stays until the process ends.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _guard = runtime.enter();
    signal(SignalKind::from_raw(libc::SIGXFSZ)).map(drop)
}

#[cfg(not(unix))]
pub(super) fn survive_file_size_limit() -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            else => pending().await,
        }
    }
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Interrupt,
            Err(_) => pending().await,
        }
    }
}
