//! The part of a page that shows what the feed sends after the page was made.

use maud::{Markup, html};

use super::files::SCRIPT;
use super::link::{self, with_query};
use super::view::View;
use crate::store::Position;
use crate::turn::ConversationId;

/// What a page follows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Followed<'a> {
    /// The turns of all conversations, as they are sealed.
    AllTurns,
    /// The turns of a conversation, also those that are open. The page has the sealed turns up to the ordinal `known`.
    Conversation { id: &'a ConversationId, known: u64 },
}

/// Returns the part, which its script fills and shows. Without the script it stays hidden. `root` leads to the root of
/// the server, and the page has everything up to the position `after`.
pub(crate) fn live(root: &str, view: &View, after: Position, followed: Followed<'_>) -> Markup {
    let after = after.to_string();
    let (conversation, known) = match followed {
        Followed::AllTurns => ("", None),
        Followed::Conversation { id, known } => (id.as_str(), Some(known)),
    };
    let feed = with_query("feed", &link::query(&[("after", &after), ("conversation", conversation)]));
    let pages = known.is_none().then(|| format!("{root}ui/conversations/"));
    html! {
        section class="card live" id="live" aria-labelledby="live-heading" hidden
            data-feed={ (root) (feed) } data-pages=[pages] data-query=(with_query("", &view.zone_query()))
            data-zone=(view.zone.name()) data-known=[known] {
            div class="card-head" {
                h2 id="live-heading" { "Live" }
                span class="note" id="live-state" role="status" {}
            }
            p id="live-news" { "Nothing was sealed since this page was made." }
            // The news changes with every turn. A screen reader reads this paragraph, which changes every ten seconds at most.
            p class="hidden" id="live-spoken" role="status" {}
            @if known.is_some() { ul id="live-open" {} }
            ol id="live-sealed" {}
        }
        script src={ (root) (SCRIPT.address()) } defer {}
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::http::resources::query::Query;
    use crate::http::stand_in::StandIn;
    use crate::store::Lineage;

    #[actix_web::test]
    async fn the_part_is_hidden_and_says_where_its_script_continues() {
        let api = StandIn::default().serving();
        let query = Query::read("tz=Asia%2FTokyo", &["tz"]).unwrap();
        let view = View::read(&api, &query, "7d").unwrap();
        let after = Position { lineage: Lineage(Uuid::from_u128(0xab)), number: 2 };
        let all = live("./", &view, after, Followed::AllTurns).into_string();
        let feed = "feed?after=000000000000000000000000000000ab-0000000000000002";
        let part = format!(
            r#"hidden data-feed="./{feed}" data-pages="./ui/conversations/" data-query="?tz=Asia%2FTokyo" data-zone="Asia/Tokyo">"#
        );
        assert!(all.contains(&part), "{all}");
        let id = ConversationId::new("a/\"b").unwrap();
        let one = live("../../../", &view, after, Followed::Conversation { id: &id, known: 7 }).into_string();
        assert!(one.contains(&format!(r#"data-feed="../../../{feed}&amp;conversation=a%2F%22b""#)), "{one}");
        assert!(one.contains(r#"data-known="7""#) && !one.contains("data-pages"), "{one}");
        // What changes with every turn is not announced.
        assert!(one.contains(r#"<p id="live-news">"#) && one.contains(r#"id="live-spoken" role="status""#), "{one}");
        assert!(one.contains(r#"id="live-state" role="status""#), "{one}");
        assert!(one.contains(r#"<ul id="live-open"></ul>"#) && !all.contains("live-open"), "{one}");
    }
}
