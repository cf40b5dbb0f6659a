//! The dashboard in a real browser. These tests need `chromium` and `chromedriver`.

mod driver;
mod sample;

use std::fs;
use std::path::Path;

use self::driver::Browser;
use crate::server::Server;

const CHECKS: &str = include_str!("browser/checks.js");

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

fn server() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[("REPORTS__TIME_ZONE", "Europe/Berlin")]);
    for events in sample::events().chunks(4000) {
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
                let open_all = "for (const part of document.querySelectorAll('details')) part.open = true; return [];";
                for opened in ["return [];", open_all] {
                    browser.run(opened);
                    let wrong = browser.run(CHECKS);
                    assert_eq!(wrong.as_array().map(Vec::len), Some(0), "{what}: {wrong:#}");
                }
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
    let wrong = browser.run(CHECKS);
    assert_eq!(wrong.as_array().map(Vec::len), Some(0), "{wrong:#}");
    let shown = browser.run("return document.querySelector('#spend-heading').textContent");
    assert_eq!(shown, "Spend per hour");
    assert_eq!(browser.console().len(), 0);
}

/// The pictures of the documents. With `UPDATE_SCREENSHOTS=1` this test writes them into `docs/`.
#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_documents_have_a_picture_of_each_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let (_directory, server) = server();
    let mut browser = Browser::start();
    let is_update = std::env::var_os("UPDATE_SCREENSHOTS").is_some();
    for (name, theme, width, height) in [
        ("overview", "light", 1280, 1180),
        ("overview", "dark", 1280, 1180),
        ("conversations", "light", 1280, 760),
        ("conversation", "light", 1280, 1180),
        ("models", "dark", 1280, 1000),
        ("overview", "light", 390, 844),
    ] {
        let (_, path) = pages().into_iter().find(|(page, _)| *page == name).unwrap();
        browser.show(width, height, theme);
        browser.open(&format!("{}{path}", server.url()));
        let picture = browser.screenshot();
        assert!(picture.starts_with(b"\x89PNG"), "{name}");
        let size = if width == 390 { "-phone" } else { "" };
        let file = folder.join(format!("dashboard-{name}-{theme}{size}.png"));
        if is_update {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, picture).unwrap();
        } else {
            // Fonts differ between machines, so the pictures are not compared.
            assert!(file.exists(), "write {} with UPDATE_SCREENSHOTS=1", file.display());
        }
    }
}
