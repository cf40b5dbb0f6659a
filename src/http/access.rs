//! The routes of the service, and which web pages may use each route.
//!
//! `tests/it/routes.rs` reads the source of this file, so that the attacks go to every route. For that, each route must
//! be a constant, with its fields in the present order.

use std::sync::LazyLock;

use actix_web::dev::ResourceDef;

/// A route of the service.
#[derive(Debug)]
pub(crate) struct Route {
    /// The path of the route, as a pattern of actix-web.
    pub(crate) path: &'static str,
    /// The methods of the route, as the `Allow` header lists them.
    pub(crate) methods: &'static str,
    /// Which web pages may use the route.
    pub(crate) pages: PageAccess,
}

/// Which web pages may use a route. Programs that are not browsers may use every route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageAccess {
    /// Pages of the origins that the settings allow may read the answer.
    OfAllowedOrigins,
    /// Any page may send a request that changes nothing, but only a page of this server may read the answer.
    Unread,
    /// Only pages of this server may use the route.
    OfOwnOrigin,
    /// No page may use the route.
    None,
    /// Only programs may use the route: no browser may, whether a page caused the request or a person.
    Programs,
}

const READ: &str = "GET, HEAD";

pub(crate) const EVENTS: Route = Route { path: "/events", methods: "POST", pages: PageAccess::OfOwnOrigin };
pub(crate) const IMPORT: Route = Route { path: "/import", methods: "POST", pages: PageAccess::OfOwnOrigin };
pub(crate) const METRICS: Route =
    Route { path: "/conversations/{id}/metrics", methods: READ, pages: PageAccess::OfAllowedOrigins };
pub(crate) const TURNS: Route =
    Route { path: "/conversations/{id}/turns", methods: READ, pages: PageAccess::OfAllowedOrigins };
pub(crate) const SUMMARY: Route =
    Route { path: "/conversations/{id}/summary", methods: READ, pages: PageAccess::OfAllowedOrigins };
pub(crate) const CONVERSATIONS: Route =
    Route { path: "/conversations", methods: READ, pages: PageAccess::OfAllowedOrigins };
/// Programs and pages of this server may erase a conversation.
pub(crate) const CONVERSATION: Route =
    Route { path: "/conversations/{id}", methods: "DELETE", pages: PageAccess::OfOwnOrigin };
pub(crate) const STATS: Route = Route { path: "/stats", methods: READ, pages: PageAccess::OfAllowedOrigins };
pub(crate) const THROUGHPUT: Route =
    Route { path: "/metrics/throughput", methods: READ, pages: PageAccess::OfAllowedOrigins };
pub(crate) const PRICES: Route = Route { path: "/prices", methods: READ, pages: PageAccess::OfAllowedOrigins };
pub(crate) const ALL_TURNS: Route = Route { path: "/turns", methods: READ, pages: PageAccess::OfAllowedOrigins };
/// The whole contents of the store are for programs and for pages of this server.
pub(crate) const EXPORT: Route = Route { path: "/export", methods: READ, pages: PageAccess::OfOwnOrigin };
/// A stream occupies a connection, so pages of other origins may not begin one.
pub(crate) const FEED: Route = Route { path: "/feed", methods: "GET", pages: PageAccess::OfOwnOrigin };
pub(crate) const HEALTH: Route = Route { path: "/health", methods: READ, pages: PageAccess::Unread };
/// The readiness check writes to the disk, so pages of other origins may not cause it.
pub(crate) const READY: Route = Route { path: "/ready", methods: READ, pages: PageAccess::OfOwnOrigin };
/// A browser that is led here would make a copy of the whole database, and save it among its downloads.
pub(crate) const BACKUP: Route = Route { path: "/backup", methods: "GET", pages: PageAccess::Programs };

pub(crate) const ROUTES: [&Route; 16] = [
    &EVENTS,
    &IMPORT,
    &METRICS,
    &TURNS,
    &SUMMARY,
    &CONVERSATIONS,
    &CONVERSATION,
    &STATS,
    &THROUGHPUT,
    &PRICES,
    &ALL_TURNS,
    &EXPORT,
    &FEED,
    &HEALTH,
    &READY,
    &BACKUP,
];

