//! The dashboard: its pages show the figures of the API, and nothing that a page should not have.

mod html;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use self::html::{attributes, elements, hrefs, of_panel, resolve, rows, without_tags};
use crate::server::{Answer, Client, Server, encode, until};

/// 2026-03-25T12:00:00Z. Berlin puts its clocks forward four days later.
const FIRST: u64 = 1_774_440_000_000;
const DAY: u64 = 24 * 60 * 60 * 1000;
const DAYS: u64 = 9;

const TIME: &str = "first=2026-03-24&last=2026-04-03&tz=Europe%2FBerlin";

/// A conversation whose id and model are meant to break a page.
const EVIL: &str = "<script>alert(1)</script>\"' onload=x \u{202e}&amp;/../%2e?#";
const EVIL_MODEL: &str = "</title><img src=https://evil.example/x onerror=alert(1)>\u{1b}\u{202e}";

/// Every page, with a conversation that exists.
const PAGES: [&str; 5] = ["/", "/ui/conversations", "/ui/conversations/c1/turns", "/ui/models", "/ui/service"];

/// Returns events of turns on several days: of models with and without a price, with and without cache counters and
/// times, and ended for several reasons. The last turn is open.
fn events() -> String {
    let mut lines = Vec::new();
    let mut line = |id: &str, turn: &str, event: Value| lines.push(of_turn(id, turn, event));
    for n in 0..DAYS * 7 {
        let (id, turn) = (format!("c{}", n % 5), format!("t{n}"));
        let model = ["gpt-4o", "gpt-4o-mini", "nobody-knows"][usize::try_from(n % 3).unwrap()];
        line(&id, &turn, json!({ "type": "turn-start", "model": model, "provider": "openai", "project": "p" }));
        for step in 0..=n % 3 {
            let step_id = format!("{turn}#{step}");
            let mut usage = json!({ "inputTokens": 20_000 + 37 * n, "outputTokens": 150 + n });
            if n % 4 > 0 {
                usage["cacheReadTokens"] = (12_000 + n).into();
            }
            line(&id, &turn, json!({ "type": "usage", "stepId": step_id, "usage": usage }));
            let times = json!({ "type": "step-complete", "stepId": step_id, "ttftMs": 200 + 3 * n, "decodeMs": 2500 + 10 * n, "genTotalMs": 4000.5 });
            line(&id, &turn, times);
        }
        let reason = if n % 10 == 3 { "aborted" } else { "stop" };
        let ended_at = FIRST + n * DAY / 7;
        line(
            &id,
            &turn,
            json!({ "type": "done", "reason": reason, "durationMs": 15_000, "contextSize": 21_000 + n, "endedAt": ended_at }),
        );
    }
    line(
        EVIL,
        EVIL,
        json!({ "type": "turn-start", "model": EVIL_MODEL, "provider": EVIL_MODEL, "project": EVIL_MODEL }),
    );
    let usage = json!({ "inputTokens": 10, "outputTokens": 1 });
    line(EVIL, EVIL, json!({ "type": "done", "reason": EVIL_MODEL, "usage": usage, "endedAt": FIRST }));
    line("c1", "open<b>", json!({ "type": "turn-start", "model": EVIL_MODEL }));
    lines.concat()
}

/// Returns the line of an event of a turn.
fn of_turn(id: &str, turn: &str, mut event: Value) -> String {
    event["conversationId"] = id.into();
    event["turnId"] = turn.into();
    event.to_string() + "\n"
}

fn server() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    // The conversations of one request are committed side by side. The turn that is meant to break a page comes in a request
    // of its own, so that it is the latest one.
    let events = events();
    let (evil, others): (Vec<_>, Vec<_>) = events.split_inclusive('\n').partition(|line| line.contains("alert(1)"));
    for lines in [others, evil] {
        assert_eq!(server.client().post_events(&lines.concat()).status, 200);
    }
    (directory, server)
}

fn page(client: &mut Client, path: &str) -> String {
    let answer = client.get(path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    assert_is_a_safe_page(path, &answer);
    answer.body
}

/// Checks what holds for every page, whatever it shows.
fn assert_is_a_safe_page(path: &str, answer: &Answer) {
    let policy = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{path}: {name}");
    }
    assert!(answer.header("access-control-allow-origin").is_none(), "{path}");
    let html = &answer.body;
    // The one script is a file.
    let scripts = html.split("<script").skip(1);
    for script in scripts {
        let is_file = script.starts_with(" src=\"") && script.contains("ui/live.js?v=");
        assert!(is_file && script.contains(" defer></script>"), "{path}: <script{script}");
    }
    for (element, attributes) in elements(html) {
        let forbidden = ["style", "iframe", "base", "object", "embed"];
        assert!(!forbidden.contains(&element.as_str()), "{path} has <{element}>");
        for (name, value) in attributes {
            assert!(name != "style" && !name.starts_with("on"), "{path}: {name} of <{element}>");
            let is_address = ["href", "src", "action"].contains(&name.as_str());
            assert!(!is_address || !value.contains(':') && !value.starts_with("//"), "{path}: {value}");
        }
    }
    assert!(!html.contains('\u{202e}') && !html.contains('\u{1b}'), "{path} has a character that deceives");
    let ids = attributes(html, "id");
    let mut unique = ids.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "{path}: {ids:?}");
    for labelled in attributes(html, "aria-labelledby").iter().flat_map(|ids| ids.split(' ')) {
        assert!(unique.iter().any(|id| id == labelled), "{path}: nothing has the id {labelled}");
    }
    assert_eq!(html.matches("<h1").count(), 1, "{path}");
    assert_eq!(html.matches("<main ").count(), 1, "{path}");
}

