use std::future::ready;
use std::sync::Arc;

use actix::Actor;
use actix_web::error::PayloadError;
use actix_web::test::TestRequest;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::*;
use crate::actors::{Directory, ImportError, ImportFailure};
use crate::http::intake::inflate::gzip;
use crate::http::stand_in::{Answer, Log, NDJSON, StandIn, ask, get, post_stream};
use crate::settings::{HttpSettings, TurnSettings};
use crate::store::{CommitError, CommitSeries, CommittedSeries, Fault, FaultKind};
use crate::testing::{MemoryStore, Probe, TestClock};
use crate::turn::{
    Done, EpochMillis, Label, Millis, OpenTurn, Ordinal, Progress, StepId, StepTimes, TokenCount, TurnId, Usage,
};

const END: &str = r#"{"end":"00000000000000000000000000000007-0000000000000009"}"#;

/// A service over a store in memory.
struct Service {
    store: MemoryStore,
    api: Api,
}

impl Service {
    fn start() -> Self {
        Self::with(HttpSettings::default(), |_, _| None)
    }

    /// The function `fail` decides which series of commits fail, by their numbers from 0.
    fn with(
        settings: HttpSettings,
        fail: impl Fn(usize, &CommitSeries) -> Option<CommitError> + Unpin + 'static,
    ) -> Self {
        let (store, mut count) = (MemoryStore::default(), 0);
        let kept = store.clone();
        let series = Probe::<Arc<CommitSeries>>::start(move |series| {
            count += 1;
            let failed = fail(count - 1, &series).map(CommittedSeries::from);
            ready(failed.unwrap_or_else(|| kept.commit_series(&series)))
        });
        let directory = Directory::new(store.recipients(), Arc::new(TestClock::at(5)), TurnSettings::default());
        let directory = directory.importing(series.recipient()).start();
        let mut api = StandIn::default().start_with(settings).0.with_clock(Arc::new(TestClock::at(77)));
        api.handles.intake.import = directory.clone().recipient();
        api.handles.intake.observe = directory.recipient();
        api.handles.reads.list_sealed = store.sealed_lists().recipient();
        Self { store, api }
    }

    async fn import(&self, body: impl Into<Bytes>) -> Answer {
        import(&self.api, body).await
    }

    /// Returns the lines of an export without their positions.
    async fn export(&self) -> Vec<Value> {
        let export = get(&self.api, "/export").await;
        let mut lines: Vec<Value> = export.success().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.pop().unwrap()["end"].is_string());
        for line in &mut lines {
            line.as_object_mut().unwrap().remove("position");
        }
        lines
    }
}

fn head() -> TestRequest {
    TestRequest::post().uri("/import").insert_header(NDJSON)
}

async fn import(api: &Api, body: impl Into<Bytes>) -> Answer {
    ask(api, head().set_payload(body)).await
}

fn body_of(answer: &Answer) -> Value {
    serde_json::from_str(answer.body.as_deref().unwrap()).unwrap()
}

/// Returns a line of an export.
fn exported(conversation: &str, ordinal: u64) -> String {
    let sealed_at = 1_000_000 - ordinal;
    format!(
        r#"{{"position":"x","conversationId":"{conversation}","ordinal":{ordinal},"sealedAt":{sealed_at},"reason":"stop","metrics":{{"turnId":"t{ordinal}","usage":{{"inputTokens":1,"outputTokens":2}},"steps":[]}}}}"#
    )
}

/// Returns the lines of turns of a conversation, from one ordinal to another.
fn lines(conversation: &str, ordinals: std::ops::RangeInclusive<u64>) -> String {
    ordinals.map(|ordinal| exported(conversation, ordinal) + "\n").collect()
}

fn fault() -> Fault {
    Fault::new(FaultKind::Disk, "the disk failed").caused_by("cannot write /var/lib/secret")
}

