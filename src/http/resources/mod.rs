//! The resources, one file each. A resource asks the actors and writes the answer.
//!
//! Invariants: a resource reads the store through messages only. Every resource is mounted from a
//! [`Route`](super::access::Route).
//!
//! - `events`: `POST /events`.
//! - `metrics`: `GET /conversations/{id}/metrics`.
//! - `turns`: `GET /conversations/{id}/turns`.
//! - `summary`: `GET /conversations/{id}/summary`.
//! - `conversations`: `GET /conversations`.
//! - `erase`: `DELETE /conversations/{id}`.
//! - `stats`: `GET /stats`.
//! - `throughput`: `GET /metrics/throughput`.
//! - `prices`: `GET /prices`.
//! - `query`: the parameters of a request.
//! - `answer`: sends an answer in one piece.
//! - `turn_list`: reads the turns of a conversation piece by piece, and writes them as JSON.
//! - `held_bytes`: the memory for answers that clients have not read yet, which all requests share.
//! - `turnstile`: limits how many requests compute a report at the same time.
//! - `parts`: hands a long answer to its connection part by part.
//! - `backup`: `GET /backup`.
//! - `health`: `GET /health` and `GET /ready`.
//! - `path_id`: the id of a conversation in a path.
//! - `cache`: the cache for answers of `metrics`.
//! - `api`: the state that the resources share.
//! - `mount`: binds each route to its handler.

pub(crate) mod answer;
pub(crate) mod api;
pub(crate) mod backup;
pub(crate) mod cache;
pub(crate) mod conversations;
pub(crate) mod erase;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod held_bytes;
pub(crate) mod metrics;
pub(crate) mod mount;
pub(crate) mod parts;
pub(crate) mod path_id;
pub(crate) mod prices;
pub(crate) mod query;
pub(crate) mod stats;
pub(crate) mod summary;
pub(crate) mod throughput;
pub(crate) mod turn_list;
pub(crate) mod turns;
pub(crate) mod turnstile;