#[test]
fn every_page_is_safe_and_every_link_of_it_leads_somewhere() {
    let (_directory, server) = server();
    let mut client = server.client();
    let evil = format!("/ui/conversations/{}/turns", encode(EVIL));
    let mut seen = BTreeSet::new();
    let mut open: Vec<String> = PAGES.map(str::to_owned).into();
    open.extend([format!("/?{TIME}"), format!("/ui/models?{TIME}"), "/ui/conversations?order=cost".to_owned(), evil]);
    while let Some(path) = open.pop() {
        let answer = client.get(&path);
        let is_page = path == "/" || path.starts_with("/?") || path.starts_with("/ui/");
        let is_file = ["style.css", "icon.svg", "live.js"].iter().any(|file| path.contains(&format!("/ui/{file}?v=")));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        if is_file {
            assert_eq!(answer.header("cache-control"), Some("max-age=31536000, immutable"), "{path}");
        } else if is_page {
            assert_is_a_safe_page(&path, &answer);
            for href in hrefs(&answer.body) {
                let target = resolve(&path, &href);
                if !seen.contains(&target) && !open.contains(&target) {
                    open.push(target);
                }
            }
        } else {
            answer.json();
        }
        seen.insert(path);
        assert!(seen.len() < 300, "the pages have too many addresses: {seen:#?}");
    }
    for part in [
        "/stats?",
        "/conversations?",
        "/prices?",
        "/summary",
        "/turns?order=latest",
        "/turns?after=",
        "/ready",
        "style.css?v=",
        "icon.svg?v=",
        "live.js?v=",
    ] {
        assert!(seen.iter().any(|path| path.contains(part)), "no page links to {part}");
    }
    assert!(seen.iter().any(|path| path.contains("%3Cscript%3E") && path.contains("/summary")), "{seen:#?}");
}

#[test]
fn a_page_is_compressed_for_clients_that_take_gzip() {
    let (_directory, server) = server();
    let path = format!("/?{TIME}");
    let get = |accepted: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{accepted}\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        let body = answer.split_off(end + 4);
        (String::from_utf8(answer).unwrap(), body)
    };
    let (plain_head, plain) = get("");
    assert!(plain_head.starts_with("HTTP/1.1 200") && !plain_head.contains("content-encoding"), "{plain_head}");
    assert!(plain_head.contains("vary: ") && plain_head.contains("accept-encoding"), "{plain_head}");
    let (head, compressed) = get("accept-encoding: br;q=1, gzip;q=0.8, *;q=0.1\r\n");
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut body = String::new();
    flate2::read::GzDecoder::new(&*compressed).read_to_string(&mut body).unwrap();
    assert!(body == String::from_utf8(plain.clone()).unwrap(), "{body}");
    assert!(compressed.len() < plain.len() / 3, "{} of {} bytes", compressed.len(), plain.len());
    for none in ["accept-encoding: gzip;q=0\r\n", "accept-encoding: br\r\n", "accept-encoding: identity\r\n"] {
        let (head, body) = get(none);
        assert!(!head.contains("content-encoding") && body == plain, "{none}: {head}");
    }
}

#[test]
fn texts_from_outside_are_shown_as_they_are_and_never_as_markup() {
    let (_directory, server) = server();
    let mut client = server.client();
    let evil = format!("/ui/conversations/{}/turns", encode(EVIL));
    for path in ["/", &format!("/?{TIME}"), "/ui/conversations", &evil, &format!("/ui/models?{TIME}")] {
        let html = page(&mut client, path);
        // The pages of one conversation and of the models have one of the two in every place.
        let texts = [
            (
                r"&lt;script&gt;alert(1)&lt;/script&gt;&quot;' onload=x \u{202e}&amp;amp;/../%2e?#",
                !path.contains("models"),
            ),
            (r"&lt;/title&gt;&lt;img src=https://evil.example/x onerror=alert(1)&gt;\u{1b}\u{202e}", true),
        ];
        for (text, is_shown) in texts {
            assert_eq!(html.contains(text), is_shown, "{path}: {text}");
        }
        assert!(!html.contains("alert(1)\"") && !html.contains("<img"), "{path}");
    }
    let open = page(&mut client, "/ui/conversations/c1/turns");
    assert!(of_panel(&open, "open").contains("open&lt;b&gt;"), "{open}");
    // A search shows the text that was searched.
    let found = page(&mut client, "/ui/conversations?prefix=%22%3E%3Cscript%3E");
    assert!(found.contains(r#"value="&quot;&gt;&lt;script&gt;""#) && found.contains("No conversation fits"), "{found}");
}

/// Returns a figure of the API as a page has it in the attribute `value`.
fn value(figure: &Value) -> String {
    match figure {
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| number.as_f64().unwrap().to_string(), |n| n.to_string())
        }
        Value::Null => html::UNKNOWN.to_owned(),
        other => panic!("no figure: {other}"),
    }
}

