//! The frame of every page.

use maud::{DOCTYPE, Markup, html};

use super::charts::chart::patterns;
use super::files::{ICON, STYLE};
use super::link::with_query;

/// The pages that are listed at the top of every page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Overview,
    Conversations,
    /// A page below the list of conversations.
    Conversation,
    Models,
    Service,
}

impl Place {
    /// The places of the list, with their names and addresses.
    const LISTED: [(Self, &str, &str); 4] = [
        (Self::Overview, "Overview", ""),
        (Self::Conversations, "Conversations", "ui/conversations"),
        (Self::Models, "Models", "ui/models"),
        (Self::Service, "Service", "ui/service"),
    ];

    /// Returns what `aria-current` says at a listed place, if the reader is there or below it.
    fn current(self, listed: Self) -> Option<&'static str> {
        match (self, listed) {
            (Self::Conversation, Self::Conversations) => Some("true"),
            _ => (self == listed).then_some("page"),
        }
    }
}

/// A page without its frame.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) title: String,
    /// The query with which the links at the top go on showing the same time and zone.
    pub(crate) carried: String,
    /// The name of the zone of all times of the page.
    pub(crate) zone: Option<String>,
    pub(crate) body: Markup,
}

/// Returns the beginning of a relative address that leads to the root of the server, from a page at this path. Relative
/// addresses also work behind a proxy that serves the dashboard below a path of its own.
pub(crate) fn root(path: &str) -> String {
    match path.matches('/').count().saturating_sub(1) {
        0 => "./".to_owned(),
        depth => "../".repeat(depth),
    }
}

/// Returns the whole page. `root` leads to the root of the server.
pub(crate) fn whole(root: &str, place: Place, page: &Page) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (page.title) " · turn-metrics" }
                link rel="icon" type="image/svg+xml" href={ (root) (ICON.address()) };
                link rel="stylesheet" href={ (root) (STYLE.address()) };
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                header class="top" {
                    div class="inside" {
                        a class="brand" href=(with_query(root, &page.carried)) {
                            svg width="20" height="20" viewBox="0 0 16 16" aria-hidden="true" {
                                path d="M2 14V9h3v5zM6.5 14V6h3v8zM11 14V2h3v12z" {}
                            }
                            "turn-metrics"
                        }
                        nav aria-label="Pages" {
                            ul {
                                @for (listed, name, address) in Place::LISTED {
                                    li {
                                        a href=(with_query(&format!("{root}{address}"), &page.carried)) aria-current=[place.current(listed)] {
                                            (name)
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                main id="main" tabindex="-1" class="inside" { (page.body) }
                footer class="inside" {
                    @if let Some(zone) = &page.zone { "All times are in the zone " strong { (zone) } ". " }
                    "Hover over a number for its exact value. "
                    "A turn is one answer of an agent to its user; a step is one request to a model within it. "
                    "A + after a cost says that tokens without a price are not in it. "
                    "turn-metrics " (env!("CARGO_PKG_VERSION"))
                }
                (patterns())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_addresses_lead_to_the_root() {
        for (path, expected) in [("/", "./"), ("/ui/models", "../"), ("/ui/conversations/a%2Fb/turns", "../../../")] {
            assert_eq!(root(path), expected);
        }
    }

    #[test]
    fn a_page_says_where_it_is_and_escapes_its_title() {
        let page = Page {
            title: "</title><script>".to_owned(),
            carried: "tz=UTC&range=7d".to_owned(),
            zone: Some("Europe/Berlin".to_owned()),
            body: html! { p { "text" } },
        };
        for (place, current) in [
            (Place::Models, r#"<a href="../ui/models?tz=UTC&amp;range=7d" aria-current="page">Models</a>"#),
            (
                Place::Conversation,
                r#"<a href="../ui/conversations?tz=UTC&amp;range=7d" aria-current="true">Conversations</a>"#,
            ),
        ] {
            let html = whole("../", place, &page).into_string();
            assert!(html.contains(current), "{html}");
            assert_eq!(html.matches("aria-current").count(), 1);
            assert!(html.contains("<title>&lt;/title&gt;&lt;script&gt; · turn-metrics</title>"), "{html}");
            assert!(html.contains("All times are in the zone <strong>Europe/Berlin</strong>"), "{html}");
            for word in ["A turn is ", "a step is ", "A + after a cost says "] {
                assert!(html.contains(word), "the foot explains the words of every page: {word}: {html}");
            }
        }
    }
}
