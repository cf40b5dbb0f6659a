use std::fmt;
use std::str::FromStr;

use super::web_origin::is_host;

/// A host that requests may name: a DNS name, an IPv4 address or an IPv6 address in brackets, without a port.
///
/// The name is kept in lower case, so upper and lower case are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// The text is not a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a host name: write it like `metrics.example`, `10.0.0.5` or `[fd00::5]`, without a scheme and a port"
)]
pub struct InvalidHostName(String);

impl HostName {
    /// Returns the name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = InvalidHostName;

    fn from_str(text: &str) -> Result<Self, InvalidHostName> {
        let name = text.to_ascii_lowercase();
        if is_host(&name) { Ok(Self(name)) } else { Err(InvalidHostName(text.to_owned())) }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_an_address_is_a_host() {
        for (text, name) in [
            ("metrics.example", "metrics.example"),
            ("Metrics.EXAMPLE", "metrics.example"),
            ("turn_metrics", "turn_metrics"),
            ("10.0.0.5", "10.0.0.5"),
            ("[FD00::5]", "[fd00::5]"),
        ] {
            assert_eq!(text.parse::<HostName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn any_other_text_is_refused_and_quoted() {
        for text in [
            "",
            "*",
            "*.example",
            "metrics.example:24210",
            "http://metrics.example",
            "a.example/",
            "a@b",
            "a b",
            "a,b",
            "fd00::5",
            "[fd00::5",
            "[fd00:0::5]",
            "[::1]:80",
            "ä.example",
        ] {
            let error = text.parse::<HostName>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}` is not a host name")), "{error}");
        }
    }
}
