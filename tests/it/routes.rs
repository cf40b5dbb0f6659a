//! The routes of the server, read from its source, so that no test can leave one out.

use std::fs;

/// A route as the source of the server lists it.
pub(crate) struct Route {
    pub(crate) path: String,
    pub(crate) methods: Vec<String>,
    /// The name of the variant of `PageAccess`.
    pub(crate) pages: String,
}

/// Every route there is, from the source, so that none can be forgotten.
pub(crate) fn routes() -> Vec<Route> {
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/access.rs")).unwrap();
    let declared = source.split("Route { path: \"").skip(1).map(|rest| {
        let (path, rest) = rest.split_once("\", methods: ").unwrap();
        let (methods, rest) = rest.split_once(", pages: PageAccess::").unwrap();
        let methods = if methods == "READ" { "GET, HEAD" } else { methods.trim_matches('"') };
        Route {
            path: path.replace("{id}", "c"),
            methods: methods.split(", ").map(str::to_owned).collect(),
            pages: rest.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned(),
        }
    });
    let routes: Vec<_> = declared.collect();
    let listed = ["ROUTES", "PAGES"].map(|list| {
        let list = source.split_once(&format!("{list}: [&Route; ")).unwrap().1;
        list.split(']').next().unwrap().parse::<usize>().unwrap()
    });
    assert_eq!(listed.iter().sum::<usize>(), routes.len(), "the source is not written as this test reads it");
    routes
}

/// The setting that ends each stream of `/feed` at once. With it, the answer of every route has an end.
pub(crate) const NO_STREAMS: (&str, &str) = ("HTTP__FEED_TIMEOUT", "1ms");

/// The status of a request that reaches the resource: some lack a parameter, one has a body that it refuses, and no turn
/// is sealed.
pub(crate) fn own_status(path: &str) -> u16 {
    match path {
        // The body of these tests is an event and no sealed turn.
        "/metrics/throughput" | "/prices" | "/import" => 400,
        "/conversations/c" => 404,
        _ if path.ends_with("/summary") || path == "/ui/conversations/c/turns" => 404,
        _ => 200,
    }
}
