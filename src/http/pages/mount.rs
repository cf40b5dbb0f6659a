//! Binds each page to its path.

use actix_web::HttpRequest;
use actix_web::web::{self, Data, ServiceConfig};

use super::files::File;
use super::{answer, conversation, conversations, files, models, overview, service};
use crate::http::access::{
    CONVERSATION_PAGE, CONVERSATIONS_PAGE, ICON, LIVE_SCRIPT, MODELS_PAGE, OVERVIEW_PAGE, SERVICE_PAGE, STYLE,
};
use crate::http::resources::api::Api;
use crate::http::resources::mount::{only, read};

/// Mounts the pages at the root of an application.
pub(crate) fn pages(api: &Api) -> impl FnOnce(&mut ServiceConfig) + use<> {
    let api = Data::new(api.clone());
    move |config| {
        config
            .app_data(api)
            .service(only(&OVERVIEW_PAGE, read(|route| route.to(overview::get))))
            .service(only(&CONVERSATIONS_PAGE, read(|route| route.to(conversations::get))))
            .service(only(&CONVERSATION_PAGE, read(|route| route.to(conversation::get))))
            .service(only(&MODELS_PAGE, read(|route| route.to(models::get))))
            .service(only(&SERVICE_PAGE, read(|route| route.to(service::get))))
            .service(only(&STYLE, file(&files::STYLE)))
            .service(only(&ICON, file(&files::ICON)))
            .service(only(&LIVE_SCRIPT, file(&files::SCRIPT)))
            .service(
                read(|route| route.to(answer::nothing))
                    .into_iter()
                    .fold(web::resource(["/ui", "/ui/{rest:.*}"]), actix_web::Resource::route),
            );
    }
}