#[actix_web::test]
async fn an_export_is_imported_into_an_empty_store_and_exported_again_as_it_was() {
    // Both conversations have lost their first turns. Their turns take turns.
    let text = lines("a", 3..=5) + &lines("b", 9..=1400) + &lines("a", 6..=7);
    let text =
        text + &(8..=57).map(|at| exported("a", at) + "\n" + &exported("b", 1393 + at) + "\n").collect::<String>();
    let first = Service::start();
    let answer = first.import(text.clone() + END).await;
    let end = "00000000000000000000000000000007-0000000000000009";
    assert_eq!(body_of(&answer), json!({"imported": 1497, "duplicates": 0, "erasedSums": 0, "end": end}), "{answer:?}");
    let expected = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("position");
        line
    });
    let exported = first.export().await;
    assert_eq!(exported, expected.collect::<Vec<_>>());

    let second = Service::start();
    let export = get(&first.api, "/export").await;
    let answer = body_of(&second.import(export.success().to_owned()).await);
    assert_eq!((&answer["imported"], answer["end"].is_string()), (&json!(1497), true));
    assert_eq!(second.export().await, exported);

    let again = body_of(&second.import(export.success().to_owned()).await);
    assert_eq!((&again["imported"], &again["duplicates"]), (&json!(0), &json!(1497)));
}