fn sum(row: &Value) -> String {
    let usage = &row["usage"];
    (usage["inputTokens"].as_u64().unwrap() + usage["outputTokens"].as_u64().unwrap()).to_string()
}

/// Returns the answer of the address in the head of a panel.
fn api(client: &mut Client, path: &str, html: &str, panel: &str) -> Value {
    let href = hrefs(of_panel(html, panel)).into_iter().next().unwrap();
    let answer = client.get(&resolve(path, &href));
    assert_eq!(answer.status, 200, "{href}");
    answer.json()
}

#[test]
fn the_tables_of_the_overview_have_the_figures_of_the_api() {
    let (_directory, server) = server();
    let mut client = server.client();
    let path = format!("/?{TIME}");
    let html = page(&mut client, &path);
    let of_models = api(&mut client, &path, &html, "tokens");
    let bucket =
        client.get(&format!("/stats?from={}&to={}&tz=Europe/Berlin", of_models["from"], of_models["to"])).json();
    let by_day: BTreeMap<String, &Value> = bucket["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            // The report times are far from midnight, so the date in UTC is that of the middle of the day.
            let day = date(row["start"].as_u64().unwrap() + DAY / 2);
            (day, row)
        })
        .collect();
    // The turns begin and end at noon.
    assert_eq!(by_day.len(), usize::try_from(DAYS + 1).unwrap());
    let tables = ["spend", "tokens", "ttft", "speed", "cache"].map(|panel| rows(of_panel(&html, panel)));
    for table in &tables {
        assert_eq!(table.len(), 11, "a row for each day, with and without turns");
    }
    let [costs, tokens, ttft, speed, cache] = tables;
    for (place, (name, cells)) in costs.iter().enumerate() {
        let row = by_day.get(name.split(' ').nth(1).unwrap());
        let unknown = || html::UNKNOWN.to_owned();
        let percentiles = |name: &str| match row.map(|row| &row[name]).filter(|of| !of.is_null()) {
            Some(of) => ["p50", "p90", "p99"].map(|p| value(&of[p])).to_vec(),
            None => vec![unknown(); 3],
        };
        let cost = row.map_or_else(|| "0.000000000000".to_owned(), |row| value(&row["cost"]["usd"]));
        assert_eq!(cells, &[cost], "{name}");
        assert_eq!(ttft[place].1, percentiles("ttftMs"), "{name}");
        assert_eq!(speed[place].1, percentiles("outputTokensPerSecond"), "{name}");
        assert_eq!(cache[place].1, [row.map_or_else(unknown, |row| value(&row["cacheRate"]))], "{name}");
        assert_eq!(tokens[place].1.last().unwrap(), &row.map_or("0".to_owned(), |row| sum(row)), "{name}");
    }
    // The columns of the models, in the order of their legend, with all days together.
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for row in of_models["rows"].as_array().unwrap() {
        *expected.entry(row["model"].as_str().unwrap().to_owned()).or_default() += sum(row).parse::<u64>().unwrap();
    }
    let columns = tokens[0].1.len() - 1;
    let mut shown: Vec<u64> =
        (0..columns).map(|nth| tokens.iter().map(|(_, cells)| cells[nth].parse::<u64>().unwrap()).sum()).collect();
    assert!(shown.is_sorted_by(|one, other| one >= other), "{shown:?}");
    let mut expected: Vec<u64> = expected.into_values().collect();
    shown.sort_unstable();
    expected.sort_unstable();
    assert_eq!(shown, expected);
    // The tiles.
    let whole = html::link_named(&html, "Figures of the whole time as JSON").unwrap();
    let mut whole = client.get(&resolve(&path, &whole)).json();
    assert_eq!((&whole["from"], &whole["to"]), (&of_models["from"], &of_models["to"]));
    assert_eq!(whole["rows"].as_array().unwrap().len(), 1);
    let total = whole["rows"][0].take();
    for (name, figure) in [
        ("Spend", &total["cost"]["usd"]),
        ("Cache rate", &total["cacheRate"]),
        ("Saved by the cache", &total["cacheSavedUsd"]),
        ("Time to first token", &total["ttftMs"]["p50"]),
        ("Output speed", &total["outputTokensPerSecond"]["p50"]),
        ("Turns", &total["turns"]),
    ] {
        let tile = html.split(&format!("<dt>{name}</dt>")).nth(1).unwrap();
        assert_eq!(html::data(tile).first(), Some(&value(figure)), "{name}");
    }
    assert_ne!(total["cacheSavedUsd"], "0.000000000000");
    // The reasons.
    let reasons = api(&mut client, &path, &html, "reasons");
    let mut expected = BTreeMap::new();
    for row in reasons["rows"].as_array().unwrap() {
        if let Some(reason) = row["reason"].as_str().filter(|_| row["turns"] != 0) {
            expected.insert(reason.to_owned(), value(&row["turns"]));
        }
    }
    let shown = rows(of_panel(&html, "reasons"));
    let shown: BTreeMap<_, _> =
        shown.into_iter().map(|(name, cells)| (name.split(' ').next().unwrap().to_owned(), cells[0].clone())).collect();
    assert_eq!(shown, expected);
}

