//! The real binary, `turn-metrics serve`, as a process of its own. Linux only: it looks into `/proc`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Killed when it is dropped.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Held, as a pipe that nobody reads is an error to who writes.
    _out: BufReader<ChildStdout>,
}

impl Service {
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    /// Starts it with settings such as `TURNS__IDLE_AFTER`, and waits until it tells where it listens.
    pub(crate) fn start_with(directory: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turn-metrics"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory);
        command.envs(settings.iter().map(|(key, value)| (format!("TURN_METRICS__{key}"), value)));
        // It logs as it does by default, to where nobody reads.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").expect("it did not start");
        Self { child, address: address.parse().unwrap(), _out: out }
    }

    /// As SIGKILL does it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it has in memory now.
    pub(crate) fn resident_bytes(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// The most that it has had.
    pub(crate) fn peak_bytes(&self) -> f64 {
        self.status("VmHWM:")
    }

    fn status(&self, key: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kibibytes = status.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"));
        kibibytes.unwrap().parse::<f64>().unwrap() * 1024.0
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
