//! The page `/ui/service`: the state of the service.

use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};
use tokio::time::timeout;
use tracing::warn;

use super::answer::answer;
use super::figure;
use super::layout::{Page, Place, root};
use super::panel::panel;
use super::view::View;
use crate::http::error::ApiError;
use crate::http::resources::api::Api;
use crate::http::resources::health::{DAMAGE_ADVICE, check};
use crate::http::resources::query::Query;
use crate::runtime::SystemReport;
use crate::store::{DamageReport, DropError};

const PARAMETERS: &[&str] = &["tz", "range", "first", "last"];

/// What a service that is ready has shown.
const READY: &str = "Ready: a test write has just been stored safely on the disk.";

/// How long the page waits for the parts of the system to report their state.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shows whether the service is ready, how much it does and holds, and its versions.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> HttpResponse {
    let page = page(&api, &request).await;
    answer(&api, &request, Place::Service, page).await
}

async fn page(api: &Api, request: &HttpRequest) -> Result<Page, ApiError> {
    let query = Query::read(request.query_string(), PARAMETERS)?;
    let view = View::read(api, &query, "7d")?;
    // Neither answers while the disk is stuck, so wait for both at the same time.
    let (readiness, report) = tokio::join!(check(api), report(api));
    let root = root(request.uri().path());
    let ready = html! {
        @match &readiness {
            Ok(()) => { p class="state ready" { span aria-hidden="true" { "● " } (READY) } }
            Err(reason) => {
                p class="state not-ready" role="alert" {
                    span aria-hidden="true" { "▲ " } "Not ready: " (reason.to_string()) "."
                }
            }
        }
    };
    let edition = api.prices.edition();
    let prices = edition.map_or_else(|| html! { "none" }, |edition| html! { (edition.table) ", " (edition.date) });
    let versions = facts(&[
        ("turn-metrics", html! { (env!("CARGO_PKG_VERSION")) }, ""),
        ("Price list", prices, "published prices that are used, with past ones for earlier turns"),
        ("Zone of reports", html! { (api.zone.name()) }, "unless a page or a request names another"),
        ("Now", figure::moment(api.clock.now().get(), &view.zone), "by the clock of the service"),
    ]);
    let body = html! {
        h1 { "Service" }
        (panel("readiness", "Readiness", "", Some(&format!("{root}ready")), &ready))
        @if let Some(report) = &report { (damage(&report.store.damage)) }
        div class="charts" {
            @if let Some(report) = &report { (parts(report)) }
            @else { (panel("parts", "State", "", None, &html! { p role="alert" { "The parts of the service do not answer. The log may have the cause." } })) }
            (panel("versions", "Versions", "", None, &versions))
        }
    };
    let carried = view.query();
    Ok(Page { title: "Service".to_owned(), carried, zone: Some(view.zone.name().to_owned()), body })
}

/// Asks the parts of the system for their state. `None` if one of them has ended, or does not answer in time.
async fn report(api: &Api) -> Option<SystemReport> {
    match timeout(PATIENCE, api.handles.operations.report()).await {
        Ok(Ok(report)) => return Some(report),
        Ok(Err(cause)) => warn!(%cause, "a part of the system has ended"),
        Err(_) => warn!(timeout = ?PATIENCE, "a part of the system does not answer"),
    }
    None
}

/// Shows what the store knows of damage, if there is any.
fn damage(report: &DamageReport) -> Markup {
    if !report.is_any() {
        return html! {};
    }
    let DamageReport { left_out_records, findings, .. } = report;
    let rows = facts(&[
        (
            "Damaged records",
            figure::count(*left_out_records, "records"),
            "left out of answers; each counts at each read",
        ),
        ("Findings", figure::count(*findings, "findings"), "kinds of damage; their conversations take nothing new"),
    ]);
    let body = html! {
        p class="state not-ready" role="alert" { span aria-hidden="true" { "▲ " } "A part of the stored data is damaged." }
        p { "The rest works. To repair it, " (DAMAGE_ADVICE) "." }
        (rows)
    };
    panel("damage", "Damage", "", None, &body)
}

/// Names and values, each with its meaning.
fn facts(rows: &[(&str, Markup, &str)]) -> Markup {
    html! {
        dl class="facts" {
            @for (name, value, meaning) in rows {
                div { dt { (name) } dd { (value) } dd class="meaning" { (meaning) } }
            }
        }
    }
}

/// What the counted commits are.
const COMMIT_NOTE: &str = "Counts of this process. A commit writes changes of one conversation to the disk, such as the end of a \
                           turn: all of them or none.";

/// Shows the state of the parts of the system.
fn parts(SystemReport { work, store, sweeper, retention }: &SystemReport) -> Markup {
    let kept = match (retention.keep, retention.clock_ahead_by) {
        (None, _) => "turns are kept for ever".to_owned(),
        (Some(keep), None) => format!("turns are kept for {}", humantime::format_duration(keep)),
        (Some(_), Some(by)) => format!("no turns are dropped now: {}", DropError::ClockAhead { by }),
    };
    let sizes = facts(&[
        ("Files", figure::bytes(store.sizes.file_bytes), "all of it, on the disk"),
        (
            "Waiting for the tables",
            figure::bytes(store.sizes.recent_bytes),
            "the latest changes, by their size in memory: safe in the journal on the disk, and not in the tables yet",
        ),
        (
            "Rows of the tables",
            figure::bytes(store.sizes.live_bytes),
            "what the last move left there, without the overhead of the database; what still waits is not in it",
        ),
    ]);
    let lag = facts(&[
        ("Commits waiting", figure::length(store.waiting_commits, "commits"), "not safe on the disk yet"),
        (
            "Requests in progress",
            figure::length(work.in_flight, "messages"),
            "each with events of one conversation, not answered yet",
        ),
        (
            "Conversations in memory",
            figure::length(work.active_conversations, "conversations"),
            "those with the latest events; all others are on the disk alone",
        ),
    ]);
    let counters = facts(&[
        ("Commits", figure::count(store.commits, "commits"), "that are safe on the disk"),
        (
            "Commits in doubt",
            figure::count(store.failed_commits, "commits"),
            "the store failed meanwhile, so they may be stored or not; to send the same events again is safe",
        ),
        (
            "Refused commits",
            figure::count(store.refused_commits, "commits"),
            "because too many were waiting, or because one was too large; nothing of them is stored",
        ),
        (
            "Outdated commits",
            figure::count(store.conflicts, "commits"),
            "made for a state of the conversation that had changed meanwhile, so the service made them anew",
        ),
        ("Warnings", figure::count(work.warnings, "warnings"), "about events that are probably wrong"),
        ("Abandoned turns", figure::count(sweeper.sealed_turns, "turns"), "sealed because their events stopped coming"),
        ("Dropped turns", figure::count(retention.dropped_turns, "turns"), &*kept),
        (
            "Crashes",
            figure::count(work.died, "crashes"),
            "of the part for one conversation, which began again; each is a defect of turn-metrics",
        ),
        ("Scrub passes", figure::count(store.damage.scrub_passes, "passes"), "that have read all rows to find damage"),
        (
            "Scrubbed rows",
            figure::count(store.damage.scrubbed_rows, "rows"),
            "read by these passes and the present one",
        ),
    ]);
    html! {
        (panel("lag", "Work in progress", "At this moment.", None, &lag))
        (panel("sizes", "Sizes", "Of the store.", None, &sizes))
        (panel("counters", "Since the start", COMMIT_NOTE, None, &counters))
    }
}