/// Returns the date of a moment in UTC.
fn date(millis: u64) -> String {
    jiff::Timestamp::from_millisecond(millis.try_into().unwrap()).unwrap().to_string()[..10].to_owned()
}

#[test]
fn the_tables_of_the_models_have_the_figures_of_the_api() {
    let (_directory, server) = server();
    let mut client = server.client();
    let path = format!("/ui/models?{TIME}");
    let html = page(&mut client, &path);
    let answer = api(&mut client, &path, &html, "usage");
    let mut expected: Vec<&Value> = answer["rows"].as_array().unwrap().iter().collect();
    expected.sort_by_key(|row| std::cmp::Reverse(sum(row).parse::<u64>().unwrap()));
    let usage = rows(of_panel(&html, "usage"));
    let speed = rows(of_panel(&html, "speed"));
    let prices = rows(of_panel(&html, "prices"));
    assert_eq!([usage.len(), speed.len(), prices.len()], [expected.len(); 3]);
    for (place, row) in expected.into_iter().enumerate() {
        let model = row["model"].as_str().unwrap();
        let of_usage = ["inputTokens", "outputTokens"].map(|name| value(&row["usage"][name]));
        let figures = [
            value(&row["turns"]),
            value(&row["steps"]),
            of_usage[0].clone(),
            of_usage[1].clone(),
            value(&row["cacheRate"]),
            value(&row["cost"]["usd"]),
            value(&row["cacheSavedUsd"]),
        ];
        assert_eq!(usage[place].1[..7], figures, "{model}");
        let percentiles = ["ttftMs", "outputTokensPerSecond", "durationMs"].into_iter().flat_map(|name| {
            ["p50", "p90", "p99"]
                .map(|p| if row[name].is_null() { html::UNKNOWN.to_owned() } else { value(&row[name][p]) })
        });
        assert_eq!(speed[place].1, percentiles.collect::<Vec<_>>(), "{model}");
        assert_eq!(prices[place].1.last(), Some(&value(&row["cost"]["unpricedTokens"])), "{model}");
        let quoted = client
            .get(&format!("/prices?model={}&provider={}", encode(model), encode(row["provider"].as_str().unwrap())))
            .json();
        let rates = &quoted["usdPerMillionTokens"];
        let expected: Vec<_> = if rates.is_null() {
            vec![]
        } else {
            ["input", "output", "cacheRead", "cacheWrite"].map(|name| value(&rates[name])).to_vec()
        };
        assert_eq!(prices[place].1[..prices[place].1.len() - 1], expected, "{model}");
    }
    assert!(of_panel(&html, "prices").contains("no price"));
}

#[test]
fn the_list_of_conversations_is_that_of_the_api_page_by_page() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    let many = (0..120).map(|n| {
        let usage = json!({ "inputTokens": 1000 + n * 7 % 50, "outputTokens": 1 });
        let done = json!({ "type": "done", "reason": "stop", "endedAt": FIRST + n, "usage": usage });
        of_turn(&format!("many/{n:03}"), "t", done)
    });
    let many: String = many.collect();
    assert_eq!(client.post_events(&(events() + &many)).status, 200);
    for query in [
        "",
        "order=tokens",
        "order=cost",
        "order=turns&prefix=many",
        "model=gpt-4o&tz=UTC",
        "first=2026-03-26&last=2026-04-30&order=tokens",
    ] {
        let (mut path, mut pages) = (format!("/ui/conversations?{query}"), 0);
        let mut shown = Vec::new();
        loop {
            let html = page(&mut client, &path);
            let answer = api(&mut client, &path, &html, "list");
            let listed = answer["conversations"].as_array().unwrap();
            let table = rows(of_panel(&html, "list"));
            assert_eq!(table.len(), listed.len(), "{path}");
            for ((_, cells), listed) in table.iter().zip(listed) {
                let figures = [
                    value(&listed["turns"]),
                    sum(listed),
                    value(&listed["usage"]["outputTokens"]),
                    value(&listed["cacheRate"]),
                    value(&listed["contextSize"]),
                    value(&listed["cost"]["usd"]),
                ];
                assert_eq!(cells[..6], figures, "{path}: {listed}");
                shown.push(listed["conversationId"].clone());
            }
            pages += 1;
            let next = html::link_named(&html, "Next page");
            assert_eq!(next.is_some(), answer["next"].is_string(), "{path}");
            match next {
                Some(next) => path = resolve(&path, &next),
                None => break,
            }
        }
        let whole =
            query.replace("first=2026-03-26&last=2026-04-30", "from=2026-03-26&to=2026-05-01").replace("&tz=UTC", "");
        let whole = client.get(&format!("/conversations?limit=1000&{whole}")).json();
        let expected: Vec<_> =
            whole["conversations"].as_array().unwrap().iter().map(|listed| listed["conversationId"].clone()).collect();
        assert_eq!(shown, expected, "{query}: {pages} pages");
    }
}

