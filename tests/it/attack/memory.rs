use std::fs;

use crate::server::Server;

/// The most that a process may hold above what it holds when idle, with the default settings.
pub(super) const MOST_MIB: u64 = 300;

/// The memory of a server's process, measured against what it was at the start.
pub(super) struct Memory {
    process: u32,
    idle_kib: u64,
}

impl Memory {
    /// Takes the present memory for that of an idle server.
    pub(super) fn of_idle(server: &Server) -> Self {
        let mut memory = Self { process: server.process(), idle_kib: 0 };
        // Forgets the peak of the start.
        fs::write(format!("/proc/{}/clear_refs", memory.process), "5").unwrap();
        memory.idle_kib = memory.field("VmRSS");
        memory
    }

    /// The MiB held now, above those of the idle process.
    pub(super) fn now_mib(&self) -> u64 {
        self.field("VmRSS").saturating_sub(self.idle_kib) / 1024
    }

    /// The most MiB held since the start, above those of the idle process.
    pub(super) fn peak_mib(&self) -> u64 {
        self.field("VmHWM").saturating_sub(self.idle_kib) / 1024
    }

    fn field(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
