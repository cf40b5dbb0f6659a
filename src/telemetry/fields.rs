//! The fields of a line of text.

use std::error::Error;
use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

/// Formats fields as `tracing_subscriber` does, but quotes each value that could otherwise be taken for several fields.
/// So an id such as `x ordinal=99` cannot imitate the field `ordinal`.
pub(super) struct TextFields;

impl<'a> FormatFields<'a> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut quoting = Quoting(DefaultVisitor::new(writer, true));
        fields.record(&mut quoting);
        quoting.0.finish()
    }
}

struct Quoting<'a>(DefaultVisitor<'a>);

impl Visit for Quoting<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        // The visitor quotes each text itself.
        self.0.record_str(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.0.record_debug(field, &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() != "message" && needs_quotes(&text) {
            self.0.record_debug(field, &text);
        } else {
            self.0.record_debug(field, value);
        }
    }
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty() || text.contains(|c: char| c.is_ascii_whitespace() || c.is_control() || matches!(c, '=' | '"'))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_value_cannot_imitate_another_field() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber =
            fmt().with_writer(move || writer.clone()).fmt_fields(TextFields).with_ansi(false).without_time().finish();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("turn", id = %"a} b=1", text = "c d").entered();
            let (evil, quoted, plain) = ("x ordinal=99", "\"y\" ordinal=98", "demo-1:é");
            tracing::info!(turnId = %evil, %quoted, %plain, ordinal = 1, empty = %"", text = "a=b", "turn sealed, a=b");
            let error = io::Error::other("no ordinal=97");
            tracing::info!(%error, other = &error as &(dyn Error + 'static), took = ?std::time::Duration::from_secs(5), "ended");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let place = concat!(" INFO turn{id=\"a} b=1\" text=\"c d\"}: ", module_path!(), ": ");
        let lines: Vec<_> = text.lines().map(|line| line.strip_prefix(place).unwrap_or(line)).collect();
        assert_eq!(
            lines,
            [
                r#"turn sealed, a=b turnId="x ordinal=99" quoted="\"y\" ordinal=98" plain=demo-1:é ordinal=1 empty="" text="a=b""#,
                r#"ended error="no ordinal=97" other="no ordinal=97" took=5s"#,
            ]
        );
    }
}
