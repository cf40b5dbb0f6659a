use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The origin of a page, spelled as browsers send it: a scheme, a host and perhaps a port, such as
/// `https://app.example:8443`.
///
/// Origins are compared as text. A spelling that browsers never send would never match, so it is refused: upper case, a
/// path, or a port that the scheme implies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(String);

/// The text is not an origin as browsers send it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an origin as browsers send it: write it like `https://example.com` or `http://localhost:3000`")]
pub struct InvalidWebOrigin(String);

impl WebOrigin {
    /// Returns the origin as browsers send it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebOrigin {
    type Err = InvalidWebOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidWebOrigin> {
        if is_origin(text) { Ok(Self(text.to_owned())) } else { Err(InvalidWebOrigin(text.to_owned())) }
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_origin(text: &str) -> bool {
    let schemes = [("https://", 443), ("http://", 80)];
    let Some((authority, implied_port)) =
        schemes.iter().find_map(|(scheme, port)| Some((text.strip_prefix(scheme)?, *port)))
    else {
        return false;
    };
    let (host, port) = match authority.rsplit_once(':') {
        // A colon within brackets belongs to an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    is_host(host) && port.is_none_or(|port| is_spelled::<u16>(port) && port != "0" && port != implied_port.to_string())
}

/// Returns whether the text is a host as browsers send it: a name in lower case, or an address.
pub(super) fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => is_spelled::<Ipv6Addr>(address),
        None => !host.is_empty() && host.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')),
    }
}

/// Returns whether the text is the canonical spelling of its value.
fn is_spelled<T: FromStr + ToString>(text: &str) -> bool {
    text.parse::<T>().is_ok_and(|value| value.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_as_browsers_send_them_are_accepted() {
        for text in [
            "https://example.com",
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:8080",
            "https://[2001:db8::1]",
            "http://a.example:443",
            "https://a.example:80",
        ] {
            assert_eq!(text.parse::<WebOrigin>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn spellings_that_browsers_never_send_are_refused_and_quoted() {
        for text in [
            "",
            "*",
            "null",
            "example.com",
            "not an origin",
            "https://",
            "https://example.com/",
            "https://Example.com",
            "HTTPS://example.com",
            "https://a@b.c",
            "https://a.example:443",
            "http://a.example:80",
            "http://[::1]:80",
            "https://a.example:",
            "https://a.example:0",
            "https://a.example:08443",
            "https://a.example:65536",
            "https://[0:0:0:0:0:0:0:1]",
            "https://[::1",
        ] {
            let error = text.parse::<WebOrigin>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}` is not an origin")), "{error}");
        }
    }
}
