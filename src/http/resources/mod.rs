//! The resources: one file each, which asks the actors and writes the answer.
//!
//! Invariants: a resource reads the store by messages only. A resource that is not mounted from a
//! [`Route`](super::access::Route) does not exist.
//!
//! - `events`: `POST /events`.
//! - `metrics`: `GET /conversations/{id}/metrics`.
//! - `turns`: `GET /conversations/{id}/turns`.
//! - `summary`: `GET /conversations/{id}/summary`.
//! - `conversations`: `GET /conversations`.
//! - `stats`: `GET /stats`.
//! - `throughput`: `GET /metrics/throughput`.
//! - `prices`: `GET /prices`.
//! - `query`: the parameters of a request.
//! - `answer`: an answer in one piece.
//! - `turn_list`: the turns of a conversation as JSON, read piece by piece.
//! - `held_bytes`: the memory for answers that are not read yet, shared by all requests.
//! - `turnstile`: how many may ask for reports at a time.
//! - `parts`: hands a long answer to its connection part by part.
//! - `backup`: `GET /backup`.
//! - `health`: `GET /health` and `GET /ready`.
//! - `path_id`: the conversation in a path.
//! - `cache`: keeps answers of `metrics`.
//! - `api`: the state that the resources share.
//! - `mount`: binds each route to its handler.

pub(crate) mod answer;
pub(crate) mod api;
pub(crate) mod backup;
pub(crate) mod cache;
pub(crate) mod conversations;
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
