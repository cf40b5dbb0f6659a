//! The page `/ui/conversations`: the list of conversations.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};

use super::answer::answer;
use super::figure;
use super::layout::{Page, Place, root};
use super::link::{self, of_conversation, with_query};
use super::panel::{panel, scrolling};
use super::view::View;
use crate::actors::ListConversations;
use crate::http::error::ApiError;
use crate::http::resources::api::{Api, ask_store};
use crate::http::resources::conversations::{ORDERS, asked, cursor};
use crate::http::resources::query::Query;
use crate::store::{ConversationQuestion, ListedConversation};
use crate::turn::{Label, TokenCount};

const PARAMETERS: &[&str] = &["order", "prefix", "model", "after", "range", "first", "last", "tz"];

/// The number of conversations on a page.
const LIMIT: usize = 50;

/// Shows a page of the list.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> HttpResponse {
    let page = page(&api, &request).await;
    answer(&api, &request, Place::Conversations, page).await
}

async fn page(api: &Api, request: &HttpRequest) -> Result<Page, ApiError> {
    let query = Query::read(request.query_string(), PARAMETERS)?;
    let view = View::read(api, &query, "all")?.outward();
    let given = |name| query.text(name).unwrap_or_default();
    let order = if given("order").is_empty() { "recent" } else { given("order") };
    let kept = [("order", order), ("prefix", given("prefix")), ("model", given("model"))];
    let limit = LIMIT.to_string();
    let (from, to) = view.bounds.map(|(from, to)| (from.to_string(), to.to_string())).unwrap_or_default();
    let own = [("limit", &*limit), ("from", &*from), ("to", &*to), ("after", given("after"))];
    let api_query = link::query(&[&kept[..], &own].concat());
    let question = asked(api, &api_query)?;
    let _inside = if question.finds_by_index() { None } else { Some(api.reports.enter().await?) };
    let by = question.order;
    // Ask for one conversation more than the page holds, to see whether there is another page.
    let list = ListConversations(ConversationQuestion { limit: LIMIT + 1, ..question });
    let listed = ask_store(&api.handles.reads.list_conversations, list).await?;
    let next = (listed.len() > LIMIT).then(|| cursor(by, &by.place(&listed[LIMIT - 1])));
    let listed = &listed[..listed.len().min(LIMIT)];
    let root = root(request.uri().path());
    let is_first = given("after").is_empty();
    let pages = html! {
        nav class="pages" aria-label="Pages of the list" {
            @if !is_first { a class="button" href={ "?" (view.query_with(&kept)) } { "First page" } }
            @if let Some(next) = &next {
                a class="button" rel="next" href={ "?" (view.query_with(&[&kept[..], &[("after", next)]].concat())) } {
                    "Next page"
                }
            }
        }
    };
    let table = html! {
        @if listed.is_empty() {
            p class="empty" {
                @if !is_first { "There are no further conversations." }
                @else if kept[1].1.is_empty() && kept[2].1.is_empty() && view.bounds.is_none() {
                    "No conversation has a sealed turn yet."
                }
                @else { "No conversation fits. Choose another time, or a shorter beginning of the id." }
            }
        } @else {
            (rows(&root, &view, &kept, listed))
        }
        @if !is_first || next.is_some() { (pages) }
    };
    let only = if view.bounds.is_some() { ", of those whose latest turn is in this time" } else { "" };
    let title = format!("{}{only}", heading(order));
    let address = format!("{root}{}", with_query("conversations", &api_query));
    let body = html! {
        h1 { "Conversations" }
        (view.controls(&kept, true))
        (search(&view, &kept))
        (panel("list", &title, note(&view, &kept), Some(&address), &table))
    };
    let carried = view.query();
    Ok(Page { title: "Conversations".to_owned(), carried, zone: Some(view.zone.name().to_owned()), body })
}

fn heading(order: &str) -> &'static str {
    match order {
        "tokens" => "By tokens",
        "cost" => "By cost",
        "turns" => "By number of turns",
        _ => "By latest turn",
    }
}

