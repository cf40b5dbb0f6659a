//! `GET /export`

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::api::Api;
use super::held_bytes::{FREE_BYTES, HeldBytes};
use super::pieces::Pieces;
use super::query::Query;
use super::sealed_list::{AFTER, SealedList, after};
use crate::http::error::ApiError;

const PARAMETERS: &[&str] = &[AFTER];

/// Returns all sealed turns, one a line, in the order in which they became durable. The last line has the position of
/// the last turn, so that an incomplete answer can be recognised. Without `after`, the first lines have the sums of erased
/// and dropped turns.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = Query::read(request.query_string(), PARAMETERS)?;
    let mut list = SealedList::lines(api, after(&query)?).await?;
    let beginning = list.begin(Vec::new(), HeldBytes::default(), FREE_BYTES).await?;
    Ok(list.answer(beginning, request.method(), HttpResponse::Ok()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;
    use uuid::Uuid;

    use super::super::sealed_list::TURNS_READ_AT_ONCE;
    use super::*;
    use crate::http::stand_in::{StandIn, get, post, sealed_turns};
    use crate::report::{BreakdownRow, Quarter, RollupLabel};
    use crate::runtime::Runtime;
    use crate::settings::HttpSettings;
    use crate::store::{ErasedSums, ErasedSumsId, Lineage};

    #[actix_web::test]
    async fn each_line_is_an_entry_of_the_list_and_the_last_one_has_the_end() {
        let piece = TURNS_READ_AT_ONCE as u64;
        for count in [0, 1, piece - 1, piece, piece + 1, 1000] {
            let api = StandIn { turns: sealed_turns(count), ..StandIn::default() }.serving();
            let answer = get(&api, "/export").await;
            let page = get(&api, "/turns?limit=1000").await;
            let page: Value = serde_json::from_str(page.success()).unwrap();
            let lines = answer.success().strip_suffix('\n').unwrap().split('\n');
            let mut lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines.pop().unwrap()["end"], page["next"], "{count} turns");
            assert_eq!(lines, *page["turns"].as_array().unwrap(), "{count} turns");
            assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        }
    }

    /// Sums of erased turns, each with another label.
    fn erased_sums(count: u64) -> Vec<ErasedSums> {
        let sums = |label| {
            let id = ErasedSumsId { lineage: Lineage(Uuid::from_u128(7)), quarter: Quarter::new(9), label };
            ErasedSums { id, label: RollupLabel::default(), sums: BreakdownRow::default() }
        };
        (0..count).map(sums).collect()
    }

    #[actix_web::test]
    async fn the_sums_of_erased_turns_come_before_the_turns_and_not_in_an_export_that_goes_on() {
        let piece = TURNS_READ_AT_ONCE as u64;
        for count in [1, piece, piece + 1, 1000] {
            let sums = erased_sums(count);
            let api = StandIn { turns: sealed_turns(70), erased_sums: sums.clone(), ..StandIn::default() }.serving();
            let answer = get(&api, "/export").await;
            let lines: Vec<_> = answer.success().lines().collect();
            assert_eq!(lines.len() as u64, count + 70 + 1);
            let found: Vec<_> = lines.iter().map_while(|line| ErasedSums::read_line(line.as_bytes()).ok()).collect();
            assert_eq!(found, sums);
            assert!(lines[found.len()].starts_with(r#"{"position":"#), "{}", lines[found.len()]);
            let after = "00000000000000000000000000000007-0000000000000000";
            let later = get(&api, &format!("/export?after={after}")).await;
            assert_eq!(later.success().lines().collect::<Vec<_>>(), lines[found.len()..]);
        }
    }

    #[actix_web::test]
    async fn nothing_is_dropped_until_the_export_was_sent() {
        let exports = Arc::new(());
        let system = StandIn { turns: sealed_turns(1000), exports: Arc::clone(&exports), ..StandIn::default() };
        let api = system.serving();
        let is_held = || Arc::strong_count(&exports) > 2;
        assert!(!is_held());
        let list = SealedList::lines(Data::new(api.clone()), None).await.unwrap();
        assert!(is_held());
        drop(list);
        assert!(!is_held());
        get(&api, "/export").await.success();
        assert!(!is_held());
        get(&api, "/export?after=00000000000000000000000000000007-0000000000000000").await.success();
        assert!(!is_held());
    }

    #[actix_web::test]
    async fn the_end_says_how_many_damaged_turns_are_left_out() {
        let count = TURNS_READ_AT_ONCE as u64 * 2 + 1;
        let api = StandIn { turns: sealed_turns(count), left_out: 2, ..StandIn::default() }.serving();
        let answer = get(&api, "/export").await;
        let end: Value = serde_json::from_str(answer.success().lines().last().unwrap()).unwrap();
        // Each of three pages leaves two turns out.
        assert_eq!((end["end"].is_string(), end["leftOut"].as_u64()), (true, Some(6)));
    }

    #[actix_web::test]
    async fn an_export_goes_on_after_the_end_of_an_earlier_one() {
        let runtime = Runtime::builder().start().await.unwrap();
        let api = Api::new(runtime.handles().clone(), HttpSettings::default());
        let mut after = String::new();
        for n in 0..3 {
            let done = format!(r#"{{"type":"done","conversationId":"c{n}","turnId":"t","reason":"stop"}}"#);
            post(&api, done).await.success();
            let export = get(&api, &format!("/export{after}")).await;
            let (line, end) = export.success().split_once('\n').unwrap();
            assert!(line.contains(&format!(r#""conversationId":"c{n}""#)), "{line}");
            let end: Value = serde_json::from_str(end).unwrap();
            after = format!("?after={}", end["end"].as_str().unwrap());
        }
        let nothing = get(&api, &format!("/export{after}")).await;
        assert_eq!(nothing.success().lines().count(), 1, "{}", nothing.success());
        runtime.shutdown().await;
    }

    #[actix_web::test]
    async fn what_cannot_be_exported_is_told_and_an_export_that_fails_has_no_end() {
        let api = StandIn::default().serving();
        let message = get(&api, "/export?limit=1").await.failure(400);
        assert_eq!(message, "`limit` is no query parameter here: there are after");
        assert!(get(&api, "/export?after=x").await.failure(400).contains("`after` must be a position"));
        let other = "00000000000000000000000000000008-0000000000000000";
        get(&api, &format!("/export?after={other}")).await.failure(410);
        let failing = |reads| StandIn { turns: sealed_turns(1000), reads: Some(reads), ..StandIn::default() }.serving();
        get(&failing(0), "/export").await.failure(500);
        let answer = get(&failing(15), "/export").await;
        assert_eq!((answer.status, answer.body), (200, None));
    }
}
