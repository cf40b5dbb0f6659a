//! File descriptors: each connection needs one, and the system limits how many of them a process may have.

use super::service::ServiceError;
use crate::http;
use crate::settings::HttpSettings;

/// The number of descriptors that the server needs besides those of connections and workers: for files, pipes, timers
/// and a backup.
const OWN: u64 = 48;

/// The number of descriptors that a worker needs.
const OF_A_WORKER: u64 = 8;

/// The minimum number of connections with which the service starts.
const LEAST_CONNECTIONS: usize = 16;

/// How many connections the descriptor limit of the process allows.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    /// All connections of the settings are possible.
    All,
    /// Only this many connections.
    Fewer(usize),
    /// Too few connections to start the service. The process needs this many descriptors.
    None { needed: u64 },
}

/// Gets the descriptors that the settings need. It raises the limit of the process as far as the system allows, and
/// reduces the number of connections if that is not enough.
pub(super) fn make_room(settings: &mut HttpSettings) -> Result<(), ServiceError> {
    let workers = http::worker_count(settings);
    let fixed = OWN + OF_A_WORKER * workers as u64;
    let needed = fixed + http::accepted_connections(settings.max_connections, workers) as u64;
    let Some(limit) = raise_to(needed) else { return Ok(()) };
    match fit(limit, fixed, workers, settings.max_connections) {
        Fit::All => {}
        Fit::Fewer(connections) => {
            tracing::warn!(
                limit,
                needed,
                connections,
                "the process may open too few files for `http.max_connections`, so fewer connections can be open: \
                 raise `ulimit -n`"
            );
            settings.max_connections = connections;
        }
        Fit::None { needed } => return Err(ServiceError::TooFewDescriptors { limit, needed }),
    }
    Ok(())
}

fn fit(limit: u64, fixed: u64, workers: usize, max_connections: usize) -> Fit {
    let descriptors = |connections| fixed + http::accepted_connections(connections, workers) as u64;
    if limit >= descriptors(max_connections) {
        return Fit::All;
    }
    let least = LEAST_CONNECTIONS.max(workers);
    if limit < descriptors(least) {
        return Fit::None { needed: descriptors(least) };
    }
    // Each worker has the same number of connections, and an eighth more as headroom, at least one.
    let of_a_worker = usize::try_from(limit - fixed).unwrap_or(usize::MAX) / workers;
    let mut connections = of_a_worker / 9 * 8 + of_a_worker % 9;
    while http::with_headroom(connections) > of_a_worker {
        connections -= 1;
    }
    Fit::Fewer((connections * workers).min(max_connections))
}

/// Raises the limit to `needed` if it is lower, as far as the system allows. Returns the limit; `None` if there is
/// none.
#[cfg(unix)]
fn raise_to(needed: u64) -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current?;
    if current >= needed {
        return Some(current);
    }
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    let limit = Rlimit { current: Some(raised), maximum };
    Some(if raised > current && setrlimit(Resource::Nofile, limit).is_ok() { raised } else { current })
}

#[cfg(not(unix))]
fn raise_to(_needed: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_within_the_limit() {
        assert_eq!(fit(64 + 1152, 64, 1, 1024), Fit::All);
        assert_eq!(fit(64 + 1151, 64, 1, 1024), Fit::Fewer(1023));
        assert_eq!(fit(31, 64, 1, 1024), Fit::None { needed: 82 });
        assert_eq!(fit(81, 64, 1, 1024), Fit::None { needed: 82 });
        for workers in [1, 2, 3, 8, 64, 512] {
            let descriptors = |connections| 64 + http::accepted_connections(connections, workers) as u64;
            let mut before = 0;
            for limit in 0..descriptors(1024) {
                match fit(limit, 64, workers, 1024) {
                    Fit::All => panic!("{limit} is too few"),
                    Fit::Fewer(connections) => {
                        assert!(connections >= workers.max(before), "{workers}, {limit}: {connections}");
                        assert!(descriptors(connections) <= limit, "{workers}, {limit}: {connections}");
                        before = connections;
                    }
                    Fit::None { needed } => assert!(needed > limit && before == 0, "{workers}, {limit}: {needed}"),
                }
            }
            assert_eq!(fit(descriptors(1024), 64, workers, 1024), Fit::All);
        }
    }

    #[test]
    fn many_workers_accept_more_connections_than_few() {
        // Each worker has at least one connection, and one more as headroom.
        assert_eq!(http::accepted_connections(16, 512), 1024);
        assert_eq!(http::accepted_connections(1024, 1), 1152);
        assert_eq!(http::accepted_connections(1024, 512), 1536);
    }
}