#[actix_web::test]
async fn metrics_without_an_envelope_are_sealed_now_and_need_no_end() {
    let service = Service::start();
    let line = |conversation: &str, turn: &str| {
        format!(
            r#"{{"turnId":"{turn}","usage":{{"inputTokens":5,"outputTokens":6}},"steps":[],"contextSize":0,"conversationId":"{conversation}","model":"m"}}"#
        )
    };
    let body = [line("c", "t1"), line("d", "t1"), line("c", "t2")].join("\r\n");
    let answer = service.import(body).await;
    assert_eq!(answer.success(), r#"{"imported":3,"duplicates":0,"erasedSums":0,"end":null}"#);
    let turns = service.store.all_turns("c");
    assert_eq!(turns.iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((turns[0].sealed_at.get(), turns[0].reason.as_str()), (77, "imported"));
    assert_eq!(turns[0].metrics.context_size, None);
}

#[actix_web::test]
async fn an_export_that_left_damaged_turns_out_is_told_although_it_has_an_end() {
    let service = Service::start();
    let with_gaps = END.replace('}', ",\"leftOut\":7}");
    let answer = body_of(&service.import([&exported("a", 1), &*with_gaps, &exported("a", 2), END].join("\n")).await);
    assert_eq!(
        (&answer["imported"], answer["end"].is_string(), &answer["incomplete"], &answer["leftOut"]),
        (&json!(2), true, &json!(true), &json!(7))
    );
}

#[actix_web::test]
async fn a_missing_end_is_told() {
    let service = Service::start();
    let missing = r#"{"imported":1,"duplicates":0,"erasedSums":0,"end":null,"incomplete":true}"#;
    assert_eq!(service.import(exported("a", 1)).await.success(), missing);
    // Of two exports one after the other, each needs its end.
    let both = [&exported("b", 1), END, &exported("b", 2)].join("\n");
    assert_eq!(body_of(&service.import(both.clone()).await)["incomplete"], true);
    let both = body_of(&service.import(both + "\n" + END + "\n\n").await);
    assert!(both["end"].is_string() && both["incomplete"].is_null(), "{both}");
    assert_eq!(service.import("").await.success(), r#"{"imported":0,"duplicates":0,"erasedSums":0,"end":null}"#);
}

#[actix_web::test]
async fn a_bad_line_ends_the_import_and_what_precedes_it_is_imported() {
    for (bad, message) in [
        ("garbage", "line 4: a turn must be a JSON object"),
        (r#"{"conversationId":"a"}"#, "line 4: `turnId` is missing"),
        (r#"{"type":"done","conversationId":"a"}"#, "line 4: this is an event of the type `done`"),
        (r#"{"end":"x"}"#, "line 4: `end` must be a position"),
        (&exported("a", 0), "line 4: `ordinal` must be a whole number from 1 to"),
        (&format!("{}{}", exported("a", 3), exported("a", 4)), "line 4: another object follows the turn"),
    ] {
        let service = Service::start();
        let body = lines("a", 7..=8) + "\n" + bad + "\n" + &lines("a", 9..=9) + END;
        let answer = service.import(body).await;
        let told = answer.failure(400);
        assert!(told.starts_with(message), "{told}");
        let answer = body_of(&answer);
        assert_eq!((&answer["line"], &answer["imported"], &answer["duplicates"]), (&json!(4), &json!(2), &json!(0)));
        assert_eq!(service.store.all_turns("a").iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>(), [7, 8]);
    }
}

#[actix_web::test]
async fn a_line_that_is_too_long_is_bad_wherever_it_ends() {
    let settings = HttpSettings { max_line_bytes: 1024, ..HttpSettings::default() };
    let service = Service::with(settings, |_, _| None);
    for long in [" ".repeat(100_000), "x".repeat(6145), format!("{}\n", "x".repeat(6145))] {
        let answer = service.import(lines("a", 1..=2) + &long).await;
        let message = "line 3: a line must have at most 6144 bytes (6 times `http.max_line_bytes`)";
        assert_eq!(answer.failure(400), message);
    }
    assert_eq!(service.store.all_turns("a").len(), 2);
}

#[actix_web::test]
async fn a_turn_that_has_as_many_bytes_as_an_open_turn_may_have_is_exported_and_imported() {
    let limits = TurnSettings::default();
    let millis = Millis::new(123_456.789_012_345_67).unwrap();
    let count = TokenCount::MAX;
    let usage = Usage {
        input_tokens: count,
        output_tokens: count,
        cache_read_tokens: Some(count),
        cache_write_tokens: Some(count),
    };
    let mut turn = OpenTurn::new(TurnId::new("t").unwrap());
    for nth in 0..limits.max_steps {
        let step_id = StepId::new(format!("{nth:04}{}", "\"".repeat(252))).unwrap();
        // JSON makes six bytes of a control character, which a label may have, and two of a quote.
        let label = Label::from(format!("{nth:04}{}", "\u{1}".repeat(252)).as_str());
        let (model, provider) = (Some(label.clone()), Some(label));
        let times = StepTimes { ttft: Some(millis), decode: Some(millis), gen_total: Some(millis) };
        turn.fold(&Progress::Usage { step_id: Some(step_id.clone()), report: usage.into(), is_final: true });
        turn.fold(&Progress::StepComplete { step_id, times, model, provider });
        // A further step would be as large as this one.
        if turn.bytes() + 512 + 256 + 2 * Label::MAX_BYTES > limits.max_turn_bytes {
            break;
        }
    }
    let steps = turn.steps.len();
    let turns = vec![turn.seal(&Done::because("stop"), EpochMillis::new(1)).at(Ordinal::new(1).unwrap())];
    let api = StandIn { turns, ..StandIn::default() }.serving();
    let exported = get(&api, "/export").await;
    let exported = exported.success();
    assert!(exported.len() > HttpSettings::default().max_line_bytes, "{} bytes", exported.len());

    let service = Service::start();
    assert_eq!(body_of(&service.import(exported.to_owned()).await)["imported"], 1);
    let imported = service.export().await;
    assert_eq!(imported.len(), 1);
    assert_eq!(imported[0]["metrics"]["steps"].as_array().unwrap().len(), steps);
}

#[actix_web::test]
async fn a_body_has_the_forms_that_events_have() {
    let service = Service::start();
    let whole = exported("a", 1).replace(',', ",\n ");
    let as_json = |body: String| {
        let request = TestRequest::post().uri("/import").insert_header(("content-type", "application/json"));
        ask(&service.api, request.set_payload(body))
    };
    assert_eq!(body_of(&as_json(whole.clone()).await)["imported"], 1);
    let bad = as_json(whole.replace("\"inputTokens\":1", "\"inputTokens\":-1")).await;
    assert!(bad.failure(400).contains("`metrics.usage.inputTokens` must be"), "{bad:?}");
    assert_eq!(body_of(&bad)["line"], 7, "the line within the object");
    assert!(as_json(String::new()).await.failure(400).contains("the body is empty"));
    let message = ask(&service.api, TestRequest::post().uri("/import").set_payload("x")).await.failure(415);
    assert!(message.contains("`application/x-ndjson` for one turn a line"), "{message}");
    assert!(ask(&service.api, head().uri("/import?x=1")).await.failure(400).contains("`x`"));

    let compressed =
        |body: Vec<u8>| ask(&service.api, head().insert_header(("content-encoding", "gzip")).set_payload(body));
    let members = [gzip(lines("g", 1..=300).as_bytes()), gzip(lines("g", 301..=600).as_bytes())].concat();
    assert_eq!(body_of(&compressed(members).await)["imported"], 600);
    let text = format!("\u{feff}{}\r\n\r\n{}\r\n", exported("a", 2), exported("a", 3));
    assert_eq!(body_of(&service.import(text.clone()).await)["imported"], 2);
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(service.import(little).await.failure(400).contains("UTF-16"));
    assert!(service.import(gzip(b"x")).await.failure(400).contains("`content-encoding`"));
}

#[actix_web::test]
async fn of_a_gzip_body_that_is_cut_off_the_whole_lines_are_imported() {
    let service = Service::start();
    let whole = gzip(lines("a", 1..=500).as_bytes());
    let request = head().insert_header(("content-encoding", "gzip"));
    let answer = ask(&service.api, request.set_payload(whole[..whole.len() / 2].to_vec())).await;
    assert!(answer.failure(400).contains("the gzip body is cut off"), "{answer:?}");
    let answer = body_of(&answer);
    let imported = answer["imported"].as_u64().unwrap();
    assert_eq!(answer["line"], imported + 1, "all lines before it are imported");
    assert_eq!(service.store.all_turns("a").len() as u64, imported);
    let request = head().insert_header(("content-encoding", "gzip"));
    let answer = ask(&service.api, request.set_payload("no gzip at all")).await;
    assert!(answer.failure(400).contains("is not valid gzip"), "{answer:?}");
}

#[actix_web::test]
async fn a_body_of_any_length_takes_little_memory_and_is_imported_as_it_arrives() {
    let settings = HttpSettings {
        max_buffered_bytes: 4 * 1024 * 1024,
        max_body_bytes: 1024,
        max_transfer_bytes: 1024,
        ..HttpSettings::default()
    };
    let service = Service::with(settings, |_, _| None);
    let (store, budget) = (service.store.clone(), service.api.budget.clone());
    let pieces = (0..200_u64).map(move |nth| {
        assert!(budget.reserve(64 * 1024).is_ok(), "there is room for others");
        let stored = store.all_turns("a").len() as u64;
        assert!(stored + 2 * 1024 > nth * 100, "{stored} turns are imported of {}", nth * 100);
        Ok(Bytes::from(lines("a", nth * 100 + 1..=nth * 100 + 100)))
    });
    let answer = post_stream(&service.api, head(), stream::iter(pieces)).await;
    assert_eq!(body_of(&answer)["imported"], 20_000);
    assert!(service.api.budget.reserve(3 * 1024 * 1024).is_ok(), "all of it came back");
}

#[actix_web::test]
async fn without_memory_an_import_is_refused() {
    let settings = HttpSettings { max_buffered_bytes: 100_000, ..HttpSettings::default() };
    let service = Service::with(settings, |_, _| None);
    let held = service.api.budget.reserve(64 * 1024).unwrap();
    let rest = service.api.budget.reserve(34_000).unwrap();
    assert!(service.import(lines("a", 1..=1)).await.failure(503).contains("nothing was taken in"));
    drop(rest);
    // The turns come in batches that fit.
    let pieces = (0..20).map(|nth| Ok(Bytes::from(lines("a", nth * 10 + 1..=nth * 10 + 10))));
    assert_eq!(body_of(&post_stream(&service.api, head(), stream::iter(pieces)).await)["imported"], 200);
    drop(held);
    let long = exported("a", 900).replace("\"reason\"", &format!("\"x\":\"{}\",\"reason\"", "x".repeat(200_000)));
    let answer = service.import(lines("a", 1..=1) + &long).await;
    assert!(answer.failure(413).starts_with("line 2: ") && body_of(&answer)["duplicates"] == 1, "{answer:?}");
}

#[actix_web::test]
async fn a_sender_may_take_any_time_but_must_not_stall() {
    let service = Service::start();
    tokio::time::pause();
    let pieces = |count: u64, seconds: u64| {
        let pieces = stream::iter(0..count).then(move |nth| async move {
            tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
            Ok(Bytes::from(lines("a", nth * 30 + 1..=nth * 30 + 30)))
        });
        Box::pin(pieces)
    };
    assert_eq!(body_of(&post_stream(&service.api, head(), pieces(100, 4)).await)["imported"], 3000);
    let stalled = stream::iter([Ok(Bytes::from(lines("b", 1..=2)))]).chain(stream::pending());
    let answer = post_stream(&service.api, head(), stalled).await;
    assert!(answer.failure(408).starts_with("line 3: for 10000 ms less than 1024 bytes a second"), "{answer:?}");
    assert_eq!(body_of(&answer)["imported"], 2, "the lines that had arrived");
}

#[actix_web::test]
async fn a_body_that_breaks_off_leaves_what_has_arrived() {
    let service = Service::start();
    let broken = [Ok(Bytes::from(lines("a", 1..=2) + "{\"conv")), Err(PayloadError::Incomplete(None))];
    let answer = post_stream(&service.api, head(), stream::iter(broken)).await;
    assert_eq!(answer.failure(400), "line 3: the body ended too early: import the same lines again");
    assert_eq!(service.store.all_turns("a").len(), 2);
    let again = body_of(&service.import(lines("a", 1..=5)).await);
    assert_eq!((&again["imported"], &again["duplicates"]), (&json!(3), &json!(2)));
}

#[actix_web::test]
async fn a_failure_of_the_store_is_told_with_the_line_and_the_counts() {
    let unavailable = |nth: usize, _: &CommitSeries| (nth == 1).then(|| CommitError::Unavailable(fault()));
    let service = Service::with(HttpSettings::default(), unavailable);
    let answer = service.import(lines("a", 1..=300)).await;
    let message = answer.failure(503);
    assert!(
        message.starts_with("line 257: the store is unavailable, and it is unknown whether this line"),
        "{message}"
    );
    assert!(!answer.body.as_deref().unwrap().contains("secret"));
    assert_eq!((answer.header("retry-after"), &body_of(&answer)["imported"]), (Some("1"), &json!(256)));
    let again = body_of(&service.import(lines("a", 1..=300)).await);
    assert_eq!((&again["imported"], &again["duplicates"]), (&json!(44), &json!(256)));

    let damaged = |_: usize, _: &CommitSeries| {
        Some(CommitError::Unavailable(Fault::new(FaultKind::Damaged, "damaged").caused_by("/var/lib/secret")))
    };
    let answer = Service::with(HttpSettings::default(), damaged).import(lines("a", 1..=3)).await;
    let message = answer.failure(503);
    assert!(
        message.starts_with("line 1: stored records") && message.contains("`turn-metrics check --repair`"),
        "{message}"
    );
    assert_eq!(answer.header("retry-after"), None, "sending it again does not help");

    let error = ImportError { before: ImportReceipt { imported: 1, duplicates: 1 }, why: ImportFailure::ShuttingDown };
    let api = StandIn { imports: [Err(error)].into(), ..StandIn::default() }.serving();
    let answer = import(&api, lines("a", 1..=1) + &lines("b", 1..=2) + &lines("a", 2..=2)).await;
    answer.failure(503);
    assert_eq!((&body_of(&answer)["line"], &body_of(&answer)["imported"]), (&json!(3), &json!(1)));
    let gone = StandIn { gone: true, ..StandIn::default() }.serving();
    import(&gone, lines("a", 1..=1)).await.failure(503);
    let full = StandIn { full: true, ..StandIn::default() }.serving();
    assert!(import(&full, lines("a", 1..=1)).await.failure(503).contains("nothing was taken in"));
}

#[actix_web::test]
async fn an_overload_is_waited_out_for_some_time() {
    tokio::time::pause();
    let service = Service::with(HttpSettings::default(), |nth, _| (nth % 4 > 0).then_some(CommitError::Overloaded));
    let answer = body_of(&service.import(lines("a", 1..=1000)).await);
    assert_eq!((&answer["imported"], &answer["duplicates"]), (&json!(1000), &json!(0)));
    let service = Service::with(HttpSettings::default(), |nth, _| (nth > 0).then_some(CommitError::Overloaded));
    let answer = service.import(lines("a", 1..=1000)).await;
    assert!(answer.failure(503).starts_with("line 257: too much is being worked on"), "{answer:?}");
    assert_eq!(body_of(&answer)["imported"], 256);
}

#[actix_web::test]
async fn a_turn_that_is_too_large_for_a_commit_is_told_with_its_line_and_the_setting() {
    let limit = 2000;
    let too_large = move |_, series: &CommitSeries| {
        let bytes = series.bytes();
        (bytes > limit).then_some(CommitError::TooLarge { bytes, limit })
    };
    let service = Service::with(HttpSettings::default(), too_large);
    let label = "m".repeat(256);
    let labels =
        format!("\"model\":\"{label}\",\"provider\":\"{label}\",\"project\":\"{label}\",\"reason\":\"{label}\"");
    let steps: Vec<_> =
        (0..3).map(|nth| format!(r#"{{"stepId":"{label}{nth}","usage":{{}}}}"#).replacen("mmm", "", 1)).collect();
    let long = exported("a", 6).replace("\"reason\":\"stop\"", &labels);
    let long = long.replace("\"steps\":[]", &format!("\"steps\":[{}]", steps.join(",")));
    let answer = service.import(lines("a", 1..=5) + &long + "\n" + &lines("a", 7..=7)).await;
    let message = answer.failure(422);
    assert!(
        message.starts_with("line 6: conversation `a`: turn `t6` makes a commit of more than 2000 bytes"),
        "{message}"
    );
    assert!(message.contains("`store.max_commit_bytes`"), "{message}");
    assert_eq!((&body_of(&answer)["line"], &body_of(&answer)["imported"]), (&json!(6), &json!(5)));
}

#[actix_web::test]
async fn a_turn_with_more_steps_than_a_live_one_may_have_ends_an_import() {
    let mut service = Service::start();
    service.api.handles.intake.max_steps = 2;
    let of_steps = |count: usize, at| {
        let steps: Vec<_> = (0..count).map(|nth| format!(r#"{{"stepId":"s{nth}","usage":{{}}}}"#)).collect();
        exported("a", at).replace("\"steps\":[]", &format!("\"steps\":[{}]", steps.join(",")))
    };
    let body = [of_steps(1, 1), of_steps(2, 2), of_steps(3, 3), of_steps(1, 4)].join("\n");
    let answer = service.import(body).await;
    assert_eq!(answer.failure(422), "line 3: the turn has more than 2 steps (`turns.max_steps`)");
    assert_eq!((&body_of(&answer)["line"], &body_of(&answer)["imported"]), (&json!(3), &json!(2)));
}

#[actix_web::test]
async fn other_requests_are_served_while_a_long_line_is_read() {
    let long = exported("a", 1).replacen('{', &format!("{{\"x\":[{}],", vec!["0"; 50_000].join(",")), 1);
    for body in [long.clone() + "\n", long.clone(), format!("{}\n{long}\n", exported("b", 1))] {
        let service = Service::start();
        let hold = service.api.long_work.occupy();
        let mut importing = std::pin::pin!(service.import(body));
        for _ in 0..1000 {
            assert!(futures_util::poll!(&mut importing).is_pending(), "it was read on this thread");
            yield_now().await;
        }
        get(&service.api, "/health").await.success();
        drop(hold);
        importing.await.success();
    }
}

#[actix_web::test]
async fn few_imports_are_read_at_a_time() {
    let service = Service::with(HttpSettings { max_imports: 2, ..HttpSettings::default() }, |_, _| None);
    let begin = || Box::pin(post_stream(&service.api, head(), stream::pending()));
    let mut imports = [begin(), begin()];
    for import in &mut imports {
        assert!(futures_util::poll!(import).is_pending());
    }
    let refused = service.import(lines("a", 1..=1)).await;
    assert!(refused.failure(503).contains("`http.max_imports`"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // One that ends makes room.
    let [_, other] = imports;
    drop(other);
    service.import(lines("a", 1..=1)).await.success();
}

#[actix_web::test]
async fn the_log_has_one_line_for_the_turns_of_a_message() {
    let service = Service::start();
    let log = Log::start();
    service.import(lines("a", 1..=100)).await.success();
    let log = log.end();
    assert_eq!(log.matches("turns imported").count(), 1, "{log}");
    assert!(log.contains("imported=100") && !log.contains("turn sealed"), "{log}");
}

#[actix_web::test]
async fn pages_of_other_origins_may_not_import() {
    let (api, seen) = StandIn::default().start_with(HttpSettings::default());
    let request = head().insert_header(("origin", "https://page.example")).set_payload(lines("a", 1..=1));
    ask(&api, request).await.failure(403);
    assert!(seen.lock().unwrap().imports.is_empty());
    get(&api, "/import").await.failure(405);
    import(&api, lines("a", 4..=5)).await.success();
    let seen = seen.lock().unwrap();
    let imported = &seen.imports[0].turns[0];
    assert_eq!((imported.conversation_id.as_str(), imported.ordinal.unwrap().get()), ("a", 4));
}
