//! The resources, one file each. A resource asks the actors and writes the answer.
//!
//! Invariants: a resource reads the store through messages only. Every resource is mounted from a
//! [`Route`](super::access::Route).
//!
//! - `events`: `POST /events`.
//! - `import`: `POST /import`.
//! - `metrics`: `GET /conversations/{id}/metrics`.
//! - `turns`: `GET /conversations/{id}/turns`.
//! - `summary`: `GET /conversations/{id}/summary`.
//! - `conversations`: `GET /conversations`.
//! - `erase`: `DELETE /conversations/{id}`.
//! - `stats`: `GET /stats`.
//! - `throughput`: `GET /metrics/throughput`.
//! - `prices`: `GET /prices`.
//! - `all_turns`: `GET /turns`.
//! - `export`: `GET /export`.
//! - `feed`: `GET /feed`.
//! - `query`: the parameters of a request.
//! - `answer`: sends an answer in one piece.
//! - `pieces`: reads and sends an answer piece by piece.
//! - `turn_list`: the turns of a conversation as such an answer.
//! - `sealed_list`: the turns of all conversations as such an answer.
//! - `held_bytes`: the memory for answers that clients have not read yet, which all requests share.
//! - `feed_control`: limits the readers of the feed over all workers, and ends their streams.
//! - `turnstile`: limits how many requests compute a report at the same time.
//! - `parts`: hands a long answer to its connection part by part.
//! - `backup`: `GET /backup`.
//! - `health`: `GET /health` and `GET /ready`.
//! - `path_id`: the id of a conversation in a path.
//! - `cache`: the cache for answers of `metrics`.
//! - `api`: the state that the resources share.
//! - `mount`: binds each route to its handler.

pub(crate) mod all_turns;
pub(crate) mod answer;
pub(crate) mod api;
pub(crate) mod backup;
pub(crate) mod cache;
pub(crate) mod conversations;
pub(crate) mod erase;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod feed;
pub(crate) mod feed_control;
pub(crate) mod health;
pub(crate) mod held_bytes;
pub(crate) mod import;
pub(crate) mod metrics;
pub(crate) mod mount;
pub(crate) mod parts;
pub(crate) mod path_id;
pub(crate) mod pieces;
pub(crate) mod prices;
pub(crate) mod query;
pub(crate) mod sealed_list;
pub(crate) mod stats;
pub(crate) mod summary;
pub(crate) mod throughput;
pub(crate) mod turn_list;
pub(crate) mod turns;
pub(crate) mod turnstile;
