//! The dashboard in a real browser. These tests need `chromium` and `chromedriver`.

mod driver;
mod sample;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use self::driver::Browser;
use crate::server::{Server, encode, turn_metrics};

/// Checks of our own: sizes, contrast with the ground that is seen, and tables of charts.
const CHECKS: &str = include_str!("browser/checks.js");

/// Runs the checker axe, with all its rules, in a page that has it.
const AXE: &str = "
    const done = arguments[arguments.length - 1];
    axe.run(document, { resultTypes: ['violations', 'incomplete'] }).then(
        (found) => done(found.violations.map((rule) => `${rule.id}: ${rule.help}: ${rule.nodes.map((node) => node.html).join(' ')}`)),
        (error) => done([String(error)]));
";

/// The keys that `WebDriver` names by characters of its own.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// The pages, with a name for each.
fn pages() -> [(&'static str, String); 9] {
    let time = format!("first={}&last={}&tz=Europe%2FBerlin", sample::FIRST_DAY, sample::LAST_DAY);
    let conversation = sample::LONGEST;
    [
        ("overview", format!("/?{time}")),
        ("conversations", "/ui/conversations?order=cost&tz=Europe%2FBerlin".to_owned()),
        ("conversation", format!("/ui/conversations/{conversation}/turns?tz=Europe%2FBerlin")),
        ("models", format!("/ui/models?{time}")),
        ("service", "/ui/service?tz=Europe%2FBerlin".to_owned()),
        ("nothing", "/?first=2001-01-01&last=2001-01-02".to_owned()),
        ("hours", format!("/?first={day}&last={day}&tz=Asia%2FKathmandu", day = sample::LAST_DAY)),
        ("failure", "/?range=1y".to_owned()),
        ("unknown", "/ui/conversations/unknown/turns".to_owned()),
    ]
}

/// Checks that the page of the browser has no mistakes that shut people out.
fn assert_sound(browser: &mut Browser, what: &str) {
    let wrong = browser.run(CHECKS);
    assert_eq!(wrong.as_array().map(Vec::len), Some(0), "{what}: {wrong:#}");
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/browser/axe/axe.min.js");
    browser.run(&fs::read_to_string(axe).unwrap());
    let wrong = browser.run_until_called(AXE);
    assert_eq!(wrong.as_array().map(Vec::len), Some(0), "{what}: {wrong:#}");
}

fn server() -> (tempfile::TempDir, Server) {
    server_with(&sample::events())
}

fn server_with(events: &[String]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[("REPORTS__TIME_ZONE", "Europe/Berlin")]);
    for events in events.chunks(4000) {
        assert_eq!(server.client().post_events(&events.join("")).status, 200);
    }
    (directory, server)
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn every_page_is_sound_in_both_themes_on_a_phone_and_on_a_wide_screen() {
    let (_directory, server) = server();
    let mut browser = Browser::start();
    let own = server.url();
    let mut style_requests = 0;
    for theme in ["light", "dark"] {
        for width in [390, 1440] {
            browser.show(width, 900, theme);
            for (name, path) in pages() {
                let what = format!("{name}, {theme}, {width} pixels");
                browser.open(&format!("{own}{path}"));
                assert_sound(&mut browser, &what);
                browser.run("for (const part of document.querySelectorAll('details')) part.open = true;");
                assert_sound(&mut browser, &format!("{what}, opened"));
                // The console has a message for each page that answers with a failure, and no other messages.
                let console = browser.console();
                let told = console.iter().filter(|entry| {
                    !entry["message"].as_str().unwrap().contains("the server responded with a status of 40")
                });
                assert_eq!(told.count(), 0, "{what}: {console:#?}");
                let requests = browser.requests();
                let is_style = |url: &String| url.starts_with(&format!("{own}/ui/style.css?v="));
                style_requests += requests.iter().filter(|url| is_style(url)).count();
                // The browser draws its own date picker with pictures in `data:` addresses.
                let elsewhere: Vec<_> =
                    requests.iter().filter(|url| !url.starts_with(&own) && !url.starts_with("data:")).collect();
                assert!(elsewhere.is_empty(), "{what}: {elsewhere:?}");
            }
        }
    }
    assert!(style_requests > 0, "the requests were not seen");
}

/// Returns the exact values of figures that the browser shows, each with the text of the element before it.
fn shown(browser: &mut Browser, script: &str) -> Vec<(String, String)> {
    serde_json::from_value(browser.run(script)).unwrap()
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_browser_shows_the_numbers_of_the_api() {
    let (_directory, server) = server();
    let mut browser = Browser::start();
    let mut client = server.client();
    let [(_, overview), _, _, (_, models), ..] = pages();
    // The address of the month, with the day after the last one as its end.
    let month = format!("/stats?from={}&to=2026-07-01&tz=Europe%2FBerlin", sample::FIRST_DAY);
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    browser.open(&format!("{}{overview}", server.url()));
    let tiles = shown(
        &mut browser,
        "return [...document.querySelectorAll('.tile')].map((tile) => [tile.querySelector('dt').textContent, tile.querySelector('data').value])",
    );
    let total = client.get(&format!("{month}&bucket=all")).json()["rows"][0].take();
    let tokens = ["inputTokens", "outputTokens"].map(|name| total["usage"][name].as_u64().unwrap());
    let expected = [
        ("Spend", text(&total["cost"]["usd"])),
        ("Saved by the cache", text(&total["cacheSavedUsd"])),
        ("Cache rate", text(&total["cacheRate"])),
        ("Tokens", tokens.iter().sum::<u64>().to_string()),
        ("Time to first token", text(&total["ttftMs"]["p50"])),
        ("Output speed", text(&total["outputTokensPerSecond"]["p50"])),
        ("Turns", text(&total["turns"])),
        ("Duration of turns", text(&total["durationMs"]["p50"])),
    ];
    assert_eq!(tiles, expected.map(|(name, value)| (name.to_owned(), value)));
    let days = shown(
        &mut browser,
        "return [...document.querySelectorAll('#spend-heading')].flatMap((head) => [...head.closest('section').querySelectorAll('tbody tr')])
            .map((row) => [row.cells[0].textContent.slice(-10), row.cells[1].querySelector('data').value])",
    );
    assert_eq!(days.len(), 30);
    let mut sum = 0;
    for (day, usd) in days {
        let answer = client.get(&format!("/stats?from={day}&to={day}T23:59:00%2B02:00&tz=Europe%2FBerlin")).json();
        let of_day = answer["rows"].get(0).map_or_else(|| "0.000000000000".to_owned(), |row| text(&row["cost"]["usd"]));
        assert_eq!(usd, of_day, "{day}");
        sum += usd.replace('.', "").parse::<u64>().unwrap();
    }
    assert_eq!(sum, total["cost"]["usd"].as_str().unwrap().replace('.', "").parse::<u64>().unwrap());
    browser.open(&format!("{}{models}", server.url()));
    let ttft = shown(
        &mut browser,
        "return [...document.querySelectorAll('#speed-heading')].flatMap((head) => [...head.closest('section').querySelectorAll('tbody tr')])
            .map((row) => [row.querySelector('.name').textContent, row.cells[1].querySelector('data').value])",
    );
    let by_model = client.get(&format!("{month}&bucket=all&by=model")).json();
    let rows = by_model["rows"].as_array().unwrap();
    assert_eq!(ttft.len(), rows.len());
    for (model, p50) in ttft {
        let row = rows.iter().find(|row| row["model"] == *model).unwrap();
        assert_eq!(p50, text(&row["ttftMs"]["p50"]), "{model}");
    }
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_keyboard_reaches_the_content_first_and_the_form_chooses_days() {
    let (_directory, server) = server();
    let mut browser = Browser::start();
    browser.show(1280, 900, "light");
    browser.open(&server.url());
    browser.press(&[TAB]);
    assert_eq!(browser.run("return document.activeElement.textContent"), "Skip to the content");
    assert_eq!(browser.run("return document.activeElement.getBoundingClientRect().top >= 0"), true);
    browser.press(&[ENTER]);
    assert_eq!(browser.run("return document.activeElement.id"), "main");
    browser.press(&[TAB]);
    assert_eq!(browser.run("return document.activeElement.textContent"), "Today");
    let day = sample::LAST_DAY;
    let fill = format!(
        "document.querySelector('.controls details').open = true;
         document.querySelector('[name=first]').value = '{day}';
         document.querySelector('[name=last]').value = '{day}';
         document.querySelector('[name=tz]').value = 'Asia/Tokyo';
         document.querySelector('.controls button').click();"
    );
    browser.run(&fill);
    let zone = "return document.querySelector('.period strong')?.textContent";
    crate::server::until("the page of the chosen day", || (browser.run(zone) == "Asia/Tokyo").then_some(()));
    assert_sound(&mut browser, "the page of a day");
    let shown = browser.run("return document.querySelector('#spend-heading').textContent");
    assert_eq!(shown, "Spend per hour");
    assert_eq!(browser.console().len(), 0);
}

/// Starts a server at the address of one that was killed.
fn server_at(directory: &Path, address: SocketAddr) -> Server {
    let mut command = turn_metrics();
    command.args(["serve", "--listen", &address.to_string(), "--data-dir"]).arg(directory);
    Server::launch(command.stderr(Stdio::piped()))
}

fn send(server: &Server, conversation: &str, turn: &str, mut event: serde_json::Value) {
    event["conversationId"] = conversation.into();
    event["turnId"] = turn.into();
    assert_eq!(server.client().post_events(&event.to_string()).status, 200);
}

fn done() -> serde_json::Value {
    serde_json::json!({ "type": "done", "reason": "stop", "usage": { "inputTokens": 1_234_567, "outputTokens": 8 } })
}

/// Waits until the part of the page has the texts that are expected, and nothing else.
fn await_texts(browser: &mut Browser, selector: &str, expected: &[&str]) {
    let script = format!("return [...document.querySelectorAll('{selector}')].map((one) => one.textContent)");
    crate::server::until(&format!("{selector} is {expected:?}"), || {
        let texts = browser.run(&script);
        let texts: Vec<_> = texts.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
        (texts == expected).then_some(())
    });
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_page_shows_what_happens_while_it_is_open_also_after_the_server_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let address = server.address;
    send(&server, "c", "before", done());
    let mut browser = Browser::start();
    browser.show(1280, 900, "light");
    browser.open(&server.url());
    await_texts(&mut browser, "#live-state", &["connected"]);
    await_texts(&mut browser, "#live-news", &["Nothing was sealed since this page was made."]);
    let evil = "<img src=x onerror=alert(1)>/\u{202e}%";
    send(&server, evil, "one", done());
    let ids = "#live-sealed a";
    let shown = r"<img src=x onerror=alert(1)>/\u{202e}%";
    await_texts(&mut browser, ids, &[shown]);
    let news = "1 turn was sealed since this page was made. Reload the page for the figures with them.";
    await_texts(&mut browser, "#live-news", &[news]);
    await_texts(&mut browser, "#live-spoken", &["1 turn was sealed."]);
    let text = browser.run("return document.querySelector('#live-sealed li').textContent");
    assert!(text.as_str().unwrap().ends_with("stop1,234,567 tokens in · 8 out"), "{text}");
    assert_sound(&mut browser, "the live turns");

    server.kill();
    await_texts(&mut browser, "#live-state", &["connecting again"]);
    // The page does not hear of this erasure.
    let unseen = Server::start(directory.path());
    erase(&unseen, "c");
    send(&unseen, "d", "two", done());
    unseen.kill();
    let server = server_at(directory.path(), address);
    await_texts(&mut browser, "#latest-turns tbody a", &["d", shown]);
    await_texts(&mut browser, "#live-state", &["connected"]);
    await_texts(&mut browser, "#live-news", &["Nothing was sealed since this page was made."]);
    let ids = "#live-sealed a";
    send(&server, evil, "three", done());
    await_texts(&mut browser, ids, &[shown]);
    // The links lead to the conversations.
    let link = browser.run("return document.querySelector('#live-sealed li:last-child a').href");
    browser.open(link.as_str().unwrap());
    await_texts(&mut browser, "h1", &[shown]);
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_page_of_a_conversation_shows_its_open_turns_until_they_are_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let start = || serde_json::json!({ "type": "turn-start", "model": "m" });
    send(&server, "c/1", "sealed", done());
    send(&server, "c/1", "first", start());
    let mut browser = Browser::start();
    browser.show(390, 900, "dark");
    browser.open(&format!("{}/ui/conversations/c%2F1/turns", server.url()));
    await_texts(&mut browser, "#live-open li", &["openfirstm0 tokens in · 0 out · 0 steps"]);
    // The list that the page was made with would now show an older state.
    assert_eq!(browser.run("return document.querySelector('#open-turns').closest('section').hidden"), true);
    let usage = serde_json::json!({ "inputTokens": 4321, "outputTokens": 7 });
    send(&server, "c/1", "first", serde_json::json!({ "type": "usage", "stepId": "s", "usage": usage }));
    await_texts(&mut browser, "#live-open li", &["openfirstm4,321 tokens in · 7 out · 1 step"]);
    assert_sound(&mut browser, "the open turns");
    send(&server, "other", "t", done());
    send(&server, "c/1", "first", serde_json::json!({ "type": "done", "reason": "error" }));
    await_texts(&mut browser, "#live-open li", &[]);
    await_texts(&mut browser, "#live-sealed .badge", &["error"]);
    let news = "1 turn was sealed since this page was made. Reload the page for the figures with them.";
    await_texts(&mut browser, "#live-news", &[news]);
    browser.run("document.querySelector('#live-news a').click()");
    await_texts(&mut browser, ".turns h3", &["Turn 2", "Turn 1"]);
}

fn erase(server: &Server, conversation: &str) {
    let path = format!("/conversations/{}", encode(conversation));
    assert_eq!(server.client().send("DELETE", &path, &[], b"").unwrap().status, 204);
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_overview_drops_the_turns_of_an_erased_conversation_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let gone = "gone/(1)";
    send(&server, gone, "before", done());
    send(&server, "kept", "before", done());
    let mut browser = Browser::start();
    browser.show(1280, 900, "light");
    browser.open(&server.url());
    await_texts(&mut browser, "#live-state", &["connected"]);
    send(&server, gone, "after", done());
    send(&server, "kept", "after", done());
    await_texts(&mut browser, "#live-sealed a", &["kept", gone]);
    await_texts(&mut browser, "#latest-turns tbody a", &["kept", gone]);
    erase(&server, gone);
    await_texts(&mut browser, "#live-sealed a", &["kept"]);
    await_texts(&mut browser, "#latest-turns tbody a", &["kept"]);
    send(&server, "new", "t", done());
    await_texts(&mut browser, "#live-sealed a", &["new", "kept"]);
    let news = "3 turns were sealed and 1 conversation was erased since this page was made. Reload the page for the figures with them.";
    await_texts(&mut browser, "#live-news", &[news]);
    await_texts(&mut browser, "#live-state", &["connected"]);
    assert_sound(&mut browser, "the turns that are left");
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_page_of_an_erased_conversation_says_that_it_is_out_of_date() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    send(&server, "c", "t", done());
    let mut browser = Browser::start();
    browser.open(&format!("{}/ui/conversations/c/turns", server.url()));
    await_texts(&mut browser, "#live-state", &["connected"]);
    send(&server, "c", "later", done());
    await_texts(&mut browser, "#live-sealed .badge", &["stop"]);
    erase(&server, "c");
    let news = "This page is out of date: the conversation was erased. Reload the page.";
    await_texts(&mut browser, "#live-news", &[news]);
    await_texts(&mut browser, "#live-state", &["stopped"]);
    await_texts(&mut browser, "#live-sealed li", &[]);
}

/// Sets whether the page counts as hidden, as it does while the user looks at another tab.
fn set_hidden(browser: &mut Browser, is_hidden: bool) {
    browser.run(&format!(
        "Object.defineProperty(document, 'hidden', {{ value: {is_hidden}, configurable: true }});
         document.dispatchEvent(new Event('visibilitychange'));"
    ));
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_page_that_was_out_of_sight_shows_nothing_that_was_erased_meanwhile_also_when_it_is_gone_back_to() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    send(&server, "gone", "t", done());
    send(&server, "kept", "t", done());
    let mut browser = Browser::start();
    browser.open(&server.url());
    await_texts(&mut browser, "#live-state", &["connected"]);
    await_texts(&mut browser, "#latest-turns tbody a", &["kept", "gone"]);
    set_hidden(&mut browser, true);
    erase(&server, "gone");
    set_hidden(&mut browser, false);
    await_texts(&mut browser, "#latest-turns tbody a", &["kept"]);
    browser.open(&format!("{}/ui/conversations/kept/turns", server.url()));
    await_texts(&mut browser, "h3", &["Turn 1"]);
    browser.open(&format!("{}/health", server.url()));
    erase(&server, "kept");
    browser.run("history.back()");
    await_texts(&mut browser, "h1", &["Not found"]);
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_screen_reader_is_told_the_news_now_and_then_and_the_state_of_the_connection() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut browser = Browser::start();
    browser.show(1280, 900, "light");
    browser.open(&server.url());
    await_texts(&mut browser, "#live-state[role=status]", &["connected"]);
    // The time until the next announcement passes when the test says so.
    browser.run("window.timers = []; window.setTimeout = (timer) => timers.push(timer);");
    send(&server, "c", "one", done());
    await_texts(&mut browser, "#live-spoken[role=status]", &["1 turn was sealed."]);
    send(&server, "c", "two", done());
    send(&server, "c", "three", done());
    let news = "3 turns were sealed since this page was made. Reload the page for the figures with them.";
    await_texts(&mut browser, "#live-news:not([aria-live])", &[news]);
    await_texts(&mut browser, "#live-spoken", &["1 turn was sealed."]);
    browser.run("timers.splice(0).forEach((timer) => timer());");
    await_texts(&mut browser, "#live-spoken", &["3 turns were sealed."]);
    // A stream that has not answered yet.
    browser.run(
        "window.EventSource = class { close() {} addEventListener() {} };
         document.dispatchEvent(new Event('visibilitychange'));",
    );
    await_texts(&mut browser, "#live-state", &["connecting"]);
}

/// Counts how often the list of sealed turns changes, and holds the frames of the page back until they are released.
const HOLD_FRAMES: &str = "
    const list = document.querySelector('#live-sealed'), frames = [];
    window.drawn = window.heard = 0;
    new MutationObserver(() => { window.drawn += 1; }).observe(list, { childList: true });
    window.release = () => frames.splice(0).forEach((draw) => draw());
    // What the page has to draw already is drawn first.
    return new Promise((resolve) => requestAnimationFrame(() => {
        window.requestAnimationFrame = (draw) => frames.push(draw);
        const feed = new EventSource('feed');
        feed.addEventListener('turn-sealed', () => { window.heard += 1; });
        feed.onopen = () => resolve(true);
    }));
";

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_page_draws_once_a_frame_however_many_turns_are_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut browser = Browser::start();
    browser.show(1280, 900, "light");
    browser.open(&server.url());
    await_texts(&mut browser, "#live-state", &["connected"]);
    browser.run(HOLD_FRAMES);
    for n in 0..30 {
        send(&server, &format!("c{n}"), "t", done());
    }
    send(&server, "last", "t", done());
    crate::server::until("all turns", || (browser.run("return window.heard") == 31).then_some(()));
    assert_eq!(browser.run("return window.drawn"), 0);
    crate::server::until("the latest turns", || {
        browser.run("window.release()");
        let shown =
            browser.run("return [...document.querySelectorAll('#live-sealed a')].map((link) => link.textContent)");
        let shown = shown.as_array().unwrap();
        (shown.len() == 12 && shown[0] == "last").then_some(())
    });
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_page_never_shows_one_history_and_follows_another_one() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(one.path());
    let address = server.address;
    let mut browser = Browser::start();
    browser.open(&server.url());
    await_texts(&mut browser, "#live-state", &["connected"]);
    send(&server, "of the first history", "t", done());
    await_texts(&mut browser, "#live-sealed a", &["of the first history"]);
    let page = browser.run("return fetch('/').then((page) => page.text())");
    server.kill();
    let server = server_at(other.path(), address);
    // It connects again, and is made anew.
    await_texts(&mut browser, "#live-sealed a", &[]);
    await_texts(&mut browser, "#live-state", &["connected"]);

    // A page of the first history that connects for the first time when there is another one.
    browser.run(&format!("document.open(); document.write({page}); document.close()"));
    let news = "This page is out of date: the service has another history now. Reload the page.";
    await_texts(&mut browser, "#live-news", &[news]);
    send(&server, "of the other history", "t", done());
    browser.run("document.querySelector('#live-news a').click()");
    await_texts(&mut browser, "#latest-heading", &["Latest turns"]);
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_focus_is_visible_wherever_the_keyboard_leads() {
    let (_directory, server) = server();
    let mut browser = Browser::start();
    for theme in ["light", "dark"] {
        browser.show(1280, 900, theme);
        for (name, path) in pages() {
            browser.open(&format!("{}{path}", server.url()));
            for _ in 0..12 {
                browser.press(&[TAB]);
                let focus = browser.run(
                    "const at = document.activeElement, style = getComputedStyle(at);
                     return [at.tagName, style.outlineStyle, style.outlineWidth];",
                );
                let is_visible = focus[0] == "BODY" || focus[1] == "solid" && focus[2] == "3px";
                assert!(is_visible, "{name}, {theme}: {focus}");
            }
        }
    }
}

/// The pictures of the documents. With `UPDATE_SCREENSHOTS=1` this test writes them into `docs/`.
#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_documents_have_a_picture_of_each_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    // The month ends with yesterday, so that the pictures show what the links above a page choose.
    let today = jiff::Timestamp::now().in_tz("Europe/Berlin").unwrap().start_of_day().unwrap();
    let today = u64::try_from(today.timestamp().as_millisecond()).unwrap();
    let (_directory, server) = server_with(&sample::events_from(today - 30 * sample::DAY));
    let mut browser = Browser::start();
    let is_update = std::env::var_os("UPDATE_SCREENSHOTS").is_some();
    let conversation = format!("/ui/conversations/{}/turns", sample::LONGEST);
    for (name, path, theme, width, height) in [
        ("overview-light", "/?range=30d", "light", 1280, 1180),
        ("overview-dark", "/?range=30d", "dark", 1280, 1180),
        ("overview-light-phone", "/?range=30d", "light", 390, 844),
        ("yesterday-light", "/?range=yesterday", "light", 1280, 1180),
        ("conversations-light", "/ui/conversations?range=30d&order=cost", "light", 1280, 760),
        ("conversation-light", &conversation, "light", 1280, 1180),
        ("models-dark", "/ui/models?range=30d", "dark", 1280, 1180),
        ("service-light", "/ui/service", "light", 1280, 900),
    ] {
        browser.show(width, height, theme);
        browser.open(&format!("{}{path}", server.url()));
        let picture = browser.screenshot();
        assert!(picture.starts_with(b"\x89PNG"), "{name}");
        let file = folder.join(format!("dashboard-{name}.png"));
        if is_update {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, picture).unwrap();
        } else {
            // Fonts and days differ, so the pictures are not compared.
            assert!(file.exists(), "write {} with UPDATE_SCREENSHOTS=1", file.display());
        }
    }
}