#[test]
fn a_list_of_some_days_says_which_conversations_are_missing_and_leads_to_all_of_them() {
    let (_directory, server) = server();
    let mut client = server.client();
    let path = "/ui/conversations?first=2026-04-02&last=2026-04-03&order=cost&model=gpt-4o&tz=UTC";
    let html = page(&mut client, path);
    let panel = of_panel(&html, "list");
    let text = without_tags(panel);
    assert!(text.contains("By cost, of those whose latest turn is in this time"), "{text}");
    assert!(text.contains("Only conversations whose latest turn is in the chosen time are listed."), "{text}");
    assert!(text.contains("Others may be dearer: see the same list for all time."), "{text}");
    let all = resolve(path, &html::link_named(panel, "the same list for all time").unwrap());
    assert_eq!(all, "/ui/conversations?order=cost&model=gpt-4o&range=all&tz=UTC");
    let html = page(&mut client, &all);
    let text = without_tags(of_panel(&html, "list"));
    assert!(!text.contains("Only conversations") && !text.contains("all time"), "{text}");
    assert!(text.contains("The figures of a conversation count all its turns."), "{text}");
    // The columns by which the list can be sorted are links that say so.
    let sorts = attributes(of_panel(&html, "list"), "title").into_iter().filter(|title| title.starts_with("Sort "));
    let names = ["by latest turn", "by number of turns", "by tokens", "by cost"];
    assert!(sorts.eq(names.map(|name| format!("Sort {name}"))), "{html}");
}

/// Returns the rows of a table of a chart by turn.
fn of_each_turn(turns: &[Value], cells: impl Fn(&Value) -> Vec<String>) -> Vec<(String, Vec<String>)> {
    turns.iter().map(|turn| (format!("turn {}", turn["ordinal"]), cells(turn))).collect()
}

/// Returns the tokens of a turn that were read from the cache, written to it, neither, and the output.
fn token_kinds(turn: &Value) -> Vec<String> {
    let usage = &turn["metrics"]["usage"];
    let tokens = |name: &str| usage[name].as_u64().unwrap_or(0);
    let rest = tokens("inputTokens") - tokens("cacheReadTokens") - tokens("cacheWriteTokens");
    let cached = ["cacheReadTokens", "cacheWriteTokens"].map(|name| value(&usage[name]));
    cached.into_iter().chain([rest, tokens("outputTokens")].map(|n| n.to_string())).collect()
}

/// Checks the table of the steps of a turn. It has all times that the waterfall above it shows.
fn assert_has_the_steps(article: &str, metrics: &Value) {
    let steps = metrics["steps"].as_array().unwrap();
    let number = |figure: &Value| figure.as_f64().unwrap_or(0.0);
    let rest = |step: &Value| number(&step["genTotalMs"]) - number(&step["ttftMs"]) - number(&step["decodeMs"]);
    let shown = rows(article);
    assert_eq!(shown.len(), steps.len().min(40));
    for (step, (_, cells)) in steps.iter().zip(&shown) {
        let usage =
            ["inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens"].map(|name| &step["usage"][name]);
        let mut figures: Vec<_> = usage.into_iter().chain([&step["ttftMs"], &step["decodeMs"]]).map(value).collect();
        figures.push(rest(step).to_string());
        figures.push(value(&step["genTotalMs"]));
        figures.push((number(&step["usage"]["outputTokens"]) * 1000.0 / number(&step["decodeMs"])).to_string());
        assert_eq!(cells, &figures, "{step}");
    }
    let whole = |steps: &[Value]| steps.iter().map(|step| number(&step["genTotalMs"])).sum::<f64>();
    let (all, further) = (whole(steps), whole(&steps[shown.len()..]));
    let expected = [further, number(&metrics["durationMs"]) - all].into_iter().filter(|millis| *millis > 0.0);
    let (_, sums) = article.split_once("<tfoot>").unwrap();
    assert_eq!(html::data(sums), expected.map(|millis| millis.to_string()).collect::<Vec<_>>(), "{metrics}");
}

