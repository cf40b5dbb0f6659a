//! The files that pages load.

use std::hash::Hasher;
use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use siphasher::sip::SipHasher13;

use super::protection::PROTECTION;

pub(crate) static STYLE: File = File {
    path: "ui/style.css",
    content_type: "text/css; charset=utf-8",
    text: include_str!("style.css"),
    version: LazyLock::new(|| version(include_str!("style.css"))),
};
pub(crate) static ICON: File = File {
    path: "ui/icon.svg",
    content_type: "image/svg+xml",
    text: include_str!("icon.svg"),
    version: LazyLock::new(|| version(include_str!("icon.svg"))),
};
pub(crate) static SCRIPT: File = File {
    path: "ui/live.js",
    content_type: "text/javascript; charset=utf-8",
    text: include_str!("live.js"),
    version: LazyLock::new(|| version(include_str!("live.js"))),
};

/// A browser asks for the file of another version of this program by another address, so it may keep each for a long
/// time.
const FOR_A_YEAR: &str = "max-age=31536000, immutable";

/// At the address without a hash, or with that of another version, there may soon be another file.
const FOR_NOW: &str = "no-cache";

/// A file of this program.
#[derive(Debug)]
pub(crate) struct File {
    /// The path below the root of the server.
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
    /// The query of the address, which changes with the content.
    version: LazyLock<String>,
}

fn version(text: &str) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    format!("v={:016x}", hasher.finish())
}

impl File {
    /// Returns the address at which browsers may keep the file, relative to the root of the server.
    pub(crate) fn address(&self) -> String {
        format!("{}?{}", self.path, *self.version)
    }

    /// Answers with the file.
    pub(crate) fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        for protection in PROTECTION {
            response.insert_header(protection);
        }
        let kept = if request.query_string() == *self.version { FOR_A_YEAR } else { FOR_NOW };
        response.insert_header((header::CACHE_CONTROL, kept)).content_type(self.content_type).body(self.text)
    }
}