pub(crate) const OVERVIEW_PAGE: Route = Route { path: "/", methods: READ, pages: PageAccess::Unread };
pub(crate) const CONVERSATIONS_PAGE: Route =
    Route { path: "/ui/conversations", methods: READ, pages: PageAccess::Unread };
pub(crate) const CONVERSATION_PAGE: Route =
    Route { path: "/ui/conversations/{id}/turns", methods: READ, pages: PageAccess::Unread };
pub(crate) const MODELS_PAGE: Route = Route { path: "/ui/models", methods: READ, pages: PageAccess::Unread };
/// The page shows whether a durable write works, so pages of other origins may not cause it.
pub(crate) const SERVICE_PAGE: Route = Route { path: "/ui/service", methods: READ, pages: PageAccess::OfOwnOrigin };
pub(crate) const STYLE: Route = Route { path: "/ui/style.css", methods: READ, pages: PageAccess::Unread };
pub(crate) const ICON: Route = Route { path: "/ui/icon.svg", methods: READ, pages: PageAccess::Unread };
pub(crate) const LIVE_SCRIPT: Route = Route { path: "/ui/live.js", methods: READ, pages: PageAccess::Unread };

/// The routes of the dashboard: its pages, and the files that they need.
pub(crate) const PAGES: [&Route; 8] =
    [&OVERVIEW_PAGE, &CONVERSATIONS_PAGE, &CONVERSATION_PAGE, &MODELS_PAGE, &SERVICE_PAGE, &STYLE, &ICON, &LIVE_SCRIPT];

impl PageAccess {
    /// Returns the access that web pages have to a path, which depends on the origin of the page. The path is decoded
    /// as it is for routing. No page may use a path that is not in the table, so a route that is missing there is
    /// closed to pages.
    pub(crate) fn of(path: &str) -> Self {
        static PATTERNS: LazyLock<Vec<(ResourceDef, PageAccess)>> = LazyLock::new(|| {
            ROUTES.iter().chain(&PAGES).map(|route| (ResourceDef::new(route.path), route.pages)).collect()
        });
        PATTERNS.iter().find(|(pattern, _)| pattern.is_match(path)).map_or(Self::None, |(_, pages)| *pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_may_read_these_routes_and_no_others() {
        let open = ROUTES
            .iter()
            .chain(&PAGES)
            .filter(|route| route.pages == PageAccess::OfAllowedOrigins)
            .map(|route| route.path);
        let conversation = ["metrics", "turns", "summary"].map(|resource| format!("/conversations/{{id}}/{resource}"));
        let others = ["/conversations", "/stats", "/metrics/throughput", "/prices", "/turns"].map(str::to_owned);
        assert!(open.eq(conversation.into_iter().chain(others)), "what pages may read is decided here");
    }

    #[test]
    fn a_path_that_is_not_listed_is_closed_to_pages() {
        assert_eq!(PageAccess::of("/health"), PageAccess::Unread);
        assert_eq!(PageAccess::of("/conversations/a b/turns"), PageAccess::OfAllowedOrigins);
        for path in [
            "",
            "/ui",
            "/ui/",
            "//",
            "/healthy",
            "/health/",
            "/conversations/c/",
            "/conversations/c/d/turns",
            "/Events",
        ] {
            assert_eq!(PageAccess::of(path), PageAccess::None, "{path}");
        }
    }

    #[test]
    fn each_route_of_this_file_is_in_the_list() {
        let source = include_str!("access.rs");
        let names = source.lines().filter_map(|line| line.strip_prefix("pub(crate) const ")?.split_once(": Route ="));
        let list = |name| source.split_once(name).unwrap().1.split_once("];").unwrap().0;
        let list = [list("const ROUTES: "), list("const PAGES: ")].concat();
        let mut count = 0;
        for (name, _) in names {
            let is_listed = list.split(|c: char| !c.is_alphanumeric() && c != '_').any(|listed| listed == name);
            assert!(is_listed, "add &{name} to `ROUTES` or `PAGES` in src/http/access.rs");
            count += 1;
        }
        assert_eq!(count, ROUTES.len() + PAGES.len(), "a route of the list was not found in the source");
    }
}