#[test]
fn the_page_of_a_conversation_has_its_summary_and_all_its_turns() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    let mut long = String::new();
    for n in 0..45 {
        let mut line = |event| long += &of_turn("c1", &format!("long{n}"), event);
        for step in 0..if n == 44 { 60 } else { 1 } {
            let step = format!("{step}");
            let usage = json!({ "inputTokens": n, "outputTokens": 2 });
            line(json!({ "type": "usage", "stepId": step, "usage": usage }));
            line(json!({ "type": "step-complete", "stepId": step, "ttftMs": 5, "decodeMs": 10, "genTotalMs": 20 }));
        }
        line(json!({ "type": "done", "reason": "stop", "durationMs": 2000 }));
    }
    assert_eq!(client.post_events(&(events() + &long)).status, 200);
    let mut path = "/ui/conversations/c1/turns?tz=Asia%2FTokyo".to_owned();
    let html = page(&mut client, &path);
    let summary = api(&mut client, &path, &html, "summary");
    let shown = html::data(of_panel(&html, "summary"));
    let turns = summary["turns"].as_u64().unwrap();
    for figure in [
        &summary["cost"]["usd"],
        &summary["turns"],
        &summary["steps"],
        &summary["usage"]["inputTokens"],
        &summary["cacheRate"],
        &summary["contextSize"],
        &summary["outputTokensPerSecond"],
    ] {
        assert!(figure.is_null() || shown.contains(&value(figure)), "{figure} of {summary}: {shown:?}");
    }
    assert!(of_panel(&html, "turns").contains("20 further steps are left out here"));
    assert!(html.contains("All times are in the zone <strong>Asia/Tokyo</strong>"));
    for panel in ["tokens", "context"] {
        let panel = of_panel(&html, panel);
        let which = format!("Turns {} to {turns}.", turns - 19);
        assert!(without_tags(panel).contains(&which) && panel.contains(">turn</text>"), "{which}: {panel}");
    }
    assert!(of_panel(&html, "tokens").contains("Each step sends the whole context again"));
    assert!(of_panel(&html, "turns").contains("The newest turn is first."));
    assert!(of_panel(&html, "summary").contains("output tokens of all steps over their decode time"));
    let mut ordinals = Vec::new();
    loop {
        let html = page(&mut client, &path);
        let answer = api(&mut client, &path, &html, "turns");
        let panel = of_panel(&html, "turns");
        let shown: Vec<u64> = panel
            .split("<h3 id=\"turn-")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        let listed = answer["turns"].as_array().unwrap();
        assert!(
            shown.iter().rev().eq(listed
                .iter()
                .map(|turn| turn["ordinal"].as_u64().unwrap())
                .collect::<Vec<_>>()
                .iter()),
            "{path}"
        );
        assert_eq!(rows(of_panel(&html, "tokens")), of_each_turn(listed, token_kinds), "{path}");
        let context = |turn: &Value| vec![value(&turn["metrics"]["contextSize"])];
        assert_eq!(rows(of_panel(&html, "context")), of_each_turn(listed, context), "{path}");
        for turn in listed {
            let article = panel
                .split("<article ")
                .find(|article| article.contains(&format!("\"turn-{}\"", turn["ordinal"])))
                .unwrap();
            let data = html::data(article);
            for figure in [
                &turn["cost"]["usd"],
                &turn["metrics"]["usage"]["inputTokens"],
                &turn["metrics"]["usage"]["outputTokens"],
                &turn["metrics"]["durationMs"],
            ] {
                assert!(figure.is_null() || data.contains(&value(figure)), "{figure} of {turn}: {data:?}");
            }
            assert_has_the_steps(article, &turn["metrics"]);
        }
        ordinals.extend(shown);
        match html::link_named(&html, "Older turns") {
            Some(older) => path = resolve(&path, &older),
            None => break,
        }
    }
    assert!(ordinals.iter().copied().eq((1..=turns).rev()), "{ordinals:?}");
    assert!(html::link_named(&page(&mut client, &path), "Newer turns").is_some());
}

#[test]
fn the_latest_turns_are_those_of_the_list_of_all_turns_and_the_live_part_begins_behind_them() {
    let (_directory, server) = server();
    let mut client = server.client();
    let html = page(&mut client, "/");
    let answer = api(&mut client, "/", &html, "latest");
    let listed = answer["turns"].as_array().unwrap();
    assert_eq!(listed.len(), 12);
    let shown: Vec<_> =
        rows(of_panel(&html, "latest")).into_iter().map(|(name, cells)| (name, cells[0].clone())).collect();
    let is_plain = |turn: &&Value| turn["conversationId"] != EVIL;
    let expected = listed.iter().rev().filter(is_plain).map(|turn| {
        (turn["conversationId"].as_str().unwrap().to_owned(), value(&turn["metrics"]["usage"]["inputTokens"]))
    });
    assert!(expected.eq(shown.into_iter().filter(|(name, _)| !name.contains("script"))), "{answer}");
    let feed = format!("./feed?after={}", answer["next"].as_str().unwrap());
    assert_eq!(attributes(&html, "data-feed"), [feed]);
}

