use super::section::section;

section! {
    /// Sizes of the span log.
    pub struct SpanLogSettings in "span_log" {
        /// Bytes of one file (64 MiB). A full one is set aside as `FILE.1`, which becomes `FILE.2`, and so on.
        max_file_bytes: usize = 64 * 1024 * 1024, BYTES;

        /// Files kept, with the present one; the oldest goes.
        max_files: usize = 4, 1..=1000;

        /// Lines that wait to be written. Whoever closes a span is never held up: past this lines are lost and counted.
        queue_lines: usize = 10_000, 1..=10_000_000;
    }
}
