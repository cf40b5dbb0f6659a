use std::fs;

use crate::server::Server;

/// The maximum memory that a process may use above its idle use, with the default settings.
pub(super) const MOST_MIB: u64 = 300;

/// Measures the memory of a server's process against its use when idle.
pub(super) struct Memory {
    process: u32,
    idle_kib: u64,
}

impl Memory {
    /// Takes the present use as that of an idle server.
    pub(super) fn of_idle(server: &Server) -> Self {
        let mut memory = Self { process: server.process(), idle_kib: 0 };
        // This resets the peak, so that the start of the server does not count.
        fs::write(format!("/proc/{}/clear_refs", memory.process), "5").unwrap();
        memory.idle_kib = memory.field("VmRSS");
        memory
    }

    /// Returns how many MiB the process uses now above its idle use.
    pub(super) fn now_mib(&self) -> u64 {
        self.field("VmRSS").saturating_sub(self.idle_kib) / 1024
    }

    /// Returns how many MiB the process used at most above its idle use.
    pub(super) fn peak_mib(&self) -> u64 {
        self.field("VmHWM").saturating_sub(self.idle_kib) / 1024
    }

    fn field(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