/// Returns the handlers of a file.
fn file(file: &'static File) -> [actix_web::Route; 2] {
    read(|route| route.to(move |request: HttpRequest| async move { file.answer(&request) }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use actix_web::test::TestRequest;

    use super::*;
    use crate::http::resources::held_bytes::{FREE_BYTES, ReadBudget};
    use crate::http::stand_in::{Answer, StandIn, ask, get, sealed_turns};
    use crate::report::{PicoDollars, PriceBook, PriceEdition, PricedStep};
    use crate::settings::HttpSettings;
    use crate::store::{CommitError, DamageReport, Fault, FaultKind, RangeEnd};

    async fn page(api: &Api, path: &str) -> Answer {
        ask(api, TestRequest::get().uri(path)).await
    }

    fn body(answer: &Answer) -> &str {
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{answer:?}");
        answer.body.as_deref().unwrap()
    }

    #[actix_web::test]
    async fn a_store_that_cannot_be_read_is_told_on_each_page_without_the_cause() {
        for path in ["/", "/ui/models", "/ui/conversations", "/ui/conversations/c/turns"] {
            for reads in 0..2 {
                let api = StandIn { turns: sealed_turns(3), reads: Some(reads), ..StandIn::default() }.serving();
                let answer = page(&api, path).await;
                let asks_once = reads == 1 && ["/ui/models", "/ui/conversations"].contains(&path);
                assert_eq!(answer.status, if asks_once { 200 } else { 500 }, "{path} after {reads} reads");
                let is_told = body(&answer).contains("the store could not be read; the log says why.");
                assert_eq!(is_told, !asks_once, "{path}: {answer:?}");
            }
        }
    }

    #[actix_web::test]
    async fn a_page_waits_for_its_turn_and_is_refused_with_the_time_to_ask_again() {
        tokio::time::pause();
        let api = StandIn { turns: sealed_turns(3), ..StandIn::default() }.serving();
        let _inside = [api.reports.enter().await.unwrap(), api.reports.enter().await.unwrap()];
        let _reading = [api.summaries.enter().await.unwrap(), api.summaries.enter().await.unwrap()];
        for path in ["/", "/ui/models", "/ui/conversations?order=cost", "/ui/conversations/c/turns"] {
            let answer = page(&api, path).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{path}");
            assert!(body(&answer).contains("too many others ask for reports"), "{path}");
        }
        // The latest conversations are found by an index.
        assert_eq!(page(&api, "/ui/conversations").await.status, 200);
    }

    #[actix_web::test]
    async fn a_report_with_too_many_rows_is_told() {
        let api = StandIn { too_many_rows: true, ..StandIn::default() }.serving();
        for path in ["/", "/ui/models"] {
            let answer = page(&api, path).await;
            assert_eq!(answer.status, 400);
            assert!(body(&answer).contains("ask for a larger bucket or a shorter time"), "{path}");
        }
    }

    #[actix_web::test]
    async fn a_page_that_finds_no_memory_is_refused() {
        let api = StandIn { turns: sealed_turns(3), ..StandIn::default() }.serving();
        let api = Api { reads: ReadBudget::new(1), ..api };
        // A page with a row for each of many days is so long that it needs memory of the budget.
        let path = "/?first=2026-01-01&last=2026-04-05";
        assert_eq!(page(&api, path).await.status, 200);
        let _held = api.reads.try_hold(FREE_BYTES + 1).unwrap();
        let answer = page(&api, path).await;
        assert!(body(&answer).contains("too much of other answers is waiting"), "{answer:?}");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    }

    #[actix_web::test]
    async fn the_service_has_a_page_while_it_is_not_ready_and_while_it_hangs() {
        let ready = StandIn { check: Some(Ok(())), ..StandIn::default() }.serving();
        let html = page(&ready, "/ui/service").await;
        assert!(body(&html).contains("Ready: a test write has just been stored safely on the disk."), "{html:?}");
        assert!(
            body(&html).contains(r#"<dt>Warnings</dt><dd><data value="5" title="5 warnings">5</data></dd>"#),
            "{html:?}"
        );
        let failure = Fault::new(FaultKind::Disk, "the disk failed").caused_by("/my data/x: no space left");
        let failing = StandIn { check: Some(Err(CommitError::Unavailable(failure))), ..StandIn::default() }.serving();
        let html = page(&failing, "/ui/service").await;
        assert!(body(&html).contains("Not ready: the store is unavailable: the disk failed."), "{html:?}");
        assert!(!body(&html).contains("/my data"), "{html:?}");
        let hanging = StandIn::default().serving();
        tokio::time::pause();
        let html = tokio::time::timeout(Duration::from_mins(1), page(&hanging, "/ui/service")).await.unwrap();
        assert_eq!(html.status, 200);
        assert!(body(&html).contains("Not ready: a durable write takes more than 5 seconds."), "{html:?}");
        assert!(body(&html).contains("The parts of the service do not answer."), "{html:?}");
    }

    /// Prices with a name. They have no price for any model.
    #[derive(Debug)]
    struct Named;

    impl PriceBook for Named {
        fn price(&self, _: &PricedStep<'_>) -> Option<PicoDollars> {
            None
        }

        fn digest(&self) -> u64 {
            1
        }

        fn edition(&self) -> Option<PriceEdition> {
            Some(PriceEdition { table: "of a test".to_owned(), date: "2026-01-02".to_owned() })
        }
    }

    #[actix_web::test]
    async fn pages_say_by_which_prices_their_costs_are() {
        let texts = [
            [
                "price list: of a test, 2026-01-02, with past prices",
                "Price list: of a test, 2026-01-02. It has past prices too",
            ],
            ["by the prices before the last change", "The costs above are still those of earlier prices."],
            ["there are no published prices", "There are no published prices."],
        ];
        for (shown, is_repricing, has_prices) in
            [(0, false, true), (1, true, true), (1, true, false), (2, false, false)]
        {
            let api = StandIn { turns: sealed_turns(3), is_repricing, ..StandIn::default() }.serving();
            let api = if has_prices { api.with_prices(Arc::new(Named)) } else { api };
            for (nth, path) in ["/", "/ui/models"].into_iter().enumerate() {
                let answer = page(&api, &format!("{path}?first=1970-01-01&last=1970-01-02")).await;
                for (place, text) in texts.iter().enumerate() {
                    assert_eq!(body(&answer).contains(text[nth]), place == shown, "{path}: {}: {answer:?}", text[nth]);
                }
            }
        }
    }

    #[actix_web::test]
    async fn the_service_page_reports_damage_and_the_progress_of_the_scrub() {
        let damage = DamageReport { left_out_records: 3, findings: 2, scrub_passes: 1, scrubbed_rows: 9 };
        let sound = DamageReport { left_out_records: 0, findings: 0, ..damage };
        for (damage, is_shown) in [(damage, true), (sound, false)] {
            let api = StandIn { check: Some(Ok(())), damage, ..StandIn::default() }.serving();
            let answer = page(&api, "/ui/service").await;
            let html = body(&answer);
            assert!(html.contains("Ready: a test write has just been stored safely on the disk."), "{html}");
            assert_eq!(html.contains("turn-metrics check --repair"), is_shown, "{html}");
            for text in [r#"title="3 records""#, r#"title="2 findings""#] {
                assert_eq!(html.contains(text), is_shown, "{text}: {html}");
            }
            for text in [r#"title="1 passes""#, r#"title="9 rows""#] {
                assert!(html.contains(text), "the progress of the scrub is always shown: {text}: {html}");
            }
        }
    }

    #[actix_web::test]
    async fn the_service_page_says_what_its_numbers_are_in_words_of_a_newcomer() {
        let api = StandIn { check: Some(Ok(())), ..StandIn::default() }.serving();
        let answer = page(&api, "/ui/service").await;
        let html = body(&answer);
        for text in [
            "A commit writes changes of one conversation to the disk",
            "<dt>Rows of the tables</dt>",
            "what still waits is not in it",
            "<dt>Commits in doubt</dt>",
            "<dt>Outdated commits</dt>",
        ] {
            assert!(html.contains(text), "{text}: {html}");
        }
        for text in ["actor", "Conflicts", "Panics", "durable", "version than"] {
            assert!(!html.contains(text), "{text}: {html}");
        }
    }

    #[actix_web::test]
    async fn the_service_page_waits_for_all_parts_at_the_same_time() {
        let api = StandIn::default().serving();
        tokio::time::pause();
        let started = tokio::time::Instant::now();
        let answer = page(&api, "/ui/service").await;
        assert!(body(&answer).contains("Not ready: "), "{answer:?}");
        assert_eq!(started.elapsed().as_secs(), 5);
    }

    #[actix_web::test]
    async fn the_page_of_a_conversation_has_the_turns_that_the_api_lists_however_long_they_are() {
        let turns = sealed_turns(150);
        let bytes = get(
            &StandIn { turns: turns.clone(), ..StandIn::default() }.serving(),
            "/conversations/c/turns?cost=true&limit=1&after=149",
        )
        .await;
        let bytes = bytes.success().len() - r#"{"turns":[],"latestOrdinal":150}"#.len();
        for max_page_bytes in [1, 3 * bytes, usize::MAX] {
            let settings = HttpSettings { max_page_bytes, ..HttpSettings::default() };
            let (api, seen) = StandIn { turns: turns.clone(), ..StandIn::default() }.start_with(settings);
            for before in ["", "&before=100"] {
                seen.lock().unwrap().ranges.clear();
                let list = get(&api, &format!("/conversations/c/turns?order=latest&limit=20&cost=true{before}")).await;
                let listed = list.success().matches("\"ordinal\":").count();
                seen.lock().unwrap().ranges.clear();
                let answer = page(&api, &format!("/ui/conversations/c/turns?{before}")).await;
                assert_eq!(body(&answer).matches("<article ").count(), listed, "{max_page_bytes} bytes, {before}");
                // Only the first page reads the whole life.
                let whole = seen.lock().unwrap().ranges.iter().filter(|range| range.end == RangeEnd::Oldest).count();
                assert_eq!(
                    (whole > 0, body(&answer).contains("All stored turns")),
                    (before.is_empty(), before.is_empty())
                );
            }
        }
    }
}