/// Returns the event that ends a turn.
fn done(id: &str, turn: &str) -> String {
    let usage = json!({ "inputTokens": 1000, "outputTokens": 1 });
    of_turn(id, turn, json!({ "type": "done", "reason": "stop", "usage": usage }))
}

/// Returns the names of the rows of the latest turns, the latest first.
fn latest(html: &str) -> Vec<String> {
    rows(of_panel(html, "latest")).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn the_latest_turns_are_found_behind_erased_ones() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    for (id, turns) in [("kept", 2), ("gone", 50), ("last", 1)] {
        let events: String = (0..turns).map(|n| done(id, &format!("t{n}"))).collect();
        assert_eq!(client.post_events(&events).status, 200);
    }
    let erase = |client: &mut Client, id: &str| {
        assert_eq!(client.send("DELETE", &format!("/conversations/{id}"), &[], b"").unwrap().status, 204);
    };
    erase(&mut client, "gone");
    let empty_time = "/?first=2001-01-01&last=2001-01-01";
    let html = page(&mut client, empty_time);
    assert_eq!(latest(&html), ["last", "kept", "kept"]);
    let answer = api(&mut client, empty_time, &html, "latest");
    assert_eq!(answer["turns"].as_array().unwrap().len(), 3, "{answer}");
    // An empty store is another matter than one whose turns are gone.
    erase(&mut client, "last");
    erase(&mut client, "kept");
    let html = page(&mut client, empty_time);
    assert!(html.contains("No turn ended in this time") && html.contains("are no longer stored"), "{html}");
}

#[test]
fn long_turns_are_among_the_latest_ones() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    // The record of such a turn is longer than what the store reads at once beside other work.
    for n in 0..14 {
        let mut events = String::new();
        for step in 0..300 {
            let usage = json!({ "inputTokens": 1000, "outputTokens": 1 });
            let step = format!("{step:0100}");
            events += &of_turn(&format!("c{n}"), "t", json!({ "type": "usage", "stepId": step, "usage": usage }));
        }
        assert_eq!(client.post_events(&(events + &done(&format!("c{n}"), "t"))).status, 200);
    }
    let html = page(&mut client, "/");
    let expected: Vec<_> = (2..14).rev().map(|n| format!("c{n}")).collect();
    assert_eq!(latest(&html), expected);
    let answer = api(&mut client, "/", &html, "latest");
    let feed = format!("./feed?after={}", answer["next"].as_str().unwrap());
    assert_eq!(attributes(&html, "data-feed"), [feed]);
}

#[test]
fn a_conversation_whose_turns_were_dropped_says_so_and_links_to_none_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    let dropped: String = (0..3).map(|n| done("part", &format!("old{n}")) + &done("all", &format!("old{n}"))).collect();
    assert_eq!(client.post_events(&dropped).status, 200);
    let whole = page(&mut client, "/ui/conversations/all/turns");
    assert!(of_panel(&whole, "turns").contains("Turn 1") && !whole.contains("<nav class=\"pages\""), "{whole}");
    server.kill();
    let server = Server::start_with(directory.path(), &[("RETENTION__TURNS", "1ms")]);
    let mut client = server.client();
    let is_dropped = |client: &mut Client| client.get("/turns").json()["turns"].as_array().unwrap().is_empty();
    until("all turns are dropped", || is_dropped(&mut client).then_some(()));
    let html = page(&mut client, "/ui/conversations/all/turns");
    assert!(without_tags(&html).contains("This conversation had 3 sealed turns."), "{html}");
    server.kill();
    // Without retention, later turns stay. The page of the earliest of them does not lead to dropped ones.
    let server = Server::start(directory.path());
    let mut client = server.client();
    let later: String = (0..30).map(|n| done("part", &format!("new{n}"))).collect();
    assert_eq!(client.post_events(&later).status, 200);
    let path = "/ui/conversations/part/turns";
    let older = html::link_named(&page(&mut client, path), "Older turns").unwrap();
    let html = page(&mut client, &resolve(path, &older));
    assert!(of_panel(&html, "turns").contains("Turn 4") && html.contains("Latest turns"), "{html}");
    assert_eq!(html::link_named(&html, "Older turns"), None);
}

