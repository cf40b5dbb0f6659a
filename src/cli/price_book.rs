use std::path::PathBuf;
use std::sync::Arc;

use crate::report::SharedPriceBook;
use crate::settings::PriceSettings;

/// The reason why the prices cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PriceBookError {
    /// A file of prices cannot be read.
    #[error("cannot read the prices in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file of prices is not valid.
    #[error("the prices in {path} are not valid")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The mistake in the file.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The program was built without the feature `prices`.
    #[error("{path} cannot be used: this program was built without prices")]
    NotBuilt {
        /// The file.
        path: PathBuf,
    },
}

/// Returns the price book of a service.
#[cfg(feature = "prices")]
pub(super) fn book(settings: &PriceSettings) -> Result<SharedPriceBook, PriceBookError> {
    use std::path::Path;
    use std::{fs, io};

    use jiff::Timestamp;

    use crate::report::price::{PriceData, PriceTable, Prices};

    fn read<T>(path: &Path, read: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, PriceBookError> {
        read(path).map_err(|source| PriceBookError::Read { path: path.to_owned(), source })
    }
    fn valid<T, E>(path: &Path, parsed: Result<T, E>) -> Result<T, PriceBookError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        parsed.map_err(|error| PriceBookError::Invalid { path: path.to_owned(), source: error.into() })
    }
    let table = match &settings.file {
        Some(path) => {
            let text = read(path, |path| fs::read_to_string(path))?;
            valid(path, PriceTable::from_toml(&text))?
        }
        None => PriceTable::default(),
    };
    let data = if let Some(path) = &settings.data {
        let json = read(path, |path| fs::read(path))?;
        let modified = read(path, |path| fs::metadata(path)?.modified())?;
        // The file contains neither its version nor its date, so use the time of its last change.
        let date = Timestamp::try_from(modified).map(|at| at.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
        valid(path, PriceData::from_json(&json, &path.display().to_string(), &date))?
    } else {
        // Decoding would delay the first request that needs a price. If no thread can be started, it does.
        let _ = std::thread::Builder::new().name("prices".into()).spawn(PriceData::decode_bundled);
        PriceData::bundled()
    };
    Ok(Arc::new(Prices::new(table, data)))
}

/// Returns the names of the entries in a file of the operator's own prices, each once, in the order of the file.
#[cfg(feature = "prices")]
pub(super) fn entries(path: &std::path::Path) -> Result<Vec<String>, PriceBookError> {
    use crate::report::price::PriceTable;

    let read = |source| PriceBookError::Read { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(read)?;
    let invalid = |error| PriceBookError::Invalid { path: path.to_owned(), source: Box::new(error) };
    let table = PriceTable::from_toml(&text).map_err(invalid)?;
    let mut names = Vec::new();
    for name in table.names() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// A program that was built without prices does not read such a file.
#[cfg(not(feature = "prices"))]
pub(super) fn entries(path: &std::path::Path) -> Result<Vec<String>, PriceBookError> {
    Err(PriceBookError::NotBuilt { path: path.to_owned() })
}

/// The price book of a service that was built without prices.
#[cfg(not(feature = "prices"))]
pub(super) fn book(settings: &PriceSettings) -> Result<SharedPriceBook, PriceBookError> {
    match settings.file.as_ref().or(settings.data.as_ref()) {
        Some(path) => Err(PriceBookError::NotBuilt { path: path.clone() }),
        None => Ok(Arc::new(crate::report::NoPrices)),
    }
}

#[cfg(all(test, feature = "prices"))]
mod tests {
    use std::error::Error;
    use std::fs;

    use super::*;
    use crate::report::PricedStep;
    use crate::turn::EpochMillis;

    fn price(book: &SharedPriceBook, model: &str) -> Option<i128> {
        let step = PricedStep {
            model,
            provider: None,
            at: EpochMillis::new(1_790_000_000_000),
            prompt_tokens: 1_000_000,
            output_tokens: 0,
            cache_read_tokens: 0,
            cache_write_tokens: 0,
            cache_write_1h_tokens: 0,
        };
        book.price(&step).map(|price| price.get() / 1_000_000_000_000)
    }

    #[test]
    fn a_file_of_ones_own_wins_over_the_published_prices() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prices.toml");
        fs::write(&file, "[[price]]\nmodel = \"gpt-4o\"\ninput = 777\noutput = 1\n").unwrap();
        let published = book(&PriceSettings::default()).unwrap();
        let own = book(&PriceSettings { file: Some(file.clone()), data: None }).unwrap();
        assert!(price(&published, "gpt-4o").is_some_and(|dollars| dollars < 100));
        assert_eq!((price(&own, "gpt-4o"), price(&own, "no such model")), (Some(777), None));
        assert_ne!(own.digest(), published.digest());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_what_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prices");
        let settings = |is_data: bool| {
            let path = Some(path.clone());
            if is_data { PriceSettings { file: None, data: path } } else { PriceSettings { file: path, data: None } }
        };
        for is_data in [false, true] {
            let _ = fs::remove_file(&path);
            let missing = book(&settings(is_data)).unwrap_err();
            assert_eq!(missing.to_string(), format!("cannot read the prices in {}", path.display()));
            fs::write(&path, "[[price]]\nmodel = 5\n").unwrap();
            let invalid = book(&settings(is_data)).unwrap_err();
            assert_eq!(invalid.to_string(), format!("the prices in {} are not valid", path.display()));
            let cause = invalid.source().unwrap().to_string();
            assert!(cause.contains(if is_data { "format of genai-prices" } else { "line 2" }), "{cause}");
        }
    }
}
