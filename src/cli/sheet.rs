//! CSV, for spreadsheets and programs.

use std::io::{self, IsTerminal};

use super::CliError;
use super::output::plain;
use crate::report::{CostFigures, Percentiles};

/// Lines of CSV as RFC 4180 describes them, with line feeds.
///
/// Values are exact: a text that a spreadsheet would read as a formula stays unchanged.
pub(super) struct Sheet {
    writer: csv::Writer<Vec<u8>>,
    /// A terminal would act on control characters.
    escapes: bool,
}

impl Sheet {
    /// Returns a sheet for standard output that begins with these column names.
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, CliError> {
        let mut sheet = Self { writer: csv::Writer::from_writer(Vec::new()), escapes: io::stdout().is_terminal() };
        sheet.row(names.into_iter().map(str::to_owned))?;
        Ok(sheet)
    }

    pub(super) fn row(&mut self, values: impl IntoIterator<Item = String>) -> Result<(), CliError> {
        let escapes = self.escapes;
        let values = values.into_iter().map(|value| if escapes { plain(&value) } else { value });
        self.writer
            .write_record(values.collect::<Vec<_>>())
            .map_err(|error| CliError::system("write CSV")(error.into()))
    }

    /// Returns the lines that were added since the last call, and removes them.
    pub(super) fn take(&mut self) -> Result<String, CliError> {
        let written = std::mem::replace(&mut self.writer, csv::Writer::from_writer(Vec::new()));
        let bytes = written.into_inner().map_err(|error| CliError::system("write CSV")(error.into_error()))?;
        String::from_utf8(bytes).map_err(|error| CliError::system("write CSV")(io::Error::other(error)))
    }
}

/// Formats a value that may be unknown.
pub(super) fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Formats a number as JSON does.
pub(super) fn number(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| ryu_js::Buffer::new().format(number).to_owned())
}

/// The columns of a cost.
pub(super) const COST: [&str; 3] = ["usd", "unpricedTokens", "unpricedModels"];

/// Returns the values of a cost. The models are a JSON array, because their names may have any characters.
pub(super) fn cost(cost: &CostFigures) -> [String; 3] {
    let models = &cost.unpriced_models;
    let models = if models.is_empty() { String::new() } else { serde_json::to_string(models).unwrap_or_default() };
    [optional(cost.usd), cost.unpriced_tokens.to_string(), models]
}

/// The values of percentiles: count, min, p50, p90, p99, max.
pub(super) fn percentiles(known: Option<&Percentiles>) -> [String; 6] {
    let Some(Percentiles { count, min, p50, p90, p99, max }) = known else { return Default::default() };
    let number = |value: &f64| number(Some(*value));
    [count.to_string(), number(min), number(p50), number(p90), number(p99), number(max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PicoDollars;

    #[test]
    fn any_text_can_be_read_back() {
        let texts = ["", "a,b", "a\"b", "a\nb", "a\r\nb", "=1+1", " a ", "\u{1b}[2J", "é,\u{202e}"];
        let mut sheet = Sheet { writer: csv::Writer::from_writer(Vec::new()), escapes: false };
        sheet.row(texts.map(str::to_owned)).unwrap();
        let first = sheet.take().unwrap();
        assert!(first.starts_with(",\"a,b\",\"a\"\"b\","), "{first}");
        sheet.row(texts.map(str::to_owned)).unwrap();
        let text = first + &sheet.take().unwrap();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row.iter().eq(texts)), "{rows:?}");
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let mut sheet = Sheet { writer: csv::Writer::from_writer(Vec::new()), escapes: true };
        sheet.row(["\u{1b}[2J,\u{202e}".to_owned()]).unwrap();
        assert_eq!(sheet.take().unwrap(), "\"\\u{1b}[2J,\\u{202e}\"\n");
    }

    #[test]
    fn values_are_whole_and_unknown_ones_are_empty() {
        let models = vec!["a,b".into(), "c".into()];
        let figures = CostFigures { usd: Some(PicoDollars::new(5)), unpriced_tokens: 7, unpriced_models: models };
        assert_eq!(cost(&figures), ["0.000000000005", "7", r#"["a,b","c"]"#]);
        let none = CostFigures { usd: None, unpriced_tokens: 0, unpriced_models: Vec::new() };
        assert_eq!(cost(&none), ["", "0", ""]);
        assert_eq!(
            (number(Some(1.0)), number(Some(0.1 + 0.2)), number(None)),
            ("1".into(), "0.30000000000000004".into(), String::new())
        );
        let all = Percentiles { count: 2, min: 1.0, p50: 1.5, p90: 2.0, p99: 2.0, max: 2.5 };
        assert_eq!(percentiles(Some(&all)), ["2", "1", "1.5", "2", "2", "2.5"]);
        assert_eq!(percentiles(None).concat(), "");
    }
}
