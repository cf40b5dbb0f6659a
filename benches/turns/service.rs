//! The real binary, `turn-metrics serve`, as a separate process. Linux only, because it reads `/proc`.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// The running process. Dropping this kills it.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Kept open, because writing to a closed pipe is an error.
    _out: BufReader<ChildStdout>,
}

impl Service {
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    /// Starts the process with settings such as `TURNS__IDLE_AFTER`, and waits until it prints its address.
    pub(crate) fn start_with(directory: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_turn-metrics").as_ref(), directory, settings)
    }

    /// Starts this build of the program, as [`Self::start_with`] does.
    pub(crate) fn start_program(program: &OsStr, directory: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory);
        command.envs(settings.iter().map(|(key, value)| (format!("TURN_METRICS__{key}"), value)));
        // The process logs as by default. The reader of the log discards everything.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").expect("it did not start");
        Self { child, address: address.parse().unwrap(), _out: out }
    }

    /// Kills the process with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The memory in use now.
    pub(crate) fn resident_bytes(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// The peak of the memory in use.
    pub(crate) fn peak_bytes(&self) -> f64 {
        self.status("VmHWM:")
    }

    /// The processor time of all threads so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanos = threads.map(|thread| {
            let text = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse::<f64>().unwrap()
        });
        nanos.sum::<f64>() / 1e9
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