/// Says which conversations are listed, and where the others are.
fn note(view: &View, kept: &[(&str, &str); 3]) -> Markup {
    let others = match kept[0].1 {
        "tokens" => "Others may have more tokens",
        "cost" => "Others may be dearer",
        "turns" => "Others may have more turns",
        _ => "There may be others",
    };
    html! {
        @if view.bounds.is_some() {
            "Only conversations whose latest turn is in the chosen time are listed. Their figures count all their turns, earlier \
             ones too. " (others) ": see "
            a href={ "?" (view.query_of_all_time(kept)) } { "the same list for all time" } "."
        } @else { "The figures of a conversation count all its turns." }
    }
}

fn search(view: &View, kept: &[(&str, &str); 3]) -> Markup {
    let [(_, order), (_, prefix), (_, model)] = *kept;
    // The form keeps the time and the zone of the page.
    let hidden = view.parameters().into_iter().filter(|(_, value)| !value.is_empty());
    html! {
        form class="search" role="search" {
            label { "Beginning of the id" input type="search" name="prefix" value=(figure::input_value(prefix)) autocomplete="off"; }
            label { "Model of the latest turn" input type="search" name="model" value=(figure::input_value(model)) autocomplete="off"; }
            label { "Order"
                select name="order" {
                    @for (name, _) in ORDERS { option value=(name) selected[*name == order] { (heading(name)) } }
                }
            }
            @for (name, value) in hidden { input type="hidden" name=(name) value=(figure::input_value(value)); }
            button { "Search" }
        }
    }
}

fn rows(root: &str, view: &View, kept: &[(&str, &str); 3], listed: &[ListedConversation]) -> Markup {
    let [(_, order), prefix, model] = *kept;
    let costs: Vec<_> = listed.iter().map(|listed| listed.sums.cost.figures()).collect();
    let places = figure::places(costs.iter().map(|cost| cost.usd));
    let column = |name: &'static str, by: &'static str, class: &'static str| {
        html! {
            th scope="col" class=(class) aria-sort=[(by == order).then_some("descending")] {
                a href={ "?" (view.query_with(&[("order", by), prefix, model])) } title={ "Sort " (heading(by).to_lowercase()) } { (name) }
            }
        }
    };
    scrolling(
        "Conversations",
        &html! {
            table {
                caption class="hidden" { "Conversations, " (heading(order)) }
                thead {
                    tr {
                        th scope="col" { "Conversation" }
                        (column("Latest turn", "recent", ""))
                        (column("Turns", "turns", "number"))
                        (column("Tokens", "tokens", "number"))
                        th scope="col" class="number" { "Output tokens" }
                        th scope="col" class="number" { "Cache rate" }
                        th scope="col" class="number" { "Context tokens" }
                        (column("Cost", "cost", "number"))
                        th scope="col" { "Model" }
                        th scope="col" { "Project" }
                    }
                }
                tbody {
                    @for (listed, cost) in listed.iter().zip(&costs) {
                        @let usage = listed.total_usage;
                        tr {
                            th scope="row" class="id" {
                                a href={ (root) "ui/" (with_query(&of_conversation(&listed.conversation_id, "turns"), &view.zone_query())) } {
                                    (figure::id(listed.conversation_id.as_str()))
                                }
                                @if listed.open_turns > 0 {
                                    " " span class="badge open" { (listed.open_turns) " open" }
                                }
                            }
                            td { (figure::moment(listed.last_at.get(), &view.zone)) }
                            td class="number" { (figure::count(listed.sealed_turns, "turns")) }
                            td class="number" {
                                (figure::tokens(i128::from(usage.input_tokens.get()) + i128::from(usage.output_tokens.get())))
                            }
                            td class="number" { (figure::tokens(usage.output_tokens.get())) }
                            td class="number" { (figure::share(listed.sums.cache_rate())) }
                            td class="number" { (figure::optional_tokens(listed.context_size.map(TokenCount::get))) }
                            td class="number" { (figure::cost(cost, places)) }
                            td class="id" { (figure::model(listed.model.as_ref())) }
                            td class="id" {
                                @if let Some(project) = &listed.project { (figure::name(Label::as_str(project))) }
                            }
                        }
                    }
                }
            }
        },
    )
}
