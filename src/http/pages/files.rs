//! The files that pages load.

use std::hash::Hasher;
use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header;
use siphasher::sip::SipHasher13;

use super::protection::PROTECTION;

const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");

/// A browser asks for the style sheet of another version of this program by another address, so it may keep each for a
/// long time.
const FOR_A_YEAR: &str = "max-age=31536000, immutable";

/// Returns the address of the style sheet, which changes with its content.
pub(crate) fn style_address() -> &'static str {
    static ADDRESS: LazyLock<String> = LazyLock::new(|| {
        let mut hasher = SipHasher13::new();
        hasher.write(STYLE.as_bytes());
        format!("ui/style.css?v={:016x}", hasher.finish())
    });
    &ADDRESS
}

/// Answers with the style sheet.
pub(crate) async fn style() -> HttpResponse {
    file("text/css; charset=utf-8", STYLE)
}

/// Answers with the icon.
pub(crate) async fn icon() -> HttpResponse {
    file("image/svg+xml", ICON)
}

fn file(content_type: &'static str, text: &'static str) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    for protection in PROTECTION {
        response.insert_header(protection);
    }
    response.insert_header((header::CACHE_CONTROL, FOR_A_YEAR)).content_type(content_type).body(text)
}
