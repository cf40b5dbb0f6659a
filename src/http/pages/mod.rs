//! The dashboard: pages for people, rendered by the server.
//!
//! Every figure about turns is one that the API has. A page asks the question of an API resource by that resource's own
//! query, and links to it, so that the reader can check the figure. The state of the service is no resource: of its
//! page, the API has only the readiness and the damage. The pages load nothing from elsewhere, and work without
//! anything but this server. Their one script, `live.js`, shows what the feed sends after a page was made; the pages
//! are complete without it.
//!
//! Invariants: a page reads the store through messages only, and holds no more of it than the resource would. No text
//! from outside becomes markup. The markup has no styles, which the content security policy forbids.
//!
//! Pages:
//!
//! - `overview`: cost, tokens, cache and times of a period, and the latest turns.
//! - `conversations`: the list of conversations.
//! - `conversation`: the turns of one conversation.
//! - `models`: models side by side, and their prices.
//! - `service`: the state of the service.
//!
//! What they share:
//!
//! - `mount`: binds each page to its path.
//! - `answer`: sends a page, or a failure as a page.
//! - `protection`: the headers of every page and file.
//! - `layout`: the frame of every page.
//! - `view`: the time and the zone that a page shows, and the links and the form that choose them.
//! - `panel`: a chart or a table with its heading, its table and its link to the API.
//! - `figure`: numbers, times and names as markup, with the exact value beside the short one.
//! - `link`: addresses.
//! - `live`: what the feed sends after the page was made.
//! - `charts`: charts as SVG.
//! - `files`: the style sheet, the icon and the script.

pub(crate) mod answer;
pub(crate) mod charts;
pub(crate) mod conversation;
pub(crate) mod conversations;
pub(crate) mod figure;
pub(crate) mod files;
pub(crate) mod layout;
pub(crate) mod link;
pub(crate) mod live;
pub(crate) mod models;
pub(crate) mod mount;
pub(crate) mod overview;
pub(crate) mod panel;
pub(crate) mod protection;
pub(crate) mod service;
pub(crate) mod view;
