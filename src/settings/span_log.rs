use super::section::section;

section! {
    /// Sizes of the span log.
    pub struct SpanLogSettings in "span_log" {
        /// Bytes of one file (64 MiB). A full file is renamed to `FILE.1`, `FILE.1` to `FILE.2`, and so on.
        max_file_bytes: usize = 64 * 1024 * 1024, BYTES;

        /// Number of files kept, including the current one; the oldest is deleted.
        max_files: usize = 4, 1..=1000;

        /// Lines that wait to be written. Closing a span never waits: when this many lines wait, further lines are lost
        /// and counted.
        queue_lines: usize = 10_000, 1..=10_000_000;
    }
}
