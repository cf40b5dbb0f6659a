use std::ops::RangeInclusive;

use actix_web::web;

use super::api::Api;
use crate::http::error::ApiError;
use crate::report::Zone;

/// The parameters of a request. Each parameter occurs once.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

/// How many characters of an unknown parameter an error quotes.
const MAX_QUOTED_CHARS: usize = 64;

/// The forms in which a client may write a moment.
const MOMENT: &str = "a date such as 2026-01-31, milliseconds since 1970, or a moment such as 2026-01-31T12:00:00Z (in a query, \
                      `+` is written %2B)";

impl Query {
    /// Reads a query. A parameter with an unknown name is an error.
    pub(crate) fn read(query: &str, known: &'static [&'static str]) -> Result<Self, ApiError> {
        Self::read_each(query, known, |name| {
            let name = name.chars().take(MAX_QUOTED_CHARS).collect();
            Err(ApiError::UnknownParameter { name, known })
        })
    }

    /// Reads the known parameters of a query and ignores all other parameters.
    pub(crate) fn read_known(query: &str, known: &'static [&'static str]) -> Result<Self, ApiError> {
        Self::read_each(query, known, |_| Ok(()))
    }

    fn read_each(
        query: &str,
        known: &'static [&'static str],
        unknown: impl Fn(&str) -> Result<(), ApiError>,
    ) -> Result<Self, ApiError> {
        let web::Query(parameters) = web::Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|_| ApiError::BadRequest("the query is not valid"))?;
        let mut read = Self(Vec::new());
        for (name, value) in parameters {
            let Some(known) = known.iter().find(|known| **known == name) else {
                unknown(&name)?;
                continue;
            };
            if read.text(known).is_some() {
                return Err(ApiError::RepeatedParameter { name: known });
            }
            read.0.push((name, value));
        }
        Ok(read)
    }

    /// Returns the value of a parameter.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a parameter as `read` understands it. If `read` returns `None`, the error says what is
    /// allowed.
    pub(crate) fn parsed<T>(
        &self,
        name: &'static str,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let value = read(text).ok_or_else(|| ApiError::BadParameter { name, allowed: allowed.to_owned() })?;
        Ok(Some(value))
    }

    /// Returns the value of a parameter that is a whole number.
    pub(crate) fn number(&self, name: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let (first, last) = (*range.start(), *range.end());
        let number = self.text(name).map(|text| text.parse().ok().filter(|number| range.contains(number)));
        number.map(|number| number.ok_or(ApiError::BadNumber { name, first, last })).transpose()
    }

    /// Returns the value of a parameter that is one of some names.
    pub(crate) fn choice<T: Copy>(&self, name: &'static str, choices: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.parsed(name, &format!("one of {}", names.join(", ")), |text| {
            choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
        })
    }

    /// Returns the parameter as a `bool`; `false` if the parameter is absent.
    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, ApiError> {
        let flag = self.parsed(name, "true or false", |text| text.parse().ok())?;
        Ok(flag.unwrap_or(false))
    }

    /// Returns the parameter as a moment in milliseconds since 1970.
    pub(crate) fn moment(&self, name: &'static str, zone: &Zone) -> Result<Option<i64>, ApiError> {
        self.parsed(name, MOMENT, |text| zone.moment(text))
    }

    /// Returns the zone that the parameter `tz` names, or else the zone of the API.
    pub(crate) fn zone(&self, api: &Api) -> Result<Zone, ApiError> {
        let allowed = "the name of a time zone, such as Europe/Berlin or UTC";
        let named = self.parsed("tz", allowed, |name| Zone::named(name).ok())?;
        Ok(named.unwrap_or_else(|| api.zone.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T: std::fmt::Debug>(read: Result<T, ApiError>) -> String {
        read.unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_or_repeated_parameter_is_named() {
        let read = |query: &str| Query::read(query, &["from", "to"]);
        assert_eq!(message(read("form=1")), "`form` is no query parameter here: there are from, to");
        assert_eq!(message(read("from=1&from=2")), "the query parameter `from` may stand once");
        assert!(message(read(&format!("{}=1", "x".repeat(1000)))).len() < 200);
        assert_eq!(read("to=a%2Fb&").unwrap().text("to"), Some("a/b"));
        let lenient = |query: &str| Query::read_known(query, &["from", "to"]);
        assert_eq!(lenient("form=1&form=2&to=3").unwrap().0, [("to".to_owned(), "3".to_owned())]);
        assert_eq!(message(lenient("from=1&from=2")), "the query parameter `from` may stand once");
    }

    #[test]
    fn a_bad_value_is_answered_with_what_is_allowed() {
        let query = Query::read("a=x&n=7", &["a", "n"]).unwrap();
        assert_eq!(message(query.number("a", 1..=9)), "the query parameter `a` must be a whole number from 1 to 9");
        assert_eq!(query.number("n", 1..=9).unwrap(), Some(7));
        assert_eq!(message(query.number("n", 1..=6)), "the query parameter `n` must be a whole number from 1 to 6");
        assert_eq!(message(query.choice("a", &[("y", 1), ("z", 2)])), "the query parameter `a` must be one of y, z");
        assert_eq!(query.choice("a", &[("x", 1)]).unwrap(), Some(1));
        assert_eq!(message(query.flag("a")), "the query parameter `a` must be true or false");
        let flags = Query::read("a=true&n=false", &["a", "n"]).unwrap();
        assert_eq!(["a", "n", "absent"].map(|name| flags.flag(name).unwrap()), [true, false, false]);
        assert!(message(query.moment("a", &Zone::UTC)).contains("milliseconds since 1970"));
        assert_eq!(query.moment("absent", &Zone::UTC).unwrap(), None);
    }
}
