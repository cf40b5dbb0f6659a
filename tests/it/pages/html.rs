//! Reads the pages of the dashboard. It knows only the markup that they have.

/// What [`rows`] and [`data`] return for a figure that is not known.
pub(super) const UNKNOWN: &str = "not known";

/// Returns the values of an attribute of all elements, in the order of the page.
pub(super) fn attributes(html: &str, name: &str) -> Vec<String> {
    let begin = format!(" {name}=\"");
    html.split(&begin).skip(1).map(|rest| unescaped(rest.split('"').next().unwrap())).collect()
}

/// Returns the name of each element, and the names and values of its attributes.
pub(super) fn elements(html: &str) -> Vec<(String, Vec<(String, String)>)> {
    let tags = html.split('<').skip(1).map(|rest| rest.split('>').next().unwrap());
    let elements = tags.filter(|tag| !tag.starts_with(['/', '!'])).map(|tag| {
        let (name, rest) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut parts = rest.split('"');
        let mut attributes = Vec::new();
        while let Some(name) = parts.next() {
            // An attribute without a value stands before the next name.
            attributes
                .extend(name.split_whitespace().map(|name| (name.trim_end_matches('=').to_lowercase(), String::new())));
            if let (Some(value), Some(last)) = (parts.next(), attributes.last_mut()) {
                last.1 = unescaped(value);
            }
        }
        (name.to_lowercase(), attributes)
    });
    elements.collect()
}

/// Returns the addresses of all links and of all files that the page loads.
pub(super) fn hrefs(html: &str) -> Vec<String> {
    let hrefs = attributes(html, "href").into_iter().chain(attributes(html, "src"));
    hrefs.filter(|href| !href.starts_with('#')).collect()
}

/// Returns the address of the first link with this text.
pub(super) fn link_named(html: &str, text: &str) -> Option<String> {
    let link = html
        .split("<a ")
        .skip(1)
        .find(|link| link.split('>').nth(1).is_some_and(|rest| rest == format!("{text}</a")))?;
    attributes(&format!(" {link}"), "href").into_iter().next()
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// Returns the path that a relative address leads to from the page at `path`.
pub(super) fn resolve(path: &str, href: &str) -> String {
    let page = path.split('?').next().unwrap();
    if href.starts_with('?') {
        return format!("{page}{href}");
    }
    assert!(!href.starts_with('/') && !href.contains(':'), "{href} of {path} does not stay on this server");
    let mut folders: Vec<_> = page.split('/').collect();
    folders.pop();
    let mut rest = href.strip_prefix("./").unwrap_or(href);
    while let Some(above) = rest.strip_prefix("../") {
        folders.pop().unwrap();
        rest = above;
    }
    format!("{}/{rest}", folders.join("/"))
}

/// Returns the part of the page with this name.
pub(super) fn of_panel<'a>(html: &'a str, id: &str) -> &'a str {
    let begin = format!("<section class=\"card\" aria-labelledby=\"{id}-heading\">");
    let (_, rest) = html.split_once(&begin).unwrap_or_else(|| panic!("no panel {id} in {html}"));
    rest.split_once("</section>").unwrap().0
}

/// Returns the rows of the bodies of all tables: the text of the row's name, and its figures.
pub(super) fn rows(html: &str) -> Vec<(String, Vec<String>)> {
    let bodies = html.split("<tbody>").skip(1).map(|rest| rest.split("</tbody>").next().unwrap());
    let rows = bodies.flat_map(|body| body.split("<tr>").skip(1));
    rows.map(|row| {
        let (_, name) = row.split_once("<th ").unwrap();
        let (name, _) = name.split_once("</th>").unwrap();
        (without_tags(&format!("<th {name}")), data(row))
    })
    .collect()
}

/// Returns the exact figures, in the order of the page.
pub(super) fn data(html: &str) -> Vec<String> {
    let parts = html.split('<').filter_map(|tag| {
        if tag.starts_with("span class=\"unknown\" title") {
            return Some(UNKNOWN.to_owned());
        }
        tag.strip_prefix("data value=\"")?.split('"').next().map(unescaped)
    });
    parts.collect()
}

/// Returns the text that a reader sees.
pub(super) fn without_tags(html: &str) -> String {
    let text: String = html.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
    unescaped(&text)
}