#[test]
fn a_range_ends_with_a_quarter_of_an_hour_on_every_page() {
    let (_directory, server) = server();
    let mut client = server.client();
    for path in ["/?range=30d", "/ui/models?range=30d", "/ui/conversations?range=30d"] {
        let html = page(&mut client, path);
        let (_, period) = html.split_once("<p class=\"period\">").unwrap();
        let ends = attributes(period, "datetime")[..2].to_vec();
        for end in ends {
            let end: jiff::Timestamp = end.parse().unwrap();
            assert_eq!(end.as_millisecond() % (15 * 60 * 1000), 0, "{path}: {end}");
        }
    }
}

#[test]
fn an_empty_store_has_pages_that_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    assert!(page(&mut client, "/").contains("No turn was sealed yet"));
    assert!(page(&mut client, "/ui/conversations").contains("No conversation has a sealed turn yet."));
    assert!(page(&mut client, "/ui/models").contains("No turn ended in this time"));
    assert!(page(&mut client, "/ui/service").contains("Ready: a test write has just been stored safely on the disk."));
    // The first turn is open. Its conversation is not listed, but it has a page.
    let open = r#"{"type":"turn-start","conversationId":"new","turnId":"t","model":"m"}"#;
    assert_eq!(client.post_events(open).status, 200);
    let html = page(&mut client, "/ui/conversations/new/turns");
    assert!(html.contains("Open turns") && !html.contains("All stored turns"), "{html}");
    let done = r#"{"type":"done","conversationId":"new","turnId":"t","reason":"stop"}"#;
    assert_eq!(client.post_events(done).status, 200);
    assert!(page(&mut client, "/?first=2001-01-01&last=2001-01-02").contains("No turn ended in this time"));
    assert!(!page(&mut client, "/").contains("No turn"));
}

#[test]
fn a_failure_is_a_page_that_says_what_is_allowed() {
    let (_directory, server) = server();
    let mut client = server.client();
    for (path, status, text) in [
        ("/ui/conversations/unknown/turns", 404, "no turn of this conversation is sealed"),
        ("/ui/nowhere", 404, "there is nothing at this path"),
        ("/ui/", 404, "there is nothing at this path"),
        ("/ui", 404, "there is nothing at this path"),
        ("/ui/conversations/a%0Ab/turns", 400, "control character"),
        ("/ui/conversations/%FF/turns", 400, "not UTF-8"),
        ("/ui/conversations/c1/turns?before=1", 400, "`before` must be a whole number from 2"),
        ("/?range=1y", 400, "`range` must be one of today, yesterday, 7d, 30d, all"),
        ("/?range=all", 400, "`range` must be one of today, yesterday, 7d, 30d on this page"),
        ("/?first=2026-02-30", 400, "`first` must be a date such as 2026-01-31"),
        ("/?first=2026-02-02&last=2026-02-01", 400, "`last` must be a date that is not before `first`"),
        ("/?tz=Mars", 400, "`tz` must be the name of a time zone"),
        ("/?form=1", 400, "`form` is no query parameter here: there are range, first, last, tz"),
        ("/?%3Cscript%3E=1", 400, "`<script>` is no query parameter here"),
        ("/ui/conversations?order=size", 400, "`order` must be one of recent, tokens, cost, turns"),
        ("/ui/conversations?after=x", 400, "`after` must be the `next` of an earlier answer"),
    ] {
        let answer = client.get(path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_is_a_safe_page(path, &answer);
        assert!(without_tags(&answer.body).contains(text), "{path}: {}", answer.body);
    }
    // A failure keeps the time and the zone as far as they are valid, and lets the reader choose others.
    for (path, link, others) in [
        ("/?range=1y&tz=Asia%2FTokyo", "./ui/conversations?range=7d&tz=Asia%2FTokyo", 4),
        ("/ui/models?range=30d&tz=Mars", "../ui/conversations?range=30d", 4),
        (
            "/ui/conversations?first=2026-03-01&last=2026-03-02&order=size",
            "../ui/conversations?first=2026-03-01&last=2026-03-02",
            5,
        ),
        ("/ui/conversations/unknown/turns?tz=UTC", "../../../ui/conversations?tz=UTC", 0),
    ] {
        let html = client.get(path).body;
        assert_eq!(html::link_named(&html, "Conversations").as_deref(), Some(link), "{path}");
        let ranges = hrefs(&html).iter().filter(|href| href.starts_with("?range=")).count();
        assert_eq!((ranges, html.contains("Choose another time above")), (others, others > 0), "{path}");
    }
    // A path that only begins like those of the pages is none of them.
    let answer = client.get("/uix");
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")), "{answer:?}");
    // A file may be kept only at the address that changes with its content.
    for path in ["/ui/style.css", "/ui/style.css?v=0", "/ui/icon.svg", "/ui/live.js?v=0000000000000000"] {
        let answer = client.get(path);
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-cache")), "{path}");
    }
    // Other methods are refused as everywhere.
    let answer = client.send("POST", "/", &[], b"").unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    let head = client.send("HEAD", "/", &[], b"").unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/html; charset=utf-8")));
}
